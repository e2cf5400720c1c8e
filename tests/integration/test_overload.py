"""Beyond each bound: 503 with Retry-After at once, what was admitted is captured, and afterwards all is as
before. The figures of real overload are bench/overload's; here only that it behaves."""

import concurrent.futures
import contextlib
import json
import os
import subprocess
import time
import uuid

from support import process, sign
from support.gateway import BINARY, REPOSITORY, environment


@contextlib.contextmanager
def stuck(database):
    """No batch can commit while this lasts; yields an enrollment of the instance that is locked."""
    enrollment = database.seed(1, 1)[0][1][0]
    holder = database.connect()
    try:
        holder.cursor().execute("BEGIN; SELECT 1 FROM campaign_instances FOR UPDATE")
        yield enrollment
    finally:
        holder.close()


def settings(**queue):
    return {"queue": {"age": "20s", "share": "100%", **queue}, "ack_deadline": "15s", "batch": {"events": 5},
            "database": {"lanes": 1, "lock_timeout": "14s", "statement_timeout": "15s"}}


def post_beyond(gateway, database, enrollment, count, size=0):
    """Posts `count` deliveries, each when the one before waits or is refused; (refused, all futures)."""
    source, pool = gateway.sources["hmac"], concurrent.futures.ThreadPoolExecutor(count)

    def post():
        event = source.event(str(uuid.uuid4()), enrollment_id=enrollment, text="x" * size)
        began = time.monotonic()
        answer = gateway.deliver("hmac", event, tls=False)
        return answer, time.monotonic() - began

    def settled():
        return sum(one.done() for one in futures) + gateway.metric("oncehook_queue_events")

    futures = []
    while len(futures) < count:
        futures.append(pool.submit(post))
        process.wait_until(lambda: settled() == len(futures), what="it is refused or waits")
    return [one.result() for one in futures if one.done()], futures


def check_bound(gateway, database, limit, count, size=0):
    """`count` deliveries while nothing commits: at most `limit` wait, the others are refused at once."""
    with stuck(database) as enrollment:
        refused, futures = post_beyond(gateway, database, enrollment, count, size)
        for answer, seconds in refused:
            assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1, answer
            assert seconds < 5
        assert 0 < count - len(refused) <= limit, len(refused)
    statuses = [one.result()[0].status for one in futures]
    assert statuses.count(200) == count - len(refused), statuses
    assert database.value("SELECT count(*) FROM campaign_events") == count - len(refused)
    assert gateway.metric("oncehook_queue_events") == 0
    assert gateway.deliver("hmac", gateway.sources["hmac"].event()).status == 200


def test_events_are_bounded(start_gateway, database):
    check_bound(start_gateway(settings(events=12)), database, 12, 30)


def test_bytes_are_bounded(start_gateway, database):
    gateway = start_gateway({**settings(bytes="1MiB"), "limits": {"body_bytes": "512KiB"}})
    check_bound(gateway, database, 5, 12, 200_000)


def test_memory_of_what_waits_is_bounded_before_anybody_is_closed(start_gateway, database):
    gateway = start_gateway({**settings(), "limits": {"memory": f"{32 * os.cpu_count()}MiB"}})
    check_bound(gateway, database, 8 * os.cpu_count(), 12 * os.cpu_count(), 500_000)
    assert gateway.metric("oncehook_memory_closed_total") == 0
    process.wait_until(lambda: gateway.metric("oncehook_memory_bytes") < 1 << 20, what="all is given back")


def test_age_is_bounded(start_gateway, database):
    gateway = start_gateway(settings(age="150ms"))
    source = gateway.sources["hmac"]
    with concurrent.futures.ThreadPoolExecutor(2) as pool, stuck(database) as enrollment:
        def post():
            return gateway.deliver("hmac", source.event(str(uuid.uuid4()), enrollment_id=enrollment))
        waiting = []
        for count in (1, 2):  # the first is with PostgreSQL, the second waits for it
            waiting.append(pool.submit(post))
            process.wait_until(lambda count=count: gateway.metric("oncehook_queue_events") == count, what="it is in")
        process.wait_until(lambda: gateway.metric("oncehook_oldest_waiting_seconds") > 0.15, what="it is old")
        began = time.monotonic()
        answer = post()
        assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1, answer
        assert time.monotonic() - began < 2
    assert [one.result().status for one in waiting] == [200, 200]
    assert gateway.deliver("hmac", source.event()).status == 200


def test_a_flood_neither_refuses_nor_delays_another_source(start_gateway, database):
    """Sources take turns: what comes beside a full queue is admitted, and committed with the next batch."""
    flood, calm = sign.Hmac("flood"), sign.Hmac("calm")
    gateway = start_gateway(settings(age="3s"), sources=[flood, calm])
    with concurrent.futures.ThreadPoolExecutor(40) as pool, stuck(database) as enrollment:
        def post(source, ident):
            return gateway.deliver(source.name, source.event(ident, enrollment_id=enrollment), tls=False).status

        def admit(source, ident):
            queued = gateway.metric("oncehook_queue_events")
            answer = pool.submit(post, source, ident)
            process.wait_until(lambda: answer.done() or gateway.metric("oncehook_queue_events") > queued,
                               what="it is refused or waits")
            return answer

        waiting = [admit(flood, f"flood-{i}") for i in range(30)]
        process.wait_until(lambda: gateway.metric("oncehook_oldest_waiting_seconds") > 3, what="the flood is old")
        assert post(flood, "too-much") == 503
        ours = admit(calm, "ours")
        assert not ours.done(), ours.result()
        assert post(flood, "too-much") == 503
    assert ours.result() == 200
    taken = [one.result() for one in waiting].count(200)
    assert taken >= 15, "the flood was no queue"
    batch = database.value("SELECT count(DISTINCT tx) FROM campaign_events WHERE tx <= "
                           "(SELECT tx FROM campaign_events WHERE source = 'calm')")
    assert batch == 2, "the first was with PostgreSQL when it came"


def test_what_a_newcomer_would_wait_is_judged_by_its_own_source(start_gateway, database):
    flood, calm = sign.Hmac("flood"), sign.Hmac("calm")
    gateway = start_gateway({**settings(age="3s"), "batch": {"events": 100}}, sources=[flood, calm])
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        def admit(source, count, enrollment):
            queued = gateway.metric("oncehook_queue_events")
            events = [source.event(str(uuid.uuid4()), enrollment_id=enrollment) for _ in range(count)]
            answer = pool.submit(gateway.deliver, source.name, *events, tls=False)
            process.wait_until(lambda: answer.done() or gateway.metric("oncehook_queue_events") == queued + count,
                               what="it is refused or waits")
            return answer

        with stuck(database) as enrollment:  # teaches that an event takes 20 ms
            answers = [admit(flood, 100, enrollment)]
            time.sleep(2)
        assert answers[0].result().status == 200
        with stuck(database) as enrollment:
            answers += [admit(flood, 1, enrollment), admit(flood, 300, enrollment)]  # 6 s, and no age
            refused = admit(flood, 1, enrollment)
            answers += [admit(calm, 1, enrollment), admit(calm, 1, enrollment)]
            assert refused.done() and refused.result().status == 503
            assert not answers[-1].done(), answers[-1].result()
    assert [one.result().status for one in answers] == [200] * len(answers)


def load(gateway, certificate, source, rate, seconds):
    argv = [os.path.join(REPOSITORY, "bench", "load"), "--url", f"http://127.0.0.1:{gateway.http_port}",
            "--ca", certificate[0], "-c", gateway.config_path, "--source", source, "--rate", str(rate),
            "--seconds", str(seconds), "--warmup", "0.2", "--connections", "256", "--json", "-"]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=environment(ONCEHOOK_BUILD=os.path.dirname(BINARY)))


def finish(child):
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    return json.loads(out)["results"][0]


def test_overload_gives_2xx_and_503_only_and_passes(start_gateway, database, certificate):
    database.seed(20, 20)
    flood, calm = sign.Hmac("flood"), sign.Hmac("calm")
    gateway = start_gateway(sources=[flood, calm])
    running = load(gateway, certificate, "flood", 30000, 6)
    beside = finish(load(gateway, certificate, "calm", 50, 4))
    over = finish(running)
    ended = time.monotonic()
    for result in (over, beside):
        totals = result["totals"]
        assert set(totals["statuses"]) <= {"200", "503"} and totals["statuses"]["200"] > 0, totals
        assert totals["timeouts"] == totals["broken"] == totals["refused"] == 0, totals
        print(result["name"], totals["statuses"], result["accepted_sent"])
    assert beside["accepted"]["p99_ms"] < 5000
    process.wait_until(lambda: gateway.metric("oncehook_queue_events") == 0, 5, what="nothing waits")
    process.wait_until(lambda: gateway.deliver("calm", calm.event()).status == 200, 5, what="as before")
    assert time.monotonic() - ended < 5
    events = database.value("SELECT count(*) FROM campaign_events")
    assert events == over["totals"]["captured"] + beside["totals"]["captured"] + 1
    assert database.counter_drift() == []
