-- Secrets that handshakes brought, oldest first.
SELECT id, source, secret, to_char(learned_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
  FROM learned_secrets ORDER BY id
