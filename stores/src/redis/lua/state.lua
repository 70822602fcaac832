-- state.lua. What all functions of the library share: the epoch, users, months, entries.
--
-- The file stands before the others in one function library; in front of it the adapter writes
--   PREFIX   what the names of its functions begin with (a digest of the sources)
--   REACH    ADMISSION_WINDOW + MARGIN in milliseconds
--
-- Keys: all begin with the same head that holds the partition's hash tag, so they share a slot.
--   <head>e                    string  the epoch: open (1 byte), nonce (8), cursor (8), watermark (8), incarnation
--   <head>u<user>              hash    t: nonce, terms   m: nonce, the periods with something in flight
--   <head>m<user><period>      hash    s: the sums (SUMS)   <digest of 16 bytes>: an entry (ENTRY)
-- A call names the epoch's key; the others are made from it, for which periods have something in
-- flight is only known here. Numbers are little endian. Whatever carries another nonce than the
-- epoch's is as if it were not there.
--
-- Lua's numbers are doubles, exact up to 2^53. Tokens, which may be more, are two halves of 32
-- bits, here always named high and low; cursors and versions are compared by halves too. Request
-- counts and times stay below 2^53.
--
-- While a library is loaded none of Lua's own libraries is there yet: no calls outside functions.

local HALF = 4294967296
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
  }
end

local function refusal(status)
  return { string.char(status) }
end

-- First part of every reply: status, nonce, cursor, what an admission of this call is stamped with.
local function served(epoch)
  return struct.pack('<Bc8c8i8', SERVING, epoch.nonce, epoch.cursor, epoch.admitted_at)
end

-- Both sums may be HALF or more in `high`: then they do not fit.
local function plus(high, low, more_high, more_low)
  high, low = high + more_high, low + more_low
  if low >= HALF then return high + 1, low - HALF end
  return high, low
end

local function minus(high, low, less_high, less_low)
  high, low = high - less_high, low - less_low
  if low < 0 then return high - 1, low + HALF end
  return high, low
end

local function above(high, low, other_high, other_low)
  return high > other_high or (high == other_high and low > other_low)
end

-- Two numbers of 8 bytes.
local function later(one, other)
  local one_low, one_high = struct.unpack('<I4I4', one)
  local low, high = struct.unpack('<I4I4', other)
  return above(one_high, one_low, high, low)
end

-- Whether the period (4 bytes: year * 12 + month - 1) has ended: days by the civil calendar.
local function is_over(epoch, period)
  local next = struct.unpack('<i4', period) + 1
  local year, month = math.floor(next / 12), next % 12 + 1
  if month <= 2 then year = year - 1 end
  local era = math.floor(year / 400)
  local of_era = year - era * 400
  local of_year = math.floor((153 * ((month + 9) % 12) + 2) / 5)
  local days = of_era * 365 + math.floor(of_era / 4) - math.floor(of_era / 100) + of_year
  return epoch.now >= (era * 146097 + days - 719468) * MILLIS_PER_DAY
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
  requests[kind] = requests[kind] + 1
  month.count = month.count + 1
  if not user.listed[month.period] then
    user.listed[month.period], user.list_changed = true, true
  end
end

local function take_out(month, id, entry)
  change(month, id, false)
  month.high, month.low = minus(month.high, month.low, entry.high, entry.low)
  month.requests[entry.kind] = month.requests[entry.kind] - 1
  month.count = month.count - 1
  if month.count <= 0 then
    month.high, month.low, month.count = 0, 0, 0
    month.requests = { [0] = 0, 0, 0 }
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
          take_out(month, id, entry)
        end
      elseif entry.admitted_at >= epoch.reach then
        oldest = math.min(oldest, entry.admitted_at)
      else
        take_out(month, id, entry)
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
    ledger = { [0] = chats, checks, prompts },
    high = high,
    low = low,
    requests = { [0] = flying_chats, flying_checks, flying_prompts },
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

local function write_month(epoch, month)
  local ledger, flying = month.ledger, month.requests
  local staying = { 's', struct.pack(SUMS, epoch.nonce, month.cursor, month.ledger_low,
    month.ledger_high, ledger[0], ledger[1], ledger[2], month.low, month.high, flying[0],
    flying[1], flying[2], month.count, month.oldest, month.first_expiry) }
  local leaving, count = nil, 2
  for _, id in ipairs(month.changed) do
    local raw = month.entries[id]
    if raw then
      staying[count + 1], staying[count + 2] = id, raw
      count = count + 2
    else
      leaving = leaving or {}
      leaving[#leaving + 1] = id
    end
  end
  if leaving then in_portions('HDEL', month.key, leaving) end
  in_portions('HSET', month.key, staying)
  local quiet = month.count == 0
  -- Only a period that is over may go, and only with nothing in flight.
  if quiet ~= month.was_quiet and is_over(epoch, month.period) then
    if quiet then
      redis.call('EXPIRE', month.key, DAY_SECONDS)
    else
      redis.call('PERSIST', month.key)
    end
  end
end

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
    list_changed = false,
    looked_around = false,
    terms = '',
    gone = false,
    valid_until = false,
    tier = 0,
    records_past_limit = false,
    limit_high = false,
    limit_low = 0,
    request_limits = false,
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
      user.request_limits = {
        [0] = math.floor(limits / 2) % 2 == 1 and chats or nil,
        math.floor(limits / 4) % 2 == 1 and checks or nil,
        math.floor(limits / 8) % 2 == 1 and prompts or nil,
      }
    end
  end
  local list = found[2]
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
  if not month.looked_through then
    month.looked_through = true
    forget(epoch, month)
  end
  if not user.looked_around then
    user.looked_around = true
    for other in pairs(user.listed) do
      if other ~= period then
        local found = month_of(epoch, user, other)
        if found and not found.looked_through then
          found.looked_through = true
          forget(epoch, found)
        end
        if not found or found.count == 0 then
          user.listed[other], user.list_changed = nil, true
          if found and found.was_quiet and is_over(epoch, other) then
            redis.call('EXPIRE', found.key, DAY_SECONDS)
          end
        end
      end
    end
  end
  return month
end

local function write_user(epoch, user)
  for _, month in pairs(user.months) do
    if month and month.dirty then write_month(epoch, month) end
  end
  if user.list_changed then
    local list = {}
    for period in pairs(user.listed) do
      table.insert(list, period)
    end
    redis.call('HSET', user.key, 'm', epoch.nonce .. table.concat(list))
  end
end

-- Ledger, in flight and held.
local function used_tokens(month)
  local high, low = plus(month.ledger_high, month.ledger_low, month.high, month.low)
  if high >= HALF then return HALF - 1, HALF - 1 end
  return high, low
end

local function packed_use(month)
  local high, low = used_tokens(month)
  local ledger, flying = month.ledger, month.requests
  return struct.pack('<I4I4I8I8I8', low, high, ledger[0] + flying[0], ledger[1] + flying[1],
    ledger[2] + flying[2])
end

local NO_USE = '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'

-- What keeps one request more of `kind` from fitting on top of `count` and these tokens: a code
-- and whether it could be counted at all; nil when it fits.
local function lack_of(user, high, low, count, kind, asked_high, asked_low)
  local sum_high, sum_low = plus(high, low, asked_high, asked_low)
  if sum_high >= HALF then return TOKEN_LIMIT, false end
  local limit = user.request_limits[kind]
  if limit and count + 1 > limit then return REQUEST_LIMIT, true end
  local limit_high = user.limit_high
  if limit_high and above(sum_high, sum_low, limit_high, user.limit_low) then
    return TOKEN_LIMIT, true
  end
  return nil
end

-- The period itself first: a hold made just before midnight is settled just after.
local function neighbours(period)
  local number = struct.unpack('<i4', period)
  return { period, struct.pack('<i4', number - 1), struct.pack('<i4', number + 1) }
end

-- A month that has been loaded by `ready`.
local function loaded(user, period)
  return user.months[period] or nil
end
