-- `doctor` and oncehook_quarantine_oldest_seconds: how long the oldest delivery that nobody has resolved
-- lies in quarantine.
SELECT coalesce(extract(epoch FROM now() - min(received_at)), 0)::float8, NULL::text,
       CASE WHEN count(*) = 0 THEN 'nothing waits for a person'
            ELSE format('old is the oldest of %s that wait, most of them of %s', count(*),
                        mode() WITHIN GROUP (ORDER BY source)) END
  FROM quarantined_deliveries WHERE resolved_at IS NULL
