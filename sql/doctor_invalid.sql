-- `doctor`: what an interrupted migration leaves. 1 = an index that costs every write and serves no
-- query; 0.5 = a constraint that was not validated. An index that is being built is none.
SELECT 1::float8, c.relname::text, format('index of %s is not valid', i.indrelid::regclass)
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE c.relnamespace = current_schema()::regnamespace AND NOT (i.indisvalid AND i.indisready AND i.indislive)
   AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)
UNION ALL
SELECT 0.5, c.conname::text, format('constraint of %s is not validated', c.conrelid::regclass)
  FROM pg_constraint c
 WHERE c.connamespace = current_schema()::regnamespace AND NOT c.convalidated
UNION ALL
SELECT 0, NULL, 'every index and constraint is valid'
 ORDER BY 1 DESC, 2 LIMIT 5
