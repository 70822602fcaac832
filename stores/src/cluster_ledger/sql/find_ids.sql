-- Every count of some ids.
SELECT id_digest, log_offset, log_partition, content_digest, log_time FROM token_usage_ids
WHERE id_digest IN ({ids})
