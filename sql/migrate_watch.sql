-- `migrate`, beside a statement that runs in process $1: whom it waits for, and how far an index is.
-- Names and states, no query texts: those may hold what nobody else should read.
SELECT CASE WHEN s.wait_event_type = 'Lock' THEN
              (SELECT string_agg(format('pid %s (%s, %s)', b.pid,
                                        coalesce(nullif(b.application_name, ''), 'no application_name'),
                                        coalesce(b.state, 'state unknown without pg_monitor')), ', ')
                 FROM pg_stat_activity b WHERE b.pid = ANY (pg_blocking_pids(s.pid)))
       END,
       p.phase,
       CASE WHEN p.tuples_total > 0 THEN p.tuples_done::float / p.tuples_total
            WHEN p.blocks_total > 0 THEN p.blocks_done::float / p.blocks_total
            WHEN p.lockers_total > 0 THEN p.lockers_done::float / p.lockers_total
            ELSE 0 END
  FROM pg_stat_activity s
  LEFT JOIN pg_stat_progress_create_index p ON p.pid = s.pid
 WHERE s.pid = $1::integer
