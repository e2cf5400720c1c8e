-- `audit`: totals of instances that are not the number of their rows.
-- $1: one instance's id, or null for all. $2: only instances with an event received since then, or null.
WITH counted AS (
    SELECT instance_id, event_type, count(*) AS events
      FROM campaign_events
     WHERE instance_id IS NOT NULL AND ($1::uuid IS NULL OR instance_id = $1::uuid)
     GROUP BY instance_id, event_type
    UNION ALL
    SELECT instance_id, 'enrolled', count(*)
      FROM campaign_enrollments
     WHERE $1::uuid IS NULL OR instance_id = $1::uuid
     GROUP BY instance_id
)
SELECT 'campaign_instances', i.id, t.name, t.counter, coalesce(c.events, 0)
  FROM campaign_instances i
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
  LEFT JOIN counted c ON c.instance_id = i.id AND c.event_type = t.type
 WHERE t.counter <> coalesce(c.events, 0)
   AND ($1::uuid IS NULL OR i.id = $1::uuid)
   AND ($2::timestamptz IS NULL OR i.id IN (
        SELECT v.instance_id FROM campaign_events v
         WHERE v.received_at >= $2::timestamptz AND v.instance_id IS NOT NULL))
 ORDER BY i.id, t.name
