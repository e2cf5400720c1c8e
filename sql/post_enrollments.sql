-- POST /v1/instances/{instance_id}/enrollments: $1 the instance, $2 the body.
SELECT status, body FROM enroll_http_v1($1::uuid, $2);
