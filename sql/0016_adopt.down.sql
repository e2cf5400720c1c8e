-- Before a switch, `oncehook migrate adopt --cancel` first: the old tables' triggers call what goes here.
-- After one, the views under the old names do.
DROP FUNCTION adopt_drift_v1, adopt_look_rows_v1, adopt_look_v1, adopt_cancel_v1, adopt_switch_v1, adopt_rights_sql,
    adopt_trigger_sql, adopt_view_sql, adopt_event_column, adopted_delete_row, adopted_update_row, adopted_refuse_event,
    adopted_insert_event, adopt_step_v1, adopt_again_v1, adopt_note_sql, adopt_note_change, adopt_delete,
    adopt_insert, adopt_capture_v1, adopt_event, adopt_scope, adopt_columns, adopt_known;
DROP TYPE IF EXISTS adopted_columns;
DROP TABLE adopted_changes;
DROP TABLE adopted_tables;
