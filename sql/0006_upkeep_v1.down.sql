DROP FUNCTION repair_v1;
DROP FUNCTION bind_v1;
DROP FUNCTION unbound_v1;
DROP INDEX idx_campaign_events_orphans_tx;
ALTER TABLE campaign_enrollments DROP COLUMN tx;
