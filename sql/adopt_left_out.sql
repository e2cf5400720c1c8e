-- `migrate adopt`: rows of the old tables in schema $1 that would be left out, or would stop the copying half-way.
-- A row each: the table, a statement that counts them, and what is wrong with them. $2: what follows the names
-- of the old tables, '' before the switch and '_before_oncehook' after it.
SELECT k.name,
       format('SELECT count(*) FROM %1$I.%2$I o WHERE NOT EXISTS (SELECT FROM %1$I.%3$I p WHERE p.id = o.%4$I)', $1::text,
              k.name || $2, k.parent || $2, k.parent_column),
       format('whose %s is no row of %s', k.parent_column, k.parent) AS words
  FROM adopt_known() k
 WHERE k.parent IS NOT NULL AND EXISTS (SELECT FROM adopt_columns($1::text, k.name || $2))
UNION ALL
SELECT k.name,
       format('SELECT count(*) FROM %I.%I o WHERE o.%I::text ~ %L', $1::text, k.name || $2, c.name,
              '(^|[^\\])(\\\\)*\\u0000'),
       format('with \u0000 in %s, which jsonb cannot hold', c.name)
  FROM adopt_known() k CROSS JOIN LATERAL adopt_columns($1::text, k.name || $2) c
 WHERE c.type = 'json' AND $2 = ''
 ORDER BY 1, 3
