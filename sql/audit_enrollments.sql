-- `audit`: total_events of enrollments that is not the number of their bound events, and last_event_at
-- that is before one of them. (After them it may be: counters outlive events.) Parameters: see
-- audit_month.sql.
INSERT INTO pg_temp.audit_drift (table_name, id, column_name, counter, events, drift, at, is_mendable)
SELECT 'campaign_enrollments', e.id, t.name, t.counter, t.events, t.drift, t.at, true
  FROM campaign_enrollments e
  LEFT JOIN (SELECT enrollment_id, sum(bound)::bigint AS events, sum(recent) AS recent,
                    max(last_event_at) AS last_event_at
               FROM pg_temp.audit_sums
              WHERE NOT of_instance
              GROUP BY enrollment_id) c ON c.enrollment_id = e.id
 CROSS JOIN LATERAL (
       SELECT 'total_events', e.total_events::text, coalesce(c.events, 0)::text,
              e.total_events - coalesce(c.events, 0), NULL::timestamptz
        WHERE e.total_events <> coalesce(c.events, 0)
       UNION ALL
       SELECT 'last_event_at', to_char(e.last_event_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
              to_char(c.last_event_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), NULL, c.last_event_at
        WHERE c.last_event_at > coalesce(e.last_event_at, '-infinity')) t(name, counter, events, drift, at)
 WHERE ($3 IS NULL OR e.instance_id = $3) AND ($4 IS NULL OR c.recent > 0)
 ORDER BY e.id, t.name DESC
