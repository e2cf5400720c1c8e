-- `audit`: how much it looked at, and what it found. Parameters: see audit_month.sql.
SELECT (SELECT count(*) FROM campaign_instances i
         WHERE ($3 IS NULL OR i.id = $3)
           AND ($4 IS NULL OR i.id IN (SELECT s.instance_id FROM pg_temp.audit_sums s
                                        WHERE s.of_instance AND s.recent > 0 AND s.instance_id IS NOT NULL))),
       (SELECT count(*) FROM campaign_enrollments e
         WHERE ($3 IS NULL OR e.instance_id = $3)
           AND ($4 IS NULL OR e.id IN (SELECT s.enrollment_id FROM pg_temp.audit_sums s
                                        WHERE NOT s.of_instance AND s.recent > 0))),
       (SELECT coalesce(sum(s.recent), 0) FROM pg_temp.audit_sums s WHERE s.of_instance),
       (SELECT count(*) FROM pg_temp.audit_drift),
       (SELECT count(*) FROM pg_temp.audit_drift WHERE is_mendable)
