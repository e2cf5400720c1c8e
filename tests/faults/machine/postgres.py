"""PostgreSQL servers that are killed, stopped, filled up, and followed by a standby."""

import contextlib
import glob
import os
import re
import shutil
import signal
import subprocess
import time

import psycopg2

from support.postgres import GATEWAY, GATEWAY_PASSWORD, OWNER, OWNER_PASSWORD, binaries
from support.process import free_port, run, spawn, wait_until

SETTINGS = {
    "listen_addresses": "127.0.0.1", "max_connections": 200, "shared_buffers": "64MB",
    "fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "deadlock_timeout": "200ms",
    "wal_level": "replica", "max_wal_senders": 8, "hot_standby": "on", "wal_keep_size": "64MB",
    "wal_receiver_status_interval": "1s", "wal_retrieve_retry_interval": "100ms", "log_checkpoints": "off",
}

RECOVERY_S = 30
RECOVERING = re.compile("in recovery mode|is starting up|is not yet accepting connections")


def processes_below(pid):
    """(pid, command line) of a process's children."""
    found = []
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
            for child in children.read().split():
                with contextlib.suppress(OSError), open(f"/proc/{child}/cmdline", "rb") as line:
                    found.append((int(child), line.read().replace(b"\0", b" ").decode("utf-8", "replace")))
    return found


class Server:
    """One cluster in `root` (made, and owned by postgres). data, wal: where its files go when not there."""

    def __init__(self, root, data=None, wal=None, settings=None, env=None):
        self.root, self.data, self.wal = root, data or os.path.join(root, "data"), wal
        self.log, self.port, self.child = os.path.join(root, "log"), free_port(), None
        self.settings, self.env = {**SETTINGS, **(settings or {})}, env
        os.makedirs(root, exist_ok=True)
        self.give_away(root)

    @staticmethod
    def give_away(path):
        if os.geteuid() == 0:
            shutil.chown(path, "postgres", "postgres")

    def init(self):
        wal = ["--waldir", self.wal, "--wal-segsize", "1"] if self.wal else []
        run([f"{binaries()}/initdb", "-D", self.data, "-U", "postgres", "-E", "UTF8", "--locale=C", "-N",
             "--auth-local=trust", "--auth-host=scram-sha-256", *wal], user="postgres", cwd=self.root)

    # ---- start

    def launch(self):
        """Starts the postmaster and does not wait."""
        argv = [f"{binaries()}/postgres", "-D", self.data]
        settings = {"port": self.port, "unix_socket_directories": self.root, **self.settings}
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        with open(self.log, "ab") as log:
            self.child = spawn(argv, user="postgres", death_signal="SIGQUIT", cwd=self.root, env=self.env,
                               stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self, timeout=60):
        """Starts and waits for the first answer."""
        self.launch()
        self.revive(timeout)

    def revive(self, timeout=60):
        """Waits for an answer. Starts the server again when it left: while backends of a killed postmaster
        hold the shared memory it does, and while its disk is full."""
        deadline = time.monotonic() + timeout
        while not self.answers():
            if self.child.poll() is not None:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)
                self.launch()
            elif time.monotonic() > deadline:
                break
            time.sleep(0.005)
        else:
            return
        with open(self.log, encoding="utf-8", errors="replace") as log:
            raise AssertionError(f"PostgreSQL did not start:\n{log.read()[-3000:]}")

    def answers(self):
        with contextlib.suppress(psycopg2.Error):
            psycopg2.connect(host=self.root, port=self.port, user="postgres", dbname="postgres", connect_timeout=3).close()
            return True
        return False

    # ---- end

    @property
    def is_running(self):
        return self.child is not None and self.child.poll() is None

    def send(self, number):
        if self.is_running:
            self.child.send_signal(number)

    def stop(self, number=signal.SIGQUIT, timeout=20):
        """SIGQUIT is what `pg_ctl stop -m immediate` sends, SIGINT -m fast. What has not left by then is
        killed, all of it: one more kind of crash."""
        if self.is_running:
            self.send(signal.SIGCONT)
            self.send(number)
            try:
                self.child.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill_all()
        self.child = None

    def kill_all(self):
        """The machine of this server is gone: every process, at once."""
        for pid in self.everything():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.child.wait()
        self.child = None

    def kill(self):
        """SIGKILL of the postmaster; its children see that and leave."""
        self.send(signal.SIGKILL)
        self.child.wait()
        self.child = None

    def remove(self):
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    # ---- its processes

    def backends(self, what=GATEWAY):
        """Pids of children whose title names `what`; by default those that serve the gateway."""
        return [pid for pid, title in processes_below(self.child.pid) if what in title] if self.is_running else []

    def everything(self):
        return [self.child.pid, *(pid for pid, _ in processes_below(self.child.pid))] if self.is_running else []

    # ---- SQL as superuser, through the socket

    def connect(self, database, **options):
        """Waits where a recovery is under way: a killed backend may be noticed only after revive() has looked."""
        deadline = time.monotonic() + RECOVERY_S
        while True:
            try:
                connection = psycopg2.connect(host=self.root, port=self.port, user="postgres", dbname=database, **options)
                connection.autocommit = True
                return connection
            except psycopg2.OperationalError as error:
                if not RECOVERING.search(str(error)) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def sql(self, text, *parameters, database="postgres"):
        with contextlib.closing(self.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(text, parameters or None)
            return cursor.fetchall() if cursor.description else None

    def value(self, text, *parameters, database="postgres"):
        return self.sql(text, *parameters, database=database)[0][0]

    def make_roles(self):
        self.sql(f"CREATE ROLE {OWNER} LOGIN PASSWORD '{OWNER_PASSWORD}'")
        self.sql(f"CREATE ROLE {GATEWAY} LOGIN PASSWORD '{GATEWAY_PASSWORD}'")

    def owner_url(self, database):
        return f"postgresql://{OWNER}:{OWNER_PASSWORD}@127.0.0.1:{self.port}/{database}"

    # ---- standby

    def follow(self, primary):
        """Becomes a fresh standby of `primary`: base backup, start."""
        self.stop()
        for path in [self.data, *glob.glob(os.path.join(self.root, "*.tmp"))]:
            shutil.rmtree(path, ignore_errors=True)
        run([f"{binaries()}/pg_basebackup", "-D", self.data, "-h", primary.root, "-p", str(primary.port),
             "-U", "postgres", "-c", "fast", "-X", "stream", "-R", "--no-sync"], user="postgres", cwd=self.root)
        self.settings["primary_conninfo"] = (f"host={primary.root} port={primary.port} user=postgres "
                                             "application_name=standby")
        self.start()

    def promote(self):
        self.sql("SELECT pg_promote(wait => false)")
        wait_until(lambda: not self.value("SELECT pg_is_in_recovery()"), 60, 0.005, "the promotion")

    def set_synchronous(self, names):
        """synchronous_standby_names without a restart: '' or '*'."""
        self.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.sql("SELECT pg_reload_conf()")
        if names:
            wait_until(lambda: self.sql("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"), 60, 0.02,
                       "a synchronous standby")
