-- `audit`: what no foreign key enforces, of one month. An event that belongs to another instance than its
-- enrollment does (counter: the enrollment's, events: its own); and a key whose event is nowhere, though
-- its month is there (counter=1 events=0): an event that was lost or deleted. All months are read for the
-- second only if one has none in its own. An event of an enrollment or instance whose row is gone is no
-- finding: it stays when they are deleted. Parameters: see audit_month.sql.
WITH loose AS MATERIALIZED (
    SELECT k.provider_event_id, k.key_scope FROM event_keys k
     WHERE k.received_at >= $1 AND k.received_at < $2 AND $3 IS NULL AND ($4 IS NULL OR k.received_at >= $4)
    EXCEPT
    SELECT v.provider_event_id, v.key_scope FROM campaign_events v
     WHERE v.received_at >= $1 AND v.received_at < $2
    EXCEPT -- a month that was detached and is not folded yet
    SELECT r.provider_event_id, r.key_scope FROM campaign_events_retired r
     WHERE r.received_at >= $1 AND r.received_at < $2
), lost AS (
    SELECT l.provider_event_id, l.key_scope FROM loose l
    EXCEPT
    SELECT v.provider_event_id, v.key_scope FROM campaign_events v WHERE EXISTS (SELECT FROM loose)
)
INSERT INTO pg_temp.audit_drift (table_name, id, column_name, counter, events, is_mendable)
SELECT 'campaign_events', v.id::text, 'instance_id', e.instance_id::text, v.instance_id::text, false
  FROM campaign_events v
  JOIN campaign_enrollments e ON e.id = v.enrollment_id AND e.instance_id <> v.instance_id
 WHERE v.received_at >= $1 AND v.received_at < $2
   AND ($3 IS NULL OR v.instance_id = $3) AND ($4 IS NULL OR v.received_at >= $4)
UNION ALL
-- The id is a provider's text: one word, and safe inside quotes.
SELECT 'event_keys', replace(trim(BOTH '"' FROM to_json(concat(key_scope, '/', provider_event_id))::text), ' ', '\u0020'),
       'provider_event_id', '1', '0', false
  FROM lost
