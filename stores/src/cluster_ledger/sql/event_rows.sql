  UNION ALL
  -- The edges of the span, event by event; one that was written twice counts once.
  SELECT at, kind, model_name, plan_name, user_id, event_count, prompt, completion
  FROM (
    SELECT
      toUnixTimestamp64Milli(occurred_at) AS at, toInt8(request_type) AS kind,
      toString(model) AS model_name, toString(plan) AS plan_name, user_id, log_offset,
      toUInt64(1) AS event_count, toUInt64(prompt_tokens) AS prompt,
      toUInt64(completion_tokens) AS completion
    FROM token_usage
    WHERE (
        (occurred_at >= fromUnixTimestamp64Milli({from_1:Int64}, 'UTC')
          AND occurred_at < fromUnixTimestamp64Milli({to_1:Int64}, 'UTC'))
        OR (occurred_at >= fromUnixTimestamp64Milli({from_2:Int64}, 'UTC')
          AND occurred_at < fromUnixTimestamp64Milli({to_2:Int64}, 'UTC'))
      )
      AND ({type:Int8} < 0 OR toInt8(request_type) = {type:Int8})
      AND ({of_model:UInt8} = 0 OR model = {model:String})
      AND ({of_plan:UInt8} = 0 OR plan = {plan:String})
      AND ({of_user:UInt8} = 0 OR user_id = {user:UUID})
    LIMIT 1 BY user_id, log_offset
  )
