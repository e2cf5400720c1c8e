-- step: transaction
ALTER TABLE campaign_enrollments DROP CONSTRAINT IF EXISTS next_enrollments_note;

-- step: concurrently, where the constraint has not taken it yet
DROP INDEX CONCURRENTLY IF EXISTS idx_next_enrollments_note;

-- step: transaction, of a partitioned table it cannot be dropped concurrently
DROP INDEX IF EXISTS idx_next_events_delivery;
