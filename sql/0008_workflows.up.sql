-- Long work and how it went, the users' and our own; where such rows go when they are old; and a cache
-- whose rows carry their expiry. What retention does with them comes with its own migration.

CREATE TABLE workflow_states (
    id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    workflow_name text        NOT NULL DEFAULT '',        -- ours begin with 'oncehook.'
    status        text        NOT NULL DEFAULT 'running', -- completed and failed are what retention knows
    context       jsonb       DEFAULT '{}',
    current_step  text,
    error         text,
    started_at    timestamptz NOT NULL DEFAULT now(),
    completed_at  timestamptz
);
-- What failed often has no completed_at: its age is then that of its start, or it would stay for ever.
CREATE INDEX idx_workflow_states_status_ended
    ON workflow_states (status, (coalesce(completed_at, started_at)));

-- Columns by name and not LIKE workflow_states INCLUDING ALL: a row may come here, be put back, and come
-- again, so its id alone is no key.
CREATE TABLE workflow_states_archive (
    id            uuid        NOT NULL,
    workflow_name text        NOT NULL DEFAULT '',
    status        text        NOT NULL DEFAULT '',
    context       jsonb,
    current_step  text,
    error         text,
    started_at    timestamptz,
    completed_at  timestamptz,
    archived_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, archived_at)
);
CREATE INDEX idx_workflow_states_archive_archived_at ON workflow_states_archive (archived_at);
CREATE INDEX idx_workflow_states_archive_workflow_name ON workflow_states_archive (workflow_name);

-- (type, key) stays the key: joined as type || '_' || key two different rows would be one. The expiry has
-- a default, so that no writer can leave a row that never expires.
CREATE TABLE enrichment_cache (
    type           text        COLLATE "C" NOT NULL,
    key            text        COLLATE "C" NOT NULL,
    data           jsonb       NOT NULL DEFAULT '{}',
    contact_email  text,
    company_domain text,
    quality_score  real,
    data_sources   text,
    cached_at      timestamptz NOT NULL DEFAULT now(),
    expires_at     timestamptz NOT NULL DEFAULT now() + interval '720 hours',
    PRIMARY KEY (type, key)
);
CREATE INDEX idx_enrichment_cache_expires_at ON enrichment_cache (expires_at);
CREATE INDEX idx_enrichment_cache_email ON enrichment_cache (contact_email);
CREATE INDEX idx_enrichment_cache_domain ON enrichment_cache (company_domain);

-- ---- our own long work ----------------------------------------------------------------------------
-- begin, step, end: retention, audit, drain and adoption say in workflow_states what they do. The
-- session that begins holds an advisory lock until it ends the workflow or is gone itself, so a workflow
-- whose process was killed is known to be dead: the next begin, of anything, marks it failed.
-- Each call in a transaction of its own: what is not committed nobody sees.

CREATE FUNCTION workflow_key(p_id uuid) RETURNS bigint
LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT AS $$
    SELECT hashtextextended('oncehook workflow ' || p_id, 0)
$$;

-- The process that holds a workflow's lock, or null: nobody runs it.
CREATE FUNCTION workflow_pid(p_id uuid) RETURNS integer
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT l.pid FROM pg_locks l
     WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
       AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
       AND (l.classid::bigint << 32 | l.objid::bigint) = workflow_key(p_id)
     LIMIT 1
$$;

-- workflow_begin_v1: a running workflow 'oncehook.' || p_name; returns its id, for step and end.
CREATE FUNCTION workflow_begin_v1(p_name text, p_context jsonb DEFAULT '{}') RETURNS uuid
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    begun constant uuid := gen_random_uuid();
BEGIN
    IF coalesce(p_name, '') = '' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'a workflow needs a name';
    END IF;

    -- Lock order, place 7: workflow_states, ascending by id; one that somebody has locked is alive.
    UPDATE workflow_states w
       SET status = 'failed', completed_at = clock_timestamp(),
           error = coalesce(w.error, 'the process that ran it is gone')
      FROM (SELECT r.id FROM workflow_states r
             WHERE r.status = 'running' AND r.workflow_name LIKE 'oncehook.%'
               AND workflow_pid(r.id) IS NULL
             ORDER BY r.id FOR NO KEY UPDATE SKIP LOCKED) dead
     WHERE w.id = dead.id;

    PERFORM pg_advisory_lock(workflow_key(begun)); -- nobody else knows the id
    -- Lock order, place 7: rows locked above; this one is new.
    INSERT INTO workflow_states (id, workflow_name, context, started_at)
    VALUES (begun, 'oncehook.' || p_name, coalesce(p_context, '{}'), clock_timestamp());
    RETURN begun;
END $$;

-- workflow_step_v1: where it is now; p_context is added to what is there.
CREATE FUNCTION workflow_step_v1(p_id uuid, p_step text, p_context jsonb DEFAULT '{}') RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    -- Lock order, place 7: workflow_states, one row.
    UPDATE workflow_states w
       SET current_step = p_step, context = coalesce(w.context, '{}') || coalesce(p_context, '{}')
     WHERE w.id = p_id AND w.status = 'running';
END $$;

-- workflow_end_v1: completed, or with p_error failed. Once: a workflow that ended stays as it ended.
CREATE FUNCTION workflow_end_v1(p_id uuid, p_error text DEFAULT NULL, p_context jsonb DEFAULT '{}')
RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    -- Lock order, place 7: workflow_states, one row.
    UPDATE workflow_states w
       SET status = CASE WHEN p_error IS NULL THEN 'completed' ELSE 'failed' END,
           error = p_error, completed_at = clock_timestamp(),
           context = coalesce(w.context, '{}') || coalesce(p_context, '{}')
     WHERE w.id = p_id AND w.status = 'running';
    IF workflow_pid(p_id) = pg_backend_pid() THEN
        PERFORM pg_advisory_unlock(workflow_key(p_id));
    END IF;
END $$;

REVOKE ALL ON workflow_states, workflow_states_archive, enrichment_cache FROM PUBLIC;
REVOKE ALL ON FUNCTION workflow_key, workflow_pid, workflow_begin_v1, workflow_step_v1, workflow_end_v1
    FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE ON workflow_states TO oncehook_gateway;
GRANT SELECT ON workflow_states_archive, enrichment_cache TO oncehook_gateway;
GRANT EXECUTE ON FUNCTION workflow_key, workflow_pid, workflow_begin_v1, workflow_step_v1, workflow_end_v1
    TO oncehook_gateway;
