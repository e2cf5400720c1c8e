"""`oncehook dev --demo --once`: the report of a run, of the next one on the same directory, and of one
in which PostgreSQL does not do what it should. The numbers are held against psycopg2's own look."""

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import time

import psycopg2
import pytest

from support import process
from support.gateway import BINARY, environment
from support.memory import make_directory, remove_directory

TIMEOUT = 240  # with sanitizers, beside other tests
REPORT_WIDTH = 80
SOURCES = {"github": 2000, "stripe": 4000, "sendgrid": 8020, "hmac": 6020}  # new events a run
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@pytest.fixture
def directory():
    # Neither pytest's own tree nor mode 0700: `dev` would put the cluster below /var/lib.
    made = make_directory("oh-demo-")
    yield os.path.join(made, "d")
    remove_directory(made)


def is_left(directory):
    return os.path.exists(os.path.join(directory, "postgres/data/postmaster.pid"))


def command(directory, *more):
    return [BINARY, "dev", "--dir", directory, "--port", "0", "--http-port", "0", "--admin-port", "0", *more]


def demo(directory):
    """Its report through a pipe, and the exit code."""
    done = subprocess.run(command(directory, "--demo", "--once"), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=TIMEOUT, check=False, env=environment())
    return done.returncode, done.stdout, done.stderr


def demo_on_terminal(directory, **env):
    """Its report on a terminal of 80 columns, raw, and the exit code."""
    leader, follower = pty.openpty()
    child = process.spawn(command(directory, "--demo", "--once"), stdin=subprocess.DEVNULL, stdout=follower,
                          stderr=subprocess.DEVNULL, env=environment(TERM="xterm", **env))
    os.close(follower)
    data, deadline = b"", time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        ready, _, _ = select.select([leader], [], [], 1)
        try:
            more = os.read(leader, 65536) if ready else None
        except OSError:  # the other side is gone
            break
        if more == b"":
            break
        data += more or b""
    os.close(leader)
    return process.stop(child, signal.SIGTERM, 60), data.decode().replace("\r\n", "\n")


class Running:
    """`dev` without the demo, for a look at the database; .database is a connection as its owner."""

    def __init__(self, directory):
        self.directory = directory

    def __enter__(self):
        self.child = process.spawn(command(self.directory), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, text=True, env=environment())
        assert "ready\n" in iter(self.child.stdout.readline, "")
        with open(os.path.join(self.directory, "env"), encoding="utf-8") as env:
            url = next(line for line in env if line.startswith("DATABASE_URL=")).split("=", 1)[1].strip()
        self.database = psycopg2.connect(url.strip("'"))
        self.database.autocommit = True
        return self

    def __exit__(self, *_):
        self.database.close()
        assert process.stop(self.child, signal.SIGTERM, 60) == 0

    def sql(self, text):
        with self.database.cursor() as cursor:
            cursor.execute(text)
            return cursor.fetchall() if cursor.description else []


def number(text):
    return int(text.replace(",", ""))


def sources_of(report):
    """{source: [sent, captured, duplicates, refused]} of the first table."""
    table = report.split("Events by source\n")[1].split("\n\n")[0].splitlines()[1:]
    return {row.split()[0]: [number(cell) for cell in row.split()[1:]] for row in table}


def counters_of(report):
    """{instance: {row: [8 numbers]}} of the table of counters."""
    table = report.split("count(*) of its events\n")[1].split("\n\n")[0].splitlines()[1:]
    found = {}
    for row in table:
        words = row.split()
        if words[-1] == "enrolled":
            rows = found[words[0].rstrip(",")] = {}
        else:
            rows[words[0]] = [number(cell) for cell in words[1:]]
    return found


TOTALS = ["sent", "delivered", "opened", "clicked", "replied", "bounced", "unsubscribed", "completed"]


def check_report(report, runs_before):
    sources = sources_of(report)
    assert {name: row[1] for name, row in sources.items() if name in SOURCES} == SOURCES
    assert sources["total"] == [sum(row[i] for name, row in sources.items() if name != "total") for i in range(4)]
    assert sources["no-such-source"] == [5, 0, 0, 5]
    for name, (sent, captured, duplicates, refused) in sources.items():
        # What is in no column was sent by a client that hung up before the gateway had it.
        assert 0 <= sent - captured - duplicates - refused <= (20 if name in ("hmac", "total") else 0), name
    for words in ("body changed after signing    20 x 401", "timestamp too old             10 x 401",
                  "no signature                  20 x 401", "unknown source                 5 x 404",
                  "body too large                 2 x 413"):
        assert words in report
    for rows in counters_of(report).values():
        assert rows["after"] == rows["count(*)"]
        assert [value * (runs_before + 1) for value in rows["before"]] == [
            value * runs_before for value in rows["after"]]
    assert re.search(r"  [\d,]+ events/s: 20,000 events in 12,400 deliveries, \d+\.\d\d s\n", report)
    assert re.search(r"All \d+ checks hold", report)
    tables = report.split("What to look at next")[0]
    assert all(len(line) <= REPORT_WIDTH for line in tables.splitlines()), tables


def check_database(running, report, runs):
    assert dict(running.sql("SELECT source, count(DISTINCT (key_scope, provider_event_id)) FROM campaign_events "
                            "GROUP BY 1")) == {name: events * runs for name, events in SOURCES.items()}
    assert running.sql("SELECT count(*) FROM campaign_events") == [(sum(SOURCES.values()) * runs,)]
    assert running.sql("SELECT count(*), count(DISTINCT instance_id) FROM campaign_enrollments") == [(1000, 3)]
    assert running.sql("SELECT count(*) FROM campaign_templates") == [(1,)]
    shown = counters_of(report)
    for name, *totals in running.sql(f"SELECT name, {', '.join('total_' + t for t in TOTALS)} "
                                     "FROM campaign_instances WHERE status = 'active'"):
        assert shown[name]["after"] == totals


@pytest.mark.long
def test_the_demo_and_again(directory):
    code, report, errors = demo(directory)
    assert code == 0, report + errors
    assert report.startswith("ready\n") and "\x1b" not in report and "\r" not in report
    check_report(report, 0)
    assert not is_left(directory)
    with Running(directory) as running:
        check_database(running, report, 1)
        check_what_to_look_at_next(directory, report)
        assert running.sql("SELECT count(*) FROM campaign_events") == [(sum(SOURCES.values()) + 1,)]
        running.sql("DELETE FROM campaign_events WHERE id = (SELECT max(id) FROM campaign_events)")
        running.sql("UPDATE campaign_instances SET total_delivered = total_delivered - 1 WHERE id = "
                    "'de310000-0000-4000-8000-000000000001'")
        running.sql("UPDATE campaign_enrollments SET total_events = total_events - 1 WHERE id = "
                    "'de320000-0000-4000-8000-000000000367'")
    code, raw = demo_on_terminal(directory)
    assert code == 0, raw
    assert "\r\x1b[K" in raw and "\x1b[1m" in raw, "a terminal gets one rewritten line, and colour"
    check_report(ESCAPES.sub("", raw), 1)
    assert not is_left(directory)


def check_what_to_look_at_next(directory, report):
    """The report's own lines, pasted into a shell."""
    pasted = report.split("What to look at next\n")[1]
    lines, curl = pasted.split("\nA delivery of your own, signed; sent twice, it is a duplicate\n")
    start, rest = lines.split("\n", 1)
    assert start == f"  {shlex.quote(os.path.realpath(BINARY))} dev --dir {directory} &"
    with open(os.path.join(directory, "env"), encoding="utf-8") as env:
        ports = dict(re.findall(r"(ONCEHOOK_\w*URL)=\S*?:(\d+)'?$", env.read(), re.MULTILINE))
    # The test let `dev` take any free port, so they are others now.
    rest = re.sub(r"(curl -s http://[^:]+:)\d+", rf"\g<1>{ports['ONCEHOOK_ADMIN_URL']}", rest)
    rest = rest.replace(" --source", f" --url https://localhost:{ports['ONCEHOOK_URL']} --print-curl --source")
    curl = re.sub(r"(https://[^:]+:)\d+/in", rf"\g<1>{ports['ONCEHOOK_URL']}/in", curl)
    ran = process.run(["sh", "-eu", "-c", rest], env=environment())
    assert "(10 rows)" in ran.stdout and "(3 rows)" in ran.stdout
    assert "oncehook_events_total" in ran.stdout and "curl -sS" in ran.stdout
    assert '"captured":1,"duplicates":0' in process.run(["sh", "-eu", "-c", curl]).stdout
    assert '"captured":0,"duplicates":1' in process.run(["sh", "-eu", "-c", curl]).stdout


@pytest.mark.long
def test_a_counter_that_is_wrong_is_said_in_words(directory):
    with Running(directory) as running:
        running.sql("""CREATE FUNCTION forget_opens() RETURNS trigger LANGUAGE plpgsql AS $$
                       BEGIN NEW.total_opened := OLD.total_opened; RETURN NEW; END $$""")
        running.sql("""CREATE TRIGGER forget_opens BEFORE UPDATE ON campaign_instances
                       FOR EACH ROW EXECUTE FUNCTION forget_opens()""")
    code, raw = demo_on_terminal(directory, NO_COLOR="1")
    assert code == 1, raw
    assert not re.search(r"\x1b\[[0-9;]*m", raw), "NO_COLOR"
    for instance, events in (("Spring", 637), ("Summer", 798), ("Autumn", 655)):
        assert f"MISS  {instance}: total_opened rose by 0, its events by {events}, both must by {events}\n" in raw
    assert re.search(r"\n3 of \d+ checks do not hold\.\n", raw)
    assert "checks hold" not in raw
