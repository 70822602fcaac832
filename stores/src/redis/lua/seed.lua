-- seed. Takes over terms that are newer and totals of months that are not known.
--   KEYS  1 the partition's epoch
--   ARGV  1 incarnation   2 the time in milliseconds, 0: the server's
--         3 nonce, empty: whichever is in force
--         4 … one each: 'T', user id, terms (TERMS)
--                    or 'L', user id, period, cursor, tokens and requests in the ledger
-- Reply: {why not} or {served}.

-- A user's months of an earlier epoch are of no use any more.
local function drop_older(epoch, user_id, list)
  for at = 9, #list, 4 do
    local key = epoch.head .. 'm' .. user_id .. string.sub(list, at, at + 3)
    local sums = redis.call('HGET', key, 's')
    if sums and string.sub(sums, 1, 8) ~= epoch.nonce then redis.call('UNLINK', key) end
  end
end

local function seed_terms(epoch, user_id, terms)
  local key = epoch.head .. 'u' .. user_id
  local found = redis.call('HMGET', key, 't', 'm')
  local old, list = found[1], found[2]
  if list and string.sub(list, 1, 8) ~= epoch.nonce then
    drop_older(epoch, user_id, list)
    redis.call('HDEL', key, 'm')
  end
  if old and string.sub(old, 1, 8) == epoch.nonce then
    if string.byte(old, 9) == GONE then return end
    -- The version follows the first byte. The same one again replaces: the expiry of a
    -- subscription makes other terms of it without a change.
    if string.byte(terms, 1) ~= GONE and later(string.sub(old, 10, 17), string.sub(terms, 2, 9)) then return end
  end
  drop_copies(epoch, user_id, list)
  redis.call('HSET', key, 't', epoch.nonce .. terms)
end

-- Only if the snapshot is not older than what is counted: events counted between the two have
-- left, and nobody would bring their totals.
local function seed_totals(epoch, user_id, raw)
  local period, cursor, low, high, chats, checks, prompts = struct.unpack('<c4c8I4I4I8I8I8', raw)
  if later(epoch.cursor, cursor) then return end
  local key = epoch.head .. 'm' .. user_id .. period
  local sums = redis.call('HGET', key, 's')
  if sums then
    if string.sub(sums, 1, 8) == epoch.nonce then return end
    redis.call('UNLINK', key)
  end
  redis.call('HSET', key, 's', struct.pack(SUMS, epoch.nonce, cursor, low, high, chats, checks, prompts, 0, 0, 0,
    0, 0, 0, NEVER, NEVER))
  if is_over(epoch, period) then redis.call('EXPIRE', key, DAY_SECONDS) end
end

local function seed(keys, args)
  local epoch, why = epoch_of(keys[1], args[1], args[2])
  if not epoch then return refusal(why) end
  if args[3] ~= '' and args[3] ~= epoch.nonce then return refusal(OTHER_NONCE) end
  for number = 4, #args do
    local raw = args[number]
    local user_id, rest = string.sub(raw, 2, 17), string.sub(raw, 18)
    if string.sub(raw, 1, 1) == 'T' then
      seed_terms(epoch, user_id, rest)
    else
      seed_totals(epoch, user_id, rest)
    end
  end
  return { served(epoch) }
end

register('seed', seed)
