-- `audit`: events whose key is not in the ledger (counter=0), and keys with more than one event.
-- $1: events of one instance, or null for all. $2: only events received since, or null.
SELECT 'campaign_events', v.id, 'provider_event_id', (k.provider_event_id IS NOT NULL)::integer, v.events
  FROM (SELECT provider_event_id, key_scope, min(id) AS id, count(*) AS events
          FROM campaign_events
         WHERE provider_event_id IS NOT NULL
           AND ($1::uuid IS NULL OR instance_id = $1::uuid)
           AND ($2::timestamptz IS NULL OR received_at >= $2::timestamptz)
         GROUP BY provider_event_id, key_scope) v
  LEFT JOIN event_keys k ON k.provider_event_id = v.provider_event_id AND k.key_scope = v.key_scope
 WHERE v.events <> 1 OR k.provider_event_id IS NULL
 ORDER BY v.id
