-- `doctor` and the gateway's upkeep: tables that are named like a month of campaign_events and are none. One
-- stands in its month's way, and its events are in the counters and not in campaign_events.
SELECT 1::float8, d.name, 'is detached; back with: ' || d.mend FROM detached_months() d
UNION ALL
SELECT 0, NULL, 'every month is attached, or was retired' WHERE NOT EXISTS (SELECT FROM detached_months())
 ORDER BY 1 DESC, 2
