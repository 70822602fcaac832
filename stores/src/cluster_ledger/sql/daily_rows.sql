  -- Whole days.
  SELECT
    toInt64(day) * 86400000 AS at, toInt8(request_type) AS kind,
    toString(model) AS model_name, toString(plan) AS plan_name, user_id,
    events AS event_count, prompt_tokens AS prompt, completion_tokens AS completion
  FROM token_usage_summary FINAL
  WHERE day >= {first:Int64} AND day < {end:Int64}
    AND ({type:Int8} < 0 OR toInt8(request_type) = {type:Int8})
    AND ({of_model:UInt8} = 0 OR model = {model:String})
    AND ({of_plan:UInt8} = 0 OR plan = {plan:String})
    AND ({of_user:UInt8} = 0 OR user_id = {user:UUID})
