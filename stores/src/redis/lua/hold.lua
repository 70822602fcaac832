-- hold. Holds tokens and one request of one user.
--   KEYS  1 the partition's epoch
--   ARGV  1 incarnation   2 the time in milliseconds, 0: the server's
--         3 user id, id digest, content digest, tokens, request type, tier, period, end
-- Reply: {why not} or {served, code (1 held, 2 repeated, 3 conflict, 4 … refused, 8 unknown, 10 …
-- missing), tokens held, end, used; then the terms}.

local function hold(keys, args)
  local epoch, why = epoch_of(keys[1], args[1], args[2])
  if not epoch then return refusal(why) end
  local user_id, id, content, low, high, kind, tier, period, expires_at =
    struct.unpack('<c16c16c8I4I4BBc4i8', args[3])
  local user = load_user(epoch, user_id, { id })
  local function answer(code, month, entry)
    local held = entry or { low = 0, high = 0, expires_at = 0 }
    local use = month and packed_use(month) or NO_USE
    write_user(epoch, user)
    return { served(epoch), struct.pack('<BI4I4i8', code, held.low, held.high, held.expires_at) .. use
      .. user.terms }
  end
  local month, code = ready(epoch, user, period)
  if not month then return answer(code) end
  for _, one in ipairs(neighbours(period)) do
    local standing = loaded(user, one)
    local first = standing and entry_in(standing, id)
    if first then
      if not first.expires_at or first.content ~= content then return answer(CONFLICT) end
      return answer(REPEATED, standing, first)
    end
  end
  if tier > user.tier then return answer(NOT_IN_PLAN, month) end
  local used_high, used_low = used_tokens(month)
  local count = month.ledger[kind + 1] + month.requests[kind + 1]
  local lack, countable = lack_of(user, used_high, used_low, count, kind, high, low)
  if lack and not (countable and user.records_past_limit) then return answer(lack, month) end
  enter(epoch, user, month, id, kind, content, low, high, tier, struct.pack('<i8', expires_at),
    expires_at)
  return answer(GRANTED, month, { low = low, high = high, expires_at = expires_at })
end

register('hold', hold)
