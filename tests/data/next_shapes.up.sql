-- What a release may do to tables that gateways are writing to, one shape a step.

-- step: transaction, a column with a constant default is kept in the catalog
ALTER TABLE campaign_enrollments ADD COLUMN next_note text DEFAULT 'new', ADD COLUMN next_rank bigint;

-- step: transaction
ALTER TABLE campaign_enrollments ALTER COLUMN next_rank SET DEFAULT 0;

-- step: batches, for the rows that were there; in the lock order
-- Lock order, place 3: campaign_enrollments, ascending by id.
UPDATE campaign_enrollments e SET next_rank = 0
  FROM (SELECT id FROM campaign_enrollments WHERE next_rank IS NULL
         ORDER BY id LIMIT 1000 FOR NO KEY UPDATE) few
 WHERE e.id = few.id;

-- step: transaction
ALTER TABLE campaign_enrollments
    ADD CONSTRAINT next_rank_there CHECK (next_rank IS NOT NULL) NOT VALID;

-- step: transaction
ALTER TABLE campaign_enrollments VALIDATE CONSTRAINT next_rank_there;

-- step: transaction
ALTER TABLE campaign_enrollments ALTER COLUMN next_rank SET NOT NULL;
ALTER TABLE campaign_enrollments DROP CONSTRAINT next_rank_there;
