-- `oncehook forget`: a person leaves payloads, quarantine, contacts and cache; keys, rows and counters stay,
-- so that a redelivery is still a duplicate and no counter differs from its events. docs/forget.md.

ALTER TABLE campaign_enrollments ADD COLUMN forgotten_at timestamptz;

-- What comes for a forgotten enrollment later (from a provider, from a spool) is counted and loses its
-- payload in the transaction that captures it. Capture raises total_events last, and its events have
-- received_at = now(): so the capturing functions need not know of it, and an enrollment that is not
-- forgotten costs the look at WHEN.
CREATE FUNCTION oncehook_forget_new_events() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    -- Lock order, place 5: campaign_events; rows that this transaction made, which nobody can wait for.
    UPDATE campaign_events v SET payload = NULL, payload_bytes = NULL
     WHERE v.received_at = now() AND v.enrollment_id = NEW.id
       AND (v.payload IS NOT NULL OR v.payload_bytes IS NOT NULL);
    RETURN NULL;
END $$;

CREATE TRIGGER campaign_enrollments_forgotten AFTER UPDATE OF total_events ON campaign_enrollments
    FOR EACH ROW WHEN (NEW.forgotten_at IS NOT NULL AND NEW.total_events > OLD.total_events)
    EXECUTE FUNCTION oncehook_forget_new_events();

-- forget_find_v1: whom the ids mean. An enrollment is itself alone, whether its row is there or not; a
-- contact is all its enrollments and, where its row is among the imported contacts, its address. Reads only.
CREATE FUNCTION forget_find_v1(
    p_enrollment uuid,    -- or null
    p_contact    uuid,    -- or null
    p_email      text,    -- or null
    OUT enrollments uuid[],
    OUT emails text[]     -- in lower case
)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT ARRAY(SELECT p_enrollment WHERE p_enrollment IS NOT NULL
                 UNION SELECT e.id FROM campaign_enrollments e WHERE e.contact_id = p_contact
                 ORDER BY 1),
           ARRAY(SELECT lower(p_email) WHERE p_email <> ''
                 UNION SELECT lower(c.email) FROM imported_contacts c WHERE c.id = p_contact)
$$;

-- forget_count_v1: what the functions below would change, quarantine excepted. Reads only.
CREATE FUNCTION forget_count_v1(
    p_enrollments uuid[], p_contact uuid, p_emails text[],
    OUT marks bigint, OUT events bigint, OUT contacts bigint, OUT cached bigint
)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT (SELECT count(*) FROM campaign_enrollments e
             WHERE e.id = ANY (p_enrollments) AND e.forgotten_at IS NULL),
           (SELECT count(*) FROM campaign_events v
             WHERE v.enrollment_id = ANY (p_enrollments)
               AND (v.payload IS NOT NULL OR v.payload_bytes IS NOT NULL)),
           (SELECT count(*) FROM imported_contacts c
             WHERE c.id = p_contact OR lower(c.email) = ANY (p_emails)),
           (SELECT count(*) FROM enrichment_cache c
             WHERE lower(c.contact_email) = ANY (p_emails) OR lower(c.key) = ANY (p_emails))
$$;

-- forget_mark_v1: from its commit on, nothing new of these enrollments keeps a payload. They become nobody's:
-- a contact that is enrolled again is another enrollment. Returns how many were marked. The first step, and
-- a transaction of its own: a capture that was under way has committed then, and the next steps see it.
CREATE FUNCTION forget_mark_v1(p_enrollments uuid[]) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    marked integer;
BEGIN
    -- Lock order, place 3: campaign_enrollments, ascending by id. FOR UPDATE at once, as a change of
    -- contact_id, which is part of a unique key, needs it.
    PERFORM FROM campaign_enrollments e
      WHERE e.id = ANY (p_enrollments) AND e.forgotten_at IS NULL ORDER BY e.id FOR UPDATE;
    -- Lock order, place 3: rows locked above.
    UPDATE campaign_enrollments e
       SET forgotten_at = now(), contact_id = gen_random_uuid(), next_action_at = NULL
     WHERE e.id = ANY (p_enrollments) AND e.forgotten_at IS NULL;
    GET DIAGNOSTICS marked = ROW_COUNT;
    RETURN marked;
END $$;

-- forget_events_v1: takes the payload of at most p_limit events, orphans among them; returns of how many.
-- One call is one transaction; call again while it is p_limit.
CREATE FUNCTION forget_events_v1(p_enrollments uuid[], p_limit integer) RETURNS integer
LANGUAGE plpgsql
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    event_at timestamptz[];
    event_id bigint[];
BEGIN
    -- Lock order, place 5: campaign_events, ascending by received_at and id.
    SELECT array_agg(l.received_at), array_agg(l.id) INTO event_at, event_id
      FROM (SELECT v.received_at, v.id
              FROM (SELECT o.received_at, o.id FROM campaign_events o
                     WHERE o.enrollment_id = ANY (p_enrollments)
                       AND (o.payload IS NOT NULL OR o.payload_bytes IS NOT NULL)
                     LIMIT p_limit) picked
              JOIN campaign_events v ON v.received_at = picked.received_at AND v.id = picked.id
             ORDER BY v.received_at, v.id FOR NO KEY UPDATE OF v) l;
    -- Lock order, place 5: rows locked above.
    UPDATE campaign_events v SET payload = NULL, payload_bytes = NULL
      FROM unnest(event_at, event_id) o(received_at, id)
     WHERE v.received_at = o.received_at AND v.id = o.id;
    RETURN coalesce(cardinality(event_id), 0);
END $$;

-- forget_quarantine_v1: looks at the next p_limit quarantined deliveries after p_after; those whose body,
-- URL or headers hold one of the ids or addresses lose all three. A body may hold others' events beside: it
-- goes whole, since what could not be read cannot be cut. Its hash stays, so the same body is not kept again.
CREATE FUNCTION forget_quarantine_v1(
    p_ids     uuid[],
    p_emails  text[],
    p_after   bigint,
    p_limit   integer,
    p_dry_run boolean,
    OUT looked integer,    -- how many it looked at; fewer than p_limit: these were the last
    OUT after  bigint,     -- the next call's p_after
    OUT matches bigint[]   -- ids of those that name the person, or null
)
LANGUAGE plpgsql
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
DECLARE
    -- An id in both its spellings; an address not as a part of a longer one, plain, %40 or \u0040.
    pattern constant text := (
        SELECT string_agg(t.pattern, '|')
          FROM (SELECT unnest(ARRAY[u.id::text, replace(u.id::text, '-', '')]) FROM unnest(p_ids) u(id)
                UNION ALL
                SELECT '(^|[^a-z0-9._+-]|%[0-9a-f]{2}|\\[nrt0-7]+)'
                       || replace(regexp_replace(m.email, '([]$^*+?(){}|\\.[])', '\\\1', 'g'),
                                  '@', '(@|%40|\\+u0040)')
                       || '($|[^a-z0-9.-]|\.($|[^a-z0-9]))' FROM unnest(p_emails) m(email)) t(pattern));
BEGIN
    SELECT count(*), max(w.id), array_agg(w.id) FILTER (WHERE
               lower(concat_ws(' ', encode(w.body, 'escape'), w.url, w.headers::text)) ~ pattern)
      INTO looked, after, matches
      FROM (SELECT q.id, q.body, q.url, q.headers FROM quarantined_deliveries q
             WHERE q.id > p_after ORDER BY q.id LIMIT p_limit) w;
    IF p_dry_run OR matches IS NULL THEN
        RETURN;
    END IF;
    -- Lock order, place 6: quarantined_deliveries, ascending by source and body_sha256.
    PERFORM FROM quarantined_deliveries q
      WHERE q.id = ANY (matches) ORDER BY q.source, q.body_sha256 FOR NO KEY UPDATE;
    -- Lock order, place 6: rows locked above.
    UPDATE quarantined_deliveries q
       SET body = NULL, url = NULL, headers = NULL, resolved_at = coalesce(q.resolved_at, now())
     WHERE q.id = ANY (matches);
END $$;

REVOKE ALL ON FUNCTION oncehook_forget_new_events(), forget_find_v1, forget_count_v1, forget_mark_v1,
    forget_events_v1, forget_quarantine_v1 FROM PUBLIC;
