"""What becomes of a delivery for each answer that PostgreSQL can give: a test for every row of the table in
src/store/sqlstate.c, by its real cause where that can be had; and how a gateway finds its database again."""

import contextlib
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
import uuid

import pytest

from support import gateway as gateway_module
from support import process
from support.postgres import DURABLE, GATEWAY, Cluster

TABLE = os.path.join(gateway_module.REPOSITORY, "src/store/sqlstate.c")
PATIENT = {"ack_deadline": "10s", "queue": {"age": "20s"}, "database": {"lanes": 1, "lock_timeout": "8s"}}

# Every row of the table -> the test that provokes it. RAISED below are those that no cause of ours can
# bring about on purpose: a trigger raises them.
RAISED = {"55006": "retried", "08": "retried", "57P03": "retried", "25006": "retried", "25P03": "retried",
          "0A000": "retried", "58030": "stops", "XX": "stops", "P0": "refused"}
CAUSED = {"40001": "test_a_serialization_failure_is_retried", "40P01": "test_a_deadlock_is_retried_and_counted",
          "55P03": "test_a_lock_that_is_held_is_waited_for", "57014": "test_a_lock_that_is_held_is_waited_for",
          "57P01": "test_a_terminated_backend_is_an_unknown_outcome",
          "57P02": "test_a_crash_is_an_unknown_outcome_and_heals_within_the_deadline",
          "57P05": "test_an_idle_session_that_is_closed_costs_nothing",
          "26000": "test_a_prepared_statement_that_is_gone_is_prepared_again",
          "22": "test_poison_by_its_real_cause", "54000": "test_poison_by_its_real_cause",
          "54001": "test_poison_by_its_real_cause", "23502": "test_poison_by_its_real_cause",
          "23514": "test_poison_by_its_real_cause", "23": "test_a_constraint_of_the_users_refuses_one_row",
          "53": "test_a_full_disk_stops_the_intake"}


def rows_of_the_table():
    with open(TABLE, encoding="utf-8") as file:
        return re.findall(r'^    \{"([0-9A-Z]+)", STORE_', file.read(), re.M)


def test_every_row_of_the_table_has_its_test():
    rows = rows_of_the_table()
    assert len(rows) > 20 and len(set(rows)) == len(rows)
    assert sorted([*RAISED, *CAUSED]) == sorted(rows)
    assert all(name in globals() for name in CAUSED.values())


# ---- help -------------------------------------------------------------------------------------------------


def check_each_once(gateway, database, *, stored, source="hmac"):
    """`stored` events, each key once in ledger and events, counters as the events; and what the gateway
    counted as captured is what is there."""
    assert database.value("SELECT count(*) FROM campaign_events") == stored
    assert database.value("SELECT count(*) FROM event_keys") == stored
    assert database.counter_drift() == []
    if gateway:
        assert gateway.metric("oncehook_events_total", source=source, outcome="captured") == stored


def seed_one(database):
    (instance, (enrollment,)), = database.seed(1, 1)
    return instance, enrollment


def deliver_in_background(gateway, *events):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(gateway.deliver("hmac", *events)))
    thread.start()

    def answer():
        thread.join(30)
        return answers[0]
    return answer


def wait_for_a_waiting_capture(database):
    return process.wait_until(lambda: database.sql(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND application_name LIKE 'oncehook lane%%'"), what="a capture that waits")[0][0]


@contextlib.contextmanager
def held(database, statement="SELECT 1 FROM campaign_instances FOR UPDATE"):
    """Rows are locked by somebody else's transaction; yields its cursor."""
    holder = database.connect()
    try:
        with holder.cursor() as cursor:
            cursor.execute("BEGIN; " + statement)
            yield cursor
    finally:
        holder.close()


def raise_for(database, body):
    """A trigger runs `body` (plpgsql) for each event whose id begins with bad."""
    database.sql("CREATE FUNCTION provoke() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN"
                 f" IF NEW.provider_event_id LIKE 'bad%%' THEN {body} END IF; RETURN NEW; END $f$")
    database.sql("CREATE TRIGGER provoke BEFORE INSERT ON campaign_events FOR EACH ROW EXECUTE FUNCTION provoke()")


def raise_sqlstate(database, sqlstate, times):
    database.sql("CREATE SEQUENCE provoked")  # counts on through rollbacks
    database.sql(f"GRANT USAGE ON SEQUENCE provoked TO {GATEWAY}")
    raise_for(database, f"IF nextval('provoked') <= {times} THEN"
                        f" RAISE EXCEPTION USING ERRCODE = '{(sqlstate + '000')[:5]}', MESSAGE = 'provoked'; END IF;")


# ---- retry on this connection ------------------------------------------------------------------------------


@pytest.mark.parametrize("sqlstate", [state for state, what in RAISED.items() if what == "retried"])
def test_a_raised_state_is_retried_within_the_delivery(start_gateway, database, sqlstate):
    gateway = start_gateway(PATIENT)
    instance, enrollment = seed_one(database)
    raise_sqlstate(database, sqlstate, 1)
    answer = gateway.deliver("hmac", gateway.sources["hmac"].event(f"bad-{sqlstate}", enrollment_id=enrollment))
    assert answer.status == 200 and answer.json["captured"] == 1, answer
    assert database.value("SELECT last_value FROM provoked") == 2
    reconnected = "connection to PostgreSQL lost" in gateway.log_text()
    assert reconnected == (sqlstate != "55006")
    check_each_once(gateway, database, stored=1)


def test_retries_come_to_an_end(start_gateway, database):
    gateway = start_gateway({**PATIENT, "database": {"lanes": 1, "retries": 2}})
    raise_sqlstate(database, "40001", 1000)
    assert gateway.deliver("hmac", gateway.sources["hmac"].event("bad-1")).status == 503
    assert database.value("SELECT last_value FROM provoked") == 3
    check_each_once(gateway, database, stored=0)


def test_a_serialization_failure_is_retried(start_gateway, database):
    database.sql(f"ALTER DATABASE {database.name} SET default_transaction_isolation = 'repeatable read'")
    gateway = start_gateway(PATIENT)
    instance, enrollment = seed_one(database)
    with held(database, "UPDATE campaign_instances SET name = 'changed'") as cursor:
        answer = deliver_in_background(gateway, gateway.sources["hmac"].event(enrollment_id=enrollment))
        wait_for_a_waiting_capture(database)
        cursor.execute("COMMIT")
    assert answer().json["captured"] == 1
    check_each_once(gateway, database, stored=1)


def test_a_deadlock_is_retried_and_counted(start_gateway, database):
    gateway = start_gateway(PATIENT)
    instance, enrollment = seed_one(database)
    with held(database, "SET LOCAL deadlock_timeout = '20s'; SELECT 1 FROM campaign_enrollments FOR UPDATE") as cursor:
        answer = deliver_in_background(gateway, gateway.sources["hmac"].event(enrollment_id=enrollment))
        wait_for_a_waiting_capture(database)  # it holds the instance; now the wrong way round
        cursor.execute("SELECT 1 FROM campaign_instances FOR UPDATE")
        cursor.execute("COMMIT")
    assert answer().json["captured"] == 1
    assert gateway.metric("oncehook_deadlocks_total") >= 1
    check_each_once(gateway, database, stored=1)


@pytest.mark.parametrize("settings, state", [({"lock_timeout": "100ms"}, "55P03"),
                                             ({"lock_timeout": "8s", "statement_timeout": "200ms"}, "57014")])
def test_a_lock_that_is_held_is_waited_for(start_gateway, database, settings, state):
    gateway = start_gateway({**PATIENT, "database": {"lanes": 1, "retries": 10, **settings}})
    instance, enrollment = seed_one(database)
    with held(database) as cursor:
        answer = deliver_in_background(gateway, gateway.sources["hmac"].event(enrollment_id=enrollment))
        first = wait_for_a_waiting_capture(database)
        time.sleep(0.4)  # longer than either timeout: the second try waits
        assert wait_for_a_waiting_capture(database) == first, "on the same connection"
        cursor.execute("ROLLBACK")
    assert answer().json["captured"] == 1
    assert {"55P03": "lock timeout", "57014": "statement timeout"}[state] in database.cluster.log_text()
    check_each_once(gateway, database, stored=1)


# ---- unknown: retried on a new connection --------------------------------------------------------------------


def test_a_terminated_backend_is_an_unknown_outcome(start_gateway, database):
    gateway = start_gateway(PATIENT)
    instance, enrollment = seed_one(database)
    with held(database) as cursor:
        answer = deliver_in_background(gateway, gateway.sources["hmac"].event(enrollment_id=enrollment))
        first = wait_for_a_waiting_capture(database)
        database.sql("SELECT pg_terminate_backend(%s)", first)
        process.wait_until(lambda: wait_for_a_waiting_capture(database) != first, what="the retry elsewhere")
        cursor.execute("ROLLBACK")
    assert answer().json["captured"] == 1
    check_each_once(gateway, database, stored=1)


def test_a_crash_is_an_unknown_outcome_and_heals_within_the_deadline(start_gateway, private_cluster):
    database = private_cluster.create_database()
    gateway_module.oncehook("migrate", "up", "--database", database.owner_url)
    gateway = start_gateway(PATIENT, database=database)
    instance, enrollment = seed_one(database)
    with held(database):
        answer = deliver_in_background(gateway, gateway.sources["hmac"].event(enrollment_id=enrollment))
        wait_for_a_waiting_capture(database)
        private_cluster.crash()
    private_cluster.start()
    assert answer().json["captured"] == 1
    assert database.value("SELECT count(*) FROM campaign_events") == 1
    check_each_once(gateway, database, stored=1)


def test_an_idle_session_that_is_closed_costs_nothing(start_gateway, database):
    database.sql(f"ALTER DATABASE {database.name} SET idle_session_timeout = '100ms'")
    gateway = start_gateway(PATIENT)
    for _ in range(8):
        time.sleep(0.15)  # longer than the session may be idle
        assert gateway.deliver("hmac", gateway.sources["hmac"].event()).status == 200
    assert "idle-session timeout" in database.cluster.log_text()
    check_each_once(gateway, database, stored=8)


def test_a_prepared_statement_that_is_gone_is_prepared_again(start_gateway, database):
    gateway = start_gateway(PATIENT)
    raise_for(database, "EXECUTE 'DEALLOCATE ALL';")
    source = gateway.sources["hmac"]
    assert gateway.deliver("hmac", source.event("bad-1")).json["captured"] == 1
    assert gateway.deliver("hmac", source.event("good-2")).json["captured"] == 1
    assert 'prepared statement "capture" does not exist' in database.cluster.log_text()
    check_each_once(gateway, database, stored=2)


def test_a_cancelled_wait_for_a_standby_is_never_a_200(start_gateway, private_cluster):
    """PostgreSQL says success with a warning; a failover would lose the event."""
    database = private_cluster.create_database()
    gateway_module.oncehook("migrate", "up", "--database", database.owner_url)
    gateway = start_gateway({**PATIENT, "ack_deadline": "4s"}, database=database)
    source = gateway.sources["hmac"]
    private_cluster.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    private_cluster.sql("SELECT pg_reload_conf()")
    process.wait_until(lambda: private_cluster.sql("SHOW synchronous_standby_names")[0][0] == "nobody")
    event = source.event()
    answer = deliver_in_background(gateway, event)
    for _ in range(2):  # the second finds a duplicate, and waits as the first did
        pid = process.wait_until(lambda: database.sql(
            "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            " AND application_name LIKE 'oncehook lane%%'"), what="a wait for the standby")[0][0]
        database.sql("SELECT pg_cancel_backend(%s)", pid)
        process.wait_until(lambda pid=pid: database.value(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = %s", pid) == 0, what="the connection given up")
    assert answer().status == 503
    assert "synchronous replication was cancelled" in gateway.log_text()
    private_cluster.sql("ALTER SYSTEM RESET synchronous_standby_names")
    private_cluster.sql("SELECT pg_reload_conf()")
    process.wait_until(lambda: gateway.deliver("hmac", event).status == 200, 20, what="a commit that is safe")
    assert database.value("SELECT count(*) FROM campaign_events") == 1


# ---- poison, refused -----------------------------------------------------------------------------------------


def poison_22(database):
    raise_for(database, "PERFORM NEW.provider_event_id::int;")
    return {}


def poison_54000(database):
    database.sql("CREATE INDEX big ON campaign_events ((payload ->> 'big'))")
    return {"big": os.urandom(6000).hex()}


def poison_54001(database):
    database.sql("CREATE FUNCTION deep(n int) RETURNS int LANGUAGE plpgsql AS $$BEGIN RETURN deep(n + 1); END$$")
    raise_for(database, "PERFORM deep(1);")
    return {}


def poison_23502(database):
    database.sql("ALTER TABLE campaign_events ALTER instance_id SET NOT NULL")
    return {"enrollment_id": None}


def poison_23514(database):
    database.sql("ALTER TABLE campaign_events ADD CONSTRAINT good CHECK (provider_event_id NOT LIKE 'bad%%') NOT VALID")
    return {}


@pytest.mark.parametrize("cause", [poison_22, poison_54000, poison_54001, poison_23502, poison_23514])
def test_poison_by_its_real_cause(start_gateway, database, cause):
    """The event is kept in quarantined_deliveries, its neighbours in the same delivery are captured."""
    gateway = start_gateway(PATIENT)
    instance, enrollment = seed_one(database)
    source = gateway.sources["hmac"]
    fields = cause(database)
    good = [source.event(f"good-{k}", enrollment_id=enrollment) for k in range(6)]
    bad = source.event("bad-1", **{"enrollment_id": enrollment, **fields})
    answer = gateway.deliver("hmac", *good[:3], bad, *good[3:])
    assert answer.status == 200, answer
    assert (answer.json["captured"], answer.json["quarantined"]) == (6, 1), answer
    assert gateway.metric("oncehook_events_total", source="hmac", outcome="quarantined") == 1
    rows = database.sql("SELECT body FROM quarantined_deliveries")
    assert len(rows) == 1 and b'"bad-1"' in bytes(rows[0][0])
    check_each_once(gateway, database, stored=6)


def test_a_missing_month_is_made(start_gateway, database):
    """23514 too, and told from a violated CHECK."""
    gateway = start_gateway(PATIENT)
    month = database.value("SELECT to_char(now() AT TIME ZONE 'UTC', '\"campaign_events_\"YYYY_MM')")
    database.sql(f"DROP TABLE {month}")
    assert gateway.deliver("hmac", gateway.sources["hmac"].event()).json["captured"] == 1
    assert database.value(f"SELECT count(*) FROM {month}") == 1
    check_each_once(gateway, database, stored=1)


def test_a_constraint_of_the_users_refuses_one_row(start_gateway, database):
    gateway = start_gateway(PATIENT)
    source = gateway.sources["hmac"]
    database.sql("CREATE TABLE known (id text PRIMARY KEY)")
    database.sql(f"GRANT SELECT ON known TO {GATEWAY}")
    database.sql("INSERT INTO known SELECT 'good-' || k FROM generate_series(1, 6) k")
    database.sql("ALTER TABLE campaign_events ADD FOREIGN KEY (provider_event_id) REFERENCES known")
    good = [source.event(f"good-{k}") for k in range(1, 7)]
    assert gateway.deliver("hmac", *good[:3], source.event("bad-1"), *good[3:]).status == 503
    check_each_once(gateway, database, stored=6)
    database.sql("INSERT INTO known VALUES ('bad-1')")
    answer = gateway.deliver("hmac", *good, source.event("bad-1"))
    assert (answer.json["captured"], answer.json["duplicates"]) == (1, 6)
    assert database.value("SELECT count(*) FROM quarantined_deliveries") == 0
    check_each_once(gateway, database, stored=7)


@pytest.mark.parametrize("sqlstate", [state for state, what in RAISED.items() if what == "refused"] + ["UE001"])
def test_a_trigger_that_refuses_one_row_leaves_its_neighbours(start_gateway, database, sqlstate):
    """UE001 is in no row of the table: our fault, says the rule; that others commit says whose it is."""
    gateway = start_gateway(PATIENT)
    source = gateway.sources["hmac"]
    raise_sqlstate(database, sqlstate, 1000)
    for place in range(7):
        good = [source.event() for k in range(6)]
        delivery = [*good[:place], source.event("bad-1"), *good[place:]]
        assert gateway.deliver("hmac", *delivery).status == 503
    check_each_once(gateway, database, stored=42)
    assert gateway.request("GET", "/readyz").status == 200
    assert "connection to PostgreSQL lost" not in gateway.log_text()


# ---- our fault, and a server that is out of something ----------------------------------------------------------


@pytest.mark.parametrize("sqlstate", [state for state, what in RAISED.items() if what == "stops"])
def test_a_raised_state_stops_the_intake_for_a_while(start_gateway, database, sqlstate):
    gateway = start_gateway(PATIENT)
    raise_sqlstate(database, sqlstate, 1)
    event = gateway.sources["hmac"].event("bad-1")
    refused = time.monotonic()
    assert gateway.deliver("hmac", event).status == 503
    ready, again = gateway.request("GET", "/readyz").status, gateway.deliver("hmac", event).status
    if time.monotonic() - refused < 0.9:  # the pause is a second
        assert (ready, again) == (503, 503), "at once, while it backs off"
    process.wait_until(lambda: gateway.request("GET", "/readyz").status == 200, what="ready again")
    assert gateway.deliver("hmac", event).json["captured"] == 1
    check_each_once(gateway, database, stored=1)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_stops_the_intake(start_gateway, private_cluster):
    database = private_cluster.create_database()
    gateway_module.oncehook("migrate", "up", "--database", database.owner_url)
    with tempfile.TemporaryDirectory(prefix="oh-disk-", dir="/tmp") as small:
        process.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0777", "tmpfs", small])
        try:
            os.chmod(small, 0o700)
            process.run(["chown", "postgres", small])
            private_cluster.sql(f"CREATE TABLESPACE small LOCATION '{small}'")
            month = database.value("SELECT to_char(now() AT TIME ZONE 'UTC', '\"campaign_events_\"YYYY_MM')")
            database.sql(f"ALTER TABLE {month} SET TABLESPACE small")
            gateway = start_gateway(PATIENT, database=database)
            source = gateway.sources["hmac"]
            events, answers = [], []
            while not answers or answers[-1].status == 200:
                assert len(events) < 200
                events.append(source.event(filler=os.urandom(16000).hex()))
                answers.append(gateway.deliver("hmac", events[-1]))
            assert answers[-1].status == 503 and "53100" in gateway.log_text()
            check_each_once(None, database, stored=len(events) - 1)
            process.run(["mount", "-o", "remount,size=64m", small])
            process.wait_until(lambda: gateway.deliver("hmac", events[-1]).status == 200, what="room again")
            check_each_once(gateway, database, stored=len(events))
            private_cluster.stop()
        finally:
            private_cluster.stop()
            process.run(["umount", "-l", small])


def test_a_dropped_function_is_our_fault_and_said(start_gateway, database):
    gateway = start_gateway(PATIENT)
    source = gateway.sources["hmac"]
    text = database.value("SELECT pg_get_functiondef('capture_v1'::regproc)")
    event = source.event()
    assert gateway.deliver("hmac", source.event()).status == 200
    database.sql("DROP FUNCTION capture_v1")
    assert gateway.deliver("hmac", event).status == 503
    process.wait_until(lambda: gateway.request("GET", "/readyz").status == 503, what="not ready")
    process.wait_until(lambda: "oncehook migrate up" in gateway.log_text(), what="the advice")
    database.sql(text.replace("%", "%%"))
    database.sql(f"GRANT EXECUTE ON FUNCTION capture_v1 TO {GATEWAY}")
    process.wait_until(lambda: gateway.deliver("hmac", event).status == 200, what="mended")
    check_each_once(gateway, database, stored=2)


# ---- finding the database again ----------------------------------------------------------------------------------


class Pretender:
    """A TCP listener in the place of PostgreSQL: it takes connections and closes them, or never answers."""

    def __init__(self, answers):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.answers, self.times, self.kept = answers, [], []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.times.append(time.monotonic())
                if self.answers:
                    connection.close()
                else:
                    self.kept.append(connection)

    def close(self):
        self.listener.close()
        for one in self.kept:
            one.close()


@pytest.fixture
def pretender():
    made = []

    def make(answers):
        made.append(Pretender(answers))
        return made[-1]
    yield make
    for one in made:
        one.close()


def url_of(database, *ports):
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return database.gateway_url.replace(f"127.0.0.1:{database.cluster.port}", hosts)


def wait_listening(gateway):
    def ports():
        with open(gateway.out_path, encoding="utf-8") as out:
            return re.search(r"listening https=(\d+) http=(\d+) admin=(\d+)", out.read())
    found = process.wait_until(ports, what="listening")
    gateway.https_port, gateway.http_port, gateway.admin_port = map(int, found.groups())


def test_one_probe_for_all_lanes_with_pauses_below_250_ms(start_gateway, database, pretender):
    fake = pretender(answers=True)
    start_gateway({"database": {"url": url_of(database, fake.port), "lanes": 16}}, wait=False)
    process.wait_until(lambda: len(fake.times) > 30, 20, what="thirty tries")
    # upkeep asks every 2 s on its own
    pauses = [b - a for a, b in zip(fake.times[1:], fake.times[2:])]
    assert max(pauses) < 0.25 + 0.25, max(pauses)
    assert len(fake.times) / (fake.times[-1] - fake.times[0]) < 30, "not sixteen lanes on their own"
    assert len({round(pause, 2) for pause in pauses}) > 5, "jitter"


def test_a_connect_that_is_never_answered_holds_up_nobody(start_gateway, database, pretender):
    fake = pretender(answers=False)
    gateway = start_gateway({"database": {"url": url_of(database, fake.port), "lanes": 2, "connect_timeout": "8s"}},
                            wait=False)
    wait_listening(gateway)
    source = gateway.sources["hmac"]
    assert gateway.deliver("hmac", source.event(), tls=False).status == 503, "while it tries for the first time"
    for _ in range(5):
        began = time.monotonic()
        assert gateway.deliver("hmac", source.event(), tls=False).status == 503
        assert time.monotonic() - began < 1
    assert gateway.request("GET", "/readyz").status == 503


def test_the_time_to_connect_covers_all_hosts(start_gateway, database, pretender):
    """The first host never answers: the second one is reached within one connect_timeout."""
    fake = pretender(answers=False)
    began = time.monotonic()
    gateway = start_gateway({"database": {"url": url_of(database, fake.port, database.cluster.port),
                                          "lanes": 4, "connect_timeout": "3s"}})
    assert time.monotonic() - began < 6
    # one of the lanes, and upkeep's three
    assert len(fake.times) <= 4, "the other lanes go where the first one was taken"
    assert gateway.deliver("hmac", gateway.sources["hmac"].event()).status == 200


@contextlib.contextmanager
def standby_of(primary):
    """A streaming standby of the cluster; yields its port."""
    with tempfile.TemporaryDirectory(prefix="oh-sb-", dir="/tmp") as root:
        data = os.path.join(root, "data")
        process.run(["chown", "postgres", root])
        binaries = os.path.dirname(process.run(["sh", "-c", "ls /usr/lib/postgresql/*/bin/initdb | tail -1"]).stdout.strip())
        process.run([f"{binaries}/pg_basebackup", "-D", data, "-h", primary.root, "-p", str(primary.port),
                     "-U", "postgres", "-R", "-c", "fast"], user="postgres", cwd=root)
        port = process.free_port()
        with open(os.path.join(root, "log"), "wb") as log:
            server = process.spawn([f"{binaries}/postgres", "-D", data, "-c", f"port={port}",
                                    "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={root}",
                                    "-c", "max_connections=200"],
                                   user="postgres", death_signal="SIGQUIT", cwd=root, stdin=subprocess.DEVNULL,
                                   stdout=log, stderr=log)
        try:
            def ready():
                with open(os.path.join(root, "log"), encoding="utf-8", errors="replace") as file:
                    return "ready to accept read-only connections" in file.read()
            process.wait_until(ready, 30, what="the standby")
            yield port
        finally:
            process.stop(server, 3)


def test_a_standby_is_passed_over(start_gateway, private_cluster):
    database = private_cluster.create_database()
    gateway_module.oncehook("migrate", "up", "--database", database.owner_url)
    with standby_of(private_cluster) as port:
        gateway = start_gateway({"database": {"url": url_of(database, port, private_cluster.port)}}, database=database)
        assert gateway.deliver("hmac", gateway.sources["hmac"].event()).status == 200
        alone = start_gateway({"database": {"url": url_of(database, port)}}, database=database, wait=False)
        wait_listening(alone)
        process.wait_until(lambda: "read-only" in alone.log_text(), what="the reason in the log")
        assert alone.request("GET", "/readyz").status == 503
        assert alone.deliver("hmac", gateway.sources["hmac"].event()).status == 503


def test_the_first_2xx_comes_within_a_second_of_the_database(start_gateway, private_cluster):
    database = private_cluster.create_database()
    gateway_module.oncehook("migrate", "up", "--database", database.owner_url)
    gateway = start_gateway(database=database)
    source = gateway.sources["hmac"]
    for _ in range(3):
        private_cluster.crash()
        process.wait_until(lambda: gateway.deliver("hmac", source.event()).status == 503, what="the outage")
        time.sleep(0.5)
        private_cluster.start()
        began = time.monotonic()
        process.wait_until(lambda: gateway.deliver("hmac", source.event()).status == 200, what="a 200")
        took = time.monotonic() - began
        print(f"first 200 after {took * 1000:.0f} ms")
        assert took < 1, took
    assert database.counter_drift() == []


# ---- start-up checks -----------------------------------------------------------------------------------------------


@pytest.fixture
def cluster_with():
    made = []

    def make(settings):
        server = Cluster({**DURABLE, **settings})
        made.append(server)
        server.start()
        server.make_roles()
        database = server.create_database()
        gateway_module.oncehook("migrate", "up", "--database", database.owner_url)
        return database
    yield make
    for one in made:
        one.remove()


def check_refused(gateway, words):
    wait_listening(gateway)
    process.wait_until(lambda: words in gateway.log_text(), what=f"'{words}' in the log")
    answer = gateway.request("GET", "/readyz")
    assert answer.status == 503 and "database" in answer.json["detail"]
    assert gateway.deliver("hmac", gateway.sources["hmac"].event()).status == 503


@pytest.mark.parametrize("setting, mend", [("fsync", "set fsync = on"), ("full_page_writes", "set full_page_writes = on")])
def test_a_server_that_is_not_durable_is_refused(start_gateway, cluster_with, setting, mend):
    database = cluster_with({setting: "off"})
    check_refused(start_gateway(database=database, wait=False), mend)
    told = start_gateway({"database": {"unsafe_server": "warn"}}, database=database)
    assert told.deliver("hmac", told.sources["hmac"].event()).status == 200
    assert "an unsafe server is used" in told.log_text()


@pytest.mark.parametrize("value, names", [("off", ""), ("local", "nobody"), ("remote_write", "nobody")])
def test_a_commit_that_does_not_wait_is_refused(start_gateway, cluster_with, value, names):
    database = cluster_with({})
    database.sql(f"ALTER DATABASE {database.name} SET synchronous_commit = {value}")
    if names:
        database.cluster.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        database.cluster.sql("SELECT pg_reload_conf()")
        process.wait_until(lambda: database.cluster.sql("SHOW synchronous_standby_names")[0][0] == names)
    check_refused(start_gateway(database=database, wait=False), "synchronous_commit is off")


def newest(database):
    return database.value("SELECT max(version) FROM schema_migrations")


def test_a_gateway_runs_on_its_schema_and_on_the_next(start_gateway, database):
    gateway = start_gateway()
    source = gateway.sources["hmac"]
    assert gateway.deliver("hmac", source.event()).status == 200
    # The next version as a migration would leave it: more columns, a new shape beside the old one.
    database.sql("ALTER TABLE campaign_events ADD COLUMN next_version text")
    database.sql("ALTER TABLE event_keys ADD COLUMN next_version text DEFAULT 'x'")
    database.sql("INSERT INTO schema_migrations (version, name, checksum) SELECT max(version) + 1, 'next', max(checksum)"
                 " FROM schema_migrations")
    assert gateway.deliver("hmac", source.event()).status == 200, "while it runs"
    gateway.stop()
    gateway.start()
    assert gateway.deliver("hmac", source.event()).status == 200, "and started anew"
    assert database.value("SELECT count(*) FROM campaign_events") == 3
    assert database.counter_drift() == []


@pytest.mark.parametrize("change", ["DELETE FROM schema_migrations WHERE version = (SELECT max(version) FROM schema_migrations)",
                                    "INSERT INTO schema_migrations (version, name, checksum)"
                                    " SELECT max(version) + 2, 'far', max(checksum) FROM schema_migrations"])
def test_a_schema_out_of_range_is_refused(start_gateway, database, change):
    database.sql(change)
    check_refused(start_gateway(wait=False), f"the schema has version {newest(database)}")


@pytest.mark.parametrize("revoke", ["EXECUTE ON FUNCTION capture_v1", "INSERT ON campaign_events", "INSERT ON event_keys",
                                    "UPDATE ON campaign_instances", "EXECUTE ON FUNCTION quarantine_v1"])
def test_missing_rights_are_refused(start_gateway, database, revoke):
    database.sql(f"REVOKE {revoke} FROM {GATEWAY}")
    check_refused(start_gateway(wait=False), "may not capture")


def test_a_role_that_may_not_log_in_is_said(start_gateway, database):
    role = f"nobody_{uuid.uuid4().hex[:8]}"
    url = database.gateway_url.replace(GATEWAY + ":", role + ":")
    check_refused(start_gateway({"database": {"url": url}}, wait=False), "authentication failed")
