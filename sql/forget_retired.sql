-- `forget`: takes the payload of at most $2 events of the enrollments $1 in months that have left campaign_events
-- and are not dropped yet: one may wait for its archive for long, and the archive is made of it. Answers of how
-- many; once more while it is $2.
WITH picked AS (
    -- Lock order, place 5: campaign_events_retired, ascending by received_at and id.
    SELECT o.tableoid AS month, o.ctid AS place FROM campaign_events_retired o
     WHERE o.enrollment_id = ANY ($1::uuid[]) AND (o.payload IS NOT NULL OR o.payload_bytes IS NOT NULL)
     ORDER BY o.received_at, o.id LIMIT $2::integer FOR NO KEY UPDATE
), gone AS (
    -- Lock order, place 5: rows locked above.
    UPDATE campaign_events_retired v SET payload = NULL, payload_bytes = NULL
      FROM picked p WHERE v.tableoid = p.month AND v.ctid = p.place RETURNING 1
)
SELECT count(*) FROM gone
