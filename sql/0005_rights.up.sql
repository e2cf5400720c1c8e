-- Two roles. The owner is whoever runs this. The gateway's, oncehook_gateway, reads, writes and calls,
-- and no more: no DELETE, no TRUNCATE, no DDL, nothing of its own. PUBLIC has nothing.
-- Months need no rights of their own: everybody reaches them through campaign_events.

-- lint: allow unseen because it makes a role and touches no table
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'oncehook_gateway') THEN
        RETURN;
    END IF;
    CREATE ROLE oncehook_gateway NOLOGIN;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = format('role oncehook_gateway does not exist, and %I may not create it', current_user),
            HINT = 'Run as a superuser: CREATE ROLE oncehook_gateway LOGIN;';
    WHEN duplicate_object OR unique_violation THEN
        NULL; -- another database of this cluster was faster
END $$;

-- lint: allow unseen because it grants the use of the schema and touches no table
DO $$
DECLARE
    ours constant name := current_schema();
BEGIN
    IF pg_has_role('oncehook_gateway', current_user, 'MEMBER') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_role_specification',
            MESSAGE = format('role oncehook_gateway can act as %I, the owner of the schema', current_user),
            HINT = 'Run migrate as another role: the gateway must not own what it writes to.';
    END IF;
    IF NOT has_schema_privilege('oncehook_gateway', ours, 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO oncehook_gateway', ours);
    END IF;
    IF NOT has_schema_privilege('oncehook_gateway', ours, 'USAGE') THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = format('role oncehook_gateway may not use schema %I', ours),
            HINT = format('Run as its owner: GRANT USAGE ON SCHEMA %I TO oncehook_gateway;', ours);
    END IF;
END $$;

REVOKE ALL ON campaign_templates, email_sequences, linkedin_sequences, campaign_instances,
    campaign_enrollments, campaign_events, event_keys, quarantined_deliveries, schema_migrations FROM PUBLIC;
REVOKE ALL ON SEQUENCE campaign_events_id_seq, quarantined_deliveries_id_seq FROM PUBLIC;
REVOKE ALL ON FUNCTION oncehook_refuse_new_identity(), oncehook_count_enrolled(),
    oncehook_count_none_enrolled(), oncehook_make_months(integer), capture_v1, quarantine_v1 FROM PUBLIC;

GRANT SELECT ON campaign_templates, email_sequences, linkedin_sequences, schema_migrations
    TO oncehook_gateway;
GRANT SELECT, INSERT ON event_keys TO oncehook_gateway;
GRANT SELECT, INSERT, UPDATE ON campaign_instances, campaign_enrollments, campaign_events,
    quarantined_deliveries TO oncehook_gateway;
GRANT USAGE ON SEQUENCE campaign_events_id_seq TO oncehook_gateway;
GRANT EXECUTE ON FUNCTION oncehook_make_months(integer), capture_v1, quarantine_v1 TO oncehook_gateway;
