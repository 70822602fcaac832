  -- Whole hours, of everybody together.
  SELECT
    toInt64(hour) * 3600000 AS at, toInt8(request_type) AS kind,
    toString(model) AS model_name, toString(plan) AS plan_name,
    toUUID('00000000-0000-0000-0000-000000000000') AS user_id,
    events AS event_count, prompt_tokens AS prompt, completion_tokens AS completion
  FROM token_usage_hourly FINAL
  WHERE hour >= {first:Int64} AND hour < {end:Int64}
    AND ({type:Int8} < 0 OR toInt8(request_type) = {type:Int8})
    AND ({of_model:UInt8} = 0 OR model = {model:String})
    AND ({of_plan:UInt8} = 0 OR plan = {plan:String})
