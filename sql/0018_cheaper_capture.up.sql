-- capture_v1 for fewer instructions: the same arguments, letters, tables and lock order; what a batch needs is
-- looked up once, and what only a batch with duplicates or orphans needs is left out in others.
-- docs/adr/0017-cheaper-capture.md has the figures.

-- A batch of verified events into the database, each exactly once. One call is one transaction; it answers
-- one letter an event, in the order of the arrays:
--   c  captured: the key is new
--   o  captured as an orphan: the key is new, the enrollment it names is not there
--   d  duplicate: the key was in the ledger, or came earlier in this batch
--
-- Plain statements, top to bottom in the order of docs/lock-order.md. The arrays of one event are one
-- row: their lengths are equal. A new shape of arguments is a new function, capture_v2, so that gateways
-- of both versions run side by side.
--
-- Arrays are indexed and not unnested: plpgsql holds them expanded, so p_id[k] costs the same for every
-- k, and generate_series() and generate_subscripts() are planned as 1,000 rows, so that a kept plan does
-- not compare all with all. The settings make one plan for every size of batch and table: by primary key,
-- in its order. Else the plan of a connection that came while the tables were empty reads them whole until
-- the next ANALYZE.
-- lint: allow replaces-function because its arguments and what it returns are the same for both releases
CREATE OR REPLACE FUNCTION capture_v1(
    p_source        text[],        -- name of the source
    p_provider      text[],
    p_id            text[],        -- provider_event_id
    p_scope         text[],        -- key_scope: together with p_id, the key
    p_grade         text[],        -- id, composite or hash
    p_type          text[],        -- canonical event type
    p_provider_type text[],        -- the provider's own word, or null
    p_channel       text[],        -- or null
    p_enrollment    uuid[],        -- what the payload names, or null
    p_instance      uuid[],        -- what the payload claims, or null
    p_at            timestamptz[], -- when it happened
    p_delivery      uuid[],
    p_payload       jsonb[],       -- or null
    p_bytes         bytea[]        -- exact bytes where jsonb cannot hold them, or null
) RETURNS text
LANGUAGE plpgsql
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    n constant integer := cardinality(p_id);
    bound uuid[];              -- for each event: the instance it counts for, or null
    instances uuid[];          -- those, each once …
    enrollments uuid[];        -- … and the enrollments that are there
    locked_instances integer;
    locked_enrollments integer;
    orphan_count integer;
    new_id text[];             -- the keys that are new …
    new_scope text[];
    fresh integer[];           -- … and the places of their events
BEGIN
    IF n = 0 OR (n = ALL (ARRAY[cardinality(p_source), cardinality(p_provider),
        cardinality(p_scope), cardinality(p_grade), cardinality(p_type), cardinality(p_provider_type),
        cardinality(p_channel), cardinality(p_enrollment), cardinality(p_instance), cardinality(p_at),
        cardinality(p_delivery), cardinality(p_payload), cardinality(p_bytes)])) IS NOT TRUE THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'capture_v1 wants arrays of one length, of at least one event';
    END IF;

    -- Which instances: an enrollment's own, read in its row and not in the payload (it never changes);
    -- what a payload claims only where no enrollment is named. The event of an enrollment that comes into
    -- being after this look stays an orphan, and the sweep binds it. OFFSET 0: one look-up an event, and
    -- not one for each use of it.
    SELECT array_agg(w.instance_id ORDER BY w.k),
           array_agg(DISTINCT w.instance_id) FILTER (WHERE w.instance_id IS NOT NULL),
           array_agg(DISTINCT w.enrollment_id) FILTER (WHERE w.instance_id IS NOT NULL AND w.enrollment_id IS NOT NULL),
           count(w.enrollment_id) FILTER (WHERE w.instance_id IS NULL)
      INTO bound, instances, enrollments, orphan_count
      FROM (SELECT k, p_enrollment[k] AS enrollment_id,
                   CASE WHEN p_enrollment[k] IS NULL
                        THEN (SELECT i.id FROM campaign_instances i WHERE i.id = p_instance[k])
                        ELSE (SELECT e.instance_id FROM campaign_enrollments e WHERE e.id = p_enrollment[k])
                   END AS instance_id
              FROM generate_series(1, n) k OFFSET 0) w;

    IF instances IS NOT NULL THEN
        -- Lock order, place 2: campaign_instances, ascending by id.
        PERFORM FROM campaign_instances i WHERE i.id = ANY (instances) ORDER BY i.id FOR NO KEY UPDATE;
        GET DIAGNOSTICS locked_instances = ROW_COUNT;

        -- Lock order, place 3: campaign_enrollments, ascending by id.
        PERFORM FROM campaign_enrollments e WHERE e.id = ANY (enrollments) ORDER BY e.id FOR NO KEY UPDATE;
        GET DIAGNOSTICS locked_enrollments = ROW_COUNT;

        IF locked_instances < cardinality(instances) OR locked_enrollments < cardinality(enrollments) THEN
            -- Some were deleted while this waited for them: their events are bound to nobody.
            SELECT array_agg(CASE WHEN p_enrollment[k] IS NULL
                                  THEN (SELECT i.id FROM campaign_instances i WHERE i.id = bound[k])
                                  ELSE (SELECT e.instance_id FROM campaign_enrollments e
                                         WHERE e.id = p_enrollment[k] AND e.instance_id = bound[k])
                             END ORDER BY k), n
              INTO bound, orphan_count
              FROM generate_series(1, n) k;
        END IF;
    END IF;

    -- Lock order, place 4: event_keys, ascending by the whole key in "C" order. A key that another
    -- transaction is inserting is waited for.
    WITH inserted AS (
        INSERT INTO event_keys (provider_event_id, key_scope)
        SELECT p_id[k], p_scope[k] FROM generate_series(1, n) k
         ORDER BY p_id[k] COLLATE "C", p_scope[k] COLLATE "C"
        ON CONFLICT DO NOTHING
        RETURNING provider_event_id, key_scope)
    SELECT array_agg(i.provider_event_id), array_agg(i.key_scope) INTO new_id, new_scope FROM inserted i;

    IF cardinality(new_id) = n THEN
        fresh := ARRAY(SELECT generate_series(1, n));
    ELSE
        IF current_setting('synchronous_standby_names') <> '' THEN
            -- A duplicate's answer says "committed", so it must wait for the standbys as the first one did:
            -- a transaction without WAL does not wait, and the first one's wait may have been cancelled.
            PERFORM pg_logical_emit_message(true, 'oncehook', '');
        END IF;
        IF new_id IS NULL THEN
            RETURN repeat('d', n);
        END IF;
        -- Of equal keys in one batch the first is the event.
        SELECT array_agg(f.k ORDER BY f.k) INTO fresh
          FROM (SELECT min(k) FROM generate_subscripts(new_id, 1) i
                  JOIN generate_series(1, n) k ON p_id[k] = new_id[i] AND p_scope[k] = new_scope[i]
                 GROUP BY i) f(k);
    END IF;

    -- Lock order, place 5: campaign_events; new rows, which nobody can wait for.
    INSERT INTO campaign_events ("timestamp", delivery_id, instance_id, enrollment_id, source, provider,
                                 provider_event_id, key_scope, key_grade, event_type,
                                 provider_event_type, channel, payload, payload_bytes)
    SELECT p_at[k], p_delivery[k], bound[k], p_enrollment[k], p_source[k], p_provider[k],
           p_id[k], p_scope[k], p_grade[k], p_type[k],
           p_provider_type[k], p_channel[k], p_payload[k], p_bytes[k]
      FROM unnest(fresh) k;

    IF instances IS NOT NULL THEN
        -- Lock order, place 3: rows locked above.
        UPDATE campaign_enrollments e
           SET total_events = e.total_events + d.events,
               last_event_at = greatest(e.last_event_at, d.last_event_at)
          FROM (SELECT p_enrollment[k] AS id, count(*) AS events,
                       max(least(p_at[k], now())) AS last_event_at
                  FROM unnest(fresh) k
                 WHERE p_enrollment[k] IS NOT NULL AND bound[k] IS NOT NULL
                 GROUP BY 1) d
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
          FROM (SELECT v.id,
                       count(*) FILTER (WHERE v.type = 'sent')         AS sent,
                       count(*) FILTER (WHERE v.type = 'delivered')    AS delivered,
                       count(*) FILTER (WHERE v.type = 'opened')       AS opened,
                       count(*) FILTER (WHERE v.type = 'clicked')      AS clicked,
                       count(*) FILTER (WHERE v.type = 'replied')      AS replied,
                       count(*) FILTER (WHERE v.type = 'bounced')      AS bounced,
                       count(*) FILTER (WHERE v.type = 'unsubscribed') AS unsubscribed,
                       count(*) FILTER (WHERE v.type = 'completed')    AS completed
                  FROM (SELECT bound[k] AS id, p_type[k] AS type FROM unnest(fresh) k OFFSET 0) v
                 WHERE v.id IS NOT NULL AND v.type IN ('sent', 'delivered', 'opened', 'clicked',
                       'replied', 'bounced', 'unsubscribed', 'completed')
                 GROUP BY 1) d
         WHERE i.id = d.id;
    END IF;

    IF cardinality(fresh) = n AND orphan_count = 0 THEN
        RETURN repeat('c', n);
    END IF;
    RETURN (SELECT string_agg(CASE WHEN f.k IS NULL THEN 'd'
                                   WHEN p_enrollment[k] IS NOT NULL AND bound[k] IS NULL THEN 'o'
                                   ELSE 'c' END, '' ORDER BY k)
              FROM generate_series(1, n) k
              LEFT JOIN unnest(fresh) f(k) USING (k));
END $$;
