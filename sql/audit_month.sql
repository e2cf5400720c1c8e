-- `audit`: one month's sums, in one pass; answers the number of its events. The parameters of all
-- audit files: $1 and $2, the month's bounds; $3, one instance's id or null for all; $4, only counters
-- with an event received since then, or null.
WITH month AS (
    INSERT INTO pg_temp.audit_sums
    SELECT GROUPING(v.enrollment_id) = 1, v.instance_id, v.event_type, v.enrollment_id,
           count(*), count(v.instance_id), count(*) FILTER (WHERE $4 IS NULL OR v.received_at >= $4),
           max(least(v."timestamp", v.received_at)) FILTER (WHERE v.instance_id IS NOT NULL)
      FROM (SELECT e.instance_id, e.event_type, e.enrollment_id, e.received_at, e."timestamp"
              FROM campaign_events e
            UNION ALL -- a month that was detached and is not folded yet
            SELECT r.instance_id, r.event_type, r.enrollment_id, r.received_at, r."timestamp"
              FROM campaign_events_retired r WHERE r.tableoid <> ALL (folded_tables())) v
     WHERE v.received_at >= $1 AND v.received_at < $2 AND ($3 IS NULL OR v.instance_id = $3)
     GROUP BY GROUPING SETS ((v.instance_id, v.event_type), (v.enrollment_id))
    HAVING GROUPING(v.enrollment_id) = 1 OR (v.enrollment_id IS NOT NULL AND count(v.instance_id) > 0)
    RETURNING of_instance, events)
SELECT coalesce(sum(events) FILTER (WHERE of_instance), 0) FROM month
