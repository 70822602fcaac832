-- state.lua. What all functions of the library share: the epoch, users, months, entries.
--
-- Keys: all begin with the same head that holds the partition's hash tag, so they share a slot.
--   <head>e                    string  the epoch: open (1 byte), nonce (8), cursor (8), watermark (8), incarnation
--   <head>u<user>              hash    t: nonce, terms   m: nonce, the periods with something in flight
--   <head>m<user><period>      hash    s: the sums (SUMS)   <digest of 16 bytes>: an entry (ENTRY)
--                                      t: the same as the user's, only while this period is their one
--                                      with something in flight: the usual case then reads one key
-- A call names the epoch's key; the others are made from it, for which periods have something in
-- flight is only known here. Numbers are little endian. Whatever carries another nonce than the
-- epoch's is as if it were not there.
--
-- While a library is loaded none of Lua's own libraries is there yet: no calls outside functions.

local NEVER = 253402300799999
local DAY_SECONDS = 86400
local MILLIS_PER_DAY = 86400000

-- nonce, cursor, ledger tokens, ledger requests, tokens in flight, requests in flight, number of
-- entries, no event was admitted before, no hold ends before
local SUMS = '<c8c8I4I4I8I8I8I4I4I8I8I8I4i8i8'
-- request type (+ 16: a hold), content digest, tokens, admitted_at, flags (of a hold: its tier),
-- tokens above the hold (of a hold: when it ends)
local ENTRY = '<Bc8I4I4i8Bc8'
local HOLD = 16
-- kind (1 terms, 2 the user is no more), version, valid_until, tier, whether it records past the
-- limit, which limits there are (bits: 1 tokens, 2 4 8 requests), token limit, request limits;
-- then the plan's name
local TERMS = '<BI4I4i8BBBI4I4I8I8I8'
local GONE = 2

local GRANTED, REPEATED, CONFLICT = 1, 2, 3
local NOT_IN_PLAN, REQUEST_LIMIT, TOKEN_LIMIT, BARRED = 4, 5, 6, 7
local UNKNOWN_USER, UNDECIDED = 8, 9
local MISS_TERMS, MISS_TOTALS, MISS_BOTH = 10, 11, 12

local SERVING, NOT_OPEN, OTHER_INCARNATION, OTHER_NONCE = 0, 1, 2, 3

local function register(name, callback, flags)
  redis.register_function({ function_name = PREFIX .. name, callback = callback, flags = flags })
end

-- The epoch, or nil and why there is none. `given` is the time in milliseconds, '0': the server's.
local function epoch_of(key, incarnation, given)
  local raw = redis.call('GET', key)
  if not raw then return nil, NOT_OPEN end
  local open, nonce, cursor, watermark, at = struct.unpack('<Bc8c8i8', raw)
  if string.sub(raw, at) ~= incarnation then return nil, OTHER_INCARNATION end
  if open ~= 1 then return nil, NOT_OPEN end
  local now = tonumber(given)
  if now == 0 then
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return {
    nonce = nonce,
    cursor = cursor,
    watermark = watermark,
    now = now,
    -- When the machine's clock is set back, the log goes on at the time it had reached.
    admitted_at = math.max(now, watermark),
    reach = math.min(now, watermark) - REACH,
    head = string.sub(key, 1, -2),
    -- Which periods are known to have ended.
    over = {},
  }
end

local function refusal(status)
  return { string.char(status) }
end

-- First part of every reply: status, nonce, cursor, what an admission of this call is stamped with.
local function served(epoch)
  return struct.pack('<Bc8c8i8', SERVING, epoch.nonce, epoch.cursor, epoch.admitted_at)
end

-- Whether the period (4 bytes: year * 12 + month - 1) has ended: days by the civil calendar.
local function is_over(epoch, period)
  local known = epoch.over[period]
  if known ~= nil then return known end
  local next = struct.unpack('<i4', period) + 1
  local year, month = math.floor(next / 12), next % 12 + 1
  if month <= 2 then year = year - 1 end
  local era = math.floor(year / 400)
  local of_era = year - era * 400
  local of_year = math.floor((153 * ((month + 9) % 12) + 2) / 5)
  local days = of_era * 365 + math.floor(of_era / 4) - math.floor(of_era / 100) + of_year
  local over = epoch.now >= (era * 146097 + days - 719468) * MILLIS_PER_DAY
  epoch.over[period] = over
  return over
end

local function entry_of(raw)
  local kind, content, low, high, admitted_at, mark, last = struct.unpack(ENTRY, raw)
  local expires_at = false
  if kind >= HOLD then
    kind, expires_at = kind - HOLD, struct.unpack('<i8', last)
  end
  return { kind = kind, content = content, low = low, high = high, admitted_at = admitted_at,
    mark = mark, last = last, expires_at = expires_at }
end

-- Changes of a month are collected and written once, at the end of the call.
local function change(month, id, raw)
  month.entries[id], month.dirty = raw, true
  month.changed[#month.changed + 1] = id
end

-- An entry comes into flight: from now on its period is one of those that are looked through.
-- `expires_at` makes it a hold.
local function enter(epoch, user, month, id, kind, content, low, high, mark, last, expires_at)
  local admitted_at, requests = epoch.admitted_at, month.requests
  if expires_at then
    change(month, id, struct.pack(ENTRY, kind + HOLD, content, low, high, admitted_at, mark, last))
    if expires_at < month.first_expiry then month.first_expiry = expires_at end
  else
    change(month, id, struct.pack(ENTRY, kind, content, low, high, admitted_at, mark, last))
    if admitted_at < month.oldest then month.oldest = admitted_at end
  end
  local sum_high, sum_low = plus(month.high, month.low, high, low)
  if sum_high < HALF then month.high, month.low = sum_high, sum_low end
  requests[kind + 1] = requests[kind + 1] + 1
  month.count = month.count + 1
  if not user.listed[month.period] then
    user.listed[month.period], user.list_changed = true, true
  end
end

local function take_out(month, id, kind, low, high)
  change(month, id, false)
  month.high, month.low = minus(month.high, month.low, high, low)
  month.requests[kind + 1] = month.requests[kind + 1] - 1
  month.count = month.count - 1
  if month.count <= 0 then
    month.high, month.low, month.count = 0, 0, 0
    month.requests = { 0, 0, 0 }
    month.oldest, month.first_expiry = NEVER, NEVER
  end
end

local function entry_in(month, id)
  local raw = month.entries[id]
  if raw == nil then
    raw = redis.call('HGET', month.key, id)
    month.entries[id] = raw
  end
  return raw and entry_of(raw) or nil
end

-- Lets go of events whose record cannot come any more and of holds that have ended. Looks through
-- the entries only when the oldest is that old.
local function forget(epoch, month)
  if month.oldest >= epoch.reach and epoch.now < month.first_expiry then return end
  local oldest, first_expiry = NEVER, NEVER
  local all = redis.call('HGETALL', month.key)
  for at = 1, #all, 2 do
    local id = all[at]
    if #id == 16 then
      local entry = entry_of(all[at + 1])
      if entry.expires_at then
        if epoch.now < entry.expires_at then
          first_expiry = math.min(first_expiry, entry.expires_at)
        else
          take_out(month, id, entry.kind, entry.low, entry.high)
        end
      elseif entry.admitted_at >= epoch.reach then
        oldest = math.min(oldest, entry.admitted_at)
      else
        take_out(month, id, entry.kind, entry.low, entry.high)
      end
    end
  end
  month.oldest, month.first_expiry, month.dirty = oldest, first_expiry, true
end

-- The month as it stands, with the entries of `ids` at hand; nil when it is not known.
local function load_month(epoch, user_id, period, ids)
  local key = epoch.head .. 'm' .. user_id .. period
  local found = redis.call('HMGET', key, 's', unpack(ids))
  local raw = found[1]
  if not raw then return nil end
  local nonce, cursor, ledger_low, ledger_high, chats, checks, prompts, low, high, flying_chats,
    flying_checks, flying_prompts, count, oldest, first_expiry = struct.unpack(SUMS, raw)
  if nonce ~= epoch.nonce then return nil end
  local entries = {}
  for at, id in ipairs(ids) do
    entries[id] = found[at + 1]
  end
  return {
    key = key,
    period = period,
    cursor = cursor,
    ledger_high = ledger_high,
    ledger_low = ledger_low,
    ledger = { chats, checks, prompts },
    high = high,
    low = low,
    requests = { flying_chats, flying_checks, flying_prompts },
    count = count,
    was_quiet = count == 0,
    oldest = oldest,
    first_expiry = first_expiry,
    entries = entries,
    changed = {},
    dirty = false,
    looked_through = false,
  }
end

-- Fields in portions: Lua hands over a few thousand values at a time.
local function in_portions(command, key, values)
  for at = 1, #values, 1000 do
    redis.call(command, key, unpack(values, at, math.min(at + 999, #values)))
  end
end

-- A month has been written: only one whose period is over may go, and only with nothing in flight.
local function keep_while_flying(epoch, key, period, was_quiet, is_quiet)
  if is_quiet == was_quiet or not is_over(epoch, period) then return end
  if is_quiet then
    redis.call('EXPIRE', key, DAY_SECONDS)
  else
    redis.call('PERSIST', key)
  end
end

local function write_month(epoch, month)
  local key, entries, changed, ledger, flying =
    month.key, month.entries, month.changed, month.ledger, month.requests
  local sums = struct.pack(SUMS, epoch.nonce, month.cursor, month.ledger_low, month.ledger_high,
    ledger[1], ledger[2], ledger[3], month.low, month.high, flying[1], flying[2], flying[3],
    month.count, month.oldest, month.first_expiry)
  if #changed == 1 and entries[changed[1]] then
    redis.call('HSET', key, 's', sums, changed[1], entries[changed[1]])
  else
    local staying, leaving = { 's', sums }, {}
    for _, id in ipairs(changed) do
      local raw = entries[id]
      if raw then
        staying[#staying + 1] = id
        staying[#staying + 1] = raw
      else
        leaving[#leaving + 1] = id
      end
    end
    in_portions('HDEL', key, leaving)
    in_portions('HSET', key, staying)
  end
  keep_while_flying(epoch, key, month.period, month.was_quiet, month.count == 0)
end

-- Before a user's terms or list change: no month has a copy of the terms any more. `list` is the
-- one that stood until now, or nothing.
local function drop_copies(epoch, user_id, list)
  if not list or string.sub(list, 1, 8) ~= epoch.nonce then return end
  for at = 9, #list, 4 do
    redis.call('HDEL', epoch.head .. 'm' .. user_id .. string.sub(list, at, at + 3), 't')
  end
end

-- Limits that hold for no request type.
local NONE = {}

-- The user's terms as they stand, and the periods with something in flight.
local function load_user(epoch, id, ids)
  local key = epoch.head .. 'u' .. id
  local found = redis.call('HMGET', key, 't', 'm')
  local user = {
    id = id,
    key = key,
    ids = ids,
    months = {},
    -- How many of them are known.
    loaded = 0,
    listed = {},
    list = found[2],
    list_changed = false,
    looked_around = false,
    terms = '',
    gone = false,
    valid_until = false,
    tier = 0,
    records_past_limit = false,
    limit_high = false,
    limit_low = 0,
    request_limits = NONE,
  }
  local raw = found[1]
  if raw and string.sub(raw, 1, 8) == epoch.nonce then
    user.terms = string.sub(raw, 9)
    user.gone = string.byte(raw, 9) == GONE
    if not user.gone then
      local _, _, _, valid_until, tier, records, limits, low, high, chats, checks, prompts =
        struct.unpack(TERMS, raw, 9)
      user.valid_until, user.tier, user.records_past_limit = valid_until, tier, records == 1
      if limits % 2 == 1 then user.limit_high, user.limit_low = high, low end
      if limits >= 2 then
        user.request_limits = {
          math.floor(limits / 2) % 2 == 1 and chats or false,
          math.floor(limits / 4) % 2 == 1 and checks or false,
          math.floor(limits / 8) % 2 == 1 and prompts or false,
        }
      end
    end
  end
  local list = user.list
  if list and string.sub(list, 1, 8) == epoch.nonce then
    for at = 9, #list, 4 do
      user.listed[string.sub(list, at, at + 3)] = true
    end
  end
  return user
end

local function month_of(epoch, user, period)
  local month = user.months[period]
  if month == nil then
    month = load_month(epoch, user.id, period, user.ids) or false
    user.months[period] = month
    if month then user.loaded = user.loaded + 1 end
  end
  return month or nil
end

local function look_through(epoch, month)
  if month.looked_through then return end
  month.looked_through = true
  forget(epoch, month)
end

-- Loads the other months with something in flight; those without leave the list.
local function look_around(epoch, user, period)
  if user.looked_around then return end
  user.looked_around = true
  for other in pairs(user.listed) do
    if other ~= period then
      local found = month_of(epoch, user, other)
      if found then look_through(epoch, found) end
      if not found or found.count == 0 then
        user.listed[other], user.list_changed = nil, true
        if found and found.was_quiet and is_over(epoch, other) then
          redis.call('EXPIRE', found.key, DAY_SECONDS)
        end
      end
    end
  end
end

-- Everything that a decision about this user and period needs: the month; or nil and why not.
-- Afterwards every month of the user with something in flight is loaded, and what is too old in
-- them is forgotten.
local function ready(epoch, user, period)
  if user.gone then return nil, UNKNOWN_USER end
  local month = month_of(epoch, user, period)
  if not user.valid_until or epoch.now >= user.valid_until then
    return nil, month and MISS_TERMS or MISS_BOTH
  end
  if not month then return nil, MISS_TOTALS end
  look_through(epoch, month)
  look_around(epoch, user, period)
  return month
end

local function write_user(epoch, user)
  for _, month in pairs(user.months) do
    if month and month.dirty then write_month(epoch, month) end
  end
  if user.list_changed then
    drop_copies(epoch, user.id, user.list)
    local list = {}
    for period in pairs(user.listed) do
      table.insert(list, period)
    end
    redis.call('HSET', user.key, 'm', epoch.nonce .. table.concat(list))
  end
end
