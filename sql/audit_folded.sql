-- `audit`: the sums of months that were folded away are part of every counter. Parameters: see
-- audit_month.sql.
INSERT INTO pg_temp.audit_sums (of_instance, instance_id, event_type, enrollment_id, events, bound, recent)
SELECT true, f.instance_id, f.event_type, NULL, f.events, f.events, 0
  FROM folded_events f
 WHERE $3 IS NULL OR f.instance_id = $3
UNION ALL
SELECT false, NULL, NULL, f.enrollment_id, f.events, f.events, 0
  FROM folded_enrollments f
