-- `doctor`: for how long (s) rows lie there that retention should have removed. $2, $3: how long events and
-- keys are kept (s). A month goes when all of it is too old; one that has left and waits for its archive holds
-- back every key. The oldest key is the planner's, of the last ANALYZE: there is no index on its time.
SELECT (extract(epoch FROM now() - m.upper) - $2)::float8, m.name,
       format('longer than events are kept: its month ended %s', to_char(m.upper AT TIME ZONE 'UTC', 'YYYY-MM-DD'))
  FROM (SELECT c.relname::text AS name,
               (regexp_match(pg_get_expr(c.relpartbound, c.oid), $$TO \('([^']*)'\)$$))[1]::timestamptz AS upper
          FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
         WHERE h.inhparent = 'campaign_events'::regclass) m
 WHERE m.upper < now() - $2 * interval '1 second'
UNION ALL
SELECT (extract(epoch FROM now() - r.to_at) - $2)::float8, r.table_name,
       'longer than events are kept: it waits for its archive, oncehook retention --archive DIR'
  FROM retired_months r
 WHERE r.wants_archive AND r.archived_at IS NULL AND r.dropped_at IS NULL
   AND r.to_at < now() - $2 * interval '1 second'
UNION ALL
SELECT (extract(epoch FROM now() - k.first) - $3)::float8, 'event_keys',
       format('longer than keys are kept: the oldest is of %s', to_char(k.first AT TIME ZONE 'UTC', 'YYYY-MM-DD'))
  FROM (SELECT min(least((s.histogram_bounds::text::timestamptz[])[1],
                         (SELECT min(v) FROM unnest(s.most_common_vals::text::timestamptz[]) v))) AS first
          FROM pg_stats s
         WHERE s.schemaname = current_schema() AND s.attname = 'received_at' AND s.tablename LIKE 'event\_keys%') k
 WHERE k.first < now() - $3 * interval '1 second'
UNION ALL
SELECT 0, NULL, 'nothing is older than it is kept'
 ORDER BY 1 DESC, 2 LIMIT 5
