-- No secret in clear in campaign_instances.provider_config: everybody who reads the table, each dump and
-- each replica would have it. In its place goes a reference, {"$ref": "env:NAME"}.
--
-- A trigger and not a CHECK. A CHECK is asked at each UPDATE of a row, so each counted event would walk the
-- JSON; rows from before, which NOT VALID leaves alone, would fail at their next event; and its message
-- repeats the whole row, secret and all. This one is asked when provider_config is written, and names the
-- place, never the value.

-- Where the first secret in clear stands, as "api_keys"."lemlist", or null. A value is one when its name or
-- the name of anything above it ends as secrets are called, or when it looks like one by itself; empty
-- text, numbers below a name that is none, true, false and null are none. A reference is none.
CREATE FUNCTION oncehook_clear_secret(p_config jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT AS $$
    WITH RECURSIVE walk(path, value, is_secret) AS (
        SELECT NULL::text, p_config, false
        UNION ALL
        SELECT concat_ws('.', w.path, c.label), c.value,
               w.is_secret OR regexp_replace(lower(c.name), '[^a-z0-9]', '', 'g') ~
                   ('(apikeys?|accesskeys?|privatekeys?|signingkeys?|secretkeys?|secrets?|tokens?|passwords?|passwd|'
                    || 'passphrases?|pwd|credentials?|authorization)(old|new|live|test|prod|value|v?[0-9]+)*$')
          FROM walk w
         CROSS JOIN LATERAL (
               SELECT to_json(o.key)::text, o.key, o.value
                 FROM jsonb_each(CASE jsonb_typeof(w.value) WHEN 'object' THEN w.value ELSE '{}' END) o
               UNION ALL
               SELECT (a.place - 1)::text, '', a.value
                 FROM jsonb_array_elements(CASE jsonb_typeof(w.value) WHEN 'array' THEN w.value ELSE '[]' END)
                      WITH ORDINALITY a(value, place)) c(label, name, value)
         WHERE (jsonb_typeof(w.value) = 'object' AND w.value - '$ref' = '{}'
                AND w.value ->> '$ref' ~ '^(env|file|secret):[A-Za-z0-9_./-]{1,255}$') IS NOT TRUE
    )
    SELECT coalesce(w.path, 'the root') FROM walk w
     WHERE (w.is_secret AND jsonb_typeof(w.value) IN ('string', 'number') AND w.value <> '""')
        OR (jsonb_typeof(w.value) = 'string' AND (w.value #>> '{}') ~
            ('^(sk|pk|rk)_(live|test)_|^whsec_|^xox[a-z]-|^gh[a-z]_|^SG\.[A-Za-z0-9]|^AKIA[0-9A-Z]{16}|'
             || '^Bearer [^ ]|-----BEGIN [A-Z ]*PRIVATE KEY|://[^/@: ]*:[^/@ ]+@'))
     ORDER BY length(w.path), w.path LIMIT 1
$$;

CREATE FUNCTION oncehook_refuse_clear_secret() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    place constant text := oncehook_clear_secret(NEW.provider_config);
BEGIN
    IF place IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, COLUMN = 'provider_config',
            CONSTRAINT = TG_NAME, SCHEMA = TG_TABLE_SCHEMA,
            MESSAGE = format('provider_config holds a secret in clear at %s', place),
            HINT = 'Store a reference in its place: {"$ref": "env:NAME"}, "file:PATH" or "secret:NAME".';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER campaign_instances_provider_config_secrets
    BEFORE INSERT OR UPDATE OF provider_config ON campaign_instances
    FOR EACH ROW WHEN (NEW.provider_config IS NOT NULL AND NEW.provider_config <> '{}')
    EXECUTE FUNCTION oncehook_refuse_clear_secret();

REVOKE ALL ON FUNCTION oncehook_clear_secret(jsonb), oncehook_refuse_clear_secret() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION oncehook_clear_secret(jsonb) TO oncehook_gateway;
