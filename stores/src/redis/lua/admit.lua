-- admit. Lets in the events of one partition that fit, in order, each whole or not at all.
--   KEYS  1 the partition's epoch
--   ARGV  1 incarnation   2 the time in milliseconds, 0: the server's
--         3 … one user each: user id (16 bytes), then its events (EVENT: id digest, content digest,
--         tokens, request type, tier, bits 1 service 2 barred 4 settles, period, digest of the hold)
-- Reply: {why not} or {served, one string for each user: its verdicts (VERDICT: code, flags, tokens
-- above the hold, then tokens and requests used), then its terms}.

local EVENT = '<c16c8I4I4BBBc4c16'
local EVENT_BYTES = 55
local NOTHING = '\0\0\0\0\0\0\0\0'

local function verdict(code, month, flags, over_hold)
  local use = month and packed_use(month) or NO_USE
  return struct.pack('<BB', code, flags or 0) .. (over_hold or NOTHING) .. use
end

local function events_of(group)
  local events, ids = {}, {}
  for at = 17, #group, EVENT_BYTES do
    local id, content, low, high, kind, tier, bits, period, hold = struct.unpack(EVENT, group, at)
    local event = { id = id, content = content, low = low, high = high, kind = kind, tier = tier }
    event.service, event.barred = bits % 2 == 1, math.floor(bits / 2) % 2 == 1
    event.period = period
    table.insert(ids, id)
    if bits >= 4 then
      event.settles = hold
      table.insert(ids, hold)
    end
    table.insert(events, event)
  end
  return events, ids
end

-- The content of an event with this id that is in flight in another period.
local function elsewhere(user, event)
  for _, month in pairs(user.months) do
    if month and month.period ~= event.period then
      local entry = entry_in(month, event.id)
      if entry then return entry.content end
    end
  end
  return nil
end

-- The hold, if it stands in the event's period or a neighbouring one, for this request type.
local function hold_to_settle(epoch, user, event)
  if not event.settles then return nil end
  for _, period in ipairs(neighbours(event.period)) do
    local month = loaded(user, period)
    local entry = month and entry_in(month, event.settles)
    if entry and entry.expires_at and epoch.now < entry.expires_at and entry.kind == event.kind then
      return entry, month
    end
  end
  return nil
end

-- A refusal's code; or nil, flags and tokens above the hold (8 bytes).
local function judge(user, event, month, hold, hold_month)
  local high, low, requests = used_in(month)
  local here = hold and hold_month == month
  local free_high, free_low = 0, 0
  -- What was held in this very period is free again for the event. From a neighbouring period it
  -- cannot be: that room is another month's.
  if here then
    free_high, free_low = hold.high, hold.low
    if not above(hold.high, hold.low, high, low) then
      high, low = minus(high, low, hold.high, hold.low)
      requests[event.kind] = requests[event.kind] - 1
    end
  end
  -- A service reports what was consumed already: to refuse it would lose it.
  local forced = hold and event.service
  local more = above(event.high, event.low, free_high, free_low)
  local promised = here and hold.mark >= event.tier
  if event.tier > user.tier and not forced and not promised then return NOT_IN_PLAN end
  local flags = 0
  local lack, countable = lack_of(user, high, low, requests, event)
  if lack then
    local past_limit = forced or (here and not more) or user.records_past_limit
    if not countable or not past_limit then return lack end
    if user.records_past_limit then flags = 1 end
  end
  if forced and more then
    local over_high, over_low = minus(event.high, event.low, free_high, free_low)
    return nil, flags + 2, struct.pack('<I4I4', over_low, over_high)
  end
  return nil, flags, NOTHING
end

local function decide(epoch, user, event)
  local month, code = ready(epoch, user, event.period)
  if not month then return verdict(code) end
  local first = entry_in(month, event.id)
  if first then
    if first.expires_at or first.content ~= event.content then return verdict(CONFLICT, month) end
    first.admitted_at = math.max(first.admitted_at, epoch.admitted_at)
    put(month, event.id, first)
    return verdict(REPEATED, month, first.mark, first.last)
  end
  local content = elsewhere(user, event)
  if content and content ~= event.content then return verdict(CONFLICT, month) end
  local hold, hold_month = hold_to_settle(epoch, user, event)
  local refused, flags, over_hold
  if event.barred then
    refused = BARRED
  else
    refused, flags, over_hold = judge(user, event, month, hold, hold_month)
  end
  if refused then
    if content then return verdict(UNDECIDED) end
    return verdict(refused, month)
  end
  if hold then take_out(hold_month, event.settles, hold) end
  event.admitted_at, event.mark, event.last = epoch.admitted_at, flags, over_hold
  enter(user, month, event.id, event)
  return verdict(GRANTED, month, flags, over_hold)
end

local function admit(keys, args)
  local epoch, why = epoch_of(keys[1], args[1], args[2])
  if not epoch then return refusal(why) end
  local reply = { served(epoch) }
  for at = 3, #args do
    local events, ids = events_of(args[at])
    local user = load_user(epoch, string.sub(args[at], 1, 16), ids)
    local verdicts = {}
    for place, event in ipairs(events) do
      verdicts[place] = decide(epoch, user, event)
    end
    write_user(epoch, user)
    table.insert(verdicts, user.terms)
    table.insert(reply, table.concat(verdicts))
  end
  return reply
end

register('admit', admit)
