-- `audit`: total_events of enrollments that is not the number of their bound events.
-- $1: the enrollments of one instance, or null for all. $2: only those with an event received since, or null.
SELECT 'campaign_enrollments', e.id, 'total_events', e.total_events, coalesce(c.events, 0)
  FROM campaign_enrollments e
  LEFT JOIN (SELECT enrollment_id, count(*) AS events
               FROM campaign_events
              WHERE enrollment_id IS NOT NULL AND instance_id IS NOT NULL
                AND ($1::uuid IS NULL OR instance_id = $1::uuid)
              GROUP BY enrollment_id) c ON c.enrollment_id = e.id
 WHERE e.total_events <> coalesce(c.events, 0)
   AND ($1::uuid IS NULL OR e.instance_id = $1::uuid)
   AND ($2::timestamptz IS NULL OR e.id IN (
        SELECT v.enrollment_id FROM campaign_events v
         WHERE v.received_at >= $2::timestamptz AND v.enrollment_id IS NOT NULL))
 ORDER BY e.id
