-- The tables of the report, as its application makes them (Sequelize): the columns that the report names,
-- and beside them what such an application has and the report does not name. Loaded into a schema that is
-- set as search_path. Its counters drift as the report's endpoint makes them: event and counter are no
-- one transaction.
CREATE TYPE enum_campaign_events_event_type AS ENUM (
    'sent', 'delivered', 'opened', 'clicked', 'replied', 'bounced', 'unsubscribed', 'connection_accepted');

CREATE TABLE campaign_templates (
    id uuid PRIMARY KEY,
    name varchar(255) NOT NULL,
    description text,
    type varchar(50) NOT NULL,
    path_type varchar(50) NOT NULL,
    icp_profile_id uuid,
    settings jsonb DEFAULT '{}',
    tags varchar(64)[] NOT NULL DEFAULT '{}',
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE email_sequences (
    id uuid PRIMARY KEY,
    template_id uuid NOT NULL REFERENCES campaign_templates (id) ON DELETE CASCADE ON UPDATE CASCADE,
    step_number integer NOT NULL,
    subject varchar(500),
    body text,
    delay_hours integer DEFAULT 0,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE linkedin_sequences (
    id uuid PRIMARY KEY,
    template_id uuid NOT NULL REFERENCES campaign_templates (id) ON DELETE CASCADE ON UPDATE CASCADE,
    step_number integer NOT NULL,
    type varchar(50),
    message text,
    delay_hours integer DEFAULT 0,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE campaign_instances (
    id uuid PRIMARY KEY,
    template_id uuid NOT NULL REFERENCES campaign_templates (id) ON DELETE CASCADE ON UPDATE CASCADE,
    name varchar(255) NOT NULL,
    status varchar(50) NOT NULL DEFAULT 'draft',
    provider_config jsonb DEFAULT '{}',
    total_enrolled integer NOT NULL DEFAULT 0,
    total_sent integer NOT NULL DEFAULT 0,
    total_delivered integer NOT NULL DEFAULT 0,
    total_opened integer NOT NULL DEFAULT 0,
    total_clicked integer NOT NULL DEFAULT 0,
    total_replied integer NOT NULL DEFAULT 0,
    total_bounced integer DEFAULT 0,
    total_unsubscribed integer DEFAULT 0,
    total_completed integer DEFAULT 0,
    started_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE campaign_enrollments (
    id uuid PRIMARY KEY,
    instance_id uuid NOT NULL REFERENCES campaign_instances (id) ON DELETE CASCADE ON UPDATE CASCADE,
    contact_id uuid NOT NULL,
    status varchar(50) NOT NULL DEFAULT 'active',
    current_step integer NOT NULL DEFAULT 0,
    next_action_at timestamptz,
    completed_at timestamptz,
    metadata jsonb DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (instance_id, contact_id)
);
CREATE TABLE campaign_events (
    id uuid PRIMARY KEY,
    enrollment_id uuid REFERENCES campaign_enrollments (id) ON DELETE CASCADE ON UPDATE CASCADE,
    instance_id uuid,
    event_type enum_campaign_events_event_type NOT NULL,
    channel varchar(20) NOT NULL
        CONSTRAINT campaign_events_channel_check CHECK (channel IN ('email', 'linkedin', 'video', 'sms', 'phone')),
    provider varchar(50),
    provider_event_id varchar(255),
    step_number integer,
    "timestamp" timestamptz NOT NULL DEFAULT now(),
    metadata jsonb DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX idx_campaign_events_provider_event_id ON campaign_events (provider_event_id);
CREATE INDEX idx_campaign_events_enrollment ON campaign_events (enrollment_id);
CREATE INDEX idx_campaign_events_instance ON campaign_events (instance_id);
CREATE INDEX idx_campaign_events_type ON campaign_events (event_type);
CREATE INDEX idx_campaign_events_channel ON campaign_events (channel);
CREATE INDEX idx_campaign_events_timestamp ON campaign_events ("timestamp");
CREATE TABLE workflow_states (
    id uuid PRIMARY KEY,
    workflow_name varchar(255) NOT NULL,
    status varchar(50) NOT NULL,
    context jsonb,
    current_step varchar(255),
    error text,
    started_at timestamptz,
    completed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Rows: report_fill(instances, enrollments of each, events of each enrollment). Ids are md5 of their place.
CREATE FUNCTION report_id(kind text, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
    $$ SELECT md5(kind || n)::uuid $$;
CREATE FUNCTION report_fill(instances integer, enrollments integer, events integer) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO campaign_templates (id, name, description, type, path_type, tags)
    SELECT report_id('t', n), 'template ' || n, 'of the fixture', 'email', 'structured', ARRAY['a', 'b,c']
      FROM generate_series(1, 3) n;
    INSERT INTO email_sequences (id, template_id, step_number, subject, body, delay_hours)
    SELECT report_id('s', n), report_id('t', n % 3 + 1), n, 'subject', 'body', 24 FROM generate_series(1, 9) n;
    INSERT INTO linkedin_sequences (id, template_id, step_number, type, message)
    SELECT report_id('l', n), report_id('t', n % 3 + 1), n, 'connect', 'hello' FROM generate_series(1, 6) n;
    INSERT INTO campaign_instances (id, template_id, name, status, provider_config, started_at)
    SELECT report_id('i', n), report_id('t', n % 3 + 1), 'instance ' || n, 'active',
           '{"email_provider": "lemlist", "settings": {"daily_limit": 50}}', now()
      FROM generate_series(1, instances) n;
    INSERT INTO campaign_enrollments (id, instance_id, contact_id, metadata)
    SELECT report_id('n', n), report_id('i', n % instances + 1), report_id('c', n), '{"from": "import"}'
      FROM generate_series(1, instances::bigint * enrollments) n;
    INSERT INTO campaign_events (id, enrollment_id, instance_id, event_type, channel, provider, provider_event_id,
                                 step_number, "timestamp", metadata, created_at)
    SELECT report_id('e', v), report_id('n', v % (instances::bigint * enrollments) + 1),
           report_id('i', (v % (instances::bigint * enrollments) + 1) % instances + 1),
           (enum_range(NULL::enum_campaign_events_event_type))[v % 8 + 1], 'email',
           CASE v % 2 WHEN 0 THEN 'lemlist' ELSE 'SendGrid' END,
           CASE WHEN v % 50 = 0 THEN NULL ELSE 'evt_' || v END, v % 4,
           now() - v % 400 * interval '6 hours', jsonb_build_object('n', v, 'ip', '198.51.100.7'), now()
      FROM generate_series(1, instances::bigint * enrollments * events) v;
    UPDATE campaign_instances i
       SET total_enrolled = (SELECT count(*) FROM campaign_enrollments e WHERE e.instance_id = i.id),
           total_sent = c.sent, total_delivered = c.delivered, total_opened = c.opened + 3, -- counted twice
           total_clicked = c.clicked, total_replied = c.replied, total_bounced = c.bounced - 1, -- and once lost
           total_unsubscribed = c.unsubscribed
      FROM (SELECT instance_id, count(*) FILTER (WHERE event_type = 'sent') AS sent,
                   count(*) FILTER (WHERE event_type = 'delivered') AS delivered,
                   count(*) FILTER (WHERE event_type = 'opened') AS opened,
                   count(*) FILTER (WHERE event_type = 'clicked') AS clicked,
                   count(*) FILTER (WHERE event_type = 'replied') AS replied,
                   count(*) FILTER (WHERE event_type = 'bounced') AS bounced,
                   count(*) FILTER (WHERE event_type = 'unsubscribed') AS unsubscribed
              FROM campaign_events GROUP BY instance_id) c
     WHERE c.instance_id = i.id;
    INSERT INTO workflow_states (id, workflow_name, status, context, started_at)
    SELECT report_id('w', n), 'prospecting', 'running', '{"a": 1}', now() FROM generate_series(1, 20) n;
END $$;
