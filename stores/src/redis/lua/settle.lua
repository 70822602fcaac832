-- settle. Takes over the ledger's totals and lets go of events that are in flight no more; never
-- makes a month known.
--   KEYS  1 the partition's epoch
--   ARGV  1 incarnation   2 the time in milliseconds, 0: the server's
--         3 nonce, empty: whichever is in force
--         4 … one month each: user id, period, whether there are totals (1 byte), their cursor,
--         tokens and requests, then the digests of the events that leave, each once
-- Reply: {why not} or {served}.

-- The kind and the tokens, low and high, of an ENTRY.
local ENTRY_TOKENS = '<BxxxxxxxxI4I4'
local MONTH = '<c16c4Bc8I4I4I8I8I8'
local ID = 'c16'
-- A month that nobody has asked for knows none of its events: so many are not looked for first.
local MANY = 8

-- Without the tables of `load_month`, for this is done as often as `admit_usual`.
local function settle_month(epoch, raw)
  local user_id, period, brings, cursor, ledger_low, ledger_high, chats, checks, prompts, at =
    struct.unpack(MONTH, raw)
  local key, asked = epoch.head .. 'm' .. user_id .. period, (#raw - at + 1) / 16
  -- The last of what it answers is a place in `raw`.
  local ids = { struct.unpack(string.rep(ID, asked), raw, at) }
  if asked >= MANY and redis.call('HEXISTS', key, 's') == 0 then return end
  local found = redis.call('HMGET', key, 's', unpack(ids, 1, asked))
  if not found[1] then return end
  local nonce, old_cursor, old_low, old_high, old_chats, old_checks, old_prompts, low, high,
    flying_chats, flying_checks, flying_prompts, count, oldest, first_expiry =
    struct.unpack(SUMS, found[1])
  if nonce ~= epoch.nonce then return end
  local is_newer = brings == 1 and later(cursor, old_cursor)
  if not is_newer then
    cursor, ledger_low, ledger_high = old_cursor, old_low, old_high
    chats, checks, prompts = old_chats, old_checks, old_prompts
  end
  local was_quiet, leaving, left = count == 0, {}, 0
  local less_low, less_high = 0, 0
  for place = 1, asked do
    local entry = found[place + 1]
    if entry then
      local kind, entry_low, entry_high = struct.unpack(ENTRY_TOKENS, entry)
      if kind < HOLD then
        left = left + 1
        leaving[left] = ids[place]
        less_low, less_high = less_low + entry_low, less_high + entry_high
        if kind == 0 then
          flying_chats = flying_chats - 1
        elseif kind == 1 then
          flying_checks = flying_checks - 1
        else
          flying_prompts = flying_prompts - 1
        end
      end
    end
  end
  if not is_newer and left == 0 then return end
  less_high = less_high + math.floor(less_low / HALF)
  high, low = minus(high, low, less_high, less_low % HALF)
  count = count - left
  if count <= 0 then
    high, low, count, oldest, first_expiry = 0, 0, 0, NEVER, NEVER
    flying_chats, flying_checks, flying_prompts = 0, 0, 0
  end
  in_portions('HDEL', key, leaving)
  redis.call('HSET', key, 's', struct.pack(SUMS, nonce, cursor, ledger_low, ledger_high, chats,
    checks, prompts, low, high, flying_chats, flying_checks, flying_prompts, count, oldest,
    first_expiry))
  keep_while_flying(epoch, key, period, was_quiet, count == 0)
end

local function settle(keys, args)
  local epoch, why = epoch_of(keys[1], args[1], args[2])
  if not epoch then return refusal(why) end
  if args[3] ~= '' and args[3] ~= epoch.nonce then return refusal(OTHER_NONCE) end
  for number = 4, #args do
    settle_month(epoch, args[number])
  end
  return { served(epoch) }
end

-- It gives memory back: it must run when there is none left.
register('settle', settle, { 'allow-oom' })
