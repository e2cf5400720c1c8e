-- `migrate`, after it: what an interrupted or hand-made change may have left in schema $1.
SELECT (SELECT count(*) FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid
         WHERE c.relnamespace = n.oid AND NOT x.indisvalid),
       (SELECT count(*) FROM pg_constraint k WHERE k.connamespace = n.oid AND NOT k.convalidated)
  FROM pg_namespace n WHERE n.nspname = $1
