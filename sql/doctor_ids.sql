-- `doctor` and oncehook_id_headroom: what is left of the numbers that end, as a share. Sequences; and
-- transaction ids, which autovacuum gives back: a server stops writing when they are used up.
SELECT 1 - s.last_value::float8 / s.max_value, s.sequencename::text,
       format('left, %s of %s used', s.last_value, s.max_value)
  FROM pg_sequences s WHERE s.schemaname = current_schema() AND s.last_value IS NOT NULL AND s.increment_by > 0
UNION ALL
SELECT 1 - age(d.datfrozenxid)::float8 / 2147483648, format('transaction ids of database %s', d.datname),
       format('left, %s of 2147483648 used; autovacuum begins at %s', age(d.datfrozenxid),
              current_setting('autovacuum_freeze_max_age'))
  FROM pg_database d
UNION ALL
SELECT 1 - mxid_age(d.datminmxid)::float8 / 2147483648, format('multixact ids of database %s', d.datname),
       format('left, %s of 2147483648 used; autovacuum begins at %s', mxid_age(d.datminmxid),
              current_setting('autovacuum_multixact_freeze_max_age'))
  FROM pg_database d
 ORDER BY 1, 2 LIMIT 5
