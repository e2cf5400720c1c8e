-- `doctor`: what the gateway's role may do. 1 = it may not do its work, 0.5 = it may do what it must not.
WITH gateway AS (SELECT coalesce((SELECT rolname FROM pg_roles WHERE rolname = 'oncehook_gateway'), current_user) AS name),
wanted AS (
    SELECT 1 AS bad, format('may not %s %s', r.what, r.name) AS words
      FROM gateway g,
           (VALUES ('INSERT INTO', 'campaign_events', 'INSERT'), ('UPDATE', 'campaign_events', 'UPDATE'),
                   ('INSERT INTO', 'event_keys', 'INSERT'), ('UPDATE', 'campaign_enrollments', 'UPDATE'),
                   ('UPDATE', 'campaign_instances', 'UPDATE'), ('INSERT INTO', 'quarantined_deliveries', 'INSERT'))
           r(what, name, privilege)
     WHERE NOT has_table_privilege(g.name, r.name, r.privilege)
    UNION ALL
    SELECT 1, format('may not call %s', p.proname)
      FROM gateway g, pg_proc p
     WHERE p.pronamespace = current_schema()::regnamespace
       AND p.proname ~ '^((capture|quarantine|bind|unbound)_v[0-9]+|oncehook_make_months)$'
       AND NOT has_function_privilege(g.name, p.oid, 'EXECUTE')
    UNION ALL
    SELECT 0.5, 'is a superuser' FROM gateway g JOIN pg_roles r ON r.rolname = g.name WHERE r.rolsuper
    UNION ALL
    SELECT 0.5, format('may %s %s', p.privilege, t.name)
      FROM gateway g, unnest(ARRAY['campaign_events', 'event_keys']) t(name), unnest(ARRAY['DELETE', 'TRUNCATE']) p(privilege)
     WHERE has_table_privilege(g.name, t.name, p.privilege)
    UNION ALL
    SELECT 0.5, format('owns %s', string_agg(c.relname, ', ' ORDER BY c.relname))
      FROM gateway g JOIN pg_roles r ON r.rolname = g.name JOIN pg_class c ON c.relowner = r.oid
     WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v')
    HAVING count(*) > 0)
SELECT w.bad::float8, g.name::text, w.words FROM gateway g, wanted w
UNION ALL
SELECT 0, g.name::text, 'may capture, and no more' FROM gateway g WHERE NOT EXISTS (SELECT FROM wanted)
 ORDER BY 1 DESC, 3 LIMIT 5
