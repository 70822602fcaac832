-- numbers.lua. Numbers beyond 2^53, which Lua's doubles are not exact for.
--
-- Tokens are two halves of 32 bits, here always named high and low; cursors and versions are
-- compared by halves too. Request counts and times stay below 2^53.
--
-- The file stands before the others in one function library; in front of it the adapter writes
--   PREFIX   what the names of its functions begin with (a digest of the sources)
--   REACH    ADMISSION_WINDOW + MARGIN in milliseconds

local HALF = 4294967296

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

