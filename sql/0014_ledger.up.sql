-- Keys leave the ledger when they are older than its policy. A walk over the pages of event_keys, a few at a
-- time, as they lie on the disk: no index on received_at (every capture would pay for it), no sort, no long
-- transaction. See docs/retention.md and docs/adr/0011-ledger-keys.md.

-- The walk: one row. Who stops it loses nothing: the next one goes on from next_page.
CREATE TABLE key_walk (
    is_one     boolean     PRIMARY KEY DEFAULT true CONSTRAINT key_walk_is_one_check CHECK (is_one),
    days       integer     NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT now(),
    next_page  bigint      NOT NULL DEFAULT 0,
    end_page   bigint      NOT NULL DEFAULT 0, -- the table's pages when it began: what is behind them is young
    keys       bigint      NOT NULL DEFAULT 0, -- that it deleted
    ended_at   timestamptz
);

-- What leaves is a small part of the table: vacuum makes its room usable again at 2 %, not at 20 %.
ALTER TABLE event_keys SET (autovacuum_vacuum_scale_factor = 0.02);

-- Keys received before this may leave: older than p_days, **and** than every month of events that is still
-- there, in campaign_events or retired. A key and its event share received_at, so no key leaves before its
-- event: else audit would miss it, and a retry would stand beside it. With p_event_days: as it will be when
-- the months that are that old have gone.
CREATE FUNCTION keys_before(p_days integer, p_event_days integer) RETURNS timestamptz
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT least(now() - p_days * interval '1 day',
                 (SELECT min(m.b[1]::timestamptz)
                    FROM (SELECT c.relname, regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([^'']+)''\)') b
                            FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
                           WHERE h.inhparent = 'campaign_events'::regclass) m
                   WHERE p_event_days IS NULL
                      OR m.relname NOT IN (SELECT o.table_name FROM old_months(p_event_days) o)),
                 (SELECT min(r.from_at) FROM retired_months r
                   WHERE r.dropped_at IS NULL
                     AND (p_event_days IS NULL OR r.wants_archive AND r.archived_at IS NULL)))
$$;

-- The page from which the next walk goes on: 0, unless one of the same age was stopped within a day.
CREATE FUNCTION key_position(p_days integer) RETURNS bigint
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT coalesce((SELECT w.next_page FROM key_walk w
                      WHERE w.ended_at IS NULL AND w.days = p_days AND w.started_at > now() - interval '1 day'), 0)
$$;

-- retire_keys_v1: deletes old keys for about 50 ms; how many, or null: the walk has ended since p_since. A
-- capture of one of these very keys waits for the end of this, and then captures the event anew.
CREATE FUNCTION retire_keys_v1(p_days integer, p_since timestamptz, OUT keys bigint, OUT page bigint, OUT end_page bigint)
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

-- retention_step_v2: as retention_step_v1, and when that has nothing left, the ledger.
CREATE FUNCTION retention_step_v2(
    p_completed_days integer,
    p_failed_days    integer,
    p_cache          boolean,
    p_event_days     integer,
    p_archive        boolean,
    p_key_days       integer,     -- null: not the ledger
    p_since          timestamptz, -- when the run began: a walk that ended since then is its own
    OUT step text,                -- as retention_step_v1, and 'forgotten' (keys)
    OUT name text,
    OUT amount bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    walked record;
BEGIN
    SELECT s.step, s.name, s.amount INTO step, name, amount
      FROM retention_step_v1(p_completed_days, p_failed_days, p_cache, p_event_days, p_archive) s;
    IF step IS NULL AND p_key_days IS NOT NULL THEN
        SELECT * INTO walked FROM retire_keys_v1(p_key_days, p_since);
        IF walked.keys IS NOT NULL THEN
            step := 'forgotten';
            name := format('event_keys, %s %%', 100 * walked.page / greatest(walked.end_page, 1));
            amount := walked.keys;
        END IF;
    END IF;
END $$;

REVOKE ALL ON key_walk FROM PUBLIC;
REVOKE ALL ON FUNCTION keys_before, key_position, retire_keys_v1, retention_step_v2 FROM PUBLIC;
GRANT SELECT ON key_walk TO oncehook_gateway;
GRANT EXECUTE ON FUNCTION retention_step_v2 TO oncehook_gateway;
