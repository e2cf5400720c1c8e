-- An index on every month, one on a plain table, and what follows from it.

-- step: concurrently, ON ONLY the parent, then month by month
CREATE INDEX CONCURRENTLY idx_next_events_delivery ON campaign_events (delivery_id, received_at);

-- step: concurrently
CREATE UNIQUE INDEX CONCURRENTLY idx_next_enrollments_note ON campaign_enrollments (next_note, id);

-- step: transaction
ALTER TABLE campaign_enrollments
    ADD CONSTRAINT next_enrollments_note UNIQUE USING INDEX idx_next_enrollments_note;
