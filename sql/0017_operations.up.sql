-- What an operator's hand can do to months, and what is said of it; and a walk over the ledger in smaller steps.

-- ---- months -----------------------------------------------------------------------------------------

-- The partitions that events go to, by their bounds. A partition whose DETACH … CONCURRENTLY was begun and
-- not ended takes none.
CREATE FUNCTION attached_months() RETURNS TABLE (name text, from_at timestamptz, to_at timestamptz)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT m.name, coalesce(m.b[1], '-infinity')::timestamptz, coalesce(m.b[2], 'infinity')::timestamptz
      FROM (SELECT c.relname::text AS name,
                   regexp_match(pg_get_expr(c.relpartbound, c.oid),
                                'FROM \((?:MINVALUE|''([^'']*)'')\) TO \((?:MAXVALUE|''([^'']*)'')\)') b
              FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
             WHERE h.inhparent = 'campaign_events'::regclass AND NOT h.inhdetachpending) m
$$;

-- Tables that are named like a month, and are none: neither attached nor retired by retention. Their events
-- are in the counters and nowhere else, so nobody may take them for drift; and while such a table stands in
-- its month's place, that month cannot be made. `mend`: how it comes back. Who wants it to stay out of
-- campaign_events, and its events out of the counters, renames it.
CREATE FUNCTION detached_months() RETURNS TABLE (name text, mend text)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT d.name, 'ALTER TABLE campaign_events ' ||
           CASE WHEN d.is_pending THEN format('DETACH PARTITION %I FINALIZE', d.name)
                ELSE format('ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', d.name,
                            to_char(d.month, 'YYYY-MM-DD HH24:MI:SS+00'),
                            to_char(d.month + interval '1 month', 'YYYY-MM-DD HH24:MI:SS+00')) END
      FROM (SELECT c.relname::text AS name, to_timestamp(right(c.relname, 7), 'YYYY_MM')::timestamp AS month,
                   h.inhparent IS NOT NULL AS is_pending
              FROM pg_class c LEFT JOIN pg_inherits h ON h.inhrelid = c.oid
             WHERE c.relnamespace = (SELECT e.relnamespace FROM pg_class e WHERE e.oid = 'campaign_events'::regclass)
               AND c.relkind IN ('r', 'p') AND c.relname ~ '^campaign_events_[0-9]{4}_(0[1-9]|1[0-2])$'
               AND (h.inhparent IS NULL OR h.inhparent = 'campaign_events'::regclass AND h.inhdetachpending)
               AND NOT EXISTS (SELECT FROM retired_months r WHERE r.table_name = c.relname AND r.dropped_at IS NULL)) d
     ORDER BY d.name
$$;

-- This month and p_ahead more, those that events cannot be written to.
CREATE FUNCTION missing_months(p_ahead integer) RETURNS TABLE (name text, from_at timestamptz, to_at timestamptz)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT 'campaign_events_' || to_char(w.month, 'YYYY_MM'), w.month AT TIME ZONE 'UTC',
           (w.month + interval '1 month') AT TIME ZONE 'UTC'
      FROM (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + n * interval '1 month' AS month
              FROM generate_series(0, p_ahead) n) w
     WHERE NOT EXISTS (SELECT FROM attached_months() m
                        WHERE m.from_at <= w.month AT TIME ZONE 'UTC'
                          AND m.to_at >= (w.month + interval '1 month') AT TIME ZONE 'UTC')
     ORDER BY w.month
$$;

-- As before, but for three things: where all are there, it takes no lock; what is there is told by its bounds;
-- and a detached table in the place of a month to come keeps no other from being made, while one in the place
-- of this month is an error that says how to bring it back.
-- lint: allow replaces-function because its arguments and what it returns are the same for both releases
CREATE OR REPLACE FUNCTION oncehook_make_months(p_ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '2s' AS $$
DECLARE
    missing record;
    way_back text;
    made integer := 0;
BEGIN
    IF p_ahead IS NULL OR p_ahead NOT BETWEEN 0 AND 120 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('p_ahead is %s, not 0 to 120', coalesce(p_ahead::text, 'null'));
    END IF;
    IF NOT EXISTS (SELECT FROM missing_months(p_ahead)) THEN
        RETURN 0;
    END IF;
    -- One maker at a time, before any table is touched; what it waits for counts against lock_timeout.
    PERFORM pg_advisory_xact_lock('campaign_events'::regclass::oid::bigint);
    FOR missing IN SELECT * FROM missing_months(p_ahead) LOOP
        SELECT d.mend INTO way_back FROM detached_months() d WHERE d.name = missing.name;
        IF FOUND AND missing.from_at <= now() THEN
            RAISE EXCEPTION USING ERRCODE = 'duplicate_table', -- the gateway shows 255 bytes
                MESSAGE = format('%I is detached and stands in the way of its month: %s', missing.name, way_back);
        END IF;
        CONTINUE WHEN FOUND;
        EXECUTE format('CREATE TABLE %I (LIKE campaign_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', missing.name);
        -- Bounds with +00: without it they follow the session's time zone. Indexes come with ATTACH.
        EXECUTE format('ALTER TABLE campaign_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', missing.name,
                       to_char(missing.from_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS+00'),
                       to_char(missing.to_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS+00'));
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;

-- ---- keys -------------------------------------------------------------------------------------------

-- As before, in steps of 10 ms and not of 50: a capture's commit waits until what a step wrote before it is on
-- the disk, whole pages after a checkpoint. Whoever calls it pauses three times as long as the step and its
-- commit took, so it leaves more room where the disk is slow.
-- lint: allow replaces-function because its arguments and what it returns are the same for both releases
CREATE OR REPLACE FUNCTION retire_keys_v1(p_days integer, p_since timestamptz, OUT keys bigint, OUT page bigint, OUT end_page bigint)
LANGUAGE plpgsql SET search_path FROM CURRENT SET lock_timeout = '100ms' AS $$
DECLARE
    pages_a_turn constant integer := 16;
    until_at timestamptz;
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
    until_at := clock_timestamp() + interval '10 milliseconds';
    WHILE page < end_page LOOP -- once at least, however slow the machine is
        from_tid := format('(%s,0)', page);
        page := least(page + pages_a_turn, end_page);
        to_tid := format('(%s,0)', page);
        -- Lock order, place 4: event_keys, in the order of the pages and not of the keys. It may: nobody
        -- else locks a key that is there (captures insert, and insert only what is not there), so this
        -- waits for nobody, and lock_timeout ends it if somebody by hand does.
        DELETE FROM event_keys k WHERE k.ctid >= from_tid AND k.ctid < to_tid AND k.received_at < before_at;
        GET DIAGNOSTICS gone = ROW_COUNT;
        keys := keys + gone;
        EXIT WHEN clock_timestamp() >= until_at;
    END LOOP;
    -- Lock order, place 11: key_walk, its one row.
    INSERT INTO key_walk AS w (days, started_at, next_page, end_page, keys, ended_at)
    VALUES (p_days, walk.started_at, retire_keys_v1.page, walk.end_page, walk.keys + retire_keys_v1.keys,
            CASE WHEN retire_keys_v1.page >= walk.end_page THEN clock_timestamp() END)
    ON CONFLICT (is_one) DO UPDATE
       SET days = excluded.days, started_at = excluded.started_at, next_page = excluded.next_page,
           end_page = excluded.end_page, keys = excluded.keys, ended_at = excluded.ended_at;
END $$;

REVOKE ALL ON FUNCTION attached_months, detached_months, missing_months FROM PUBLIC;
GRANT EXECUTE ON FUNCTION attached_months, detached_months, missing_months TO oncehook_gateway;
