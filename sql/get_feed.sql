-- GET /v1/events/after/{cursor}: the feed, in the order of (tx, id): by transaction, not by time. Only
-- transactions below xmin are given out: all of those have ended, and whatever begins later gets a higher
-- number. So nothing appears behind a cursor, and what is still in flight waits in front of it.
-- $1 position: "first", "now", "@" and a time in µs, or a cursor: the cluster, and tx, id and received_at
-- (µs) of the last event given out. $2 limit, $3 source or null, $4 event_type or null. The limit counts
-- the events that are looked at, so a page costs no more whatever the filter leaves of it; it ends early
-- when the payloads that it gives out have 4 MiB.
WITH here AS MATERIALIZED (
    SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xmin, pg_snapshot_xmax(pg_current_snapshot()) AS xmax,
           (SELECT c.system_identifier & 4294967295 FROM pg_control_system() c) AS system),
given AS MATERIALIZED (
    SELECT part[1]::bigint AS system, part[2]::xid8 AS tx, part[3]::bigint AS id,
           timestamptz 'epoch' + part[4]::bigint * interval '1 microsecond' AS received_at
      FROM regexp_matches($1::text, '^(\d+)-(\d+)-(\d+)-(\d+)$') part),
-- A time: behind the last event that came ten minutes before it. A transaction that began later than
-- the time has a higher number than that event's, unless that one ran for ten minutes.
position AS MATERIALIZED (
    SELECT p.*
      FROM (SELECT g.tx, g.id, g.received_at, 1 AS choice FROM given g
            UNION ALL
            (SELECT e.tx, e.id, e.received_at, 2 FROM campaign_events e
              WHERE $1::text = 'now' AND e.tx < (SELECT xmin FROM here)
              ORDER BY e.tx DESC, e.id DESC LIMIT 1)
            UNION ALL
            (SELECT e.tx, e.id, e.received_at, 3 FROM campaign_events e
              WHERE e.received_at < CASE WHEN $1::text LIKE '@%' THEN timestamptz 'epoch' - interval '10 minutes'
                                         + substr($1::text, 2)::bigint * interval '1 microsecond' END
              ORDER BY e.received_at DESC, e.id DESC LIMIT 1)
            UNION ALL
            SELECT '0'::xid8, 0, timestamptz 'epoch', 4) p
     ORDER BY p.choice LIMIT 1),
-- Why the feed cannot go on from here, if it cannot: the cursor is of another history, or an event is.
problem AS MATERIALIZED (
    SELECT CASE
        WHEN EXISTS (SELECT FROM campaign_events e WHERE e.tx >= (SELECT xmax FROM here))
        THEN 'beyond'
        WHEN NOT EXISTS (SELECT FROM given g WHERE g.tx <> '0'::xid8)
        THEN NULL
        WHEN EXISTS (SELECT FROM given g JOIN campaign_events e
                         ON e.received_at = g.received_at AND e.id = g.id AND e.tx = g.tx
                      WHERE g.system = (SELECT system FROM here))
        THEN NULL
        ELSE 'gone' END AS what),
page AS MATERIALIZED (
    SELECT row_number() OVER feed AS place,
           sum(CASE WHEN e.is_wanted THEN coalesce(octet_length(e.payload::text), 0) +
                                          coalesce(octet_length(e.payload_bytes), 0) ELSE 0 END) OVER feed AS bytes,
           (SELECT system FROM here) || '-' || e.tx || '-' || e.id || '-' ||
               (extract(epoch FROM e.received_at) * 1000000)::bigint AS cursor, e.*
      FROM (SELECT e.*, ($3::text IS NULL OR e.source = $3) AND ($4::text IS NULL OR e.event_type = $4) AS is_wanted
              FROM campaign_events e
             WHERE (e.tx, e.id) > ((SELECT tx FROM position), (SELECT id FROM position))
               AND e.tx < (SELECT xmin FROM here)
               AND (SELECT what FROM problem) IS NULL
             ORDER BY e.tx, e.id
             LIMIT $2::integer) e
    WINDOW feed AS (ORDER BY e.tx, e.id ROWS UNBOUNDED PRECEDING)),
kept AS MATERIALIZED (
    SELECT * FROM page p WHERE p.bytes <= 4194304 OR p.place = 1)
SELECT CASE WHEN b.what = 'beyond' THEN 409
            WHEN b.what = 'gone' THEN 410
            WHEN EXISTS (SELECT FROM kept) THEN 200
            ELSE 204 END AS status,
       CASE b.what
           WHEN 'beyond' THEN
               'There are events whose transaction this PostgreSQL cluster has not reached: they come from a dump.'
               ' Raise its counter above ' || (SELECT e.tx FROM campaign_events e ORDER BY e.tx DESC LIMIT 1) ||
               ' with pg_resetwal --epoch; see docs/api.md.'
           WHEN 'gone' THEN
               'This cursor''s event is not there any more: its month was retired, or the database was set back.'
               ' Go on with "' || CASE WHEN (SELECT received_at FROM position) >
                                            (SELECT min(e.received_at) FROM campaign_events e)
                   THEN to_char((SELECT received_at FROM position), 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
                   ELSE 'first' END || '"; some events may come again, and some may never have come.'
           ELSE coalesce((SELECT string_agg(json_build_object(
                   'cursor', k.cursor, 'id', k.id, 'event_type', k.event_type, 'timestamp', k."timestamp",
                   'received_at', k.received_at, 'source', k.source, 'provider', k.provider,
                   'provider_event_id', k.provider_event_id, 'provider_event_type', k.provider_event_type,
                   'channel', k.channel, 'instance_id', k.instance_id, 'enrollment_id', k.enrollment_id,
                   'delivery_id', k.delivery_id, 'payload', k.payload,
                   'payload_base64', translate(encode(k.payload_bytes, 'base64'), E'\n', ''))::text || E'\n', ''
                   ORDER BY k.place)
                FROM kept k WHERE k.is_wanted), '')
       END AS body,
       coalesce((SELECT k.cursor FROM kept k ORDER BY k.place DESC LIMIT 1),
                (SELECT (SELECT system FROM here) || '-' || p.tx || '-' || p.id || '-' ||
                        (extract(epoch FROM p.received_at) * 1000000)::bigint FROM position p)) AS cursor
  FROM problem b;
