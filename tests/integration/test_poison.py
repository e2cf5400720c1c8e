"""Events that PostgreSQL cannot store as they are: their neighbours commit, they themselves are captured with
their exact bytes or quarantined, and everything is counted."""

import json
import threading
import time

import pytest

from support import process

NESTED = 20000

# name -> (the value of one member, as bytes; whether jsonb holds it). Where it does not, payload_bytes does.
MATRIX = {
    "nul": (rb'"a\u0000b"', False),
    "lone high surrogate": (rb'"\ud800"', False),
    "lone low surrogate": (rb'"x\udc00"', False),
    "surrogates the wrong way round": (rb'"\udc00\ud800"', False),
    "a pair of surrogates": (rb'"\ud83d\ude00"', True),
    "bad utf-8": (b'"\xff\xfe"', False),
    "cut utf-8": (b'"\xe2\x82"', False),
    "overlong utf-8": (b'"\xc0\x80"', False),
    "utf-8 of a surrogate": (b'"\xed\xa0\x80"', False),
    "utf-8 beyond unicode": (b'"\xf4\x90\x80\x80"', False),
    "a number too large": (b"1e131072", False),
    "a number too small": (b"1e-16384", False),
    "a number that grows when it is read": (b"1e131071", False),
    "beyond 64 bits": (b"123456789012345678901234567890", True),
    "int64 max": (b"9223372036854775807", True),
    "many digits": (b"9" * 200000, False),
    "nesting that jsonb holds": (b"[" * 300 + b"]" * 300, True),
    "nesting beyond 512": (b"[" * 600 + b"]" * 600, False),
    "nesting beyond the server's stack": (b"[" * NESTED + b"]" * NESTED, False),
    "the same member twice": (b'{"a": 1, "a": 2}', True),
    "a member name with nul": (rb'{"a\u0000": 1}', False),
    "a long text": (b'"' + b"a" * 300000 + b'"', True),
    "odd white space": (b'[ 1 ,\t2\r\n]', True),
}

# Ids and times that must not stop an event: name -> (member, value), the grade its key falls to.
KEYS = {
    "an id with nul": (b'"id"', rb'"a\u0000b"', "hash"),
    "an id too long": (b'"id"', b'"' + b"x" * 256 + b'"', "hash"),
    "an empty id": (b'"id"', b'""', "hash"),
    "an id that is null": (b'"id"', b"null", "hash"),
    "an id of bad utf-8": (b'"id"', b'"\xff"', "hash"),
    "a time before all": (b'"time"', b"-99999999999999", "id"),
    "a time after all": (b'"time"', b"9223372036854775807", "id"),
    "a time that is a text": (b'"time"', b'"294277-01-01T00:00:00Z"', "id"),
}


def raw_event(event_id, value, enrollment=None, member=b'"poison"'):
    fields = [(b'"id"', json.dumps(event_id).encode()), (b'"type"', b'"opened"')]
    if enrollment:
        fields.append((b'"enrollment_id"', json.dumps(enrollment).encode()))
    fields = [(name, text) for name, text in fields if name != member] + [(member, value)]
    return b"{" + b", ".join(name + b": " + text for name, text in fields) + b"}"


def deliver(gateway, raws, timeout=60):
    body = b"[" + b", ".join(raws) + b"]" if len(raws) != 1 else raws[0]
    return gateway.post("hmac", body, tls=False, timeout=timeout)


def outcome(gateway, name):
    return gateway.metric("oncehook_events_total", source="hmac", outcome=name)


@pytest.mark.parametrize("name", MATRIX)
def test_what_jsonb_cannot_hold_is_captured_with_its_bytes(gateway, database, name):
    value, is_json = MATRIX[name]
    (_, (enrollment,)), = database.seed(1, 1)
    raw = raw_event("poison", value, enrollment)
    neighbours = [raw_event(f"good-{k}", b"1", enrollment) for k in range(4)]
    for raws, captured in (([raw], 1), ([*neighbours[:2], raw, *neighbours[2:]], 4)):
        answer = deliver(gateway, raws)
        assert answer.status == 200 and answer.json["captured"] == captured, answer
        assert answer.json["quarantined"] == 0
    row = database.sql("SELECT payload IS NOT NULL, payload_bytes, provider_event_id, instance_id IS NOT NULL"
                       " FROM campaign_events WHERE provider_event_id = 'poison'")
    assert len(row) == 1 and row[0][0] == is_json and row[0][3], row
    if is_json:
        assert row[0][1] is None
        assert database.value("SELECT payload = convert_from(%s, 'UTF8')::jsonb FROM campaign_events"
                              " WHERE provider_event_id = 'poison'", raw)
    else:
        assert row[0][1].tobytes() == raw
    assert outcome(gateway, "captured") == 5
    assert database.value("SELECT total_opened FROM campaign_instances") == 5
    assert database.counter_drift() == []


@pytest.mark.parametrize("name", KEYS)
def test_an_id_or_time_that_cannot_be_used_stops_no_event(gateway, database, name):
    member, value, grade = KEYS[name]
    raw = raw_event("poison", value, member=member)
    answer = deliver(gateway, [raw_event("good-1", b"1"), raw, raw_event("good-2", b"1")])
    assert answer.status == 200 and answer.json["captured"] == 3, answer
    assert deliver(gateway, [raw]).json["duplicates"] == 1
    rows = database.sql("SELECT key_grade, abs(extract(epoch FROM timestamp - received_at)) < 60 FROM campaign_events"
                        " WHERE provider_event_id NOT LIKE 'good-%%'")
    assert rows == [(grade, True)], rows


def check_by_constraint(database):
    """What a user's own CHECK refuses is poison to the gateway: it will be refused for ever."""
    database.sql("ALTER TABLE campaign_events ADD CONSTRAINT no_bad CHECK (provider_event_id NOT LIKE 'bad%%') NOT VALID")


def quarantined(database):
    return {row[0].tobytes() for row in database.sql("SELECT body FROM quarantined_deliveries")}


def test_the_whole_matrix_mixed_into_load(start_gateway, database, rng):
    """One event of a hundred is poison, of every kind; clients deliver side by side; each innocent is committed
    once, each poison has its outcome, and the counters are the events."""
    gateway = start_gateway({"queue": {"age": "20s"}, "ack_deadline": "30s"})
    check_by_constraint(database)
    enrollments = [one for _, some in database.seed(4, 10) for one in some]
    small = {name: row for name, row in MATRIX.items() if len(row[0]) < 50000}
    kinds = [*small, "quarantine"]
    rng.shuffle(kinds)
    wanted_json, wanted_bytes, wanted_bad, answers, lock = set(), {}, set(), [], threading.Lock()

    def delivery(number):
        """100 events, one of them poison; the poison stands anywhere, at both ends too."""
        kind, raws = kinds[number % len(kinds)], []
        at = {0: 0, 1: 99}.get(number % 5, rng.randrange(100))
        for k in range(100):
            enrollment = rng.choice(enrollments)
            if k != at:
                raws.append(raw_event(f"good-{number}-{k}", b"1", enrollment))
                wanted_json.add(f"good-{number}-{k}")
            elif kind == "quarantine":
                raws.append(raw_event(f"bad-{number}", b"1", enrollment))
                wanted_bad.add(raws[-1])
            else:
                event_id = f"poison-{number}"
                raws.append(raw_event(event_id, small[kind][0], enrollment))
                if small[kind][1]:
                    wanted_json.add(event_id)
                else:
                    wanted_bytes[event_id] = raws[-1]
        return raws

    deliveries = [delivery(number) for number in range(3 * len(kinds))]

    def client():
        while True:
            with lock:
                if not deliveries:
                    return
                raws = deliveries.pop()
            answers.append(deliver(gateway, raws))
    threads = [threading.Thread(target=client) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answer.status == 200 for answer in answers), [a for a in answers if a.status != 200][:3]
    assert sum(answer.json["quarantined"] for answer in answers) == len(wanted_bad) == 3
    rows = database.sql("SELECT provider_event_id, payload_bytes FROM campaign_events")
    assert len(rows) == len(wanted_json) + len(wanted_bytes)
    assert {row[0] for row in rows if row[1] is None} == wanted_json
    assert {row[0]: row[1].tobytes() for row in rows if row[1] is not None} == wanted_bytes
    assert quarantined(database) == wanted_bad
    assert outcome(gateway, "captured") == len(rows) and outcome(gateway, "quarantined") == 3
    assert database.value("SELECT sum(total_opened) FROM campaign_instances") == len(rows)
    assert database.counter_drift() == []


@pytest.mark.parametrize("places", [{0}, {99}, {0, 99}, {49, 50}, set(range(0, 100, 2)), set(range(100))])
def test_poison_anywhere_in_a_batch(start_gateway, database, places):
    gateway = start_gateway({"queue": {"age": "20s"}, "ack_deadline": "30s", "database": {"lanes": 1}})
    check_by_constraint(database)
    (_, (enrollment,)), = database.seed(1, 1)
    raws = [raw_event(f"{'bad' if k in places else 'good'}-{k}", b"1", enrollment) for k in range(100)]
    answer = deliver(gateway, raws)
    assert answer.status == 200, answer
    assert (answer.json["captured"], answer.json["quarantined"]) == (100 - len(places), len(places))
    assert quarantined(database) == {raws[k] for k in places}
    assert database.value("SELECT total_opened FROM campaign_instances") == 100 - len(places)
    assert outcome(gateway, "quarantined") == len(places)
    assert database.counter_drift() == []


def test_poison_and_refused_rows_in_one_batch(start_gateway, database):
    gateway = start_gateway({"queue": {"age": "20s"}, "ack_deadline": "30s", "database": {"lanes": 1}})
    check_by_constraint(database)
    database.sql("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
                 " IF NEW.provider_event_id LIKE 'no%%' THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END$$")
    database.sql("CREATE TRIGGER refuse BEFORE INSERT ON campaign_events FOR EACH ROW EXECUTE FUNCTION refuse()")
    raws = [raw_event(f"{('good', 'bad', 'no', 'good')[k % 4]}-{k}", b"1") for k in range(40)]
    assert deliver(gateway, raws).status == 503, "the worst event's answer"
    assert database.value("SELECT count(*) FROM campaign_events") == 20
    assert quarantined(database) == set(raws[1::4])
    assert (outcome(gateway, "captured"), outcome(gateway, "quarantined")) == (20, 10)
    database.sql("DROP TRIGGER refuse ON campaign_events")
    answer = deliver(gateway, raws)
    assert answer.status == 200
    assert {name: answer.json[name] for name in ("captured", "duplicates", "quarantined")} == {
        "captured": 10, "duplicates": 20, "quarantined": 10}
    assert database.value("SELECT sum(attempts) FROM quarantined_deliveries") == 20
    assert database.counter_drift() == []


def test_a_thousand_poison_events_hold_up_nobody(start_gateway, database):
    """See lane/batch.c: an event that comes meanwhile waits for BISECT_MS and a statement more."""
    gateway = start_gateway({"queue": {"age": "20s"}, "ack_deadline": "40s", "database": {"lanes": 1}})
    check_by_constraint(database)
    raws = [raw_event(f"bad-{k}", b"1") for k in range(1000)]
    answers, took = [], []
    thread = threading.Thread(target=lambda: answers.append(deliver(gateway, raws)))
    thread.start()
    process.wait_until(lambda: outcome(gateway, "quarantined") > 0, what="the first of them")
    number = 0
    while thread.is_alive():
        number += 1
        began = time.monotonic()
        assert deliver(gateway, [raw_event(f"good-{number}", b"1")]).status == 200
        took.append(time.monotonic() - began)
    thread.join()
    assert answers[0].status == 200 and answers[0].json["quarantined"] == 1000, answers
    assert len(quarantined(database)) == 1000
    took.sort()
    print(f"{len(took)} events meanwhile, p50 {took[len(took) // 2] * 1000:.0f} ms, max {took[-1] * 1000:.0f} ms")
    assert len(took) >= 2 and took[-1] < 1.5, took
    assert database.value("SELECT count(*) FROM campaign_events") == number
