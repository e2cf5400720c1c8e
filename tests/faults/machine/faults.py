"""The faults: what strikes, how, and what brings it back. One row each in FAULTS.

strike(world, hit): does it, with hit.random for every choice; returns once what was broken works again.
It calls hit.back() at the moment from which the first new commit is timed."""

import contextlib
import dataclasses
import os
import signal
import time
from typing import Callable

import psycopg2

from machine import checker
from machine.journal import now_us
from support.process import wait_until


class Hit:
    """One strike of a fault."""

    def __init__(self, fault, world, rng):
        self.fault, self.world, self.random = fault, world, rng
        self.marks = {"fault": fault.name, "down_us": now_us()}
        self.problems = []

    def back(self, status=200):
        self.world.clients.watch(status)
        self.marks["back_us"] = now_us()

    def hold(self, low, high):
        """Lets the fault last."""
        time.sleep(self.random.uniform(low, high))


# ---- the gateway

def restart(world, hit, gateway):
    hit.marks["ready_ms"] = round(gateway.start(), 1)
    hit.back()


def gateway_kill(world, hit):
    gateway = hit.random.choice(world.gateways)
    gateway.kill()
    restart(world, hit, gateway)


def gateway_term(world, hit):
    gateway = hit.random.choice(world.gateways)
    problem = gateway.stop()
    if problem:
        hit.problems.append(problem)
    restart(world, hit, gateway)


def gateway_stop(world, hit):
    world.gateway.signal(signal.SIGSTOP)
    hit.hold(0.1, 2.5)
    world.gateway.signal(signal.SIGCONT)
    hit.back()


# ---- PostgreSQL

def postgres_immediate(world, hit):
    world.primary.stop(signal.SIGQUIT)
    hit.hold(0, 0.5)
    world.primary.start()
    hit.back()


def postgres_fast(world, hit):
    world.primary.stop(signal.SIGINT)
    hit.hold(0, 0.5)
    world.primary.start()
    hit.back()


def postmaster_kill(world, hit):
    world.primary.kill()
    hit.hold(0, 0.3)
    world.primary.start()
    hit.back()


def backend_kill(world, hit):
    """PostgreSQL ends every other backend and recovers, as after any crash."""
    for pid in world.primary.backends()[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    time.sleep(0.02)
    world.primary.revive()
    hit.back()


def backend_terminate(world, hit):
    for _ in range(hit.random.randrange(1, 4)):
        world.primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'oncehook_gateway'")
        hit.hold(0.01, 0.2)
    hit.back()


def backend_cancel(world, hit):
    for _ in range(hit.random.randrange(1, 30)):
        world.primary.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = 'oncehook_gateway'")
    hit.back()


def postgres_stop(world, hit):
    stopped = world.primary.everything()
    try:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        hit.hold(0.1, 3)
    finally:
        for pid in reversed(stopped):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    hit.back()


def row_lock(world, hit):
    """A user's transaction sits on a counter row."""
    with contextlib.closing(world.primary.connect(world.database)) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT id FROM campaign_instances ORDER BY id LIMIT %s FOR UPDATE",
                       (hit.random.randrange(1, 9),))
        hit.hold(0.2, 2.5)
        cursor.execute("ROLLBACK")
    hit.back()


# ---- the network: through the proxies

def cut_pg(world, hit):
    for _ in range(hit.random.randrange(1, 12)):
        world.pg_proxy.set("cut")
        hit.hold(0.005, 0.1)
    hit.back()


def through(name, mode, low, high, **more):
    """A strike that sets a proxy's mode for a while."""
    def strike(world, hit):
        proxy = getattr(world, name)
        proxy.set(mode, **more)
        hit.hold(low, high)
        proxy.set("pass")
        hit.back()
    return strike


def cut_http(world, hit):
    for _ in range(hit.random.randrange(1, 12)):
        world.http_proxy.set("cut")
        hit.hold(0.005, 0.1)
    hit.back()


# ---- disks

def disk_full(world, hit, name, bite):
    disk = world.disks[name]
    disk.fill(hit.random.randrange(0, 1 << 18))
    try:
        bite()
        hit.hold(0.5, 2)
    finally:
        disk.empty()
    world.primary.revive()
    hit.back()


def disk_full_data(world, hit):
    disk_full(world, hit, "data", lambda: time.sleep(0.5))


def disk_full_wal(world, hit):
    """Segments that were made before are used up, then there is no room for another one: PANIC."""
    def use_up():
        with contextlib.suppress(psycopg2.Error):
            with contextlib.closing(world.primary.connect("postgres")) as connection:
                for _ in range(60):
                    with connection.cursor() as cursor:
                        cursor.execute("SELECT pg_switch_wal()")
                    time.sleep(0.02)
            hit.problems.append("the WAL disk was never full")
    disk_full(world, hit, "wal", use_up)


def disk_full_spool(world, hit):
    """PostgreSQL is away and the spool's disk is full: 503, and 202 again once there is room."""
    deadline = time.monotonic() + 30
    while world.gateway.metric("oncehook_spool_events") and time.monotonic() < deadline:
        time.sleep(0.05)  # what an earlier fault has left must not be what fills it again
    world.disks["spool"].fill(hit.random.randrange(0, 1 << 18))
    world.primary.stop(signal.SIGQUIT)
    try:
        hit.hold(0.5, 1.5)
    finally:
        world.disks["spool"].empty()
    world.clients.watch(202)
    if world.clients.first_us(15) is None:
        hit.problems.append("no 202 within 15 s after the spool's disk had room again")
    world.primary.start()
    hit.back()


# ---- the spool: kill -9 while it fills and while it drains

def spool_kill(world, hit):
    world.primary.stop(signal.SIGQUIT)
    for _ in range(hit.random.randrange(1, 3)):
        world.clients.watch(202)
        if world.clients.first_us(15) is None:
            hit.problems.append("no 202 within 15 s while PostgreSQL is away")
        hit.hold(0, 0.4)
        world.gateway.kill()
        hit.marks["ready_ms"] = round(world.gateway.start(), 1)
    hit.hold(0, 0.5)
    world.primary.start()
    hit.hold(0, 0.3)
    world.gateway.kill()  # while it drains
    world.gateway.start()
    hit.back()


def drain_crash(world, hit):
    """PostgreSQL comes back, and crashes again as soon as the spool has begun to drain."""
    world.primary.stop(signal.SIGQUIT)
    for _ in range(hit.random.randrange(1, 4)):
        hit.hold(0.3, 0.7)
        full = world.gateway.metric("oncehook_spool_events") or 0
        world.primary.start()
        deadline = time.monotonic() + 1
        while (world.gateway.metric("oncehook_spool_events") or 0) >= full and time.monotonic() < deadline:
            pass
        world.primary.stop(signal.SIGQUIT)
    world.primary.start()
    hit.back()


# ---- two gateways

def storm(world, hit):
    """One delivery from 1,000 connections to both gateways at once."""
    told = world.clients.storm(500)
    # Only where every try was answered 200 is every "captured" known to somebody.
    all_known = told.get("200") == told["connections"] and not told.keys() - {"connections", "events", "200", "captured"}
    captured = told.get("captured", 0)
    if told.get("200") != told["connections"] or captured > told["events"] or (all_known and captured < told["events"]):
        hit.problems.append(f"storm: {told}")
    hit.marks["connections"] = told["connections"]
    hit.back()


# ---- failover

def promote(world):
    """The standby is the primary from now on, and waits for nobody until it has a standby again."""
    world.standby.set_synchronous("")
    world.standby.promote()
    world.servers.reverse()


def rejoin(world, hit):
    """Once there was a commit, the lost machine comes back as the standby that commits wait for."""
    hit.marks["first_us"] = world.clients.first_us(30)
    world.standby.follow(world.primary)
    world.primary.set_synchronous("*")


def failover(world, hit):
    world.primary.kill_all()
    promote(world)
    hit.back()
    rejoin(world, hit)


def failover_cancelled(world, hit):
    """The standby is away, so commits wait for it; somebody cancels the waits, which makes them look
    committed; then the primary is lost, and they with it. None of them may have been answered 200."""
    world.standby.stop()
    hit.hold(0.2, 0.5)
    cancelled = 0
    for _ in range(10):
        cancelled += len(world.primary.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
                                           "WHERE wait_event = 'SyncRep'"))
        time.sleep(0.03)
    hit.marks["cancelled"] = cancelled
    world.primary.kill_all()
    world.standby.start()
    promote(world)
    hit.back()
    rejoin(world, hit)


def failover_async(world, hit):
    """The standby lags, the primary is lost, and acknowledged commits with it: what oncehook does not
    survive by itself. Then the providers send again, and all of it is there, once."""
    since = time.monotonic()  # what was acknowledged before is at the standby soon
    lsn = world.primary.value("SELECT pg_current_wal_lsn()::text")
    wait_until(lambda: world.primary.sql("SELECT 1 FROM pg_stat_replication WHERE flush_lsn >= %s::pg_lsn", lsn), 30)
    world.standby.stop()
    hit.hold(0.3, 1)
    for client in world.clients.all:
        client.child.send_signal(signal.SIGSTOP)
    try:
        world.primary.kill_all()
        world.standby.start()
        promote(world)
        hit.marks["lost_before_retries"] = count_lost(world)
    finally:
        for client in world.clients.all:
            client.child.send_signal(signal.SIGCONT)
    hit.back()
    hit.marks["first_us"] = world.clients.first_us(30)
    hit.marks["redelivered"] = world.clients.redeliver(time.monotonic() - since + 1)
    world.standby.follow(world.primary)
    wait_until(lambda: world.primary.sql("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"), 60)


def count_lost(world):
    with contextlib.closing(world.primary.connect(world.database)) as connection:
        found = checker.Findings()
        checker.check_stored(connection, checker.Sent(world.clients.paths), found)
    return found.counts["LOST"]


# ---- clocks

def clock(who, jumps):
    def strike(world, hit):
        world.set_clock(who, hit.random.choice(jumps))
        hit.hold(1.2, 2)  # libfaketime looks once a second
        world.set_clock(who, 0)
        hit.hold(1.1, 1.2)
        hit.back()
    return strike


HOUR_S, DAY_S = 3600, 86400


@dataclasses.dataclass(frozen=True)
class Fault:
    name: str
    world: str      # one of world.KINDS
    cost_s: float   # about how long one takes, with the load around it
    strike: Callable
    what: str
    recovers: str
    outage: str = ""  # "spool": means nothing otherwise
    commits_are_lost: bool = False


FAULTS = {fault.name: fault for fault in [
    Fault("gateway-kill", "plain", 1.0, gateway_kill, "SIGKILL of the gateway", "started again"),
    Fault("gateway-term", "plain", 1.2, gateway_term, "SIGTERM of the gateway under load", "started again"),
    Fault("gateway-stop", "plain", 2.0, gateway_stop, "SIGSTOP of the gateway, 0.1 to 2.5 s", "SIGCONT"),
    Fault("postgres-immediate", "plain", 2.0, postgres_immediate, "pg_ctl stop -m immediate", "started again"),
    Fault("postgres-fast", "plain", 2.0, postgres_fast, "pg_ctl stop -m fast", "started again"),
    Fault("postmaster-kill", "plain", 2.0, postmaster_kill, "SIGKILL of the postmaster", "started again"),
    Fault("backend-kill", "plain", 1.5, backend_kill, "SIGKILL of a backend: PostgreSQL crashes", "by itself"),
    Fault("backend-terminate", "plain", 1.0, backend_terminate, "pg_terminate_backend of all lanes", "by itself"),
    Fault("backend-cancel", "plain", 1.0, backend_cancel, "pg_cancel_backend of all lanes, again and again",
          "by itself"),
    Fault("postgres-stop", "plain", 2.5, postgres_stop, "SIGSTOP of postmaster and backends, 0.1 to 3 s",
          "SIGCONT"),
    Fault("row-lock", "plain", 2.0, row_lock, "a user's transaction locks counters, 0.2 to 2.5 s",
          "it rolls back"),
    Fault("pg-cut", "net", 1.0, cut_pg, "connections to PostgreSQL reset, up to 11 times in a row", "at once"),
    Fault("pg-refuse", "net", 1.5, through("pg_proxy", "refuse", 0.1, 1), "PostgreSQL's port refuses",
          "accepts again"),
    Fault("pg-stall", "net", 2.5, through("pg_proxy", "stall", 0.2, 3), "the network to PostgreSQL stalls, 0.2 "
          "to 3 s", "flows again"),
    Fault("pg-delay", "net", 2.0, through("pg_proxy", "delay", 0.5, 1.5, ms=60), "60 ms more each way to "
          "PostgreSQL", "fast again"),
    Fault("pg-half-open", "net", 3.0, through("pg_proxy", "half_open", 0.5, 3), "PostgreSQL's side of the "
          "connection is gone, the gateway hears nothing", "reset"),
    Fault("pg-lost-answer", "net", 1.5, through("pg_proxy", "lose_answers", 0.02, 0.8), "statements arrive, "
          "answers are lost: committed or not?", "reset"),
    Fault("http-cut", "net", 1.0, cut_http, "clients' connections reset, up to 11 times in a row", "at once"),
    Fault("http-stall", "net", 2.5, through("http_proxy", "stall", 0.2, 2), "the network to the clients stalls",
          "flows again"),
    Fault("http-delay", "net", 2.0, through("http_proxy", "delay", 0.5, 1.5, ms=80), "80 ms more each way to "
          "the clients", "fast again"),
    Fault("http-half-open", "net", 2.0, through("http_proxy", "half_open", 0.3, 1.5), "the gateway's side of "
          "the connection is gone, clients hear nothing", "reset"),
    Fault("http-lost-answer", "net", 1.5, through("http_proxy", "lose_answers", 0.02, 0.8), "deliveries arrive, "
          "answers are lost", "reset"),
    Fault("twin-kill", "twin", 1.0, gateway_kill, "SIGKILL of one of two gateways", "started again"),
    Fault("storm", "twin", 3.0, storm, "one delivery from 1,000 connections to two gateways at once",
          "all are answered"),
    Fault("twin-crash", "twin", 2.0, postgres_immediate, "PostgreSQL crashes under two gateways", "started again"),
    Fault("disk-data", "disks", 3.0, disk_full_data, "PostgreSQL's data disk is full, 1 to 2.5 s",
          "there is room"),
    Fault("disk-wal", "disks", 4.0, disk_full_wal, "PostgreSQL's WAL disk is full: it panics",
          "there is room, started again if it left"),
    Fault("disk-spool", "disks", 4.0, disk_full_spool, "the spool's disk is full while PostgreSQL is away",
          "there is room", outage="spool"),
    Fault("spool-kill", "plain", 3.0, spool_kill, "SIGKILL of the gateway while it spools, and while it drains",
          "started again", outage="spool"),
    Fault("drain-crash", "plain", 6.0, drain_crash, "PostgreSQL crashes again and again while the spool drains",
          "started again", outage="spool"),
    Fault("failover", "sync", 5.0, failover, "the primary is lost, the synchronous standby promoted",
          "two hosts, target_session_attrs=read-write"),
    Fault("failover-cancelled", "sync", 6.0, failover_cancelled, "waits for the standby are cancelled, then the "
          "primary is lost", "the standby is promoted"),
    Fault("failover-async", "async", 6.0, failover_async, "the primary is lost with commits that the standby has "
          "not", "the standby is promoted, providers send again", commits_are_lost=True),
    Fault("clock-gateway", "clock", 3.5, clock("gateway", [HOUR_S, -HOUR_S]), "the gateway's clock jumps an hour "
          "forward or back", "jumps back"),
    Fault("clock-postgres", "clock", 3.5, clock("postgres", [HOUR_S, -HOUR_S, 35 * DAY_S, -35 * DAY_S]),
          "PostgreSQL's clock jumps an hour, or into another month", "jumps back"),
]}
