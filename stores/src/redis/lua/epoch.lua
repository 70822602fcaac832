-- advance. Moves cursor and watermark forward, never back.
--   KEYS  1 the partition's epoch
--   ARGV  1 incarnation   2 nonce   3 cursor   4 watermark (8 bytes each)
-- Reply: {why not} or {served}.

local function advance(keys, args)
  local epoch, why = epoch_of(keys[1], args[1], '1')
  if not epoch then return refusal(why) end
  if args[2] ~= epoch.nonce then return refusal(OTHER_NONCE) end
  local cursor, watermark = args[3], struct.unpack('<i8', args[4])
  if not later(cursor, epoch.cursor) then cursor = epoch.cursor end
  watermark = math.max(watermark, epoch.watermark)
  redis.call('SET', keys[1], struct.pack('<Bc8c8i8', 1, epoch.nonce, cursor, watermark) .. args[1])
  return { served(epoch) }
end

register('advance', advance, { 'allow-oom' })

-- close. Closes the partition, whoever has it.
--   KEYS  1 the partition's epoch
--   ARGV  1 incarnation   2 the new nonce
-- Reply: {'1'}.

local function close(keys, args)
  redis.call('SET', keys[1], struct.pack('<Bc8c8i8', 0, args[2], string.rep('\0', 8), 0) .. args[1])
  return { '1' }
end

register('close', close, { 'allow-oom' })

-- open. Opens the partition, unless somebody else has closed it since, or the server has changed.
--   KEYS  1 the partition's epoch
--   ARGV  1 incarnation   2 the nonce with which it was closed   3 cursor   4 watermark
-- Reply: {'1'} it is open under this nonce, {'0'} it is not.

local function open(keys, args)
  local raw = redis.call('GET', keys[1])
  if not raw then return { '0' } end
  local is_open, nonce, _, _, at = struct.unpack('<Bc8c8i8', raw)
  if nonce ~= args[2] or string.sub(raw, at) ~= args[1] then return { '0' } end
  -- The answer to an earlier call may have been lost; what was let in since stays.
  if is_open ~= 1 then
    redis.call('SET', keys[1], '\1' .. nonce .. args[3] .. args[4] .. args[1])
  end
  return { '1' }
end

register('open', open, { 'allow-oom' })
