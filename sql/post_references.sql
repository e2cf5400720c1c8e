-- POST /v1/enrollments/{enrollment_id}/references: $1 the enrollment, $2 the body.
SELECT status, body FROM reference_http_v1($1::uuid, $2);
