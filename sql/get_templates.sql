-- GET /v1/templates: a page of templates with their active sequences, the latest first; one statement
-- whatever the page. $1 limit, $2 cursor (created_at as in get_events.sql, "-", id) or null, $3 is_active or null.
-- The page is cut first: sequences are read for its templates only, each list in its own subquery, so
-- that emails and LinkedIn steps do not multiply each other.
WITH page AS MATERIALIZED (
    SELECT row_number() OVER (ORDER BY t.created_at DESC, t.id DESC) AS place, t.*
      FROM (SELECT t.* FROM campaign_templates t
             WHERE ($3::boolean IS NULL OR t.is_active = $3)
               AND ($2::text IS NULL OR (t.created_at, t.id) <
                    (CASE left($2, 1) WHEN 'z' THEN timestamptz 'infinity' WHEN 'a' THEN timestamptz '-infinity' ELSE
                     timestamptz 'epoch' + replace(split_part($2, '-', 1), 'b', '-')::bigint / 1000000 * interval '1 second'
                     + replace(split_part($2, '-', 1), 'b', '-')::bigint % 1000000 * interval '1 microsecond' END,
                     substr($2, strpos($2, '-') + 1)::uuid))
             ORDER BY t.created_at DESC, t.id DESC
             LIMIT $1::integer + 1) t)
SELECT 200 AS status,
       json_build_object(
           'data', coalesce(json_agg(json_build_object(
               'id', p.id, 'name', p.name, 'type', p.type, 'path_type', p.path_type,
               'icp_profile_id', p.icp_profile_id, 'settings', p.settings, 'is_active', p.is_active,
               'created_at', p.created_at,
               'email_sequences', (
                   SELECT coalesce(json_agg(json_build_object(
                              'id', s.id, 'step_number', s.step_number, 'subject', s.subject,
                              'delay_hours', s.delay_hours) ORDER BY s.step_number, s.id), '[]')
                     FROM email_sequences s WHERE s.template_id = p.id AND s.is_active),
               'linkedin_sequences', (
                   SELECT coalesce(json_agg(json_build_object(
                              'id', s.id, 'step_number', s.step_number, 'type', s.type,
                              'delay_hours', s.delay_hours) ORDER BY s.step_number, s.id), '[]')
                     FROM linkedin_sequences s WHERE s.template_id = p.id AND s.is_active)
               ) ORDER BY p.place) FILTER (WHERE p.place <= $1::integer), '[]'),
           'next', CASE WHEN max(p.place) > $1::integer THEN (
               SELECT CASE WHEN isfinite(l.created_at)
                           THEN replace(least(extract(epoch FROM l.created_at) * 1000000, 9223372036854775807)::bigint::text, '-', 'b')
                           WHEN l.created_at > now() THEN 'z' ELSE 'a' END || '-' || l.id
                 FROM page l WHERE l.place = $1::integer) END)::text AS body
  FROM page p;
