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
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    n constant integer := cardinality(p_id);
    wanted uuid[];             -- instances to lock
    live uuid[];               -- those that are there, locked
    enrolled uuid[];           -- enrollments that are there, locked …
    enrolled_in uuid[];        -- … and the instance of each
    bound uuid[];              -- for each event: the instance it counts for, or null
    fresh integer[];           -- places of the events whose key is new
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
    SELECT array_agg(DISTINCT w.id) INTO wanted
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
        SELECT array_agg(l.id ORDER BY k) INTO bound
          FROM generate_subscripts(p_id, 1) k
          LEFT JOIN (SELECT enrolled[j], enrolled_in[j] FROM generate_subscripts(enrolled, 1) j)
                    e(id, instance_id) ON e.id = p_enrollment[k]
          LEFT JOIN (SELECT live[j] FROM generate_subscripts(live, 1) j) l(id)
                    ON l.id = CASE WHEN p_enrollment[k] IS NULL THEN p_instance[k] ELSE e.instance_id END;
    END IF;

    -- Lock order, place 4: event_keys, ascending by the whole key in "C" order. A key that another
    -- transaction is inserting is waited for. Of equal keys in one batch the first is the event.
    WITH inserted AS (
        INSERT INTO event_keys (provider_event_id, key_scope)
        SELECT p_id[k], p_scope[k] FROM generate_subscripts(p_id, 1) k
         ORDER BY p_id[k] COLLATE "C", p_scope[k] COLLATE "C"
        ON CONFLICT DO NOTHING
        RETURNING provider_event_id, key_scope)
    SELECT array_agg(f.k ORDER BY f.k) INTO fresh
      FROM (SELECT min(k) FROM inserted i
              JOIN generate_subscripts(p_id, 1) k
                ON i.provider_event_id = p_id[k] AND i.key_scope = p_scope[k]
             GROUP BY i.provider_event_id, i.key_scope) f(k);

    IF coalesce(cardinality(fresh), 0) < n AND current_setting('synchronous_standby_names') <> '' THEN
        -- A duplicate's answer says "committed", so it must wait for the standbys as the first one did:
        -- a transaction without WAL does not wait, and the first one's wait may have been cancelled.
        PERFORM pg_logical_emit_message(true, 'oncehook', '');
    END IF;
    IF fresh IS NULL THEN
        RETURN repeat('d', n);
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
          FROM (SELECT bound[k] AS id,
                       count(*) FILTER (WHERE p_type[k] = 'sent')         AS sent,
                       count(*) FILTER (WHERE p_type[k] = 'delivered')    AS delivered,
                       count(*) FILTER (WHERE p_type[k] = 'opened')       AS opened,
                       count(*) FILTER (WHERE p_type[k] = 'clicked')      AS clicked,
                       count(*) FILTER (WHERE p_type[k] = 'replied')      AS replied,
                       count(*) FILTER (WHERE p_type[k] = 'bounced')      AS bounced,
                       count(*) FILTER (WHERE p_type[k] = 'unsubscribed') AS unsubscribed,
                       count(*) FILTER (WHERE p_type[k] = 'completed')    AS completed
                  FROM unnest(fresh) k
                 WHERE bound[k] IS NOT NULL AND p_type[k] IN ('sent', 'delivered', 'opened', 'clicked',
                       'replied', 'bounced', 'unsubscribed', 'completed')
                 GROUP BY 1) d
         WHERE i.id = d.id;
    END IF;

    RETURN (SELECT string_agg(CASE WHEN f.k IS NULL THEN 'd'
                                   WHEN p_enrollment[k] IS NOT NULL AND bound[k] IS NULL THEN 'o'
                                   ELSE 'c' END, '' ORDER BY k)
              FROM generate_subscripts(p_id, 1) k
              LEFT JOIN unnest(fresh) f(k) USING (k));
END $$;
