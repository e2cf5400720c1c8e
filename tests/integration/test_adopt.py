"""oncehook migrate adopt: an application's own campaign tables become oncehook's while it runs. The
application is tests/data/report_schema.sql, in the schema `sales`, with a role of its own."""

import contextlib
import json
import os
import pty
import random
import re
import signal
import subprocess
import threading
import time
import uuid

import psycopg2
import pytest

from support.capture import capture, event
from support.gateway import BINARY, REPOSITORY, environment, oncehook
from support.postgres import OWNER
from support.process import wait_until

APP, PASSWORD = "report_app", "app-of-the-tests"
TABLES = ["campaign_templates", "email_sequences", "linkedin_sequences", "campaign_instances", "campaign_enrollments",
          "workflow_states", "campaign_events"]
COUNTERS = ["total_enrolled", "total_sent", "total_delivered", "total_opened", "total_clicked", "total_replied",
            "total_bounced", "total_unsubscribed", "total_completed"]


def adopt(database, *arguments, check=True):
    return oncehook("migrate", "adopt", "--database", database.owner_url, "--from", "sales", *arguments, check=check,
                    timeout=180)


def app(database):
    """The application's connection: its own role, its own schema."""
    connection = psycopg2.connect(database.url(APP, PASSWORD), options="-c search_path=sales")
    connection.autocommit = True
    return contextlib.closing(connection)


@pytest.fixture
def sales(database):
    """5 instances, 200 enrollments, 6,000 events."""
    with contextlib.suppress(psycopg2.errors.DuplicateObject):
        database.cluster.sql(f"CREATE ROLE {APP} LOGIN PASSWORD '{PASSWORD}'")
    database.cluster.sql(f"GRANT {APP} TO {OWNER}")
    database.sql(f"CREATE SCHEMA sales AUTHORIZATION {APP}")
    database.sql(f"GRANT USAGE, CREATE ON SCHEMA sales TO {OWNER}")
    with open(os.path.join(REPOSITORY, "tests/data/report_schema.sql"), encoding="utf-8") as file, \
            app(database) as connection, connection.cursor() as cursor:
        cursor.execute(file.read())
        cursor.execute("SELECT report_fill(5, 40, 30)")
    return database


def columns(database, table, schema="sales"):
    return [name for (name,) in database.sql("SELECT name FROM adopt_columns(%s, %s)", schema, table)]


def content(database, table, schema="sales", without=()):
    """The rows as text, by id."""
    names = ", ".join(f'"{name}"' for name in columns(database, table.removesuffix("_before_oncehook") + "_before_oncehook") if name not in without)
    return database.sql(f'SELECT id, ({names})::text FROM {schema}."{table}" ORDER BY 1')


def counted(database):
    """Each instance's counters, and what its events and enrollments say."""
    sums = ", ".join(f"count(e.*) FILTER (WHERE e.event_type = '{name.removeprefix('total_')}')" for name in COUNTERS[1:])
    return database.sql(f"SELECT id::text, {', '.join(COUNTERS)} FROM campaign_instances ORDER BY id"), \
        database.sql(f"""SELECT i.id::text, (SELECT count(*) FROM campaign_enrollments n WHERE n.instance_id = i.id), {sums}
                           FROM campaign_instances i LEFT JOIN campaign_events e ON e.instance_id = i.id
                          GROUP BY i.id ORDER BY i.id""")


def assert_right(database):
    said, events = counted(database)
    assert said == events
    assert database.counter_drift() == []


# ---- what is there afterwards -----------------------------------------------------------------

def test_rows_ids_and_counts_are_carried_over_and_the_old_names_show_them(sales):
    done = adopt(sales)
    assert done.stdout.splitlines()[-1].endswith("0 drifts"), done.stdout
    assert "total_opened                    765            750                    5" in done.stdout
    assert "campaign_events: 6000 rows\n" in done.stdout

    assert sales.value("SELECT status FROM workflow_states WHERE workflow_name = 'oncehook.adopt'") == "completed"
    sales.sql("DELETE FROM workflow_states WHERE workflow_name LIKE 'oncehook.%'")  # what the application sees of ours
    for table in TABLES[:-1]:
        assert content(sales, table, without=COUNTERS) == content(sales, table + "_before_oncehook", without=COUNTERS), table
    # Events: all columns, also those that ours do not have; one without an id has got one.
    own = content(sales, "campaign_events", without=["provider_event_id"])
    assert len(own) == 6000 and own == content(sales, "campaign_events_before_oncehook", without=["provider_event_id"])
    assert sales.value("""SELECT count(*) FROM sales.campaign_events v JOIN sales.campaign_events_before_oncehook o USING (id)
                           WHERE v.provider_event_id = coalesce(o.provider_event_id, 'adopted:' || o.id)""") == 6000
    assert sales.sql("SELECT key_scope, key_grade, count(*)::int FROM campaign_events GROUP BY 1, 2 ORDER BY 1, 2") == [
        ("provider:lemlist", "id", 2880), ("provider:sendgrid", "id", 3000), ("source:adopted", "composite", 120)]
    assert_right(sales)

    # What a provider sends again is known, and what is new is counted and seen under the old name.
    enrollment = sales.value("SELECT id::text FROM campaign_enrollments LIMIT 1")
    assert capture(sales.gateway_url, event(id="evt_2", scope="provider:lemlist", enrollment=enrollment),
                   event(id="evt_new", scope="provider:lemlist", enrollment=enrollment)) == "dc"
    with app(sales) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT event_type, enrollment_id::text, step_number FROM campaign_events WHERE provider_event_id = 'evt_new'")
        assert cursor.fetchall() == [("delivered", enrollment, None)]
        cursor.execute("SELECT event_type FROM campaign_events WHERE provider_event_id = 'evt_7'")
        assert cursor.fetchall() == [("connection_accepted",)]
        cursor.execute("EXPLAIN SELECT * FROM campaign_events WHERE provider_event_id = 'evt_7'")
        plan = "\n".join(line for (line,) in cursor.fetchall())
        month = sales.value("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')")
        assert "Index Cond: (received_at = k.received_at)" in plan and f"Seq Scan on campaign_events_{month}" not in plan, plan
    assert_right(sales)

    again = adopt(sales, check=False)
    assert again.returncode == 1 and "adopted already" in again.stderr


def test_dry_run_says_what_is_there_and_changes_nothing(sales):
    before = sales.sql("SELECT relname, relkind FROM pg_class WHERE relnamespace IN ('sales'::regnamespace, 'public'::regnamespace) ORDER BY 1")
    said = adopt(sales, "--dry-run").stdout
    for words in ("sales.campaign_events: ", "step_number, metadata, created_at", "SendGrid: 3000 events, their ids in scope provider:sendgrid",
                  "lemlist: 3000 events, their ids in scope provider:lemlist; 120 have none and get one", "total_bounced"):
        assert words in said, said
    assert sales.sql("SELECT relname, relkind FROM pg_class WHERE relnamespace IN ('sales'::regnamespace, 'public'::regnamespace) ORDER BY 1") == before
    assert sales.value("SELECT count(*) FROM adopted_tables") == 0 == sales.value("SELECT count(*) FROM campaign_instances")


def test_a_table_that_was_never_counted_is_not_taken_for_empty(sales):
    """As after a restore."""
    with app(sales) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS workflow_states")
        cursor.execute("ALTER TABLE campaign_events SET (autovacuum_enabled = off)")
        cursor.execute("CREATE TABLE other AS TABLE campaign_events; TRUNCATE campaign_events; INSERT INTO campaign_events TABLE other")
        cursor.execute("ANALYZE campaign_instances; CREATE TABLE workflow_states (id uuid PRIMARY KEY)")
    assert sales.value("SELECT reltuples FROM pg_class WHERE oid = 'sales.campaign_events'::regclass") == -1
    said = adopt(sales, "--dry-run").stdout
    rows = re.search(r"^sales.campaign_events: .*, about (\d+) rows \(never counted\); also carried over: step_number", said, re.M)
    assert rows and 3000 < int(rows[1]) < 24000, said
    assert re.search(r"^sales.campaign_instances: .*, about 5 rows; ", said, re.M), said
    assert re.search(r"^sales.workflow_states: 0 bytes, about 0 rows \(never counted\); ", said, re.M), said


def test_scopes_are_those_of_the_configured_sources(sales, sources, tmp_path):
    path = tmp_path / "oncehook.yaml"
    source = next(one for one in sources if one.name == "sendgrid").config
    path.write_text(json.dumps({
        "listen": {"http": "127.0.0.1:0"}, "database": {"url": sales.gateway_url, "owner_url": sales.owner_url},
        "sources": [{**source, "name": "mail", "dedup_scope": "source"},
                    {"name": "lem", "provider": "lemlist", "dedup_scope": "outreach", "secrets": ["not-a-real-one-0123456789"]}]}))
    path.chmod(0o600)
    done = oncehook("migrate", "adopt", "-c", path, "--from", "sales", timeout=180)
    assert "SendGrid: 3000 events, their ids in scope source:mail" in done.stdout
    assert "lemlist: 3000 events, their ids in scope name:outreach" in done.stdout
    assert sales.sql("SELECT key_scope, count(*)::int FROM event_keys GROUP BY 1 ORDER BY 1") == [
        ("name:outreach", 2880), ("source:adopted", 120), ("source:mail", 3000)]
    with app(sales) as connection, connection.cursor() as cursor:  # and of what the application goes on writing
        cursor.execute("INSERT INTO campaign_events (event_type, channel, provider, provider_event_id) VALUES"
                       " ('opened', 'email', 'SendGrid', 'evt_live')")
    assert sales.value("SELECT key_scope FROM event_keys WHERE provider_event_id = 'evt_live'") == "source:mail"


# ---- while it runs ----------------------------------------------------------------------------

class Application(threading.Thread):
    """What the report's application does, one statement after the other, with a log of what it was told."""

    def __init__(self, database, seed):
        super().__init__()
        self.database, self.rng = database, random.Random(seed)
        self.ended, self.failed, self.deeds = threading.Event(), [], 0
        self.status, self.gone, self.events, self.took = {}, set(), {}, 0.0

    def run(self):
        with app(self.database) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT id::text, instance_id::text FROM campaign_enrollments")
            self.enrollments = dict(cursor.fetchall())
            self.mine = {}
            while not self.ended.is_set():
                began = time.monotonic()
                try:
                    self.rng.choice([self.enroll, self.hear, self.hear, self.pause, self.leave])(cursor)
                    self.deeds += 1
                except psycopg2.Error as problem:
                    self.failed.append(f"{type(problem).__name__}: {problem}")
                self.took = max(self.took, time.monotonic() - began)
                time.sleep(0.005)  # it has other things to do

    def enroll(self, cursor):
        one, of = str(uuid.uuid4()), self.rng.choice(list(self.enrollments.values()))
        cursor.execute("INSERT INTO campaign_enrollments (id, instance_id, contact_id) VALUES (%s, %s, %s) RETURNING status",
                       (one, of, str(uuid.uuid4())))
        assert cursor.fetchone() == ("active",)
        cursor.execute("UPDATE campaign_instances SET total_enrolled = total_enrolled + 1 WHERE id = %s", (of,))
        self.mine[one] = of

    def hear(self, cursor):
        one = self.rng.choice(list(self.mine or self.enrollments))
        number, kind = str(uuid.uuid4()), self.rng.choice(["opened", "clicked", "replied"])
        cursor.execute("INSERT INTO campaign_events (id, enrollment_id, instance_id, event_type, channel, provider, provider_event_id)"
                       " VALUES (%s, %s, %s, %s, 'email', 'lemlist', %s)",
                       (number, one, {**self.enrollments, **self.mine}[one], kind, f"live_{number}"))
        self.events[number] = one
        cursor.execute(f"UPDATE campaign_instances SET total_{kind} = total_{kind} + 1 WHERE id = %s",
                       ({**self.enrollments, **self.mine}[one],))

    def pause(self, cursor):
        if self.mine:
            one, status = self.rng.choice(list(self.mine)), f"paused {self.deeds}"
            cursor.execute("UPDATE campaign_enrollments SET status = %s, updated_at = now() WHERE id = %s", (status, one))
            assert cursor.rowcount == 1
            self.status[one] = status

    def leave(self, cursor):
        silent = [one for one in self.mine if one not in self.events.values()]
        if silent:
            one = self.rng.choice(silent)
            cursor.execute("DELETE FROM campaign_enrollments WHERE id = %s", (one,))
            assert cursor.rowcount == 1
            self.gone.add(one)
            self.mine.pop(one)
            self.status.pop(one, None)


def test_the_application_runs_on_and_nothing_of_it_is_lost(sales, rng):
    applications = [Application(sales, rng.random()) for _ in range(3)]
    for one in applications:
        one.start()
    try:
        wait_until(lambda: all(one.deeds > 20 for one in applications), 30, what="the application's first deeds")
        began = time.monotonic()
        done = adopt(sales)
        print(f"adopted in {time.monotonic() - began:.1f} s")
        deeds = [one.deeds for one in applications]
        wait_until(lambda: all(one.deeds > before + 20 for one, before in zip(applications, deeds)), 30,
                   what="the application's deeds after the switch")
    finally:
        for one in applications:
            one.ended.set()
        for one in applications:
            one.join()
    print(f"longest deed {max(one.took for one in applications) * 1000:.0f} ms, {sum(one.deeds for one in applications)} deeds")
    assert [one.failed for one in applications] == [[], [], []], done.stdout
    there = dict(sales.sql("SELECT id::text, status FROM campaign_enrollments"))
    heard = dict(sales.sql("SELECT delivery_id::text, count(*) FROM campaign_events GROUP BY 1"))
    for one in applications:
        assert {number: heard.get(number) for number in one.events} == dict.fromkeys(one.events, 1)
        assert {number: there.get(number) for number in one.status} == one.status
        assert set(one.mine) <= set(there) and not one.gone & set(there)
    assert_right(sales)
    assert oncehook("audit", "--database", sales.gateway_url).returncode == 0


def test_what_the_application_may_write_under_the_old_names(sales):
    adopt(sales)
    with app(sales) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id::text, total_opened FROM campaign_instances ORDER BY id LIMIT 1")
        instance, opened = cursor.fetchone()
        cursor.execute("SELECT id::text FROM campaign_enrollments WHERE instance_id = %s LIMIT 1", (instance,))
        enrollment = cursor.fetchone()[0]
        insert = ("INSERT INTO campaign_events (id, enrollment_id, event_type, channel, provider, provider_event_id, step_number, metadata)"
                  f" VALUES (%s, '{enrollment}', 'opened', 'email', 'lemlist', 'evt_once', 3, '{{\"a\": [1, \"b\"]}}')")
        number = str(uuid.uuid4())
        cursor.execute(insert + " RETURNING id::text, step_number", (number,))
        assert cursor.fetchall() == [(number, 3)]
        cursor.execute("SELECT step_number, metadata, instance_id::text, created_at IS NOT NULL FROM campaign_events WHERE id = %s", (number,))
        assert cursor.fetchall() == [(3, {"a": [1, "b"]}, instance, True)]

        # As a unique index answers; as ON CONFLICT DO NOTHING asks; what a view cannot do.
        with pytest.raises(psycopg2.errors.UniqueViolation) as refused:
            cursor.execute(insert, (str(uuid.uuid4()),))
        assert refused.value.diag.message_detail == "Key (provider_event_id)=(evt_once) already exists."
        cursor.execute(insert + " ON CONFLICT DO NOTHING", (str(uuid.uuid4()),))
        assert cursor.rowcount == 0
        with pytest.raises(psycopg2.errors.InvalidColumnReference):
            cursor.execute(insert + " ON CONFLICT (provider_event_id) DO NOTHING", (str(uuid.uuid4()),))
        for statement in ("UPDATE campaign_events SET step_number = 4 WHERE id = %s", "DELETE FROM campaign_events WHERE id = %s"):
            with pytest.raises(psycopg2.errors.FeatureNotSupported):
                cursor.execute(statement, (number,))

        # Its own counting is passed over, the rest of the same statement is not.
        cursor.execute("UPDATE campaign_instances SET total_opened = total_opened + 1, status = 'paused' WHERE id = %s", (instance,))
        cursor.execute("SELECT total_opened, status FROM campaign_instances WHERE id = %s", (instance,))
        assert cursor.fetchall() == [(opened + 1, "paused")]
        with pytest.raises(psycopg2.errors.CheckViolation):
            cursor.execute("UPDATE campaign_instances SET provider_config = '{\"api_keys\": {\"lemlist\": \"sk_live_1\"}}' WHERE id = %s", (instance,))
        cursor.execute("INSERT INTO campaign_templates (id, name, type, path_type, tags) VALUES (%s, 'new', 'email', 'x', '{z}')"
                       " ON CONFLICT (id) DO UPDATE SET name = excluded.name RETURNING tags", (str(uuid.uuid4()),))
        assert cursor.fetchall() == [(["z"],)]
        cursor.execute("DELETE FROM campaign_templates WHERE id = (SELECT template_id FROM campaign_instances WHERE id = %s)", (instance,))
        cursor.execute("SELECT count(*) FROM campaign_enrollments WHERE instance_id = %s", (instance,))
        assert cursor.fetchone() == (0,)
    said, events = counted(sales)
    assert said == events


def read_all(terminal):
    """What comes on a terminal until its other end is closed."""
    read = b""
    with contextlib.suppress(OSError), open(terminal, "rb", buffering=0) as file:
        while piece := file.read(4096):
            read += piece
    return read.decode()


class Flood(threading.Thread):
    """An application that changes more than can be copied: all events, again and again."""

    def __init__(self, database):
        super().__init__()
        self.database, self.ended, self.deeds = database, threading.Event(), 0

    def run(self):
        with app(self.database) as connection, connection.cursor() as cursor:
            while not self.ended.is_set():
                cursor.execute("UPDATE campaign_events SET step_number = coalesce(step_number, 0) + 1")
                self.deeds += 1


def test_an_application_that_outruns_it_is_said_and_ends_it_and_the_next_run_goes_on(sales):
    flood, head, other = Flood(sales), *pty.openpty()
    flood.start()
    try:
        wait_until(lambda: flood.deeds > 0, 30, what="the flood")
        child = subprocess.Popen([BINARY, "migrate", "adopt", "--database", sales.owner_url, "--from", "sales", "--patience", "3"],
                                 stdout=subprocess.DEVNULL, stderr=other, env=environment())
        os.close(other)
        too_late = threading.Timer(60, child.kill)
        too_late.start()
        on_terminal = read_all(head)
        too_late.cancel()
        assert child.wait(10) == 1, on_terminal
        assert re.search(r"\[#+ *\] catching up: \d+ changes left; a second \d+ are copied and \d+ come", on_terminal), on_terminal
        copied = sales.value("SELECT copied FROM adopted_tables WHERE name = 'campaign_events'")
        assert copied > 0

        began = time.monotonic()
        done = adopt(sales, "--patience", "2", check=False)
        print(f"ended after {time.monotonic() - began:.1f} s")
        assert done.returncode == 1 and "goes on with what was begun" in done.stdout
        said = re.findall(r"^catching up: (\d+) changes left", done.stdout, re.M)
        assert len(said) >= 2 and int(said[-1]) > 200, done.stdout
        ending = re.search(r"(\d+) changes are left, and for 2 s it did not come nearer: the application changes its rows as fast as they"
                           " are copied. Nothing is switched; what is copied stays, changes are still noted. Run it again in a quieter time:"
                           " it goes on from there", done.stderr)
        assert ending and ending[1] == said[-1], done.stderr
    finally:
        flood.ended.set()
        flood.join()
    assert sales.sql("SELECT DISTINCT status, error FROM workflow_states WHERE workflow_name = 'oncehook.adopt'") == [
        ("failed", "the application changes its rows as fast as they are copied")]
    assert sales.sql("SELECT copied, switched_at FROM adopted_tables WHERE name = 'campaign_events'") == [(copied, None)]
    assert sales.value("SELECT count(*) FROM campaign_events") >= copied
    assert sales.value("SELECT relkind FROM pg_class WHERE oid = 'sales.campaign_events'::regclass") == "r"

    done = adopt(sales)  # quieter
    assert "goes on with what was begun" in done.stdout and "switched: " in done.stdout
    assert sales.value("SELECT count(*) FROM campaign_events") == 6000
    assert_right(sales)


@pytest.mark.parametrize("patience", ["0", "-1", "1.5", "86401", "", "99999999999999999999"])
def test_patience_is_seconds(database, patience):
    done = adopt(database, "--patience", patience, check=False)
    assert done.returncode == 2 and "--patience: seconds, 1 to 86400" in done.stderr


# ---- stopped, ended, refused ------------------------------------------------------------------

def test_stopped_or_killed_it_goes_on_and_cancelled_it_leaves_the_application_alone(sales):
    with app(sales) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO campaign_events SELECT gen_random_uuid(), enrollment_id, instance_id, event_type, channel, provider,"
                       " provider_event_id || '_' || n, step_number, timestamp, metadata, created_at"
                       " FROM campaign_events, generate_series(1, 5) n")
    for signal_number, code in ((signal.SIGINT, 1), (signal.SIGKILL, -9)):
        before = sales.value("SELECT coalesce(sum(next_page), 0) FROM adopted_tables")
        child = subprocess.Popen([BINARY, "migrate", "adopt", "--database", sales.owner_url, "--from", "sales"],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
        wait_until(lambda: sales.value("SELECT coalesce(sum(next_page), 0) FROM adopted_tables WHERE name = 'campaign_events'") > before, 60,
                   what="a page of events more")
        child.send_signal(signal_number)
        _, said = child.communicate(timeout=60)
        assert child.returncode == code, said
        assert sales.value("SELECT count(*) FROM adopted_tables WHERE switched_at IS NOT NULL") == 0
    wait_until(lambda: sales.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0, 20, what="the end of the killed one")
    assert sales.value("SELECT count(*) FROM adopted_tables WHERE next_page < end_page") > 0
    assert_right(sales)

    said = adopt(sales, "--cancel").stdout
    assert "changes are no longer noted" in said
    assert sales.value("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'oncehook%' AND tgrelid::regclass::text LIKE 'sales.%'") == 0
    assert adopt(sales, "--cancel", check=False).returncode == 1  # nothing is begun

    done = adopt(sales)
    assert "events that were there already: " in done.stdout
    assert sales.value("SELECT count(*) FROM campaign_events") == 6000 * 6
    assert_right(sales)


def test_what_changed_between_a_cancelled_adoption_and_the_next_is_seen(sales):
    sales.sql("DO $$ DECLARE s record; BEGIN LOOP SELECT * INTO s FROM adopt_step_v1('sales', '{}');"
              " EXIT WHEN s.step = 'copied' AND s.name = 'campaign_events'; END LOOP; END $$")
    adopt(sales, "--cancel")
    with app(sales) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE campaign_enrollments SET status = 'left' WHERE id = report_id('n', 1)")
        cursor.execute("DELETE FROM campaign_enrollments WHERE id = report_id('n', 2)")
        cursor.execute("UPDATE campaign_templates SET name = 'renamed' WHERE id = report_id('t', 1)")
        # The same contact again, under another id.
        cursor.execute("DELETE FROM campaign_enrollments WHERE id = report_id('n', 3) RETURNING instance_id, contact_id")
        cursor.execute("INSERT INTO campaign_enrollments (id, instance_id, contact_id) VALUES (report_id('n', 9999), %s, %s)",
                       cursor.fetchone())
    done = adopt(sales)
    assert done.stdout.splitlines()[-1].endswith("0 drifts"), done.stdout
    for table in ("campaign_templates", "campaign_enrollments"):
        assert content(sales, table) == content(sales, table + "_before_oncehook"), table
    assert_right(sales)


def test_an_event_that_was_stored_twice_is_counted_once(sales):
    with app(sales) as connection, connection.cursor() as cursor:
        cursor.execute("DROP INDEX idx_campaign_events_provider_event_id")
        cursor.execute("INSERT INTO campaign_events (id, enrollment_id, event_type, channel, provider, provider_event_id)"
                       " SELECT gen_random_uuid(), enrollment_id, event_type, channel, provider, provider_event_id"
                       " FROM campaign_events WHERE provider_event_id IS NOT NULL LIMIT 100")
        assert "events that were there already: 100" in adopt(sales).stdout
        # Without a unique index the application expects no error.
        cursor.execute("INSERT INTO campaign_events (id, event_type, channel, provider, provider_event_id)"
                       " VALUES (gen_random_uuid(), 'opened', 'email', 'SendGrid', 'evt_1')")
        assert cursor.rowcount == 0
    assert sales.value("SELECT count(*) FROM campaign_events") == 6000
    assert_right(sales)


def test_who_could_only_read_can_only_read(sales):
    with contextlib.suppress(psycopg2.errors.DuplicateObject):
        sales.cluster.sql(f"CREATE ROLE report_reader LOGIN PASSWORD '{PASSWORD}'")
    sales.sql("GRANT USAGE ON SCHEMA sales TO report_reader")
    sales.sql("GRANT SELECT ON ALL TABLES IN SCHEMA sales TO report_reader")
    adopt(sales)
    with contextlib.closing(psycopg2.connect(sales.url("report_reader", PASSWORD))) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("SELECT count(*) FROM sales.campaign_events")
        assert cursor.fetchone() == (6000,)
        for table in ("sales.campaign_events", "sales.campaign_instances", "campaign_instances", "campaign_events", "event_keys"):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(f"INSERT INTO {table} DEFAULT VALUES")


def test_truncate_is_refused_while_changes_are_noted(sales):
    sales.sql("SELECT adopt_step_v1('sales', '{}') FROM generate_series(1, 15)")
    with app(sales) as connection, connection.cursor() as cursor, pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState):
        cursor.execute("TRUNCATE campaign_events")


@pytest.mark.parametrize("before, words", [
    ("CREATE TABLE notes (event uuid REFERENCES campaign_events (id))", "foreign key"),
    ("CREATE VIEW opens AS SELECT * FROM campaign_events WHERE event_type = 'opened'", "view sales.opens reads sales.campaign_events"),
    ("ALTER TABLE campaign_events ENABLE ROW LEVEL SECURITY", "row security"),
    ("ALTER TABLE campaign_enrollments DROP COLUMN contact_id", "has no column contact_id"),
    ("ALTER TABLE campaign_events RENAME TO happenings", "sales.campaign_events: there is no such table"),
    ("UPDATE email_sequences SET step_number = 0 WHERE step_number = 1", "1 rows have a step_number that is not positive"),
    ("UPDATE campaign_instances SET provider_config = '{\"api_keys\": {\"lemlist\": \"sk_live_1\"}}'", "5 rows have a secret in clear"),
])
def test_what_stands_in_the_way_is_said_and_nothing_is_begun(sales, before, words):
    with app(sales) as connection, connection.cursor() as cursor:
        cursor.execute(before)
    done = adopt(sales, check=False)
    assert done.returncode == 1, done.stderr
    assert any(line.startswith("in the way: ") and words in line for line in done.stdout.splitlines()), done.stdout
    assert "sk_live" not in done.stdout + done.stderr
    assert sales.value("SELECT count(*) FROM adopted_tables") == 0


@pytest.mark.parametrize("table, column, parent", [
    ("campaign_instances", "template_id", "campaign_templates"), ("campaign_enrollments", "instance_id", "campaign_instances"),
    ("email_sequences", "template_id", "campaign_templates")])
def test_rows_that_hang_on_nothing_are_not_left_out_in_silence(sales, table, column, parent):
    """Without a foreign key, deleting leaves such rows. Ours have one, so they cannot come along."""
    with app(sales) as connection, connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_{column}_fkey, ALTER {column} DROP NOT NULL")
        cursor.execute(f"UPDATE {table} SET {column} = NULL WHERE id = (SELECT min(id::text)::uuid FROM {table})")
        cursor.execute(f"UPDATE {table} SET {column} = gen_random_uuid() WHERE id = (SELECT max(id::text)::uuid FROM {table})")
        done = adopt(sales, check=False)
        assert done.returncode == 1 and sales.value("SELECT count(*) FROM adopted_tables") == 0
        assert f"in the way: sales.{table}: 2 rows whose {column} is no row of {parent}: they would be left out" in done.stdout
        cursor.execute(f"UPDATE {table} SET {column} = (SELECT id FROM {parent} LIMIT 1) WHERE {column} IS NULL OR "
                       f"{column} NOT IN (SELECT id FROM {parent})")
    adopt(sales)
    assert len(content(sales, table)) == len(content(sales, table + "_before_oncehook"))


def test_a_row_that_came_to_hang_on_nothing_meanwhile_is_told_afterwards(sales):
    with app(sales) as connection, connection.cursor() as cursor, app(sales) as reader, reader.cursor() as reading:
        cursor.execute("ALTER TABLE campaign_enrollments DROP CONSTRAINT campaign_enrollments_instance_id_fkey")
        reader.autocommit = False
        reading.execute("SELECT count(*) FROM campaign_events")  # the switch waits for it
        run = subprocess.Popen([BINARY, "migrate", "adopt", "--database", sales.owner_url, "--from", "sales"],
                               env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: sales.value("SELECT count(*) FROM adopted_tables WHERE next_page >= end_page") == 7, what="the copies")
        cursor.execute("INSERT INTO campaign_enrollments (id, instance_id, contact_id) "
                       "VALUES (gen_random_uuid(), gen_random_uuid(), gen_random_uuid())")
        reader.rollback()
        said, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    assert "campaign_enrollments: left out, and in sales.campaign_enrollments_before_oncehook alone: 1 row whose " \
           "instance_id is no row of campaign_instances" in said


def test_what_jsonb_cannot_hold_is_said_before_anything_is_begun(sales):
    with app(sales) as connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE campaign_events ALTER metadata TYPE json, ALTER metadata DROP DEFAULT")
        cursor.execute(r"""UPDATE campaign_events SET metadata = '{"a": "\\u0000"}'""")  # a backslash, and no NUL
        assert adopt(sales, "--dry-run").returncode == 0
        cursor.execute(r"""UPDATE campaign_events SET metadata = '{"a": "\u0000"}' WHERE provider_event_id = 'evt_1'""")
    done = adopt(sales, check=False)
    assert done.returncode == 1 and sales.value("SELECT count(*) FROM adopted_tables") == 0
    assert "in the way: sales.campaign_events: 1 row with \\u0000 in metadata, which jsonb cannot hold" in done.stdout


def test_its_own_schema_and_one_that_is_not_there_are_refused(sales):
    for name, words in (("public", "oncehook's own"), ("nowhere", "nowhere.campaign_events: there is no such table")):
        done = oncehook("migrate", "adopt", "--database", sales.owner_url, "--from", name, check=False)
        assert done.returncode == 1 and words in done.stdout, done.stdout + done.stderr
