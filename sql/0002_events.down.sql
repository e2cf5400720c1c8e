DROP FUNCTION oncehook_make_months(integer);
DROP TABLE quarantined_deliveries;
DROP TABLE campaign_events;
DROP TABLE event_keys;
