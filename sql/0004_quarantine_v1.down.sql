DROP FUNCTION quarantine_v1;
