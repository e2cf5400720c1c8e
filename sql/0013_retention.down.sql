DROP FUNCTION retention_step_v1, expire_cache_v1, retire_workflows_v1, drop_month_v1, fold_month_v1,
    archived_month_v1, retire_month_v1, old_months, check_retention_days, folded_tables;
DROP TABLE campaign_events_retired;
DROP TABLE retired_months;
DROP TABLE folded_enrollments;
DROP TABLE folded_events;
