"""A private PostgreSQL with every durability setting on, and the check that answers and tables agree."""

import glob
import os
import shutil
import signal
import subprocess
import time

from .base import ROOT, Failed, Server, output

INSTANCES, ENROLLMENTS = 1_000, 100_000

# Durability as PostgreSQL ships it; the rest is what a user with this much memory would set too: a quarter of it.
MEMORY_MIB = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
SETTINGS = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on",
            "shared_buffers": f"{MEMORY_MIB // 4}MB", "min_wal_size": "1GB", "max_wal_size": "8GB",
            "checkpoint_timeout": "15min"}

COUNTERS = "sent delivered opened clicked replied bounced unsubscribed completed".split()
# What counted() counts, in this order. The report's own tables have no ledger and no counters of enrollments.
COUNTED = {
    "bench": {
        "events": "(SELECT count(*) FROM campaign_events)",
        "keys": "(SELECT count(*) FROM event_keys)",
        "enrolled": "(SELECT sum(total_events) FROM campaign_enrollments)",
        "countable": "(SELECT count(*) FROM campaign_events WHERE instance_id IS NOT NULL"
                     f" AND event_type = ANY ('{{{','.join(COUNTERS)}}}'))",
        "counted": f"(SELECT sum({' + '.join('total_' + word for word in COUNTERS)}) FROM campaign_instances)"},
    "seed": {
        "events": "(SELECT count(*) FROM campaign_events)",
        "countable": "(SELECT count(*) FROM campaign_events WHERE instance_id IS NOT NULL)",
        "counted": "(SELECT sum(total_sent + total_delivered + total_opened + total_clicked + total_replied)"
                   " FROM campaign_instances)"}}
EVENT_TABLES = {"bench": "'campaign_events', 'event_keys'", "seed": "'campaign_events'"}
COUNTED["few"], EVENT_TABLES["few"] = COUNTED["bench"], EVENT_TABLES["bench"]  # beside millions (extras.py)
# Beside millions each event's first touch of a page after a checkpoint is logged whole: checkpoints are to be rare.
LARGE_SETTINGS = {"max_wal_size": "32GB"}


class Postgres:
    """A private cluster below `directory`, run by the user postgres when we are root."""

    def __init__(self, directory):
        found = glob.glob("/usr/lib/postgresql/*/bin/initdb")
        if not found:
            raise Failed("no PostgreSQL server below /usr/lib/postgresql; deploy/quickstart installs it")
        self.bin = os.path.dirname(max(found, key=lambda path: int(path.split("/")[4])))
        self.directory, self.server = directory, None
        self.user = "postgres" if os.geteuid() == 0 else None
        os.mkdir(directory, 0o755)
        if self.user:
            shutil.chown(directory, self.user, self.user)
        as_user = ["runuser", "-u", self.user, "--"] if self.user else []
        output(*as_user, f"{self.bin}/initdb", "-D", f"{directory}/data", "-U", "postgres", "-E", "UTF8",
               "--locale=C", "--auth=trust", cwd="/")

    def start(self):
        argv = [f"{self.bin}/postgres", "-D", f"{self.directory}/data", "-k", self.directory,
                "-c", "listen_addresses="]
        for name, value in SETTINGS.items():
            argv += ["-c", f"{name}={value}"]
        self.server = Server(argv, f"{self.directory}.log", self.user, signal.SIGINT)
        deadline = time.monotonic() + 30
        while subprocess.run([f"{self.bin}/pg_isready", "-q", "-h", self.directory], check=False).returncode:
            if time.monotonic() > deadline or self.server.child.poll() is not None:
                raise Failed(f"PostgreSQL did not start, see {self.directory}.log")
            time.sleep(0.05)

    def url(self, role, database="bench"):
        return f"postgresql://{role}@/{database}?host={self.directory}"

    def psql(self, database, *arguments):
        return [f"{self.bin}/psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", self.url("postgres", database), *arguments]

    def sql(self, text, database="bench"):
        return output(*self.psql(database, "-c", text), cwd="/").strip()

    def fill(self, oncehook, old_wal=False):
        """Roles, schema, campaigns. old_wal: segments of WAL to use again, as a server has that has run for a
        while; a new one makes each anew, in the runs of the first round and not in those of the last."""
        for role in ("oncehook_owner", "oncehook_gateway"):
            self.sql(f"CREATE ROLE {role} LOGIN", "postgres")
        self.sql("CREATE DATABASE bench OWNER oncehook_owner", "postgres")
        output(oncehook, "migrate", "up", "--database", self.url("oncehook_owner"), cwd="/")
        self.sql(f"""
            WITH t AS (INSERT INTO campaign_templates (name) VALUES ('bench') RETURNING id)
            INSERT INTO campaign_instances (template_id, name, status)
            SELECT t.id, 'instance ' || n, 'active' FROM t, generate_series(1, {INSTANCES}) n;
            WITH i AS (SELECT array_agg(id) AS ids FROM campaign_instances)
            INSERT INTO campaign_enrollments (instance_id)
            SELECT i.ids[1 + n % {INSTANCES}] FROM i, generate_series(1, {ENROLLMENTS}) n""")
        for _ in range(16 if old_wal else 0):
            self.sql("SELECT count(pg_logical_emit_message(false, 'bench', repeat('x', 1000000)))"
                     " FROM generate_series(1, 64)")
        self.sql("VACUUM (ANALYZE)")
        self.sql("CHECKPOINT")

    def fill_seed(self):
        """The report's own tables in a database of their own, with as many campaigns."""
        self.sql("CREATE DATABASE seed", "postgres")
        output(*self.psql("seed", "-f", os.path.join(ROOT, "tests", "data", "report_schema.sql")), cwd="/")
        self.sql(f"SELECT report_fill({INSTANCES}, {ENROLLMENTS // INSTANCES}, 0)", "seed")
        self.sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO oncehook_gateway", "seed")
        self.sql("VACUUM (ANALYZE)", "seed")

    def empty(self, database="bench"):
        """Every run begins with no events and no work left over; counters go on from where they are."""
        self.sql(f"TRUNCATE {EVENT_TABLES[database].replace(chr(39), '')}", database)
        self.sql("CHECKPOINT", database)

    def counted(self, database="bench"):
        """Events, keys, and what the two kinds of counters say; bytes of WAL, and of events and keys."""
        asked = {**COUNTED[database], "wal_bytes": "pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')",
                 "disk_bytes": f"""(SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c
                                     WHERE c.relname IN ({EVENT_TABLES[database]}) OR c.oid IN
                                           (SELECT inhrelid FROM pg_inherits
                                             WHERE inhparent = 'campaign_events'::regclass))"""}
        row = self.sql(f"SELECT {', '.join(asked.values())}", database)
        return dict(zip(asked, map(int, row.split("|"))))

    def stop(self):
        if self.server:
            self.server.stop()


def check_against_database(name, written, totals, before, after):
    """The benchmark's own honesty: what was acknowledged is there, once, and is counted, once. `written`:
    what this row writes of counted(); the rest must not have changed. Returns by how much each changed."""
    grown = {word: after[word] - before[word] for word in before}
    captured, bound = totals["captured"], totals["captured"] - totals["orphans"]
    wanted = {"events": captured, "keys": captured, "enrolled": bound, "counted": grown["countable"]}
    wanted = {word: wanted[word] if word in written else 0 for word in wanted if word in grown}
    found = {word: grown[word] for word in wanted}
    unknown = sum(totals.get(word, 0) for word in ("timeouts", "broken", "refused")) + sum(
        number for status, number in totals.get("statuses", {}).items() if status != "200")
    # An answer that never came may stand for events that did: then the database may hold more.
    more = found["events"] == found.get("keys", found["events"]) and all(found[word] >= wanted[word] for word in wanted)
    if found != wanted and not (unknown and more):
        raise Failed(f"{name}: {captured} events captured, {bound} of them bound: wanted {wanted}, but the database "
                     f"says {found}")
    return grown
