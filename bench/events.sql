-- Fills a migrated database with campaigns, contacts and events of the last 90 days, for bench/reads and
-- the tests of plans. As the schema's owner; SET oncehook.events = '1000000' before. Events have no keys in
-- the ledger and are not counted: this is for reading alone. A batch is ten events of one transaction.
SET synchronous_commit = off;

-- Transaction numbers that have passed, to give to the events.
CREATE TABLE burnt (first xid8);
INSERT INTO burnt SELECT pg_current_xact_id();
DO $$
BEGIN
    FOR i IN 1..current_setting('oncehook.events')::integer / 10 + 2 LOOP
        PERFORM pg_current_xact_id();
        COMMIT;
    END LOOP;
END $$;

DO $$
DECLARE
    month timestamp;
BEGIN
    FOR k IN 1..4 LOOP
        month := date_trunc('month', now() AT TIME ZONE 'UTC') - k * interval '1 month';
        EXECUTE format('CREATE TABLE %I (LIKE campaign_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                       'campaign_events_' || to_char(month, 'YYYY_MM'));
        EXECUTE format('ALTER TABLE campaign_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       'campaign_events_' || to_char(month, 'YYYY_MM'), month || '+00',
                       month + interval '1 month' || '+00');
    END LOOP;
END $$;

INSERT INTO campaign_templates (name, created_at)
SELECT 'template ' || n, now() - n * interval '1 hour' FROM generate_series(1, 200) n;
INSERT INTO email_sequences (template_id, step_number, subject)
SELECT t.id, n, 'mail ' || n FROM campaign_templates t, generate_series(1, 5) n;
INSERT INTO linkedin_sequences (template_id, step_number, type)
SELECT t.id, n, 'message' FROM campaign_templates t, generate_series(1, 3) n;
INSERT INTO campaign_instances (id, template_id, name, status)
SELECT md5('instance ' || n)::uuid, t.id, t.name, 'active'
  FROM (SELECT t.*, row_number() OVER () AS n FROM campaign_templates t) t;

-- An event's types come in the proportions of a mailing; of its instances, the first has a quarter.
INSERT INTO campaign_events (id, received_at, "timestamp", tx, delivery_id, instance_id, enrollment_id, source,
                             provider, provider_event_id, key_scope, event_type, provider_event_type, channel,
                             payload)
SELECT n, at, at - interval '2 seconds', (b.first::text::bigint + n / 10)::text::xid8, gen_random_uuid(),
       md5('instance ' || CASE WHEN n % 4 = 0 THEN 1 ELSE 1 + n % 200 END)::uuid,
       md5('enrollment ' || n % 50000)::uuid,
       (ARRAY['sendgrid', 'stripe', 'github', 'hmac'])[1 + n % 4], 'hmac', 'evt_' || n, 'source:bench',
       (ARRAY['sent', 'sent', 'sent', 'sent', 'delivered', 'delivered', 'delivered', 'delivered', 'opened',
              'opened', 'clicked', 'bounced'])[1 + n % 12],
       'message', 'email',
       jsonb_build_object('id', 'evt_' || n, 'type', 'message', 'enrollment_id', md5('enrollment ' || n % 50000),
                          'email', 'somebody' || n % 50000 || '@example.com', 'agent', repeat('Mozilla ', 30))
  FROM burnt b,
       (SELECT n, now() - interval '90 days' + n * (interval '90 days' / s.events) AS at
          FROM (SELECT current_setting('oncehook.events')::integer AS events) s,
               generate_series(1, s.events) n) e;
SELECT setval('campaign_events_id_seq', current_setting('oncehook.events')::integer);

-- Contacts come in imports of 1,000, each of one moment; a few are typed in.
INSERT INTO imported_contacts (email, first_name, company, company_domain, source, data, imported_at)
SELECT 'somebody' || n || '@example.com', 'Somebody', 'Company', 'company' || n % (c.contacts / 10) || '.example',
       CASE WHEN n % 500 = 0 THEN 'manual' ELSE (ARRAY['csv', 'hubspot', 'lemlist'])[1 + n / 1000 % 3] END, jsonb_build_object('note', repeat('text ', 60)),
       now() - (c.contacts - n) / 1000 * interval '1 minute'
  FROM (SELECT current_setting('oncehook.events')::integer / 10 AS contacts) c, generate_series(1, c.contacts) n;

DROP TABLE burnt;
RESET synchronous_commit;
VACUUM ANALYZE campaign_events, campaign_templates, email_sequences, linkedin_sequences, campaign_instances,
    imported_contacts;
