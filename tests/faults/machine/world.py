"""One world: a PostgreSQL (or two), a gateway (or two), proxies and small disks, as its faults need
them. It is made once and used for many rounds; each round has a database of its own."""

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
import time
import uuid

from machine import checker, traffic
from machine.postgres import Server
from machine.processes import Clients, Gateway, Proxy
from support.postgres import GATEWAY, GATEWAY_PASSWORD
from support.process import free_port, run

FAKETIME = ("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
            "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1")
DISK_MIB = {"data": 160, "wal": 48, "spool": 48}
# name -> what is special about it
KINDS = {"plain": set(), "net": {"proxy"}, "twin": {"two gateways"}, "disks": {"mounts"},
         "clock": {"faketime"}, "sync": {"standby"}, "async": {"standby"}, "tls": {"tls"}}
TEMPLATE = "oncehook_template"


class Skipped(Exception):
    """This machine cannot do it; says why."""


def is_sanitized(binary):
    """Its library wants to be first, so none goes before it."""
    return "asan" in subprocess.run(["ldd", binary], stdout=subprocess.PIPE, text=True, check=True).stdout


class Disk:
    """A small tmpfs of its own, and the ballast that fills it."""

    def __init__(self, path, mib):
        self.path, self.ballast = path, os.path.join(path, ".ballast")
        os.makedirs(path)
        done = run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0777", "oncehook-faults", path], check=False)
        if done.returncode != 0:
            raise Skipped(f"mount is not permitted: {done.stderr.strip()}")

    def fill(self, leave_bytes):
        with open(self.ballast, "wb") as file:
            for _ in range(100):  # others write meanwhile
                room = os.statvfs(self.path)
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), 0, max(1, room.f_bavail * room.f_frsize - leave_bytes))
                    return

    def empty(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.ballast)

    def remove(self):
        run(["umount", "-l", self.path], check=False)


class World:
    def __init__(self, kind, binary, outage, root=None):
        self.kind, self.special, self.binary, self.outage = kind, KINDS[kind], binary, outage
        self.root = tempfile.mkdtemp(prefix="oh-faults-", dir=root or "/tmp")
        os.chmod(self.root, 0o755)
        self.disks, self.servers, self.gateways, self.proxies = {}, [], [], []
        self.clients, self.database, self.serial = None, None, 0
        try:
            self._make()
        except BaseException:
            self.remove()
            raise

    # ---- making

    def _make(self):
        settings, data, wal, env = {}, None, None, None
        if "mounts" in self.special:
            for name, mib in DISK_MIB.items():
                self.disks[name] = Disk(os.path.join(self.root, f"disk-{name}"), mib)
            data = os.path.join(self.disks["data"].path, "pg")
            wal = os.path.join(self.disks["wal"].path, "wal")
            settings = {"min_wal_size": "4MB", "max_wal_size": "16MB", "wal_keep_size": "0"}
        if "faketime" in self.special:
            env = {**os.environ, **self._faketime("postgres")}
        first = Server(os.path.join(self.root, "pg-a"), data, wal, settings, env)
        self.servers.append(first)
        first.init()
        first.start()
        first.make_roles()
        first.sql(f"CREATE DATABASE {TEMPLATE} OWNER oncehook_owner TEMPLATE template0")
        run([self.binary, "migrate", "up", "--database", first.owner_url(TEMPLATE)])
        if "standby" in self.special:
            second = Server(os.path.join(self.root, "pg-b"))
            self.servers.append(second)
            second.follow(first)
            first.set_synchronous("*" if self.kind == "sync" else "")
        for number in range(2 if "two gateways" in self.special else 1):
            gateway = Gateway(self.root, self.binary, f"gateway-{number}", "tls" in self.special)
            if "mounts" in self.special:
                gateway.spool = os.path.join(self.disks["spool"].path, "spool")
            if "faketime" in self.special:
                gateway.env = self._faketime("gateway")
            self.gateways.append(gateway)
        if "proxy" in self.special:
            self.pg_port, self.http_port = free_port(), free_port()
            self.proxies = [Proxy(self.pg_port, first.port), Proxy(self.http_port, self.gateways[0].port)]

    def _faketime(self, who):
        library = next(filter(os.path.exists, FAKETIME), None)
        if library is None:
            raise Skipped("libfaketime is not installed")
        if is_sanitized(self.binary):
            raise Skipped("libfaketime does not go with AddressSanitizer")
        self.set_clock(who, 0)
        return {"LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": os.path.join(self.root, f"clock-{who}"),
                "FAKETIME_CACHE_DURATION": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}

    def set_clock(self, who, offset_s):
        path = os.path.join(self.root, f"clock-{who}")
        with open(path + ".new", "w", encoding="ascii") as file:
            file.write(f"{offset_s:+d}\n")
        os.chmod(path + ".new", 0o644)
        os.rename(path + ".new", path)

    # ---- who is who

    @property
    def primary(self):
        return self.servers[0]

    @property
    def standby(self):
        return self.servers[1]

    @property
    def gateway(self):
        return self.gateways[0]

    @property
    def pg_proxy(self):
        return self.proxies[0]

    @property
    def http_proxy(self):
        return self.proxies[1]

    def gateway_url(self):
        ports = [self.pg_port] if self.proxies else sorted(server.port for server in self.servers)
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        more = "?target_session_attrs=read-write" if len(ports) > 1 else ""
        return f"postgresql://{GATEWAY}:{GATEWAY_PASSWORD}@{hosts}/{self.database}{more}"

    # ---- a round

    def begin(self, seed, rate, clients, spool_bytes="1GiB"):
        """A new database, gateways on it, load from `clients` processes of together `rate` deliveries/s."""
        self.serial += 1
        self.random = random.Random(f"{seed}:world")
        for proxy in self.proxies:
            proxy.set("pass")
        if self.database:
            self.primary.sql(f"DROP DATABASE IF EXISTS {self.database} WITH (FORCE)")
        self.database = f"round{self.serial}"
        self.primary.sql(f"CREATE DATABASE {self.database} OWNER oncehook_owner TEMPLATE {TEMPLATE}")
        self._seed_campaign()
        secrets = {name: f"{self.random.getrandbits(128):032x}" for name, *_ in traffic.SOURCES}
        for gateway in self.gateways:
            shutil.rmtree(gateway.spool, ignore_errors=True)
            gateway.configure(self.gateway_url(), traffic.configuration(secrets), self.outage, spool_bytes)
            gateway.start()
        ports = [self.http_port] if self.proxies else [gateway.tls_port or gateway.port for gateway in self.gateways]

        def settings(number):
            path = os.path.join(self.root, f"journal-{self.serial}-{number}")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return {"seed": f"{seed}:{number}", "prefix": f"e{self.serial}c{number}", "secrets": secrets,
                    "campaign": self.campaign, "journal": path, "connections": max(4, 24 // clients),
                    "endpoints": [("127.0.0.1", port) for port in ports], "tls": "tls" in self.special,
                    "deliveries_per_second": rate / clients,
                    # A gateway whose clock is behind refuses what is signed in its future.
                    "expected": [(401, "stripe")] if "faketime" in self.special else []}
        self.clients = Clients(clients, settings)

    def wait_for_commits(self, timeout=30):
        self.clients.watch()
        if self.clients.first_us(timeout) is None:
            raise AssertionError(f"no event was captured within {timeout} s")

    def _seed_campaign(self):
        def ids(count):
            return [str(uuid.UUID(int=self.random.getrandbits(128))) for _ in range(count)]
        self.campaign = {"instances": ids(8), "known": ids(400), "late": ids(40),
                         # Locks of counters write WAL, so a commit that waits for nobody is seen without them only.
                         "named": self.kind != "sync" or self.serial % 2 == 1}
        self.late_waiting = list(self.campaign["late"])
        with contextlib.closing(self.primary.connect(self.database)) as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO campaign_templates (id, name) VALUES (gen_random_uuid(), 'faults') RETURNING id")
            template = cursor.fetchone()[0]
            cursor.execute("INSERT INTO campaign_instances (id, template_id, status) "
                           "SELECT unnest(%s::uuid[]), %s, 'active'", (self.campaign["instances"], template))
            cursor.execute("INSERT INTO campaign_enrollments (id, instance_id) "
                           "SELECT id, (%s::uuid[])[1 + n %% %s] FROM unnest(%s::uuid[]) WITH ORDINALITY u(id, n)",
                           (self.campaign["instances"], len(self.campaign["instances"]), self.campaign["known"]))

    def enroll_late(self, count=1):
        """Somebody inserts enrollments by plain SQL whose events came before them."""
        for _ in range(min(count, len(self.late_waiting))):
            self.primary.sql("INSERT INTO campaign_enrollments (id, instance_id) VALUES (%s, %s)",
                             self.late_waiting.pop(), self.random.choice(self.campaign["instances"]),
                             database=self.database)

    @property
    def binds_orphans(self):
        """Does this schema have the routine that binds them?"""
        return self.primary.value("SELECT count(*) FROM pg_proc WHERE proname LIKE '%%bind%%' AND "
                                  "pronamespace = 'public'::regnamespace", database=self.database) > 0

    def settle(self, timeout=60):
        """After the load: the spool is drained, orphans are bound. Problems as text."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            spooled = [gateway.metric("oncehook_spool_events") or 0 for gateway in self.gateways]
            unbound = self.binds_orphans and self.primary.sql(checker.UNBOUND, database=self.database)
            if not any(spooled) and not unbound:
                return []
            time.sleep(0.1)
        return [f"after {timeout} s without faults: {spooled} events in spools, {len(unbound or [])} orphans "
                "whose enrollment is there"]

    def end(self, commits_were_lost=False):
        """Ends the load and the gateways, checks. (Findings, problems)"""
        problems = self.clients.finish()
        self.enroll_late(len(self.late_waiting))
        problems += self.settle()
        for gateway in self.gateways:
            problems += filter(None, [gateway.stop(), gateway.sanitizer_report()])
        deadline = time.monotonic() + 60  # whoever lost its client may still be at work
        while self.primary.backends() and time.monotonic() < deadline:
            time.sleep(0.02)
        with contextlib.closing(self.primary.connect(self.database)) as connection:
            audit = [self.binary, "audit", "--database", self.primary.owner_url(self.database)]
            found = checker.check(connection, self.clients.paths, audit, self.binds_orphans, commits_were_lost)
        if found.clean and not problems:
            for path in self.clients.paths:
                os.unlink(path)
        return found, problems

    def abandon(self):
        """After a round that broke down: what is needed before another one can begin."""
        if self.clients:
            self.clients.end()
        for gateway in self.gateways:
            if gateway.is_running:
                gateway.kill()

    def remove(self, keep=False):
        self.abandon()
        for proxy in self.proxies:
            proxy.end()
        for server in reversed(self.servers):
            if keep:
                server.stop()
            else:
                server.remove()
        for disk in self.disks.values():
            disk.remove()
        if not keep:
            shutil.rmtree(self.root, ignore_errors=True)
