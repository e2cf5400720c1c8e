-- `audit`: the events of one month whose key is not in the ledger (counter=0), and keys with more than
-- one event. A key and its event were made in one transaction and share received_at: so the keys of the
-- month are joined, and only an event that has none there is looked up, and then the event of that key.
INSERT INTO pg_temp.audit_drift (table_name, id, column_name, counter, events, at, is_mendable)
SELECT 'campaign_events', v.id, 'provider_event_id', (k.received_at IS NOT NULL OR far.received_at IS NOT NULL)::integer,
       v.events + coalesce(other.one, 0),
       CASE WHEN v.events = 1 THEN v.first_at
            ELSE (SELECT w.received_at FROM campaign_events w
                   WHERE w.received_at BETWEEN v.first_at AND v.last_at AND w.id = v.id) END,
       k.received_at IS NULL AND far.received_at IS NULL
  FROM (SELECT e.provider_event_id, e.key_scope, min(e.id) AS id, count(*) AS events,
               min(e.received_at) AS first_at, max(e.received_at) AS last_at
          FROM campaign_events e
         WHERE e.received_at >= $1 AND e.received_at < $2 AND e.provider_event_id IS NOT NULL
           AND ($3 IS NULL OR e.instance_id = $3) AND ($4 IS NULL OR e.received_at >= $4)
         GROUP BY e.provider_event_id, e.key_scope) v
  LEFT JOIN event_keys k ON k.provider_event_id = v.provider_event_id AND k.key_scope = v.key_scope
                        AND k.received_at >= $1 AND k.received_at < $2
  LEFT JOIN LATERAL (
       SELECT f.received_at FROM event_keys f
        WHERE k.received_at IS NULL
          AND f.provider_event_id = v.provider_event_id AND f.key_scope = v.key_scope
        LIMIT 1) far ON true
  LEFT JOIN LATERAL (
       SELECT 1 AS one FROM campaign_events w
        WHERE w.received_at = far.received_at
          AND w.provider_event_id = v.provider_event_id AND w.key_scope = v.key_scope
        LIMIT 1) other ON true
 WHERE v.events <> 1 OR (k.received_at IS NULL AND far.received_at IS NULL) OR other.one IS NOT NULL
 ORDER BY v.id
