DROP FUNCTION capture_v1;
