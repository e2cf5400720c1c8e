"""A private PostgreSQL: its own directory, socket and port, never root, gone with the tests."""

import atexit
import contextlib
import functools
import glob
import itertools
import os
import shutil
import signal
import subprocess

import psycopg2

from support.memory import make_directory, remove_directory
from support.process import free_port, run, spawn, stop, wait_until

OWNER, GATEWAY = "oncehook_owner", "oncehook_gateway"
OWNER_PASSWORD, GATEWAY_PASSWORD = "owner-of-the-tests", "gateway-of-the-tests"

DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}


def binaries():
    """The directory with initdb and postgres, newest version first."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda p: int(p.split("/")[4]))
    if found:
        return os.path.dirname(found[-1])
    return run(["pg_config", "--bindir"]).stdout.strip()


def make_root():
    """A directory of a cluster. Not in pytest's own tree: the socket's path must stay below 107 bytes."""
    root = make_directory("oh-pg-", 0o700)  # its socket trusts everybody
    if os.geteuid() == 0:
        shutil.chown(root, "postgres", "postgres")
    return root


def initdb(root, *more):
    """A cluster in root/data, and that path."""
    data = os.path.join(root, "data")
    run([f"{binaries()}/initdb", "-D", data, "-U", "postgres", "-E", "UTF8", "--locale=C", "-N",
         "--auth-local=trust", "--auth-host=scram-sha-256", *more], user="postgres", cwd=root)
    return data


@functools.cache
def fresh_data():
    """What initdb makes, once for all clusters of this process."""
    root = make_root()
    atexit.register(remove_directory, root)
    return initdb(root)


class Cluster:
    """One PostgreSQL server. start(), stop() and crash() may be called in any order by a test that
    owns it (fixture `private_cluster`)."""

    def __init__(self, settings, *options_of_initdb, env=None):
        self.root = make_root()
        self.data = os.path.join(self.root, "data")
        self.log = os.path.join(self.root, "log")
        self.settings, self.env = settings, env
        self.server = None
        self.port = 0
        self.serial = itertools.count()
        if options_of_initdb:
            initdb(self.root, *options_of_initdb)
        else:
            run(["cp", "-a", "--reflink=auto", fresh_data(), self.data], user="postgres", cwd=self.root)

    def start(self):
        """Starts the server and waits until it answers. The port stays the same from then on."""
        assert self.server is None, "already started"
        for _ in range(5):
            self.port = self.port or free_port()
            settings = {"listen_addresses": "127.0.0.1", "port": self.port, "max_connections": 200,
                        "unix_socket_directories": self.root, "deadlock_timeout": "200ms",
                        "shared_buffers": "64MB", "log_lock_waits": "on", **self.settings}
            argv = [f"{binaries()}/postgres", "-D", self.data]
            for name, value in settings.items():
                argv += ["-c", f"{name}={value}"]
            with open(self.log, "ab") as log:
                self.server = spawn(argv, user="postgres", death_signal="SIGQUIT", cwd=self.root, env=self.env,
                                    stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            wait_until(lambda: self.server.poll() is not None or self.answers(), 30,
                       what="PostgreSQL's first answer")
            if self.server.poll() is None:
                return
            self.server = None
            if "Address already in use" not in self.log_text():
                break
            self.port = 0  # lost the race for the port
        raise AssertionError(f"PostgreSQL did not start:\n{self.log_text()}")

    def answers(self):
        with contextlib.suppress(psycopg2.OperationalError):
            self.connect("postgres").close()
            return True
        return False

    def log_text(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def stop(self, signal_number=signal.SIGINT):
        """SIGTERM waits for clients, SIGINT (default) disconnects them, SIGQUIT recovers at start."""
        if self.server is not None:
            server, self.server = self.server, None
            stop(server, signal_number, timeout=60)

    def crash(self):
        """What a power cut leaves: no checkpoint, recovery at the next start."""
        self.stop(signal.SIGQUIT)

    def remove(self):
        self.stop(signal.SIGQUIT)
        remove_directory(self.root)

    def connect(self, database, **options):
        """A superuser's connection through the socket; autocommit."""
        connection = psycopg2.connect(host=self.root, port=self.port, user="postgres", dbname=database,
                                      **options)
        connection.autocommit = True
        return connection

    def sql(self, text, *parameters, database="postgres"):
        """Runs one statement as superuser; rows as tuples, or None for one that gives no rows."""
        with contextlib.closing(self.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(text, parameters or None)
            return cursor.fetchall() if cursor.description else None

    def make_roles(self):
        self.sql(f"CREATE ROLE {OWNER} LOGIN PASSWORD '{OWNER_PASSWORD}'")
        self.sql(f"CREATE ROLE {GATEWAY} LOGIN PASSWORD '{GATEWAY_PASSWORD}'")

    def create_database(self, template=None):
        """A fresh database that belongs to the owner's role; a copy of `template` where given."""
        name = f"t{os.getpid()}_{next(self.serial)}"
        source = f" TEMPLATE {template.name}" if template else " TEMPLATE template0"
        self.sql(f"CREATE DATABASE {name} OWNER {OWNER}{source}")
        return Database(self, name)


class Database:
    """One database of a cluster, with the URLs of both roles."""

    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, name

    def url(self, user, password):
        return f"postgresql://{user}:{password}@127.0.0.1:{self.cluster.port}/{self.name}"

    @property
    def owner_url(self):
        return self.url(OWNER, OWNER_PASSWORD)

    @property
    def gateway_url(self):
        return self.url(GATEWAY, GATEWAY_PASSWORD)

    def sql(self, text, *parameters):
        """One statement as superuser, committed; rows as tuples, or None."""
        return self.cluster.sql(text, *parameters, database=self.name)

    def value(self, text, *parameters):
        """The single value of a statement that gives one row of one column."""
        rows = self.sql(text, *parameters)
        assert len(rows) == 1 and len(rows[0]) == 1, rows
        return rows[0][0]

    def connect(self):
        """A superuser's connection of its own (autocommit); the caller closes it."""
        return self.cluster.connect(self.name)

    @contextlib.contextmanager
    def held(self, select, *parameters):
        """What this SELECT … FOR UPDATE locks stays locked meanwhile."""
        holder = self.connect()
        try:
            holder.cursor().execute(f"BEGIN; {select}", parameters)
            yield
        finally:
            holder.close()

    def waiting_lanes(self):
        """How many lanes of gateways wait for a lock."""
        return self.value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND "
                          "wait_event_type = 'Lock' AND application_name LIKE 'oncehook lane%%'")

    def drop(self):
        if self.cluster.server is not None:
            self.cluster.sql(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")

    def seed(self, instances=1, enrollments=1):
        """A template with `instances` active instances of `enrollments` enrollments each.
        Returns [(instance_id, [enrollment_id, …]), …] as text."""
        template = self.value("INSERT INTO campaign_templates (id, name) VALUES (gen_random_uuid(), 'test') "
                              "RETURNING id::text")
        made = []
        for number in range(instances):
            instance = self.value("INSERT INTO campaign_instances (id, template_id, name, status) "
                                  "VALUES (gen_random_uuid(), %s, %s, 'active') RETURNING id::text",
                                  template, f"instance {number}")
            rows = self.sql("INSERT INTO campaign_enrollments (id, instance_id, contact_id) "
                            "SELECT gen_random_uuid(), %s, gen_random_uuid() FROM generate_series(1, %s) "
                            "RETURNING id::text", instance, enrollments)
            made.append((instance, [row[0] for row in rows]))
        return made

    def counter_drift(self):
        """Every counter that differs from its events; [] is what every test wants to see."""
        names = ["sent", "delivered", "opened", "clicked", "replied", "bounced", "unsubscribed", "completed"]
        sums = ", ".join(f"count(e.*) FILTER (WHERE e.event_type = '{name}') AS {name}" for name in names)
        same = " AND ".join(f"i.total_{name} = c.{name}" for name in names)
        instances = self.sql(f"""
            SELECT 'campaign_instances', i.id::text FROM campaign_instances i JOIN (
              SELECT i.id, {sums} FROM campaign_instances i
              LEFT JOIN campaign_events e ON e.instance_id = i.id GROUP BY i.id) c ON c.id = i.id
            WHERE NOT ({same})""")
        enrollments = self.sql("""
            SELECT 'campaign_enrollments', n.id::text FROM campaign_enrollments n JOIN (
              SELECT n.id, count(e.*) AS events FROM campaign_enrollments n
              LEFT JOIN campaign_events e ON e.enrollment_id = n.id AND e.instance_id IS NOT NULL
              GROUP BY n.id) c ON c.id = n.id
            WHERE n.total_events <> c.events""")
        return instances + enrollments
