-- Secrets that a handshake brought (Asana, Notion) while its source was armed. Several gateways share them;
-- nobody but their role and the owner may read them. docs/adr/0012-learned-secrets.md says why they are here.

CREATE TABLE learned_secrets (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source     text        COLLATE "C" NOT NULL
        CONSTRAINT learned_secrets_source_length CHECK (octet_length(source) BETWEEN 1 AND 63),
    secret     text        COLLATE "C" NOT NULL
        CONSTRAINT learned_secrets_secret_length CHECK (octet_length(secret) BETWEEN 1 AND 1024),
    learned_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (source, secret)
);

-- Keeps a secret; returns its id, also of one that is known, or null: this source has p_limit already.
-- Whoever can reach an armed source can send one, so there is an end, and nothing that is known gives way.
CREATE FUNCTION learn_v1(p_source text, p_secret text, p_limit integer) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    -- Lock order, place 12: learned_secrets, one row.
    INSERT INTO learned_secrets (source, secret)
    SELECT p_source, p_secret
     WHERE (SELECT count(*) FROM learned_secrets l WHERE l.source = p_source) < p_limit
        ON CONFLICT (source, secret) DO NOTHING;
    RETURN (SELECT l.id FROM learned_secrets l WHERE l.source = p_source AND l.secret = p_secret);
END $$;

REVOKE ALL ON learned_secrets FROM PUBLIC;
REVOKE ALL ON SEQUENCE learned_secrets_id_seq FROM PUBLIC;
REVOKE ALL ON FUNCTION learn_v1 FROM PUBLIC;
GRANT SELECT, INSERT ON learned_secrets TO oncehook_gateway;
GRANT EXECUTE ON FUNCTION learn_v1 TO oncehook_gateway;
