-- `doctor`: sources that have been silent for longer than they ever are: more than half as much again as
-- their third longest pause of the last 28 days (so that nights and weekends are usual, and two outages
-- are not), and more than an hour. 1 = exactly that. $1: the configured sources, null = all. A source
-- with fewer than 20 events has no habits. Large months are sampled, 4,000 pages in all; the newest 20,000
-- events are read in any case.
WITH pages AS (
    SELECT greatest(1, sum(pg_relation_size(h.inhrelid)) / current_setting('block_size')::int)::float8 AS n
      FROM pg_inherits h WHERE h.inhparent = 'campaign_events'::regclass),
recent AS (
    SELECT n.source, max(n.received_at) AS at
      FROM (SELECT source, received_at FROM campaign_events ORDER BY received_at DESC LIMIT 20000) n GROUP BY 1),
sampled AS (
    SELECT v.source, v.received_at, v.received_at - lag(v.received_at) OVER (PARTITION BY v.source
                                                                              ORDER BY v.received_at) AS pause
      FROM campaign_events v TABLESAMPLE SYSTEM (least(100, 400000 / (SELECT n FROM pages)))
     WHERE v.received_at > now() - interval '28 days'),
habit AS (
    SELECT s.source, count(*) AS events, greatest(max(s.received_at), max(r.at)) AS last,
           greatest(interval '1 hour', 1.5 * (array_agg(s.pause ORDER BY s.pause DESC NULLS LAST))[3]) AS allowed
      FROM sampled s LEFT JOIN recent r ON r.source = s.source
     WHERE $1 IS NULL OR s.source = ANY ($1)
     GROUP BY 1 HAVING count(*) >= 20)
SELECT greatest(0, extract(epoch FROM now() - h.last))::float8 / extract(epoch FROM h.allowed)::float8, h.source::text,
       format('last event %s h ago; more than %s h is unusual for it',
              round((greatest(0, extract(epoch FROM now() - h.last)) / 3600)::numeric, 1),
              round((extract(epoch FROM h.allowed) / 3600)::numeric, 1))
  FROM habit h
UNION ALL
SELECT 0, NULL, 'no source has had 20 events in 28 days' WHERE NOT EXISTS (SELECT FROM habit)
 ORDER BY 1 DESC, 2 LIMIT 5
