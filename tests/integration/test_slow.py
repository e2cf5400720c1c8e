"""Statements of the gateway that take too long are counted and logged by name: never a parameter, never
a payload. And what the gateway watches of its database stands in its metrics."""

import concurrent.futures
import re

import pytest

from support import process
from support.gateway import TOKEN
from test_overload import stuck

SECRET = "what-nobody-may-read-4711"


def slow_lines(gateway):
    return [line for line in gateway.log_lines() if line["message"] == "slow statement"]


def statements_now(database):
    return [row[0] for row in database.sql(
        "SELECT query FROM pg_stat_activity WHERE application_name LIKE 'oncehook lane%%' AND state = 'active'")]


def test_a_slow_capture_is_logged_by_name(start_gateway, database):
    gateway = start_gateway({"database": {"slow_statement": "100ms", "lock_timeout": "9s"}})
    fast = gateway.deliver("hmac", gateway.sources["hmac"].event(text=SECRET))
    assert fast.status == 200
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with stuck(database) as enrollment:
            event = gateway.sources["hmac"].event("id-" + SECRET, enrollment_id=enrollment, text=SECRET)
            answer = pool.submit(gateway.deliver, "hmac", event)
            process.wait_until(lambda: statements_now(database), what="the capture waits for the row")
            # The name in the log is the one that PostgreSQL shows.
            assert all(text.startswith("/* capture_v1 */ SELECT capture_v1($1") for text in statements_now(database))
            process.wait_until(lambda: database.value(
                "SELECT max(now() - query_start) > '0.2 s' FROM pg_stat_activity WHERE wait_event_type = 'Lock'"),
                what="it has waited for 0.2 s")
        assert answer.result().status == 200
    process.wait_until(lambda: [one for one in slow_lines(gateway) if one["statement"] == "capture_v1"],
                       what="the line")
    found = [one for one in slow_lines(gateway) if one["statement"] == "capture_v1"]
    assert len(found) == 1, found
    assert found[0]["connection"].startswith("oncehook lane ") and 100 < found[0]["ms"] < 9000
    assert found[0]["sqlstate"] == "00000" and found[0]["level"] == "warning"
    assert gateway.metric("oncehook_slow_statements_total") == len(slow_lines(gateway))
    assert SECRET not in gateway.log_text() and enrollment not in gateway.log_text()


def test_one_that_fails_says_its_sqlstate(start_gateway, database):
    gateway = start_gateway({"database": {"slow_statement": "100ms", "lock_timeout": "200ms", "retries": 0}})
    with stuck(database) as enrollment:
        assert gateway.deliver("hmac", gateway.sources["hmac"].event(enrollment_id=enrollment)).status == 503
    found = [one for one in slow_lines(gateway) if one["statement"] == "capture_v1"]
    assert found and {one["sqlstate"] for one in found} == {"55P03"}, found


def test_a_second_is_the_default_and_nothing_is_slow(gateway):
    assert gateway.deliver("hmac", gateway.sources["hmac"].event()).status == 200
    assert not slow_lines(gateway)
    assert gateway.metric("oncehook_slow_statements_total") == 0


def test_every_statement_has_a_name(start_gateway):
    """With the least threshold nearly every statement is slow."""
    gateway = start_gateway({"database": {"slow_statement": "1ms"}})
    assert gateway.deliver("hmac", gateway.sources["hmac"].event()).status == 200
    gateway.admin("/health/database")
    assert gateway.admin("/v1/templates", token=TOKEN).status == 200

    def names():
        return {line["statement"] for line in slow_lines(gateway)}
    process.wait_until(lambda: len(names()) >= 4, what="some statements")
    assert all(re.fullmatch(r"[a-z][a-z0-9_]+", name) and name != "unnamed" for name in names()), names()
    seen = {line["connection"] for line in slow_lines(gateway)}
    assert all(name.startswith("oncehook ") for name in seen) and len(seen) > 1, seen


@pytest.fixture
def sees_all(cluster):
    """The gateway's role may look at other sessions, as docs/database.md recommends."""
    cluster.sql("GRANT pg_read_all_stats TO oncehook_gateway")
    yield
    cluster.sql("REVOKE pg_read_all_stats FROM oncehook_gateway")


def test_what_is_watched_stands_in_the_metrics(start_gateway, database, sees_all):
    database.sql("INSERT INTO quarantined_deliveries (source, body_sha256, received_at) "
                 "VALUES ('hmac', 'x', now() - interval '1 hour')")
    holder = database.connect()
    try:
        holder.cursor().execute("BEGIN; SELECT 1")
        gateway = start_gateway()
        process.wait_until(lambda: "oncehook_quarantine_oldest_seconds" in gateway.metrics(), what="the first look")
        found = gateway.metrics()
    finally:
        holder.close()
    assert found["oncehook_months_ahead"] == 3
    assert found["oncehook_oldest_transaction_seconds"] > 0
    assert found["oncehook_dead_row_share"] == 0
    assert 0.9 < found["oncehook_id_headroom"] < 1
    assert found["oncehook_database_bytes"] > 5e6
    assert 3600 <= found["oncehook_quarantine_oldest_seconds"] < 4000
    assert found["oncehook_lanes"] == 2 and found["oncehook_waiting_batches"] == 0
    assert 0 <= found.get("oncehook_hit_ratio", 1) <= 1


def test_a_look_that_may_not_be_taken_is_absent(gateway):
    process.wait_until(lambda: "oncehook_months_ahead" in gateway.metrics(), what="the first look")
    assert "oncehook_oldest_transaction_seconds" not in gateway.metrics()


def test_lanes_count_how_long_they_are_busy(start_gateway, database):
    gateway = start_gateway({"database": {"lock_timeout": "9s"}})
    before = gateway.metric("oncehook_lane_busy_seconds_total")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with stuck(database) as enrollment:
            answer = pool.submit(gateway.deliver, "hmac", gateway.sources["hmac"].event(enrollment_id=enrollment))
            process.wait_until(lambda: database.value(
                "SELECT max(now() - query_start) > '0.5 s' FROM pg_stat_activity WHERE wait_event_type = 'Lock'"),
                what="it has waited for half a second")
        assert answer.result().status == 200
    busy = gateway.metric("oncehook_lane_busy_seconds_total") - before
    assert 0.5 <= busy < 10, busy
