"""Enrolling: over HTTP and by SQL, at once, against pauses and captures; and leaving, in the lock order."""

import collections
import concurrent.futures
import contextlib
import json
import threading
import uuid

import psycopg2
import pytest

from support.capture import capture, event
from support.gateway import TOKEN, oncehook
from support.process import wait_until


def new_uuid():
    return str(uuid.uuid4())


def post(gateway, instance, body, token=TOKEN):
    if not isinstance(body, (bytes, str)):
        body = json.dumps(body)
    return gateway.admin(f"/v1/instances/{instance}/enrollments", token=token, method="POST",
                         body=body.encode() if isinstance(body, str) else body)


def enrolled(database, instance):
    return database.sql("SELECT i.total_enrolled, (SELECT count(*) FROM campaign_enrollments e WHERE e.instance_id = i.id) "
                        "FROM campaign_instances i WHERE i.id = %s", instance)[0]


def no_drift(database):
    assert oncehook("audit", "--database", database.owner_url).returncode == 0


# ---- over HTTP --------------------------------------------------------------------------------

def test_one_contact(gateway, database):
    (instance, _), = database.seed(enrollments=0)
    contact, wanted = new_uuid(), new_uuid()
    answer = post(gateway, instance, {"contact_id": contact, "id": wanted, "next_action_at": "2031-01-31T08:00:00Z"})
    assert answer.status == 201 and answer.headers["content-type"] == "application/json", answer
    row = answer.json
    assert (row["id"], row["instance_id"], row["contact_id"], row["status"], row["total_events"]) == (
        wanted, instance, contact, "active", 0)
    assert row["next_action_at"].startswith("2031-01-31T08:00:00") and "tx" not in row
    again = post(gateway, instance, {"contact_id": contact})
    assert again.status == 409 and again.headers["content-type"] == "application/problem+json"
    assert (again.json["status"], again.json["title"], again.json["id"]) == (409, "Conflict", wanted)
    assert "already enrolled" in again.json["detail"]
    taken = post(gateway, instance, {"contact_id": new_uuid(), "id": wanted})
    assert taken.status == 409 and taken.json["outcome"] == "id_taken"
    assert enrolled(database, instance) == (1, 1)


def test_many_contacts_and_what_happened_to_each(gateway, database):
    (instance, _), = database.seed(enrollments=0)
    known, fresh, wanted = new_uuid(), new_uuid(), new_uuid()
    (old,) = [post(gateway, instance, {"contact_id": known}).json["id"]]
    answer = post(gateway, instance, {"contacts": [known, {"contact_id": fresh, "id": wanted}, fresh,
                                                   {"contact_id": "f" * 8 + fresh[8:], "id": wanted}]})
    assert answer.status == 201 and answer.json["enrolled"] == 1
    said = [(one["contact_id"], one["outcome"], one["id"]) for one in answer.json["results"]]
    assert said[:3] == [(known, "already_enrolled", old), (fresh, "enrolled", wanted), (fresh, "already_enrolled", wanted)]
    assert said[3][1:] == ("id_taken", None)
    none = post(gateway, instance, [known, fresh])
    assert none.status == 409 and none.json["title"] == "Conflict"
    assert [one["outcome"] for one in none.json["results"]] == ["already_enrolled"] * 2
    many = post(gateway, instance, [new_uuid() for _ in range(1000)])
    assert many.status == 201 and many.json["enrolled"] == 1000
    assert enrolled(database, instance) == (1002, 1002)


@pytest.mark.parametrize("status", ["draft", "paused", "completed"])
def test_an_instance_that_is_not_active_takes_nobody(gateway, database, status):
    (instance, _), = database.seed(enrollments=0)
    database.sql("UPDATE campaign_instances SET status = %s WHERE id = %s", status, instance)
    answer = post(gateway, instance, {"contact_id": new_uuid()})
    assert answer.status == 422 and status in answer.json["detail"], answer
    assert enrolled(database, instance) == (0, 0)


def test_what_is_not_there_and_what_is_not_valid(gateway, database):
    (instance, _), = database.seed(enrollments=0)
    contact = new_uuid()
    assert post(gateway, new_uuid(), {"contact_id": contact}).status == 404
    for where in ("nobody", "%27;drop%20table%20x", "1"):
        assert post(gateway, where, {"contact_id": contact}).status == 400
    for body in (b"", b"{", b"null", b"[]", b"[[]]", b"7", b'"x"', b'{"contacts":[]}', b'{"contacts":{}}', {}, [{}],
                 {"contact_id": None}, {"contact_id": 5}, {"contact_id": contact + " "}, {"contact_id": f"{{{contact}}}"},
                 {"contact_id": contact, "total_events": 7}, {"contact_id": contact, "id": "1"},
                 {"contact_id": contact, "next_action_at": "now"}, {"contact_id": contact, "next_action_at": "2026-02-31T00:00:00Z"},
                 {"contacts": [contact], "status": "x"}, [contact, "no"], b'{"contact_id":"\xff"}',
                 json.dumps({"contact_id": contact}).encode() + b"\x00",
                 b'{"contact_id":"\\u0000"}', b"[" * 100000):
        answer = post(gateway, instance, body)
        assert answer.status == 400 and answer.json["status"] == 400 and answer.json["detail"], (body, answer)
    assert "Contact 2" in post(gateway, instance, [contact, "no"]).json["detail"]
    assert post(gateway, instance, [new_uuid() for _ in range(1001)]).status == 413
    assert post(gateway, instance, b" " * (1 << 20) + b"{}").status == 413
    assert post(gateway, instance, {"contact_id": contact}, token="wrong").status == 401
    other = gateway.admin(f"/v1/instances/{instance}/enrollments", token=TOKEN, method="PUT", body=b"{}")
    assert other.status == 405 and other.headers["allow"] == "POST"
    assert enrolled(database, instance) == (0, 0)
    assert post(gateway, instance, b" " * 1000000 + json.dumps({"contact_id": contact}).encode()).status == 201


def test_a_time_that_there_is_not_is_said_with_its_contact(gateway, database, rng):
    (instance, _), = database.seed(enrollments=0)
    words = "Contact {} has a next_action_at that is no time that there is.".format
    there, bad = "2028-02-29T23:59:60Z", "2026-02-30T00:00:00Z"
    one, three, last = ({"contact_id": new_uuid(), "next_action_at": time} for time in (bad, there, bad))
    for body, place in ((one, 1), ([three, new_uuid(), last, one], 3), ({"contacts": [new_uuid(), one]}, 2)):
        answer = post(gateway, instance, body)
        assert answer.status == 400 and answer.json["detail"] == words(place), answer
    # PostgreSQL is who says what there is.
    pick = rng.choice
    for _ in range(60):
        time = f"{pick(['0000', '0001', '1900', '2000', '2024', '2025', '9999'])}-{pick(['00', '01', '02', '04', '12', '13'])}-" \
               f"{pick(['00', '01', '28', '29', '30', '31', '32'])}T{pick(['00', '23', '24', '25'])}:{pick(['00', '59', '60'])}" \
               f"{pick(['', ':00', ':59.9', ':60', ':60.5', ':61', ':00.000000'])}{pick(['Z', '+15:59', '-08:00'])}"
        try:
            database.sql("SELECT %s::timestamptz", time)
        except psycopg2.errors.DatetimeFieldOverflow:
            answer = post(gateway, instance, [three, {"contact_id": new_uuid(), "next_action_at": time}])
            assert answer.status == 400 and answer.json["detail"] == words(2), time
        else:
            answer = post(gateway, instance, [{"contact_id": new_uuid(), "next_action_at": time}, one])
            assert answer.status == 400 and answer.json["detail"] == words(2), time
    assert enrolled(database, instance) == (0, 0)


def test_a_rule_of_the_users_own_is_said_and_holds_up_nobody(gateway, database):
    (instance, _), = database.seed(enrollments=0)
    database.sql("ALTER TABLE campaign_enrollments ADD CHECK (contact_id <> '00000000-0000-0000-0000-000000000000')")
    assert post(gateway, instance, {"contact_id": "00000000-0000-0000-0000-000000000000"}).status == 422
    assert post(gateway, instance, {"contact_id": new_uuid()}).status == 201


def test_a_chunked_body_and_a_too_large_one_without_its_length(gateway, database):
    (instance, _), = database.seed(enrollments=0)
    from support.wire import Wire

    def chunked(*chunks):
        with contextlib.closing(Wire(gateway.admin_port)) as wire:
            wire.send((f"POST /v1/instances/{instance}/enrollments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
                       "Transfer-Encoding: chunked\r\n\r\n").encode())
            for chunk in chunks:
                wire.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            wire.send(b"0\r\n\r\n")
            return wire.answer()
    body = json.dumps({"contact_id": new_uuid()}).encode()
    assert chunked(body[:7], body[7:]).status == 201
    assert chunked(*[b" " * 65536] * 17).status == 413


# ---- the report's concurrent tests ------------------------------------------------------------

def test_a_hundred_at_once_enroll_one_contact_once(gateway, database):
    """7.1: Request 1 gets 201, request 2 gets 409; here a hundred over HTTP, and fifty by plain SQL."""
    (instance, _), = database.seed(enrollments=0)
    contact, outcomes = new_uuid(), collections.Counter()

    def over_http(_):
        return post(gateway, instance, {"contact_id": contact}).status

    def by_sql(_):
        with contextlib.closing(psycopg2.connect(database.gateway_url)) as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO campaign_enrollments (instance_id, contact_id) VALUES (%s, %s) "
                           "ON CONFLICT DO NOTHING", (instance, contact))
            connection.commit()
            return 201 if cursor.rowcount else 409
    with concurrent.futures.ThreadPoolExecutor(150) as pool:
        running = [pool.submit((over_http, over_http, by_sql)[n % 3], n) for n in range(150)]
        outcomes.update(one.result() for one in running)
    assert outcomes == {201: 1, 409: 149}
    assert enrolled(database, instance) == (1, 1)
    assert database.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0


def test_a_hundred_contacts_at_once_over_http_and_by_sql_are_all_counted(gateway, database):
    (instance, _), = database.seed(enrollments=0)
    contacts = [new_uuid() for _ in range(50)]

    def enroll(n):
        contact = contacts[n % 50]
        if n % 3:
            with contextlib.closing(psycopg2.connect(database.gateway_url)) as connection, connection.cursor() as cursor:
                cursor.execute("INSERT INTO campaign_enrollments (instance_id, contact_id) VALUES (%s, %s), (%s, %s) "
                               "ON CONFLICT DO NOTHING", (instance, contact, instance, new_uuid()))
                connection.commit()
                return cursor.rowcount
        return post(gateway, instance, [contact, new_uuid()]).json["enrolled"]
    with concurrent.futures.ThreadPoolExecutor(25) as pool:
        assert sum(pool.map(enroll, range(100))) == 150
    assert enrolled(database, instance) == (150, 150)
    no_drift(database)


def test_two_that_enroll_the_same_contacts_in_opposite_orders(database):
    (instance, _), = database.seed(enrollments=0)
    contacts = [new_uuid() for _ in range(300)]

    def enroll(reverse):
        with contextlib.closing(psycopg2.connect(database.gateway_url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT outcome, count(*) FROM enroll_v1(%s, %s::uuid[], array_fill(null::uuid, ARRAY[300]), "
                           "array_fill(null::timestamptz, ARRAY[300])) GROUP BY 1", (instance, contacts[::reverse]))
            said = dict(cursor.fetchall())
            connection.commit()
            return said.get("enrolled", 0)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(enroll, [1, -1] * 8)) == 300
    assert enrolled(database, instance) == (300, 300)
    assert database.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0


def test_a_pause_cannot_slip_between(database, gateway):
    """3.2 reads the status without a lock. Here a pause that is not committed yet is waited for, and wins."""
    (instance, _), = database.seed(enrollments=0)
    answers = []
    with contextlib.closing(psycopg2.connect(database.owner_url)) as pausing, pausing.cursor() as cursor:
        cursor.execute("UPDATE campaign_instances SET status = 'paused' WHERE id = %s", (instance,))
        beside = threading.Thread(target=lambda: answers.append(post(gateway, instance, {"contact_id": new_uuid()})))
        beside.start()
        wait_until(lambda: database.value("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0, what="the wait")
        pausing.commit()
        beside.join()
    assert answers[0].status == 422, answers
    assert enrolled(database, instance) == (0, 0)


def test_the_reports_own_order_lets_the_pause_slip_between(database):
    """The report's example (3.2), statement by statement: someone is enrolled in a paused instance."""
    (instance, _), = database.seed(enrollments=0)
    with contextlib.closing(psycopg2.connect(database.owner_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT status FROM campaign_instances WHERE id = %s", (instance,))  # findByPk, no lock
        assert cursor.fetchone() == ("active",)
        database.sql("UPDATE campaign_instances SET status = 'paused' WHERE id = %s", instance)
        cursor.execute("INSERT INTO campaign_enrollments (instance_id, contact_id) VALUES (%s, gen_random_uuid()) "
                       "ON CONFLICT DO NOTHING", (instance,))
        connection.commit()
    assert database.sql("SELECT status, total_enrolled FROM campaign_instances WHERE id = %s", instance) == [("paused", 1)]


def test_somebodys_lock_is_waited_for_and_tried_again(start_gateway, database):
    gateway = start_gateway({"database": {"lock_timeout": "200ms"}})
    (instance, _), = database.seed(enrollments=0)
    with contextlib.closing(psycopg2.connect(database.owner_url)) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT FROM campaign_instances WHERE id = %s FOR NO KEY UPDATE", (instance,))
        late = post(gateway, instance, {"contact_id": new_uuid()})
        assert late.status == 503, late
        timer = threading.Timer(0.3, holder.commit)
        timer.start()
        assert post(gateway, instance, {"contact_id": new_uuid()}).status == 201
        timer.join()
    assert enrolled(database, instance) == (1, 1)


def test_the_reports_deadlock_pair_against_live_capture(database, gateway):
    """3.3: pause all, and complete one, in opposite orders, as users' SQL. PostgreSQL ends one of two;
    who is ended runs again, and no event is lost or counted twice."""
    (instance, enrollments), = database.seed(enrollments=30)
    source, deadlocks, stop = gateway.sources["hmac"], collections.Counter(), threading.Event()

    def user(*statements):
        with contextlib.closing(psycopg2.connect(database.owner_url)) as connection, connection.cursor() as cursor:
            while not stop.is_set():
                try:
                    for statement, *values in statements:
                        cursor.execute(statement, values)
                    connection.commit()
                    deadlocks["committed"] += 1
                except psycopg2.errors.DeadlockDetected:
                    connection.rollback()
                    deadlocks["40P01"] += 1
    pause = (("UPDATE campaign_instances SET status = 'active' WHERE id = %s", instance),
             ("UPDATE campaign_enrollments SET status = 'paused' WHERE instance_id = %s", instance))
    complete = (("UPDATE campaign_enrollments SET status = 'completed' WHERE id = %s AND instance_id = %s",
                 enrollments[-1], instance),
                ("UPDATE campaign_instances SET name = 'one completed' WHERE id = %s", instance))
    users = [threading.Thread(target=user, args=pair) for pair in (pause, complete)]
    for one in users:
        one.start()
    sent = captured = 0
    try:
        while sent < 400 or deadlocks["40P01"] == 0 and sent < 20000:
            events = [source.event(enrollment_id=enrollments[n]) for n in range(20)]
            answer = gateway.deliver("hmac", *events)
            while answer.status == 503:
                answer = gateway.deliver("hmac", *events)
            assert answer.status == 200
            sent += len(events)
    finally:
        stop.set()
        for one in users:
            one.join()
    captured = database.value("SELECT count(*) FROM campaign_events WHERE instance_id = %s", instance)
    assert captured == sent and deadlocks["40P01"] > 0 and deadlocks["committed"] > 0, deadlocks
    assert database.counter_drift() == []
    no_drift(database)


# ---- early events -----------------------------------------------------------------------------

def test_events_that_came_early_are_counted_in_the_answer(gateway, database):
    (instance, _), = database.seed(enrollments=0)
    wanted, source = new_uuid(), gateway.sources["hmac"]
    gateway.deliver("hmac", *[source.event(enrollment_id=wanted, type="opened") for _ in range(2500)])
    answer = post(gateway, instance, {"contact_id": new_uuid(), "id": wanted})
    assert answer.status == 201 and answer.json["total_events"] == 2500, answer
    assert database.value("SELECT total_opened FROM campaign_instances WHERE id = %s", instance) == 2500
    no_drift(database)


def test_an_id_with_bound_events_is_not_given_again(gateway, database):
    (instance, (gone,)), = database.seed()
    capture(database.gateway_url, event(enrollment=gone, type="opened"))
    database.sql("DELETE FROM campaign_enrollments WHERE id = %s", gone)
    answer = post(gateway, instance, {"contact_id": new_uuid(), "id": gone})
    assert answer.status == 409 and answer.json["outcome"] == "id_taken", answer
    no_drift(database)


# ---- leaving ----------------------------------------------------------------------------------

def as_owner(database, statement, *values):
    with contextlib.closing(psycopg2.connect(database.owner_url)) as connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        found = cursor.fetchone()
        connection.commit()
        return found[0]


def test_deleting_takes_the_rows_and_leaves_the_events(database):
    (gone, (early,)), (stays, (late,)) = database.seed(instances=2)
    first = event(enrollment=early, type="opened")
    capture(database.gateway_url, first, event(enrollment=late, type="opened"), event(instance=gone, type="sent"))
    assert as_owner(database, "SELECT oncehook_delete_instance(%s)", gone) is True
    assert as_owner(database, "SELECT oncehook_delete_instance(%s)", gone) is False
    assert database.sql("SELECT id::text FROM campaign_instances") == [(stays,)]
    assert database.sql("SELECT id::text FROM campaign_enrollments") == [(late,)]
    assert database.value("SELECT count(*) FROM campaign_events WHERE instance_id = %s", gone) == 2
    no_drift(database)
    # A retry is a duplicate still; a new event is an orphan, and stays one.
    assert capture(database.gateway_url, first, event(enrollment=early), event(instance=gone)) == "doc"
    no_drift(database)
    template = database.value("SELECT template_id::text FROM campaign_instances")
    database.sql("INSERT INTO email_sequences (template_id) VALUES (%s)", template)
    assert as_owner(database, "SELECT oncehook_delete_template(%s)", template) is True
    assert as_owner(database, "SELECT oncehook_delete_template(%s)", template) is False
    for table in ("campaign_templates", "campaign_instances", "campaign_enrollments", "email_sequences"):
        assert database.value(f"SELECT count(*) FROM {table}") == 0
    assert database.value("SELECT count(*) FROM campaign_events") == 5
    no_drift(database)


def test_deleting_against_captures_and_enrolling_ends_nobody(database, gateway, rng):
    """Instances and templates leave while their events arrive, in any order, and contacts come."""
    seeded = [row for _ in range(4) for row in database.seed(instances=6, enrollments=20)]
    enrollments = [one for _, some in seeded for one in some]
    problems, gone = [], threading.Event()

    def arrive():
        source = gateway.sources["hmac"]
        sent = 0
        while not gone.is_set() or sent < 200:
            some = rng.sample(enrollments, 40)
            answer = gateway.deliver("hmac", *[source.event(enrollment_id=one) for one in some])
            if answer.status != 200:
                problems.append(answer)
            sent += len(some)

    def enroll():
        while not gone.is_set():
            answer = post(gateway, rng.choice(seeded)[0], [new_uuid() for _ in range(20)])
            if answer.status not in (201, 404):
                problems.append(answer)
    threads = [threading.Thread(target=arrive), threading.Thread(target=arrive), threading.Thread(target=enroll)]
    for thread in threads:
        thread.start()
    try:
        for instance, _ in rng.sample(seeded, 12):
            assert as_owner(database, "SELECT oncehook_delete_instance(%s)", instance) is True
        for (template,) in database.sql("SELECT id::text FROM campaign_templates"):
            assert as_owner(database, "SELECT oncehook_delete_template(%s)", template) is True
            if database.value("SELECT count(*) FROM campaign_templates") == 1:
                break
    finally:
        gone.set()
        for thread in threads:
            thread.join()
    assert problems == []
    assert database.value("SELECT count(*) FROM campaign_templates") == 1
    assert database.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
    assert database.value("SELECT count(*) FROM campaign_instances WHERE total_enrolled <> (SELECT count(*) FROM "
                          "campaign_enrollments e WHERE e.instance_id = campaign_instances.id)") == 0
    no_drift(database)


def test_the_gateways_role_may_enroll_and_not_delete(database):
    (instance, _), = database.seed()
    with contextlib.closing(psycopg2.connect(database.gateway_url)) as connection, connection.cursor() as cursor:
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("SELECT oncehook_delete_instance(%s)", (instance,))
