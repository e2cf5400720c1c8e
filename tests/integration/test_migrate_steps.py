"""Migrations of several steps: each shape beside traffic, resumed after a kill, undone from half-way; and
every migration up, down and up again. oncehook_next is the program of the next release: two migrations more
(tests/data/next_*.sql)."""

import contextlib
import os
import re
import signal
import subprocess
import threading
import time

import pytest

from support.capture import call, capture, connect, event
from support.gateway import BINARY, environment
from support.postgres import OWNER_PASSWORD, binaries
from support.process import run, spawn, wait_until

NEXT = os.path.join(os.path.dirname(BINARY), "oncehook_next")


def migrate(database, *arguments, program=BINARY, check=True, timeout=90):
    done = subprocess.run([program, "migrate", *map(str, arguments), "--database", database.owner_url],
                          capture_output=True, text=True, env=environment(), timeout=timeout)
    assert "Sanitizer" not in done.stderr, done.stderr
    assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def start_next(database, *arguments):
    return spawn([NEXT, "migrate", *(arguments or ["up"]), "--database", database.owner_url], stdout=subprocess.PIPE,
                 stderr=subprocess.PIPE, text=True, env=environment())


def dump(database):
    """The schema as pg_dump writes it, without schema_migrations' rows."""
    text = run([f"{binaries()}/pg_dump", "--schema-only", database.owner_url]).stdout
    assert OWNER_PASSWORD not in text
    return re.sub(r"^--.*\n|^\\(un)?restrict .*\n", "", text, flags=re.M)


def version(database):
    return database.value("SELECT max(version) FROM schema_migrations")


def fill(database):
    """Rows in every table that a gateway writes to."""
    seeded = database.seed(instances=2, enrollments=50)
    everybody = [one for _, several in seeded for one in several]
    capture(database.gateway_url, *[event(enrollment=one) for one in everybody], event())
    return everybody


@contextlib.contextmanager
def holding(database, statement, name="nightly report"):
    """A transaction that stays open behind `statement`."""
    with contextlib.closing(connect(f"{database.owner_url}?application_name={name}")) as connection:
        connection.autocommit = False
        with connection.cursor() as cursor:
            cursor.execute(statement)
            yield connection


def steps(database):
    """(steps done, steps begun) of what is half-way, or None."""
    if not database.value("SELECT to_regclass('schema_migration_steps') IS NOT NULL"):
        return None
    return database.sql("SELECT count(done_at), count(*) FROM schema_migration_steps")[0]


def all_is_made(database):
    assert steps(database) is None
    assert database.value("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0
    assert database.value("SELECT count(*) FROM pg_constraint WHERE NOT convalidated") == 0
    parts = database.sql("SELECT count(*) FROM pg_inherits WHERE inhparent = 'idx_next_events_delivery'::regclass")
    assert parts == database.sql("SELECT count(*) FROM pg_inherits WHERE inhparent = 'campaign_events'::regclass")
    assert database.value("SELECT count(*) FROM campaign_enrollments WHERE next_rank IS NULL") == 0


# ---- up, down, up ---------------------------------------------------------------------------

def test_every_migration_goes_up_down_and_up_again_with_data_and_leaves_the_same_schema(empty_database):
    migrate(empty_database, "up", program=NEXT)
    last = version(empty_database)
    fill(empty_database)
    on_the_way_down = {}
    for number in range(last, last - 4, -1):  # what a release may have to take back
        on_the_way_down[number] = dump(empty_database)
        migrate(empty_database, "down", "--force", program=NEXT)
    migrate(empty_database, "down", 99, "--force", program=NEXT)
    empty = dump(empty_database)
    assert "CREATE TABLE" not in empty and "CREATE FUNCTION" not in empty
    migrate(empty_database, "up", program=NEXT)
    assert dump(empty_database) == on_the_way_down[last]
    fill(empty_database)
    for count in (1, 3):
        migrate(empty_database, "down", count, "--force", program=NEXT)
        assert dump(empty_database) == on_the_way_down[last - count], f"{count} down"
        migrate(empty_database, "up", program=NEXT)
        assert dump(empty_database) == on_the_way_down[last], f"{count} down and up"


def test_down_undoes_what_up_did_and_nothing_else(database):
    fill(database)
    before, rows = dump(database), database.sql("SELECT * FROM campaign_enrollments ORDER BY id")
    migrate(database, "up", program=NEXT)
    all_is_made(database)
    migrate(database, "down", 2, program=NEXT)
    assert dump(database) == before and steps(database) is None
    assert database.sql("SELECT * FROM campaign_enrollments ORDER BY id") == rows


# ---- what it prints -------------------------------------------------------------------------

def test_checklist_is_printed_for_each_step_and_dry_run_changes_nothing(database):
    fill(database)
    database.sql("ANALYZE")
    before = dump(database)
    said = migrate(database, "up", "--dry-run", program=NEXT).stdout
    assert dump(database) == before and steps(database) is None
    assert "backup" in said.splitlines()[0]
    assert re.search(r"would apply \d+ next_index, step 1 of 3: concurrently\n  campaign_events: \d+ kB, about 101 rows; "
                     r"SHARE UPDATE EXCLUSIVE, builds an index, about 0\.0 s\n", said), said
    assert re.search(r"step 6 of 6: transaction\n  campaign_enrollments: .* about 100 rows; ACCESS EXCLUSIVE, ", said), said
    said = migrate(database, "up", program=NEXT).stdout
    assert "\n  100 rows\n" in said and "\nanalyzed campaign_enrollments\n" in said
    assert re.search(r"^verified: version (\d+) of \1, 0 invalid indexes, 0 constraints not validated$", said, re.M)
    assert said.count("\napplied ") == 2
    assert database.value("SELECT count(*) FROM pg_stats WHERE tablename = 'campaign_enrollments' "
                          "AND attname = 'next_note'") == 1


def test_a_table_that_was_never_counted_is_not_taken_for_empty(database):
    """As after a restore: its back-fill would be estimated as 0.0 s."""
    database.sql("ALTER TABLE campaign_enrollments SET (autovacuum_enabled = off)")
    database.seed(1, 5000)
    assert database.value("SELECT reltuples FROM pg_class WHERE relname = 'campaign_enrollments'") == -1
    said = migrate(database, "up", "--dry-run", program=NEXT).stdout
    rows, seconds = re.search(r"campaign_enrollments: .* about (\d+) rows; .*, writes rows, about ([\d.]+) s", said).groups()
    assert 2500 < int(rows) < 10000 and float(seconds) > 0.1


# ---- locks ----------------------------------------------------------------------------------

def test_step_that_meets_a_lock_says_whose_it_is_tries_again_and_lets_writers_through(database):
    everybody = fill(database)
    longest, stop = [0.0], threading.Event()

    def write():
        with contextlib.closing(connect(database.gateway_url)) as connection, connection.cursor() as cursor:
            while not stop.is_set():
                began = time.monotonic()
                call(cursor, event(enrollment=everybody[0]))
                longest[0] = max(longest[0], time.monotonic() - began)
    writer = threading.Thread(target=write)
    with holding(database, "SELECT count(*) FROM campaign_enrollments") as other:
        writer.start()
        child = start_next(database)
        pid = other.info.backend_pid
        wait_until(lambda: steps(database) == (0, 1), what="the first step's try")
        time.sleep(2)  # several tries
        assert child.poll() is None
    said, errors = child.communicate(timeout=60)
    stop.set()
    writer.join(20)
    assert child.returncode == 0, errors
    waited = re.search(r"waited ([\d.]+) s for locks, (\d+) tries; blocked by (.*)", said)
    assert waited and float(waited[1]) >= 0.5 and int(waited[2]) > 1, said
    assert f"pid {pid} (nightly report, idle in transaction)" in waited[3] and "SELECT" not in waited[0]
    assert longest[0] < 0.6, "a lock_timeout of 100 ms, and the machine's own delays"
    all_is_made(database)
    assert database.counter_drift() == []


# ---- killed ---------------------------------------------------------------------------------

def kill(child):
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=20)


def is_gone(database):
    return database.value("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'oncehook migrate%%' "
                          "AND datname = current_database()") == 0


def test_killed_while_an_index_is_built_it_drops_the_invalid_one_and_goes_on(database):
    fill(database)
    month = database.value("SELECT tableoid::regclass::text FROM campaign_events LIMIT 1")
    database.sql("BEGIN; COMMIT")
    with holding(database, f"LOCK TABLE {month} IN ROW EXCLUSIVE MODE"):
        child = start_next(database)
        wait_until(lambda: child.poll() is not None or database.value(
            "SELECT count(*) FROM pg_index WHERE NOT indisvalid AND indrelid = %s::regclass", month) == 1, 30,
            what="an index that waits for the writer")
        kill(child)
        wait_until(lambda: is_gone(database), 20, what="the server's notice that the client is gone")
    assert steps(database) == (0, 1)
    assert database.value("SELECT count(*) FROM pg_index WHERE NOT indisvalid AND indrelid = %s::regclass", month) == 1
    assert "half-way up, 0 steps are done" in migrate(database, "status", program=NEXT).stdout
    assert "goes on: 0 of 3 steps are done" in migrate(database, "up", program=NEXT).stdout
    all_is_made(database)


def test_killed_at_any_moment_it_goes_on_or_is_undone_whole(database, rng):
    fill(database)
    before, ours = dump(database), version(database)
    for turn in range(4):
        child = start_next(database)
        time.sleep(rng.uniform(0.05, 0.9))
        kill(child)
        wait_until(lambda: is_gone(database), 20, what="the server's notice that the client is gone")
        if turn % 2:
            back = version(database) - ours + (steps(database) is not None)
            if back:
                migrate(database, "down", back, program=NEXT)
            assert dump(database) == before and steps(database) is None
    migrate(database, "up", program=NEXT)
    all_is_made(database)


def test_half_way_down_only_down_goes_on(database):
    migrate(database, "up", program=NEXT)
    month = database.value("SELECT inhrelid::regclass::text FROM pg_inherits "
                           "WHERE inhparent = 'campaign_events'::regclass ORDER BY 1 LIMIT 1")
    with holding(database, f"SELECT count(*) FROM {month}"):
        child = start_next(database, "down")
        wait_until(lambda: steps(database) == (2, 3), 20, what="the third step, which meets the lock")
        kill(child)
        wait_until(lambda: is_gone(database), 20)
    done = migrate(database, "up", program=NEXT, check=False)
    assert done.returncode == 1 and "half undone" in done.stderr
    assert "goes on: 2 of 3 steps are done" in migrate(database, "down", program=NEXT).stdout
    migrate(database, "up", program=NEXT)
    all_is_made(database)


# ---- refused --------------------------------------------------------------------------------

def test_half_way_migration_that_was_changed_or_is_of_a_newer_program_is_refused(database):
    with holding(database, "LOCK TABLE campaign_enrollments IN ACCESS SHARE MODE"):
        child = start_next(database)
        wait_until(lambda: steps(database) == (0, 1), what="the first step")
        kill(child)
        wait_until(lambda: is_gone(database), 20)
    done = migrate(database, "up", check=False)
    assert done.returncode == 1 and "newer oncehook is half-way" in done.stderr
    database.sql("UPDATE schema_migration_steps SET checksum = repeat('0', 64)")
    done = migrate(database, "up", program=NEXT, check=False)
    assert done.returncode == 1 and "was changed while it was half-way" in done.stderr


def test_index_of_the_same_name_that_somebody_else_made_is_refused(database):
    database.sql("CREATE INDEX idx_next_events_delivery ON campaign_events (source)")
    done = migrate(database, "up", program=NEXT, check=False)
    assert done.returncode == 1 and "idx_next_events_delivery is there already" in done.stderr


def test_index_that_cannot_be_built_leaves_nothing_invalid(database):
    """Two columns alike in a UNIQUE index: the step fails, and the half-made index goes at once."""
    fill(database)
    migrate(database, "up", program=NEXT)
    migrate(database, "down", program=NEXT)
    database.sql("ALTER TABLE campaign_enrollments DROP CONSTRAINT campaign_enrollments_pkey CASCADE")
    database.sql("INSERT INTO campaign_enrollments SELECT e.id, e.instance_id, gen_random_uuid() "
                 "FROM campaign_enrollments e LIMIT 1")
    done = migrate(database, "up", program=NEXT, check=False)
    assert done.returncode == 2 and "could not create unique index" in done.stderr
    assert database.value("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0


def test_every_index_that_the_report_asks_for_is_there(database):
    """2.2, 2.3, 9 Migration 2, Appendix B; none is INVALID."""
    made = {name for (name,) in database.sql("SELECT c.relname FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid "
                                             "WHERE x.indisvalid")}
    wanted = {"idx_campaign_events_type_timestamp", "idx_campaign_enrollments_instance_status",
              "idx_campaign_enrollments_completed", "idx_campaign_instances_template_status",
              "idx_enrichment_cache_expires_at"}
    if database.value("SELECT to_regclass('imported_contacts') IS NOT NULL"):
        wanted.add("idx_imported_contacts_company_domain")
    assert wanted <= made
