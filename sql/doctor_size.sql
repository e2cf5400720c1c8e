-- `doctor` and oncehook_database_bytes: this database on disk, and its greatest tables, months summed up.
-- Pages as of the last VACUUM or ANALYZE: no relation is locked.
SELECT pg_database_size(current_database())::float8, NULL::text,
       (SELECT string_agg(format('%s %s (indexes %s)', name, pg_size_pretty(heap), pg_size_pretty(indexes)),
                          ', ' ORDER BY heap + indexes DESC, name)
          FROM (SELECT coalesce(pg_partition_root(c.oid), c.oid::regclass)::text AS name,
                       sum(current_setting('block_size')::int * (c.relpages + coalesce(t.relpages, 0))::bigint)::bigint AS heap,
                       coalesce(sum(current_setting('block_size')::int * (SELECT sum(i.relpages) FROM pg_index x JOIN pg_class i
                                              ON i.oid = x.indexrelid
                                           WHERE x.indrelid = c.oid)), 0)::bigint AS indexes
                  FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
                 WHERE c.relkind IN ('r', 'p') AND c.relnamespace = current_schema()::regnamespace
                 GROUP BY 1 ORDER BY sum(c.relpages) DESC, 1 LIMIT 3) top)
