-- admit. Lets in the events of one partition that fit, in order, each whole or not at all.
--   KEYS  1 the partition's epoch
--   ARGV  1 incarnation   2 the time in milliseconds, 0: the server's
--         3 … one user each: user id (16 bytes), then its events (EVENT: id digest, content digest,
--         tokens, request type, tier, bits 1 service 2 barred 4 settles, period, digest of the hold)
-- Reply: {why not} or {served, one string for each user: its verdicts (VERDICT: code, flags, tokens
-- above the hold, then tokens and requests used), then its terms}.

local EVENT = '<c16c8I4I4BBBc4c16'
local EVENT_BYTES = 55
-- The same behind the id digest, without the hold.
local EVENT_OF_ID = '<c8I4I4BBBc4'
-- A nonce and TERMS, as far as the usual case looks at them.
local USERS_TERMS = '<c8BI4I4i8BBBI4I4'
local NOTHING = '\0\0\0\0\0\0\0\0'

local VERDICT = '<BBc8I4I4I8I8I8'

local function verdict(code, month, flags, over_hold)
  local high, low = used_tokens(month)
  local ledger, flying = month.ledger, month.requests
  return struct.pack(VERDICT, code, flags or 0, over_hold or NOTHING, low, high,
    ledger[1] + flying[1], ledger[2] + flying[2], ledger[3] + flying[3])
end

local function without_use(code)
  return struct.pack('<BB', code, 0) .. NOTHING .. NO_USE
end

-- The digests of a group's events, and of the holds that they settle.
local function ids_of(group)
  local ids, count = {}, 0
  for at = 17, #group, EVENT_BYTES do
    count = count + 1
    ids[count] = string.sub(group, at, at + 15)
    if string.byte(group, at + 34) >= 4 then
      count = count + 1
      ids[count] = string.sub(group, at + 39, at + 54)
    end
  end
  return ids
end

-- The content of an event with this id that is in flight in another period.
local function elsewhere(user, id, period)
  for _, month in pairs(user.months) do
    if month and month.period ~= period then
      local entry = entry_in(month, id)
      if entry then return entry.content end
    end
  end
  return nil
end

-- The hold, if it stands in the event's period or a neighbouring one, for this request type.
local function hold_to_settle(epoch, user, id, period, kind)
  for _, one in ipairs(neighbours(period)) do
    local month = loaded(user, one)
    local entry = month and entry_in(month, id)
    if entry and entry.expires_at and epoch.now < entry.expires_at and entry.kind == kind then
      return entry, month
    end
  end
  return nil
end

-- What an event that settles a hold is judged by: a refusal's code; or nil, flags and tokens above
-- the hold (8 bytes).
local function judge_settle(user, month, hold, here, service, low, high, kind, tier)
  local used_high, used_low = used_tokens(month)
  local count = month.ledger[kind + 1] + month.requests[kind + 1]
  local free_high, free_low = 0, 0
  -- What was held in this very period is free again for the event. From a neighbouring period it
  -- cannot be: that room is another month's.
  if here then
    free_high, free_low = hold.high, hold.low
    if not above(free_high, free_low, used_high, used_low) then
      used_high, used_low = minus(used_high, used_low, free_high, free_low)
      count = count - 1
    end
  end
  local more = above(high, low, free_high, free_low)
  -- A service reports what was consumed already: to refuse it would lose it.
  if tier > user.tier and not service and not (here and hold.mark >= tier) then
    return NOT_IN_PLAN
  end
  local flags = 0
  local lack, countable = lack_of(user, used_high, used_low, count, kind, high, low)
  if lack then
    local past_limit = service or (here and not more) or user.records_past_limit
    if not countable or not past_limit then return lack end
    if user.records_past_limit then flags = 1 end
  end
  if service and more then
    local over_high, over_low = minus(high, low, free_high, free_low)
    return nil, flags + 2, struct.pack('<I4I4', over_low, over_high)
  end
  return nil, flags, NOTHING
end

-- The same for an event without a hold.
local function judge(user, month, low, high, kind, tier)
  if tier > user.tier then return NOT_IN_PLAN end
  local used_high, used_low = used_tokens(month)
  local count = month.ledger[kind + 1] + month.requests[kind + 1]
  local lack, countable = lack_of(user, used_high, used_low, count, kind, high, low)
  if not lack then return nil, 0, NOTHING end
  if countable and user.records_past_limit then return nil, 1, NOTHING end
  return lack
end

local function repeated(epoch, month, id, first, content)
  if first.expires_at or first.content ~= content then return verdict(CONFLICT, month) end
  local admitted_at = math.max(first.admitted_at, epoch.admitted_at)
  change(month, id, struct.pack(ENTRY, first.kind, content, first.low, first.high, admitted_at,
    first.mark, first.last))
  return verdict(REPEATED, month, first.mark, first.last)
end

local function decide(epoch, user, id, content, low, high, kind, tier, bits, period, hold_id)
  local month, code = ready(epoch, user, period)
  if not month then return without_use(code) end
  local first = entry_in(month, id)
  if first then return repeated(epoch, month, id, first, content) end
  local same_elsewhere = false
  if user.loaded > 1 then
    local other = elsewhere(user, id, period)
    if other and other ~= content then return verdict(CONFLICT, month) end
    same_elsewhere = other ~= nil
  end
  local hold, hold_month, refused, flags, over_hold
  if bits >= 4 then
    hold, hold_month = hold_to_settle(epoch, user, hold_id, period, kind)
  end
  if math.floor(bits / 2) % 2 == 1 then
    refused = BARRED
  elseif hold then
    refused, flags, over_hold =
      judge_settle(user, month, hold, hold_month == month, bits % 2 == 1, low, high, kind, tier)
  else
    refused, flags, over_hold = judge(user, month, low, high, kind, tier)
  end
  if refused then
    if same_elsewhere then return without_use(UNDECIDED) end
    return verdict(refused, month)
  end
  if hold then take_out(hold_month, hold_id, hold.kind, hold.low, hold.high) end
  enter(epoch, user, month, id, kind, content, low, high, flags, over_hold)
  return verdict(GRANTED, month, flags, over_hold)
end

-- The usual case by itself, for its tables are most of what the general way costs: new events of a
-- user who has something in flight in their period and in no other, with nothing to forget, none
-- settles a hold, and all fit. Everything else is nil, and decided below: nothing has changed.
local function admit_usual(epoch, group)
  local user_id, period = string.sub(group, 1, 16), string.sub(group, 52, 55)
  local key, ids = epoch.head .. 'm' .. user_id .. period, ids_of(group)
  local found = redis.call('HMGET', key, 's', 't', unpack(ids))
  local sums, terms = found[1], found[2]
  if not sums then return nil end
  local fields = { 's', '' }
  if not terms then
    local of_user = redis.call('HMGET', epoch.head .. 'u' .. user_id, 't', 'm')
    terms = of_user[1]
    if not terms or of_user[2] ~= epoch.nonce .. period then return nil end
    fields[3], fields[4] = 't', terms
  end
  if string.byte(terms, 9) == GONE then return nil end
  local terms_nonce, _, _, _, valid_until, tier_max, _, limits, limit_low, limit_high =
    struct.unpack(USERS_TERMS, terms)
  if terms_nonce ~= epoch.nonce or epoch.now >= valid_until or limits > 1 then return nil end
  local nonce, cursor, ledger_low, ledger_high, chats, checks, prompts, low, high, flying_chats,
    flying_checks, flying_prompts, count, oldest, first_expiry = struct.unpack(SUMS, sums)
  if nonce ~= epoch.nonce or count == 0 or oldest < epoch.reach or epoch.now >= first_expiry then
    return nil
  end
  local admitted_at, verdicts, seen = epoch.admitted_at, {}, {}
  for place, id in ipairs(ids) do
    local content, more_low, more_high, kind, tier, bits, of =
      struct.unpack(EVENT_OF_ID, group, 33 + (place - 1) * EVENT_BYTES)
    if found[place + 2] or seen[id] or bits > 1 or tier > tier_max or of ~= period then return nil end
    seen[id] = true
    high, low = plus(high, low, more_high, more_low)
    local used_high, used_low = plus(ledger_high, ledger_low, high, low)
    if used_high >= HALF or (limits == 1 and above(used_high, used_low, limit_high, limit_low)) then
      return nil
    end
    if kind == 0 then
      flying_chats = flying_chats + 1
    elseif kind == 1 then
      flying_checks = flying_checks + 1
    else
      flying_prompts = flying_prompts + 1
    end
    fields[#fields + 1] = id
    fields[#fields + 1] =
      struct.pack(ENTRY, kind, content, more_low, more_high, admitted_at, 0, NOTHING)
    verdicts[place] = struct.pack(VERDICT, GRANTED, 0, NOTHING, used_low, used_high,
      chats + flying_chats, checks + flying_checks, prompts + flying_prompts)
  end
  fields[2] = struct.pack(SUMS, nonce, cursor, ledger_low, ledger_high, chats, checks, prompts, low,
    high, flying_chats, flying_checks, flying_prompts, count + #ids, math.min(oldest, admitted_at),
    first_expiry)
  in_portions('HSET', key, fields)
  verdicts[#ids + 1] = string.sub(terms, 9)
  return table.concat(verdicts)
end

local function admit_group(epoch, group)
  local user = load_user(epoch, string.sub(group, 1, 16), ids_of(group))
  local verdicts, count = {}, 0
  for at = 17, #group, EVENT_BYTES do
    count = count + 1
    verdicts[count] = decide(epoch, user, struct.unpack(EVENT, group, at))
  end
  write_user(epoch, user)
  verdicts[count + 1] = user.terms
  return table.concat(verdicts)
end

local function admit(keys, args)
  local epoch, why = epoch_of(keys[1], args[1], args[2])
  if not epoch then return refusal(why) end
  local reply = { served(epoch) }
  for number = 3, #args do
    local group = args[number]
    reply[number - 1] = admit_usual(epoch, group) or admit_group(epoch, group)
  end
  return reply
end

register('admit', admit)
