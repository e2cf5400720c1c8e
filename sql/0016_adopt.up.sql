-- `oncehook migrate adopt`: an installation with tables of these names in another schema of this database
-- becomes ours while its application runs. docs/adopt.md tells the way; in short: triggers note what
-- changes in an old table, its pages are copied in short transactions, what was noted is copied again, and
-- one short transaction puts views under the old names. Old tables stay, renamed.
--
-- Everything about the old tables is dynamic SQL: their columns are the user's. Identifiers are quoted
-- with %I, values are parameters or quoted with %L.

-- One row an old table. Only `adopt` writes here, one at a time under an advisory lock.
CREATE TABLE adopted_tables (
    number      integer     PRIMARY KEY,            -- parents first
    name        text        COLLATE "C" UNIQUE,
    old_schema  text,
    columns     text[],                             -- what is carried over; null: not looked at yet
    next_page   bigint      NOT NULL DEFAULT 0,
    end_page    bigint,                             -- null: its changes are not noted yet
    turn_pages  integer     NOT NULL DEFAULT 4,     -- what 50 to 100 ms copy
    copied      bigint      NOT NULL DEFAULT 0,
    duplicates  bigint      NOT NULL DEFAULT 0,     -- events whose key was there
    switched_at timestamptz
);

-- Which rows of the old tables changed since their changes are noted; the row itself is read later.
CREATE TABLE adopted_changes (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name text   COLLATE "C",
    row_id     uuid
);

-- What is known of the tables. `counted`: columns that triggers and capture_v1 write here; the old values
-- are not taken, and what the application writes there later is passed over.
CREATE FUNCTION adopt_known()
RETURNS TABLE (number integer, name text, parent text, parent_column text, is_needed boolean, counted text[])
LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT AS $$
    VALUES (1, 'campaign_templates', NULL, NULL, true, '{}'::text[]),
           (2, 'email_sequences', 'campaign_templates', 'template_id', false, '{}'),
           (3, 'linkedin_sequences', 'campaign_templates', 'template_id', false, '{}'),
           (4, 'campaign_instances', 'campaign_templates', 'template_id', true,
               '{total_enrolled,total_sent,total_delivered,total_opened,total_clicked,total_replied,total_bounced,total_unsubscribed,total_completed}'),
           (5, 'campaign_enrollments', 'campaign_instances', 'instance_id', true, '{total_events,last_event_at}'),
           (6, 'workflow_states', NULL, NULL, false, '{}'),
           (7, 'campaign_events', NULL, NULL, true, '{}')
$$;

-- The columns of a table, in order. No row: there is no such table.
CREATE FUNCTION adopt_columns(p_schema text, p_table text)
RETURNS TABLE (name text, type text, is_needed boolean, default_is text, place integer)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           pg_get_expr(d.adbin, d.adrelid), a.attnum::integer
      FROM pg_class c
      JOIN pg_namespace s ON s.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
     WHERE s.nspname = p_schema AND c.relname = p_table AND c.relkind IN ('r', 'p') AND a.attgenerated = ''
     ORDER BY a.attnum
$$;

-- ---- one old event ----------------------------------------------------------------------------------

-- The key_scope of an old id: of the configured source of its provider, where there is one.
CREATE FUNCTION adopt_scope(p_provider text, p_scopes jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT AS $$
    SELECT CASE WHEN p_provider IS NULL THEN 'source:adopted'
                ELSE coalesce(p_scopes ->> lower(p_provider), 'provider:' || lower(p_provider)) END
$$;

-- An old row as the arguments of capture_v1. Ids keep their provider's scope, where the configuration has
-- one (p_scopes, by provider in small letters); a row without an id is known by its own. Columns that
-- ours do not have go into the payload, under _adopted, and come back in the view.
CREATE FUNCTION adopt_event(
    p_row    jsonb,
    p_scopes jsonb,
    OUT delivery uuid, OUT provider text, OUT id text, OUT scope text, OUT grade text, OUT type text,
    OUT provider_type text, OUT channel text, OUT enrollment uuid, OUT instance uuid, OUT at timestamptz,
    OUT payload jsonb)
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT SET timezone = 'UTC' AS $$
DECLARE
    others constant jsonb := p_row - ARRAY['id', 'provider', 'provider_event_id', 'event_type', 'channel',
                                           'enrollment_id', 'instance_id', 'timestamp', 'payload'];
BEGIN
    delivery := p_row ->> 'id';
    provider := p_row ->> 'provider';
    id := nullif(p_row ->> 'provider_event_id', '');
    grade := CASE WHEN id IS NULL THEN 'composite' ELSE 'id' END;
    scope := adopt_scope(CASE WHEN id IS NOT NULL THEN provider END, p_scopes);
    id := coalesce(id, 'adopted:' || delivery);
    provider_type := p_row ->> 'event_type';
    type := CASE WHEN provider_type IN ('sent', 'delivered', 'opened', 'clicked', 'replied', 'bounced',
                     'unsubscribed', 'complained', 'failed', 'connected', 'viewed', 'completed')
                 THEN provider_type ELSE 'other' END;
    channel := CASE WHEN p_row ->> 'channel' IN ('email', 'linkedin', 'video', 'sms', 'phone')
                    THEN p_row ->> 'channel' END;
    enrollment := p_row ->> 'enrollment_id';
    instance := p_row ->> 'instance_id';
    at := coalesce(p_row ->> 'timestamp', p_row ->> 'created_at');
    payload := nullif(p_row -> 'payload', 'null');
    IF others <> '{}' THEN
        payload := CASE WHEN jsonb_typeof(payload) = 'object' THEN payload
                        ELSE jsonb_build_object('_payload', payload) END
                   || jsonb_build_object('_adopted', others);
    END IF;
END $$;

-- Captures those old events: the pages from p_page on to p_end, or the rows of p_ids. One call is one
-- transaction, since a second capture_v1 in it would lock instances after events.
CREATE FUNCTION adopt_capture_v1(
    p_old text, p_scopes jsonb, p_page bigint, p_end bigint, p_ids uuid[],
    OUT captured bigint, OUT duplicates bigint)
LANGUAGE plpgsql SET search_path FROM CURRENT SET timezone = 'UTC' AS $$
DECLARE
    e record;
    letters text := '';
BEGIN
    EXECUTE format($q$
        SELECT array_agg('adopted'::text) AS source, array_agg(e.provider) AS provider, array_agg(e.id) AS id,
               array_agg(e.scope) AS scope, array_agg(e.grade) AS grade, array_agg(e.type) AS type,
               array_agg(e.provider_type) AS provider_type, array_agg(e.channel) AS channel,
               array_agg(e.enrollment) AS enrollment, array_agg(e.instance) AS instance,
               array_agg(coalesce(e.at, now())) AS at, array_agg(e.delivery) AS delivery,
               array_agg(e.payload) AS payload, array_agg(NULL::bytea) AS bytes
          FROM %I.campaign_events o CROSS JOIN LATERAL adopt_event(to_jsonb(o), $1) e
         WHERE %s$q$, p_old,
        CASE WHEN p_ids IS NULL THEN format('o.ctid >= ''(%s,0)'' AND o.ctid < ''(%s,0)''', p_page, p_end)
             ELSE 'o.id = ANY ($2)' END)
        INTO e USING p_scopes, p_ids;
    IF e.id IS NOT NULL THEN
        letters := capture_v1(e.source, e.provider, e.id, e.scope, e.grade, e.type, e.provider_type, e.channel,
                              e.enrollment, e.instance, e.at, e.delivery, e.payload, e.bytes);
    END IF;
    duplicates := length(letters) - length(replace(letters, 'd', ''));
    captured := length(letters) - duplicates;
END $$;

-- ---- the other tables -------------------------------------------------------------------------------

-- INSERT of old rows into ours: p_where chooses among them (alias o). What an update of the old row
-- changes here too, with p_again; else a row that is there stays.
CREATE FUNCTION adopt_insert(p_old text, p_table text, p_where text, p_again boolean) RETURNS text
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT format('INSERT INTO %I (%s) SELECT %s FROM %I.%I o WHERE %s%s ORDER BY o.id ON CONFLICT %s', p_table,
               string_agg(quote_ident(n.name), ', ' ORDER BY n.place),
               string_agg(CASE WHEN n.is_needed AND n.default_is IS NOT NULL
                               THEN format('coalesce(o.%I::%s, %s)', n.name, n.type, n.default_is)
                               ELSE format('o.%I::%s', n.name, n.type) END, ', ' ORDER BY n.place),
               p_old, p_table, p_where,
               CASE WHEN k.parent IS NULL THEN ''
                    ELSE format(' AND EXISTS (SELECT FROM %I p WHERE p.id = o.%I)', k.parent, k.parent_column) END,
               CASE WHEN p_again AND bool_or(n.name <> 'id')
                    THEN '(id) DO UPDATE SET ' || string_agg(format('%1$I = excluded.%1$I', n.name), ', ' ORDER BY n.place)
                         FILTER (WHERE n.name <> 'id')
                    ELSE 'DO NOTHING' END)
      FROM adopt_known() k
      JOIN adopted_tables t ON t.name = k.name
     CROSS JOIN LATERAL adopt_columns(current_schema(), k.name) n
     WHERE k.name = p_table AND n.name = ANY (t.columns)
     GROUP BY k.parent, k.parent_column
$$;

-- Takes rows away here that are gone there, in the lock order. Returns how many.
CREATE FUNCTION adopt_delete(p_table text, p_ids uuid[]) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    gone bigint;
BEGIN
    IF p_table = 'campaign_templates' THEN
        PERFORM oncehook_delete_template(d) FROM unnest(p_ids) d;
        RETURN cardinality(p_ids);
    ELSIF p_table = 'campaign_instances' THEN
        PERFORM oncehook_delete_instance(d) FROM unnest(p_ids) d;
        RETURN cardinality(p_ids);
    ELSIF p_table = 'campaign_enrollments' THEN
        -- Lock order, place 2: campaign_instances, ascending by id; those that the trigger counts down.
        PERFORM FROM campaign_instances i
          WHERE i.id IN (SELECT e.instance_id FROM campaign_enrollments e WHERE e.id = ANY (p_ids))
          ORDER BY i.id FOR NO KEY UPDATE;
        -- Lock order, place 3: campaign_enrollments, ascending by id.
        PERFORM FROM campaign_enrollments e WHERE e.id = ANY (p_ids) ORDER BY e.id FOR UPDATE;
    END IF;
    EXECUTE format('DELETE FROM %I WHERE id = ANY ($1)', p_table) USING p_ids;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

-- ---- noting what changes ----------------------------------------------------------------------------

-- The application's statements call it, with the application's rights: SECURITY DEFINER.
CREATE FUNCTION adopt_note_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('%s is being adopted by oncehook and cannot be truncated meanwhile', TG_TABLE_NAME),
            HINT = 'DELETE the rows, or end it with: oncehook migrate adopt --cancel';
    END IF;
    -- Lock order, place 14: adopted_changes; new rows, which nobody can wait for.
    INSERT INTO adopted_changes (table_name, row_id) SELECT TG_TABLE_NAME, c.id FROM changed c;
    RETURN NULL;
END $$;

-- The statements that begin or end noting the changes of an old table.
CREATE FUNCTION adopt_note_sql(p_old text, p_table text, p_begin boolean) RETURNS SETOF text
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT CASE WHEN NOT p_begin THEN format('DROP TRIGGER IF EXISTS oncehook_adopt_%s ON %I.%I', lower(op), p_old, p_table)
                ELSE format('CREATE TRIGGER oncehook_adopt_%s AFTER %s ON %I.%I %s FOR EACH STATEMENT EXECUTE FUNCTION %I.adopt_note_change()',
                            lower(op), op, p_old, p_table,
                            CASE WHEN seen <> '' THEN format('REFERENCING %s TABLE AS changed', seen) ELSE '' END,
                            current_schema()) END
      FROM (VALUES ('INSERT', 'NEW'), ('UPDATE', 'NEW'), ('DELETE', 'OLD'), ('TRUNCATE', '')) v(op, seen)
$$;

-- Copies again what was noted, of the p_limit oldest notes; name is null when nothing is noted. All tables
-- but events in one call, their instances locked first; rows that are gone go from the children up, others
-- come from the parents down. Events in a call of their own, after the enrollments that they name.
CREATE FUNCTION adopt_again_v1(p_old text, p_scopes jsonb, p_limit integer, OUT name text, OUT amount bigint)
LANGUAGE plpgsql SET search_path FROM CURRENT SET lock_timeout = '100ms' AS $$
DECLARE
    notes bigint[]; -- these and no others: some may commit meanwhile with lower numbers
    noted record;
    wanted uuid[];
    chosen uuid[];
BEGIN
    SELECT array_agg(c.id) FILTER (WHERE c.table_name <> 'campaign_events'), count(*) INTO notes, amount
      FROM (SELECT * FROM adopted_changes ORDER BY id LIMIT p_limit) c;
    IF amount = 0 THEN
        RETURN;
    ELSIF notes IS NULL THEN
        SELECT array_agg(c.id), array_agg(DISTINCT c.row_id) INTO notes, chosen
          FROM (SELECT * FROM adopted_changes ORDER BY id LIMIT p_limit) c;
        name := 'campaign_events'; -- written once: a change or a deletion of the old row takes nothing back
        PERFORM adopt_capture_v1(p_old, p_scopes, NULL, NULL, chosen);
    ELSE
        name := 'changes';
        SELECT array_agg(c.row_id) INTO chosen FROM adopted_changes c
         WHERE c.id = ANY (notes) AND c.table_name IN ('campaign_instances', 'campaign_enrollments');
        EXECUTE format('SELECT array_agg(o.instance_id) FROM %I.campaign_enrollments o WHERE o.id = ANY ($1)', p_old)
           INTO wanted USING chosen;
        -- Lock order, place 2: campaign_instances, ascending by id; those that the triggers count, too.
        PERFORM FROM campaign_instances i
          WHERE i.id = ANY (chosen) OR i.id = ANY (wanted)
             OR i.id IN (SELECT e.instance_id FROM campaign_enrollments e WHERE e.id = ANY (chosen))
          ORDER BY i.id FOR NO KEY UPDATE;
        FOR noted IN SELECT t.name, array_agg(DISTINCT c.row_id) AS ids
                       FROM adopted_changes c JOIN adopted_tables t ON t.name = c.table_name
                      WHERE c.id = ANY (notes) GROUP BY t.number, t.name ORDER BY t.number DESC
        LOOP
            EXECUTE format('SELECT array_agg(n) FROM unnest($1) n WHERE NOT EXISTS (SELECT FROM %I.%I o WHERE o.id = n)',
                           p_old, noted.name) INTO chosen USING noted.ids;
            PERFORM adopt_delete(noted.name, chosen) WHERE chosen IS NOT NULL;
        END LOOP;
        FOR noted IN SELECT t.name, array_agg(DISTINCT c.row_id) AS ids
                       FROM adopted_changes c JOIN adopted_tables t ON t.name = c.table_name
                      WHERE c.id = ANY (notes) GROUP BY t.number, t.name ORDER BY t.number
        LOOP
            EXECUTE adopt_insert(p_old, noted.name, 'o.id = ANY ($1)', true) USING noted.ids;
        END LOOP;
    END IF;
    amount := cardinality(notes);
    -- Lock order, place 14: adopted_changes; rows that only one adopt takes away.
    DELETE FROM adopted_changes c WHERE c.id = ANY (notes);
END $$;

-- ---- step by step -----------------------------------------------------------------------------------

-- The next of the short transactions. step: 'began', 'prepared' and 'noted' (a table), 'copied' (amount
-- rows of name), 'again' (amount rows of name that had changed); null: nothing is left but the switch.
CREATE FUNCTION adopt_step_v1(p_old text, p_scopes jsonb, OUT step text, OUT name text, OUT amount bigint)
LANGUAGE plpgsql SET search_path FROM CURRENT SET lock_timeout = '100ms' SET timezone = 'UTC' AS $$
DECLARE
    began constant timestamptz := clock_timestamp();
    target adopted_tables;
    known record;
    until_page bigint;
    extra record;
    statement text;
    stale uuid[];
    copied_now bigint;
    duplicates_now bigint := 0;
BEGIN
    IF NOT EXISTS (SELECT FROM adopted_tables) THEN
        -- Lock order, place 13: adopted_tables; only one adopt writes there.
        INSERT INTO adopted_tables (number, name, old_schema)
        SELECT k.number, k.name, p_old FROM adopt_known() k
         WHERE EXISTS (SELECT FROM adopt_columns(p_old, k.name));
        step := 'began';
        RETURN;
    END IF;

    SELECT * INTO target FROM adopted_tables t WHERE t.columns IS NULL ORDER BY t.number LIMIT 1;
    IF FOUND THEN -- columns that ours do not have are added, so that nothing the application knows is lost
        SELECT * INTO known FROM adopt_known() k WHERE k.name = target.name;
        IF target.name <> 'campaign_events' THEN
            FOR extra IN SELECT o.* FROM adopt_columns(p_old, target.name) o
                          WHERE NOT EXISTS (SELECT FROM adopt_columns(current_schema(), target.name) n WHERE n.name = o.name)
            LOOP
                EXECUTE format('ALTER TABLE %I ADD COLUMN %I %s', target.name, extra.name, extra.type);
                IF extra.default_is IS NOT NULL THEN
                    EXECUTE format('ALTER TABLE %I ALTER COLUMN %I SET DEFAULT %s', target.name, extra.name, extra.default_is);
                END IF;
            END LOOP;
        END IF;
        -- Lock order, place 13: rows locked above.
        UPDATE adopted_tables t
           SET columns = ARRAY(SELECT c.name FROM adopt_columns(p_old, target.name) c
                                WHERE c.name <> ALL (known.counted) ORDER BY c.place)
         WHERE t.number = target.number;
        step := 'prepared'; name := target.name;
        RETURN;
    END IF;

    SELECT * INTO target FROM adopted_tables t WHERE t.end_page IS NULL ORDER BY t.number LIMIT 1;
    IF FOUND THEN
        -- CREATE TRIGGER waits for everybody who has written and not ended, and keeps others from writing
        -- until this commits: each row is on a page below end_page, or is noted.
        FOR statement IN SELECT adopt_note_sql(p_old, target.name, true) LOOP
            EXECUTE statement;
        END LOOP;
        -- Lock order, place 13: rows locked above.
        UPDATE adopted_tables t
           SET end_page = pg_relation_size(format('%I.%I', p_old, target.name)::regclass)
                          / current_setting('block_size')::bigint
         WHERE t.number = target.number;
        step := 'noted'; name := target.name;
        RETURN;
    END IF;

    SELECT * INTO target FROM adopted_tables t WHERE t.next_page < t.end_page ORDER BY t.number LIMIT 1;
    IF FOUND AND NOT EXISTS (SELECT FROM adopted_tables t WHERE t.next_page > 0) THEN
        -- Copied by an adoption that was cancelled, and gone since: it would stand in the way of what came.
        FOR known IN SELECT t.name FROM adopted_tables t WHERE t.name <> 'campaign_events' ORDER BY t.number DESC LOOP
            EXECUTE format('SELECT array_agg(DISTINCT n.id) FROM adopted_changes c JOIN %I n ON n.id = c.row_id'
                           ' WHERE c.table_name = %L AND NOT EXISTS (SELECT FROM %I.%I o WHERE o.id = n.id)',
                           known.name, known.name, p_old, known.name) INTO stale;
            PERFORM adopt_delete(known.name, stale) WHERE stale IS NOT NULL;
        END LOOP;
    END IF;
    IF target.number IS NOT NULL THEN
        until_page := least(target.next_page + target.turn_pages, target.end_page);
        IF target.name = 'campaign_events' THEN
            SELECT c.captured, c.duplicates INTO copied_now, duplicates_now
              FROM adopt_capture_v1(p_old, p_scopes, target.next_page, until_page, NULL) c;
        ELSE
            EXECUTE adopt_insert(p_old, target.name,
                                 format('o.ctid >= ''(%s,0)'' AND o.ctid < ''(%s,0)''', target.next_page, until_page), false);
            GET DIAGNOSTICS copied_now = ROW_COUNT;
        END IF;
        -- Lock order, place 13: rows locked above.
        UPDATE adopted_tables t
           SET next_page = until_page, copied = t.copied + copied_now, duplicates = t.duplicates + duplicates_now,
               turn_pages = CASE WHEN clock_timestamp() - began < interval '50 ms' THEN least(t.turn_pages * 2, 128)
                                 WHEN clock_timestamp() - began > interval '100 ms' THEN greatest(t.turn_pages / 2, 1)
                                 ELSE t.turn_pages END
         WHERE t.number = target.number;
        step := 'copied'; name := target.name; amount := copied_now + duplicates_now;
        RETURN;
    END IF;

    IF (SELECT count(*) FROM (SELECT FROM adopted_changes LIMIT 101) c) > 100 THEN
        SELECT a.name, a.amount INTO name, amount FROM adopt_again_v1(p_old, p_scopes, 1000) a;
        step := 'again';
    END IF;
END $$;

-- ---- what stands under the old names afterwards -----------------------------------------------------

-- INSERT into the old name of campaign_events: captured and counted as any other event. A duplicate ends as
-- it did there (TG_ARGV[1]: was provider_event_id unique?), except that a statement with ON CONFLICT
-- passes over it, as it asked.
CREATE FUNCTION adopted_insert_event() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET timezone = 'UTC' AS $$
DECLARE
    e record;
    letters text;
BEGIN
    NEW.id := coalesce(NEW.id, gen_random_uuid());
    NEW."timestamp" := coalesce(NEW."timestamp", now());
    SELECT * INTO e FROM adopt_event(to_jsonb(NEW), TG_ARGV[0]::jsonb);
    letters := capture_v1(ARRAY['adopted'], ARRAY[e.provider], ARRAY[e.id], ARRAY[e.scope], ARRAY[e.grade],
                          ARRAY[e.type], ARRAY[e.provider_type], ARRAY[e.channel], ARRAY[e.enrollment],
                          ARRAY[e.instance], ARRAY[e.at], ARRAY[e.delivery], ARRAY[e.payload], ARRAY[NULL::bytea]);
    IF letters <> 'd' THEN
        RETURN NEW;
    END IF;
    IF TG_ARGV[1] = 'unique' AND current_query() !~* 'on\s+conflict' THEN
        RAISE EXCEPTION USING ERRCODE = 'unique_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA,
            CONSTRAINT = 'campaign_events_provider_event_id_key', COLUMN = 'provider_event_id',
            MESSAGE = 'duplicate key value violates unique constraint "campaign_events_provider_event_id_key"',
            DETAIL = format('Key (provider_event_id)=(%s) already exists.', e.id);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION adopted_refuse_event() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
        MESSAGE = 'an event is written once: it is neither updated nor deleted',
        HINT = 'oncehook retention lets go of old months, oncehook forget of a person.';
END $$;

-- UPDATE of a table with counters under its old name: only what the application changed, and no counter.
-- TG_ARGV: the counters.
CREATE FUNCTION adopted_update_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    changed text[];
BEGIN
    SELECT array_agg(quote_ident(n.key)) INTO changed
      FROM jsonb_each(to_jsonb(NEW)) n JOIN jsonb_each(to_jsonb(OLD)) o USING (key)
     WHERE n.value <> o.value AND n.key <> ALL (TG_ARGV);
    IF changed IS NOT NULL THEN
        EXECUTE format('UPDATE %1$I t SET (%2$s) = ROW(%3$s) FROM jsonb_populate_record(NULL::%1$I, $1) c WHERE t.id = $2',
                       TG_TABLE_NAME, array_to_string(changed, ', '), 'c.' || array_to_string(changed, ', c.'))
            USING to_jsonb(NEW), OLD.id;
    END IF;
    RETURN NEW;
END $$;

-- DELETE of rows that others hang on, by their old name: in the lock order, which a cascade does not keep.
CREATE FUNCTION adopted_delete_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM adopt_delete(TG_TABLE_NAME, ARRAY[OLD.id]);
    RETURN OLD;
END $$;

-- A column of the view on events. Adopted ones show what they had; of others, what they have. p_own_types: the
-- application has words of its own for types, which then cost the view the index on event_type.
CREATE FUNCTION adopt_event_column(p_name text, p_type text, p_own_types boolean) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT AS $$
    SELECT CASE
        WHEN p_name = 'event_type' AND p_own_types
            THEN 'CASE WHEN e.source = ''adopted'' THEN e.provider_event_type ELSE e.event_type END AS event_type'
        WHEN p_name IN ('instance_id', 'enrollment_id', 'event_type', 'channel', 'provider', 'timestamp')
            THEN format('e.%I', p_name)
        -- Of the ledger and not of the event, since there is the index; found there, a row names its month.
        WHEN p_name = 'provider_event_id' THEN 'k.provider_event_id'
        WHEN p_name = 'id'
            THEN 'CASE WHEN e.source = ''adopted'' THEN e.delivery_id ELSE lpad(to_hex(e.id), 32, ''0'')::uuid END AS id'
        WHEN p_name = 'payload'
            THEN format('(CASE WHEN e.source <> ''adopted'' THEN e.payload WHEN e.payload ? ''_payload'''
                        ' THEN nullif(e.payload -> ''_payload'', ''null'') ELSE e.payload - ''_adopted'' END)::%s AS payload',
                        p_type)
        ELSE format('CASE WHEN e.source = ''adopted'' THEN (jsonb_populate_record(NULL::adopted_columns,'
                    ' e.payload -> ''_adopted'')).%1$I%2$s END AS %1$I', p_name,
                    CASE WHEN p_type LIKE 'timestamp%' THEN format(' ELSE e.received_at::%s', p_type) ELSE '' END)
    END
$$;

-- The view that takes an old table's name, with its columns in their order. Asked before the renaming.
CREATE FUNCTION adopt_view_sql(p_old text, p_table text) RETURNS SETOF text
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT format('CREATE TYPE adopted_columns AS (%s)',
                  string_agg(format('%I %s', c.name, c.type), ', ' ORDER BY c.place))
      FROM adopt_columns(p_old, p_table) c WHERE p_table = 'campaign_events'
    HAVING count(*) > 0
    UNION ALL
    SELECT CASE WHEN p_table <> 'campaign_events'
                THEN format('CREATE VIEW %1$I.%2$I AS SELECT %3$s FROM %4$I.%2$I', p_old, p_table,
                            string_agg(quote_ident(c.name), ', ' ORDER BY c.place), current_schema())
                ELSE format('CREATE VIEW %1$I.%2$I AS SELECT %3$s FROM %4$I.campaign_events e LEFT JOIN %4$I.event_keys k'
                            ' ON k.provider_event_id = e.provider_event_id AND k.key_scope = e.key_scope'
                            ' AND k.received_at = e.received_at', p_old, p_table,
                            string_agg(adopt_event_column(c.name, c.type, own.types), ', ' ORDER BY c.place),
                            current_schema()) END
      FROM adopt_columns(p_old, p_table) c
     CROSS JOIN (SELECT EXISTS (SELECT FROM campaign_events e WHERE e.event_type = 'other' AND e.source = 'adopted'
                                   AND e.provider_event_type <> 'other')
                     OR EXISTS (SELECT FROM pg_attribute a JOIN pg_enum l ON l.enumtypid = a.atttypid
                                 WHERE a.attrelid = to_regclass(format('%I.campaign_events', p_old))
                                   AND a.attname = 'event_type' AND l.enumlabel <> ALL (ARRAY['sent', 'delivered',
                                       'opened', 'clicked', 'replied', 'bounced', 'unsubscribed', 'complained',
                                       'failed', 'connected', 'viewed', 'completed', 'other']))) own(types)
     GROUP BY own.types
$$;

-- The triggers of that view, asked before the renaming.
CREATE FUNCTION adopt_trigger_sql(p_old text, p_table text, p_scopes jsonb) RETURNS SETOF text
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT format('CREATE TRIGGER oncehook_insert INSTEAD OF INSERT ON %I.%I FOR EACH ROW'
                  ' EXECUTE FUNCTION %I.adopted_insert_event(%L, %L)', p_old, p_table, current_schema(), p_scopes,
                  CASE WHEN EXISTS (SELECT FROM pg_index x
                                      JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
                                     WHERE x.indrelid = to_regclass(format('%I.%I', p_old, p_table)) AND x.indisunique
                                       AND x.indnkeyatts = 1 AND a.attname = 'provider_event_id') THEN 'unique' ELSE 'any' END)
     WHERE p_table = 'campaign_events'
    UNION ALL
    SELECT format('CREATE TRIGGER oncehook_refuse INSTEAD OF UPDATE OR DELETE ON %I.%I FOR EACH ROW'
                  ' EXECUTE FUNCTION %I.adopted_refuse_event()', p_old, p_table, current_schema())
     WHERE p_table = 'campaign_events'
    UNION ALL
    SELECT format('CREATE TRIGGER oncehook_delete INSTEAD OF DELETE ON %I.%I FOR EACH ROW'
                  ' EXECUTE FUNCTION %I.adopted_delete_row()', p_old, p_table, current_schema())
     WHERE p_table IN ('campaign_templates', 'campaign_instances', 'campaign_enrollments')
    UNION ALL
    SELECT format('ALTER VIEW %I.%I ALTER COLUMN %I SET DEFAULT %s', p_old, p_table, c.name, c.default_is)
      FROM adopt_columns(p_old, p_table) c WHERE p_table = 'campaign_events' AND c.default_is IS NOT NULL
    UNION ALL
    SELECT format('CREATE TRIGGER oncehook_update INSTEAD OF UPDATE ON %I.%I FOR EACH ROW'
                  ' EXECUTE FUNCTION %I.adopted_update_row(%s)', p_old, p_table, current_schema(),
                  (SELECT string_agg(quote_literal(n), ', ') FROM unnest(k.counted) n))
      FROM adopt_known() k
     WHERE k.name = p_table AND EXISTS (SELECT FROM adopt_columns(p_old, p_table) c WHERE c.name = ANY (k.counted))
$$;

-- Who could use the old table may use the view, and what stands behind it: triggers of ours run with the
-- rights of who writes. Asked before the renaming.
CREATE FUNCTION adopt_rights_sql(p_old text, p_table text) RETURNS SETOF text
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    WITH ours AS (SELECT c.relowner FROM pg_class c WHERE c.oid = to_regclass(quote_ident(p_table))),
    rights AS (
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee, a.privilege_type
          FROM pg_class c CROSS JOIN LATERAL aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
         WHERE c.oid = to_regclass(format('%I.%I', p_old, p_table)) AND a.grantee <> (SELECT relowner FROM ours)
           AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE'))
    SELECT format('ALTER VIEW %I.%I OWNER TO %s', p_old, p_table, (SELECT relowner::regrole FROM ours))
    UNION ALL
    SELECT g.words || r.grantee FROM (SELECT DISTINCT grantee FROM rights) r
     CROSS JOIN LATERAL (VALUES (format('GRANT USAGE ON SCHEMA %I TO ', current_schema())),
                                ('GRANT EXECUTE ON FUNCTION oncehook_clear_secret(jsonb) TO ')) g(words)
    UNION ALL
    SELECT format('GRANT %s ON %I.%I%s TO %s', string_agg(r.privilege_type, ', '), p_old, p_table,
                  CASE WHEN p_table <> 'campaign_events' THEN format(', %I.%I', current_schema(), p_table) ELSE '' END,
                  r.grantee)
      FROM rights r GROUP BY r.grantee
$$;

-- The switch: nobody reads or writes the old tables while this transaction copies what is still noted,
-- renames them to …_before_oncehook and puts the views there. False: too much was noted meanwhile.
CREATE FUNCTION adopt_switch_v1(p_old text, p_scopes jsonb, OUT switched boolean)
LANGUAGE plpgsql SET search_path FROM CURRENT SET lock_timeout = '30s' SET timezone = 'UTC' AS $$
DECLARE
    target adopted_tables;
    statements text[] := '{}';
    statement text;
    until_at timestamptz;
BEGIN
    switched := false;
    -- Children first, as the foreign keys of the application's INSERTs lock. First a mode that the application
    -- does not feel, and autovacuum does: an ANALYZE of an old table would outlast any number of short
    -- tries, and does not give way to them.
    FOR target IN SELECT * FROM adopted_tables ORDER BY number DESC LOOP
        EXECUTE format('LOCK TABLE %I.%I IN SHARE UPDATE EXCLUSIVE MODE', p_old, target.name);
    END LOOP;
    FOR try IN 1..50 LOOP
        BEGIN -- the application queues behind this: 100 ms for all of them together
            until_at := clock_timestamp() + interval '100 ms';
            FOR target IN SELECT * FROM adopted_tables ORDER BY number DESC LOOP
                PERFORM set_config('lock_timeout', greatest(1, extract(epoch FROM until_at - clock_timestamp()) * 1000)::integer || 'ms', true);
                EXECUTE format('LOCK TABLE %I.%I IN ACCESS EXCLUSIVE MODE', p_old, target.name);
            END LOOP;
            EXIT;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            IF try = 50 THEN
                RAISE;
            END IF;
        END;
        PERFORM pg_sleep(0.1);
    END LOOP;
    PERFORM set_config('lock_timeout', '100ms', true);
    IF (SELECT count(*) FROM adopted_changes) > 200 THEN
        RETURN;
    END IF;
    WHILE EXISTS (SELECT FROM adopted_changes) LOOP
        PERFORM adopt_again_v1(p_old, p_scopes, 1000);
    END LOOP;
    FOR target IN SELECT * FROM adopted_tables ORDER BY number LOOP
        statements := statements || ARRAY(SELECT adopt_note_sql(p_old, target.name, false))
            || format('ALTER TABLE %I.%I RENAME TO %I', p_old, target.name, target.name || '_before_oncehook')
            || ARRAY(SELECT adopt_view_sql(p_old, target.name))
            || ARRAY(SELECT adopt_trigger_sql(p_old, target.name, p_scopes))
            || ARRAY(SELECT adopt_rights_sql(p_old, target.name));
    END LOOP;
    FOREACH statement IN ARRAY statements LOOP
        EXECUTE statement;
    END LOOP;
    -- Lock order, place 13: adopted_tables; only one adopt writes there.
    UPDATE adopted_tables t SET switched_at = clock_timestamp();
    switched := true;
END $$;

-- Ends it before the switch: nothing is noted any more. Rows that were copied stay here, and are noted as
-- changed, all of them: nobody will see what becomes of them until the next adoption of the same tables.
CREATE FUNCTION adopt_cancel_v1(p_old text) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT SET lock_timeout = '100ms' AS $$
DECLARE
    target adopted_tables;
    statement text;
    copied bigint;
BEGIN
    SELECT sum(t.copied) INTO copied FROM adopted_tables t;
    FOR target IN SELECT * FROM adopted_tables t WHERE t.name <> 'campaign_events' ORDER BY t.number LOOP
        EXECUTE format('INSERT INTO adopted_changes (table_name, row_id) SELECT %L, n.id FROM %I n JOIN %I.%I o ON o.id = n.id',
                       target.name, target.name, p_old, target.name);
    END LOOP;
    FOR target IN SELECT * FROM adopted_tables ORDER BY number LOOP
        FOR statement IN SELECT adopt_note_sql(p_old, target.name, false) LOOP
            EXECUTE statement;
        END LOOP;
    END LOOP;
    -- Lock order, place 13: adopted_tables; only one adopt writes there.
    UPDATE adopted_tables t SET columns = NULL, next_page = 0, end_page = NULL, copied = 0, duplicates = 0;
    RETURN copied;
END $$;

-- ---- looking ----------------------------------------------------------------------------------------

-- What stands in the way ('problem'), what will be otherwise ('note'), and the tables ('table').
CREATE FUNCTION adopt_look_v1(p_old text, p_scopes jsonb) RETURNS TABLE (kind text, line text)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET timezone = 'UTC' AS $$
DECLARE
    known record;
    found_class record;
    needed text;
    type_of text;
BEGIN
    IF p_old = current_schema() THEN
        RETURN QUERY VALUES ('problem', format('schema %s is oncehook''s own: adopt moves tables from another schema into it'
                                               ' (--from OLD, and database.schema or --schema for oncehook''s)', p_old));
        RETURN;
    END IF;
    FOR known IN SELECT * FROM adopt_known() k ORDER BY k.number LOOP
        SELECT c.oid, c.relkind, c.reltuples, c.relowner, c.relrowsecurity INTO found_class
          FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
         WHERE s.nspname = p_old AND c.relname = known.name;
        IF NOT FOUND THEN
            RETURN QUERY SELECT CASE WHEN known.is_needed THEN 'problem' ELSE 'note' END,
                                format('%s.%s: there is no such table', p_old, known.name);
            CONTINUE;
        ELSIF found_class.relkind <> 'r' THEN
            RETURN QUERY VALUES ('problem', format('%s.%s is no ordinary table', p_old, known.name));
            CONTINUE;
        END IF;
        RETURN QUERY SELECT 'table', format('%s.%s: %s, about %s rows; also carried over: %s', p_old, known.name,
                pg_size_pretty(pg_relation_size(found_class.oid)), greatest(found_class.reltuples, 0)::bigint,
                coalesce((SELECT string_agg(c.name, ', ' ORDER BY c.place) FROM adopt_columns(p_old, known.name) c
                           WHERE NOT EXISTS (SELECT FROM adopt_columns(current_schema(), known.name) n
                                              WHERE n.name = c.name)), 'nothing'));
        FOREACH needed IN ARRAY array_remove(ARRAY['id', known.parent_column,
                CASE known.name WHEN 'campaign_enrollments' THEN 'contact_id' WHEN 'campaign_events' THEN 'enrollment_id' END,
                CASE known.name WHEN 'campaign_events' THEN 'event_type' END,
                CASE known.name WHEN 'campaign_events' THEN 'timestamp' END], NULL) LOOP
            SELECT c.type INTO type_of FROM adopt_columns(p_old, known.name) c WHERE c.name = needed;
            IF NOT FOUND THEN
                RETURN QUERY VALUES ('problem', format('%s.%s has no column %s', p_old, known.name, needed));
            ELSIF needed NOT IN ('event_type', 'timestamp') AND type_of <> 'uuid' THEN
                RETURN QUERY VALUES ('problem', format('%s.%s.%s is %s, not uuid', p_old, known.name, needed, type_of));
            END IF;
        END LOOP;
        IF NOT pg_has_role(current_user, found_class.relowner, 'USAGE') THEN
            RETURN QUERY VALUES ('problem', format('%s.%s belongs to %s: run this as a superuser, or GRANT %3$s TO %4$s',
                                 p_old, known.name, found_class.relowner::regrole, quote_ident(current_user)));
        END IF;
        IF found_class.relrowsecurity THEN
            RETURN QUERY VALUES ('problem', format('%s.%s has row security, which a view would pass by', p_old, known.name));
        END IF;
        RETURN QUERY SELECT 'problem', format('%s.%s names rows of %s by its foreign key %I, which would go on meaning the'
                                              ' old table: drop it first', n.nspname, c.relname, known.name, f.conname)
              FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE f.contype = 'f' AND f.confrelid = found_class.oid
               AND NOT (n.nspname = p_old AND c.relname IN (SELECT a.name FROM adopt_known() a));
        RETURN QUERY SELECT DISTINCT 'problem', format('view %s reads %s.%s and would go on reading the old table: drop it,'
                                                       ' and make it again afterwards', r.ev_class::regclass, p_old, known.name)
              FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
             WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = found_class.oid AND r.ev_class <> found_class.oid;
        RETURN QUERY SELECT 'note', format('trigger %I of %s.%s stays with the old table and is asked no more',
                                           t.tgname, p_old, known.name)
              FROM pg_trigger t
             WHERE t.tgrelid = found_class.oid AND NOT t.tgisinternal AND t.tgname NOT LIKE 'oncehook\_adopt\_%';
    END LOOP;
    IF has_schema_privilege(p_old, 'CREATE') IS NOT TRUE THEN
        RETURN QUERY VALUES ('problem', format('%s may not make views in schema %s: GRANT CREATE ON SCHEMA %2$I TO %1$s',
                                               quote_ident(current_user), p_old));
    END IF;
EXCEPTION WHEN invalid_schema_name THEN
    RETURN QUERY VALUES ('problem', format('there is no schema %s', p_old));
END $$;

-- What values stand in the way; reads the tables. Asked when adopt_look_v1 has no problem.
CREATE FUNCTION adopt_look_rows_v1(p_old text, p_scopes jsonb) RETURNS TABLE (kind text, line text)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    look record;
    amount bigint;
BEGIN
    FOR look IN SELECT * FROM (VALUES
        ('email_sequences', 'step_number', 'step_number <= 0', 'a step_number that is not positive'),
        ('linkedin_sequences', 'step_number', 'step_number <= 0', 'a step_number that is not positive'),
        ('campaign_enrollments', 'contact_id', 'contact_id IS NULL', 'no contact_id'),
        ('campaign_enrollments', 'contact_id', '(instance_id, contact_id) IN (SELECT instance_id, contact_id FROM'
            ' %1$I.campaign_enrollments GROUP BY 1, 2 HAVING count(*) > 1)', 'a contact that is enrolled twice'),
        ('campaign_instances', 'provider_config', 'oncehook_clear_secret(provider_config::jsonb) IS NOT NULL',
            'a secret in clear in provider_config: store a reference in its place, {"$ref": "env:NAME"}'),
        ('campaign_events', 'channel', 'channel::text NOT IN (''email'', ''linkedin'', ''video'', ''sms'', ''phone'')',
            'a channel of their own; it will be null')) v(name, needs, condition, words)
    LOOP
        CONTINUE WHEN NOT EXISTS (SELECT FROM adopt_columns(p_old, look.name) c WHERE c.name = look.needs);
        EXECUTE format('SELECT count(*) FROM %1$I.%2$I WHERE ' || look.condition, p_old, look.name) INTO amount;
        IF amount > 0 THEN
            RETURN QUERY VALUES (CASE look.name WHEN 'campaign_events' THEN 'note' ELSE 'problem' END,
                                 format('%s.%s: %s rows have %s', p_old, look.name, amount, look.words));
        END IF;
    END LOOP;
    IF (SELECT count(*) FROM adopt_columns(p_old, 'campaign_events') c WHERE c.name IN ('provider', 'provider_event_id')) = 2 THEN
        RETURN QUERY EXECUTE format($q$
            SELECT 'note', format('%%s: %%s events, their ids in scope %%s%%s',
                       coalesce(regexp_replace(e.provider::text, '[[:cntrl:]]', '?', 'g'), 'without a provider'), count(*),
                       regexp_replace(adopt_scope(e.provider::text, $1), '[[:cntrl:]]', '?', 'g'),
                       CASE WHEN count(*) > count(nullif(e.provider_event_id, ''))
                            THEN format('; %%s have none and get one', count(*) - count(nullif(e.provider_event_id, ''))) ELSE '' END)
              FROM %I.campaign_events e GROUP BY e.provider ORDER BY count(*) DESC LIMIT 50$q$, p_old) USING p_scopes;
    END IF;
END $$;

-- The old counters against the old events: a row a counter.
CREATE FUNCTION adopt_drift_v1(p_old text)
RETURNS TABLE (counter text, counted bigint, events bigint, instances bigint)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
BEGIN
    RETURN QUERY EXECUTE format($q$
        WITH found AS (
            SELECT n.instance_id, 'total_' || v.event_type::text AS counter, count(*) AS events
              FROM %1$I.campaign_events v JOIN %1$I.campaign_enrollments n ON n.id = v.enrollment_id GROUP BY 1, 2
            UNION ALL
            SELECT n.instance_id, 'total_enrolled', count(*) FROM %1$I.campaign_enrollments n GROUP BY 1),
        said AS (
            SELECT i.id, c.key AS counter, c.value::text::bigint AS counted
              FROM %1$I.campaign_instances i CROSS JOIN LATERAL jsonb_each(to_jsonb(i)) c
             WHERE c.key = ANY ($1) AND jsonb_typeof(c.value) = 'number')
        SELECT s.counter, sum(s.counted)::bigint, sum(coalesce(f.events, 0))::bigint,
               count(*) FILTER (WHERE s.counted <> coalesce(f.events, 0))
          FROM said s LEFT JOIN found f ON f.instance_id = s.id AND f.counter = s.counter
         GROUP BY s.counter ORDER BY array_position($1, s.counter)$q$, p_old)
        USING (SELECT k.counted FROM adopt_known() k WHERE k.name = 'campaign_instances');
END $$;

REVOKE ALL ON adopted_tables, adopted_changes FROM PUBLIC;
REVOKE ALL ON FUNCTION adopt_known, adopt_columns, adopt_scope, adopt_event, adopt_capture_v1, adopt_insert, adopt_delete,
    adopt_note_change, adopt_note_sql, adopt_again_v1, adopt_step_v1, adopted_insert_event, adopted_refuse_event,
    adopted_update_row, adopted_delete_row, adopt_event_column, adopt_view_sql, adopt_trigger_sql, adopt_rights_sql,
    adopt_switch_v1, adopt_cancel_v1, adopt_look_v1, adopt_look_rows_v1, adopt_drift_v1 FROM PUBLIC;
