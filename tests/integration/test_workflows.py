"""workflow_states: our own long work is recorded through begin, step and end; what was killed is known."""

import contextlib

import psycopg2
import pytest

from support.capture import connect
from support.process import wait_until


def workflow(database, one):
    return database.sql("SELECT workflow_name, status, current_step, error, context, completed_at >= started_at "
                        "FROM workflow_states WHERE id = %s", one)[0]


@pytest.fixture
def session(database):
    """A session of the gateway's role: call("step", id, …)."""
    with contextlib.closing(connect(database.gateway_url)) as connection, connection.cursor() as cursor:
        def call(function, *arguments):
            cursor.execute(f"SELECT workflow_{function}_v1({', '.join(['%s'] * len(arguments))})", arguments)
            return cursor.fetchone()[0]
        yield call


def test_begin_step_end_are_a_row_that_says_how_it_went(database, session):
    one = session("begin", "retention", '{"days": 90}')
    assert workflow(database, one) == ("oncehook.retention", "running", None, None, {"days": 90}, None)
    session("step", one, "fold 2026_05", '{"months": 1}')
    session("step", one, "drop 2026_05")
    assert workflow(database, one) == \
        ("oncehook.retention", "running", "drop 2026_05", None, {"days": 90, "months": 1}, None)
    session("end", one, None, '{"events": 7}')
    assert workflow(database, one) == \
        ("oncehook.retention", "completed", "drop 2026_05", None, {"days": 90, "months": 1, "events": 7}, True)


def test_what_ended_stays_as_it_ended(database, session):
    one = session("begin", "audit")
    session("end", one, "the disk is full")
    session("end", one)
    session("step", one, "later")
    assert workflow(database, one) == ("oncehook.audit", "failed", None, "the disk is full", {}, True)
    assert database.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


def test_killed_workflow_is_failed_by_the_next_begin_and_no_other_row_is_touched(database, session):
    database.sql("INSERT INTO workflow_states (workflow_name) VALUES ('users own, running for ever')")
    alive = session("begin", "drain")
    with contextlib.closing(connect(database.gateway_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT workflow_begin_v1('audit'), pg_backend_pid()")
        dead, pid = cursor.fetchone()
        session("end", session("begin", "retention"))
        assert workflow(database, dead)[1] == "running", "its session is there"
    wait_until(lambda: database.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", pid) == 0,
               what="the end of the session")
    session("end", session("begin", "retention"))
    assert workflow(database, dead)[1:4] == ("failed", None, "the process that ran it is gone")
    assert workflow(database, alive)[1] == "running", "the session's own"
    assert database.value("SELECT status FROM workflow_states WHERE workflow_name LIKE 'users%'") == "running"


def test_workflow_without_a_name_is_refused(session):
    for name in (None, ""):
        with pytest.raises(psycopg2.errors.InvalidParameterValue):
            session("begin", name)


def test_cache_rows_always_expire(database):
    """The report's fix adds expires_at and fills it once; what is written later stays for ever. And it joins
    the key as type || '_' || key, where these two rows are one."""
    database.sql("INSERT INTO enrichment_cache (type, key) VALUES ('a_b', 'c'), ('a', 'b_c')")
    assert database.sql("SELECT DISTINCT expires_at - cached_at = interval '30 days', data FROM enrichment_cache") == \
        [(True, {})]
    with pytest.raises(psycopg2.errors.NotNullViolation):
        database.sql("UPDATE enrichment_cache SET expires_at = NULL")
