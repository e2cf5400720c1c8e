-- capture_v1 for fewer instructions: the same arguments, letters, tables and lock order; locks are taken by
-- primary key in its order, without a sort, and what only a batch with duplicates or orphans needs is left out
-- in others. docs/adr/0017-cheaper-capture.md has the figures.

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
-- k, and generate_subscripts() is planned as 1,000 rows, so that a kept plan does not compare all with
-- all. The settings make one plan for every size of batch and table: by an index. Else the plan of a
-- connection that came while the tables were empty reads them whole until the next ANALYZE.
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
    wanted uuid[];             -- instances to lock
    live uuid[];               -- those that are there, locked
    enrolled uuid[];           -- enrollments that are there, locked …
    enrolled_in uuid[];        -- … and the instance of each
    bound uuid[];              -- for each event: the instance it counts for, or null
    orphan_count integer := n - cardinality(array_positions(p_enrollment, NULL)); -- while nobody is there
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
    -- what a payload claims only where no enrollment is named.
    SELECT array_agg(w.id) INTO wanted
      FROM (SELECT e.instance_id FROM campaign_enrollments e WHERE e.id = ANY (p_enrollment)
            UNION ALL
            SELECT p_instance[k] FROM generate_subscripts(p_id, 1) k
             WHERE p_enrollment[k] IS NULL AND p_instance[k] IS NOT NULL) w(id);

    IF wanted IS NOT NULL THEN
        -- Lock order, place 2: campaign_instances, ascending by id.
        SELECT array_agg(l.id) INTO live
          FROM (SELECT i.id FROM campaign_instances i WHERE i.id = ANY (wanted)
                 ORDER BY i.id FOR NO KEY UPDATE) l;

        -- Lock order, place 3: campaign_enrollments, ascending by id.
        SELECT array_agg(l.id), array_agg(l.instance_id) INTO enrolled, enrolled_in
          FROM (SELECT e.id, e.instance_id FROM campaign_enrollments e WHERE e.id = ANY (p_enrollment)
                 ORDER BY e.id FOR NO KEY UPDATE) l;

        -- Bound is only what counts in a locked instance: the event of an enrollment that came into
        -- being after the look above stays an orphan, and the sweep binds it.
        SELECT array_agg(l.id ORDER BY k), count(p_enrollment[k]) FILTER (WHERE l.id IS NULL)
          INTO bound, orphan_count
          FROM generate_subscripts(p_id, 1) k
          LEFT JOIN (SELECT enrolled[j], enrolled_in[j] FROM generate_subscripts(enrolled, 1) j)
                    e(id, instance_id) ON e.id = p_enrollment[k]
          LEFT JOIN (SELECT live[j] FROM generate_subscripts(live, 1) j) l(id)
                    ON l.id = CASE WHEN p_enrollment[k] IS NULL THEN p_instance[k] ELSE e.instance_id END;
    END IF;

    -- Lock order, place 4: event_keys, ascending by the whole key in "C" order. A key that another
    -- transaction is inserting is waited for.
    WITH inserted AS (
        INSERT INTO event_keys (provider_event_id, key_scope)
        SELECT p_id[k], p_scope[k] FROM generate_subscripts(p_id, 1) k
         ORDER BY p_id[k] COLLATE "C", p_scope[k] COLLATE "C"
        ON CONFLICT DO NOTHING
        RETURNING provider_event_id, key_scope)
    SELECT array_agg(i.provider_event_id), array_agg(i.key_scope) INTO new_id, new_scope FROM inserted i;

    IF cardinality(new_id) = n THEN
        fresh := ARRAY(SELECT generate_subscripts(p_id, 1));
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
                  JOIN generate_subscripts(p_id, 1) k ON p_id[k] = new_id[i] AND p_scope[k] = new_scope[i]
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

    IF enrolled IS NOT NULL THEN
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
    END IF;

    IF live IS NOT NULL THEN
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
              FROM generate_subscripts(p_id, 1) k
              LEFT JOIN unnest(fresh) f(k) USING (k));
END $$;
