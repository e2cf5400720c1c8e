DROP TRIGGER campaign_instances_provider_config_secrets ON campaign_instances;
DROP FUNCTION oncehook_refuse_clear_secret();
DROP FUNCTION oncehook_clear_secret(jsonb);
