"""The promise itself, against the real gateway and a real PostgreSQL: a 200 means committed once and
counted once; what is not known to be committed is never a 200."""

import contextlib
import json
import os
import signal
import threading
import time
import uuid

from support import gateway as gateway_module
from support import process, wire

NUMBERS = ("captured", "duplicates", "orphans", "quarantined", "spooled")


def numbers(**given):
    return {name: given.get(name, 0) for name in NUMBERS}


def check(answer, **given):
    assert answer.status == 200, answer
    assert answer.json == numbers(**given), answer


def stored(database):
    return database.value("SELECT count(*) FROM campaign_events")


def assert_each_once(database):
    """Each key once in ledger and events, every counter the number of its events."""
    assert database.value("SELECT count(*) FROM event_keys") == stored(database)
    assert database.sql("SELECT provider_event_id, key_scope FROM campaign_events"
                        " GROUP BY 1, 2 HAVING count(*) > 1") == []
    assert database.counter_drift() == []


def seed(database, instances, enrollments):
    """([instance id, …], [enrollment id, …]), `enrollments` of each instance."""
    made = database.seed(instances, enrollments)
    return [one for one, _ in made], [one for _, some in made for one in some]


@contextlib.contextmanager
def instances_held(database):
    """All instances are locked by somebody else; yields what lets go of them."""
    holder = database.connect()
    try:
        holder.cursor().execute("BEGIN; SELECT 1 FROM campaign_instances FOR UPDATE")
        yield holder.cursor().execute
    finally:
        holder.close()


# ---- outcomes ---------------------------------------------------------------------------------------


def test_a_delivery_is_committed_before_its_200(gateway, database):
    instances, enrollments = seed(database, 1, 1)
    event = gateway.sources["hmac"].event(enrollment_id=enrollments[0], instance_id=instances[0])
    check(gateway.deliver("hmac", event), captured=1)
    row = database.sql("SELECT source, provider, provider_event_id, key_scope, key_grade, event_type,"
                       " instance_id::text, enrollment_id::text, payload FROM campaign_events")
    assert row == [("hmac", "hmac", event["id"], "source:hmac", "id", "opened", instances[0],
                    enrollments[0], event)]
    assert database.value("SELECT total_opened FROM campaign_instances") == 1
    assert database.sql("SELECT total_events, last_event_at IS NOT NULL FROM campaign_enrollments") == [(1, True)]
    check(gateway.deliver("hmac", event), duplicates=1)
    assert_each_once(database)


def test_every_provider_over_https(gateway, database):
    for name, source in gateway.sources.items():
        body = source.encode(source.event())
        headers = source.sign(body)
        for given in ({"captured": 1}, {"duplicates": 1}):
            check(gateway.post(name, body, headers), **given)
    assert database.sql("SELECT source, key_scope FROM campaign_events ORDER BY 1") == [
        ("github", "provider:github"), ("hmac", "source:hmac"), ("sendgrid", "provider:sendgrid"),
        ("stripe", "provider:stripe")]
    assert_each_once(database)


def test_several_events_of_a_delivery_are_split_over_lanes(gateway, database):
    instances, enrollments = seed(database, 8, 5)
    source = gateway.sources["sendgrid"]
    events = [source.event(enrollment_id=enrollment) for enrollment in enrollments]
    strangers = [source.event(enrollment_id=str(uuid.uuid4())) for _ in range(5)]
    nobody = [source.event() for _ in range(5)]
    check(gateway.deliver("sendgrid", *events, *strangers, *nobody), captured=50, orphans=5)
    check(gateway.deliver("sendgrid", *events, *strangers, *nobody), duplicates=50)
    assert database.value("SELECT sum(total_opened) FROM campaign_instances") == 40
    assert database.value("SELECT count(*) FROM campaign_events"
                          " WHERE instance_id IS NULL AND enrollment_id IS NOT NULL") == 5
    assert_each_once(database)


def test_one_key_twice_in_an_array_is_one_event(gateway, database):
    source = gateway.sources["sendgrid"]
    event = source.event()
    check(gateway.deliver("sendgrid", event, source.event(), event, event), captured=2, duplicates=2)
    assert_each_once(database)


def test_one_key_twice_in_one_batch_is_one_event(start_gateway, database):
    """The lane is held up while many deliveries of one key queue behind it: they meet in one batch."""
    gateway = start_gateway({"database": {"lanes": 1}, "queue": {"age": "20s"}, "ack_deadline": "20s"})
    source = gateway.sources["hmac"]
    instances, enrollments = seed(database, 1, 1)
    body = source.encode(source.event(enrollment_id=enrollments[0]))
    blocker = source.encode(source.event(enrollment_id=enrollments[0]))
    answers = []
    with instances_held(database) as run:
        threads = [threading.Thread(target=lambda data=data: answers.append(gateway.post("hmac", data)))
                   for data in [blocker] + [body] * 12]
        for thread in threads:
            thread.start()
            time.sleep(0.02)
        run("ROLLBACK")
    for thread in threads:
        thread.join()
    assert sorted(answer.json["captured"] for answer in answers) == [0] * 11 + [1, 1]
    assert sum(answer.json["duplicates"] for answer in answers) == 11
    assert stored(database) == 2
    assert_each_once(database)


def test_the_enrollment_decides_the_instance_whatever_the_payload_claims(gateway, database):
    instances, enrollments = seed(database, 2, 1)
    of = dict(database.sql("SELECT id::text, instance_id::text FROM campaign_enrollments"))
    right = of[enrollments[0]]
    wrong = next(instance for instance in instances if instance != right)
    source = gateway.sources["hmac"]
    check(gateway.deliver("hmac", source.event(enrollment_id=enrollments[0], instance_id=wrong)), captured=1)
    assert database.value("SELECT instance_id::text FROM campaign_events") == right
    check(gateway.deliver("hmac", source.event(instance_id=wrong)), captured=1)
    assert database.value("SELECT total_opened FROM campaign_instances WHERE id = %s", wrong) == 1
    check(gateway.deliver("hmac", source.event(instance_id=str(uuid.uuid4()))), captured=1)
    check(gateway.deliver("hmac", source.event(instance_id="not a uuid", enrollment_id=7)), captured=1)
    assert_each_once(database)


def test_a_changed_id_of_the_same_composite_is_noticed(gateway, database):
    source = gateway.sources["sendgrid"]
    event = source.event()
    check(gateway.deliver("sendgrid", event), captured=1)
    check(gateway.deliver("sendgrid", {**event, "sg_event_id": "another"}), captured=1)
    assert gateway.metric("oncehook_id_changed_total", source="sendgrid") == 1


def test_an_event_without_id_falls_to_the_composite(gateway, database):
    source = gateway.sources["sendgrid"]
    event = source.event(event_type="unsubscribe")
    del event["sg_event_id"]
    check(gateway.deliver("sendgrid", event), captured=1)
    check(gateway.deliver("sendgrid", event), duplicates=1)
    grade, scope, key = database.sql("SELECT key_grade, key_scope, provider_event_id FROM campaign_events")[0]
    assert (grade, scope) == ("composite", "source:sendgrid") and key.startswith("composite:")


# ---- not known to be committed ------------------------------------------------------------------------


def test_a_trigger_that_fails_at_commit_gives_503_and_never_200(gateway, database):
    """PostgreSQL reports the statement's rows before it commits: whoever answers then has lied."""
    database.sql("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
                 " $$BEGIN IF NEW.provider_event_id LIKE 'bad%%' THEN RAISE EXCEPTION 'at the commit'; END IF;"
                 " RETURN NULL; END$$")
    database.sql("CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON campaign_events DEFERRABLE"
                 " INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()")
    source = gateway.sources["hmac"]
    answer = gateway.deliver("hmac", source.event("bad-1"))
    assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1, answer
    assert answer.headers["content-type"] == "application/problem+json"
    assert stored(database) == 0 and database.value("SELECT count(*) FROM event_keys") == 0
    # Its neighbours in one batch and one delivery commit; the delivery as a whole is 503.
    good = [source.event() for _ in range(6)]
    answer = gateway.deliver("hmac", *good[:3], source.event("bad-2"), *good[3:])
    assert answer.status == 503
    assert stored(database) == 6
    check(gateway.deliver("hmac", *good), duplicates=6)
    database.sql("DROP TRIGGER refuse ON campaign_events")
    check(gateway.deliver("hmac", source.event("bad-1")), captured=1)
    assert_each_once(database)


def test_a_deadline_answers_503_and_the_late_commit_is_a_duplicate_then(start_gateway, database):
    gateway = start_gateway({"ack_deadline": "500ms", "queue": {"age": "10s"},
                             "database": {"lock_timeout": "5s", "statement_timeout": "5s", "retries": 0}})
    _, enrollments = seed(database, 1, 1)
    source = gateway.sources["hmac"]
    event = source.event(enrollment_id=enrollments[0])
    with instances_held(database) as run:
        began = time.monotonic()
        answer = gateway.deliver("hmac", event)
        waited = time.monotonic() - began
        assert answer.status == 503 and "retry-after" in answer.headers, answer
        assert waited < 3, waited
        run("ROLLBACK")
    process.wait_until(lambda: gateway.deliver("hmac", event).status == 200, what="a commit after the lock")
    assert stored(database) == 1
    assert_each_once(database)


def test_a_client_that_hangs_up_is_captured_once(gateway, database):
    source = gateway.sources["hmac"]
    body = source.encode(source.event())
    headers = source.sign(body)
    for tls in (False, True):
        one = gateway.wire(tls=tls)
        one.send(wire.request_bytes("POST", "/in/hmac", headers, body))
        one.close()
    process.wait_until(lambda: stored(database) == 1, what="the event of a client that is gone")
    check(gateway.post("hmac", body, headers), duplicates=1)
    assert_each_once(database)


def test_a_lost_connection_is_healed_within_the_delivery(gateway, database):
    """The backend is killed between deliveries: the next one finds the connection dead."""
    source = gateway.sources["hmac"]
    check(gateway.deliver("hmac", source.event()), captured=1)
    for _ in range(5):
        database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                     " WHERE application_name LIKE 'oncehook lane%%' AND datname = current_database()")
        process.wait_until(lambda: gateway.deliver("hmac", source.event()).status == 200,
                           what="a 200 after the backends were killed")
    assert_each_once(database)


def test_without_a_database_it_starts_refuses_and_recovers(start_gateway, private_cluster):
    database = private_cluster.create_database()
    gateway_module.oncehook("migrate", "up", "--database", database.owner_url)
    private_cluster.stop()
    gateway = start_gateway(database=database, wait=False)
    process.wait_until(lambda: "listening" in open(gateway.out_path, encoding="utf-8").read(),
                       what="the listeners")
    line = open(gateway.out_path, encoding="utf-8").read().splitlines()[0]
    ports = dict(word.split("=") for word in line.split()[1:])
    gateway.https_port, gateway.http_port = int(ports["https"]), int(ports["http"])
    gateway.admin_port = int(ports["admin"])
    source = gateway.sources["hmac"]
    event = source.event()
    began = time.monotonic()
    answer = gateway.deliver("hmac", event)
    assert answer.status == 503 and "retry-after" in answer.headers
    assert time.monotonic() - began < 1, "while the database is known to be away the answer is immediate"
    assert gateway.request("GET", "/livez").status == 200
    answer = gateway.request("GET", "/readyz")
    assert answer.status == 503 and "database" in answer.json["detail"]
    private_cluster.start()
    gateway.wait_ready()
    check(gateway.deliver("hmac", event), captured=1)
    assert gateway.request("GET", "/readyz").status == 200
    private_cluster.crash()
    process.wait_until(lambda: gateway.deliver("hmac", source.event()).status == 503, what="503 in an outage")
    private_cluster.start()
    process.wait_until(lambda: gateway.deliver("hmac", event).status == 200, what="the database is back")
    check(gateway.deliver("hmac", event), duplicates=1)
    assert_each_once(database)


def test_readyz_sees_a_server_that_does_not_answer(start_gateway, database):
    gateway = start_gateway({"ack_deadline": "500ms", "database": {"lanes": 1}})
    source = gateway.sources["hmac"]
    check(gateway.deliver("hmac", source.event()), captured=1)
    backend = database.value("SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                             " AND application_name LIKE 'oncehook lane%%'")
    os.kill(backend, signal.SIGSTOP)
    try:
        assert gateway.deliver("hmac", source.event()).status == 503
        process.wait_until(lambda: gateway.request("GET", "/readyz").status == 503, what="not ready")
    finally:
        os.kill(backend, signal.SIGCONT)
    process.wait_until(lambda: gateway.request("GET", "/readyz").status == 200, what="ready again")
    check(gateway.deliver("hmac", source.event()), captured=1)
    assert_each_once(database)


def test_a_schema_that_is_missing_or_wrong_is_said(start_gateway, empty_database):
    gateway = start_gateway(database=empty_database, wait=False)
    process.wait_until(lambda: "oncehook migrate up" in gateway.log_text(), what="the log's advice")
    assert "ready" not in open(gateway.out_path, encoding="utf-8").read().split()


def test_a_server_that_may_lose_commits_is_refused_unless_told(start_gateway, database):
    database.sql(f"ALTER DATABASE {database.name} SET synchronous_commit = off")
    refused = start_gateway(wait=False)
    process.wait_until(lambda: "synchronous_commit is off" in refused.log_text(), what="the reason in the log")
    told = start_gateway({"database": {"unsafe_server": "warn"}})
    check(told.deliver("hmac", told.sources["hmac"].event()), captured=1)
    assert "an unsafe server is used" in told.log_text()
    assert "ready" not in open(refused.out_path, encoding="utf-8").read().split()


def test_a_role_without_rights_is_not_ready(start_gateway, database):
    gateway = start_gateway()
    source = gateway.sources["hmac"]
    check(gateway.deliver("hmac", source.event()), captured=1)
    event = source.event()
    database.sql("REVOKE INSERT ON event_keys FROM oncehook_gateway")
    assert gateway.deliver("hmac", event).status == 503
    process.wait_until(lambda: gateway.request("GET", "/readyz").status == 503, what="not ready")
    process.wait_until(lambda: "may not capture" in gateway.log_text(), what="the reason in the log")
    assert gateway.metric("oncehook_database_up") == 0
    database.sql("GRANT INSERT ON event_keys TO oncehook_gateway")
    process.wait_until(lambda: gateway.request("GET", "/readyz").status == 200, what="ready again")
    check(gateway.deliver("hmac", event), captured=1)


def test_events_are_counted_by_their_outcome_only(start_gateway, database):
    """A delivery that is refused counts nothing, however often it comes."""
    gateway = start_gateway({"queue": {"age": "20s"}, "ack_deadline": "500ms", "database": {"retries": 0}})
    _, enrollments = seed(database, 1, 1)
    source = gateway.sources["hmac"]
    event = source.event(enrollment_id=enrollments[0])
    with instances_held(database) as run:
        assert gateway.deliver("hmac", event, event).status == 503
        run("ROLLBACK")

    def outcomes():
        return {name: gateway.metric("oncehook_events_total", source="hmac", outcome=name)
                for name in ("captured", "duplicate", "orphan", "quarantined")}
    process.wait_until(lambda: gateway.metric("oncehook_queue_events") == 0, what="the late end")
    late = outcomes()
    assert late["captured"] == late["duplicate"] == stored(database), late
    answer = gateway.deliver("hmac", event, event).json
    assert outcomes() == {"captured": late["captured"] + answer["captured"], "orphan": 0, "quarantined": 0,
                          "duplicate": late["duplicate"] + answer["duplicates"]}


# ---- the end --------------------------------------------------------------------------------------------


def test_sigterm_answers_what_is_in_flight_and_leaves(start_gateway, database):
    gateway = start_gateway({"database": {"lock_timeout": "5s"}, "queue": {"age": "20s"}, "ack_deadline": "8s"})
    _, enrollments = seed(database, 1, 1)
    source = gateway.sources["hmac"]
    body = source.encode(source.event(enrollment_id=enrollments[0]))
    with instances_held(database) as run:
        waiting = gateway.wire(tls=True)
        waiting.send(wire.request_bytes("POST", "/in/hmac", source.sign(body), body))
        process.wait_until(lambda: gateway.metric("oncehook_queue_events") == 1, what="the event in flight")
        began = time.monotonic()
        gateway.child.send_signal(signal.SIGTERM)

        def refused():
            try:
                gateway.wire().close()
            except ConnectionRefusedError:
                return True
            return False
        process.wait_until(refused, what="no more connections")
        run("ROLLBACK")
    check(waiting.answer(), captured=1)
    assert gateway.stop() == 0
    assert time.monotonic() - began < 10
    assert stored(database) == 1


def test_sigterm_leaves_in_time_with_idle_and_stuck_clients(start_gateway):
    gateway = start_gateway()
    idle = [gateway.wire(tls=tls) for tls in (True, False) * 5]
    stuck = gateway.wire()
    stuck.send(b"POST /in/hmac HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
    began = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - began < 10
    for one in [*idle, stuck]:
        one.close()


def test_sigterm_leaves_in_time_when_postgresql_stands_still(start_gateway, private_cluster):
    """All of it, the postmaster too: a new connection is taken by the kernel and never answered."""
    database = private_cluster.create_database()
    gateway_module.oncehook("migrate", "up", "--database", database.owner_url)
    gateway = start_gateway({"database": {"connect_timeout": "60s", "lanes": 2}}, database=database)
    source = gateway.sources["hmac"]
    check(gateway.deliver("hmac", source.event()), captured=1)
    backends = [int(database.value("SELECT pg_read_file('postmaster.pid')").split()[0])]
    backends += [row[0] for row in database.sql(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'oncehook%%'")]
    for backend in backends:
        os.kill(backend, signal.SIGSTOP)
    try:
        assert gateway.deliver("hmac", source.event()).status == 503
        process.wait_until(lambda: "connection to PostgreSQL lost" in gateway.log_text(), 20,
                           what="a lane that tries to connect for a minute")
        began = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - began < 10
    finally:
        for backend in backends:
            os.kill(backend, signal.SIGCONT)


def test_a_sigkill_loses_nothing_that_was_answered(start_gateway, database, rng):
    """Clients send without pause; the gateway is killed at random moments and started again. Whatever was
    answered 200 is there, once, and counted once."""
    _, enrollments = seed(database, 3, 10)
    gateway = start_gateway()
    source = gateway.sources["hmac"]
    sent, acked, stop = [], set(), threading.Event()

    def client():
        while not stop.is_set():
            event = source.event(enrollment_id=rng.choice(enrollments))
            sent.append(event["id"])
            body = source.encode(event)
            headers = source.sign(body)
            while not stop.is_set():
                try:
                    if gateway.post("hmac", body, headers, tls=False, timeout=5).status == 200:
                        acked.add(event["id"])
                        break
                except (OSError, AssertionError):
                    time.sleep(0.01)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        time.sleep(0.3 + rng.random() * 0.7)
        gateway.kill()
        gateway.start()
    stop.set()
    for thread in threads:
        thread.join()
    present = {row[0] for row in database.sql("SELECT provider_event_id FROM campaign_events")}
    assert len(acked) > 50, len(acked)
    assert acked <= present, f"lost: {acked - present}"
    assert present <= set(sent), "an event that nobody sent"
    assert_each_once(database)
    print(json.dumps({"acknowledged": len(acked), "sent": len(sent), "kills": 5}))


def test_a_start_that_fails_is_a_line_of_the_log_like_any_other(start_gateway):
    first = start_gateway()
    second = start_gateway({"listen": {"http": f"127.0.0.1:{first.http_port}"}}, wait=False)
    second.expect_exit = second.child.wait(30)
    assert second.expect_exit == 2
    line = second.log_lines()[-1]  # each of them is JSON
    assert (line["level"], line["message"]) == ("error", "the gateway could not be started")
    assert str(first.http_port) in line["reason"] and "time" in line
