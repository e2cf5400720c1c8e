-- `doctor` and oncehook_hit_ratio: the share of block reads, of tables and indexes of this schema, that
-- shared_buffers answered. The metric looks at what two looks differ by: the last two columns.
WITH s AS (
    SELECT coalesce(sum(coalesce(heap_blks_hit, 0) + coalesce(idx_blks_hit, 0)), 0)::float8 AS hit,
           coalesce(sum(coalesce(heap_blks_read, 0) + coalesce(idx_blks_read, 0)), 0)::float8 AS read
      FROM pg_statio_user_tables WHERE schemaname = current_schema())
SELECT CASE WHEN s.hit + s.read >= 10000 THEN s.hit / (s.hit + s.read) END, NULL::text,
       CASE WHEN s.hit + s.read >= 10000 THEN format('of %s block reads came from shared_buffers', s.hit + s.read)
            ELSE format('only %s blocks were read since the statistics began', s.hit + s.read) END,
       s.hit, s.hit + s.read
  FROM s
