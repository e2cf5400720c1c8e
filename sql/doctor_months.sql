-- `doctor` and oncehook_months_ahead: whole months after this one that events can be written to, without
-- a gap; -1: not even this one. Every doctor_*.sql gives rows (value, subject, words), the worst first; a
-- value that is null could not be had, and words say why. Reads only.
WITH bounds AS MATERIALIZED (
    SELECT coalesce(b[1], '-infinity')::timestamptz AS first, coalesce(b[2], 'infinity')::timestamptz AS next
      FROM (SELECT regexp_match(pg_get_expr(c.relpartbound, c.oid),
                   $$FROM \((?:MINVALUE|'([^']*)')\) TO \((?:MAXVALUE|'([^']*)')\)$$) b
              FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
             WHERE h.inhparent = 'campaign_events'::regclass AND NOT h.inhdetachpending) p),
missing AS (
    SELECT min(n) AS n
      FROM generate_series(0, 120) n
     CROSS JOIN LATERAL (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + n * interval '1 month' AS at) m
     WHERE NOT EXISTS (SELECT FROM bounds b
                        WHERE b.first <= m.at AT TIME ZONE 'UTC'
                          AND b.next >= (m.at + interval '1 month') AT TIME ZONE 'UTC'))
SELECT coalesce(n - 1, 120)::float8, NULL::text,
       CASE WHEN n = 0 THEN 'the current month is missing: no event can be captured'
            ELSE 'ready after the current one' END
  FROM missing
