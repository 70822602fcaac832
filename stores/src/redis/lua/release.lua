-- release. Ends a hold of one user, wherever it stands.
--   KEYS  1 the partition's epoch
--   ARGV  1 incarnation   2 the time in milliseconds, 0: the server's   3 user id   4 id digest
-- Reply: {why not} or {served, '1' it stood until now, '0' there is none}.

local function release(keys, args)
  local epoch, why = epoch_of(keys[1], args[1], args[2])
  if not epoch then return refusal(why) end
  local id = args[4]
  local user = load_user(epoch, args[3], { id })
  for period in pairs(user.listed) do
    local month = month_of(epoch, user, period)
    local entry = month and entry_in(month, id)
    if entry and entry.expires_at and epoch.now < entry.expires_at then
      take_out(month, id, entry.kind, entry.low, entry.high)
      write_user(epoch, user)
      return { served(epoch), '1' }
    end
  end
  return { served(epoch), '0' }
end

register('release', release)
