DROP FUNCTION retention_step_v2, retire_keys_v1, key_position, keys_before;
DROP TABLE key_walk;
ALTER TABLE event_keys RESET (autovacuum_vacuum_scale_factor);
