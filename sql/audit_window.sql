-- upkeep's audit window: the counters of the next instance after $1 (null: the first) and of its
-- enrollments against their events, in one snapshot. One row: the instance, how many differ, and the
-- first of those; no row after the last instance.
WITH one AS MATERIALIZED (
    SELECT * FROM campaign_instances i
     WHERE i.id >= coalesce($1::uuid, '00000000-0000-0000-0000-000000000000') AND i.id IS DISTINCT FROM $1::uuid
     ORDER BY i.id LIMIT 1
), counted AS MATERIALIZED (
    SELECT p.event_type, p.enrollment_id, sum(p.events)::bigint AS events
      FROM (SELECT v.event_type, v.enrollment_id, count(*) AS events
              FROM (SELECT e.event_type, e.enrollment_id FROM campaign_events e
                     WHERE e.instance_id = (SELECT id FROM one)
                    UNION ALL -- a month that was detached and is not folded yet
                    SELECT r.event_type, r.enrollment_id FROM campaign_events_retired r
                     WHERE r.instance_id = (SELECT id FROM one) AND r.tableoid <> ALL (folded_tables())) v
             GROUP BY GROUPING SETS ((v.event_type), (v.enrollment_id))
            UNION ALL
            SELECT f.event_type, NULL, f.events FROM folded_events f WHERE f.instance_id = (SELECT id FROM one)
            UNION ALL
            SELECT NULL, f.enrollment_id, f.events FROM campaign_enrollments e
              JOIN folded_enrollments f ON f.enrollment_id = e.id
             WHERE e.instance_id = (SELECT id FROM one)) p
     GROUP BY p.event_type, p.enrollment_id
    UNION ALL
    SELECT 'enrolled', NULL, count(*) FROM campaign_enrollments e WHERE e.instance_id = (SELECT id FROM one)
), drift AS MATERIALIZED (
    SELECT 1 AS place, 'campaign_instances' AS name, i.id, t.name AS column_name
      FROM one i
     CROSS JOIN LATERAL (VALUES
           ('enrolled',     'total_enrolled',     i.total_enrolled),
           ('sent',         'total_sent',         i.total_sent),
           ('delivered',    'total_delivered',    i.total_delivered),
           ('opened',       'total_opened',       i.total_opened),
           ('clicked',      'total_clicked',      i.total_clicked),
           ('replied',      'total_replied',      i.total_replied),
           ('bounced',      'total_bounced',      i.total_bounced),
           ('unsubscribed', 'total_unsubscribed', i.total_unsubscribed),
           ('completed',    'total_completed',    i.total_completed)) t(type, name, counter)
      LEFT JOIN counted c ON c.event_type = t.type
     WHERE t.counter <> coalesce(c.events, 0)
    UNION ALL
    SELECT 2, 'campaign_enrollments', e.id, 'total_events'
      FROM campaign_enrollments e
      LEFT JOIN counted c ON c.enrollment_id = e.id
     WHERE e.instance_id = (SELECT id FROM one) AND e.total_events <> coalesce(c.events, 0)
)
SELECT one.id, (SELECT count(*) FROM drift), f.name, f.id, f.column_name
  FROM one
  LEFT JOIN (SELECT * FROM drift d ORDER BY d.place, d.id, d.column_name LIMIT 1) f ON true
