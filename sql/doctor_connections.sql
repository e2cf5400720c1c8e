-- `doctor`: the share of the server's connections that are taken.
SELECT sum(numbackends)::float8 / (current_setting('max_connections')::int
                                   - current_setting('superuser_reserved_connections')::int),
       NULL::text, format('taken: %s of %s, of which %s are kept for superusers', sum(numbackends), current_setting('max_connections'),
                          current_setting('superuser_reserved_connections'))
  FROM pg_stat_database
