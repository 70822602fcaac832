-- settle. Takes over the ledger's totals and lets go of events that are in flight no more; never
-- makes a month known.
--   KEYS  1 the partition's epoch
--   ARGV  1 incarnation   2 the time in milliseconds, 0: the server's
--         3 nonce, empty: whichever is in force
--         4 … one month each: user id, period, whether there are totals (1 byte), their cursor,
--         tokens and requests, then the digests of the events that leave
-- Reply: {why not} or {served}.

-- The tokens of an ENTRY, low and high, which stand there from the 10th byte on.
local ENTRY_TOKENS = '<I4I4'
local MONTH = '<c16c4Bc8I4I4I8I8I8'

local function settle(keys, args)
  local epoch, why = epoch_of(keys[1], args[1], args[2])
  if not epoch then return refusal(why) end
  if args[3] ~= '' and args[3] ~= epoch.nonce then return refusal(OTHER_NONCE) end
  for number = 4, #args do
    local raw = args[number]
    local user_id, period, brings, cursor, low, high, chats, checks, prompts, at =
      struct.unpack(MONTH, raw)
    local ids = {}
    for place = at, #raw, 16 do
      ids[#ids + 1] = string.sub(raw, place, place + 15)
    end
    local month = load_month(epoch, user_id, period, ids)
    if month then
      if brings == 1 and later(cursor, month.cursor) then
        month.cursor, month.ledger_high, month.ledger_low = cursor, high, low
        month.ledger, month.dirty = { chats, checks, prompts }, true
      end
      for _, id in ipairs(ids) do
        -- Not as a table of its own: there are many.
        local entry = month.entries[id]
        local kind = entry and string.byte(entry)
        if kind and kind < HOLD then take_out(month, id, kind, struct.unpack(ENTRY_TOKENS, entry, 10)) end
      end
      if month.dirty then write_month(epoch, month) end
    end
  end
  return { served(epoch) }
end

-- It gives memory back: it must run when there is none left.
register('settle', settle, { 'allow-oom' })
