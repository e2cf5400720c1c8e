-- `migrate adopt`: what is there and what stands in the way, adopt_look_v1. It says "about 0 rows" of a table that nobody
-- has counted yet (after a restore, say); those are guessed from the size, as migrate_size.sql guesses. $1 the old
-- schema, $2 the scopes.
SELECT l.kind, coalesce(replace(l.line, ', about 0 rows;', format(', about %s rows (never counted);',
                                pg_relation_size(c.oid) / 100)), l.line) AS line
  FROM adopt_look_v1($1::text, $2::jsonb) WITH ORDINALITY l(kind, line, place)
  LEFT JOIN pg_class c ON l.kind = 'table' AND c.reltuples < 0 AND c.relkind = 'r'
        AND c.relnamespace = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = $1)
        AND starts_with(l.line, $1 || '.' || c.relname || ': ')
 ORDER BY l.place
