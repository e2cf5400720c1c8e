-- References: whose event it is when a provider echoes only an id of its own, as Twilio its MessageSid.
-- A reference has an id made of it (a UUID of version 8), and an event that carries one names that id as
-- its enrollment: so it is stored, spooled, found and retired as any event of an enrollment that may not
-- be there yet. docs/adr/0009-references.md says why.

-- The same as in C (event/key.c): the first bits of SHA-256(key_scope, a zero byte, reference).
CREATE FUNCTION oncehook_reference_id(p_key_scope text, p_reference text) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT encode(set_byte(set_byte(h.hash, 6, get_byte(h.hash, 6) & 15 | 128),
                           8, get_byte(h.hash, 8) & 63 | 128), 'hex')::uuid
      FROM (SELECT substr(sha256(convert_to(p_key_scope, 'UTF8') || '\x00'::bytea
                                 || convert_to(p_reference, 'UTF8')), 1, 16)) h(hash)
$$;

CREATE TABLE enrollment_references (
    key_scope     text        COLLATE "C" NOT NULL,
    reference     text        COLLATE "C" NOT NULL
        CONSTRAINT enrollment_references_reference_length CHECK (octet_length(reference) BETWEEN 1 AND 255),
    enrollment_id uuid        NOT NULL REFERENCES campaign_enrollments (id) ON DELETE CASCADE,
    created_at    timestamptz NOT NULL DEFAULT now(),
    id            uuid        GENERATED ALWAYS AS (oncehook_reference_id(key_scope, reference)) STORED,
    tx            xid8        NOT NULL DEFAULT pg_current_xact_id(),  -- as in campaign_enrollments
    PRIMARY KEY (key_scope, reference)
);
CREATE UNIQUE INDEX idx_enrollment_references_id ON enrollment_references (id);
CREATE INDEX idx_enrollment_references_enrollment ON enrollment_references (enrollment_id);
CREATE INDEX idx_enrollment_references_tx ON enrollment_references (tx);

-- capture_v2: capture_v1, for a batch in which events name references. What is no known reference stays
-- as it is. LATERAL … LIMIT 1 is a nested loop whatever the statistics say.
CREATE FUNCTION capture_v2(
    p_source        text[], p_provider text[], p_id text[], p_scope text[], p_grade text[], p_type text[],
    p_provider_type text[], p_channel text[], p_enrollment uuid[], p_instance uuid[], p_at timestamptz[],
    p_delivery      uuid[], p_payload jsonb[], p_bytes bytea[]
) RETURNS text
LANGUAGE plpgsql
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    named uuid[];
BEGIN
    SELECT array_agg(coalesce(r.enrollment_id, p_enrollment[k]) ORDER BY k) INTO named
      FROM generate_subscripts(p_id, 1) k
      LEFT JOIN LATERAL (SELECT f.enrollment_id FROM enrollment_references f
                          WHERE f.id = p_enrollment[k] LIMIT 1) r ON true;
    RETURN capture_v1(p_source, p_provider, p_id, p_scope, p_grade, p_type, p_provider_type, p_channel,
                      named, p_instance, p_at, p_delivery, p_payload, p_bytes);
END $$;
