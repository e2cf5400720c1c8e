-- `doctor`: prepared transactions that nobody ended. They hold their locks and what VACUUM would remove,
-- also over a restart.
SELECT extract(epoch FROM clock_timestamp() - p.prepared)::float8, p.gid::text,
       format('old, prepared by %s', p.owner)
  FROM pg_prepared_xacts p WHERE p.database = current_database()
UNION ALL
SELECT 0, NULL, 'there is none'
 ORDER BY 1 DESC LIMIT 5
