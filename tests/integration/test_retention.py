"""oncehook retention: what is old leaves, what it counted stays, and nobody waits for it."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import resource
import signal
import subprocess
import threading
import time
import uuid

import psycopg2
import pytest

from support.capture import COUNTED, call, capture, connect, event
from support.gateway import BINARY, REPOSITORY, environment, oncehook
from support.postgres import OWNER
from support.process import wait_until

# Appendix A of the report. Its own remedy, parseInt, reads 30 in each of them and accepts it.
ATTACKS = ["30'; DROP TABLE workflow_states; --", "30 OR 1=1", "30; DELETE FROM workflow_states",
           "30 UNION SELECT * FROM pg_shadow"]
PARSE_INT = ["30abc", "30.5", "3e1", " 30", "30 ", "+30", "-30", "0x1e", "", "٣٠", "1\n", "0", "366",
             "99999999999999999999", "NaN"]


def retention(database, *arguments, check=True, **options):
    return oncehook("retention", "--database", database.owner_url, *arguments, check=check, timeout=120, **options)


def audit(database):
    done = oncehook("audit", "--database", database.gateway_url, check=False, timeout=120)
    with open(os.path.join(REPOSITORY, "sql", "audit_window.sql"), encoding="utf-8") as file:
        window = re.sub(r"--[^\n]*", "", file.read()).replace("$1", "%s")
    after, drifts = None, 0
    while rows := database.sql(window, *[after] * window.count("%s")):
        after, drifts = rows[0][0], drifts + rows[0][1]
    return done.returncode, done.stdout.splitlines()[-1].rpartition(": ")[2], drifts


GOOD = (0, "0 drifts", 0)


def make_month(database, month, moved=None):
    """An old month as oncehook_make_months would have made it, and the events of `moved` (SQL) in it."""
    table = f"campaign_events_{month.replace('-', '_')}"
    database.sql(f"CREATE TABLE {table} (LIKE campaign_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    database.sql(f"ALTER TABLE {table} OWNER TO {OWNER}")
    database.sql(f"ALTER TABLE campaign_events ATTACH PARTITION {table} FOR VALUES FROM ('{month}-01 00:00:00+00') TO "
                 f"(timestamptz '{month}-01 00:00:00+00' + interval '1 month')")
    if moved:
        database.sql(f"UPDATE event_keys k SET received_at = '{month}-15' FROM campaign_events v WHERE "
                     f"k.provider_event_id = v.provider_event_id AND k.key_scope = v.key_scope AND {moved}")
        database.sql(f"UPDATE campaign_events v SET received_at = '{month}-15' WHERE {moved}")
    return table


@pytest.fixture
def old(database):
    """3 instances, 12 enrollments; events in two old months and in this one, some without a counter."""
    database.seeded = database.seed(instances=3, enrollments=4)
    for provider in ("p2001", "p2002", "now"):
        for instance, enrollments in database.seeded:
            capture(database.gateway_url, *[event(provider=provider, enrollment=one, type=kind)
                                            for one in enrollments for kind in COUNTED[:3]],
                    *[event(provider=provider, instance=instance, type=kind) for kind in COUNTED])
        capture(database.gateway_url, *[event(provider=provider, enrollment=str(uuid.uuid4())) for _ in range(5)],
                event(provider=provider), event(provider=provider, enrollment=database.seeded[0][1][0], type="other"))
    database.tables = [make_month(database, month, f"v.provider = 'p{month[:4]}'") for month in ("2001-03", "2002-07")]
    database.each = 3 * 12 + 3 * 8 + 7
    return database


def count(database, table="campaign_events", where="true"):
    return database.value(f"SELECT count(*) FROM {table} WHERE {where}")


def step(database, archive=False, url=None):
    with contextlib.closing(connect(url or database.gateway_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM retention_step_v1(30, 90, true, 90, %s)", (archive,))
        return cursor.fetchone()


def counters(database):
    return database.sql("SELECT * FROM campaign_instances ORDER BY id"), \
        database.sql("SELECT id, total_events, last_event_at FROM campaign_enrollments ORDER BY id")


# ---- months ---------------------------------------------------------------------------------

def test_audit_is_at_zero_before_during_and_after_and_counters_stay(old):
    before = counters(old)
    assert audit(old) == GOOD
    for table in old.tables:
        for what, amount in (("retired", None), ("folded", old.each), ("dropped", old.each)):
            assert step(old) == (what, table, amount)
            assert audit(old) == GOOD and counters(old) == before, what
            # What comes meanwhile is counted beside it.
            capture(old.gateway_url, event(enrollment=old.seeded[1][1][2], type="opened"))
            assert audit(old) == GOOD
            before = counters(old)
    assert step(old) == (None, None, None)
    assert count(old) == old.each + 6 and count(old, "campaign_events_retired") == 0
    assert old.sql("SELECT table_name, events, bound, dropped_at IS NOT NULL FROM retired_months ORDER BY 1") == \
        [(table, old.each, old.each - 6, True) for table in old.tables]


def test_the_sums_are_small(old):
    retention(old)
    # Not a row an event: one an instance, type and month; one an enrollment.
    assert count(old, "folded_events") == 2 * (3 * 8 + 1) and count(old, "folded_enrollments") == 12
    assert old.value("SELECT sum(events) FROM folded_events") == 2 * (old.each - 6)


def test_drift_is_still_seen_in_what_was_folded_and_repaired(old):
    retention(old)
    enrollment = old.seeded[0][1][0]
    old.sql("UPDATE campaign_enrollments SET total_events = total_events + 3 WHERE id = %s", enrollment)
    old.sql("UPDATE campaign_instances SET total_sent = total_sent - 2 WHERE id = %s", old.seeded[1][0])
    assert audit(old) == (1, "2 drifts", 2)
    before = count(old, "folded_events")
    assert oncehook("audit", "--repair", "--database", old.gateway_url).returncode == 0
    assert audit(old) == GOOD and before == count(old, "folded_events")


def test_late_binding_leaves_retired_months_alone(old):
    late = str(uuid.uuid4())
    instance = old.seeded[0][0]
    capture(old.gateway_url, *[event(provider=p, enrollment=late, type="opened") for p in ("late", "late", "now")])
    make_month(old, "2003-01", "v.provider = 'late'")
    while step(old)[0] != "retired" or old.value("SELECT max(to_at) FROM retired_months") < \
            old.value("SELECT timestamptz '2003-02-01+00'"):
        pass
    old.sql("INSERT INTO campaign_enrollments (id, instance_id) VALUES (%s, %s)", late, instance)
    with contextlib.closing(connect(old.gateway_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT enrollments::text[] FROM unbound_v1(NULL, NULL, 1000, 1000)")
        assert late in cursor.fetchone()[0]
        cursor.execute("SELECT bind_v1(ARRAY[%s::uuid], 1000)", (late,))
        assert cursor.fetchone() == (1,), "the one in this month"
    assert audit(old) == GOOD
    retention(old)
    assert audit(old) == GOOD
    assert old.value("SELECT total_events FROM campaign_enrollments WHERE id = %s", late) == 1


def test_days_decide_by_whole_months(database):
    last = database.value("SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 day', 'YYYY-MM')")
    age = database.value("SELECT extract(day FROM now() AT TIME ZONE 'UTC')::integer - 1")  # of last month's end
    table = make_month(database, last)
    assert f"{table}: left" not in retention(database, "--table", "events", "--days", str(age + 1)).stdout
    if age >= 1:
        assert f"{table}: dropped" in retention(database, "--table", "events", "--days", str(age)).stdout


def test_a_reader_holds_a_month_up_but_never_a_capture(old):
    """The months leave as soon as the reader is done; captures wait for 100 ms at most each time."""
    waits, done = [], threading.Event()

    def captures():
        with contextlib.closing(connect(old.gateway_url)) as connection, connection.cursor() as cursor:
            while not done.is_set():
                start = time.monotonic()
                call(cursor, event(enrollment=old.seeded[0][1][0]))
                waits.append(time.monotonic() - start)
    with contextlib.closing(old.connect()) as reader, reader.cursor() as cursor:
        reader.autocommit = False
        cursor.execute("SELECT count(*) FROM campaign_events")
        thread = threading.Thread(target=captures)
        thread.start()
        try:
            run = subprocess.Popen([BINARY, "retention", "--database", old.owner_url], env=environment(),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            time.sleep(2)
            assert run.poll() is None and count(old, "pg_inherits", "inhparent = 'campaign_events'::regclass") == 6
            reader.rollback()
            assert run.wait(30) == 0
        finally:
            done.set()
            thread.join()
            run.communicate()
    # Each try holds one capture up. The middle one is what they wait for the lock; where the machine has no
    # time, one of them waits longer, for that.
    held_up = sorted(wait for wait in waits if wait > 0.08)
    assert len(waits) > 20 and len(held_up) >= 2, held_up
    assert held_up[(len(held_up) - 1) // 2] < 0.15 and held_up[-1] < 1, held_up
    assert audit(old) == GOOD


def test_the_gateways_role_may_take_steps_and_nothing_else(old):
    for statement in ("SELECT fold_month_v1('x')", "SELECT drop_month_v1('campaign_events')", "SELECT old_months(1)",
                      "SELECT retire_month_v1(1, false)", "SELECT archived_month_v1('x', '', '', 0)",
                      "DELETE FROM folded_events", "UPDATE retired_months SET bytes = 0",
                      "SELECT retire_workflows_v1('completed', 1, 1)", "INSERT INTO folded_enrollments DEFAULT VALUES",
                      f"DROP TABLE {old.tables[0]}", "SELECT expire_cache_v1(1)"):
        with contextlib.closing(connect(old.gateway_url)) as connection, connection.cursor() as cursor:
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(statement)
    with contextlib.closing(connect(old.gateway_url)) as connection, connection.cursor() as cursor:
        for days in (0, 3651, -1):
            with pytest.raises(psycopg2.errors.InvalidParameterValue, match="Invalid retentionDays"):
                cursor.execute("SELECT * FROM retention_step_v1(NULL, NULL, false, %s, false)", (days,))


# ---- archives -------------------------------------------------------------------------------

def test_archive_is_whole_checked_and_read_back(old, tmp_path):
    columns = "id, received_at, tx, enrollment_id, source, provider_event_id, event_type, payload, payload_bytes"
    rows = sorted(old.sql(f"SELECT {columns} FROM {old.tables[0]}"), key=str)
    said = retention(old, "--archive", str(tmp_path)).stdout
    assert sorted(os.listdir(tmp_path)) == sorted(f"{table}.copy.gz{end}" for table in old.tables for end in ("", ".sha256"))
    for table in old.tables:
        assert f"{table}: {old.each} events in {tmp_path}/{table}.copy.gz" in said
        subprocess.run(["sha256sum", "--check", "--strict", f"{table}.copy.gz.sha256"], cwd=tmp_path, check=True)
        with open(tmp_path / f"{table}.copy.gz", "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == old.value(
                "SELECT archive_sha256 FROM retired_months WHERE table_name = %s AND dropped_at IS NOT NULL", table)
    old.sql("CREATE TABLE back (LIKE campaign_events)")
    with contextlib.closing(old.connect()) as connection, connection.cursor() as cursor:
        with gzip.open(tmp_path / f"{old.tables[0]}.copy.gz") as file:
            cursor.copy_expert("COPY back FROM STDIN WITH (FORMAT text, HEADER MATCH)", io.BytesIO(file.read()))
        connection.commit()
    assert sorted(old.sql(f"SELECT {columns} FROM back"), key=str) == rows
    assert audit(old) == GOOD


def test_nothing_is_dropped_before_its_archive(old, tmp_path):
    taken = tmp_path / f"{old.tables[0]}.copy.gz"
    taken.write_text("somebody else's")
    done = retention(old, "--archive", str(tmp_path), check=False)
    assert done.returncode == 1 and "is there already" in done.stderr
    assert taken.read_text() == "somebody else's" and sorted(os.listdir(tmp_path)) == [taken.name]
    # It waits for its archive: neither the gateway nor a run without one takes it further.
    assert count(old, "campaign_events_retired") == old.each and audit(old) == GOOD
    assert "waits for its archive" in retention(old, "--dry-run").stdout
    retention(old)
    assert count(old, "campaign_events_retired") == old.each and count(old) == old.each
    taken.unlink()
    assert f"{old.tables[0]}: dropped" in retention(old, "--archive", str(tmp_path)).stdout
    assert count(old, "campaign_events_retired") == 0 and audit(old) == GOOD


@pytest.mark.parametrize("directory", ["/nowhere/at/all", "/dev/full", "/proc"])
def test_a_directory_that_cannot_take_archives_is_refused_before_anything_is_done(old, directory):
    """Else the first month has left and waits for an archive, and holds back every key."""
    make_workflows(old)
    for more in [], ["--dry-run"]:
        done = retention(old, "--archive", directory, *more, check=False)
        assert done.returncode == 2 and directory in done.stderr and done.stdout == ""
    assert count(old) == 3 * old.each and count(old, "retired_months") == 0 and len(own(old)) == 12


def test_a_full_disk_leaves_the_month_and_says_what_to_do(old, tmp_path):
    """No file may grow beyond a block: as a full disk, and without one."""
    done = subprocess.run([BINARY, "retention", "--database", old.owner_url, "--archive", str(tmp_path)], text=True,
                          env=environment(), capture_output=True, timeout=120,
                          preexec_fn=lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
                                              resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))))
    assert done.returncode == 1 and os.listdir(tmp_path) == []
    assert f"{old.tables[0]} waits for its archive: run it again" in done.stderr
    assert old.value("SELECT error FROM workflow_states WHERE workflow_name = 'oncehook.retention'").endswith(": File too large")
    assert count(old) + count(old, "campaign_events_retired") == 3 * old.each and audit(old) == GOOD
    assert "2 months" in retention(old, "--archive", str(tmp_path)).stdout and audit(old) == GOOD


def test_a_month_that_waits_for_its_archive_is_named_by_doctor(old, tmp_path):
    (tmp_path / f"{old.tables[0]}.copy.gz").write_text("in the way")
    assert retention(old, "--archive", str(tmp_path), check=False).returncode == 1
    retention(old)
    looks = json.loads(oncehook("doctor", "--database", old.gateway_url, "--json", check=False).stdout)["checks"]
    rows = next(look["rows"] for look in looks if look["name"] == "retention")
    assert [row["words"] for row in rows if row["subject"] == old.tables[0] and row["state"] == "person"] == \
        ["longer than events are kept: it waits for its archive, oncehook retention --archive DIR"]


# ---- workflows, cache -----------------------------------------------------------------------

AGES = [("completed", 29, True), ("completed", 31, False), ("failed", 89, True), ("failed", 91, False),
        ("running", 9000, True), ("paused", 9000, True)]


def make_workflows(database, **more):
    for status, age, _ in AGES:
        for has_end in (True, False):
            database.sql("INSERT INTO workflow_states (workflow_name, status, current_step, context, started_at, "
                         "completed_at) VALUES (%s, %s, 'last', '{\"a\": 1}', now() - %s * interval '1 day', "
                         "CASE WHEN %s THEN now() - %s * interval '1 day' END)",
                         f"{status} {age}", status, age, has_end, age)


def own(database, table="workflow_states"):
    return sorted(row[0] for row in database.sql(
        f"SELECT workflow_name FROM {table} WHERE workflow_name NOT LIKE 'oncehook.%%'"))


def test_workflows_leave_by_tiers_into_the_archive_and_running_ones_never(database):
    make_workflows(database)
    assert "workflow_states: 2 completed and 2 failed archived" in retention(database, "--table", "workflows").stdout
    assert own(database) == sorted(2 * [f"{status} {age}" for status, age, stays in AGES if stays])
    assert own(database, "workflow_states_archive") == sorted(2 * ["completed 31", "failed 91"])
    assert database.sql("SELECT DISTINCT current_step, context, archived_at > now() - interval '1 minute' "
                        "FROM workflow_states_archive") == [("last", {"a": 1}, True)]
    assert database.sql("SELECT status, completed_at >= started_at FROM workflow_states "
                        "WHERE workflow_name = 'oncehook.retention'") == [("completed", True)]


@pytest.mark.parametrize("days, left", [("365", ["completed 29", "completed 31"]), ("30", ["completed 29"]), ("7", [])])
def test_days_of_workflows_are_for_those_that_completed(database, days, left):
    make_workflows(database)
    retention(database, "--table", "workflows", "--days", days)
    assert own(database)[:-8 or None] == sorted(2 * left) or [n for n in own(database) if n.startswith("c")] == sorted(2 * left)
    assert "failed 89" in own(database) and "failed 91" not in own(database)


def test_workflows_are_archived_and_deleted_or_neither(database):
    make_workflows(database)
    database.sql("ALTER TABLE workflow_states_archive ADD CHECK (status <> 'failed')")
    done = retention(database, "--table", "workflows", check=False)
    assert done.returncode == 1 and "violates check constraint" in done.stderr
    assert own(database).count("failed 91") == 2 and "failed 91" not in own(database, "workflow_states_archive")
    assert database.value("SELECT error FROM workflow_states WHERE workflow_name = 'oncehook.retention'") == \
        "SQLSTATE 23514: the server's words may quote the event and are not shown"


@pytest.mark.parametrize("before, error", [
    ("ALTER TABLE workflow_states_archive RENAME TO elsewhere", 'SQLSTATE 42P01: relation "workflow_states_archive" does not exist'),
    ("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no: %', NEW; END $$;"
     "CREATE TRIGGER no BEFORE INSERT ON workflow_states_archive FOR EACH ROW EXECUTE FUNCTION no()",
     "SQLSTATE P0001: the server's words may quote the event and are not shown")])
def test_the_row_of_a_retention_that_failed_says_why_and_quotes_nothing(database, before, error):
    make_workflows(database)
    database.sql(before)
    assert retention(database, "--table", "workflows", check=False).returncode == 1
    assert database.sql("SELECT status, error FROM workflow_states WHERE workflow_name = 'oncehook.retention'") == [("failed", error)]


def test_cache_rows_leave_at_their_expiry(database):
    database.sql("INSERT INTO enrichment_cache (type, key, expires_at) SELECT 'person', k::text, "
                 "now() + (k - 2500) * interval '1 hour' - interval '1 minute' FROM generate_series(1, 3000) k")
    assert "enrichment_cache: 2500 deleted" in retention(database, "--table", "cache").stdout
    assert count(database, "enrichment_cache") == 500


# ---- the ledger -----------------------------------------------------------------------------

def deleted(done):
    return int(re.search(r"event_keys: (\d+) deleted", done.stdout)[1])


def test_no_key_leaves_before_its_event(old):
    assert deleted(retention(old, "--table", "ledger", "--days", "1")) == 0  # the months of 2001 and 2002 are there
    assert step(old)[0] == "retired"                                        # one of them is on its way
    assert deleted(retention(old, "--table", "ledger")) == 0 and audit(old) == GOOD
    retention(old, "--table", "events")
    assert count(old, "event_keys") == 3 * old.each and audit(old) == GOOD
    assert deleted(retention(old, "--table", "ledger", "--days", "3650")) == 2 * old.each
    assert count(old, "event_keys") == count(old) == old.each and audit(old) == GOOD


def test_keys_leave_at_their_age_wherever_they_lie(database):
    database.sql("INSERT INTO event_keys SELECT k, 'name:x', now() - k * interval '1 day' - interval '1 minute'"
                 " FROM generate_series(1, 400) k ORDER BY md5(k::text)")
    first = database.value("SELECT date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'")
    young = count(database, "event_keys", f"received_at >= '{first}'")
    assert deleted(retention(database, "--table", "ledger", "--days", "300")) == 101
    assert deleted(retention(database)) == 120 and count(database, "event_keys") == 179
    assert deleted(retention(database, "--table", "ledger", "--days", "1")) == 179 - young  # this month is there


def test_an_event_that_comes_after_its_key_has_left_is_new(old):
    again = event(id="again", provider="p2001", enrollment=old.seeded[0][1][0], type="sent")
    capture(old.gateway_url, again)
    make_month(old, "2001-04")
    old.sql("UPDATE event_keys SET received_at = '2001-04-15' WHERE provider_event_id = 'again'")
    old.sql("UPDATE campaign_events SET received_at = '2001-04-15' WHERE provider_event_id = 'again'")
    retention(old, "--table", "events")
    capture(old.gateway_url, again)
    assert count(old, where="provider_event_id = 'again'") == 0  # the ledger outlives the month
    retention(old, "--table", "ledger")
    capture(old.gateway_url, again)
    assert count(old, where="provider_event_id = 'again'") == 1 and audit(old) == GOOD


def test_a_capture_of_a_key_that_leaves_waits_and_captures_anew(database):
    database.sql("INSERT INTO event_keys SELECT 'k' || k, 'provider:p', '2001-01-01' FROM generate_series(1, 500) k")
    mine = event(id="k7", scope="provider:p")
    with contextlib.closing(database.connect()) as walker, walker.cursor() as cursor:
        walker.autocommit = False
        cursor.execute("SELECT step, amount FROM retention_step_v2(NULL, NULL, false, NULL, false, 180, now())")
        assert cursor.fetchone() == ("forgotten", 500)
        captured = threading.Thread(target=capture, args=(database.gateway_url, mine))
        captured.start()
        wait_until(lambda: count(database, "pg_locks", "NOT granted") == 1, what="the capture's wait")
        walker.commit()
        captured.join(10)
    assert count(database) == 1 and count(database, "event_keys") == 1 and audit(database) == GOOD


def held(connection):
    """What a session holds on tables, indexes and rows: {relation: {mode}}."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT relation::regclass::text, array_agg(mode) FROM pg_locks WHERE pid = pg_backend_pid()"
                       " AND locktype = 'relation' AND relation::regclass::text NOT LIKE 'pg_%%' GROUP BY 1")
        return {relation: set(modes) for relation, modes in cursor.fetchall()}


def test_a_capture_waits_for_a_walk_only_at_the_keys_that_leave(database):
    """The walk's transaction is held open, so whatever a capture would wait for, it would wait for ever: no clock."""
    seeded = database.seed(instances=1, enrollments=1)
    # Old and young by turns: they share pages of the table and of the index.
    database.sql("INSERT INTO event_keys SELECT 'k' || k, 'name:x', CASE k % 2 WHEN 0 THEN '2001-01-01' ELSE now() END"
                 " FROM generate_series(1, 2000) k")
    with contextlib.closing(database.connect()) as walker, walker.cursor() as cursor:
        walker.autocommit = False
        cursor.execute("SELECT step, amount FROM retention_step_v2(NULL, NULL, false, NULL, false, 180, now())")
        assert cursor.fetchone() == ("forgotten", 1000)
        # Nothing that conflicts with a capture's own locks, or with autovacuum's.
        locks = held(walker)
        assert locks["event_keys"] == {"RowExclusiveLock"} and "campaign_instances" not in locks
        assert set().union(*locks.values()) == {"AccessShareLock", "RowExclusiveLock"}, locks
        with contextlib.closing(connect(database.gateway_url)) as connection, connection.cursor() as one:
            one.execute("SET lock_timeout = '5s'")  # fails then instead of hanging; nothing comes near it
            assert call(one, *[event(id=f"new {k}", scope="name:x", enrollment=seeded[0][1][0]) for k in range(500)],
                        *[event(id=f"k{k}", scope="name:x") for k in range(1, 500, 2)]) == "c" * 500 + "d" * 250
            connection.commit()
            mine = connection.get_backend_pid()
            captured = threading.Thread(target=call, args=(one, event(id="k2", scope="name:x")))
            captured.start()
            wait_until(lambda: database.value("SELECT pg_blocking_pids(%s)", mine) == [walker.get_backend_pid()],
                       what="the capture that brings a key that leaves")
            walker.commit()
            captured.join(10)
            connection.commit()
    assert count(database, "event_keys") == 1501 and count(database) == 501


def test_a_walk_waits_for_no_capture(database):
    """A capture's transaction is held open; the walk passes the pages that it wrote to (its lock_timeout is 100 ms)."""
    database.sql("INSERT INTO event_keys SELECT 'k' || k, 'name:x', '2001-01-01' FROM generate_series(1, 500) k")
    with contextlib.closing(connect(database.gateway_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        call(cursor, *[event(id=f"new {k}", scope="name:x") for k in range(50)],
             event(id="k7", scope="name:x"))  # a duplicate of a key that leaves
        assert deleted(retention(database, "--table", "ledger")) == 500
        connection.commit()
    assert count(database, "event_keys") == 50


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_walk_that_was_stopped_goes_on_from_its_page(database, number):
    total = 300000
    database.sql("INSERT INTO event_keys SELECT 'key ' || k, 'name:x', CASE WHEN k % 3 = 0 THEN now() ELSE '2001-01-01' END"
                 f" FROM generate_series(1, {total}) k")
    run = subprocess.Popen([BINARY, "retention", "--database", database.owner_url], env=environment(),
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: count(database, "key_walk", "next_page > 0") == 1, what="its first step")
    run.send_signal(number)
    run.communicate(timeout=20)
    assert run.returncode == (1 if number == signal.SIGINT else -number)
    wait_until(lambda: count(database, "pg_locks", "locktype = 'advisory'") == 0, what="the end of its session")
    [(page, end, gone)] = database.sql("SELECT next_page, end_page, keys FROM key_walk WHERE ended_at IS NULL")
    assert 0 < page < end and count(database, "event_keys") == total - gone
    plan = retention(database, "--dry-run").stdout
    done = deleted(retention(database))
    assert f"event_keys: {done} keys received before " in plan
    assert gone + done == total * 2 // 3 and count(database, "event_keys") == total // 3
    assert database.sql("SELECT keys FROM key_walk WHERE ended_at > now() - interval '1 minute'") == [(gone + done,)]


# ---- the command line -----------------------------------------------------------------------

@pytest.mark.parametrize("table", ["workflows", "events", "ledger"])
def test_appendix_a_is_refused_whole_and_touches_nothing(old, table):
    make_workflows(old)
    before = own(old)
    for days in ATTACKS + PARSE_INT + (["3651"] if table != "workflows" else []):
        if days == "366" and table != "workflows":
            continue
        done = retention(old, "--table", table, f"--days={days}", check=False)
        shown = days.replace("\n", "?")
        assert done.returncode == 2 and f"Invalid retentionDays: {shown}\n" in done.stderr, days
        assert done.stdout == ""
    assert own(old) == before and count(old) == 3 * old.each


@pytest.mark.parametrize("days", ["7", "30", "90", "365"])
def test_valid_days_of_appendix_a_are_accepted(database, days):
    assert retention(database, "--table", "workflows", "--days", days).returncode == 0


@pytest.mark.parametrize("arguments, words", [
    (["--days", "30"], "--days needs --table"), (["--table", "secrets"], "not 'secrets'"),
    (["--table", "cache", "--days", "30"], "--days: rows of the cache carry their own expiry"), (["--table"], "requires an argument")])
def test_usage(database, arguments, words):
    done = retention(database, *arguments, check=False)
    assert done.returncode == 2 and words in done.stderr


def test_dry_run_says_exactly_what_goes_and_changes_nothing(old):
    make_workflows(old)
    old.sql("INSERT INTO enrichment_cache (type, key, expires_at) VALUES ('person', 'a', now()), "
            "('company', 'b', now()), ('company', 'c', now() + interval '1 day')")
    lines = retention(old, "--dry-run").stdout.splitlines()
    assert len(lines) == 7
    assert any(line.startswith(f"event_keys: {2 * old.each} keys received before ") for line in lines)
    for table in old.tables:
        assert any(line.startswith(f"campaign_events: {table}, {old.each} events, ") for line in lines)
    assert any(line.startswith("workflow_states: 2 failed failed 91, the oldest of ") for line in lines)
    assert "enrichment_cache: 1 of type company, expired, would be deleted" in lines
    assert count(old) == 3 * old.each and len(own(old)) == 12 and count(old, "workflow_states") == 12
    assert retention(old).stdout.splitlines()[-1] == \
        ("workflow_states: 2 completed and 2 failed archived; enrichment_cache: 2 deleted; "
         f"campaign_events: 2 months, {2 * old.each} events; event_keys: {2 * old.each} deleted")
    assert retention(old, "--dry-run").stdout == "nothing is old enough\n"


def test_dry_run_with_archives_says_what_a_run_with_them_would_do(old, tmp_path):
    taken = tmp_path / f"{old.tables[0]}.copy.gz"
    lines = retention(old, "--dry-run", "--archive", str(tmp_path)).stdout.splitlines()
    assert [line.endswith(", would be archived, folded and dropped") for line in lines] == [True, True, False]
    taken.write_text("in the way")
    retention(old, "--archive", str(tmp_path), check=False)
    without = retention(old, "--dry-run").stdout
    assert f"campaign_events: {old.tables[0]}, {old.each} events, waits for its archive: --archive DIR\n" in without
    assert "event_keys" not in without, "that month holds back every key"
    lines = retention(old, "--dry-run", "--archive", str(tmp_path)).stdout.splitlines()
    assert [line.endswith(", would be archived, folded and dropped") for line in lines] == [True, True, False]
    assert f"event_keys: {2 * old.each} keys received before " in lines[2]
    taken.unlink()
    said = retention(old, "--archive", str(tmp_path)).stdout
    assert f"campaign_events: 2 months, {2 * old.each} events; event_keys: {2 * old.each} deleted" in said


def test_one_is_said_as_one(database):
    make_month(database, "2001-03")
    capture(database.gateway_url, event(provider="p"))
    database.sql("UPDATE event_keys SET received_at = '2001-03-15'")
    database.sql("UPDATE campaign_events SET received_at = '2001-03-15'")
    said = retention(database, "--dry-run").stdout
    assert "campaign_events_2001_03, 1 event, " in said and "event_keys: 1 key received before " in said
    said = retention(database).stdout
    assert "campaign_events_2001_03: 1 event folded" in said
    assert "campaign_events: 1 month, 1 event; event_keys: 1 deleted" in said


def test_only_one_runs_at_a_time(old):
    with contextlib.closing(old.connect()) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtext('oncehook retention'), hashtext(current_schema()))")
        done = retention(old, check=False)
        assert done.returncode == 2 and "another one is running" in done.stderr and count(old) == 3 * old.each


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_half_way_leaves_a_whole_state_and_the_next_run_goes_on(old, number):
    with contextlib.closing(old.connect()) as reader, reader.cursor() as cursor:
        reader.autocommit = False
        assert step(old)[0] == "retired"
        cursor.execute("SELECT count(*) FROM campaign_events_retired")  # folding goes on, dropping must wait
        run = subprocess.Popen([BINARY, "retention", "--database", old.owner_url], env=environment(),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: count(old, "retired_months", "folded_at IS NOT NULL") == 1, what="the fold")
        run.send_signal(number)
        _, said = run.communicate(timeout=20)
        assert run.returncode == (1 if number == signal.SIGINT else -number)
        assert number != signal.SIGINT or "the next run goes on from there" in said
        assert audit(old) == GOOD
    wait_until(lambda: count(old, "pg_locks", "locktype = 'advisory'") == 0, what="the end of its session")
    assert "2 months" in retention(old).stdout
    assert audit(old) == GOOD and count(old) == old.each
    assert old.sql("SELECT status, count(*) FROM workflow_states GROUP BY 1 ORDER BY 1") == [("completed", 1), ("failed", 1)]


def test_policy_comes_from_the_configuration(old, tmp_path):
    make_workflows(old)
    config = tmp_path / "o.yaml"
    config.write_text(json.dumps({
        "listen": {"http": "127.0.0.1:0"}, "database": {"url": old.gateway_url, "owner_url": old.owner_url},
        "retention": {"events": "3650d", "ledger": "3650d", "workflows": {"completed": "365d", "failed": "88d"}},
        "sources": [{"name": "hmac", "provider": "hmac", "secrets": ["0123456789abcdef"], "header": "X-Signature",
                     "algorithm": "sha256", "encoding": "hex"}]}))
    lines = oncehook("retention", "-c", str(config), "--dry-run").stdout.splitlines()
    assert sum(line.startswith("campaign_events: ") for line in lines) == 2  # of 2001 and 2002
    assert sum("failed 89" in line for line in lines) == 1 and not any("completed" in line for line in lines)
