-- `doctor`: the schema's version against that of this program, $4. 0 = the same, 1 = the next one, which
-- it works on too, 2 = one that it refuses.
SELECT CASE v.is - $4 WHEN 0 THEN 0 WHEN 1 THEN 1 ELSE 2 END::float8, NULL::text,
       format('version %s, this oncehook was built with %s', v.is, $4)
  FROM (SELECT coalesce(max(version), 0) AS is FROM schema_migrations) v
