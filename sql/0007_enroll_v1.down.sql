DROP FUNCTION oncehook_delete_template;
DROP FUNCTION oncehook_delete_instance;
DROP FUNCTION oncehook_delete_instances;
DROP FUNCTION enroll_http_v1;
DROP FUNCTION oncehook_is_uuid;
DROP FUNCTION enroll_v1;
