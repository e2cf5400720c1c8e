-- The campaign side: templates, their sequences, instances with lifetime counters, enrollments.
-- Every name without a schema is in the configured one: `migrate` sets search_path before it runs this,
-- and SET search_path FROM CURRENT keeps it with each function.

CREATE TABLE campaign_templates (
    id             uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    name           text        NOT NULL DEFAULT '',
    type           text        NOT NULL DEFAULT 'email',
    path_type      text,
    icp_profile_id text,                                -- an id of another system
    settings       jsonb       NOT NULL DEFAULT '{}',
    is_active      boolean     NOT NULL DEFAULT true,
    created_at     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE email_sequences (
    id          uuid    PRIMARY KEY DEFAULT gen_random_uuid(),
    template_id uuid    NOT NULL REFERENCES campaign_templates (id) ON DELETE CASCADE ON UPDATE CASCADE,
    step_number integer NOT NULL DEFAULT 1
        CONSTRAINT email_sequences_step_number_positive CHECK (step_number > 0),
    subject     text,
    body        text,
    delay_hours integer NOT NULL DEFAULT 0,
    is_active   boolean NOT NULL DEFAULT true
);
CREATE INDEX idx_email_sequences_template ON email_sequences (template_id, step_number);

CREATE TABLE linkedin_sequences (
    id          uuid    PRIMARY KEY DEFAULT gen_random_uuid(),
    template_id uuid    NOT NULL REFERENCES campaign_templates (id) ON DELETE CASCADE ON UPDATE CASCADE,
    step_number integer NOT NULL DEFAULT 1
        CONSTRAINT linkedin_sequences_step_number_positive CHECK (step_number > 0),
    type        text,
    message     text,
    delay_hours integer NOT NULL DEFAULT 0,
    is_active   boolean NOT NULL DEFAULT true
);
CREATE INDEX idx_linkedin_sequences_template ON linkedin_sequences (template_id, step_number);

-- A counter's change must stay on its page (HOT): room on the page, and no index on a counter, ever.
CREATE TABLE campaign_instances (
    id                 uuid   PRIMARY KEY DEFAULT gen_random_uuid(),
    template_id        uuid   NOT NULL REFERENCES campaign_templates (id) ON DELETE CASCADE ON UPDATE CASCADE,
    name               text   NOT NULL DEFAULT '',
    status             text   NOT NULL DEFAULT 'draft',
    provider_config    jsonb  NOT NULL DEFAULT '{}',
    total_enrolled     bigint NOT NULL DEFAULT 0,
    total_sent         bigint NOT NULL DEFAULT 0,
    total_delivered    bigint NOT NULL DEFAULT 0,
    total_opened       bigint NOT NULL DEFAULT 0,
    total_clicked      bigint NOT NULL DEFAULT 0,
    total_replied      bigint NOT NULL DEFAULT 0,
    total_bounced      bigint NOT NULL DEFAULT 0,
    total_unsubscribed bigint NOT NULL DEFAULT 0,
    total_completed    bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE INDEX idx_campaign_instances_template_status ON campaign_instances (template_id, status);

CREATE TABLE campaign_enrollments (
    id             uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    instance_id    uuid        NOT NULL REFERENCES campaign_instances (id) ON DELETE CASCADE,
    contact_id     uuid        NOT NULL DEFAULT gen_random_uuid(),
    status         text        NOT NULL DEFAULT 'active',
    next_action_at timestamptz,
    completed_at   timestamptz,
    total_events   bigint      NOT NULL DEFAULT 0,
    last_event_at  timestamptz,
    UNIQUE (instance_id, contact_id)
) WITH (fillfactor = 70);
CREATE INDEX idx_campaign_enrollments_active_next_action ON campaign_enrollments (next_action_at)
    WHERE status = 'active' AND next_action_at IS NOT NULL;
CREATE INDEX idx_campaign_enrollments_instance_status ON campaign_enrollments (instance_id, status);
CREATE INDEX idx_campaign_enrollments_completed ON campaign_enrollments (completed_at)
    WHERE status = 'completed' AND completed_at IS NOT NULL;

-- Events carry these ids without a foreign key, and capture locks instances by what it read in
-- enrollments a moment before. Both are right only while ids stand still.
CREATE FUNCTION oncehook_refuse_new_identity() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'restrict_violation',
        MESSAGE = format('%s of a row of %I never changes', TG_ARGV[0], TG_TABLE_NAME),
        HINT = 'Delete the row and insert another one.';
END $$;

CREATE TRIGGER campaign_instances_identity BEFORE UPDATE OF id ON campaign_instances
    FOR EACH ROW WHEN (OLD.id <> NEW.id)
    EXECUTE FUNCTION oncehook_refuse_new_identity('id');
CREATE TRIGGER campaign_enrollments_identity BEFORE UPDATE OF id, instance_id ON campaign_enrollments
    FOR EACH ROW WHEN (OLD.id <> NEW.id OR OLD.instance_id <> NEW.instance_id)
    EXECUTE FUNCTION oncehook_refuse_new_identity('id or instance_id');

-- total_enrolled, for everybody's SQL. Once a statement and sorted: a trigger for each row would lock
-- instances in the order of the rows and deadlock with the next statement that has another order.
CREATE FUNCTION oncehook_count_enrolled() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    -- Lock order, place 2: campaign_instances, ascending by id. An INSERT holds nothing of place 3 that
    -- anybody could wait for; a DELETE does, see docs/lock-order.md.
    PERFORM FROM campaign_instances i
      WHERE i.id IN (SELECT c.instance_id FROM changed c)
      ORDER BY i.id FOR NO KEY UPDATE;
    -- Lock order, place 2: rows locked above.
    UPDATE campaign_instances i
       SET total_enrolled = i.total_enrolled + d.delta
      FROM (SELECT c.instance_id, count(*) * CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END AS delta
              FROM changed c GROUP BY c.instance_id) d
     WHERE i.id = d.instance_id;
    RETURN NULL;
END $$;

CREATE TRIGGER campaign_enrollments_inserted AFTER INSERT ON campaign_enrollments
    REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION oncehook_count_enrolled();
CREATE TRIGGER campaign_enrollments_deleted AFTER DELETE ON campaign_enrollments
    REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION oncehook_count_enrolled();

CREATE FUNCTION oncehook_count_none_enrolled() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    -- Lock order, place 2: campaign_instances, ascending by id (TRUNCATE holds the whole of place 3).
    PERFORM FROM campaign_instances i WHERE i.total_enrolled <> 0 ORDER BY i.id FOR NO KEY UPDATE;
    -- Lock order, place 2: rows locked above.
    UPDATE campaign_instances SET total_enrolled = 0 WHERE total_enrolled <> 0;
    RETURN NULL;
END $$;

CREATE TRIGGER campaign_enrollments_truncated AFTER TRUNCATE ON campaign_enrollments
    FOR EACH STATEMENT EXECUTE FUNCTION oncehook_count_none_enrolled();
