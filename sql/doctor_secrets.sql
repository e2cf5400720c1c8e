-- `doctor`: secrets in clear, in rows that are older than the trigger that refuses them (0009_secrets.up.sql) or
-- that it does not ask: ids, and the column. Neither the value nor its place, whose names are the user's.
WITH found AS (
    SELECT 'campaign_instances' AS table_name, i.id, 'provider_config' AS column_name FROM campaign_instances i
     WHERE i.provider_config <> '{}' AND oncehook_clear_secret(i.provider_config) IS NOT NULL
    UNION ALL
    SELECT 'campaign_templates', t.id, 'settings' FROM campaign_templates t
     WHERE t.settings <> '{}' AND oncehook_clear_secret(t.settings) IS NOT NULL
)
(SELECT 1::float8, format('%s %s', f.table_name, f.id), format('%s; %s in all', f.column_name, count(*) OVER ())
   FROM found f ORDER BY f.table_name, f.id LIMIT 20)
UNION ALL
SELECT 0, NULL, 'none in provider_config and settings' WHERE NOT EXISTS (SELECT FROM found)
