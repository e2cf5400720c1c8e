"""What is measured beside the rows: memory with idle connections, the time of a start, and the rate beside
millions of events and keys."""

import collections
import os
import resource
import shutil
import statistics
import subprocess
import threading
import time

from .base import Failed, bound, say
from .postgres import check_against_database
from .rows import LARGE, LATER, SMALL

STARTS = 5
LARGE_EVENTS, KEYS_PER_EVENT = 20e6, 2.5
LARGE_BYTES_PER_EVENT = 3300  # 1,400 with 2.5 keys and indexes, the room that building them takes, and WAL
LARGE_WINDOW = 8  # times as long as other runs


def idle_connections(bench):
    """The gateway's memory, in MiB, with idle TLS connections. The default limit is as many as there are: it
    is raised, so that none stands in the way of another."""
    wanted = bench.options.idle_connections
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most < wanted + 500:
        say(f"idle connections are left out: a process may have {most} descriptors (ulimit -Hn)")
        return None
    config = bench.write_config("idle.yaml", limits={"connections": wanted + 100})
    server = bench.start_gateway(config)
    try:
        result = bench.load("idle", server, "https", "--idle", "--connections", wanted, "--seconds", 3,
                            "--warmup", 1, "--timeout", 60, config=config)
    finally:
        bench.stop_server(server)
    if result["totals"]["connected"] != wanted:
        raise Failed(f"of {wanted} idle connections {result['totals']['connected']} were made")
    return result["rss_mib"]


def start_to_ready(bench):
    """Milliseconds from exec to the line `ready`, the median."""
    config = bench.write_config("start.yaml")
    taken = []
    for _ in range(STARTS):
        began = time.monotonic()
        server = bench.start_gateway(config)
        taken.append((time.monotonic() - began) * 1000)
        bench.stop_server(server)
    return round(statistics.median(taken), 1)


# ---- millions of events and keys -----------------------------------------------------------------

# Ids are what hmac's would be: UUIDs. All events lie in the month that is written to: the worst case.
EVENTS_SQL = """
    SET synchronous_commit = off;
    INSERT INTO campaign_events (received_at, "timestamp", delivery_id, instance_id, enrollment_id, source, provider,
                                 provider_event_id, key_scope, event_type, provider_event_type, payload)
    SELECT month + n * ((now() - month) / {total}), month + n * ((now() - month) / {total}), gen_random_uuid(),
           e.instance_id, e.id, 'bench', 'hmac', md5(n::text)::uuid::text, 'source:bench', t.type, t.type,
           ('{{"id":"' || md5(n::text)::uuid || '","type":"' || t.type || '","occurred_at":"2026-01-05T10:00:00Z",'
            || '"enrollment_id":"' || e.id || '","instance_id":"' || e.instance_id || '",'
            || '"recipient":"person@example.com","subject":"Spring is here, and so are we",'
            || '"message_id":"<20260309.5a1c77d0@mail.example.com>","ip":"192.0.2.17",'
            || '"user_agent":"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/128.0",'
            || '"url":"https://www.example.com/offers/spring?utm_source=newsletter","attempt":1}}')::jsonb
      FROM generate_series({first}, {last}) n
      JOIN bench_enrollments e ON e.place = n % {enrollments}
      CROSS JOIN LATERAL (SELECT (ARRAY['delivered', 'opened', 'clicked', 'sent'])[1 + n % 4] AS type) t,
           (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS month) m"""
KEYS_SQL = """
    SET synchronous_commit = off;
    INSERT INTO event_keys (provider_event_id, key_scope)
    SELECT md5(n::text)::uuid::text, 'source:bench' FROM generate_series({first}, {last}) n"""
INDEX_SETTINGS = "SET synchronous_commit = off; SET maintenance_work_mem = '1GB'; "


def in_parallel(postgres, sql, total, what):
    """Runs `sql` for {first} to {last} in pieces, as many at a time as there are cores."""
    piece = max(1, min(500_000, total // (4 * (os.cpu_count() or 1))))
    starts, lock, failures = list(range(1, total + 1, piece)), threading.Lock(), []
    done, began = [0], time.monotonic()

    def work():
        while starts and not failures:
            with lock:
                if not starts:
                    return
                first = starts.pop(0)
            last = min(first + piece - 1, total)
            ran = subprocess.run(bound(postgres.psql("bench", "-c", sql.format(first=first, last=last))), cwd="/",
                                 capture_output=True, text=True, check=False)
            if ran.returncode:
                failures.append(ran.stderr)
            with lock:
                done[0] += last - first + 1
                left = (total - done[0]) * (time.monotonic() - began) / done[0]
                say(f"filling in {what}: {done[0]:,} of {total:,}, {left:.0f} s left", stays=False)

    threads = [threading.Thread(target=work) for _ in range(os.cpu_count() or 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise Failed(f"filling in {what}: {failures[0]}")


def take_indexes(postgres, table, name=None):
    """Drops the table's indexes and primary key, or the one of that name; the statements that make them again."""
    only = f"AND i.indexrelid = '{name}'::regclass" if name else ""
    again = postgres.sql(f"""
        SELECT CASE WHEN c.oid IS NULL THEN regexp_replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON ')
                    ELSE format('ALTER TABLE {table} ADD CONSTRAINT %I %s', c.conname, pg_get_constraintdef(c.oid)) END
          FROM pg_index i LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.conrelid = i.indrelid
         WHERE i.indrelid = '{table}'::regclass {only} ORDER BY c.oid IS NULL, 1""").split("\n")
    postgres.sql(f"""
        DO $$
        DECLARE
            index record;
        BEGIN
            FOR index IN SELECT i.indexrelid::regclass AS name, c.conname
                           FROM pg_index i LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid
                                                                    AND c.conrelid = i.indrelid
                          WHERE i.indrelid = '{table}'::regclass {only} LOOP
                EXECUTE CASE WHEN index.conname IS NULL THEN format('DROP INDEX %s', index.name)
                             ELSE format('ALTER TABLE {table} DROP CONSTRAINT %I', index.conname) END;
            END LOOP;
        END $$""")
    return again


def check_room(events, directory):
    """To be asked first: nobody wants to wait for an hour for a full disk."""
    need, free = events * LARGE_BYTES_PER_EVENT, shutil.disk_usage(directory).free
    if free < need:
        raise Failed(f"--large needs {need / 1e9:.0f} GB in {directory}, which has {free / 1e9:.0f} GB free")


def fill_large(bench, events):
    """Events and keys, their indexes dropped before and built afterwards: that is several times faster. Then the
    indexes are read once, as those of a server that has been at work for a while are in its memory."""
    postgres, keys = bench.postgres, int(events * KEYS_PER_EVENT)
    began = time.monotonic()
    postgres.empty()
    postgres.sql("CREATE TABLE bench_enrollments AS SELECT id, instance_id, row_number() OVER () - 1 AS place "
                 "FROM campaign_enrollments; ANALYZE bench_enrollments")
    enrollments = int(postgres.sql("SELECT count(*) FROM bench_enrollments"))
    again = {table: take_indexes(postgres, table) for table in ("campaign_events", "event_keys")}
    in_parallel(postgres, EVENTS_SQL.replace("{total}", str(events)).replace("{enrollments}", str(enrollments)), events,
                "events")
    in_parallel(postgres, KEYS_SQL, keys, "keys")
    for table, statements in again.items():
        for number, statement in enumerate(statements, 1):
            say(f"building index {number} of {len(statements)} of {table}", stays=False)
            postgres.sql(INDEX_SETTINGS + statement)
        say(f"vacuum of {table}", stays=False)
        postgres.sql(f"VACUUM (ANALYZE) {table}")
    say("reading the indexes into memory", stays=False)
    postgres.sql("DROP TABLE bench_enrollments; CREATE EXTENSION pg_prewarm; "
                 "SELECT sum(pg_prewarm(oid)) FROM pg_class WHERE relkind = 'i' AND relname ~ '^(event_keys|campaign_)'; "
                 "CHECKPOINT")
    size = int(postgres.sql("SELECT pg_database_size('bench')"))
    say(f"{events:,} events and {keys:,} keys filled in: {time.monotonic() - began:.0f} s, {size / 1e9:.1f} GB")


def start_beside(bench):
    """A gateway for a database of its own with the same campaigns and no events; (gateway, config)."""
    bench.stop_server(bench.gateway)
    bench.postgres.empty()
    bench.postgres.sql("CREATE DATABASE few TEMPLATE bench", "postgres")
    bench.gateway = bench.start_gateway(bench.config)
    config = bench.write_config("few.yaml", database="few")
    return bench.start_gateway(config), config


def sum_totals(runs):
    """The totals of several runs as those of one."""
    summed = collections.Counter()
    for run in runs:
        summed.update({word: number for word, number in run["totals"].items() if isinstance(number, int)})
    statuses = sum((collections.Counter(run["totals"]["statuses"]) for run in runs), collections.Counter())
    return {**summed, "statuses": dict(statuses)}


def large(bench, events, rounds):
    """gateway_https_1 beside so many events and keys, for minutes after one checkpoint: what the first touch of each page
    costs is in it, and becomes less. By turns with one beside none, in the same hour. {row: runs}"""
    few, config = start_beside(bench)
    fill_large(bench, events)
    sides = {SMALL: ("few", few, config, 1), LARGE: ("bench", bench.gateway, bench.config, LARGE_WINDOW)}
    before = {name: bench.postgres.counted(database) for name, (database, *_) in sides.items()}
    bench.postgres.sql("CHECKPOINT")
    runs = {name: [] for name in sides}
    for number in range(1, rounds + 1):
        for name, (_, server, its_config, windows) in sides.items():
            say(f"round {number} of {rounds}: {name}", stays=False)
            began = wal_bytes(bench.postgres)
            run = bench.load(name, server, "https", "--max", *bench.connections(),
                             "--watch", f"postgres={bench.postgres.server.pid}",
                             "--seconds", windows * bench.options.seconds, "--warmup", bench.options.warmup, config=its_config)
            run["wal_bytes_per_event"] = round((wal_bytes(bench.postgres) - began) / run["totals"]["captured"], 1)
            say(f"round {number} of {rounds}: {name:24} {run['events_per_second']:>9,.0f} events/s, "
                f"{run['wal_bytes_per_event']:,.0f} bytes of WAL an event")
            runs[name].append(run)
    for name, (database, *_) in sides.items():
        check_against_database(name, LATER[name].writes, sum_totals(runs[name]), before[name],
                               bench.postgres.counted(database))
    return runs


def wal_bytes(postgres):
    return int(postgres.sql("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"))
