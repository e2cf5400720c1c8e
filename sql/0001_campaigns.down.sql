DROP TABLE campaign_enrollments;
DROP TABLE campaign_instances;
DROP TABLE linkedin_sequences;
DROP TABLE email_sequences;
DROP TABLE campaign_templates;
DROP FUNCTION oncehook_count_none_enrolled();
DROP FUNCTION oncehook_count_enrolled();
DROP FUNCTION oncehook_refuse_new_identity();
