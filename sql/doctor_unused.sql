-- `doctor`: indexes that queries used less than the given number of times, months summed up: no unique
-- ones, and none below 8 MiB. Said only when the statistics, the server's run and the newest migration
-- are 7 days old: an index that nobody has used for an hour is not unused.
WITH since AS (
    SELECT greatest(pg_postmaster_start_time(), (SELECT max(applied_at) FROM schema_migrations),
                    (SELECT stats_reset FROM pg_stat_database WHERE datname = current_database())) AS at),
used AS (
    SELECT coalesce(pg_partition_root(s.indexrelid), s.indexrelid::regclass) AS name, sum(s.idx_scan) AS scans,
           sum(c.relpages::bigint * current_setting('block_size')::int) AS bytes
      FROM pg_stat_user_indexes s JOIN pg_index i ON i.indexrelid = s.indexrelid
      JOIN pg_class c ON c.oid = s.indexrelid
     WHERE s.schemaname = current_schema() AND NOT i.indisunique
     GROUP BY 1)
SELECT u.scans::float8, u.name::text,
       format('uses since %s, %s; those on a standby are not among them',
              to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), pg_size_pretty(u.bytes))
  FROM used u, since WHERE at < now() - interval '7 days' AND u.bytes >= 8388608
UNION ALL
SELECT 'Infinity', NULL, 'no index is large' FROM since
 WHERE at < now() - interval '7 days' AND NOT EXISTS (SELECT FROM used u WHERE u.bytes >= 8388608)
UNION ALL
SELECT NULL, NULL, format('the statistics are %s h old; it takes 7 days',
                          (extract(epoch FROM now() - at) / 3600)::bigint)
  FROM since WHERE at >= now() - interval '7 days'
 ORDER BY 1, 2 LIMIT 5
