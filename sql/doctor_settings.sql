-- `doctor`: settings of the server that lose events or hold up its cleaning; 1 = it is wrong.
WITH bad AS (
    SELECT s.name, format('is %s: %s', current_setting(s.name), s.words) AS words
      FROM (VALUES
            ('fsync', current_setting('fsync') <> 'on', 'a crash loses what was committed'),
            ('full_page_writes', current_setting('full_page_writes') <> 'on', 'a crash may corrupt tables'),
            ('synchronous_commit', current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')
                AND (current_setting('synchronous_commit') = 'off'
                     OR current_setting('synchronous_standby_names') <> ''),
             'a crash or failover loses acknowledged events'),
            ('autovacuum', current_setting('autovacuum') <> 'on', 'dead rows stay, transaction ids run out'),
            ('track_counts', current_setting('track_counts') <> 'on', 'autovacuum does not know what to do')
           ) s(name, is_bad, words)
     WHERE s.is_bad)
SELECT 1::float8, b.name, b.words FROM bad b
UNION ALL
SELECT 0, NULL, 'nothing that was committed is lost in a crash, autovacuum runs' WHERE NOT EXISTS (SELECT FROM bad)
 ORDER BY 1 DESC, 2
