-- The role stays: it belongs to the cluster, and other databases may use it. What it may do here goes.
REVOKE ALL ON FUNCTION oncehook_make_months(integer), capture_v1, quarantine_v1 FROM oncehook_gateway;
REVOKE ALL ON SEQUENCE campaign_events_id_seq FROM oncehook_gateway;
REVOKE ALL ON campaign_templates, email_sequences, linkedin_sequences, campaign_instances,
    campaign_enrollments, campaign_events, event_keys, quarantined_deliveries, schema_migrations
    FROM oncehook_gateway;
