-- `retention`: who keeps a month from leaving or from being dropped, longest first.
SELECT format('process %s (%s), for %s s', a.pid, coalesce(nullif(a.application_name, ''), a.usename),
              round(extract(epoch FROM now() - a.xact_start)))
  FROM pg_locks l
  JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.relation IN (SELECT 'campaign_events'::regclass
                      UNION ALL SELECT to_regclass(format('%I', m.table_name)) FROM retired_months m
                                 WHERE m.dropped_at IS NULL)
   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
   AND a.pid <> pg_backend_pid() AND a.xact_start < now() - interval '1 s'
 ORDER BY a.xact_start LIMIT 1
