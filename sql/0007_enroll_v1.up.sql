-- Enrollments: contacts into an instance, and campaigns out of the database, in the lock order.

-- enroll_v1: enrolls contacts in an active instance; one row a contact, in the order of the array:
--   enrolled          with its new id
--   already_enrolled  with the id that it has, also for a contact that comes twice here
--   id_taken          the wanted id is another enrollment's, or bound events have it
-- Errors: no_data_found (there is no such instance), SQLSTATE OH001 (it is not active).
-- One call is one transaction, or the end of one that locked nothing of places 2 to 6 before. The arrays
-- of one contact are one row. Events that came before their enrollment, which only an enrollment with a
-- wanted id can have, are bound and counted with it; beyond BIND_ROUNDS batches the sweep does the rest.
CREATE FUNCTION enroll_v1(
    p_instance       uuid,
    p_contacts       uuid[],
    p_ids            uuid[],        -- wanted ids of the enrollments; a null is any
    p_next_action_at timestamptz[]  -- or null
) RETURNS TABLE (contact_id uuid, id uuid, outcome text)
LANGUAGE plpgsql
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    bind_rounds constant integer := 20;
    now_status text;
    made uuid[];               -- enrollments that came into being …
    made_of uuid[];            -- … and the contact of each
    waited uuid[];             -- of them, those whose id was known before
BEGIN
    IF cardinality(p_contacts) = 0 OR (cardinality(p_contacts) = ALL (
        ARRAY[cardinality(p_ids), cardinality(p_next_action_at)])) IS NOT TRUE THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'enroll_v1 wants arrays of one length, of at least one contact';
    END IF;
    -- A first look, without a lock: most refusals need none.
    SELECT i.status INTO now_status FROM campaign_instances i WHERE i.id = p_instance;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = 'There is no such instance.';
    END IF;

    IF now_status = 'active' THEN
        -- Lock order, place 3: campaign_enrollments; new rows, ascending by the unique key that another
        -- insert may wait for, and before the instance, as every user's own INSERT has it: the other way
        -- round, two that enroll one contact, here and by plain SQL, would wait for each other.
        WITH inserted AS (
            INSERT INTO campaign_enrollments (id, instance_id, contact_id, next_action_at)
            SELECT coalesce(p_ids[k], gen_random_uuid()), p_instance, p_contacts[k], p_next_action_at[k]
              FROM generate_subscripts(p_contacts, 1) k
             WHERE p_ids[k] IS NULL
                OR NOT EXISTS (SELECT FROM campaign_events v
                                WHERE v.enrollment_id = p_ids[k] AND v.instance_id IS NOT NULL)
             ORDER BY p_contacts[k], k
            ON CONFLICT DO NOTHING
            RETURNING id, contact_id)
        SELECT array_agg(i.id), array_agg(i.contact_id), array_agg(i.id) FILTER (WHERE i.id = ANY (p_ids))
          INTO made, made_of, waited
          FROM inserted i;

        -- The second look is under the lock: the statement's trigger has locked the instance to count
        -- (oncehook_count_enrolled), so whoever paused it has committed, or waits for this transaction.
        SELECT i.status INTO now_status FROM campaign_instances i WHERE i.id = p_instance;
    END IF;
    IF now_status IS DISTINCT FROM 'active' THEN
        RAISE EXCEPTION USING ERRCODE = 'OH001',
            MESSAGE = format('Cannot enroll: the instance is %s, not active.', now_status);
    END IF;

    FOR round IN 1..bind_rounds LOOP
        EXIT WHEN waited IS NULL OR bind_v1(waited, 1000) < 1000;
    END LOOP;

    RETURN QUERY
    SELECT p_contacts[k], coalesce(m.id, e.id),
           CASE WHEN m.id IS NOT NULL THEN 'enrolled'
                WHEN e.id IS NOT NULL OR p_ids[k] IS NULL THEN 'already_enrolled'
                ELSE 'id_taken' END
      FROM generate_subscripts(p_contacts, 1) k
      LEFT JOIN (SELECT u.id, min(j) AS k
                   FROM unnest(made, made_of) u(id, contact)
                   JOIN generate_subscripts(p_contacts, 1) j
                     ON p_contacts[j] = u.contact AND (p_ids[j] IS NULL OR p_ids[j] = u.id)
                  GROUP BY u.id) m USING (k)
      LEFT JOIN campaign_enrollments e ON e.instance_id = p_instance AND e.contact_id = p_contacts[k]
     ORDER BY k;
END $$;

CREATE FUNCTION oncehook_is_uuid(p_text text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT AS $$
    SELECT p_text ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$'
$$;

-- What `POST /v1/instances/{id}/enrollments` answers; docs/enrollments.md has the form. `body` of a
-- status from 400 on is the problem's detail, or an object of its members. What PostgreSQL says of locks
-- (40P01, 55P03, …) goes up to the caller, who tries again.
CREATE FUNCTION enroll_http_v1(p_instance uuid, p_body text, OUT status integer, OUT body text)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    contacts_max constant integer := 1000;
    document jsonb;
    contacts jsonb;            -- an array of objects
    is_one boolean := false;   -- and no list
    enrolled bigint;
    results jsonb;
BEGIN
    status := 400;
    BEGIN
        document := p_body::jsonb;
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
        body := 'The body is not JSON.';
        RETURN;
    END;
    IF jsonb_typeof(document) = 'array' THEN
        contacts := document;
    ELSIF jsonb_typeof(document) = 'object' THEN
        is_one := NOT document ? 'contacts';
        contacts := CASE WHEN is_one THEN jsonb_build_array(document)
                         WHEN document - 'contacts' = '{}' THEN document -> 'contacts' END;
    END IF;
    IF jsonb_typeof(contacts) IS DISTINCT FROM 'array' OR contacts = '[]' THEN
        body := 'The body is neither a contact nor an array of contacts.';
        RETURN;
    ELSIF jsonb_array_length(contacts) > contacts_max THEN
        status := 413;
        body := format('The body names more than %s contacts.', contacts_max);
        RETURN;
    END IF;

    SELECT jsonb_agg(CASE jsonb_typeof(c.item) WHEN 'string' THEN jsonb_build_object('contact_id', c.item)
                          ELSE c.item END ORDER BY c.place)
      INTO contacts
      FROM jsonb_array_elements(contacts) WITH ORDINALITY c(item, place);
    SELECT format('Contact %s %s.', c.place, w.wrong) INTO body
      FROM jsonb_array_elements(contacts) WITH ORDINALITY c(item, place)
     CROSS JOIN LATERAL (SELECT CASE
           WHEN jsonb_typeof(c.item) <> 'object' THEN 'is neither an object nor a UUID'
           WHEN c.item - '{contact_id,id,next_action_at}'::text[] <> '{}'
           THEN 'has a field other than contact_id, id and next_action_at'
           WHEN oncehook_is_uuid(c.item ->> 'contact_id') IS NOT TRUE THEN 'has no contact_id that is a UUID'
           WHEN NOT oncehook_is_uuid(c.item ->> 'id') THEN 'has an id that is no UUID'
           WHEN c.item ->> 'next_action_at' !~ '^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$'
           THEN 'has a next_action_at that is no time as 2026-01-31T08:00:00Z' END) w(wrong)
     WHERE w.wrong IS NOT NULL
     ORDER BY c.place LIMIT 1;
    IF body IS NOT NULL THEN
        RETURN;
    END IF;

    BEGIN
        SELECT count(*) FILTER (WHERE r.outcome = 'enrolled'), jsonb_agg(to_jsonb(r) - 'place' ORDER BY r.place)
          INTO enrolled, results
          FROM (SELECT array_agg((c.item ->> 'contact_id')::uuid ORDER BY c.place) AS contacts,
                       array_agg((c.item ->> 'id')::uuid ORDER BY c.place) AS ids,
                       array_agg((c.item ->> 'next_action_at')::timestamptz ORDER BY c.place) AS times
                  FROM jsonb_array_elements(contacts) WITH ORDINALITY c(item, place)) a
         CROSS JOIN LATERAL ROWS FROM (enroll_v1(p_instance, a.contacts, a.ids, a.times))
               WITH ORDINALITY r(contact_id, id, outcome, place);
    EXCEPTION
        WHEN no_data_found THEN
            status := 404;
            body := SQLERRM;
            RETURN;
        WHEN SQLSTATE 'OH001' THEN
            status := 422;
            body := SQLERRM;
            RETURN;
        WHEN datetime_field_overflow THEN
            body := 'A next_action_at is no time that there is.';
            RETURN;
        WHEN integrity_constraint_violation OR raise_exception THEN
            -- The instance was deleted meanwhile; else it is a rule of the user's own.
            status := CASE WHEN EXISTS (SELECT FROM campaign_instances i WHERE i.id = p_instance)
                           THEN 422 ELSE 404 END;
            body := CASE status WHEN 404 THEN 'There is no such instance.'
                                ELSE 'A constraint or trigger of the database refuses it.' END;
            RETURN;
    END;

    status := CASE WHEN enrolled > 0 THEN 201 ELSE 409 END;
    IF NOT is_one THEN
        body := jsonb_build_object('enrolled', enrolled, 'results', results);
    ELSIF enrolled = 0 THEN
        body := results -> 0 || jsonb_build_object('detail', CASE results -> 0 ->> 'outcome'
            WHEN 'already_enrolled' THEN 'The contact is already enrolled in this instance.'
            ELSE 'The id belongs to another enrollment, or to events of one.' END);
    ELSE
        SELECT to_jsonb(e) - 'tx' INTO body
          FROM campaign_enrollments e WHERE e.id = (results -> 0 ->> 'id')::uuid;
    END IF;
END $$;

-- ---- leaving --------------------------------------------------------------------------------------
-- DELETE of a template or instance cascades in heap order and can deadlock with a capture. These lock
-- first, in order, and delete children first. Events stay, with the ids that they had: their keys keep a
-- retry from becoming an event again, and the counters are gone with their rows. The owner's.
-- FOR UPDATE at once, since DELETE needs it: who had FOR NO KEY UPDATE and wanted more would wait for an
-- INSERT of an enrollment (it has FOR KEY SHARE of the instance), which waits for him (it counts).
CREATE FUNCTION oncehook_delete_instances(p_instances uuid[]) RETURNS integer
LANGUAGE plpgsql
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    deleted integer;
BEGIN
    -- Lock order, place 2: campaign_instances, ascending by id.
    PERFORM FROM campaign_instances i WHERE i.id = ANY (p_instances) ORDER BY i.id FOR UPDATE;

    -- Lock order, place 3: campaign_enrollments, ascending by id.
    PERFORM FROM campaign_enrollments e WHERE e.instance_id = ANY (p_instances) ORDER BY e.id FOR UPDATE;

    -- Lock order, place 3: rows locked above. A new one waits for the instance (its foreign key).
    DELETE FROM campaign_enrollments e WHERE e.instance_id = ANY (p_instances);

    -- Lock order, place 2: rows locked above.
    DELETE FROM campaign_instances i WHERE i.id = ANY (p_instances);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END $$;

-- Both: true if it was there.
CREATE FUNCTION oncehook_delete_instance(p_instance uuid) RETURNS boolean
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT oncehook_delete_instances(ARRAY[p_instance]) > 0
$$;

CREATE FUNCTION oncehook_delete_template(p_template uuid) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    instances uuid[];
BEGIN
    -- Lock order, place 1: campaign_templates; one row. A new instance waits for it (its foreign key).
    PERFORM FROM campaign_templates t WHERE t.id = p_template FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;

    -- Lock order, place 2: campaign_instances, ascending by id.
    SELECT array_agg(l.id) INTO instances
      FROM (SELECT i.id FROM campaign_instances i WHERE i.template_id = p_template ORDER BY i.id FOR UPDATE) l;
    PERFORM oncehook_delete_instances(instances);

    -- Lock order, place 1: rows locked above. Its sequences go with it; nobody holds them and waits.
    DELETE FROM campaign_templates t WHERE t.id = p_template;
    RETURN true;
END $$;

REVOKE ALL ON FUNCTION enroll_v1, enroll_http_v1, oncehook_is_uuid, oncehook_delete_instances,
    oncehook_delete_instance, oncehook_delete_template FROM PUBLIC;
GRANT EXECUTE ON FUNCTION enroll_v1, enroll_http_v1, oncehook_is_uuid TO oncehook_gateway;
