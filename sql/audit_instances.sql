-- `audit`: totals of instances that are not the number of their rows. Parameters: see audit_month.sql.
INSERT INTO pg_temp.audit_drift (table_name, id, column_name, counter, events, drift, is_mendable)
WITH counted AS (
    SELECT instance_id, event_type, sum(bound)::bigint AS events
      FROM pg_temp.audit_sums
     WHERE of_instance AND instance_id IS NOT NULL
     GROUP BY instance_id, event_type
    UNION ALL
    SELECT instance_id, 'enrolled', count(*)
      FROM campaign_enrollments
     WHERE $3 IS NULL OR instance_id = $3
     GROUP BY instance_id
)
SELECT 'campaign_instances', i.id, t.name, t.counter, coalesce(c.events, 0),
       t.counter - coalesce(c.events, 0), true
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
   AND ($3 IS NULL OR i.id = $3)
   AND ($4 IS NULL OR i.id IN (SELECT s.instance_id FROM pg_temp.audit_sums s
                                WHERE s.of_instance AND s.recent > 0 AND s.instance_id IS NOT NULL))
 ORDER BY i.id, t.name
