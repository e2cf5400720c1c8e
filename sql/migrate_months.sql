-- `migrate`: the partitions that lack their part of the partitioned index $1 of schema $2: the partition,
-- the name of its part, whether an INVALID one of that name lies there (a build that was interrupted) or
-- a valid one (one that was not attached yet), what makes it, and what attaches it.
SELECT c.relname,
       n.part,
       i.indisvalid,
       format('DROP INDEX CONCURRENTLY IF EXISTS %I', n.part),
       format('CREATE %s INDEX CONCURRENTLY %I ON %I %s', CASE WHEN px.indisunique THEN 'UNIQUE' END, n.part,
              c.relname, substring(pg_get_indexdef(p.oid) FROM ' USING .*')),
       format('ALTER INDEX %I ATTACH PARTITION %I', p.relname, n.part)
  FROM pg_class p
  JOIN pg_index px ON px.indexrelid = p.oid
  JOIN pg_inherits h ON h.inhparent = px.indrelid AND NOT h.inhdetachpending
  JOIN pg_class c ON c.oid = h.inhrelid
  CROSS JOIN LATERAL (SELECT CASE WHEN starts_with(c.relname, t.relname)
                                  THEN substr(c.relname, length(t.relname) + 1) ELSE '_' || c.oid END AS tail
                        FROM pg_class t WHERE t.oid = px.indrelid) s
  CROSS JOIN LATERAL (SELECT left(p.relname, 63 - length(s.tail)) || s.tail AS part) n
  LEFT JOIN pg_class k ON k.relname = n.part AND k.relnamespace = c.relnamespace
  LEFT JOIN pg_index i ON i.indexrelid = k.oid
 WHERE p.relname = $1 AND p.relnamespace = (SELECT s.oid FROM pg_namespace s WHERE s.nspname = $2)
   AND NOT EXISTS (SELECT FROM pg_inherits a JOIN pg_index ax ON ax.indexrelid = a.inhrelid
                    WHERE a.inhparent = p.oid AND ax.indrelid = c.oid)
 ORDER BY c.relname
