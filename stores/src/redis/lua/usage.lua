-- usage. Where one user stands in one period.
--   KEYS  1 the partition's epoch
--   ARGV  1 incarnation   2 the time in milliseconds, 0: the server's   3 user id   4 period
-- Reply: {why not} or {served, code (0 known, 8 unknown user, 10 … missing), used; then the terms}.

local function usage(keys, args)
  local epoch, why = epoch_of(keys[1], args[1], args[2])
  if not epoch then return refusal(why) end
  local user = load_user(epoch, args[3], {})
  local month, code = ready(epoch, user, args[4])
  write_user(epoch, user)
  local use = month and packed_use(month) or NO_USE
  return { served(epoch), struct.pack('<B', code or 0) .. use .. user.terms }
end

register('usage', usage)
