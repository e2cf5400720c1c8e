-- `retention`: what a run would do now. A row each: words for --dry-run, and the steps it takes (for the
-- progress bar). $1, $2: days of completed and failed workflows; $3: the cache too; $4: days of events
-- (null: not that table); $5: exact numbers are wanted, which reads the months and the ledger; $6: days of keys;
-- $7: months go to files first.
SELECT format('campaign_events: %s, %s%s, would be %sfolded and dropped', o.table_name,
              CASE WHEN $5 THEN (SELECT format('%s event%s, ', count(*), CASE WHEN count(*) <> 1 THEN 's' END)
                                   FROM campaign_events v
                                  WHERE v.received_at >= o.from_at AND v.received_at < o.to_at) END,
              pg_size_pretty(o.bytes), CASE WHEN $7 THEN 'archived, ' END), 3 AS steps
  FROM old_months($4::integer) o
UNION ALL
SELECT format('campaign_events: %s, %s%s', m.table_name,
              CASE WHEN $5 THEN (SELECT format('%s event%s, ', count(*), CASE WHEN count(*) <> 1 THEN 's' END)
                                   FROM campaign_events_retired v
                                  WHERE v.tableoid = to_regclass(format('%I', m.table_name))::oid) END,
              CASE WHEN m.folded_at IS NOT NULL THEN 'folded already, would be dropped'
                   WHEN m.archived_at IS NULL AND $7 THEN 'would be archived, folded and dropped'
                   WHEN m.archived_at IS NULL AND m.wants_archive THEN 'waits for its archive: --archive DIR'
                   ELSE 'would be folded and dropped' END), 2
  FROM retired_months m
 WHERE m.dropped_at IS NULL AND $4::integer IS NOT NULL
UNION ALL
SELECT format('workflow_states: %s %s %s, the oldest of %s, would be archived', count(*), w.status,
              w.workflow_name, to_char(min(coalesce(w.completed_at, w.started_at)) AT TIME ZONE 'UTC', 'YYYY-MM-DD')),
       count(*) / 1000 + 1
  FROM (VALUES ('completed', $1::integer), ('failed', $2::integer)) p(status, days)
  JOIN workflow_states w ON w.status = p.status
   AND coalesce(w.completed_at, w.started_at) < now() - p.days * interval '1 day'
 GROUP BY w.status, w.workflow_name
UNION ALL
SELECT format('enrichment_cache: %s of type %s, expired, would be deleted', count(*), c.type), count(*) / 1000 + 1
  FROM enrichment_cache c WHERE $3::boolean AND c.expires_at < now() GROUP BY c.type
UNION ALL
-- The months go first: what holds a key back is what will be left of them.
SELECT format('event_keys: %s key%s received before %s would be deleted', k.keys, CASE WHEN k.keys <> 1 THEN 's' END,
              to_char(k.before_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')), k.pages / 2000 + 1
  FROM (SELECT b.before_at, pg_relation_size('event_keys') / current_setting('block_size')::bigint AS pages,
               CASE WHEN $5 THEN (SELECT count(*) FROM event_keys e
                                   WHERE e.ctid >= b.from_tid
                                     AND e.received_at < b.before_at) END AS keys
          FROM (SELECT CASE WHEN $7 AND $4 IS NOT NULL -- then nothing waits for its archive
                            THEN least(now() - $6::integer * interval '1 day',
                                       (SELECT min(m.from_at) FROM attached_months() m
                                         WHERE m.name NOT IN (SELECT o.table_name FROM old_months($4::integer) o)))
                            ELSE keys_before($6::integer, $4::integer) END AS before_at,
                       format('(%s,0)', key_position($6::integer))::tid AS from_tid
                OFFSET 0) b -- else both are asked for each key
         WHERE $6::integer IS NOT NULL) k
 WHERE k.keys IS DISTINCT FROM 0
ORDER BY 1
