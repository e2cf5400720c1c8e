"""Orphans: bound to the enrollment that appears later, and counted once, whoever misses whom."""

import contextlib
import threading
import time
import uuid

import psycopg2
import pytest

from support.capture import COUNTED, call, capture, connect, event
from support.process import wait_until

BOUND_S = 10  # the promise, from the enrollment's commit


def new_uuid():
    return str(uuid.uuid4())


def unbound(database):
    return database.value("SELECT count(*) FROM campaign_events WHERE instance_id IS NULL AND enrollment_id IS NOT NULL")


def enroll(database, instance, *enrollments):
    database.sql("INSERT INTO campaign_enrollments (id, instance_id) SELECT x::uuid, %s FROM unnest(%s) x",
                 instance, list(enrollments))


def bind(database, enrollments, limit=1000):
    """bind_v1 as the gateway's role."""
    with contextlib.closing(connect(database.gateway_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT bind_v1(%s::uuid[], %s)", (list(enrollments), limit))
        return cursor.fetchone()[0]


def look(database, seen=None, after=None, walk=1000, limit=1000):
    """unbound_v1: (seen, after, more, enrollments)."""
    with contextlib.closing(connect(database.gateway_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT seen::text, after::text, more, enrollments::text[] FROM unbound_v1(%s, %s, %s, %s)",
                       (seen, after, walk, limit))
        seen, after, more, found = cursor.fetchone()
        return seen, after, more, sorted(found or [])


# ---- bind_v1 --------------------------------------------------------------------------------

def test_bound_events_are_counted_exactly_as_captured_ones(database):
    """The same events, captured after the enrollment in one instance and before it in the other."""
    (early, (known,)), (late, _) = database.seed(instances=2)
    later = new_uuid()
    events = [{"type": kind, "at": f"2024-05-01T12:00:{at:02}Z"} for at, kind in enumerate(COUNTED + ["viewed"] * 3)]
    events.append({"type": "other", "at": "2999-01-01T00:00:00Z"})  # last_event_at is never in the future
    capture(database.gateway_url, *[event(enrollment=known, **one) for one in events])
    assert set(capture(database.gateway_url, *[event(enrollment=later, **one) for one in events])) == {"o"}
    enroll(database, late, later)
    assert bind(database, [later, new_uuid()]) == len(events) and bind(database, [later]) == 0
    columns = ", ".join(f"total_{name}" for name in COUNTED)
    totals = dict(database.sql(f"SELECT id::text, ARRAY[{columns}] FROM campaign_instances"))
    assert totals[early] == totals[late] == [1] * len(COUNTED)
    rows = dict((one, (total, last)) for one, total, last in database.sql(
        "SELECT id::text, total_events, last_event_at FROM campaign_enrollments WHERE id = ANY (%s::uuid[])",
        [known, later]))
    assert rows[known][0] == rows[later][0] == len(events)
    assert rows[later][1] == database.value("SELECT max(received_at) FROM campaign_events WHERE enrollment_id = %s", later)
    assert database.counter_drift() == [] and unbound(database) == 0


def test_one_call_binds_no_more_than_it_was_asked_for(database):
    (instance, _), = database.seed()
    later = [new_uuid() for _ in range(5)]
    capture(database.gateway_url, *[event(enrollment=one) for one in later * 5])
    enroll(database, instance, *later)
    assert [bind(database, later, 10) for _ in range(4)] == [10, 10, 5, 0]
    assert database.counter_drift() == []


def test_an_enrollment_and_its_orphans_in_one_transaction(database):
    (instance, _), = database.seed()
    later = new_uuid()
    capture(database.gateway_url, event(enrollment=later))
    with contextlib.closing(psycopg2.connect(database.gateway_url)) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO campaign_enrollments (id, instance_id) VALUES (%s, %s)", (later, instance))
        cursor.execute("SELECT bind_v1(ARRAY[%s]::uuid[], 1000)", (later,))
        assert cursor.fetchone() == (1,)
        connection.rollback()
        assert unbound(database) == 1
        cursor.execute("INSERT INTO campaign_enrollments (id, instance_id) VALUES (%s, %s)", (later, instance))
        cursor.execute("SELECT bind_v1(ARRAY[%s]::uuid[], 1000)", (later,))
        connection.commit()
    assert unbound(database) == 0 and database.counter_drift() == []


def test_two_that_bind_the_same_at_once_count_once(database):
    (instance, _), = database.seed()
    later = [new_uuid() for _ in range(20)]
    capture(database.gateway_url, *[event(enrollment=one) for one in later * 10])
    enroll(database, instance, *later)
    bound = []
    threads = [threading.Thread(target=lambda: bound.append(bind(database, later))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(bound) == 200 and database.counter_drift() == []


# ---- unbound_v1 -----------------------------------------------------------------------------

def test_a_look_finds_what_became_visible_since_the_last_one_and_nothing_else(database):
    (instance, _), = database.seed()
    late, never, other = new_uuid(), new_uuid(), new_uuid()
    capture(database.gateway_url, event(enrollment=late), event(enrollment=never))
    seen, _, more, found = look(database, walk=0)
    assert found == [] and not more
    enroll(database, instance, late)
    assert look(database, seen, walk=0)[3] == [late]
    seen = look(database, seen, walk=0)[0]
    assert look(database, seen, walk=0)[3] == []  # it was not bound, but it is not new
    with contextlib.closing(database.connect()) as running, running.cursor() as cursor:
        running.autocommit = False
        call(cursor, event(enrollment=other))  # cannot see the enrollment …
        enroll(database, instance, other)      # … which is committed before it
        seen = look(database, seen, walk=0)[0]
        seen = look(database, seen, walk=0)[0]
        running.commit()
    assert look(database, seen, walk=0)[3] == [other]


def test_a_look_is_bounded_and_says_that_there_is_more(database):
    (instance, _), = database.seed()
    later = [new_uuid() for _ in range(30)]
    capture(database.gateway_url, *[event(enrollment=one) for one in later])
    start = look(database, walk=0)[0]
    enroll(database, instance, *later)
    bound, seen, more = 0, start, True
    while more:
        before = seen
        seen, _, more, found = look(database, seen, walk=0, limit=7)
        assert len(found) <= 7 and (seen == before) == more
        bound += bind(database, found)
    assert bound == 30


def test_the_walk_comes_to_every_orphan(database):
    (instance, _), = database.seed()
    later = sorted(new_uuid() for _ in range(20)) + ["00000000-0000-0000-0000-000000000000"]
    capture(database.gateway_url, *[event(enrollment=one) for one in later * 2 + [new_uuid() for _ in range(20)]])
    enroll(database, instance, *later)
    found, after = set(), None
    for _ in range(100):
        _, after, _, some = look(database, None, after, walk=7)
        found.update(some)
        if after is None:
            break
    assert after is None and found == set(later)


def test_a_look_does_not_read_the_orphans_that_nobody_can_bind(database):
    """What it reads is counted by PostgreSQL itself, in index entries."""
    database.seed()
    database.sql("INSERT INTO campaign_events (enrollment_id, event_type) "
                 "SELECT gen_random_uuid(), 'sent' FROM generate_series(1, 20000)")
    database.sql("VACUUM ANALYZE")

    def entries(cursor):
        cursor.execute("SELECT sum(pg_stat_get_xact_tuples_returned(indexrelid)) FROM pg_index")
        return cursor.fetchone()[0]
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        cursor.execute("SELECT seen::text FROM unbound_v1(NULL, NULL, 0, 1000)")
        (seen,) = cursor.fetchone()
        connection.commit()
        before = entries(cursor)
        cursor.execute("SELECT enrollments FROM unbound_v1(%s, NULL, 100, 1000)", (seen,))
        assert cursor.fetchone() == (None,)
        assert entries(cursor) - before < 1000


# ---- the sweep of a gateway -----------------------------------------------------------------

def test_an_enrollment_by_plain_sql_binds_within_seconds(database, gateway):
    (instance, _), = database.seed()
    source, later = gateway.sources["sendgrid"], new_uuid()
    gateway.deliver("sendgrid", *[source.event(enrollment_id=later) for _ in range(3)], source.event(enrollment_id=new_uuid()))
    assert unbound(database) == 4
    time.sleep(2.5)  # a sweep has come and gone, with nothing to bind
    enroll(database, instance, later)
    wait_until(lambda: unbound(database) == 1, BOUND_S, what="bound")
    assert database.counter_drift() == []
    wait_until(lambda: gateway.metric("oncehook_orphans_bound_total") == 3, what="the metric")


def test_a_capture_held_between_its_snapshot_and_its_commit_is_bound_and_counted_once(database, gateway):
    """Neither sees the other: the capture looked before the enrollment was there, and commits after it."""
    (instance, _), = database.seed()
    later = new_uuid()
    with contextlib.closing(psycopg2.connect(database.gateway_url)) as held, held.cursor() as cursor:
        assert call(cursor, event(enrollment=later, type="opened"), event(enrollment=later, type="viewed")) == "oo"
        enroll(database, instance, later)
        time.sleep(5)  # the sweep sees the enrollment, and no orphan
        held.commit()
    wait_until(lambda: unbound(database) == 0, BOUND_S, what="bound")
    assert database.sql("SELECT i.total_opened, e.total_events FROM campaign_instances i, campaign_enrollments e "
                        "WHERE e.id = %s AND i.id = %s", later, instance) == [(1, 2)]
    assert database.counter_drift() == []


def test_a_flood_of_enrollments_is_bound_too(database, gateway):
    """More than one look holds, in one statement: the walk starts again."""
    (instance, _), = database.seed()
    database.sql("INSERT INTO campaign_events (enrollment_id, event_type) "
                 "SELECT gen_random_uuid(), 'sent' FROM generate_series(1, 5000)")
    time.sleep(2.5)  # a walk has come by all of them
    database.sql("INSERT INTO campaign_enrollments (id, instance_id) SELECT enrollment_id, %s FROM campaign_events", instance)
    wait_until(lambda: unbound(database) == 0, 30, what="bound")
    assert database.counter_drift() == [] and gateway.metric("oncehook_orphans_bound_total") == 5000


@pytest.mark.parametrize("gateways", [1, 2])
def test_what_was_missed_while_no_gateway_ran_is_bound_after_the_start(database, start_gateway, gateways):
    (instance, _), = database.seed()
    later = [new_uuid() for _ in range(300)]
    capture(database.gateway_url, *[event(enrollment=one) for one in later * 3])
    enroll(database, instance, *later)
    running = [start_gateway() for _ in range(gateways)]
    wait_until(lambda: unbound(database) == 0, BOUND_S, what="bound")
    assert database.counter_drift() == []
    wait_until(lambda: sum(one.metric("oncehook_orphans_bound_total") for one in running) == 900, what="the metric")
