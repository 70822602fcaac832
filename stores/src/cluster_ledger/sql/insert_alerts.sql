-- Those that are there already, which is most, are passed over before they take anything.
INSERT INTO alerts
    (id, user_id, period, plan, meter, percent, plan_limit, used, raised_at, due_at)
SELECT new.*, new.raised_at
FROM unnest(
    $1::uuid[], $2::uuid[], $3::integer[], $4::text[], $5::text[],
    $6::integer[], $7::bigint[], $8::bigint[], $9::bigint[]
) AS new (id, user_id, period, plan, meter, percent, plan_limit, used, raised_at)
WHERE NOT EXISTS (SELECT FROM alerts AS old WHERE old.id = new.id)
ON CONFLICT (id) DO NOTHING
RETURNING user_id, period
