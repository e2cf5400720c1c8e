DROP FUNCTION forget_quarantine_v1;
DROP FUNCTION forget_events_v1;
DROP FUNCTION forget_mark_v1;
DROP FUNCTION forget_count_v1;
DROP FUNCTION forget_find_v1;
DROP TRIGGER campaign_enrollments_forgotten ON campaign_enrollments;
DROP FUNCTION oncehook_forget_new_events();
ALTER TABLE campaign_enrollments DROP COLUMN forgotten_at;
