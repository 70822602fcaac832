-- In the order of the table, backwards: a page reads little more than itself.
SELECT
  log_offset, occurred_at, received_at, toInt8(request_type), model,
  prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, flags, event_id, metadata
FROM token_usage
WHERE user_id = {user:UUID}
  AND log_offset < {counted:UInt64}
  AND occurred_at <= fromUnixTimestamp64Milli({newest:Int64}, 'UTC')
  AND occurred_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')
  AND (
    occurred_at < fromUnixTimestamp64Milli({newest:Int64}, 'UTC')
    OR log_offset < {offset:UInt64}
  )
  AND ({of_model:UInt8} = 0 OR model = {model:String})
  AND ({type:Int8} < 0 OR toInt8(request_type) = {type:Int8})
ORDER BY user_id DESC, occurred_at DESC, log_offset DESC
LIMIT 1 BY log_offset
LIMIT {rows:UInt64}
