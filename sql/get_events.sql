-- GET /v1/events: a page of events, the latest first, by ("timestamp", id). $1 limit, $2 cursor
-- ("timestamp" in µs since 1970, or "b" and µs before it, or "z" and "a", later and earlier than any; "-"; id) or
-- null, $3 event_type, $4 source, $5 enrollment_id, $6 instance_id, $7 from and $8 to ("timestamp" in µs), each or
-- null. A page ends early when its payloads have 4 MiB.
-- Planned anew for each request, so that a parameter that is null costs nothing and each filter finds
-- its index.
WITH page AS MATERIALIZED (
    SELECT row_number() OVER latest AS place,
           sum(coalesce(octet_length(e.payload::text), 0) + coalesce(octet_length(e.payload_bytes), 0))
               OVER latest AS bytes, e.*
      FROM (SELECT e.* FROM campaign_events e
             WHERE ($2::text IS NULL OR (e."timestamp", e.id) <
                    (CASE left($2, 1) WHEN 'z' THEN timestamptz 'infinity' WHEN 'a' THEN timestamptz '-infinity' ELSE
                     timestamptz 'epoch' + replace(split_part($2, '-', 1), 'b', '-')::bigint / 1000000 * interval '1 second'
                     + replace(split_part($2, '-', 1), 'b', '-')::bigint % 1000000 * interval '1 microsecond' END,
                     split_part($2, '-', 2)::bigint))
               AND ($3::text IS NULL OR e.event_type = $3)
               AND ($4::text IS NULL OR e.source = $4)
               AND ($5::uuid IS NULL OR e.enrollment_id = $5)
               AND ($6::uuid IS NULL OR e.instance_id = $6)
               AND ($7::bigint IS NULL OR
                    e."timestamp" >= timestamptz 'epoch' + $7::bigint * interval '1 microsecond')
               AND ($8::bigint IS NULL OR
                    e."timestamp" < timestamptz 'epoch' + $8::bigint * interval '1 microsecond')
             ORDER BY e."timestamp" DESC, e.id DESC
             LIMIT $1::integer + 1) e
    WINDOW latest AS (ORDER BY e."timestamp" DESC, e.id DESC ROWS UNBOUNDED PRECEDING)),
kept AS (
    SELECT max(p.place) AS last FROM page p WHERE p.place <= $1::integer AND (p.bytes <= 4194304 OR p.place = 1))
SELECT 200 AS status,
       json_build_object(
           'data', coalesce(json_agg(json_build_object(
               'id', p.id, 'event_type', p.event_type, 'timestamp', p."timestamp",
               'received_at', p.received_at, 'source', p.source, 'provider', p.provider,
               'provider_event_id', p.provider_event_id, 'provider_event_type', p.provider_event_type,
               'channel', p.channel, 'instance_id', p.instance_id, 'enrollment_id', p.enrollment_id,
               'delivery_id', p.delivery_id, 'payload', p.payload,
               'payload_base64', translate(encode(p.payload_bytes, 'base64'), E'\n', ''))
               ORDER BY p.place) FILTER (WHERE p.place <= (SELECT last FROM kept)), '[]'),
           'next', CASE WHEN max(p.place) > (SELECT last FROM kept) THEN (
               SELECT CASE WHEN isfinite(l."timestamp")
                           THEN replace(least(extract(epoch FROM l."timestamp") * 1000000, 9223372036854775807)::bigint::text, '-', 'b')
                           WHEN l."timestamp" > now() THEN 'z' ELSE 'a' END || '-' || l.id
                 FROM page l WHERE l.place = (SELECT last FROM kept)) END)::text AS body
  FROM page p;
