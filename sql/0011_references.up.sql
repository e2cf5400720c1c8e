-- References: whose event it is when a provider echoes only an id of its own, as Twilio its MessageSid.
-- A reference has an id made of it (a UUID of version 8), and an event that carries one names that id as
-- its enrollment: so it is stored, spooled, found and retired as any event of an enrollment that may not
-- be there yet. docs/adr/0009-references.md says why.

-- The same as in C (event/key.c): the first bits of SHA-256(key_scope, a zero byte, reference).
CREATE FUNCTION oncehook_reference_id(p_key_scope text, p_reference text) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path FROM CURRENT AS $$
    SELECT encode(set_byte(set_byte(h.hash, 6, get_byte(h.hash, 6) & 15 | 128),
                           8, get_byte(h.hash, 8) & 63 | 128), 'hex')::uuid
      FROM (SELECT substr(sha256(convert_to(p_key_scope, 'UTF8') || '\x00'::bytea
                                 || convert_to(p_reference, 'UTF8')), 1, 16)) h(hash)
$$;

CREATE TABLE enrollment_references (
    key_scope     text        COLLATE "C" NOT NULL
        CONSTRAINT enrollment_references_key_scope_form CHECK (key_scope ~ '^(source|provider|name):.'),
    reference     text        COLLATE "C" NOT NULL
        CONSTRAINT enrollment_references_reference_length CHECK (octet_length(reference) BETWEEN 1 AND 255),
    enrollment_id uuid        NOT NULL REFERENCES campaign_enrollments (id) ON DELETE CASCADE,
    created_at    timestamptz NOT NULL DEFAULT now(),
    id            uuid        GENERATED ALWAYS AS (oncehook_reference_id(key_scope, reference)) STORED,
    tx            xid8        NOT NULL DEFAULT pg_current_xact_id(),  -- as in campaign_enrollments
    PRIMARY KEY (key_scope, reference)
);
CREATE UNIQUE INDEX idx_enrollment_references_id ON enrollment_references (id);
CREATE INDEX idx_enrollment_references_enrollment ON enrollment_references (enrollment_id);
CREATE INDEX idx_enrollment_references_tx ON enrollment_references (tx);

-- capture_v2: capture_v1, for a batch in which events name references. What is no known reference stays
-- as it is. LATERAL … LIMIT 1 is a nested loop whatever the statistics say.
CREATE FUNCTION capture_v2(
    p_source        text[], p_provider text[], p_id text[], p_scope text[], p_grade text[], p_type text[],
    p_provider_type text[], p_channel text[], p_enrollment uuid[], p_instance uuid[], p_at timestamptz[],
    p_delivery      uuid[], p_payload jsonb[], p_bytes bytea[]
) RETURNS text
LANGUAGE plpgsql
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    named uuid[];
BEGIN
    SELECT array_agg(coalesce(r.enrollment_id, p_enrollment[k]) ORDER BY k) INTO named
      FROM generate_subscripts(p_id, 1) k
      LEFT JOIN LATERAL (SELECT f.enrollment_id FROM enrollment_references f
                          WHERE f.id = p_enrollment[k] LIMIT 1) r ON true;
    RETURN capture_v1(p_source, p_provider, p_id, p_scope, p_grade, p_type, p_provider_type, p_channel,
                      named, p_instance, p_at, p_delivery, p_payload, p_bytes);
END $$;

-- unbound_v2: unbound_v1, and the enrollments that orphans name by a reference. `fresh` also has pairs
-- of a new reference and an orphan, whoever came first.
CREATE FUNCTION unbound_v2(
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
              FROM (SELECT r.id, r.enrollment_id FROM enrollment_references r
                     WHERE r.tx >= first_tx AND r.tx < end_tx
                    UNION ALL
                    SELECT r.id, r.enrollment_id FROM enrollment_references r WHERE r.tx = ANY (running)) n
             CROSS JOIN LATERAL (SELECT FROM campaign_events v
                                  WHERE v.enrollment_id = n.id AND v.instance_id IS NULL LIMIT 1) one
            UNION ALL
            SELECT one.id
              FROM (SELECT v.enrollment_id FROM campaign_events v
                     WHERE v.tx >= first_tx AND v.tx < end_tx
                       AND v.instance_id IS NULL AND v.enrollment_id IS NOT NULL
                    UNION ALL
                    SELECT v.enrollment_id FROM campaign_events v
                     WHERE v.tx = ANY (running)
                       AND v.instance_id IS NULL AND v.enrollment_id IS NOT NULL) n
             CROSS JOIN LATERAL (SELECT e.id FROM campaign_enrollments e WHERE e.id = n.enrollment_id
                                 UNION ALL
                                 SELECT r.enrollment_id FROM enrollment_references r WHERE r.id = n.enrollment_id
                                  LIMIT 1) one
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
            SELECT one.id FROM unnest(walked) w(id)
             CROSS JOIN LATERAL (SELECT e.id FROM campaign_enrollments e WHERE e.id = w.id
                                 UNION ALL
                                 SELECT r.enrollment_id FROM enrollment_references r WHERE r.id = w.id
                                  LIMIT 1) one) u(id);
END $$;

-- bind_v2: bind_v1, and the orphans that name these enrollments by a reference: the event gets the
-- enrollment's own id.
CREATE FUNCTION bind_v2(p_enrollments uuid[], p_limit integer) RETURNS integer
LANGUAGE plpgsql
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    wanted uuid[];             -- instances to lock
    enrolled uuid[];           -- enrollments that are there, locked …
    enrolled_in uuid[];        -- … and the instance of each
    names uuid[];              -- what orphans may call them: their id or a reference's …
    named uuid[];              -- … the enrollment of each …
    named_in uuid[];           -- … and its instance
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

    SELECT array_agg(n.name), array_agg(n.id), array_agg(n.instance_id) INTO names, named, named_in
      FROM (SELECT e.id, e.id, e.instance_id FROM unnest(enrolled, enrolled_in) e(id, instance_id)
            UNION ALL
            SELECT r.id, e.id, e.instance_id
              FROM enrollment_references r
              JOIN unnest(enrolled, enrolled_in) e(id, instance_id) ON e.id = r.enrollment_id
             WHERE r.enrollment_id = ANY (enrolled)) n(name, id, instance_id);

    -- Lock order, place 5: campaign_events, ascending by received_at and id. Any p_limit of them: the
    -- first ones would have to be sorted out of all.
    SELECT array_agg(l.received_at), array_agg(l.id) INTO orphan_at, orphan_id
      FROM (SELECT v.received_at, v.id
              FROM (SELECT o.received_at, o.id FROM campaign_events o
                     WHERE o.instance_id IS NULL AND o.enrollment_id = ANY (names)
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
           SET instance_id = n.instance_id, enrollment_id = n.id
          FROM unnest(orphan_at, orphan_id) o(received_at, id),
               unnest(names, named, named_in) n(name, id, instance_id)
         WHERE v.received_at = o.received_at AND v.id = o.id
           AND v.instance_id IS NULL AND v.enrollment_id = n.name
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

-- reference_v1: these references are the enrollment's from now on, and events that came with one of them
-- are bound and counted. Returns how many are new. One call is one transaction, or the end of one that
-- locked nothing of places 2 to 6 before. Errors: no_data_found (there is no such enrollment), SQLSTATE
-- OH002 (one of the references is another enrollment's: nothing has happened).
CREATE FUNCTION reference_v1(p_enrollment uuid, p_key_scopes text[], p_references text[]) RETURNS integer
LANGUAGE plpgsql
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    bind_rounds constant integer := 20;
    wanted uuid;               -- the enrollment's instance
    added integer;
    others integer;            -- references that are another enrollment's
BEGIN
    SELECT e.instance_id INTO wanted FROM campaign_enrollments e WHERE e.id = p_enrollment;

    -- Lock order, place 2: campaign_instances; the enrollment's.
    PERFORM FROM campaign_instances i WHERE i.id = wanted FOR NO KEY UPDATE;

    -- Lock order, place 3: campaign_enrollments; one row.
    PERFORM FROM campaign_enrollments e WHERE e.id = p_enrollment FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = 'There is no such enrollment.';
    END IF;

    -- Lock order, place 3b: enrollment_references, ascending by the whole key in "C" order.
    INSERT INTO enrollment_references (key_scope, reference, enrollment_id)
    SELECT r.key_scope, r.reference, p_enrollment
      FROM unnest(p_key_scopes, p_references) r(key_scope, reference)
     ORDER BY r.key_scope COLLATE "C", r.reference COLLATE "C"
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS added = ROW_COUNT;

    SELECT count(*) INTO others
      FROM unnest(p_key_scopes, p_references) r(key_scope, reference)
     CROSS JOIN LATERAL (SELECT f.enrollment_id FROM enrollment_references f
                          WHERE f.key_scope = r.key_scope AND f.reference = r.reference LIMIT 1) f
     WHERE f.enrollment_id <> p_enrollment;
    IF others > 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'OH002',
            MESSAGE = format('%s of the references belong to other enrollments.', others);
    END IF;

    FOR round IN 1..bind_rounds LOOP
        EXIT WHEN added = 0 OR bind_v2(ARRAY[p_enrollment], 1000) < 1000;
    END LOOP;
    RETURN added;
END $$;

-- What `POST /v1/enrollments/{id}/references` answers; the form is that of enroll_http_v1.
CREATE FUNCTION reference_http_v1(p_enrollment uuid, p_body text, OUT status integer, OUT body text)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    references_max constant integer := 1000;
    document jsonb;
    added integer;
BEGIN
    status := 400;
    BEGIN
        document := p_body::jsonb;
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
        body := 'The body is not JSON.';
        RETURN;
    END;
    IF jsonb_typeof(document) = 'object' THEN
        document := jsonb_build_array(document);
    END IF;
    IF jsonb_typeof(document) IS DISTINCT FROM 'array' OR document = '[]' THEN
        body := 'The body is neither a reference nor an array of references.';
        RETURN;
    ELSIF jsonb_array_length(document) > references_max THEN
        status := 413;
        body := format('The body names more than %s references.', references_max);
        RETURN;
    END IF;
    SELECT format('Reference %s is not {"key_scope": "source:NAME", "reference": "1 to 255 bytes"}.', c.place) INTO body
      FROM jsonb_array_elements(document) WITH ORDINALITY c(item, place)
     WHERE CASE WHEN jsonb_typeof(c.item) <> 'object' THEN true
                ELSE c.item - '{key_scope,reference}'::text[] <> '{}'
                  OR jsonb_typeof(c.item -> 'key_scope') IS DISTINCT FROM 'string'
                  OR jsonb_typeof(c.item -> 'reference') IS DISTINCT FROM 'string'
                  OR c.item ->> 'key_scope' !~ '^(source|provider|name):.'
                  OR octet_length(c.item ->> 'key_scope') > 255
                  OR octet_length(c.item ->> 'reference') NOT BETWEEN 1 AND 255 END
     ORDER BY c.place LIMIT 1;
    IF body IS NOT NULL THEN
        RETURN;
    END IF;

    BEGIN
        SELECT reference_v1(p_enrollment, array_agg(c.item ->> 'key_scope'), array_agg(c.item ->> 'reference'))
          INTO added
          FROM jsonb_array_elements(document) c(item);
        status := 201;
        body := jsonb_build_object('enrollment_id', p_enrollment, 'added', added);
    EXCEPTION
        WHEN no_data_found THEN
            status := 404;
            body := SQLERRM;
        WHEN SQLSTATE 'OH002' THEN
            status := 409;
            body := SQLERRM;
        WHEN integrity_constraint_violation OR raise_exception THEN
            status := 422;
            body := 'A constraint or trigger of the database refuses it.';
    END;
END $$;

REVOKE ALL ON enrollment_references FROM PUBLIC;
REVOKE ALL ON FUNCTION oncehook_reference_id, capture_v2, unbound_v2, bind_v2, reference_v1, reference_http_v1
    FROM PUBLIC;
GRANT SELECT, INSERT ON enrollment_references TO oncehook_gateway;
GRANT EXECUTE ON FUNCTION oncehook_reference_id, capture_v2, unbound_v2, bind_v2, reference_v1, reference_http_v1
    TO oncehook_gateway;
