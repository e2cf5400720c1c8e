"""The admin listener of the real gateway: probes, health, sizes, metrics, and the token, with the
database well, away, hung and locked."""

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time

import pytest

from support import process
from support.gateway import TOKEN, oncehook
from support.sign import Hmac

OUTCOMES = ("captured", "duplicate", "orphan", "quarantined", "spooled")
REASONS = ("signature_missing", "signature_wrong", "stale", "not_allowed", "unreadable", "too_fast")
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def get(gateway, path, status=200):
    answer = gateway.admin(path)
    assert answer.status == status, answer
    return answer.json


def database_health(gateway):
    """/health/database, whose form is the same in every state of the world."""
    answer = get(gateway, "/health/database")
    assert list(answer["pool"]) == ["total", "idle", "waiting"], answer
    assert TIMESTAMP.fullmatch(answer["timestamp"]), answer
    assert set(answer) - {"warning"} == {"status", "pool", "tables", "timestamp"}, answer
    return answer


def admin_backend(database):
    """The pid of admin's own backend, None when it has none."""
    rows = database.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'oncehook admin'"
                        " AND datname = current_database()")
    assert len(rows) <= 1, "admin has more than one connection"
    return rows[0][0] if rows else None


@pytest.fixture
def crashable(private_cluster):
    """A migrated database whose server the test may stop."""
    made = private_cluster.create_database()
    oncehook("migrate", "up", "--database", made.owner_url)
    return made


# ---- all is well ------------------------------------------------------------------------------------


def test_probes_and_health_of_a_gateway_that_is_well(gateway):
    assert get(gateway, "/livez")["status"] == "alive"
    assert get(gateway, "/readyz")["status"] == "ready"
    health = get(gateway, "/health")
    assert health["status"] == "healthy", health
    parts = {name: part["status"] for name, part in health.items() if isinstance(part, dict)}
    assert parts == dict.fromkeys(("gateway", "lanes", "database", "queue"), "healthy"), health
    assert health["lanes"]["total"] == health["lanes"]["connected"] == 2
    assert TIMESTAMP.fullmatch(health["timestamp"])


def test_database_health_shows_the_pool_and_the_five_greatest_tables(gateway, database):
    database.sql("CREATE TABLE filler AS SELECT repeat(md5(i::text), 20) FROM generate_series(1, 20000) i")
    database.sql("ANALYZE filler")
    health = database_health(gateway)
    assert health["status"] == "healthy" and "warning" not in health, health
    assert health["pool"] == {"total": 2, "idle": 2, "waiting": 0}
    tables = health["tables"]
    assert len(tables) == 5 and tables[0]["name"] == "filler", tables
    assert tables[0]["rows"] == 20000
    sizes = [table["bytes"] for table in tables]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 10_000_000
    names = [table["name"] for table in tables]
    assert len(set(names)) == 5
    # Months are part of their table, not tables of their own.
    partitions = {row[0] for row in database.sql("SELECT relname FROM pg_class WHERE relispartition")}
    assert partitions and not partitions & set(names), names
    assert "campaign_events" in names
    exact = database.value("SELECT sum(pg_total_relation_size(relid))::bigint"
                           " FROM pg_partition_tree('campaign_events')")
    assert next(table["bytes"] for table in tables if table["name"] == "campaign_events") == exact


def test_sizes_are_asked_for_once_in_a_few_seconds_over_one_connection(gateway, database):
    first = database_health(gateway)["tables"]
    database.sql("CREATE TABLE filler AS SELECT repeat(md5(i::text), 20) FROM generate_series(1, 5000) i")
    threads = [threading.Thread(target=database_health, args=(gateway,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database_health(gateway)["tables"] == first, "asked again at once"
    backend = admin_backend(database)
    assert backend
    process.wait_until(lambda: database_health(gateway)["tables"][0]["name"] == "filler", 15,
                       what="the sizes read anew")
    assert admin_backend(database) == backend


# ---- the database is not ----------------------------------------------------------------------------


def test_a_database_that_is_away_is_said_at_once_and_noticed_when_it_returns(start_gateway, crashable):
    gateway = start_gateway(database=crashable)
    assert len(database_health(gateway)["tables"]) == 5
    crashable.cluster.crash()
    process.wait_until(lambda: gateway.admin("/readyz").status == 503, what="readyz without database")
    answer = gateway.admin("/readyz")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == 503 and "database" in answer.json["detail"], answer
    assert get(gateway, "/livez")["status"] == "alive"
    process.wait_until(lambda: gateway.metric("oncehook_database_up") == 0, what="all lanes know")
    began = time.monotonic()
    health = database_health(gateway)
    assert time.monotonic() - began < 1
    assert health["status"] == "unhealthy" and health["tables"] == [] and health["pool"]["total"] == 2, health
    health = get(gateway, "/health")
    assert health["status"] == "unhealthy" and health["database"]["status"] == "unhealthy", health
    crashable.cluster.start()
    process.wait_until(lambda: gateway.admin("/readyz").status == 200, what="readyz with database")
    process.wait_until(lambda: database_health(gateway)["status"] == "healthy", 15, what="sizes again")
    assert len(database_health(gateway)["tables"]) == 5
    assert gateway.metric("oncehook_database_up") == 1


def test_a_backend_that_hangs_holds_up_no_probe(gateway, database):
    database_health(gateway)
    pid = admin_backend(database)
    time.sleep(5.1)  # what was read is kept for 5 seconds
    os.kill(pid, signal.SIGSTOP)
    try:
        answers = []
        asking = threading.Thread(target=lambda: answers.append(database_health(gateway)))
        asking.start()
        while asking.is_alive():
            began = time.monotonic()
            assert get(gateway, "/livez") and get(gateway, "/readyz") and get(gateway, "/health")
            assert gateway.metric("oncehook_database_up") == 1
            assert time.monotonic() - began < 1
        began = time.monotonic()
        assert database_health(gateway)["tables"] == [], "a failure is kept too"
        assert time.monotonic() - began < 1
        assert answers[0]["status"] == "degraded" and "sizes" in answers[0]["warning"], answers
    finally:
        os.kill(pid, signal.SIGCONT)
    process.wait_until(lambda: database_health(gateway)["tables"], 15, what="sizes over a new connection")


def test_a_table_that_is_locked_costs_the_sizes_and_nothing_else(gateway, database):
    with contextlib.closing(database.connect()) as holder:
        holder.cursor().execute("BEGIN; LOCK TABLE campaign_templates")
        began = time.monotonic()
        health = database_health(gateway)
        assert time.monotonic() - began < 3
        assert health["status"] == "degraded" and health["tables"] == [], health
        assert gateway.admin("/readyz").status == 200
        holder.cursor().execute("ROLLBACK")
    process.wait_until(lambda: database_health(gateway)["status"] == "healthy", 15, what="sizes again")


def test_more_than_five_full_batches_waiting_is_a_saturated_pool(start_gateway, database):
    gateway = start_gateway({"database": {"lanes": 1, "lock_timeout": "20s", "statement_timeout": "30s"},
                             "batch": {"events": 2}, "queue": {"age": "30s"}, "ack_deadline": "30s"})
    _, [enrollment, *_] = database.seed(1, 1)[0]
    source = gateway.sources["hmac"]
    with contextlib.closing(database.connect()) as holder:
        holder.cursor().execute("BEGIN; SELECT 1 FROM campaign_instances FOR UPDATE")
        answers = []
        events = [source.event(enrollment_id=enrollment) for _ in range(30)]
        posting = threading.Thread(target=lambda: answers.append(gateway.deliver("hmac", *events)))
        posting.start()
        # The queue fills before the lane has taken its first batch.
        health = process.wait_until(lambda: (h := database_health(gateway))["pool"]["idle"] == 0 and
                                    h["pool"]["waiting"] > 5 and h, what="a saturated pool")
        assert (health["status"], health["warning"]) == ("degraded", "Connection pool saturated"), health
        assert get(gateway, "/health")["queue"]["status"] == "degraded"
        assert gateway.metric("oncehook_queue_events") == 30
        assert gateway.metric("oncehook_oldest_waiting_seconds") > 0
        holder.cursor().execute("ROLLBACK")
        posting.join()
    assert answers[0].status == 200, answers
    health = process.wait_until(lambda: (h := database_health(gateway))["pool"]["idle"] == 1 and h,
                                what="an idle lane")
    assert health["status"] == "healthy" and health["pool"]["waiting"] == 0, health


# ---- metrics ------------------------------------------------------------------------------------------


def test_every_series_is_there_before_the_first_delivery(gateway):
    answer = gateway.admin("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = gateway.metrics()
    for name in gateway.sources:
        for outcome in OUTCOMES:
            assert found[f'oncehook_events_total{{source="{name}",outcome="{outcome}"}}'] == 0
        for reason in REASONS:
            assert found[f'oncehook_rejects_total{{source="{name}",reason="{reason}"}}'] == 0
        assert found[f'oncehook_deliveries_total{{source="{name}",status="200"}}'] == 0
        assert found[f'oncehook_id_changed_total{{source="{name}"}}'] == 0
        assert found[f'oncehook_last_event_timestamp_seconds{{source="{name}"}}'] == 0
    for name in ("queue_events", "oldest_waiting_seconds", "spool_events", "deadlocks_total",
                 "batch_events_count", "commit_seconds_count", "ack_seconds_count"):
        assert found[f"oncehook_{name}"] == 0
    assert found["oncehook_database_up"] == 1
    assert found.get("oncehook_counter_drift", 0) == 0  # absent until it was measured


def test_metrics_count_what_was_sent(gateway, database):
    [(_, [enrollment])] = database.seed(1, 1)
    before = time.time()
    source = gateway.sources["hmac"]
    first = source.event(enrollment_id=enrollment)
    stranger = source.event(enrollment_id="00000000-0000-4000-8000-000000000000")
    assert gateway.deliver("hmac", first, source.event()).status == 200
    assert gateway.deliver("hmac", first, stranger).status == 200
    assert gateway.post("hmac", b"{}", {}).status == 401
    assert gateway.post("hmac", b"{}", {"X-Signature": "00" * 32}).status == 401
    assert gateway.post("hmac", b"not json").json["quarantined"] == 1
    stripe = gateway.sources["stripe"]
    old = stripe.encode(stripe.event())
    assert gateway.post("stripe", old, now=time.time() - 400 * 86400).status == 401

    def events(outcome):
        return gateway.metric("oncehook_events_total", source="hmac", outcome=outcome)
    # Only deliveries whose events were waited for have a time to the answer.
    process.wait_until(lambda: gateway.metric("oncehook_ack_seconds_count") == 3, what="all answers counted")
    assert {outcome: events(outcome) for outcome in OUTCOMES} == {
        "captured": 2, "duplicate": 1, "orphan": 1, "quarantined": 1, "spooled": 0}
    assert gateway.metric("oncehook_deliveries_total", source="hmac", status="200") == 3
    assert gateway.metric("oncehook_deliveries_total", source="hmac", status="401") == 2
    assert gateway.metric("oncehook_rejects_total", source="hmac", reason="signature_missing") == 1
    assert gateway.metric("oncehook_rejects_total", source="hmac", reason="signature_wrong") == 1
    assert gateway.metric("oncehook_rejects_total", source="stripe", reason="stale") == 1
    assert gateway.metric("oncehook_rejects_total", source="hmac", reason="unreadable") == 1
    assert gateway.metric("oncehook_rejects_total") == 4
    assert 3 <= gateway.metric("oncehook_batch_events_sum") <= 4  # a known duplicate needs no database
    assert gateway.metric("oncehook_commit_seconds_count") >= 1
    assert gateway.metric("oncehook_commit_seconds_sum") > 0
    stamp = gateway.metric("oncehook_last_event_timestamp_seconds", source="hmac")
    assert int(before) <= stamp <= time.time() + 1
    assert gateway.metric("oncehook_queue_events") == 0


def test_a_source_name_cannot_break_the_page(start_gateway):
    """Whatever names the configuration allows, each series is one line of the format's grammar."""
    gateway = start_gateway(sources=[Hmac("a"), Hmac("a-b"), Hmac("a" * 60)])
    line = re.compile(r'[a-z_]+(\{[a-z]+="(?:[^"\\\n]|\\["\\n])*"(,[a-z]+="(?:[^"\\\n]|\\["\\n])*")*\})? [0-9.e+-]+')
    for text in gateway.admin("/metrics").body.decode().splitlines():
        assert text.startswith("# ") or line.fullmatch(text), text


# ---- the token, and what is refused ---------------------------------------------------------------------


def test_v1_needs_the_token(gateway):
    for token in (None, "", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper()):
        answer = gateway.admin("/v1/anything", token=token)
        assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer", answer
        assert answer.headers["content-type"] == "application/problem+json"
        assert set(answer.json) == {"type", "title", "status", "detail"}
    assert gateway.admin("/v1/anything", token=TOKEN).status == 404


def test_without_a_configured_token_v1_is_closed(start_gateway):
    gateway = start_gateway({"admin": {"token": None}})
    assert gateway.admin("/v1/anything", token="").status == 401
    assert gateway.admin("/v1/anything", token="None").status == 401
    assert gateway.admin("/livez").status == 200


def test_unknown_paths_and_methods_are_problems_and_no_answer_names_a_server(gateway):
    for method, path, status in (("GET", "/nowhere", 404), ("POST", "/health", 405), ("GET", "/metrics", 200),
                                 ("GET", "/v1/x", 401)):
        answer = gateway.admin(path, method=method)
        assert answer.status == status, answer
        assert "server" not in answer.headers
        if status != 200:
            assert json.loads(answer.body)["status"] == status


def test_the_gateway_leaves_in_time_while_admin_clients_hang(start_gateway):
    gateway = start_gateway()
    stuck = [socket.create_connection(("127.0.0.1", gateway.admin_port)) for _ in range(5)]
    stuck[0].sendall(b"GET /livez HT")
    began = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - began < 10
    for one in stuck:
        one.close()
