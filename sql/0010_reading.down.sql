-- step: transaction, of a partitioned table it cannot be dropped concurrently
DROP INDEX IF EXISTS idx_campaign_events_tx;

-- step: concurrently
DROP INDEX CONCURRENTLY IF EXISTS idx_campaign_templates_created;

-- step: transaction
DROP TABLE IF EXISTS imported_contacts;
