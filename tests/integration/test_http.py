"""Every row of the contract's HTTP table against the running binary, and the input of hostile and clumsy
clients: each gets its answer, nobody else notices, nothing is lost."""

import base64
import concurrent.futures
import itertools
import json
import re
import socket
import ssl
import statistics
import struct
import threading
import time
import uuid

import pytest

from support import process, sign, wire

PROBLEM = "application/problem+json"
MIB = 1 << 20


def raw(gateway, data, *, tls=False, timeout=20, alpn=None):
    """Sends exactly these bytes on a connection of their own; the first answer."""
    with gateway.wire(tls=tls, timeout=timeout, alpn=alpn) as one:
        one.send(data)
        return one.answer()


def check_problem(answer, status):
    assert answer.status == status, answer
    assert answer.headers["content-type"] == PROBLEM, answer
    assert set(answer.json) == {"type", "title", "status", "detail"} and answer.json["status"] == status
    assert "server" not in answer.headers, answer


def stored(database):
    return database.value("SELECT count(*) FROM campaign_events")


def rows_of(database, what):
    return database.sql(f"SELECT {what} FROM campaign_events ORDER BY id")


def quarantined(database):
    return database.sql("SELECT source, reason, body, attempts FROM quarantined_deliveries ORDER BY id")


def assert_alive(gateway):
    """The gateway still captures, and was not restarted."""
    assert gateway.child.poll() is None
    answer = gateway.deliver("hmac", gateway.sources["hmac"].event())
    assert answer.status == 200 and answer.json["captured"] == 1, answer


def each(database, cases):
    """The cases one after the other, each with empty tables: one gateway serves them all."""
    for case in cases:
        database.sql("DELETE FROM campaign_events; DELETE FROM event_keys; DELETE FROM quarantined_deliveries")
        print(f"case: {str(case)[:100]}")  # pytest shows the last one of a failing test
        yield case


# ---- routes and methods --------------------------------------------------------------------------------


def test_unknown_paths_and_sources_are_404(gateway):
    body = b"{}"
    for path in ("/", "/in", "/in/", "/in/nobody", "/in/hmac/more", "/IN/hmac", "/livez/", "/v1/events", "/metrics",
                 "/in/%00", "/in/" + "a" * 5000):
        check_problem(gateway.request("POST", path, gateway.sources["hmac"].sign(body), body), 404)


METHODS = ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"]


def test_a_wrong_method_is_405_with_allow(gateway):
    for method in METHODS:
        answer = gateway.request(method, "/in/hmac", body=b"" if method in ("PUT", "PATCH") else None)
        check_problem(answer, 405)
        assert answer.headers["allow"] == "POST"


def test_head_and_probes(gateway):
    for path in ("/livez", "/readyz"):
        assert gateway.request("GET", path).status == 200
        assert gateway.request("HEAD", path).status == 200
        answer = gateway.request("POST", path, body=b"")
        check_problem(answer, 405)
        assert answer.headers["allow"] == "GET, HEAD"
    answer = gateway.request("HEAD", "/in/hmac")
    assert answer.status == 405 and answer.headers["allow"] == "POST"


def test_no_answer_tells_a_server_or_version(gateway):
    for answer in (gateway.request("GET", "/livez"), gateway.request("GET", "/nothing"),
                   gateway.deliver("hmac", gateway.sources["hmac"].event()),
                   raw(gateway, b"NONSENSE\r\n\r\n")):
        text = str(answer.headers).lower() + answer.body.decode().lower()
        assert "server" not in answer.headers and "h2o" not in text and "oncehook/" not in text, answer


# ---- signatures ----------------------------------------------------------------------------------------


def test_every_refusal_is_the_same_401(gateway, database):
    """One text for all reasons; the reason is in the metrics."""
    stripe = gateway.sources["stripe"]
    body = stripe.encode(stripe.event())
    good = stripe.sign(body)
    stale = stripe.sign(body, now=time.time() - 30 * 86400)
    answers = {
        "signature_missing": gateway.post("stripe", body, {}),
        "signature_wrong": gateway.post("stripe", body + b" ", good),
        "stale": gateway.post("stripe", body, stale),
    }
    texts = set()
    for reason, answer in answers.items():
        check_problem(answer, 401)
        texts.add(answer.body)
        assert gateway.metric("oncehook_rejects_total", source="stripe", reason=reason) == 1, reason
    assert len(texts) == 1
    assert gateway.metric("oncehook_deliveries_total", source="stripe", status="401") == 3
    assert stored(database) == 0


def test_tampering_with_any_provider_is_401(gateway, database):
    for name, source in gateway.sources.items():
        body = source.encode(source.event())
        headers = source.sign(body)
        check_problem(gateway.post(name, body.replace(b"o", b"0", 1), headers), 401)
        check_problem(gateway.post(name, b"", headers), 401)
        for header in list(headers):
            if "ignature" in header:
                check_problem(gateway.post(name, body, {**headers, header: headers[header] + "0"}), 401)
                check_problem(gateway.post(name, body, {**headers, header: ""}), 401)
    assert stored(database) == 0


def test_a_repeated_signature_header_is_401(gateway):
    source = gateway.sources["hmac"]
    body = source.encode(source.event())
    line = f"X-Signature: {source.sign(body)['X-Signature']}\r\n"
    head = f"POST /in/hmac HTTP/1.1\r\nHost: a\r\n{line}{line}Content-Length: {len(body)}\r\n\r\n"
    check_problem(raw(gateway, head.encode() + body), 401)


def test_allow_and_trusted_proxies(start_gateway):
    hooks = [sign.Hmac("near", allow=["127.0.0.0/8"]), sign.Hmac("far", allow=["192.0.2.0/24", "2001:db8::/32"])]
    gateway = start_gateway({"listen": {"trusted_proxies": ["127.0.0.1/32"]}}, sources=hooks)
    near, far = hooks

    def post(source, forwarded=None):
        body = source.encode(source.event())
        headers = source.sign(body)
        if forwarded:
            headers["X-Forwarded-For"] = forwarded
        return gateway.post(source.name, body, headers, tls=False).status

    assert post(near) == 200
    assert post(far) == 401
    assert post(far, "192.0.2.7") == 200
    assert post(far, "2001:db8::1") == 200
    assert post(far, "192.0.2.7, 127.0.0.1") == 200          # the proxy's own address is skipped
    assert post(far, "192.0.2.7, 203.0.113.9") == 401         # the client wrote the first one itself
    assert post(far, "nonsense") == 401
    assert post(near, "203.0.113.9") == 401
    assert gateway.metric("oncehook_rejects_total", source="far", reason="not_allowed") == 3


def test_too_fast_is_429_after_verification(start_gateway, database):
    source = sign.Hmac("slow", rate_limit={"per_second": 1, "burst": 3})
    gateway = start_gateway(sources=[source])
    answers = [gateway.deliver("slow", source.event()) for _ in range(8)]
    statuses = [answer.status for answer in answers]
    assert statuses[:3] == [200] * 3 and 429 in statuses[3:], statuses
    late = next(answer for answer in answers if answer.status == 429)
    check_problem(late, 429)
    assert int(late.headers["retry-after"]) >= 1
    # Unverified ones neither pass nor use the bucket up.
    assert gateway.post("slow", b"{}", {}).status == 401
    assert gateway.metric("oncehook_rejects_total", source="slow", reason="too_fast") == statuses.count(429)
    assert stored(database) == statuses.count(200)


def refused_for(gateway, source, seconds, connections=1):
    """How often a source beyond its rate is refused on connections that never wait; one thread each."""
    refused = []

    def run():
        with gateway.wire() as one:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                body = source.encode(source.event())
                one.send(wire.request_bytes("POST", f"/in/{source.name}", source.sign(body), body))
                if one.answer().status == 429:
                    refused.append(time.monotonic())

    threads = [threading.Thread(target=run) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return refused


def test_who_does_not_back_off_is_refused_twice_a_second(start_gateway):
    """A refusal for overload is held for 100 ms, and for 500 ms where the connection was refused less than a second
    ago: it cannot keep the gateway busy with refusals."""
    source, calm = sign.Hmac("slow", rate_limit={"per_second": 1, "burst": 1}), sign.Hmac("calm")
    gateway = start_gateway(sources=[source, calm])
    assert gateway.deliver("slow", source.event()).status == 200
    refused = refused_for(gateway, source, 1.7)
    assert len(refused) > 1 and all(later - earlier > 0.49 for earlier, later in itertools.pairwise(refused)), refused
    assert gateway.deliver("calm", calm.event()).status == 200


def test_a_connection_that_was_not_refused_before_waits_a_tenth(start_gateway):
    source = sign.Hmac("slow", rate_limit={"per_second": 1, "burst": 1})
    gateway = start_gateway(sources=[source])
    took = []
    while len(took) < 5:
        body, began = source.encode(source.event()), time.monotonic()
        with gateway.wire() as one:
            one.send(wire.request_bytes("POST", "/in/slow", source.sign(body), body))
            if one.answer().status == 429:
                took.append(time.monotonic() - began)
    assert min(took) > 0.099 and statistics.median(took) < 0.5, took


def test_held_refusals_leave_connections_for_the_others(start_gateway):
    """While three quarters of a thread's connections are held, all are for a tenth only: behind a proxy they are
    everybody's. One of two threads has four of seven, of four that it may have."""
    source = sign.Hmac("slow", rate_limit={"per_second": 1, "burst": 1})
    gateway = start_gateway({"limits": {"connections": 8}}, sources=[source])
    assert gateway.deliver("slow", source.event()).status == 200
    refused = refused_for(gateway, source, 2, connections=7)
    each_half_s, each_tenth = 7 * (2 / 0.5 + 1), 7 * (2 / 0.1 + 1)
    assert each_half_s < len(refused) <= each_tenth, len(refused)


# ---- bodies --------------------------------------------------------------------------------------------


def post_bytes(gateway, body, tls=False):
    return gateway.post("hmac", body, tls=tls)


UNREADABLE = [
    b"", b" ", b"not json", b"{", b'{"a":1', b'{"a":1}}', b'{"a":1} {"b":2}', b"{'a':1}", b"\xef\xbb\xbf",
    b"[1,2", b"nul", b'"open', b"\x00", b"<xml/>", b"a=b&c=d", bytes(range(256))]


def test_verified_but_unreadable_bodies_are_kept_once(gateway, database):
    for body in each(database, UNREADABLE):
        for attempts in (1, 2):
            answer = post_bytes(gateway, body)
            assert answer.status == 200, answer
            assert answer.json == {"captured": 0, "duplicates": 0, "orphans": 0, "quarantined": 1, "spooled": 0}
            rows = quarantined(database)
            assert len(rows) == 1 and rows[0][0] == "hmac" and rows[0][1] and rows[0][3] == attempts, rows
            assert bytes(rows[0][2]) == body
        assert stored(database) == 0
    assert gateway.metric("oncehook_events_total", source="hmac", outcome="quarantined") == 2 * len(UNREADABLE)


def test_quarantine_hides_credentials(gateway, database):
    source = gateway.sources["hmac"]
    body = b"not json at all"
    headers = {**source.sign(body), "Authorization": "Bearer planted-secret", "Cookie": "planted-secret",
               "X-Api-Key": "planted-secret", "X-Harmless": "seen"}
    answer = gateway.request("POST", "/in/hmac?token=planted-secret&page=2", headers, body)
    assert answer.json["quarantined"] == 1, answer
    url, kept = database.sql("SELECT url, headers FROM quarantined_deliveries")[0]
    assert "planted-secret" not in url + json.dumps(kept)
    assert "page=2" in url and "****" in url
    assert ["seen"] in kept.values() and ["****"] in kept.values()
    assert "planted-secret" not in gateway.log_text()


def test_an_empty_batch_is_200_with_zeros(gateway, database):
    for name in ("hmac", "sendgrid"):
        answer = gateway.post(name, b"[]")
        assert answer.status == 200 and set(answer.json.values()) == {0}, answer
    assert stored(database) == 0 and quarantined(database) == []


def test_a_body_too_large_is_413(start_gateway):
    gateway = start_gateway({"limits": {"body_bytes": "1MiB"}})
    body = b'{"a":"' + b"x" * (2 * MIB) + b'"}'
    head = f"POST /in/hmac HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for tls in (False, True):
        # libh2o answers as soon as it sees the length, and closes while the client may still be sending.
        assert raw(gateway, head, tls=tls).status == 413
    with gateway.wire() as one:
        one.send(b"POST /in/hmac HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(40):
                one.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        except OSError:
            pass
        assert one.buffer == b"" and (not one.more() or b" 413 " in one.buffer)
    with gateway.wire() as one:
        one.send(b"POST /in/hmac HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
        assert one.answer().status == 413
    body = b'{"id":"large","a":"' + b"x" * (MIB - 100) + b'"}'
    assert gateway.post("hmac", body).json["captured"] == 1
    assert_alive(gateway)


def test_more_events_than_the_queue_holds_is_413(start_gateway, database):
    gateway = start_gateway({"queue": {"events": 100}, "batch": {"events": 50}})
    source = gateway.sources["hmac"]
    check_problem(gateway.deliver("hmac", *[source.event() for _ in range(101)]), 413)
    assert gateway.deliver("hmac", *[source.event() for _ in range(100)]).json["captured"] == 100
    assert stored(database) == 100


def test_the_densest_array_the_queue_holds_is_captured(gateway, database):
    """20,000 events of a few bytes: far more arena than body."""
    answer = gateway.post("hmac", b"[" + b",".join(b"%d" % n for n in range(20000)) + b"]")
    assert answer.status == 200 and answer.json["captured"] == 20000, answer
    assert stored(database) == 20000


def test_expect_continue_and_chunked_bodies(gateway, database):
    source = gateway.sources["hmac"]
    body = source.encode(source.event())
    lines = "".join(f"{name}: {value}\r\n" for name, value in source.sign(body).items())
    with gateway.wire(tls=True) as one:
        one.send(f"POST /in/hmac HTTP/1.1\r\nHost: a\r\n{lines}Expect: 100-continue\r\n"
                 f"Content-Length: {len(body)}\r\n\r\n".encode())
        assert one.answer().status == 100
        one.send(body)
        assert one.answer().json["captured"] == 1
        one.send(f"POST /in/hmac HTTP/1.1\r\nHost: a\r\n{lines}Transfer-Encoding: chunked\r\n\r\n".encode())
        for at in range(0, len(body), 7):
            part = body[at:at + 7]
            one.send(b"%x\r\n%s\r\n" % (len(part), part))
        one.send(b"0\r\n\r\n")
        assert one.answer().json["duplicates"] == 1


# ---- what verified events may hold ---------------------------------------------------------------------


def capture(gateway, body):
    answer = post_bytes(gateway, body)
    assert answer.status == 200 and answer.json["captured"] == 1 and answer.json["quarantined"] == 0, answer


BYTES_ONLY = [
    ("nesting of 100,000", b'{"id":"deepb","a":' + b"[" * 100000 + b"]" * 100000 + b"}"),
    ("nesting of 513", b'{"id":"deepc","a":' + b"[" * 513 + b"]" * 513 + b"}"),
    ("bad UTF-8", b'{"id":"utfb","a":"\xff\xfe"}'),
    ("overlong UTF-8", b'{"id":"utfc","a":"\xc0\xaf"}'),
    ("NUL escape", b'{"id":"nul","a":"\\u0000"}'),
    ("lone surrogate", b'{"id":"loneb","a":"\\ud800"}'),
    ("surrogate key", b'{"id":"lonec","\\udc00":1}'),
    ("huge number", b'{"id":"numb","a":1e131072}'),
    ("amplifying number", b'{"id":"numc","a":1e131071}'),
    ("tiny number", b'{"id":"numd","a":1e-16384}'),
    ("number of 10,000 digits", b'{"id":"nume","a":' + b"9" * 10000 + b"}"),
]


def test_what_jsonb_cannot_hold_is_kept_as_bytes(gateway, database):
    for name, body in each(database, BYTES_ONLY):
        capture(gateway, body)
        payload, kept, key, grade = rows_of(database, "payload, payload_bytes, provider_event_id, key_grade")[0]
        assert payload is None and bytes(kept) == body, name
        assert grade == "id" and key == json.loads(re.search(rb'"id":("[a-z]+")', body).group(1))
        assert post_bytes(gateway, body).json["duplicates"] == 1


HELD = [
    b'{"id":"fineb","a":' + b"[" * 500 + b"]" * 500 + b"}", b'{"id":"finec","a":"\\ud83d\\ude00 \xf0\x9f\x98\x80"}',
    b'{"id":"fined","a":18446744073709551616}', b'{"id":"finee","a":1e300,"b":-0.0,"c":1.5E-7}',
    b'{"id":"finef","a":1,"a":2}', b'\n\t {"id":"fineg"} \r\n']


def test_what_jsonb_can_hold_is_payload(gateway, database):
    for body in each(database, HELD):
        capture(gateway, body)
        assert rows_of(database, "payload IS NOT NULL, payload_bytes IS NULL") == [(True, True)]


UNUSABLE_IDS = [
    ("missing", b'{"a":%d}'), ("empty", b'{"id":"","a":%d}'), ("null", b'{"id":null,"a":%d}'),
    ("object", b'{"id":{},"a":%d}'), ("boolean", b'{"id":true,"a":%d}'), ("NUL", b'{"id":"a\\u0000b","a":%d}'),
    ("raw bad UTF-8", b'{"id":"a\xffb","a":%d}'), ("lone surrogate", b'{"id":"\\ud800","a":%d}'),
    ("10 kB", b'{"id":"' + b"x" * 10000 + b'","a":%d}'), ("256 bytes", b'{"id":"' + b"x" * 256 + b'","a":%d}')]


def test_an_unusable_id_falls_down_the_ladder(gateway, database):
    """Two events whose ids are unusable in the same way are still two events."""
    for name, body in each(database, UNUSABLE_IDS):
        for number in (1, 2):
            capture(gateway, body % number)
        assert post_bytes(gateway, body % 1).json["duplicates"] == 1
        rows = rows_of(database, "key_grade, key_scope, provider_event_id")
        assert {row[0] for row in rows} == {"hash"} and {row[1] for row in rows} == {"source:hmac"}, name
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", row[2]) for row in rows)


USABLE_IDS = [
    ('"' + "x" * 255 + '"', "x" * 255), ("12345678901234567890123", "12345678901234567890123"),
    ("1.10", "1.10"), ('"\\u00e9\\t"', "\u00e9\t"), ('" "', " "), ("-0", "-0")]


def test_usable_ids_keep_their_text(gateway, database):
    for text, key in each(database, USABLE_IDS):
        capture(gateway, f'{{"id":{text}}}'.encode())
        assert rows_of(database, "provider_event_id, key_grade") == [(key, "id")]


TIMES = [
    ("1700000000", "2023-11-14 22:13:20+00"), ("1700000000.25", "2023-11-14 22:13:20.25+00"),
    ('"1700000000"', "2023-11-14 22:13:20+00"), ("-5", None), ("0", None), ("253402300799", None), ("1e999", None),
    ('"9999-12-31T23:59:59Z"', None), ('"year 9999"', None), ("null", None), ("[]", None),
    ("99999999999999999999999999", None), ('"2023-11-14T22:13:20+01:00"', "2023-11-14 21:13:20+00")]


def test_times(gateway, database):
    """A time that makes no sense becomes the moment of acceptance; received_at is always now()."""
    for text, expected in each(database, TIMES):
        capture(gateway, json.dumps({"id": str(uuid.uuid4())}).encode()[:-1] + f',"time":{text}}}'.encode())
        if expected:
            assert database.value('SELECT "timestamp" = %s FROM campaign_events', expected), text
        sane = database.value('SELECT "timestamp" BETWEEN \'2000-01-01\' AND now() + interval \'1 day\''
                              " AND received_at BETWEEN now() - interval '1 minute' AND now() FROM campaign_events")
        assert sane, text


def test_scalars_in_an_array_are_events(gateway, database):
    answer = post_bytes(gateway, b'[1, "two", null, {"id":"x"}, [], 1]')
    assert answer.json["captured"] == 5 and answer.json["duplicates"] == 1, answer
    assert stored(database) == 5


def test_poison_harms_no_neighbour(gateway, database):
    """One delivery of many events, every tenth of which jsonb cannot hold."""
    events = [b'{"id":"p%d","a":%s}' % (n, b'"\\u0000"' if n % 10 == 0 else b"1") for n in range(100)]
    answer = post_bytes(gateway, b"[" + b",".join(events) + b"]")
    assert answer.json["captured"] == 100, answer
    assert rows_of(database, "payload_bytes") .count((None,)) == 90


# ---- the HTTP parser's corners ---------------------------------------------------------------------------


def framed(source, body, extra):
    lines = "".join(f"{name}: {value}\r\n" for name, value in source.sign(body).items())
    return f"POST /in/hmac HTTP/1.1\r\nHost: a\r\n{lines}{extra}\r\n".encode() + body


AMBIGUOUS = [
    "Content-Length: {n}\r\nContent-Length: {n}\r\n", "Content-Length: {n}\r\nContent-Length: 0\r\n",
    "Content-Length: {n}\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: {n}\r\n",
    "Content-Length: {n}\r\nX-Folded: a\r\n b\r\n", "X-Folded: a\r\n\tContent-Length: 3\r\nContent-Length: {n}\r\n"]


@pytest.mark.parametrize("tls", [False, True])
def test_ambiguous_framing_is_400_and_closed(gateway, database, tls):
    for extra in AMBIGUOUS:
        source = gateway.sources["hmac"]
        event = source.encode(source.event())
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(event), event) if "Transfer" in extra else event
        with gateway.wire(tls=tls) as one:
            one.send(framed(source, body, extra.format(n=len(body))))
            assert one.answer().status == 400
            assert one.closed()
    assert stored(database) == 0
    assert_alive(gateway)


MALFORMED = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 200,          # TLS to the plain port
    b"POST /in/hmac HTTP/1.1\r\nHost a\r\n\r\n", b"POST  /in/hmac HTTP/1.1\r\n\r\n", b"POST /in/hmac HTTP/9.9\r\n\r\n",
    b"POST /in/hmac HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"POST /in/hmac HTTP/1.1\r\nContent-Length: 1x\r\n\r\n",
    b"POST /in/hmac HTTP/1.1\r\nContent-Length: +5\r\n\r\nhello",
    b"POST /in/hmac HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /in/hmac HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", b"POST /in/hmac HTTP/1.1\r\nX: a\x00b\r\n\r\n",
    b"POST /in/\x01 HTTP/1.1\r\n\r\n",
    b"POST /in/hmac HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(101)) + b"\r\n",
    b"POST /in/hmac HTTP/1.1\r\n: no name\r\n\r\n"]


def test_malformed_requests_are_refused(gateway):
    for data in MALFORMED:
        with gateway.wire(timeout=10) as one:
            one.send(data)
            one.more()
            assert one.buffer == b"" or re.match(rb"HTTP/1\.[01] 4\d\d ", one.buffer), one.buffer[:200]
        assert_alive(gateway)


def test_random_bytes_harm_nobody(gateway, rng):
    for _ in range(150):
        data = bytearray(framed(gateway.sources["hmac"], b'{"id":"r"}', "Content-Length: 10\r\n"))
        for _ in range(rng.randrange(1, 12)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with gateway.wire(tls=rng.random() < 0.3, timeout=5) as one:
            one.send(bytes(data) + b"\r\n\r\n")
            one.socket.settimeout(0.05)
            try:
                one.more()
            except (socket.timeout, ssl.SSLError):
                pass
    assert_alive(gateway)


def test_pipelined_requests_are_answered_in_order(gateway, database):
    source = gateway.sources["hmac"]
    events = [source.event() for _ in range(20)]
    for tls in (False, True):
        with gateway.wire(tls=tls) as one:
            data = b""
            for event in events:
                body = source.encode(event)
                data += wire.request_bytes("POST", "/in/hmac", source.sign(body), body)
                data += wire.request_bytes("GET", "/livez")
            one.send(data)
            for _ in events:
                assert one.answer().json["duplicates" if tls else "captured"] == 1
                assert one.answer().body == b"alive\n"
    assert [row[0] for row in rows_of(database, "provider_event_id")] == [event["id"] for event in events]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_that_comes_back_resumes_its_tls_session(gateway, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    session = None
    for reused in (False, True):
        with gateway.wire() as one:
            one.socket.close()
            one.socket = context.wrap_socket(socket.create_connection(("127.0.0.1", gateway.https_port), 20), session=session)
            one.send(wire.request_bytes("GET", "/livez"))
            assert one.answer().status == 200
            assert one.socket.session_reused is reused
            session = one.socket.session  # with TLS 1.3 it comes behind the handshake, by now it is read


# ---- no HTTP/2 --------------------------------------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def test_alpn_offers_http_1_only(gateway):
    with gateway.wire(tls=True, alpn=["h2", "http/1.1"]) as one:
        assert one.socket.selected_alpn_protocol() == "http/1.1"
        one.send(wire.request_bytes("GET", "/livez"))
        assert one.answer().status == 200
    try:
        with gateway.wire(tls=True, alpn=["h2"]) as one:
            assert one.socket.selected_alpn_protocol() is None
    except ssl.SSLError:
        pass  # no protocol in common: the handshake may be refused


@pytest.mark.parametrize("tls,alpn", [(False, None), (True, None), (True, ["http/1.1"])])
def test_the_http2_preface_is_refused(gateway, tls, alpn):
    with gateway.wire(tls=tls, alpn=alpn) as one:
        one.send(PREFACE)
        one.more()
        assert one.buffer == b"" or one.buffer.startswith(b"HTTP/1.1 4"), one.buffer
    assert_alive(gateway)


def test_an_h2c_upgrade_is_ignored(gateway):
    settings = base64.urlsafe_b64encode(struct.pack(">HI", 3, 100)).decode().rstrip("=")
    answer = gateway.request("GET", "/livez", {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c",
                                               "HTTP2-Settings": settings}, tls=False)
    assert answer.status == 200 and "upgrade" not in answer.headers


# ---- slow and many ----------------------------------------------------------------------------------------


def test_a_slow_body_is_cut_off(start_gateway):
    gateway = start_gateway({"limits": {"request_timeout": "1s"}})
    for tls in (False, True):
        with gateway.wire(tls=tls, timeout=10) as one:
            began = time.monotonic()
            one.send(b"POST /in/hmac HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
            with pytest.raises(OSError):
                while time.monotonic() - began < 8:
                    one.send(b"x")
                    one.socket.settimeout(0.2)
                    try:
                        if not one.more():
                            raise ConnectionResetError
                    except socket.timeout:
                        pass
            assert time.monotonic() - began < 6
    assert_alive(gateway)


def test_a_thousand_connections_that_send_nothing(start_gateway):
    gateway = start_gateway({"limits": {"connections": 4096}})
    silent = [gateway.wire() for _ in range(1000)]
    try:
        process.wait_until(lambda: gateway.metric("oncehook_connections") >= 1000, what="all are accepted")
        began = time.monotonic()
        for _ in range(10):
            assert_alive(gateway)
        assert time.monotonic() - began < 10
    finally:
        for one in silent:
            one.close()


def test_the_connection_cap_holds_and_is_lifted(start_gateway):
    gateway = start_gateway({"limits": {"connections": 8}})
    held = [gateway.wire() for _ in range(40)]
    process.wait_until(lambda: gateway.metric("oncehook_connections") == 8, what="the cap")
    for one in held:
        one.close()
    process.wait_until(lambda: gateway.request("GET", "/livez").status == 200, what="room again")
    process.wait_until(lambda: gateway.metric("oncehook_connections") <= 1, what="all gone")
    assert_alive(gateway)


def test_connections_per_ip(start_gateway):
    gateway = start_gateway({"limits": {"connections_per_ip": 5}, "listen": {"http": None}})
    held = [socket.create_connection(("127.0.0.1", gateway.https_port)) for _ in range(5)]
    process.wait_until(lambda: gateway.metric("oncehook_connections") == 5, what="five connections")
    one = socket.create_connection(("127.0.0.1", gateway.https_port), timeout=10)
    assert one.recv(1) == b"", "the sixth of one address is closed at once"
    one.close()
    for other in held:
        other.close()
    process.wait_until(lambda: gateway.metric("oncehook_connections") == 0, what="all gone")
    assert_alive(gateway)


def test_a_source_that_floods_holds_only_its_share(start_gateway, database):
    """A lane is held up; one source fills its share and gets 503 with Retry-After, another still comes in."""
    instances = database.seed(1, 1)
    flood, calm = sign.Hmac("flood"), sign.Hmac("calm")
    gateway = start_gateway({"queue": {"events": 20, "share": "50%", "age": "20s"}, "ack_deadline": "10s",
                             "database": {"lanes": 1, "lock_timeout": "9s"}, "batch": {"events": 10}},
                            sources=[flood, calm])
    enrollment = instances[0][1][0]
    holder = database.connect()
    holder.cursor().execute("BEGIN; SELECT 1 FROM campaign_instances FOR UPDATE")
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        def post(source):
            return pool.submit(gateway.deliver, source.name, source.event(str(uuid.uuid4()), enrollment_id=enrollment))
        flooding = [post(flood) for _ in range(30)]
        process.wait_until(lambda: gateway.metric("oncehook_queue_events") == 10, what="the share is used up")
        process.wait_until(lambda: sum(one.done() for one in flooding) == 20, what="the others are refused")
        others = [post(calm) for _ in range(5)]
        process.wait_until(lambda: gateway.metric("oncehook_queue_events") == 15, what="the other source")
        holder.cursor().execute("ROLLBACK")
        holder.close()
        statuses = [future.result().status for future in flooding]
        assert [future.result().status for future in others] == [200] * 5
    refused = [future.result() for future in flooding if future.result().status != 200]
    assert statuses.count(200) == 10 and len(refused) == 20, statuses
    for answer in refused:
        check_problem(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1
    assert stored(database) == 15
    assert database.counter_drift() == []
