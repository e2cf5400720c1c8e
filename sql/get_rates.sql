-- GET /v1/analytics/rates: what happened on each day, and in which proportion. $1 from and $2 to, days in
-- the time zone $3, both included; by default the last 30. $4 instance_id or null. Days without events
-- are there, with zeros. Without $4 only the index (event_type, "timestamp") is read. A zone's name with
-- a digit is looked up, since PostgreSQL takes any such word for a zone of POSIX.
WITH asked AS MATERIALIZED (
    SELECT a.*,
           CASE WHEN a.first > a.last THEN 'from'
                WHEN a.last - a.first > 365 THEN 'from'
                WHEN $3::text ~ '[0-9]' AND NOT EXISTS (
                    SELECT FROM pg_timezone_names z WHERE z.name = $3::text) THEN 'tz' END AS wrong
      FROM (SELECT coalesce($1::date, l.last - 29) AS first, l.last
              FROM (SELECT coalesce($2::date, (now() AT TIME ZONE $3::text)::date) AS last) l) a),
counted AS (
    SELECT (e."timestamp" AT TIME ZONE $3::text)::date AS day, e.event_type, count(*) AS events
      FROM campaign_events e
     WHERE e.event_type = ANY ('{sent,delivered,opened,clicked,replied,bounced,unsubscribed,completed}')
       AND (SELECT a.wrong FROM asked a) IS NULL
       -- Of the parameters alone and not of `asked`, so that the planner knows how much it is.
       AND e."timestamp" >= coalesce($1::date, coalesce($2::date, (now() AT TIME ZONE $3::text)::date) - 29)
                            ::timestamp AT TIME ZONE $3::text
       AND e."timestamp" < (coalesce($2::date, (now() AT TIME ZONE $3::text)::date) + 1)
                           ::timestamp AT TIME ZONE $3::text
       AND ($4::uuid IS NULL OR e.instance_id = $4)
     GROUP BY 1, 2),
days AS (
    SELECT d.day::date AS day,
           coalesce(sum(c.events) FILTER (WHERE c.event_type = 'sent'), 0) AS sent,
           coalesce(sum(c.events) FILTER (WHERE c.event_type = 'delivered'), 0) AS delivered,
           coalesce(sum(c.events) FILTER (WHERE c.event_type = 'opened'), 0) AS opened,
           coalesce(sum(c.events) FILTER (WHERE c.event_type = 'clicked'), 0) AS clicked,
           coalesce(sum(c.events) FILTER (WHERE c.event_type = 'replied'), 0) AS replied,
           coalesce(sum(c.events) FILTER (WHERE c.event_type = 'bounced'), 0) AS bounced,
           coalesce(sum(c.events) FILTER (WHERE c.event_type = 'unsubscribed'), 0) AS unsubscribed,
           coalesce(sum(c.events) FILTER (WHERE c.event_type = 'completed'), 0) AS completed
      FROM asked a
     CROSS JOIN LATERAL generate_series(a.first::timestamp, a.last::timestamp, interval '1 day') d(day)
      LEFT JOIN counted c ON c.day = d.day::date
     WHERE a.wrong IS NULL
     GROUP BY d.day)
SELECT CASE WHEN a.wrong IS NULL THEN 200 ELSE 400 END AS status,
       CASE a.wrong
           WHEN 'from' THEN '{"parameter": "from", "detail": '
                            '"from must not be after to, nor more than 365 days before it."}'
           WHEN 'tz' THEN '{"parameter": "tz", "detail": '
                          '"tz must be the name of a time zone, as Europe/Berlin."}'
           ELSE json_build_object('tz', $3::text, 'data', (
               SELECT json_agg(json_build_object(
                          'day', d.day, 'sent', d.sent, 'delivered', d.delivered, 'opened', d.opened,
                          'clicked', d.clicked, 'replied', d.replied, 'bounced', d.bounced,
                          'unsubscribed', d.unsubscribed, 'completed', d.completed,
                          'delivery_rate', round(d.delivered / nullif(d.sent, 0), 4),
                          'open_rate', round(d.opened / nullif(d.delivered, 0), 4),
                          'click_rate', round(d.clicked / nullif(d.delivered, 0), 4),
                          'reply_rate', round(d.replied / nullif(d.delivered, 0), 4),
                          'bounce_rate', round(d.bounced / nullif(d.sent, 0), 4),
                          'unsubscribe_rate', round(d.unsubscribed / nullif(d.delivered, 0), 4))
                      ORDER BY d.day) FROM days d))::text END AS body
  FROM asked a;
