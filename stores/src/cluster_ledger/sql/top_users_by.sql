)
GROUP BY user_id
ORDER BY total DESC, toString(user_id)
LIMIT {top:UInt64}
