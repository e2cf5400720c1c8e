-- `audit`: what it sums up month by month, and what it found. Temporary, so that millions of
-- enrollments need no memory anywhere: sums beyond temp_buffers are on the server's disk. The
-- snapshot's transaction is READ ONLY and may write these and nothing else.
CREATE TEMP TABLE audit_sums (
    of_instance   boolean,     -- a row of an instance and type, else of an enrollment
    instance_id   uuid,
    event_type    text,
    enrollment_id uuid,
    events        bigint,
    bound         bigint,      -- of them, those that belong to an instance
    recent        bigint,      -- of them, those received since $4
    last_event_at timestamptz
);
CREATE TEMP TABLE audit_drift (
    number      integer GENERATED ALWAYS AS IDENTITY,
    table_name  text,
    id          text,
    column_name text,
    counter     text,
    events      text,
    drift       bigint,        -- for repair_v1; null: nothing to subtract
    at          timestamptz,   -- for repair_v1
    is_mendable boolean
);
