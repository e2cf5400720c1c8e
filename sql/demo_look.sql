-- What the demo's report shows and checks, at one moment: a row (subject, what, counter, beside, events)
-- for each counter of each of its three instances, also of those that are not there yet, and one for
-- each source of $1, text[]. A counter and what it counts must rise alike.
SELECT subject, what, counter, beside, events
  FROM (SELECT s.n, c.n, i.name, c.what, coalesce(c.counter, 0)::bigint, c.beside, coalesce(c.events, 0)::bigint
          FROM generate_series(0, 2) s(n)
          LEFT JOIN campaign_instances i ON i.id = ('de310000-0000-4000-8000-' || lpad(to_hex(s.n), 12, '0'))::uuid
         CROSS JOIN LATERAL (
               SELECT count(*) AS every,
                      count(*) FILTER (WHERE event_type = 'sent') AS sent,
                      count(*) FILTER (WHERE event_type = 'delivered') AS delivered,
                      count(*) FILTER (WHERE event_type = 'opened') AS opened,
                      count(*) FILTER (WHERE event_type = 'clicked') AS clicked,
                      count(*) FILTER (WHERE event_type = 'replied') AS replied,
                      count(*) FILTER (WHERE event_type = 'bounced') AS bounced,
                      count(*) FILTER (WHERE event_type = 'unsubscribed') AS unsubscribed,
                      count(*) FILTER (WHERE event_type = 'completed') AS completed
                 FROM campaign_events e WHERE e.instance_id = i.id) e
         CROSS JOIN LATERAL (
               SELECT count(*) AS enrollments,
                      sum(m.total_events) AS total_events,
                      count(*) FILTER (WHERE m.total_events <> (
                          SELECT count(*) FROM campaign_events o WHERE o.enrollment_id = m.id)) AS wrong
                 FROM campaign_enrollments m WHERE m.instance_id = i.id) m
         CROSS JOIN LATERAL (VALUES
               (0, 'total_sent', i.total_sent::bigint, 'its events', e.sent),
               (1, 'total_delivered', i.total_delivered, 'its events', e.delivered),
               (2, 'total_opened', i.total_opened, 'its events', e.opened),
               (3, 'total_clicked', i.total_clicked, 'its events', e.clicked),
               (4, 'total_replied', i.total_replied, 'its events', e.replied),
               (5, 'total_bounced', i.total_bounced, 'its events', e.bounced),
               (6, 'total_unsubscribed', i.total_unsubscribed, 'its events', e.unsubscribed),
               (7, 'total_completed', i.total_completed, 'its events', e.completed),
               (8, 'total_events of its enrollments', m.total_events, 'its events', e.every),
               (9, 'total_enrolled', i.total_enrolled, 'its enrollments', m.enrollments),
               (10, 'number of enrollments with a wrong total_events', m.wrong, 'what is allowed', 0)
               ) c(n, what, counter, beside, events)
        UNION ALL
        SELECT 3, s.n::int, s.name, 'number of rows', count(e.id), 'different ids',
               count(DISTINCT (e.key_scope, e.provider_event_id)) FILTER (WHERE e.id IS NOT NULL)
          FROM unnest($1::text[]) WITH ORDINALITY s(name, n)
          LEFT JOIN campaign_events e ON e.source = s.name
         GROUP BY s.n, s.name) seen(block, place, subject, what, counter, beside, events)
 ORDER BY block, place;
