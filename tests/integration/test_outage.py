"""While PostgreSQL is away: `outage: refuse` says 503 at once, `outage: spool` says 202 and brings every event
to the database once it is back, whatever is killed meanwhile."""

import datetime
import json
import os
import signal
import threading
import time

import pytest

from support import gateway as gateway_module
from support import process, wire


@pytest.fixture
def server(private_cluster):
    """A migrated database in a PostgreSQL of this test alone: (cluster, database, enrollments)."""
    database = private_cluster.create_database()
    gateway_module.oncehook("migrate", "up", "--database", database.owner_url)
    enrollments = [one for _, some in database.seed(4, 5) for one in some]
    return private_cluster, database, enrollments


@pytest.fixture
def start_spooling(start_gateway, server, tmp_path):
    def start(config=None, **options):
        changes = gateway_module.merge({"outage": "spool", "spool": {"directory": str(tmp_path / "spool")}},
                                       config or {})
        gateway = start_gateway(changes, database=server[1], **options)
        if server[0].server is not None:  # `ready` means that the spool accepts
            wait_connected(gateway)
        return gateway
    return start


def wait_connected(gateway):
    process.wait_until(lambda: gateway.metric("oncehook_database_up") == 1, what="the database")


def stored(database):
    return {row[0] for row in database.sql("SELECT provider_event_id FROM campaign_events")}


def check_each_once(database, wanted):
    """Exactly these events, each once in ledger and events, and every counter the number of its events."""
    assert stored(database) == set(wanted)
    assert database.value("SELECT count(*) FROM campaign_events") == len(set(wanted))
    assert database.value("SELECT count(*) FROM event_keys") == len(set(wanted))
    assert database.counter_drift() == []


def waiting(gateway):
    return gateway.metric("oncehook_spool_events")


def wait_drained(gateway, timeout=30):
    process.wait_until(lambda: waiting(gateway) == 0, timeout, what="an empty spool")


def spool_deliveries(gateway, enrollments, rng, count):
    """So many deliveries of 200 events, each answered 202; returns the ids."""
    ids = set()
    for _ in range(count):
        events = [gateway.sources["hmac"].event(enrollment_id=rng.choice(enrollments)) for _ in range(200)]
        assert gateway.deliver("hmac", *events, tls=False).status == 202
        ids |= {event["id"] for event in events}
    return ids


def outcome(gateway, name, source="hmac"):
    return gateway.metric("oncehook_events_total", source=source, outcome=name)


class Clients:
    """Threads that deliver over kept-alive connections until stop(); an event is sent until it is answered
    200 or 202. .acked: {id: status}; .sent: all ids; .slow: seconds of each answered delivery."""

    def __init__(self, gateway, enrollments, rng, count=4, pause=0.0):
        self.gateway, self.enrollments, self.rng, self.pause = gateway, enrollments, rng, pause
        self.acked, self.sent, self.took, self.over = {}, [], [], threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(number,)) for number in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self, number):
        serial, source = 0, self.gateway.sources["hmac"]
        while not self.over.is_set():
            serial += 1
            event = source.event(f"c{number}-{serial}-{time.monotonic_ns()}",
                                 enrollment_id=self.rng.choice(self.enrollments))
            self.sent.append(event["id"])
            body = source.encode(event)
            while not self.over.is_set():
                began = time.monotonic()
                try:
                    status = self.gateway.post("hmac", body, tls=False, timeout=8).status
                except (OSError, AssertionError):
                    time.sleep(0.01)
                    continue
                if status in (200, 202):
                    self.took.append(time.monotonic() - began)
                    self.acked[event["id"]] = status
                    break
                time.sleep(0.01)
            time.sleep(self.pause)

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join()


# ---- refuse ---------------------------------------------------------------------------------------------


def test_refuse_says_503_at_once_while_the_database_is_known_to_be_down(start_gateway, server):
    cluster, database, enrollments = server
    gateway = start_gateway(database=database)
    source = gateway.sources["hmac"]
    assert gateway.deliver("hmac", source.event()).status == 200
    cluster.crash()
    process.wait_until(lambda: gateway.request("GET", "/readyz").status == 503, what="known to be down")
    took = []
    for _ in range(40):
        body = source.encode(source.event(enrollment_id=enrollments[0]))
        headers = source.sign(body)
        began = time.monotonic()
        answer = gateway.post("hmac", body, headers, tls=False)
        took.append(time.monotonic() - began)
        assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1
    took.sort()
    print(f"503 after p50 {took[20] * 1000:.1f} ms, max {took[-1] * 1000:.1f} ms")
    assert took[-4] < 0.05, took
    cluster.start()
    process.wait_until(lambda: gateway.deliver("hmac", source.event()).status == 200, what="back")


def test_an_outage_is_logged_at_once_and_then_once_a_second(start_gateway, server):
    """Of lines that say the same: the first at once, the next a second later with how many were left out."""
    cluster, database, _ = server
    gateway = start_gateway(database=database)
    cluster.crash()
    refused, until = 0, time.monotonic() + 8  # a lane that has not found out keeps one until its deadline of 3 s
    while time.monotonic() < until and len([1 for line in gateway.log_lines() if "suppressed" in line]) < 3:
        refused += gateway.deliver("hmac", gateway.sources["hmac"].event()).status == 503
    assert refused > 50
    kinds = {}
    told = [line for line in gateway.log_lines() if line["level"] in ("warning", "error")]
    for line in told:
        kinds.setdefault(tuple(line.get(name) for name in ("message", "source", "reason", "part")), []).append(line)
    for kind, lines in kinds.items():
        times = [datetime.datetime.fromisoformat(line["time"].rstrip("Z")) for line in lines]
        pauses = [(after - before).total_seconds() for before, after in zip(times, times[1:])]
        assert all(pause > 0.5 for pause in pauses), (kind, pauses)  # a line takes its own time a little later
    lines = [line for line in told if line["message"] == "delivery not admitted"]
    assert 3 <= len(lines) and "suppressed" not in lines[0]
    said = len(lines) + sum(line.get("suppressed", 0) for line in lines)
    assert refused / 3 < said <= refused, (said, refused)


def test_refusals_of_an_outage_are_not_held(start_gateway, server):
    """Those of overload are, for 100 ms (test_http.py): 30 of them would take 3 s on one connection."""
    cluster, database, _ = server
    gateway = start_gateway(database=database)
    source = gateway.sources["hmac"]
    cluster.crash()
    process.wait_until(lambda: gateway.deliver("hmac", source.event()).status == 503, what="the outage is known")
    body = source.encode(source.event())
    with gateway.wire() as one:
        began = time.monotonic()
        for _ in range(30):
            one.send(wire.request_bytes("POST", "/in/hmac", source.sign(body), body))
            assert one.answer().status == 503
        assert time.monotonic() - began < 3


def reasons(gateway):
    return {(line["reason"], line.get("part")) for line in gateway.log_lines()
            if line["message"] == "delivery not admitted"}


def test_what_is_said_of_a_refusal_is_true(start_gateway, server):
    """Away, unfit, or out of something: each by its name, and never "away" for a server that is there."""
    cluster, database, _ = server
    gateway = start_gateway(database=database)
    source = gateway.sources["hmac"]

    def refused_for(part):
        process.wait_until(lambda: gateway.request("GET", "/readyz").status == 503, what="not ready")
        process.wait_until(lambda: gateway.request("GET", "/readyz").json["detail"] == f"not ready: {part}", what=part)

        def refused():  # a lane that has just lost its connection still takes events for a moment
            answer = gateway.deliver("hmac", source.event())
            assert answer.status == 503
            return answer.json["detail"] == "events cannot be committed now; send it again"
        process.wait_until(refused, what="known to every lane")
        assert ("events cannot be committed now; send it again", part) in reasons(gateway)
        assert json.loads(gateway.admin("/readyz").body)["detail"].startswith(f"Events cannot be taken now: {part}: ")

    cluster.crash()
    refused_for("database")
    cluster.start()
    process.wait_until(lambda: gateway.request("GET", "/readyz").status == 200, what="ready again")
    database.sql(f"ALTER DATABASE {database.name} SET synchronous_commit = off")
    end_lanes = ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                 " AND application_name LIKE 'oncehook lane%%'")
    database.sql(end_lanes)
    refused_for("database (a start-up check fails)")
    database.sql(f"ALTER DATABASE {database.name} RESET synchronous_commit")
    process.wait_until(lambda: gateway.request("GET", "/readyz").status == 200, what="ready again")
    assert gateway.deliver("hmac", source.event()).status == 200


def test_a_full_spool_is_not_said_to_be_a_database_that_is_away(start_spooling, server):
    cluster, database, _ = server
    gateway = start_spooling({"spool": {"bytes": "4MiB"}, "limits": {"body_bytes": "1MiB"}})
    source = gateway.sources["hmac"]
    cluster.crash()
    process.wait_until(lambda: gateway.metric("oncehook_database_up") == 0, what="the outage")
    words = "neither the database nor the spool takes events now; send it again"

    def fill():
        answer = gateway.deliver("hmac", source.event(filler="x" * 60000))
        ready = gateway.request("GET", "/readyz")
        return (answer.status, ready.status) == (503, 503) and (answer.json["detail"], ready.json["detail"]) == \
            (words, "not ready: spool and database")
    process.wait_until(fill, 30, what="a full spool")
    assert (words, "spool and database") in reasons(gateway)
    cluster.start()
    process.wait_until(lambda: gateway.deliver("hmac", source.event()).status == 200, 30, what="back")


# ---- spool ----------------------------------------------------------------------------------------------


def test_an_outage_is_202_and_every_event_is_captured_once_after_it(start_spooling, server):
    cluster, database, enrollments = server
    gateway = start_spooling()
    source, grid = gateway.sources["hmac"], gateway.sources["sendgrid"]
    before = source.event(enrollment_id=enrollments[0])
    assert gateway.deliver("hmac", before).status == 200
    cluster.crash()
    events = [source.event(enrollment_id=one) for one in enrollments * 3]
    statuses = []
    for event in events:
        answer = gateway.deliver("hmac", event, tls=False)
        statuses.append(answer.status)
        assert answer.status == 202 and answer.json["spooled"] == 1, answer
    many = [grid.event(enrollment_id=one) for one in enrollments]
    answer = gateway.deliver("sendgrid", *many)
    assert (answer.status, answer.json["spooled"], answer.json["captured"]) == (202, len(many), 0)
    unreadable = gateway.post("hmac", b"this is no JSON", source.sign(b"this is no JSON"))
    assert unreadable.status == 202 and unreadable.json["spooled"] == 1, unreadable
    assert gateway.request("GET", "/readyz").status == 200
    assert gateway.metric("oncehook_database_up") == 0
    assert waiting(gateway) == len(events) + len(many) + 1
    assert outcome(gateway, "spooled") == len(events) + 1
    cluster.start()
    wait_drained(gateway)
    check_each_once(database, [one["id"] for one in [before, *events]] + [one["sg_event_id"] for one in many])
    assert database.value("SELECT sum(total_opened) FROM campaign_instances") == 1 + len(events) + len(many)
    assert outcome(gateway, "captured") == 1 + len(events) and outcome(gateway, "captured", "sendgrid") == len(many)
    assert outcome(gateway, "spooled") == len(events) + 1, "spooled and captured both count"
    assert database.sql("SELECT body FROM quarantined_deliveries")[0][0].tobytes() == b"this is no JSON"
    # received_at is the capture's, the time is the event's, and the delivery is one.
    assert database.value("SELECT count(DISTINCT delivery_id) FROM campaign_events WHERE source = 'sendgrid'") == 1
    assert database.value("SELECT count(*) FROM campaign_events WHERE abs(extract(epoch FROM timestamp) - %s) > 60",
                          events[0]["time"]) == 0
    # And what is sent again is a duplicate.
    for event in [before, *events[:5]]:
        assert gateway.deliver("hmac", event).json["duplicates"] == 1
    assert gateway.deliver("sendgrid", *many).json["duplicates"] == len(many)


def test_duplicates_in_the_spool_are_captured_once(start_spooling, server):
    cluster, database, enrollments = server
    gateway = start_spooling()
    source = gateway.sources["hmac"]
    known, fresh = source.event(enrollment_id=enrollments[0]), source.event(enrollment_id=enrollments[1])
    assert gateway.deliver("hmac", known).status == 200
    cluster.crash()
    process.wait_until(lambda: gateway.metric("oncehook_database_up") == 0, what="the outage")
    for _ in range(3):
        assert gateway.deliver("hmac", known, fresh, fresh).status == 202
    cluster.start()
    wait_drained(gateway)
    check_each_once(database, [known["id"], fresh["id"]])
    assert outcome(gateway, "captured") == 2


def test_a_gateway_without_a_database_starts_and_spools(start_spooling, server):
    cluster, database, enrollments = server
    cluster.stop()
    gateway = start_spooling()
    event = gateway.sources["hmac"].event(enrollment_id=enrollments[0])
    assert gateway.deliver("hmac", event).status == 202
    cluster.start()
    wait_drained(gateway)
    check_each_once(database, [event["id"]])


def test_what_was_queued_and_in_flight_goes_to_the_spool(start_spooling, server):
    """The server dies under a batch and what waits behind it: all of it is safe before any deadline."""
    cluster, database, enrollments = server
    gateway = start_spooling({"queue": {"age": "20s"}, "database": {"lock_timeout": "5s"}})
    source = gateway.sources["hmac"]
    holder = database.connect()
    holder.cursor().execute("BEGIN; SELECT 1 FROM campaign_instances FOR UPDATE")
    answers, events = [], [source.event(enrollment_id=one) for one in enrollments]
    threads = [threading.Thread(target=lambda event=event: answers.append(gateway.deliver("hmac", event)))
               for event in events]
    for thread in threads:
        thread.start()
    process.wait_until(lambda: gateway.metric("oncehook_queue_events") == len(events), what="all are waiting")
    cluster.crash()
    holder.close()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in answers] == [202] * len(events), answers
    cluster.start()
    wait_drained(gateway)
    check_each_once(database, [event["id"] for event in events])


def test_a_server_that_stands_still_is_given_up_before_the_deadline(start_spooling, server):
    """Backends and postmaster are stopped: connections stay open and nobody answers."""
    cluster, database, enrollments = server
    # A quarter of the deadline is there for the spool; on a machine that compiles beside, three seconds' may not do.
    gateway = start_spooling({"queue": {"age": "20s"}, "ack_deadline": "8s"})
    source = gateway.sources["hmac"]
    assert gateway.deliver("hmac", source.event("first", enrollment_id=enrollments[0])).status == 200
    pids = [int(database.value("SELECT pg_read_file('postmaster.pid')").split()[0])]
    pids += [row[0] for row in database.sql("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'oncehook%%'")]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        events = [source.event(enrollment_id=one) for one in enrollments]
        for event in events:
            answer = gateway.deliver("hmac", event)
            assert answer.status == 202, answer
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    wait_drained(gateway)
    check_each_once(database, ["first"] + [event["id"] for event in events])


def test_overload_and_refusals_stay_503(start_spooling, server):
    cluster, database, enrollments = server
    gateway = start_spooling({"queue": {"events": 4}})
    source = gateway.sources["hmac"]
    database.sql("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF NEW.provider_event_id = 'no'"
                 " THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END$$")
    database.sql("CREATE TRIGGER no BEFORE INSERT ON campaign_events FOR EACH ROW EXECUTE FUNCTION no()")
    assert gateway.deliver("hmac", source.event("no")).status == 503
    assert gateway.deliver("hmac", *[source.event() for _ in range(5)]).status == 413
    assert waiting(gateway) == 0
    # The same event out of the spool: nobody sends it again, so it is quarantined.
    cluster.crash()
    process.wait_until(lambda: gateway.metric("oncehook_database_up") == 0, what="the outage")
    assert gateway.deliver("hmac", source.event("no"), source.event("yes")).status == 202
    cluster.start()
    wait_drained(gateway)
    check_each_once(database, ["yes"])
    assert b'"no"' in database.value("SELECT body FROM quarantined_deliveries").tobytes()


def test_a_full_server_disk_or_missing_rights_spool_too(start_spooling, server):
    cluster, database, enrollments = server
    gateway = start_spooling()
    source = gateway.sources["hmac"]
    database.sql("REVOKE INSERT ON event_keys FROM oncehook_gateway")
    events = [source.event(enrollment_id=one) for one in enrollments]
    for event in events:
        assert gateway.deliver("hmac", event).status == 202
    database.sql("GRANT INSERT ON event_keys TO oncehook_gateway")
    wait_drained(gateway)
    check_each_once(database, [event["id"] for event in events])


@pytest.mark.parametrize("when", ["spooling", "draining"])
def test_a_sigkill_loses_nothing_that_is_in_the_spool(start_spooling, server, rng, when):
    cluster, database, enrollments = server
    gateway = start_spooling()
    cluster.crash()
    acked = set()
    if when == "spooling":
        clients = Clients(gateway, enrollments, rng)
        for _ in range(4):
            time.sleep(0.3 + rng.random() * 0.4)
            gateway.kill()
            gateway.start()
        clients.stop()
        acked = set(clients.acked)
        assert len(acked) > 20
        cluster.start()
    else:
        acked |= spool_deliveries(gateway, enrollments, rng, 60)
        cluster.start()
        for _ in range(5):
            process.wait_until(lambda: database.value("SELECT count(*) FROM campaign_events"), what="the drain")
            time.sleep(rng.random() * 0.2)
            gateway.kill()
            gateway.start()
    wait_drained(gateway, 60)
    present = stored(database)
    assert acked <= present, f"lost: {len(acked - present)} of {len(acked)}"
    if when == "draining":
        assert present == acked
    check_each_once(database, present)


def test_new_traffic_flows_while_the_spool_drains(start_spooling, server, rng):
    cluster, database, enrollments = server
    gateway = start_spooling()
    quiet = Clients(gateway, enrollments, rng, count=2, pause=0.005)
    time.sleep(1.5)
    quiet.stop()
    cluster.crash()
    spooled = spool_deliveries(gateway, enrollments, rng, 100)
    cluster.start()
    wait_connected(gateway)
    clients = Clients(gateway, enrollments, rng, count=2, pause=0.005)
    began = time.monotonic()
    wait_drained(gateway, 120)
    took = time.monotonic() - began
    clients.stop()
    present = stored(database)
    assert spooled <= present and set(clients.acked) <= present
    check_each_once(database, present)
    p99 = [sorted(one.took)[int(len(one.took) * 0.99)] * 1000 for one in (quiet, clients)]
    print(json.dumps({"drained": len(spooled), "seconds": round(took, 2), "new": len(clients.acked),
                      "p99_ms": {"quiet": round(p99[0]), "draining": round(p99[1])}}))
    assert clients.acked and set(clients.acked.values()) == {200}, "new events go to the database, not behind the spool"
    assert p99[1] < p99[0] + 500, p99


def test_sigterm_while_draining_leaves_the_rest_in_the_spool(start_spooling, server, rng):
    cluster, database, enrollments = server
    gateway = start_spooling()
    cluster.crash()
    wanted = spool_deliveries(gateway, enrollments, rng, 40)
    cluster.start()
    process.wait_until(lambda: database.value("SELECT count(*) FROM campaign_events"), what="the drain")
    began = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - began < 5
    gateway.start()
    wait_drained(gateway, 60)
    check_each_once(database, wanted)


def test_sigterm_in_an_outage_answers_202_and_leaves(start_spooling, server):
    cluster, database, enrollments = server
    gateway = start_spooling()
    source = gateway.sources["hmac"]
    cluster.crash()
    events = [source.event(enrollment_id=one) for one in enrollments]
    for event in events:
        assert gateway.deliver("hmac", event).status == 202
    assert gateway.stop() == 0
    gateway.start()
    assert waiting(gateway) == len(events)
    cluster.start()
    wait_drained(gateway)
    check_each_once(database, [event["id"] for event in events])


def test_a_flapping_database_loses_and_doubles_nothing(start_spooling, server, rng):
    """Crashes under load, again and again: 200, 202 and 503 alternate."""
    cluster, database, enrollments = server
    gateway = start_spooling()
    clients = Clients(gateway, enrollments, rng, count=6)
    for _ in range(4):
        time.sleep(0.4 + rng.random() * 0.6)
        cluster.crash()
        time.sleep(rng.random() * 0.8)
        cluster.start()
    time.sleep(0.5)
    clients.stop()
    wait_drained(gateway, 60)
    process.wait_until(lambda: gateway.metric("oncehook_queue_events") == 0, what="nothing in flight")
    present = stored(database)
    assert set(clients.acked) <= present <= set(clients.sent)
    assert {200, 202} <= set(clients.acked.values())
    check_each_once(database, present)
    print(json.dumps({"acked": len(clients.acked), "spooled": sum(v == 202 for v in clients.acked.values())}))
