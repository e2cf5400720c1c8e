-- `doctor` and oncehook_database_bytes: this database on disk, and its greatest tables, months summed up.
SELECT pg_database_size(current_database())::float8, NULL::text,
       'in all; greatest: ' || (SELECT string_agg(format('%s %s (indexes %s)', name, pg_size_pretty(heap), pg_size_pretty(indexes)),
                          ', ' ORDER BY heap + indexes DESC, name)
          FROM (SELECT coalesce(pg_partition_root(c.oid), c.oid::regclass)::text AS name,
                       sum(pg_table_size(c.oid))::bigint AS heap, sum(pg_indexes_size(c.oid))::bigint AS indexes
                  FROM pg_class c
                 WHERE c.relkind IN ('r', 'p') AND c.relnamespace = current_schema()::regnamespace
                 GROUP BY 1 ORDER BY sum(pg_total_relation_size(c.oid)) DESC, 1 LIMIT 3) top)
