SELECT log_partition, position FROM cursors WHERE log_partition = ANY ($1)
ORDER BY log_partition FOR UPDATE
