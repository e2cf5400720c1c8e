-- `doctor` and oncehook_dead_row_share: tables by the share of rows that are dead and not yet removed.
-- Below 10,000 of them it is nothing.
SELECT t.n_dead_tup::float8 / (t.n_dead_tup + t.n_live_tup), t.relname::text,
       format('of its rows are dead, %s of %s; last vacuum: %s%s', t.n_dead_tup, t.n_dead_tup + t.n_live_tup,
              coalesce(to_char(greatest(t.last_vacuum, t.last_autovacuum) AT TIME ZONE 'UTC',
                               'YYYY-MM-DD HH24:MI "UTC"'), 'never'),
              CASE WHEN 'autovacuum_enabled=false' = ANY (c.reloptions)
                     OR 'autovacuum_enabled=off' = ANY (c.reloptions) THEN '; its autovacuum is off' END)
  FROM pg_stat_user_tables t JOIN pg_class c ON c.oid = t.relid
 WHERE t.schemaname = current_schema() AND t.n_dead_tup >= 10000
UNION ALL
SELECT 0, NULL, 'no table has 10,000 dead rows'
 ORDER BY 1 DESC, 2 LIMIT 5
