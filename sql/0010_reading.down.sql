DROP INDEX idx_campaign_events_tx;
-- lint: allow drop-index-locks because no release came before it: there is no gateway to stop
DROP INDEX idx_campaign_templates_created;
DROP TABLE imported_contacts;
