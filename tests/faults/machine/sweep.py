"""The Nth call of a system call fails, for every N: strace injects it into the real binary under load, in
each of its threads, while it works or while it starts. The round's check compares everything at its
end. A sweep ends where a call has no Nth, or at the bound."""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import time

from machine.world import Skipped
from support.process import spawn

RECOVER_S, SHORT_OF_MEMORY_S = 15, 3
FIRST_INDEX = 1000  # of rounds; those with faults are below
STRIKE_S = 0.7  # under load a call that is made at all is made within that
START_CALLS = 1000
DRAIN_S = 8      # in which a spool is drained, and its files are put away


@dataclasses.dataclass(frozen=True)
class Site:
    call: str                # the system call
    inject: str              # strace's words for what becomes of it
    starting: bool = False   # while the gateway starts, which it then may refuse; else while it works
    may_leave: bool = False  # out of memory may end or deafen the process, which must not lie
    outage: str = ""         # "spool": PostgreSQL is away meanwhile
    fresh: bool = False      # it starts with no spool of before, and makes all files anew

    @property
    def name(self):
        return f"{self.call}:{self.inject.partition('=')[2]}" + (":starting" if self.starting else "")

    @property
    def kills(self):
        return self.inject == KILL


KILL = "signal=SIGKILL"
SITES = {site.name: site for site in [
    # libpq
    Site("sendto", "error=EPIPE"), Site("sendto", KILL),
    Site("recvfrom", "error=ECONNRESET"), Site("recvfrom", "error=ETIMEDOUT"), Site("recvfrom", KILL),
    Site("poll", "error=EINTR"), Site("poll", "error=ENOMEM"), Site("poll", KILL),
    # libh2o
    Site("accept4", "error=EMFILE"), Site("accept4", "error=ECONNABORTED"),
    # libh2o aborts when it cannot read the pipe by which threads wake each other.
    Site("read", "error=ECONNRESET", may_leave=True), Site("read", KILL),
    Site("writev", "error=EPIPE"), Site("writev", "error=EIO"), Site("writev", KILL),
    Site("epoll_wait", "error=EINTR"), Site("epoll_wait", KILL),
    Site("epoll_ctl", "error=ENOMEM", may_leave=True),
    # start
    *(Site(call, how, starting=True, may_leave=True) for call, how in [
        ("sendto", "error=EPIPE"), ("recvfrom", "error=ECONNRESET"), ("connect", "error=ECONNREFUSED"),
        ("socket", "error=EMFILE"), ("read", "error=EIO"), ("openat", "error=EMFILE"), ("mmap", "error=ENOMEM"),
        ("epoll_ctl", "error=ENOMEM")]),
    # the spool
    *(Site(call, how, starting, outage="spool", fresh=starting and call in ("fsync", "renameat"))
      for starting in (False, True) for call, hows in [
        ("pwrite64", ("error=EIO", "error=ENOSPC", KILL)), ("pread64", ("error=EIO",)),
        ("fdatasync", ("error=EIO", KILL)), ("fsync", ("error=EIO", KILL)),
        ("ftruncate", ("error=EIO", "error=ENOSPC")), ("openat", ("error=ENOSPC",) if starting else ("error=EMFILE", "error=ENOSPC")),
        # A drained segment is deleted while it works. A new file of a number takes the old one's place at the
        # first start, and after a failed fdatasync (tests/unit/test_spool_record.c).
        ("unlinkat", ("error=EIO", KILL)) if not starting else ("renameat", ("error=EIO", KILL)),
      ] for how in hows)]}


def plan(names, seed, calls, outages):
    """At its start a process makes so many calls that each can fail; while it works there is no end of them."""
    rounds = [{"world": "plain", "outage": outage, "faults": [], "sweep": name,
               "calls": START_CALLS if SITES[name].starting and not SITES[name].outage else calls}
              for outage in outages for name in names if (SITES[name].outage or "refuse") == outage]
    for index, spec in enumerate(rounds, FIRST_INDEX):
        spec.update(index=index, seed=f"{seed}:{index}")
    return rounds


def check_strace():
    done = subprocess.run(["strace", "-qq", "-o", "/dev/null", "-e", "trace=getpid", "true"],
                          stderr=subprocess.PIPE, text=True, check=False) if shutil.which("strace") else None
    if done is None or done.returncode != 0:
        raise Skipped("strace is not installed" if done is None else f"ptrace is not permitted: {done.stderr.strip()}")


class Sweep:
    """One site, all N."""

    def __init__(self, world, site, live):
        self.world, self.gateway, self.site, self.live = world, world.gateway, site, live
        self.trace = os.path.join(world.root, "strace")
        self.marks = {"site": site.name, "struck": 0, "refused_to_start": 0, "left": 0}
        self.problems = []

    def run(self, calls, deadline):
        misses = 0
        for number in range(1, calls + 1):
            if deadline and time.monotonic() > deadline:
                break
            self.live(f"{self.site.name}, call {number}")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.trace)
            struck = self.strike_start(number) if self.site.starting else self.strike_work(number)
            self.recover(number)
            self.marks["struck"] += struck
            misses = 0 if struck else misses + 1
            if misses == 3:
                break

    def strace(self, number, *options):
        return ["strace", "-f", "-qq", "-o", self.trace, "-e", f"trace={self.site.call}",
                "-e", f"inject={self.site.call}:{self.site.inject}:when={number}", *options]

    def strike_start(self, number):
        """Starts the gateway anew under strace; False when it was ready without an Nth call."""
        if self.site.fresh:
            self.wait_drained()
        elif self.site.outage:
            self.world.primary.stop()
            time.sleep(0.2)  # something is in the spool by then
        self.gateway.kill()
        if self.site.fresh:
            shutil.rmtree(self.gateway.spool)
            self.world.primary.stop()
        # With its filter strace 6.1 sends no signal at a second call.
        self.gateway.prefix = self.strace(number, "-D", *([] if self.site.kills else ["--seccomp-bpf"]))
        try:
            self.gateway.start(10)
        except AssertionError:
            self.marks["refused_to_start"] += 1
        self.gateway.prefix = []
        if self.site.outage:
            self.wait_struck()  # with the first records
        struck = self.was_struck() or not self.gateway.is_running
        if not self.gateway.is_running or self.site.may_leave:
            if self.gateway.is_running:
                self.gateway.kill()
            self.gateway.start()
        if self.site.outage:
            self.world.primary.start()
        return struck

    def strike_work(self, number):
        """Attaches strace to the gateway until the Nth call of a thread was struck; False when none was."""
        tracer = spawn(self.strace(number, "-p", str(self.gateway.child.pid)), stdin=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        if self.site.outage:
            self.world.primary.stop()
            self.wait_struck()  # while it spools
            self.world.primary.start()
            self.wait_drained(or_struck=True)
        self.wait_struck()  # or works
        tracer.terminate()  # it detaches
        try:
            tracer.wait(2)
        except subprocess.TimeoutExpired:  # 6.1 may hang when threads die while it leaves
            tracer.kill()
            tracer.wait()
        if self.gateway.is_running:
            return self.was_struck()
        if not self.site.kills:
            self.left(number)
        self.gateway.start()
        return True

    def wait_struck(self):
        deadline = time.monotonic() + STRIKE_S
        while not self.was_struck() and time.monotonic() < deadline and self.gateway.is_running:
            time.sleep(0.005)

    def wait_drained(self, or_struck=False):
        deadline = time.monotonic() + DRAIN_S
        while self.gateway.is_running and time.monotonic() < deadline and not (or_struck and self.was_struck()):
            if self.gateway.metric("oncehook_spool_events") == 0:
                return
            time.sleep(0.02)

    def was_struck(self):
        with contextlib.suppress(FileNotFoundError):
            with open(self.trace, encoding="utf-8", errors="replace") as trace:
                return "(INJECTED)" in trace.read()
        return False

    def left(self, number):
        if self.site.kills:  # it had started, and the call came later
            self.marks["struck"] += 1
            return
        self.marks["left"] += 1
        if not self.site.may_leave:
            self.problems.append(f"call {number}: the gateway left by itself with {self.gateway.child.returncode}: "
                                 f"{self.gateway.log()[-1500:]}")

    def recover(self, number):
        """New events must be committed; where memory was short, by a gateway that was started again."""
        self.world.clients.watch()
        deadline = time.monotonic() + (SHORT_OF_MEMORY_S if self.site.may_leave else RECOVER_S)
        while time.monotonic() < deadline and self.gateway.is_running:
            if self.world.clients.first_us(0.1) is not None:
                return
        if self.gateway.is_running and not self.site.may_leave:
            self.problems.append(f"call {number}: nothing was committed within {RECOVER_S} s")
            return
        if self.gateway.is_running:
            self.marks["left"] += 1
            self.gateway.kill()
        else:
            self.left(number)
        self.gateway.start()


def strike_all(world, spec, result, deadline, live):
    check_strace()
    sweep = Sweep(world, SITES[spec["sweep"]], live)
    sweep.run(spec["calls"], deadline)
    result["swept"] = sweep.marks
    result["problems"] += sweep.problems
