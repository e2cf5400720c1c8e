-- POST /v1/instances/{instance_id}/enrollments: $1 the instance, $2 the body. enroll_http_v1 says of a time like 30 February
-- only that there is one; here it gets its contact. $2 is read as JSON inside that case alone: it may be none.
SELECT e.status,
       coalesce('Contact ' || w.place || ' has a next_action_at that is no time that there is.', e.body) AS body
  FROM enroll_http_v1($1::uuid, $2::text) e
  LEFT JOIN LATERAL (
        SELECT c.place
          FROM (SELECT (CASE WHEN e.status = 400 AND e.body = 'A next_action_at is no time that there is.'
                             THEN $2::text END)::jsonb AS document) d
         CROSS JOIN LATERAL jsonb_array_elements(CASE WHEN jsonb_typeof(d.document) = 'array' THEN d.document
                                                      WHEN d.document ? 'contacts' THEN d.document -> 'contacts'
                                                      ELSE jsonb_build_array(d.document) END)
               WITH ORDINALITY c(item, place)
         CROSS JOIN LATERAL regexp_match(c.item ->> 'next_action_at',
                                         '^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d)(?::(\d\d(?:\.\d+)?))?') m
         CROSS JOIN LATERAL (SELECT m[1]::integer AS year, m[2]::integer AS month, m[3]::integer AS day, m[4]::integer AS hour,
                                    m[5]::integer AS minute, coalesce(m[6], '0')::numeric AS second) t
         WHERE CASE WHEN t.year = 0 OR t.month NOT BETWEEN 1 AND 12 OR t.day = 0 OR t.minute > 59 OR t.second >= 61
                    THEN true
                    ELSE t.day > extract(day FROM make_date(t.year, t.month, 1) + interval '1 month -1 day')
                         OR t.hour * 3600 + t.minute * 60 + t.second > 86400 END
         ORDER BY c.place LIMIT 1) w ON true;
