-- R3: rows of the hourly summary that are not the sums of their events. A row at version v must hold the
-- events below v, and all that are counted: those of a commit that was cut off may stand in both.
SELECT
  bucket, user, kind, model_name, plan_name,
  tuple(countIf(raw), sumIf(prompt, raw), sumIf(completion, raw), sumIf(cached, raw),
    sumIf(reasoning, raw)) AS expected,
  tuple(sum(kept), sumIf(prompt, NOT raw), sumIf(completion, NOT raw), sumIf(cached, NOT raw),
    sumIf(reasoning, NOT raw)) AS found
FROM (
  SELECT
    hour AS bucket, toUUID('00000000-0000-0000-0000-000000000000') AS user,
    log_partition AS place, toInt8(request_type) AS kind,
    toString(model) AS model_name, toString(plan) AS plan_name,
    false AS raw, events AS kept, prompt_tokens AS prompt, completion_tokens AS completion,
    cached_tokens AS cached, reasoning_tokens AS reasoning
  FROM token_usage_hourly FINAL
  UNION ALL
  SELECT
    e.hour, toUUID('00000000-0000-0000-0000-000000000000'),
    e.log_partition, toInt8(e.request_type), toString(e.model), toString(e.plan),
    true, toUInt64(0), toUInt64(e.prompt_tokens), toUInt64(e.completion_tokens),
    toUInt64(e.cached_tokens), toUInt64(e.reasoning_tokens)
  FROM (
    SELECT
      *, toUnixTimestamp64Milli(occurred_at) AS millis,
      toInt32(intDiv(millis - positiveModulo(millis, 3600000), 3600000)) AS hour
    FROM token_usage FINAL
  ) AS e
  LEFT JOIN (SELECT * FROM token_usage_hourly FINAL) AS s
    ON e.log_partition = s.log_partition AND e.hour = s.hour
    AND e.request_type = s.request_type AND e.model = s.model AND e.plan = s.plan
  WHERE e.log_offset < greatest(
    s.version,
    arrayElement({positions:Array(UInt64)}, indexOf({partitions:Array(UInt32)}, e.log_partition))
  )
)
GROUP BY bucket, user, kind, model_name, plan_name, place
HAVING expected != found
LIMIT {rows:UInt64}
SETTINGS join_algorithm = 'grace_hash,hash', join_use_nulls = 0,
  max_bytes_before_external_group_by = 1000000000
