-- Seconds since a retention ended well; no row while none has.
SELECT extract(epoch FROM now() - max(w.completed_at))
  FROM workflow_states w
 WHERE w.workflow_name = 'oncehook.retention' AND w.status = 'completed'
HAVING max(w.completed_at) IS NOT NULL
