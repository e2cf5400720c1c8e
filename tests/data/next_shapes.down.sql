-- step: transaction
ALTER TABLE campaign_enrollments DROP COLUMN IF EXISTS next_note, DROP COLUMN IF EXISTS next_rank;
