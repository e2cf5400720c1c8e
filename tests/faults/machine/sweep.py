"""The Nth call of a system call fails, for every N, in each thread of the real binary under load, while it works
or while it starts; the round's check compares everything at its end. strace injects it, or, where half
of a call is done, a preloaded library (short.c). What the gateway lives through strikes as a comb: N, N + TEETH,
N + 2 TEETH … in one go, so that TEETH combs strike every N as deep as the load goes. A sweep ends where a call
has no Nth, or at the bound; how deep it came is read from the log of the calls."""

import collections
import contextlib
import dataclasses
import errno
import os
import random
import re
import shutil
import struct
import subprocess
import time

from machine.world import Skipped, is_sanitized
from support.process import spawn

RECOVER_S, SHORT_OF_MEMORY_S = 15, 3
FIRST_INDEX = 1000  # of rounds; those with faults are below
STRIKE_S = 0.7   # in which what starts comes to the calls of its first records
WORK_S = {"": 4, "spool": 2}  # in which it should come as deep as it is told to; with PostgreSQL away
START_CALLS = 1000
DRAIN_S = 8      # in which a spool is drained, and its files are put away
TEETH = 37       # a connection takes less calls of any kind than that; prime, so that no habit is struck alike
FAR = 10         # how many N beyond --calls are tried, one by one, where each is the end of the process


@dataclasses.dataclass(frozen=True)
class Site:
    call: str                # the system call
    becomes: str             # an errno's name, or SIGKILL; behind SHORT+ of the next call, after half of this one
    starting: bool = False   # while the gateway starts, which it then may refuse; else while it works
    may_leave: bool = False  # out of memory may end or deafen the process, which must not lie
    outage: str = ""         # "spool": PostgreSQL is away meanwhile
    fresh: bool = False      # it starts with no spool of before, and makes all files anew
    world: str = "plain"
    alone: bool = False      # N are struck one by one: of an errno whose like does the same, and is a comb

    @property
    def name(self):
        return (f"{self.call}:{self.becomes}" + (":starting" if self.starting else "")
                + (f":{self.world}" if self.world != "plain" else ""))

    @property
    def kills(self):
        return self.becomes.endswith(KILL)

    @property
    def strikes_once(self):
        """One strike ends it, or may, or is enough."""
        return self.kills or self.may_leave or self.starting or self.alone


KILL, SHORT = "SIGKILL", "short"
SITES = {site.name: site for site in [
    # libpq
    *(Site("sendto", how) for how in ("EPIPE", KILL, SHORT)),
    Site("recvfrom", "ECONNRESET"), Site("recvfrom", "ETIMEDOUT", alone=True), Site("recvfrom", KILL),
    *(Site("poll", how) for how in ("EINTR", "ENOMEM", KILL)),
    # libh2o
    Site("accept4", "EMFILE"), Site("accept4", "ECONNABORTED", alone=True),
    # libh2o aborts when it cannot read the pipe by which threads wake each other.
    Site("read", "ECONNRESET", may_leave=True), Site("read", KILL),
    Site("writev", "EPIPE"), Site("writev", "EIO", alone=True), Site("writev", KILL),
    Site("writev", SHORT), Site("writev", SHORT, world="tls"),
    Site("epoll_wait", "EINTR"), Site("epoll_wait", KILL),
    Site("epoll_ctl", "ENOMEM", may_leave=True),
    # start
    *(Site(call, how, starting=True, may_leave=True) for call, how in [
        ("sendto", "EPIPE"), ("recvfrom", "ECONNRESET"), ("connect", "ECONNREFUSED"), ("socket", "EMFILE"),
        ("read", "EIO"), ("openat", "EMFILE"), ("mmap", "ENOMEM"), ("epoll_ctl", "ENOMEM")]),
    Site("sendto", SHORT, starting=True),
    # the spool
    *(Site(call, how, starting, outage="spool", fresh=starting and call in ("fsync", "renameat"))
      for starting in (False, True) for call, hows in [
        ("pwrite64", ("EIO", "ENOSPC", KILL, SHORT, *(f"{SHORT}+{then}" for then in ("EIO", "ENOSPC", KILL)))),
        ("pread64", ("EIO",)), ("fdatasync", ("EIO", KILL)), ("fsync", ("EIO", KILL)), ("ftruncate", ("EIO", "ENOSPC")),
        ("openat", ("ENOSPC",) if starting else ("EMFILE", "ENOSPC")),
        # A drained segment is deleted while it works. A new file of a number takes the old one's place at the
        # first start, and after a failed fdatasync (tests/unit/test_spool_record.c).
        ("unlinkat", ("EIO", KILL)) if not starting else ("renameat", ("EIO", KILL)),
      ] for how in hows)]}


def plan(names, seed, calls, depth, outages):
    """At its start a process makes so many calls that each can fail; while it works there is no end of them."""
    rounds = [{"world": SITES[name].world, "outage": outage, "faults": [], "sweep": name, "depth": depth,
               "calls": START_CALLS if SITES[name].starting and not SITES[name].outage else calls}
              for outage in outages for name in names if (SITES[name].outage or "refuse") == outage]
    for index, spec in enumerate(rounds, FIRST_INDEX):
        spec.update(index=index, seed=f"{seed}:{index}")
    return rounds


def spool_bytes(name):
    """Small while it works: of segments of 1 MiB an outage makes many, moves their logs into them, and deletes them.
    At a start that of many outages waits."""
    return "1GiB" if SITES[name].starting else "16MiB"


def strikes(site, calls, depth, seed):
    """[(N, step)]. Step 0: once in each thread. depth 0: all of them, up to the bound."""
    if depth and not site.strikes_once:
        return [(number, TEETH) for number in range(1, min(TEETH, depth) + 1)]
    beyond = range(calls + 1, 1 if site.starting else depth + 1)
    far = sorted(random.Random(f"{seed}:far").sample(beyond, min(FAR, len(beyond))))
    return [(number, 0) for number in [*range(1, calls + 1), *far]]


def library_for(binary):
    return os.path.join(os.path.dirname(os.path.abspath(binary)), "tests", "faults", "short.so")


def tool_of(name):
    return "short.so" if SITES[name].becomes.startswith(SHORT) else "strace"


def check_tool(name, binary):
    """Before a world is made for it."""
    if tool_of(name) == "short.so":
        if not os.path.exists(library_for(binary)) or is_sanitized(binary):
            raise Skipped("it takes a release build with its tests")
        return
    done = subprocess.run(["strace", "-qq", "-o", "/dev/null", "-e", "trace=getpid", "true"],
                          stderr=subprocess.PIPE, text=True, check=False) if shutil.which("strace") else None
    if done is None or done.returncode != 0:
        raise Skipped("strace is not installed" if done is None else f"ptrace is not permitted: {done.stderr.strip()}")


class Log:
    """Each thread's calls as strace wrote them, and which of them were struck; short.c has the same words."""

    LINE = re.compile(r"(\d+)<(.*?)(?: \d+)?> +(<\.\.\. )?\w+")

    def __init__(self, path, dies_at=None):
        self.path, self.dies_at, self.read_until, self.begun = path, dies_at, 0, b""
        self.calls = collections.Counter()          # of a thread
        self.struck = collections.defaultdict(set)  # name of threads -> {N}
        self.strikes = 0

    def read(self):
        """What was added since."""
        with contextlib.suppress(FileNotFoundError), open(self.path, "rb") as file:
            file.seek(self.read_until)
            added = file.read()
            self.read_until += len(added)
            *lines, self.begun = (self.begun + added).split(b"\n")
            for line in lines:
                self.take(line.decode(errors="replace"))
        return self

    def take(self, line):
        found = self.LINE.match(line)
        if not found:
            return  # a signal, an end
        thread, name, goes_on = found.groups()
        self.calls[thread] += not goes_on
        # strace has no word for the call at which it killed.
        if line.endswith("(INJECTED)") or (self.dies_at == self.calls[thread] and line.endswith("= ?")):
            self.struck[name].add(self.calls[thread])
            self.strikes += 1

    @property
    def deepest(self):
        return max(self.calls.values(), default=0)


def runs(numbers):
    """Numbers as [first, last] of each run of them."""
    made = []
    for number in sorted(numbers):
        if made and number == made[-1][1] + 1:
            made[-1][1] = number
        else:
            made.append([number, number])
    return made


class Strace:
    """From outside: the binary is as it is shipped."""

    def __init__(self, site, gateway, trace):
        self.site, self.gateway, self.trace, self.tracer = site, gateway, trace, None

    def argv(self, number, step, *options):
        inject = "signal=SIGKILL" if self.site.kills else f"error={self.site.becomes}"
        when = f"{number}+{step}" if step else number
        return ["strace", "-f", "-qq", "-s", "0", "--decode-pids=comm", "-o", self.trace, "-e", f"trace={self.site.call}",
                "-e", f"inject={self.site.call}:{inject}:when={when}", *options]

    def at_start(self, number, step):
        # With its filter strace 6.1 sends no signal at a second call.
        self.gateway.prefix = self.argv(number, step, "-D", *([] if self.site.kills else ["--seccomp-bpf"]))

    def attach(self, number, step):
        self.tracer = spawn(self.argv(number, step, "-p", str(self.gateway.child.pid)), stdin=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)

    def clear(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.trace)  # one that is still at its end has the old file

    def detach(self):
        self.gateway.prefix = []
        if self.tracer is None:
            return
        self.tracer.terminate()
        try:
            self.tracer.wait(2)
        except subprocess.TimeoutExpired:  # 6.1 may hang when threads die while it leaves
            self.tracer.kill()
            self.tracer.wait()
        self.tracer = None


class Short:
    """From inside: short.c, which is there from the start and waits for its orders."""

    def __init__(self, site, gateway, trace):
        self.site, self.trace, self.orders, self.serial = site, trace, trace + ".orders", 0
        for path in (trace, self.orders):
            with open(path, "wb"):
                pass
        self.detach()
        gateway.env = {"LD_PRELOAD": library_for(gateway.binary), "ONCEHOOK_SHORT": self.orders, "ONCEHOOK_SHORT_LOG": trace}
        gateway.kill()
        gateway.start()

    def order(self, serial, number, step):
        then = self.site.becomes.partition("+")[2]
        with open(self.orders, "r+b") as file:
            file.write(struct.pack("IIIi16s", serial, number, step, -1 if then == KILL else getattr(errno, then, 0),
                                   self.site.call.encode()))

    def clear(self):
        with open(self.trace, "w", encoding="ascii"):
            pass

    def attach(self, number, step):
        self.serial += 1
        self.order(self.serial, number, step)

    at_start = attach

    def detach(self):
        self.order(0, 0, 0)


class Sweep:
    """One site, all N."""

    def __init__(self, world, site, live):
        self.world, self.gateway, self.site, self.live = world, world.gateway, site, live
        self.trace = os.path.join(world.root, "trace")
        self.tool = (Strace if tool_of(site.name) == "strace" else Short)(site, world.gateway, self.trace)
        self.marks = {"site": site.name, "struck": 0, "refused_to_start": 0, "left": 0, "no_more": 0}
        self.struck = collections.defaultdict(set)
        self.problems, self.log, self.depth, self.where = [], None, 0, ""

    def run(self, wanted, depth, deadline):
        misses = 0
        for number, step in wanted:
            if deadline and time.monotonic() > deadline:
                break
            self.where = f"call {number}" + (f" and every {step}th after it" if step else "")
            self.live(f"{self.site.name}, {self.where}")
            self.tool.clear()
            self.log, self.depth = Log(self.trace, self.site.kills and number), depth if step else number
            (self.strike_start if self.site.starting else self.strike_work)(number, step)
            self.recover()
            self.marks["struck"] += self.log.read().strikes
            for name, numbers in self.log.struck.items():
                self.struck[name] |= numbers
            misses = 0 if self.log.strikes else misses + 1
            if misses == 3:
                self.marks["no_more"] = 1
                break
        if self.site.starting:
            self.gateway.kill()  # strace is with it until then, and might kill it while the spool is drained
            self.gateway.start()
        self.marks["calls"] = {name: runs(numbers) for name, numbers in self.struck.items()}

    def strike_start(self, number, step):
        """Starts the gateway anew."""
        if self.site.fresh:
            self.wait_drained()
        elif self.site.outage:
            self.world.primary.stop()
            time.sleep(0.2)  # something is in the spool by then
        self.gateway.kill()
        if self.site.fresh:
            shutil.rmtree(self.gateway.spool)
            self.world.primary.stop()
        self.tool.at_start(number, step)
        try:
            self.gateway.start(10)
        except AssertionError:
            self.marks["refused_to_start"] += 1
        if self.site.outage:
            self.wait_struck(STRIKE_S)  # with the first records
        self.tool.detach()
        if not self.gateway.is_running or self.site.may_leave:
            if self.gateway.is_running:
                self.gateway.kill()
            self.gateway.start()
        if self.site.outage:
            self.world.primary.start()

    def strike_work(self, number, step):
        """Strikes the gateway under load, until a thread is as deep as it should come."""
        enough_s = WORK_S[self.site.outage]
        self.tool.attach(number, step)
        if self.site.outage:
            self.world.primary.stop()
            self.wait_struck(enough_s)  # while it spools
            self.world.primary.start()
            self.wait_drained(or_struck=not step)
            enough_s = STRIKE_S
        self.wait_struck(enough_s)  # or works
        self.tool.detach()
        if not self.gateway.is_running:
            if not self.site.kills:
                self.left()
            self.gateway.start()

    def wait_struck(self, seconds):
        deadline = time.monotonic() + seconds
        while not self.is_done() and time.monotonic() < deadline and self.gateway.is_running:
            time.sleep(0.005)

    def is_done(self):
        log = self.log.read()
        return log.strikes > 0 and log.deepest >= self.depth

    def wait_drained(self, or_struck=False):
        deadline = time.monotonic() + DRAIN_S
        while self.gateway.is_running and time.monotonic() < deadline and not (or_struck and self.is_done()):
            if self.gateway.metric("oncehook_spool_events") == 0:
                return
            time.sleep(0.02)

    def left(self):
        if self.site.kills:
            return
        self.marks["left"] += 1
        if not self.site.may_leave:
            self.problems.append(f"{self.where}: the gateway left by itself with {self.gateway.child.returncode}: "
                                 f"{self.gateway.log()[-1500:]}")

    def recover(self):
        """New events must be committed; where memory was short, by a gateway that was started again."""
        self.world.clients.watch()
        deadline = time.monotonic() + (SHORT_OF_MEMORY_S if self.site.may_leave else RECOVER_S)
        while time.monotonic() < deadline and self.gateway.is_running:
            if self.world.clients.first_us(0.1) is not None:
                return
        if self.gateway.is_running and not self.site.may_leave:
            self.problems.append(f"{self.where}: nothing was committed within {RECOVER_S} s")
            return
        if self.gateway.is_running:
            self.marks["left"] += 1
            self.gateway.kill()
        else:
            self.left()
        self.gateway.start()


def strike_all(world, spec, result, deadline, live):
    site = SITES[spec["sweep"]]
    sweep = Sweep(world, site, live)
    try:
        sweep.run(strikes(site, spec["calls"], spec["depth"], spec["seed"]), spec["depth"], deadline)
    finally:
        world.gateway.env = {}
    result["swept"] = sweep.marks
    result["problems"] += sweep.problems
