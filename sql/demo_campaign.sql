-- The campaign of `oncehook dev --demo`. Ids are fixed, so that the next demo finds the same campaign
-- and its counters go on: running this again changes nothing. Lock order: templates, instances,
-- enrollments, each ascending by id.
INSERT INTO campaign_templates (id, name)
VALUES ('de300000-0000-4000-8000-000000000000', 'oncehook demo')
ON CONFLICT (id) DO NOTHING;

INSERT INTO campaign_instances (id, template_id, name, status)
VALUES ('de310000-0000-4000-8000-000000000000', 'de300000-0000-4000-8000-000000000000', 'Spring', 'active'),
       ('de310000-0000-4000-8000-000000000001', 'de300000-0000-4000-8000-000000000000', 'Summer', 'active'),
       ('de310000-0000-4000-8000-000000000002', 'de300000-0000-4000-8000-000000000000', 'Autumn', 'active')
ON CONFLICT (id) DO NOTHING;

INSERT INTO campaign_enrollments (id, instance_id, contact_id)
SELECT ('de320000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
       ('de310000-0000-4000-8000-' || lpad(to_hex(n % 3), 12, '0'))::uuid,
       ('de330000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid
  FROM generate_series(0, 999) n
 ORDER BY 1
ON CONFLICT DO NOTHING;
