-- GET /v1/contacts: a page of imported contacts, the latest first. $1 limit, $2 cursor (imported_at as in
-- get_events.sql, "-", id) or null, $3 source or null, $4 company_domain or null. An import is one transaction:
-- its contacts share imported_at, so a cursor on that alone would skip the rest of them.
WITH page AS MATERIALIZED (
    SELECT row_number() OVER (ORDER BY c.imported_at DESC, c.id DESC) AS place, c.*
      FROM (SELECT c.* FROM imported_contacts c
             WHERE ($2::text IS NULL OR (c.imported_at, c.id) <
                    (CASE left($2, 1) WHEN 'z' THEN timestamptz 'infinity' WHEN 'a' THEN timestamptz '-infinity' ELSE
                     timestamptz 'epoch' + replace(split_part($2, '-', 1), 'b', '-')::bigint / 1000000 * interval '1 second'
                     + replace(split_part($2, '-', 1), 'b', '-')::bigint % 1000000 * interval '1 microsecond' END,
                     substr($2, strpos($2, '-') + 1)::uuid))
               AND ($3::text IS NULL OR c.source = $3)
               AND ($4::text IS NULL OR c.company_domain = $4)
             ORDER BY c.imported_at DESC, c.id DESC
             LIMIT $1::integer + 1) c)
SELECT 200 AS status,
       json_build_object(
           'data', coalesce(json_agg(json_build_object(
               'id', p.id, 'email', p.email, 'first_name', p.first_name, 'last_name', p.last_name,
               'title', p.title, 'company', p.company, 'company_domain', p.company_domain,
               'phone', p.phone, 'linkedin_url', p.linkedin_url, 'source', p.source, 'data', p.data,
               'imported_at', p.imported_at) ORDER BY p.place)
               FILTER (WHERE p.place <= $1::integer), '[]'),
           'next', CASE WHEN max(p.place) > $1::integer THEN (
               SELECT CASE WHEN isfinite(l.imported_at)
                           THEN replace(least(extract(epoch FROM l.imported_at) * 1000000, 9223372036854775807)::bigint::text, '-', 'b')
                           WHEN l.imported_at > now() THEN 'z' ELSE 'a' END || '-' || l.id
                 FROM page l WHERE l.place = $1::integer) END)::text AS body
  FROM page p;
