-- `migrate`: table or index $1 of schema $2, as it stands: kind, bytes of the table without its indexes
-- (all months of a partitioned one), rows as last counted, or guessed where nobody has counted yet (after a
-- restore, say): 100 bytes each. No row: it is not there.
SELECT c.relkind,
       sum(pg_table_size(m.oid)) AS bytes,
       sum(CASE WHEN m.reltuples < 0 THEN pg_relation_size(m.oid) / 100 ELSE m.reltuples END)::bigint AS rows,
       pg_size_pretty(sum(pg_table_size(m.oid)))
  FROM pg_class c
  CROSS JOIN LATERAL (SELECT c.oid, c.reltuples WHERE c.relkind <> 'p'
                      UNION ALL
                      SELECT t.relid, k.reltuples
                        FROM pg_partition_tree(c.oid) t JOIN pg_class k ON k.oid = t.relid
                       WHERE c.relkind = 'p' AND t.isleaf) m
 WHERE c.relname = $1 AND c.relnamespace = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = $2)
   AND c.relkind IN ('r', 'p', 'm')
 GROUP BY c.relkind
