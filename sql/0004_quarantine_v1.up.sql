-- quarantine_v1: keeps bytes that were verified but cannot be captured, once for each source and body;
-- a repeat only counts. One call is one transaction.
CREATE FUNCTION quarantine_v1(
    p_source      text,
    p_provider    text,
    p_reason      text,
    p_method      text,
    p_url         text,  -- credentials in it are already ****
    p_headers     jsonb, -- likewise
    p_body        bytea,
    p_body_sha256 bytea
) RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    -- Lock order, place 6: quarantined_deliveries, by (source, body_sha256); one row a call.
    INSERT INTO quarantined_deliveries AS q (source, provider, reason, method, url, headers, body, body_sha256)
    VALUES (p_source, p_provider, p_reason, p_method, p_url, p_headers, p_body, p_body_sha256)
    ON CONFLICT (source, body_sha256) DO UPDATE SET attempts = q.attempts + 1
$$;
