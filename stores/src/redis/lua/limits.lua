-- limits.lua. What a user has used, and what keeps more from fitting.

-- Ledger, in flight and held.
local function used_tokens(month)
  local high, low = plus(month.ledger_high, month.ledger_low, month.high, month.low)
  if high >= HALF then return HALF - 1, HALF - 1 end
  return high, low
end

local function packed_use(month)
  local high, low = used_tokens(month)
  local ledger, flying = month.ledger, month.requests
  return struct.pack('<I4I4I8I8I8', low, high, ledger[1] + flying[1],
    ledger[2] + flying[2], ledger[3] + flying[3])
end

local NO_USE = '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'

-- What keeps one request more of `kind` from fitting on top of `count` and these tokens: a code
-- and whether it could be counted at all; nil when it fits.
local function lack_of(user, high, low, count, kind, asked_high, asked_low)
  local sum_high, sum_low = plus(high, low, asked_high, asked_low)
  if sum_high >= HALF then return TOKEN_LIMIT, false end
  local limit = user.request_limits[kind + 1]
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

