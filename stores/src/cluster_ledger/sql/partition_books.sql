SELECT log_partition, start_offset, position, counted, duplicates, dead_letters, void, ticks
FROM cursors ORDER BY log_partition
