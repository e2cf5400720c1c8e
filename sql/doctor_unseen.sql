-- `doctor`: configured sources ($1) that no event has come from. Large tables are sampled as in
-- doctor_silent.sql.
WITH pages AS (
    SELECT greatest(1, sum(pg_relation_size(h.inhrelid)) / current_setting('block_size')::int)::float8 AS n
      FROM pg_inherits h WHERE h.inhparent = 'campaign_events'::regclass),
seen AS (
    SELECT v.source FROM campaign_events v TABLESAMPLE SYSTEM (least(100, 400000 / (SELECT n FROM pages)))
    UNION
    SELECT n.source FROM (SELECT source FROM campaign_events ORDER BY received_at DESC LIMIT 20000) n
    UNION
    SELECT q.source FROM quarantined_deliveries q),
unseen AS (
    SELECT c.source, row_number() OVER (ORDER BY c.n) AS n FROM unnest($1) WITH ORDINALITY c(source, n)
     WHERE NOT EXISTS (SELECT FROM seen s WHERE s.source = c.source))
SELECT count(u.source)::float8, NULL::text,
       CASE WHEN $1 IS NULL THEN 'sources are known with -c FILE alone'
            WHEN count(u.source) = 0 THEN 'every configured source has sent something'
            ELSE format('without an event in %s: %s%s',
                        CASE WHEN (SELECT n FROM pages) > 4000 THEN 'a sample' ELSE 'the database' END,
                        string_agg(u.source, ', ' ORDER BY u.n) FILTER (WHERE u.n <= 5),
                        CASE WHEN count(u.source) > 5 THEN ' and others' END) END
  FROM unseen u
