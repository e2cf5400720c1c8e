DROP FUNCTION reference_http_v1;
DROP FUNCTION reference_v1;
DROP FUNCTION bind_v2;
DROP FUNCTION unbound_v2;
DROP FUNCTION capture_v2;
DROP TABLE enrollment_references;
DROP FUNCTION oncehook_reference_id;
