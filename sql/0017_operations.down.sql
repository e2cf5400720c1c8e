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

DROP FUNCTION missing_months, detached_months, attached_months;
