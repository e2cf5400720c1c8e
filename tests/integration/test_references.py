"""References: events that carry only the provider's own id find their enrollment, whoever comes first."""

import contextlib
import hashlib
import json
import threading
import time
import uuid

import psycopg2
import pytest

from support import capture as sql
from support.capture import COUNTED, capture, connect, event
from support.gateway import TOKEN, oncehook
from support.process import wait_until
from support.sign import Hmac

BOUND_S = 10
SCOPE = "source:test"


def new_uuid():
    return str(uuid.uuid4())


def reference_id(reference, scope=SCOPE):
    """What anybody can compute from the outside."""
    digest = bytearray(hashlib.sha256(scope.encode() + b"\0" + reference.encode()).digest()[:16])
    digest[6], digest[8] = digest[6] & 15 | 128, digest[8] & 63 | 128
    return str(uuid.UUID(bytes=bytes(digest)))


def capture_2(url, *events):
    """capture_v2 as a gateway's role."""
    with contextlib.closing(connect(url)) as connection, connection.cursor() as cursor:
        return sql.call(cursor, *events, function="capture_v2")


def refer(database, enrollment, *references, scope=SCOPE):
    database.sql("INSERT INTO enrollment_references (key_scope, reference, enrollment_id) "
                 "SELECT %s, r, %s FROM unnest(%s) r", scope, enrollment, list(references))


def call(database, statement, *values):
    with contextlib.closing(connect(database.gateway_url)) as connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchone()[0]


def post(gateway, enrollment, body):
    return gateway.admin(f"/v1/enrollments/{enrollment}/references", token=TOKEN, method="POST",
                         body=body if isinstance(body, bytes) else json.dumps(body).encode())


def unbound(database):
    return database.value("SELECT count(*) FROM campaign_events WHERE instance_id IS NULL AND enrollment_id IS NOT NULL")


def events_of(database, enrollment):
    return database.value("SELECT total_events FROM campaign_enrollments WHERE id = %s", enrollment)


def no_drift(database):
    assert database.counter_drift() == []
    assert oncehook("audit", "--database", database.owner_url).returncode == 0


class Twilio(Hmac):
    """A source whose events carry only the sender's own ids."""

    def __init__(self, name="twilio", reference="/sid", **further):
        super().__init__(name)
        self.config["map"] = {"enrollment_id": "/enrollment_id", "reference": reference}
        self.config.update(further)


# ---- the SQL ----------------------------------------------------------------------------------

def test_the_id_is_the_same_in_sql_and_outside(database):
    for scope, reference in (("source:test", "SM1"), ("name:über", "ß:ü"), ("provider:x", "x" * 255), ("source:a", "b\nc")):
        assert call(database, "SELECT oncehook_reference_id(%s, %s)::text", scope, reference) == reference_id(reference, scope)


def test_a_known_reference_is_its_enrollment(database):
    (instance, (enrollment, other)), = database.seed(enrollments=2)
    refer(database, enrollment, "SM1", "SM2")
    refer(database, other, "SM1", scope="source:another")
    letters = capture_2(database.gateway_url, *[event(enrollment=reference_id("SM1"), type=kind) for kind in COUNTED],
                        event(enrollment=reference_id("SM2"), type="opened"), event(enrollment=other, type="sent"),
                        event(enrollment=reference_id("SM3")), event(instance=instance, type="sent"), event())
    assert letters == "c" * len(COUNTED) + "ccocc"
    assert (events_of(database, enrollment), events_of(database, other)) == (len(COUNTED) + 1, 1)
    assert database.sql("SELECT total_opened, total_sent, total_clicked FROM campaign_instances") == [(2, 3, 1)]
    assert database.value("SELECT count(*) FROM campaign_events WHERE enrollment_id = %s", enrollment) == len(COUNTED) + 1
    no_drift(database)


def test_late_references_bind_and_count_exactly_once(database):
    """The same events before and after their reference."""
    (early, (known,)), (late, (later,)) = database.seed(instances=2)
    events = [{"type": kind} for kind in COUNTED + ["viewed"] * 3]
    refer(database, known, "SM1")
    capture_2(database.gateway_url, *[event(enrollment=reference_id("SM1"), **one) for one in events])
    assert set(capture(database.gateway_url, *[event(enrollment=reference_id("SM2"), **one) for one in events])) == {"o"}
    refer(database, later, "SM2")
    assert call(database, "SELECT bind_v2(ARRAY[%s]::uuid[], 1000)", later) == len(events)
    assert call(database, "SELECT bind_v2(ARRAY[%s]::uuid[], 1000)", later) == 0
    columns = ", ".join(f"total_{name}" for name in COUNTED)
    totals = dict(database.sql(f"SELECT id::text, ARRAY[{columns}] FROM campaign_instances"))
    assert totals[early] == totals[late] == [1] * len(COUNTED)
    assert events_of(database, later) == len(events) and unbound(database) == 0
    no_drift(database)


def test_a_look_finds_references_orphans_and_both_in_any_order(database):
    (_, (one, two)), = database.seed(enrollments=2)

    def look(seen, after=None, walk=0):
        with contextlib.closing(connect(database.gateway_url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT seen::text, enrollments::text[] FROM unbound_v2(%s, %s, %s, 100)", (seen, after, walk))
            seen, found = cursor.fetchone()
            return seen, sorted(found or [])
    seen, _ = look(None)
    capture(database.gateway_url, event(enrollment=reference_id("SM1")), event(enrollment=reference_id("never")))
    seen, found = look(seen)
    assert found == []
    refer(database, one, "SM1")  # the reference is new
    seen, found = look(seen)
    assert found == [one]
    refer(database, two, "SM2")
    seen, found = look(seen)
    assert found == []
    with contextlib.closing(psycopg2.connect(database.gateway_url)) as running, running.cursor() as cursor:
        sql.call(cursor, event(enrollment=reference_id("SM2")))  # the orphan is new, and older than the look
        seen, found = look(seen)
        assert found == []
        running.commit()
    seen, found = look(seen)
    assert found == [two]
    assert look(seen)[1] == [] and look(seen, None, 100)[1] == sorted([one, two])


def test_a_reference_of_another_enrollment_is_refused_whole(database):
    (_, (one, two)), = database.seed(enrollments=2)
    add = "SELECT reference_v1(%s, %s, %s)"
    assert call(database, add, one, [SCOPE, SCOPE, SCOPE], ["SM1", "SM2", "SM1"]) == 2
    assert call(database, add, one, [SCOPE], ["SM1"]) == 0
    with pytest.raises(psycopg2.Error) as error:
        call(database, add, two, [SCOPE, SCOPE], ["SM3", "SM1"])
    assert error.value.pgcode == "OH002"
    assert database.value("SELECT count(*) FROM enrollment_references WHERE enrollment_id = %s", two) == 0
    with pytest.raises(psycopg2.Error) as error:
        call(database, add, new_uuid(), [SCOPE], ["SM9"])
    assert error.value.pgcode == "P0002"


def test_references_go_with_their_enrollment_and_events_stay(database):
    (instance, (enrollment,)), = database.seed()
    refer(database, enrollment, "SM1")
    capture_2(database.gateway_url, event(enrollment=reference_id("SM1"), type="sent"))
    database.sql("SELECT oncehook_delete_instance(%s)", instance)
    assert database.value("SELECT count(*) FROM enrollment_references") == 0
    assert capture_2(database.gateway_url, event(enrollment=reference_id("SM1"))) == "o"
    no_drift(database)


@pytest.mark.parametrize("scope, reference", [("twilio", "SM1"), (SCOPE, ""), (SCOPE, "x" * 256), ("", "SM1")])
def test_what_can_never_be_asked_for_is_refused(database, scope, reference):
    (_, (enrollment,)), = database.seed()
    with pytest.raises(psycopg2.errors.CheckViolation):
        refer(database, enrollment, reference, scope=scope)


# ---- through the gateway ------------------------------------------------------------------------

def test_events_by_reference_known_and_late_over_the_api(start_gateway, database):
    gateway = start_gateway(sources=[Twilio(), Hmac("plain")])
    (_, (enrollment, other)), = database.seed(enrollments=2)
    source, plain = gateway.sources["twilio"], gateway.sources["plain"]
    answer = post(gateway, enrollment, {"key_scope": "source:twilio", "reference": "SM1"})
    assert answer.status == 201 and answer.json == {"enrollment_id": enrollment, "added": 1}
    said = gateway.deliver("twilio", source.event(sid="SM1", type="delivered"), source.event(sid="SM2", type="opened"),
                           source.event(sid="SM1", enrollment_id=other), source.event(type="opened")).json
    assert (said["captured"], said["orphans"]) == (4, 1)
    # A source that did not ask for it has no references.
    assert gateway.deliver("plain", plain.event(sid="SM1")).json["orphans"] == 0
    assert (events_of(database, enrollment), events_of(database, other)) == (1, 1)
    assert post(gateway, enrollment, [{"key_scope": "source:twilio", "reference": "SM2"},
                                      {"key_scope": "source:twilio", "reference": "SM1"}]).json["added"] == 1
    assert events_of(database, enrollment) == 2 and unbound(database) == 0  # in the same transaction
    assert post(gateway, other, {"key_scope": "source:twilio", "reference": "SM1"}).status == 409
    assert post(gateway, new_uuid(), {"key_scope": "source:twilio", "reference": "SM1"}).status == 404
    for body in (b"", b"[]", b"5", {}, [5], {"key_scope": "twilio", "reference": "SM1"}, {"key_scope": "source:x"},
                 {"key_scope": "source:x", "reference": 5}, {"key_scope": "source:x", "reference": ""},
                 {"key_scope": "source:x", "reference": "x" * 256}, {"key_scope": "source:x", "reference": "x", "y": 1}):
        assert post(gateway, enrollment, body).status == 400, body
    assert post(gateway, enrollment, [{"key_scope": "source:x", "reference": str(n)} for n in range(1001)]).status == 413
    no_drift(database)


def test_a_reference_by_plain_sql_binds_within_seconds(start_gateway, database):
    gateway = start_gateway(sources=[Twilio("lemlist", ["/lead", "/campaign"], dedup_scope="both")])
    (_, (enrollment,)), = database.seed()
    source = gateway.sources["lemlist"]
    assert gateway.deliver("lemlist", source.event(lead="L1", campaign=7), source.event(lead="L1", campaign=7),
                           source.event(lead="L:1", campaign=7)).json["orphans"] == 2
    time.sleep(2.5)  # a sweep has come and gone
    refer(database, enrollment, "L1:7", scope="name:both")
    wait_until(lambda: unbound(database) == 0, BOUND_S, what="bound")
    assert events_of(database, enrollment) == 2
    wait_until(lambda: gateway.metric("oncehook_orphans_bound_total") == 2, what="the metric")
    no_drift(database)


def test_neither_sees_the_other_and_it_is_bound_once(start_gateway, database):
    """A capture that looked before the reference was there, and commits after it."""
    start_gateway(sources=[Twilio()])
    (_, (enrollment,)), = database.seed()
    with contextlib.closing(psycopg2.connect(database.gateway_url)) as held, held.cursor() as cursor:
        held_event = event(enrollment=reference_id("SM1", "source:twilio"), type="opened")
        assert sql.call(cursor, held_event, function="capture_v2") == "o"
        refer(database, enrollment, "SM1", scope="source:twilio")
        time.sleep(3)
        held.commit()
    wait_until(lambda: events_of(database, enrollment) == 1, BOUND_S, what="bound")
    no_drift(database)


def test_a_reference_survives_an_outage_in_the_spool(start_gateway, private_cluster, tmp_path):
    database = private_cluster.create_database()
    oncehook("migrate", "up", "--database", database.owner_url)
    (_, (known, late)), = database.seed(enrollments=2)
    refer(database, known, "SM1", scope="source:twilio")
    gateway = start_gateway(sources=[Twilio()], database=database,
                            config={"outage": "spool", "spool": {"directory": str(tmp_path / "spool")}})
    source = gateway.sources["twilio"]
    private_cluster.crash()
    wait_until(lambda: gateway.metric("oncehook_database_up") == 0, what="the outage is known")
    answer = gateway.deliver("twilio", source.event(sid="SM1"), source.event(sid="SM2"))
    assert answer.status == 202, answer
    private_cluster.start()
    wait_until(lambda: events_of(database, known) == 1 and unbound(database) == 1, 30, what="drained")
    refer(database, late, "SM2", scope="source:twilio")
    wait_until(lambda: events_of(database, late) == 1, BOUND_S, what="bound")
    no_drift(database)


def test_everybody_at_once_and_each_event_counted_once(start_gateway, database):
    """Deliveries by reference from two gateways, references by API and by SQL at the same time, in any order."""
    gateways = [start_gateway(sources=[Twilio()]) for _ in range(2)]
    (_, enrollments), = database.seed(enrollments=40)
    names = [(f"SM{n}-{m}", enrollment) for n, enrollment in enumerate(enrollments) for m in range(3)]
    problems = []

    def deliver(gateway, turn):
        source = gateway.sources["twilio"]
        for at in range(0, len(names), 10):
            some = [source.event(sid=sid) for sid, _ in names[at:at + 10][::turn]]
            while (answer := gateway.deliver("twilio", *some)).status == 503:
                pass
            if answer.status != 200:
                problems.append(answer)

    def name_by_api():
        for sid, enrollment in names[::2]:
            answer = post(gateways[0], enrollment, {"key_scope": "source:twilio", "reference": sid})
            if answer.status != 201:
                problems.append(answer)

    def name_by_sql():
        for sid, enrollment in names[1::2]:
            refer(database, enrollment, sid, scope="source:twilio")
    threads = [threading.Thread(target=deliver, args=(gateways[0], 1)), threading.Thread(target=deliver, args=(gateways[1], -1)),
               threading.Thread(target=name_by_api), threading.Thread(target=name_by_sql)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    wait_until(lambda: unbound(database) == 0, BOUND_S, what="bound")
    assert database.sql("SELECT DISTINCT total_events FROM campaign_enrollments") == [(6,)]
    assert database.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
    no_drift(database)
