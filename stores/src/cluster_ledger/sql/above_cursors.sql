-- What commits that were cut off have stored of a log that is over.
WHERE log_offset < {first:UInt64} AND has({partitions:Array(UInt32)}, log_partition)
  AND log_offset >= arrayElement(
    {positions:Array(UInt64)}, indexOf({partitions:Array(UInt32)}, log_partition)
  )
