-- R2: the events below the cursors. A partition without a cursor has counted nothing.
SELECT count(), sum(toUInt64(prompt_tokens) + completion_tokens)
FROM token_usage FINAL
WHERE log_offset < arrayElement(
  {positions:Array(UInt64)}, indexOf({partitions:Array(UInt32)}, log_partition)
)
