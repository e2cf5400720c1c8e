DROP FUNCTION workflow_end_v1, workflow_step_v1, workflow_begin_v1, workflow_pid, workflow_key;
DROP TABLE enrichment_cache;
DROP TABLE workflow_states_archive;
DROP TABLE workflow_states;
