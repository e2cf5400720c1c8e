-- GET /v1/instances: a page of instances with their lifetime totals, by id. $1 limit, $2 cursor (the
-- last id) or null, $3 template_id or null, $4 status or null. provider_config stays out: it may name
-- what gives access to a provider.
WITH page AS MATERIALIZED (
    SELECT i.*, row_number() OVER (ORDER BY i.id) AS place
      FROM campaign_instances i
     WHERE ($2::uuid IS NULL OR i.id > $2)
       AND ($3::uuid IS NULL OR i.template_id = $3)
       AND ($4::text IS NULL OR i.status = $4)
     ORDER BY i.id
     LIMIT $1::integer + 1)
SELECT 200 AS status,
       json_build_object(
           'data', coalesce(json_agg(json_build_object(
               'id', p.id, 'template_id', p.template_id, 'name', p.name, 'status', p.status,
               'total_enrolled', p.total_enrolled, 'total_sent', p.total_sent,
               'total_delivered', p.total_delivered, 'total_opened', p.total_opened,
               'total_clicked', p.total_clicked, 'total_replied', p.total_replied,
               'total_bounced', p.total_bounced, 'total_unsubscribed', p.total_unsubscribed,
               'total_completed', p.total_completed) ORDER BY p.place)
               FILTER (WHERE p.place <= $1::integer), '[]'),
           'next', CASE WHEN max(p.place) > $1::integer THEN (
               SELECT l.id FROM page l WHERE l.place = $1::integer) END)::text AS body
  FROM page p;
