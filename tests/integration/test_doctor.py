"""oncehook doctor: each look fires for its cause, says what it cannot see, and calls for a person by its
exit code. Causes are real ones, on a real PostgreSQL; only what a gateway tells of itself is sometimes a
page of this test's own."""

import concurrent.futures
import contextlib
import glob
import http.server
import json
import os
import re
import threading
import time

import pytest

from support import capture as sql
from support import process
from support.gateway import REPOSITORY, oncehook
from support.postgres import DURABLE, Cluster
from test_overload import stuck

CLOSED = "http://127.0.0.1:9"  # discard: nobody listens


def doctor(database, *arguments, admin=CLOSED, url=None):
    """(exit code, {name: check}, the whole object)."""
    where = () if "-c" in arguments else ("--database", url or database.gateway_url)
    done = oncehook("doctor", *where, "--admin", admin, "--json", *arguments, check=False)
    assert done.returncode in (0, 1), done.stderr
    told = json.loads(done.stdout)
    return done.returncode, {check["name"]: check for check in told["checks"]}, told


def fires(database, name, state, *arguments, **options):
    """Asserts the state of one look; its worst row."""
    code, checks, _ = doctor(database, *arguments, **options)
    assert checks[name]["state"] == state, checks[name]
    assert code == (1 if any(check["state"] == "person" for check in checks.values()) else 0)
    if state in ("watch", "person"):
        assert checks[name]["todo"]
        return checks[name]["rows"][0]
    return None


@pytest.fixture
def sees_all(cluster):
    cluster.sql("GRANT pg_monitor TO oncehook_gateway")
    yield
    cluster.sql("REVOKE pg_monitor FROM oncehook_gateway")


@contextlib.contextmanager
def pages(*texts):
    """An admin listener whose /metrics is the first text, then the second, …; yields its URL."""
    left = list(texts)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802 (the library's name)
            body = (left.pop(0) if len(left) > 1 else left[0]).encode()
            self.send_response(200 if self.path == "/metrics" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def page(**values):
    """/metrics of a gateway that is well, but for these values."""
    well = {"oncehook_database_up": 1, "oncehook_lanes": 2, "oncehook_lane_busy_seconds_total": 0,
            "oncehook_lane_fixed_seconds_total": 0, "oncehook_waiting_batches": 0,
            "oncehook_slow_statements_total": 0, "oncehook_deadlocks_total": 0, "oncehook_counter_drift": 0,
            "oncehook_ack_seconds_count": 1000, 'oncehook_ack_seconds_bucket{le="0.01"}': 900,
            'oncehook_ack_seconds_bucket{le="0.1"}': 990, 'oncehook_ack_seconds_bucket{le="0.5"}': 1000}
    return "".join(f"{name} {value}\n" for name, value in {**well, **values}.items())


# ---- secrets in clear --------------------------------------------------------------------------------


def test_secrets_in_clear_are_found_by_their_rows_and_never_shown(database):
    (instance, _), = database.seed(1, 0)
    template = database.value("SELECT id::text FROM campaign_templates")
    assert fires(database, "clear secrets", "fine") is None
    database.sql("ALTER TABLE campaign_instances DISABLE TRIGGER campaign_instances_provider_config_secrets")
    database.sql("UPDATE campaign_instances SET provider_config = %s", json.dumps({"api_key": "value-that-is-secret"}))
    database.sql("ALTER TABLE campaign_instances ENABLE TRIGGER campaign_instances_provider_config_secrets")
    fires(database, "clear secrets", "person")
    database.sql("UPDATE campaign_templates SET settings = %s", json.dumps({"smtp": {"password": "value-that-is-secret"}}))
    told = doctor(database)[1]["clear secrets"]
    assert [row["subject"] for row in told["rows"]] == [f"campaign_instances {instance}", f"campaign_templates {template}"]
    for options in ((), ("--json",)):
        done = oncehook("doctor", "--database", database.gateway_url, *options, check=False)
        assert instance in done.stdout and "value-that-is-secret" not in done.stdout + done.stderr
    database.sql("UPDATE campaign_templates SET settings = %s", json.dumps({"smtp": {"password": {"$ref": "env:SMTP"}}}))
    database.sql("UPDATE campaign_instances SET provider_config = '{}'")
    fires(database, "clear secrets", "fine")


# ---- the whole ---------------------------------------------------------------------------------------

def test_a_system_that_is_well_needs_nobody(start_gateway, database, sees_all):
    gateway = start_gateway()
    assert gateway.deliver("hmac", gateway.sources["hmac"].event()).status == 200
    process.wait_until(lambda: "oncehook_counter_drift" in gateway.metrics(), 20, what="the audit window's first round")
    code, checks, told = doctor(database, "-c", gateway.config_path, admin=f"http://127.0.0.1:{gateway.admin_port}")
    states = {name: check["state"] for name, check in checks.items()}
    assert code == 0 and "person" not in states.values(), told
    assert states.pop("unseen sources") == "watch"  # github, stripe, sendgrid
    assert states.pop("statements") == "unknown" and states.pop("unused indexes") == "unknown"
    for name in ("answers", "disks", "hit ratio", "slow statements"):  # of this machine
        states.pop(name)
    assert set(states.values()) == {"fine"}, states
    numbers = [str(row["value"]) for row in checks["disks"]["rows"]]
    assert numbers and all(len(number) <= 8 for number in numbers), numbers  # six decimals at most
    assert told["state"] == "watch" and sum(told["counts"].values()) == len(told["checks"]) == 32


def test_text_says_first_what_needs_a_person(database):
    database.sql("INSERT INTO quarantined_deliveries (source, body_sha256, received_at) "
                 "VALUES (E'bad\\x1b[31m', 'x', now() - interval '2 days')")
    done = oncehook("doctor", "--database", database.gateway_url, check=False)
    assert done.returncode == 1 and done.stderr == ""
    titles = [line for line in done.stdout.splitlines() if line and not line.startswith(" ")]
    assert [title.split(":")[0] for title in titles[:-1]] == \
        ["oncehook doctor", "A person is needed", "Not looked at", "Fine"], done.stdout
    first = done.stdout.split("A person is needed\n")[1].splitlines()
    assert first[0].startswith("  quarantine       2 days old is the oldest of 1 that wait, most of them of bad")
    assert "limit: 24 h" in first[0] and "\x1b" not in done.stdout
    assert first[1].strip().startswith("-> Look at them")
    assert re.fullmatch(r"32 looks: 1 for a person, 0 to watch, \d+ not taken, \d+ fine", titles[-1])
    assert done.stdout.count("no address of a gateway: -c FILE with admin.listen, or --admin URL") == 1
    assert "\n  lanes            as above\n" in done.stdout
    for line in ("months           3 ready after the current one", "dead rows        no table has 10,000 dead rows",
                 "retention        nothing is older than it is kept"):
        assert f"\n  {line}\n" in done.stdout, done.stdout


def shown(check, which):
    """A limit as docs/watching.md writes it."""
    value = check[which]
    if value is None or (check["name"], which) == ("spool size", "person"):
        return ""
    text = {"count": f"{value:.0f}", "flag": f"{value:g}", "share": f"{value * 100:.0f} %", "ms": f"{value:.0f} ms",
            "times": f"{value:g}",
            "bytes": f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB",
            "seconds": next(f"{value / size:.0f} {word}" for size, word, least in
                            ((86400, "days", 172800), (3600, "h", 7200), (60, "min", 120), (1, "s", 0))
                            if value >= least)}[check["unit"]]
    return f"below {text}" if check["at_least"] else text


def test_docs_have_every_look_and_its_limits(database):
    with open(os.path.join(REPOSITORY, "docs/watching.md"), encoding="utf-8") as file:
        rows = re.findall(r"^\| `([a-z ]+)` \| .*? \| ?([^|]*?) \| ?([^|]*?) \|$", file.read().split("## Slow")[0], re.M)
    told = doctor(database)[2]["checks"]
    assert rows == [(check["name"], shown(check, "watch"), shown(check, "person")) for check in told]


def test_every_file_is_looked_at_and_only_reads():
    files = {os.path.basename(path) for path in glob.glob(os.path.join(REPOSITORY, "sql/doctor_*.sql"))}
    with open(os.path.join(REPOSITORY, "src/cli/doctor.c"), encoding="utf-8") as file:
        assert files == set(re.findall(r'"(doctor_\w+\.sql)"', file.read()))


def test_usage_and_what_is_not_there_is_2(database, empty_database):
    assert oncehook("doctor", check=False).returncode == 2
    assert oncehook("doctor", "--database", "postgresql://127.0.0.1:9/none", check=False).returncode == 2
    row = fires(empty_database, "schema", "person", url=empty_database.owner_url)
    assert row["words"] == "there is none"
    _, checks, _ = doctor(empty_database, url=empty_database.owner_url)
    assert checks["months"]["unknown"] == "the schema is missing"


# ---- PostgreSQL: a cause, and what it makes of one look ------------------------------------------------

MONTH = "to_char((now() AT TIME ZONE 'UTC') + interval '{} month', 'YYYY_MM')"
CAUSES = [
    ("schema", "watch", "INSERT INTO schema_migrations SELECT max(version) + 1, 'next', 'x', now() FROM schema_migrations"),
    ("schema", "person", "INSERT INTO schema_migrations SELECT max(version) + 2, 'far', 'x', now() FROM schema_migrations"),
    ("settings", "person", "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', "
                           "current_database()); END $$"),
    ("rights", "person", "REVOKE INSERT ON event_keys FROM oncehook_gateway"),
    ("rights", "person", "REVOKE EXECUTE ON FUNCTION oncehook_make_months FROM oncehook_gateway"),
    ("rights", "watch", "GRANT DELETE ON campaign_events TO oncehook_gateway"),
    ("months", "watch", f"DO $$ BEGIN EXECUTE 'DROP TABLE campaign_events_' || {MONTH.format(3)}; END $$"),
    ("months", "person", f"DO $$ BEGIN EXECUTE 'DROP TABLE campaign_events_' || {MONTH.format(1)}; END $$"),
    ("ids", "person", "SELECT setval('campaign_events_id_seq', 9000000000000000000)"),
    ("invalid", "watch", "ALTER TABLE campaign_events ADD CONSTRAINT later CHECK (source <> 'x') NOT VALID"),
    ("quarantine", "watch", "INSERT INTO quarantined_deliveries (source, body_sha256, received_at) "
                            "VALUES ('a', 'x', now() - interval '1 hour')"),
    ("quarantine", "person", "INSERT INTO quarantined_deliveries (source, body_sha256, received_at) "
                             "VALUES ('a', 'x', now() - interval '25 hours')"),
    ("retention", "person", "CREATE TABLE campaign_events_old PARTITION OF campaign_events FOR VALUES "
                            "FROM ('2020-01-01+00') TO ('2020-02-01+00')"),
    ("retention", "watch", "INSERT INTO event_keys SELECT g, 'source:a', now() - (g || ' days')::interval "
                           "FROM generate_series(1, 183) g; ANALYZE event_keys"),
]


@pytest.mark.parametrize("name, state, cause", CAUSES, ids=[f"{cause[0]}-{number}" for number, cause in enumerate(CAUSES)])
def test_it_fires(database, name, state, cause):
    assert doctor(database)[1][name]["state"] == "fine"
    database.sql(cause)
    fires(database, name, state)


def test_an_index_that_a_migration_left_half_built(database):
    database.sql("INSERT INTO event_keys VALUES ('a', 's'), ('a', 't')")
    with contextlib.suppress(Exception):
        database.sql("CREATE UNIQUE INDEX CONCURRENTLY half_built ON event_keys (provider_event_id)")
    assert fires(database, "invalid", "person")["subject"] == "half_built"


def test_dead_rows_that_nobody_removes(database):
    database.sql("ALTER TABLE event_keys SET (autovacuum_enabled = off)")
    database.sql("INSERT INTO event_keys SELECT g, 'source:a' FROM generate_series(1, 20000) g")
    database.sql("WITH gone AS (DELETE FROM event_keys WHERE provider_event_id::int <= 15000 RETURNING 1) "
                 "SELECT count(*), pg_stat_force_next_flush() FROM gone")
    process.wait_until(lambda: doctor(database)[1]["dead rows"]["state"] == "person", what="the statistics")
    row = fires(database, "dead rows", "person")
    assert row["subject"] == "event_keys" and row["value"] == pytest.approx(0.75)
    assert row["words"] == "of its rows are dead, 15000 of 20000; last vacuum: never; its autovacuum is off"
    done = oncehook("doctor", "--database", database.gateway_url, check=False)
    assert f"  dead rows        event_keys: 75.0 % {row['words']} (limit: 50.0 %)\n" in done.stdout


def test_size_is_held_against_the_configuration(database, tmp_path):
    def configured(limit):
        path = tmp_path / "oncehook.yaml"
        path.write_text(json.dumps({"listen": {"http": "127.0.0.1:0"}, "database": {"url": database.gateway_url},
                                    "watch": {"database_bytes": limit}, "sources": []}))
        return str(path)
    fires(database, "size", "fine", "-c", configured("10GiB"))
    assert fires(database, "size", "person", "-c", configured("1MiB"))["value"] > 1 << 20


def test_what_may_not_be_seen_is_said(database):
    _, checks, _ = doctor(database)
    assert checks["transactions"]["unknown"] == \
        "oncehook_gateway may not see other sessions: GRANT pg_read_all_stats TO oncehook_gateway"
    assert checks["statements"]["unknown"] == 'relation "pg_stat_statements" does not exist'
    assert "GRANT pg_read_all_settings" in checks["disks"]["unknown"]
    for name in ("gateway", "lanes", "waiting", "answers", "slow statements", "deadlocks", "drift"):
        assert checks[name]["unknown"].startswith(f"no gateway answers at {CLOSED}/metrics ("), checks[name]
    database.sql("REVOKE SELECT ON quarantined_deliveries FROM oncehook_gateway")
    _, checks, _ = doctor(database)
    assert checks["quarantine"]["unknown"] == "permission denied for table quarantined_deliveries"


def test_it_waits_for_no_lock_and_changes_nothing(database):
    holder = database.connect()
    try:
        holder.cursor().execute("BEGIN; LOCK TABLE quarantined_deliveries IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        _, checks, _ = doctor(database)
        assert time.monotonic() - began < 9
        assert checks["quarantine"]["unknown"] == "canceling statement due to lock timeout"
        assert checks["months"]["state"] == "fine"
    finally:
        holder.close()


def test_a_server_that_goes_away_is_no_good_sign(database):
    """What is left cannot be looked at; that nobody is needed would be a lie."""
    holder = database.connect()
    try:
        holder.cursor().execute("BEGIN; LOCK TABLE quarantined_deliveries IN ACCESS EXCLUSIVE MODE")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            looking = pool.submit(oncehook, "doctor", "--database", database.gateway_url, check=False)
            process.wait_until(lambda: database.value(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE application_name = 'oncehook doctor' AND wait_event_type = 'Lock'"), what="it waits")
            done = looking.result()
    finally:
        holder.close()
    assert done.returncode == 2 and "oncehook doctor: database: " in done.stderr, (done.returncode, done.stderr)


# ---- sources -----------------------------------------------------------------------------------------

def events_of(database, source, hours_ago):
    """An event of the source at each of these times, in months made for them."""
    database.sql("""DO $$ DECLARE m timestamp; BEGIN
        FOR n IN 1..2 LOOP
            m := date_trunc('month', now() AT TIME ZONE 'UTC') - n * interval '1 month';
            IF to_regclass('campaign_events_' || to_char(m, 'YYYY_MM')) IS NULL THEN
                EXECUTE format('CREATE TABLE %I PARTITION OF campaign_events FOR VALUES FROM (%L) TO (%L)',
                    'campaign_events_' || to_char(m, 'YYYY_MM'), to_char(m, 'YYYY-MM-DD HH24:MI:SS+00'),
                    to_char(m + interval '1 month', 'YYYY-MM-DD HH24:MI:SS+00'));
            END IF;
        END LOOP; END $$""")
    database.sql("INSERT INTO campaign_events (source, received_at) SELECT %s, now() - h * interval '1 hour' "
                 "FROM unnest(%s::float8[]) h", source, hours_ago)


def test_a_source_that_is_silent_longer_than_it_ever_is(database):
    """Nights and one outage are no alarm, a new silence is; a source that hardly sends has no habits."""
    by_day = [24 * day + hour / 4 for day in range(1, 27) for hour in range(40)]  # 10 hours a day
    events_of(database, "steady", [0.5] + [2 + n / 2 for n in range(1200)])
    events_of(database, "nightly", [6 + h for h in by_day])
    events_of(database, "outage", [12.0] + [300 + n / 10 for n in range(400)])
    events_of(database, "rare", [600, 500, 400])
    row = fires(database, "silent sources", "person")
    assert row["subject"] == "outage" and 10 < row["value"] < 14, row  # allowed is the hour of the least
    assert row["words"] == "last event 12.0 h ago; more than 1.0 h is unusual for it"
    done = oncehook("doctor", "--database", database.gateway_url, check=False)
    assert f"\n  silent sources   outage: {row['words']}\n" in done.stdout
    _, checks, _ = doctor(database)
    by_name = {row["subject"]: row["state"] for row in checks["silent sources"]["rows"]}
    assert by_name["steady"] == "fine" and by_name["nightly"] in ("fine", "watch") and "rare" not in by_name
    database.sql("DELETE FROM campaign_events WHERE source IN ('outage', 'nightly')")
    fires(database, "silent sources", "fine")


def test_configured_and_never_seen(start_gateway, database, tmp_path):
    gateway = start_gateway()
    row = fires(database, "unseen sources", "watch", "-c", gateway.config_path)
    assert row["value"] == 4 and row["words"] == "without an event in the database: hmac, github, stripe, sendgrid"
    assert gateway.deliver("hmac", gateway.sources["hmac"].event()).status == 200
    row = fires(database, "unseen sources", "watch", "-c", gateway.config_path)
    assert row["words"] == "without an event in the database: github, stripe, sendgrid"
    done = oncehook("doctor", "-c", gateway.config_path, check=False)
    assert f"\n  unseen sources   3 {row['words']}\n" in done.stdout
    path = tmp_path / "ignoring.yaml"
    with open(gateway.config_path, encoding="utf-8") as file:
        path.write_text(json.dumps({**json.load(file), "watch": {"unseen_sources": "ignore"}}))
    check = doctor(database, "-c", path)[1]["unseen sources"]
    assert (check["state"], check["watch"], check["rows"][0]["value"]) == ("fine", None, 3)


# ---- the gateway and this node ---------------------------------------------------------------------------

def test_a_lane_that_is_busy_is_not_at_its_end(start_gateway, database):
    """One lane, small batches, next to no pause: the busy share alone would cry at 80 %."""
    gateway = start_gateway({"database": {"lanes": 1}})
    admin, stop = f"http://127.0.0.1:{gateway.admin_port}", threading.Event()

    def post():
        while not stop.is_set():
            assert gateway.deliver("hmac", gateway.sources["hmac"].event(), tls=False).status == 200
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        posting = [pool.submit(post) for _ in range(4)]
        row = doctor(database, admin=admin)[1]["lanes"]["rows"][0]
        stop.set()
        for one in posting:
            one.result()
    busy = int(re.search(r"busy for (\d+) %", row["words"])[1]) / 100
    assert row["state"] == "fine" and row["value"] < 0.5 and busy > row["value"] + 0.15, row


@pytest.mark.parametrize("name, state, values", [
    ("gateway", "person", {"oncehook_database_up": 0}), ("waiting", "person", {"oncehook_waiting_batches": 6}),
    ("drift", "person", {"oncehook_counter_drift": 1}), ("deadlocks", "watch", {"oncehook_deadlocks_total": 1}),
    ("slow statements", "watch", {"oncehook_slow_statements_total": 2}),
    ("answers", "watch", {'oncehook_ack_seconds_bucket{le="0.5"}': 980}),
    ("lanes", "watch", {"oncehook_lane_busy_seconds_total": 3.6}),
    ("lanes", "person", {"oncehook_lane_busy_seconds_total": 4.2}),
    ("lanes", "fine", {"oncehook_lane_busy_seconds_total": 4.0, "oncehook_lane_fixed_seconds_total": 3.0})])
def test_what_a_gateway_tells(database, name, state, values):
    with pages(page(), page(**values)) as admin:
        _, checks, _ = doctor(database, admin=admin)
    assert checks.pop(name)["state"] == state
    assert all(check["state"] == "fine" for check in checks.values() if check["name"] in
               ("gateway", "lanes", "waiting", "answers", "slow statements", "deadlocks", "drift")), checks


def test_how_slow_answers_are_is_said_in_their_own_numbers(database):
    with pages(page(**{'oncehook_ack_seconds_bucket{le="0.5"}': 980})) as admin:
        row = doctor(database, admin=admin)[1]["answers"]["rows"][2]
        done = oncehook("doctor", "--database", database.gateway_url, "--admin", admin, check=False)
    assert row["value"] == pytest.approx(2) and row["words"] == \
        "2.00 % of 1000 answers since the gateway's start took longer than 500 ms; up to 1 % may"
    assert f"\n  answers          p99: {row['words']}\n" in done.stdout


def test_a_gateway_that_stands_still(start_gateway, database):
    gateway = start_gateway({"ack_deadline": "300ms", "database": {"lock_timeout": "9s"}})
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with stuck(database) as enrollment:
            answer = pool.submit(gateway.deliver, "hmac", gateway.sources["hmac"].event(enrollment_id=enrollment))
            with contextlib.suppress(AssertionError):
                process.wait_until(lambda: gateway.metric("oncehook_database_up") == 0, 1, what="it is stuck")
        assert answer.result().status in (200, 503)
    fires(database, "gateway", "fine", admin=f"http://127.0.0.1:{gateway.admin_port}")


def test_a_page_that_is_no_gateways(database):
    for text in ("hello\n", "oncehook_lanes{\noncehook_counter_drift ", "oncehook_ack_seconds_count nan\n", ""):
        with pages(text) as admin:
            _, checks, _ = doctor(database, admin=admin)
        states = {checks[name]["state"] for name in ("lanes", "waiting", "answers", "deadlocks")}
        assert states == {"unknown"} and checks["gateway"]["state"] == "person", checks


def test_the_spool_and_its_disk(start_gateway, database, tmp_path):
    config = {"outage": "spool", "spool": {"directory": str(tmp_path / "spool"), "bytes": "1MiB"},
              "database": {"url": "postgresql://127.0.0.1:9/away"}, "admin": {"listen": "127.0.0.1:0"}}
    gateway = start_gateway(config)
    for _ in range(8):
        answer = gateway.deliver("hmac", gateway.sources["hmac"].event(text=os.urandom(60000).hex()))
        assert answer.status in (202, 503)
    arguments = ("-c", gateway.config_path, "--database", database.gateway_url)
    _, checks, _ = doctor(database, *arguments, admin=f"http://127.0.0.1:{gateway.admin_port}")
    assert checks["spool size"]["state"] == "person", checks["spool size"]
    assert checks["spool backlog"]["rows"][0]["words"].startswith("old is the oldest of ")
    assert checks["spool losses"]["state"] == "fine"
    assert checks["gateway"]["state"] == "person"  # it cannot reach its database
    row = next(row for row in checks["disks"]["rows"] if row["subject"] == str(tmp_path / "spool"))
    assert re.fullmatch(r"free, \d+\.\d of \d+\.\d GiB", row["words"])


# ---- what takes a server of its own, and time ------------------------------------------------------------

FAKETIME = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")


@pytest.fixture
def old_server():
    """A PostgreSQL whose clock .jump(seconds) puts forward, small enough to be filled up."""
    server = Cluster({**DURABLE, "shared_buffers": "1MB", "max_connections": 16, "max_prepared_transactions": 2,
                      "shared_preload_libraries": "pg_stat_statements", "wal_init_zero": "off", "autovacuum": "off",
                      "max_wal_size": "8GB"}, "--wal-segsize=64", env={})
    clock = os.path.join(server.root, "clock")
    server.env.update(os.environ, LD_PRELOAD=FAKETIME[0], FAKETIME_TIMESTAMP_FILE=clock, FAKETIME_CACHE_DURATION="1",
                      FAKETIME_DONT_FAKE_MONOTONIC="1", DONT_FAKE_MONOTONIC="1")

    def jump(seconds):
        with open(clock, "w", encoding="ascii") as file:
            file.write(f"+{seconds}\n")
        os.chmod(clock, 0o644)

    jump(0)
    server.jump = jump
    try:
        server.start()
        server.make_roles()
        server.sql("GRANT pg_monitor TO oncehook_gateway")
        yield server
    finally:
        server.remove()


def test_what_only_time_makes_bad(old_server):
    """Eight days later: an open and a prepared transaction, an index that nobody used, WAL that a slot held,
    a table larger than the server's memory, a slow statement, no connection left."""
    database = old_server.create_database()
    oncehook("migrate", "up", "--database", database.owner_url)
    database.sql("CREATE EXTENSION pg_stat_statements")
    database.sql("INSERT INTO event_keys SELECT lpad(g::text, 32, '0'), 'source:a' FROM generate_series(1, 60000) g")
    database.sql("CREATE INDEX idx_never_used ON event_keys ((provider_event_id || repeat(key_scope, 12)))")
    database.sql("ANALYZE event_keys")
    _, checks, _ = doctor(database)
    assert checks["unused indexes"]["state"] == "unknown" and "h old; it takes 7 days" in checks["unused indexes"]["unknown"]
    assert checks["transactions"]["state"] == checks["prepared"]["state"] == checks["slots"]["state"] == "fine"
    assert checks["settings"]["state"] == "person"
    assert checks["settings"]["rows"][0]["subject"] == "autovacuum"

    database.sql("SET enable_indexonlyscan = off; SET enable_bitmapscan = off; "
                 "DO $$ BEGIN FOR n IN 1..15 LOOP PERFORM count(*) FROM event_keys WHERE key_scope <> 'x'; END LOOP; END $$")
    database.sql("SELECT pg_sleep(1.1)")
    database.sql("ALTER ROLE oncehook_owner PASSWORD 'nobody-may-read-this'")
    database.sql("SELECT pg_create_physical_replication_slot('gone', true)")
    database.sql("DO $$ BEGIN FOR n IN 1..17 LOOP PERFORM pg_logical_emit_message(false, 'x', 'x'); "
                 "PERFORM pg_switch_wal(); END LOOP; END $$")
    open_one, prepared = database.connect(), database.connect()
    prepared.cursor().execute("BEGIN; SELECT pg_current_xact_id()")
    prepared.cursor().execute("PREPARE TRANSACTION 'forgotten'")
    open_one.cursor().execute("BEGIN; SELECT 'payload-that-nobody-may-read'")
    open_pid, before = open_one.info.backend_pid, database.value("SELECT now()")
    old_server.jump(8 * 86400)
    process.wait_until(lambda: (database.value("SELECT now()") - before).days >= 8, what="libfaketime's next look")
    others = [database.connect() for _ in range(9)]
    try:
        done = oncehook("doctor", "--database", database.gateway_url, "--json", check=False)
        checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    finally:
        for one in (open_one, prepared, *others):
            one.close()
    assert done.returncode == 1
    states = {name: checks[name]["state"] for name in
              ("transactions", "prepared", "slots", "unused indexes", "hit ratio", "statements", "connections")}
    assert states == {"transactions": "person", "prepared": "person", "slots": "watch", "unused indexes": "watch",
                      "hit ratio": states["hit ratio"], "statements": "watch", "connections": "watch"}, checks
    assert states["hit ratio"] in ("watch", "person")
    first = {name: checks[name]["rows"][0] for name in states}
    assert first["transactions"]["subject"] == f"pid {open_pid}"
    assert "idle in transaction" in first["transactions"]["words"]
    assert first["prepared"]["subject"] == "forgotten" and first["slots"]["subject"] == "gone"
    assert first["unused indexes"]["subject"] == "idx_never_used" and first["unused indexes"]["value"] == 0
    assert "SELECT pg_sleep($1)" in [row["subject"] for row in checks["statements"]["rows"]], checks["statements"]
    assert "nobody-may-read" not in done.stdout
