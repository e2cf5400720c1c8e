CREATE OR REPLACE FUNCTION oncehook_make_months(p_ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '2s' AS $$
DECLARE
    first_month constant timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    month timestamp;
    month_table text;
    made integer := 0;
BEGIN
    IF p_ahead IS NULL OR p_ahead NOT BETWEEN 0 AND 120 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('p_ahead is %s, not 0 to 120', coalesce(p_ahead::text, 'null'));
    END IF;
    -- One maker at a time, before any table is touched; what it waits for counts against lock_timeout.
    PERFORM pg_advisory_xact_lock('campaign_events'::regclass::oid::bigint);
    FOR ahead IN 0..p_ahead LOOP
        month := first_month + ahead * interval '1 month';
        month_table := 'campaign_events_' || to_char(month, 'YYYY_MM');
        CONTINUE WHEN EXISTS (SELECT FROM pg_inherits h
                                JOIN pg_class c ON c.oid = h.inhrelid
                               WHERE h.inhparent = 'campaign_events'::regclass AND c.relname = month_table);
        EXECUTE format('CREATE TABLE %I (LIKE campaign_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                       month_table);
        -- Bounds with +00: without it they follow the session's time zone. Indexes come with ATTACH.
        EXECUTE format('ALTER TABLE campaign_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       month_table,
                       to_char(month, 'YYYY-MM-DD HH24:MI:SS+00'),
                       to_char(month + interval '1 month', 'YYYY-MM-DD HH24:MI:SS+00'));
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;

CREATE OR REPLACE FUNCTION retire_keys_v1(p_days integer, p_since timestamptz, OUT keys bigint, OUT page bigint, OUT end_page bigint)
LANGUAGE plpgsql SET search_path FROM CURRENT SET lock_timeout = '100ms' AS $$
DECLARE
    pages_a_turn constant integer := 32;
    until_at constant timestamptz := clock_timestamp() + interval '50 milliseconds';
    before_at constant timestamptz := keys_before(p_days, NULL);
    walk key_walk;
    from_tid tid;
    to_tid tid;
    gone bigint;
BEGIN
    PERFORM check_retention_days(p_days, 3650);
    SELECT w.* INTO walk FROM key_walk w;
    IF walk.ended_at >= p_since THEN
        RETURN;
    END IF;
    keys := 0;
    page := key_position(p_days);
    IF page = 0 THEN
        walk := (true, p_days, now(), 0, pg_relation_size('event_keys') / current_setting('block_size')::bigint, 0, NULL);
    END IF;
    end_page := walk.end_page;
    WHILE page < end_page AND clock_timestamp() < until_at LOOP
        from_tid := format('(%s,0)', page);
        page := least(page + pages_a_turn, end_page);
        to_tid := format('(%s,0)', page);
        -- Lock order, place 4: event_keys, in the order of the pages and not of the keys. It may: nobody
        -- else locks a key that is there (captures insert, and insert only what is not there), so this
        -- waits for nobody, and lock_timeout ends it if somebody by hand does.
        DELETE FROM event_keys k WHERE k.ctid >= from_tid AND k.ctid < to_tid AND k.received_at < before_at;
        GET DIAGNOSTICS gone = ROW_COUNT;
        keys := keys + gone;
    END LOOP;
    -- Lock order, place 11: key_walk, its one row.
    INSERT INTO key_walk AS w (days, started_at, next_page, end_page, keys, ended_at)
    VALUES (p_days, walk.started_at, retire_keys_v1.page, walk.end_page, walk.keys + retire_keys_v1.keys,
            CASE WHEN retire_keys_v1.page >= walk.end_page THEN clock_timestamp() END)
    ON CONFLICT (is_one) DO UPDATE
       SET days = excluded.days, started_at = excluded.started_at, next_page = excluded.next_page,
           end_page = excluded.end_page, keys = excluded.keys, ended_at = excluded.ended_at;
END $$;

DROP FUNCTION missing_months, detached_months, attached_months;
