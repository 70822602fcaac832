-- Sums by bucket and by the dimensions asked for; then come the rows, then sums_by.sql.
SELECT
  if({width:Int64} = 0, 0, at - positiveModulo(at, {width:Int64})) AS bucket,
  if({by_type:UInt8} = 0, toInt8(0), kind) AS type,
  if({by_model:UInt8} = 0, '', model_name) AS model,
  if({by_plan:UInt8} = 0, '', plan_name) AS plan,
  if({by_user:UInt8} = 0, toUUID('00000000-0000-0000-0000-000000000000'), user_id) AS user,
  sum(event_count), sum(prompt), sum(completion)
FROM (
