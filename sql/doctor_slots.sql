-- `doctor`: WAL that replication slots hold back. One whose standby is gone holds all of it, until the
-- server's disk is full.
SELECT pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END,
                       s.restart_lsn)::float8,
       s.slot_name::text, 'of WAL are kept for it, and ' || CASE WHEN s.active THEN 'it is read' ELSE 'nobody reads it' END
  FROM pg_replication_slots s WHERE s.restart_lsn IS NOT NULL
UNION ALL
SELECT 0, NULL, 'no replication slot holds WAL' WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE restart_lsn IS NOT NULL)
 ORDER BY 1 DESC LIMIT 5
