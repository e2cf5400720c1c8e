-- `audit`: how much it looked at. $1 and $2 as in the other audit files.
SELECT (SELECT count(*) FROM campaign_instances i
         WHERE ($1::uuid IS NULL OR i.id = $1::uuid)
           AND ($2::timestamptz IS NULL OR i.id IN (
                SELECT v.instance_id FROM campaign_events v
                 WHERE v.received_at >= $2::timestamptz AND v.instance_id IS NOT NULL))),
       (SELECT count(*) FROM campaign_enrollments e
         WHERE ($1::uuid IS NULL OR e.instance_id = $1::uuid)
           AND ($2::timestamptz IS NULL OR e.id IN (
                SELECT v.enrollment_id FROM campaign_events v
                 WHERE v.received_at >= $2::timestamptz AND v.enrollment_id IS NOT NULL))),
       (SELECT count(*) FROM campaign_events v
         WHERE ($1::uuid IS NULL OR v.instance_id = $1::uuid)
           AND ($2::timestamptz IS NULL OR v.received_at >= $2::timestamptz))
