"""/v1/events/after/{cursor}: no event is skipped or repeated, whatever commits when; and where the feed
cannot promise that, it says so."""

import contextlib
import json
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import pytest

from support import process
from support.capture import call, capture, connect, event
from support.gateway import TOKEN, oncehook
from support.wire import Wire


def ask(gateway, cursor, **parameters):
    """A page: (status, events, the next cursor)."""
    query = "?" + urllib.parse.urlencode(parameters) if parameters else ""
    answer = gateway.admin(f"/v1/events/after/{cursor}{query}", token=TOKEN)
    if answer.status not in (200, 204):
        return answer.status, answer.json["detail"], None
    events = [json.loads(line) for line in answer.body.splitlines()]
    assert answer.status == 200 or not events
    if events and not parameters.keys() & {"source", "type"}:
        assert events[-1]["cursor"] == answer.headers["oncehook-cursor"]
    return answer.status, events, answer.headers["oncehook-cursor"]


def follow(gateway, cursor="first", **parameters):
    """Everything that can be had now; the cursor behind it."""
    found = []
    while True:
        status, events, cursor = ask(gateway, cursor, **parameters)
        if status == 204:
            return found, cursor
        assert status == 200, events
        found += events


def ids(events):
    return [one["provider_event_id"] for one in events]


@pytest.fixture
def transaction(database):
    """transaction() -> a cursor with a transaction open, as a gateway's lane has it."""
    with contextlib.ExitStack() as stack:
        def begin():
            connection = stack.enter_context(contextlib.closing(connect(database.gateway_url)))
            cursor = connection.cursor()
            cursor.execute("BEGIN")
            return cursor
        yield begin


# ---- nothing is skipped, nothing is repeated -----------------------------------------------------------


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_an_event_in_flight_is_waited_for(gateway, database, transaction, end):
    """A capture's transaction stays open while later ones commit."""
    _, start = follow(gateway)
    slow = transaction()
    assert call(slow, event(id="slow")) == "c"
    capture(database.gateway_url, event(id="fast 1"))
    capture(database.gateway_url, event(id="fast 2"), event(id="fast 3"))
    # They are committed, and not given out: their cursor would be behind the slow one's place.
    assert database.value("SELECT count(*) FROM campaign_events") == 3
    found, cursor = follow(gateway, start)
    assert (found, cursor) == ([], start)
    slow.execute(end)
    later, cursor = follow(gateway, start)
    assert ids(later) == (["slow"] if end == "COMMIT" else []) + ["fast 1", "fast 2", "fast 3"]
    assert follow(gateway, cursor) == ([], cursor)
    # What a feed by time would have done: its cursor, at the last event it could see, is behind the slow one's.
    if end == "COMMIT":
        at = {one["provider_event_id"]: one["received_at"] for one in later}
        assert at["slow"] < at["fast 1"]


def test_writers_and_readers_at_random(gateway, database, rng):
    """Writers hold their transactions for any time and roll some back; readers follow, three events a page."""
    written, lock, over = set(), threading.Lock(), threading.Event()

    def write(seed):
        mine = type(rng)(seed)
        with contextlib.closing(connect(database.gateway_url)) as connection, connection.cursor() as cursor:
            for _ in range(12):
                events = [event() for _ in range(mine.randint(1, 4))]
                cursor.execute("BEGIN")
                if mine.random() < 0.5:
                    cursor.execute("SELECT pg_current_xact_id()")
                    time.sleep(mine.random() / 50)
                call(cursor, *events)
                time.sleep(mine.random() / 50)
                keep = mine.random() < 0.8
                cursor.execute("COMMIT" if keep else "ROLLBACK")
                if keep:
                    with lock:
                        written.update(one["id"] for one in events)

    def read(limit):
        found, cursor = [], "first"
        while True:
            ended = over.is_set()
            more, cursor = follow(gateway, cursor, limit=limit)
            found += more
            if ended and not more:
                return ids(found)

    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read, limit) for limit in (3, 7, 1000)]
        writers = [pool.submit(write, rng.random()) for _ in range(4)]
        for writer in writers:
            writer.result()
        over.set()
        orders = [reader.result() for reader in readers]
    for found in orders:
        assert len(found) == len(set(found)), "an event came twice"
        assert set(found) == written
    assert orders[0] == orders[1] == orders[2], "the order is not the same for everybody"


def test_a_crash_of_the_server_moves_no_cursor(start_gateway, private_cluster):
    made = private_cluster.create_database()
    oncehook("migrate", "up", "--database", made.owner_url)
    gateway = start_gateway(database=made)
    capture(made.gateway_url, event(id="before 1"), event(id="before 2"))
    [first, _], _ = follow(gateway)
    with contextlib.closing(connect(made.gateway_url)) as lost:
        cursor = lost.cursor()
        cursor.execute("BEGIN")
        call(cursor, event(id="lost"))
        private_cluster.crash()
    private_cluster.start()
    capture(made.gateway_url, event(id="after"))
    found = process.wait_until(lambda: (a := ask(gateway, first["cursor"]))[0] == 200 and a[1], 20, what="the feed again")
    assert ids(found) == ["before 2", "after"]


def test_the_event_of_an_orphan_that_is_bound_later_comes_once_as_it_is_then(gateway, database):
    """The feed tells of captures. Whom an orphan was bound to later is in its row, and in /v1/events."""
    [[instance, _]] = database.seed()
    enrollment = "7d0d4a86-9f3c-4d3d-9d1c-0c1f1a2b3c4d"
    capture(database.gateway_url, event(id="orphan", enrollment=enrollment))
    [orphan], cursor = follow(gateway)
    assert (orphan["instance_id"], orphan["enrollment_id"]) == (None, enrollment)
    database.sql("INSERT INTO campaign_enrollments (id, instance_id) VALUES (%s, %s)", enrollment, instance)
    process.wait_until(lambda: database.value("SELECT count(*) FROM campaign_events WHERE instance_id IS NOT NULL"),
                       15, what="the binding")
    assert follow(gateway, cursor) == ([], cursor)
    assert follow(gateway)[0][0]["instance_id"] == instance


# ---- where it starts, what it leaves out -----------------------------------------------------------------


def test_the_places_to_start_at(gateway, database):
    assert ask(gateway, "first")[:2] == ask(gateway, "now")[:2] == (204, [])
    capture(database.gateway_url, event(id="old"))
    database.sql("UPDATE campaign_events SET received_at = received_at - interval '1 hour'"
                 " WHERE date_trunc('month', received_at - interval '1 hour') = date_trunc('month', received_at)")
    capture(database.gateway_url, event(id="new"))
    assert ids(follow(gateway)[0]) == ["old", "new"]
    assert ask(gateway, "now")[:2] == (204, [])
    half_an_hour_ago = database.value("SELECT to_char(now() AT TIME ZONE 'UTC' - interval '30 minutes',"
                                      " 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
    found = ids(follow(gateway, half_an_hour_ago)[0])
    assert found[-1] == "new" and (found == ["new"] or "old" not in ids(follow(gateway)[0][1:]))
    assert ids(follow(gateway, "2001-01-01T00:00:00Z")[0]) == ["old", "new"]
    for wrong in ("1-2-3", "last", "2026-13-01T00:00:00Z", "1-2-3-4-5", "-1-2-3-4", "9" * 30, "now/"):
        assert ask(gateway, wrong)[0] in (400, 404), wrong


def test_a_filter_moves_on_over_what_it_leaves_out(gateway, database):
    for number in range(9):
        capture(database.gateway_url, event(id=f"e{number}", source="a" if number % 3 else "b",
                                            type="opened" if number % 2 else "sent"))
    found, end = follow(gateway, limit=2, source="b")
    assert ids(found) == ["e0", "e3", "e6"]
    assert ids(follow(gateway, limit=2, source="a", type="opened")[0]) == ["e1", "e5", "e7"]
    # A page that leaves all out is empty, and yet a page: its cursor goes on.
    status, events, cursor = ask(gateway, found[0]["cursor"], limit=2, source="b")
    assert (status, events) == (200, []) and cursor != found[0]["cursor"]
    assert ask(gateway, end, source="nobody")[0] == 204


def test_a_page_has_a_bound_in_bytes(gateway, database):
    """4 MiB of payloads, and at least one event."""
    payload = {"text": "x" * 1_500_000}
    capture(database.gateway_url, *(event(payload=payload) for _ in range(5)))
    sizes, cursor = [], "first"
    while True:
        status, events, cursor = ask(gateway, cursor, limit=1000)
        if status == 204:
            break
        sizes.append(len(events))
    assert sizes == [2, 2, 1]


def test_what_a_filter_leaves_out_does_not_end_a_page_by_its_bytes(gateway, database):
    """Else a source with few events is walked to by a page for every few events of others."""
    capture(database.gateway_url, *(event(source="loud", payload={"text": "x" * 1_500_000}) for _ in range(8)), event(id="few", source="few"))
    assert ids(ask(gateway, "first", source="few")[1]) == ["few"]


def test_bytes_that_jsonb_cannot_hold_come_as_base64(gateway, database):
    capture(database.gateway_url, event(payload=None, bytes=b"\xff\x00" * 60))
    [one] = follow(gateway)[0]
    assert one["payload"] is None and one["payload_base64"] == "/wD/AP8A" * 20


# ---- the long poll --------------------------------------------------------------------------------------


def test_a_long_poll_answers_when_there_is_something(gateway, database):
    _, start = follow(gateway)
    for place in (start, "now"):
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ask, gateway, place, wait=20)
            time.sleep(0.4)
            assert not waiting.done()
            began = time.monotonic()
            one = event()
            capture(database.gateway_url, one)
            status, events, start = waiting.result()
        assert status == 200 and ids(events) == [one["id"]]
        assert time.monotonic() - began < 3


def test_a_long_poll_ends_when_its_time_is_over_and_when_the_gateway_stops(gateway):
    began = time.monotonic()
    assert ask(gateway, "now", wait=1)[0] == 204
    assert 0.9 < time.monotonic() - began < 5
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, gateway, "now", wait=60)
        time.sleep(0.3)
        began = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - began < 6
        with contextlib.suppress(OSError, AssertionError):
            assert waiting.result()[0] == 204


def test_long_polls_are_bounded_and_who_hangs_up_makes_room(gateway):
    head = f"GET /v1/events/after/now?wait=60 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    wires = []

    def is_full():
        """One more waits, as long as there is room: one that found the readers busy was refused and waits not."""
        wires.append(Wire(gateway.admin_port))
        wires[-1].send(head.encode())
        return len(wires) > 16 and ask(gateway, "now", wait=1)[0] == 503

    process.wait_until(is_full, 40, what="the bound")
    began = time.monotonic()
    assert gateway.admin("/readyz").status == 200 and ask(gateway, "now")[0] == 204
    assert gateway.admin("/v1/templates", token=TOKEN).status == 200
    assert time.monotonic() - began < 2
    for wire in wires:
        wire.close()
    process.wait_until(lambda: ask(gateway, "now", wait=1)[0] == 204, what="room again")


# ---- what it cannot promise is said ----------------------------------------------------------------------


def test_a_cursor_of_a_retired_month_is_gone_and_not_a_silent_gap(gateway, database):
    [(month, end)] = database.sql("SELECT this - interval '1 month', this"
                                  " FROM date_trunc('month', now() AT TIME ZONE 'UTC') this")
    database.sql("CREATE TABLE old_month (LIKE campaign_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    database.sql("ALTER TABLE campaign_events ATTACH PARTITION old_month FOR VALUES FROM (%s) TO (%s)",
                 f"{month}+00", f"{end}+00")
    for number in range(3):
        database.sql("INSERT INTO campaign_events (provider_event_id, received_at) VALUES (%s, %s)",
                     f"old {number}", f"{month}+00")
    capture(database.gateway_url, event(id="new"))
    found, _ = follow(gateway)
    assert ids(found) == ["old 0", "old 1", "old 2", "new"]
    assert ids(follow(gateway, found[0]["cursor"])[0]) == ["old 1", "old 2", "new"]
    database.sql("ALTER TABLE campaign_events DETACH PARTITION old_month")
    status, detail, _ = ask(gateway, found[0]["cursor"])
    assert status == 410 and '"first"' in detail, detail
    assert ids(follow(gateway, "first")[0]) == ["new"]
    assert follow(gateway, found[3]["cursor"])[0] == []


def test_a_cursor_whose_event_was_lost_by_a_failover_is_gone(gateway, database):
    """What an asynchronous standby had not yet: the event is not there, its transaction's number is used
    again for another one."""
    capture(database.gateway_url, event(id="kept"))
    capture(database.gateway_url, event(id="lost"))
    found, cursor = follow(gateway)
    database.sql("DELETE FROM campaign_events WHERE provider_event_id = 'lost'")
    database.sql("INSERT INTO campaign_events (provider_event_id, tx) SELECT 'another', tx FROM campaign_events")
    status, detail, _ = ask(gateway, cursor)
    assert status == 410, detail
    again = detail.split('"')[1]
    assert ids(follow(gateway, again)[0]) == ["kept", "another"]
    # What it had: the feed goes on, since whatever came later has a higher number.
    assert ids(follow(gateway, found[0]["cursor"])[0]) == ["another"]


def test_a_cursor_of_another_cluster_and_events_of_a_dump(gateway, database):
    capture(database.gateway_url, event(id="here"))
    [one], cursor = follow(gateway)
    system, rest = one["cursor"].split("-", 1)
    assert ask(gateway, f"{int(system) + 1}-{rest}")[0] == 410
    database.sql("INSERT INTO campaign_events (provider_event_id, tx)"
                 " VALUES ('restored', (pg_current_xact_id()::text::bigint + 1000000)::text::xid8)")
    status, detail, _ = ask(gateway, cursor)
    assert status == 409 and "pg_resetwal" in detail, detail
