-- `doctor` and oncehook_oldest_transaction_seconds: transactions of this database by age. What an open
-- transaction can see, VACUUM may not remove. A statement's text is never shown: it may hold a payload.
SELECT extract(epoch FROM clock_timestamp() - a.xact_start)::float8, format('pid %s', a.pid),
       format('old, of %s, user %s, %s for %s s', coalesce(nullif(a.application_name, ''), 'no application_name'),
              a.usename, a.state, extract(epoch FROM clock_timestamp() - a.state_change)::bigint)
  FROM pg_stat_activity a
 WHERE pg_has_role('pg_read_all_stats', 'USAGE') AND a.datname = current_database()
   AND a.xact_start IS NOT NULL AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'
UNION ALL
SELECT 0, NULL, 'no other transaction is open' WHERE pg_has_role('pg_read_all_stats', 'USAGE')
UNION ALL
SELECT NULL, NULL, format('%I may not see other sessions: GRANT pg_read_all_stats TO %I', current_user, current_user)
 WHERE NOT pg_has_role('pg_read_all_stats', 'USAGE')
 ORDER BY 1 DESC LIMIT 5
