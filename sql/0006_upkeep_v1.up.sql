-- Upkeep: orphans are bound to the enrollments that appear later, and measured drift is subtracted.

-- ---- what the sweep walks -------------------------------------------------------------------------
-- An orphan and its enrollment miss each other when neither transaction sees the other's row; users
-- insert enrollments by plain SQL as well. Both rows say which transaction made them, so a sweep looks
-- only at what was not visible at its last look: transactions that were running then or came later.
-- The default is not volatile: no table is rewritten.
ALTER TABLE campaign_enrollments ADD COLUMN tx xid8 NOT NULL DEFAULT pg_current_xact_id();
-- lint: allow index-locks-writers because no release came before it: there is no gateway to stop
CREATE INDEX idx_campaign_enrollments_tx ON campaign_enrollments (tx);
-- lint: allow index-locks-writers because no release came before it: there is no gateway to stop
-- lint: allow several-tables because no release came before it: there is no gateway to stop
CREATE INDEX idx_campaign_events_orphans_tx ON campaign_events (tx)
    WHERE instance_id IS NULL AND enrollment_id IS NOT NULL;

-- unbound_v1: enrollments that have orphans. Reads only; one snapshot, so that `seen` is what it saw.
-- Two looks: at all pairs that became visible after the snapshot p_seen (null: none), at most p_limit of
-- them; and at the next p_walk orphans after enrollment p_after (null: from the first), whoever came when.
-- Costs in proportion to what is new, and to p_walk. LATERAL … LIMIT 1 is a nested loop whatever the
-- statistics say: a join could read all orphans.
CREATE FUNCTION unbound_v1(
    p_seen      pg_snapshot,
    p_after     uuid,
    p_walk      integer,
    p_limit     integer,
    OUT seen    pg_snapshot,  -- the next call's p_seen, once all of this one is bound
    OUT after   uuid,         -- the next call's p_after; null: the walk is at its end
    OUT more    boolean,      -- p_limit was reached: the same p_seen again, once these are bound
    OUT enrollments uuid[]    -- distinct, or null
)
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    first_tx constant xid8 := pg_snapshot_xmax(p_seen);
    end_tx   constant xid8 := pg_snapshot_xmax(pg_current_snapshot()); -- rows of a restored dump may be beyond it
    running  constant xid8[] := ARRAY(SELECT pg_snapshot_xip(p_seen));
    fresh uuid[];
    walked uuid[];
BEGIN
    SELECT array_agg(f.id) INTO fresh
      FROM (SELECT n.id
              FROM (SELECT e.id FROM campaign_enrollments e WHERE e.tx >= first_tx AND e.tx < end_tx
                    UNION ALL
                    SELECT e.id FROM campaign_enrollments e WHERE e.tx = ANY (running)) n
             CROSS JOIN LATERAL (SELECT FROM campaign_events v
                                  WHERE v.enrollment_id = n.id AND v.instance_id IS NULL LIMIT 1) one
            UNION ALL
            SELECT n.enrollment_id
              FROM (SELECT v.enrollment_id FROM campaign_events v
                     WHERE v.tx >= first_tx AND v.tx < end_tx
                       AND v.instance_id IS NULL AND v.enrollment_id IS NOT NULL
                    UNION ALL
                    SELECT v.enrollment_id FROM campaign_events v
                     WHERE v.tx = ANY (running)
                       AND v.instance_id IS NULL AND v.enrollment_id IS NOT NULL) n
             CROSS JOIN LATERAL (SELECT FROM campaign_enrollments e
                                  WHERE e.id = n.enrollment_id LIMIT 1) one
             LIMIT p_limit) f;
    more := coalesce(cardinality(fresh) >= p_limit, false);
    seen := CASE WHEN more THEN p_seen ELSE pg_current_snapshot() END;

    SELECT array_agg(w.enrollment_id) INTO walked
      FROM (SELECT v.enrollment_id FROM campaign_events v
             WHERE v.instance_id IS NULL
               AND v.enrollment_id >= coalesce(p_after, '00000000-0000-0000-0000-000000000000')
               AND v.enrollment_id IS DISTINCT FROM p_after
             ORDER BY v.enrollment_id LIMIT p_walk) w;
    after := CASE WHEN cardinality(walked) >= p_walk THEN walked[cardinality(walked)] END;

    SELECT array_agg(DISTINCT u.id) INTO enrollments
      FROM (SELECT unnest(fresh)
            UNION ALL
            SELECT w.id FROM unnest(walked) w(id)
             CROSS JOIN LATERAL (SELECT FROM campaign_enrollments e WHERE e.id = w.id LIMIT 1) one) u(id);
END $$;

-- bind_v1: binds orphans of these enrollments, at most p_limit of them, and counts them as capture_v1
-- does, once: only what the UPDATE returns. One call is one transaction, or the end of the one that
-- made the enrollments. Returns how many were bound; call again while it is p_limit. What is not under
-- campaign_events any more (a month that was retired) is not found.
CREATE FUNCTION bind_v1(p_enrollments uuid[], p_limit integer) RETURNS integer
LANGUAGE plpgsql
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    wanted uuid[];             -- instances to lock
    enrolled uuid[];           -- enrollments that are there, locked …
    enrolled_in uuid[];        -- … and the instance of each
    orphan_at timestamptz[];   -- orphans to bind, locked
    orphan_id bigint[];
    bound uuid[];              -- the enrollment of each that was bound …
    bound_in uuid[];           -- … its instance …
    bound_type text[];         -- … and what is counted
    bound_at timestamptz[];
BEGIN
    SELECT array_agg(DISTINCT e.instance_id) INTO wanted
      FROM campaign_enrollments e WHERE e.id = ANY (p_enrollments);

    -- Lock order, place 2: campaign_instances, ascending by id.
    PERFORM FROM campaign_instances i WHERE i.id = ANY (wanted) ORDER BY i.id FOR NO KEY UPDATE;

    -- Lock order, place 3: campaign_enrollments, ascending by id. Those that came into being after the
    -- look above wait for the next call, unless their instance is locked.
    SELECT array_agg(l.id), array_agg(l.instance_id) INTO enrolled, enrolled_in
      FROM (SELECT e.id, e.instance_id FROM campaign_enrollments e
             WHERE e.id = ANY (p_enrollments) AND e.instance_id = ANY (wanted)
             ORDER BY e.id FOR NO KEY UPDATE) l;

    -- Lock order, place 5: campaign_events, ascending by received_at and id. Any p_limit of them: the
    -- first ones would have to be sorted out of all.
    SELECT array_agg(l.received_at), array_agg(l.id) INTO orphan_at, orphan_id
      FROM (SELECT v.received_at, v.id
              FROM (SELECT o.received_at, o.id FROM campaign_events o
                     WHERE o.instance_id IS NULL AND o.enrollment_id = ANY (enrolled)
                     LIMIT p_limit) picked
              JOIN campaign_events v ON v.received_at = picked.received_at AND v.id = picked.id
             WHERE v.instance_id IS NULL
             ORDER BY v.received_at, v.id FOR NO KEY UPDATE OF v) l;
    IF orphan_id IS NULL THEN
        RETURN 0;
    END IF;

    -- Lock order, place 5: rows locked above.
    WITH done AS (
        UPDATE campaign_events v
           SET instance_id = e.instance_id
          FROM unnest(orphan_at, orphan_id) o(received_at, id),
               unnest(enrolled, enrolled_in) e(id, instance_id)
         WHERE v.received_at = o.received_at AND v.id = o.id
           AND v.instance_id IS NULL AND v.enrollment_id = e.id
        RETURNING v.enrollment_id, v.instance_id, v.event_type, least(v."timestamp", v.received_at) AS at)
    SELECT array_agg(d.enrollment_id), array_agg(d.instance_id), array_agg(d.event_type), array_agg(d.at)
      INTO bound, bound_in, bound_type, bound_at
      FROM done d;

    -- Lock order, place 3: rows locked above.
    UPDATE campaign_enrollments e
       SET total_events = e.total_events + d.events,
           last_event_at = greatest(e.last_event_at, d.last_event_at)
      FROM (SELECT b.id, count(*) AS events, max(b.at) AS last_event_at
              FROM unnest(bound, bound_at) b(id, at) GROUP BY b.id) d
     WHERE e.id = d.id;

    -- Lock order, place 2: rows locked above.
    UPDATE campaign_instances i
       SET total_sent         = i.total_sent         + d.sent,
           total_delivered    = i.total_delivered    + d.delivered,
           total_opened       = i.total_opened       + d.opened,
           total_clicked      = i.total_clicked      + d.clicked,
           total_replied      = i.total_replied      + d.replied,
           total_bounced      = i.total_bounced      + d.bounced,
           total_unsubscribed = i.total_unsubscribed + d.unsubscribed,
           total_completed    = i.total_completed    + d.completed
      FROM (SELECT b.id,
                   count(*) FILTER (WHERE b.type = 'sent')         AS sent,
                   count(*) FILTER (WHERE b.type = 'delivered')    AS delivered,
                   count(*) FILTER (WHERE b.type = 'opened')       AS opened,
                   count(*) FILTER (WHERE b.type = 'clicked')      AS clicked,
                   count(*) FILTER (WHERE b.type = 'replied')      AS replied,
                   count(*) FILTER (WHERE b.type = 'bounced')      AS bounced,
                   count(*) FILTER (WHERE b.type = 'unsubscribed') AS unsubscribed,
                   count(*) FILTER (WHERE b.type = 'completed')    AS completed
              FROM unnest(bound_in, bound_type) b(id, type)
             WHERE b.type IN ('sent', 'delivered', 'opened', 'clicked', 'replied', 'bounced',
                   'unsubscribed', 'completed')
             GROUP BY b.id) d
     WHERE i.id = d.id;

    RETURN coalesce(cardinality(bound), 0);
END $$;

-- ---- repair ---------------------------------------------------------------------------------------
-- repair_v1: takes away what `audit` measured to be too much. Never an absolute value: the counter and
-- its events move on together meanwhile, and their difference stands still. One call is one
-- transaction. The arrays of one drift are one row. A row that is gone meanwhile is passed over.
CREATE FUNCTION repair_v1(
    p_column  text[],         -- total_… of an instance; total_events, last_event_at of an enrollment;
                              -- provider_event_id of an event whose key is missing
    p_id      text[],         -- of the instance, the enrollment, the event
    p_drift   bigint[],       -- of counters: counter - events
    p_at      timestamptz[]   -- last_event_at: at least this; provider_event_id: received_at of the event
) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    instances uuid[];
    enrollments uuid[];
BEGIN
    SELECT array_agg(DISTINCT d.id::uuid) FILTER (WHERE d.name NOT IN ('total_events', 'last_event_at')),
           array_agg(DISTINCT d.id::uuid) FILTER (WHERE d.name IN ('total_events', 'last_event_at'))
      INTO instances, enrollments
      FROM unnest(p_column, p_id) d(name, id) WHERE d.name <> 'provider_event_id';

    -- Lock order, place 2: campaign_instances, ascending by id.
    PERFORM FROM campaign_instances i WHERE i.id = ANY (instances) ORDER BY i.id FOR NO KEY UPDATE;

    -- Lock order, place 3: campaign_enrollments, ascending by id.
    PERFORM FROM campaign_enrollments e WHERE e.id = ANY (enrollments) ORDER BY e.id FOR NO KEY UPDATE;

    -- Lock order, place 4: event_keys, ascending by the whole key in "C" order.
    INSERT INTO event_keys (provider_event_id, key_scope, received_at)
    SELECT v.provider_event_id, v.key_scope, v.received_at
      FROM unnest(p_column, p_id, p_at) d(name, id, at)
      JOIN campaign_events v ON v.received_at = d.at AND v.id = d.id::bigint
     WHERE d.name = 'provider_event_id'
     ORDER BY v.provider_event_id COLLATE "C", v.key_scope COLLATE "C"
    ON CONFLICT DO NOTHING;

    -- Lock order, place 3: rows locked above.
    UPDATE campaign_enrollments e
       SET total_events = e.total_events - coalesce(d.events, 0),
           last_event_at = greatest(e.last_event_at, d.last_event_at)
      FROM (SELECT m.id::uuid AS id,
                   sum(m.drift) FILTER (WHERE m.name = 'total_events') AS events,
                   max(m.at) FILTER (WHERE m.name = 'last_event_at') AS last_event_at
              FROM unnest(p_column, p_id, p_drift, p_at) m(name, id, drift, at)
             WHERE m.name IN ('total_events', 'last_event_at')
             GROUP BY m.id) d
     WHERE e.id = d.id;

    -- Lock order, place 2: rows locked above.
    UPDATE campaign_instances i
       SET total_enrolled     = i.total_enrolled     - coalesce(d.enrolled, 0),
           total_sent         = i.total_sent         - coalesce(d.sent, 0),
           total_delivered    = i.total_delivered    - coalesce(d.delivered, 0),
           total_opened       = i.total_opened       - coalesce(d.opened, 0),
           total_clicked      = i.total_clicked      - coalesce(d.clicked, 0),
           total_replied      = i.total_replied      - coalesce(d.replied, 0),
           total_bounced      = i.total_bounced      - coalesce(d.bounced, 0),
           total_unsubscribed = i.total_unsubscribed - coalesce(d.unsubscribed, 0),
           total_completed    = i.total_completed    - coalesce(d.completed, 0)
      FROM (SELECT m.id::uuid AS id,
                   sum(m.drift) FILTER (WHERE m.name = 'total_enrolled')     AS enrolled,
                   sum(m.drift) FILTER (WHERE m.name = 'total_sent')         AS sent,
                   sum(m.drift) FILTER (WHERE m.name = 'total_delivered')    AS delivered,
                   sum(m.drift) FILTER (WHERE m.name = 'total_opened')       AS opened,
                   sum(m.drift) FILTER (WHERE m.name = 'total_clicked')      AS clicked,
                   sum(m.drift) FILTER (WHERE m.name = 'total_replied')      AS replied,
                   sum(m.drift) FILTER (WHERE m.name = 'total_bounced')      AS bounced,
                   sum(m.drift) FILTER (WHERE m.name = 'total_unsubscribed') AS unsubscribed,
                   sum(m.drift) FILTER (WHERE m.name = 'total_completed')    AS completed
              FROM unnest(p_column, p_id, p_drift) m(name, id, drift)
             WHERE m.name NOT IN ('total_events', 'last_event_at', 'provider_event_id')
             GROUP BY m.id) d
     WHERE i.id = d.id;
END $$;

REVOKE ALL ON FUNCTION unbound_v1, bind_v1, repair_v1 FROM PUBLIC;
GRANT EXECUTE ON FUNCTION unbound_v1, bind_v1, repair_v1 TO oncehook_gateway;
