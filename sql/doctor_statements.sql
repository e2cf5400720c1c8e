-- `doctor`: of the statements that took most time in all, their mean time in ms. What is shown is the
-- name that a statement of oncehook begins with, or the start of its text, in which pg_stat_statements
-- has replaced every constant; of other commands than these it has not, so they are left out.
SELECT t.mean_exec_time, t.name, format('on average, called %s times, %s s in all', t.calls, (t.total_exec_time / 1000)::bigint)
  FROM (SELECT s.mean_exec_time, s.calls, s.total_exec_time,
               coalesce(substring(s.query FROM '^\s*/\* (\w+) \*/'),
                        left(regexp_replace(s.query, '\s+', ' ', 'g'), 60)) AS name
          FROM pg_stat_statements s
         WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND s.query ~* '^\s*(/\* \w+ \*/)?\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\M'
         ORDER BY s.total_exec_time DESC LIMIT 20) t
UNION ALL
SELECT 0, NULL, 'no statement was counted'
 ORDER BY 1 DESC LIMIT 5
