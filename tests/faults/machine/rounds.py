"""Rounds: a world, a database, load, some faults, then the check. And what to run for how long."""

import random
import time
import traceback

from machine import sweep
from machine.faults import FAULTS, Hit
from machine.journal import now_us
from machine.world import Skipped, World

ROUND_S = 25           # about how long the faults of one round take
FIRST_COMMIT_S = 30    # a world that commits nothing for so long after a fault has not recovered

# What tests/run runs: every world, in less than 150 s also with sanitizers on a slow machine.
SHORT = {
    "refuse": {"gateway-kill": 4, "gateway-term": 1, "gateway-stop": 1, "postgres-immediate": 1,
               "postmaster-kill": 1, "backend-kill": 1, "backend-terminate": 1, "postgres-stop": 1, "row-lock": 1,
               "pg-cut": 1, "pg-stall": 1, "pg-lost-answer": 2, "pg-half-open": 1, "http-cut": 1,
               "http-lost-answer": 1, "twin-kill": 1, "storm": 1, "disk-data": 1, "disk-wal": 1, "failover": 1,
               "failover-cancelled": 1, "failover-async": 1},
    "spool": {"gateway-kill": 2, "postgres-immediate": 2, "spool-kill": 2, "drain-crash": 1, "disk-spool": 1, "pg-lost-answer": 1},
}
# On a slow machine the last ones find no time.
SHORT_ORDER = [("plain", "refuse"), ("plain", "spool"), ("net", "refuse"), ("sync", "refuse"), ("disks", "spool"),
               ("twin", "refuse"), ("disks", "refuse"), ("async", "refuse"), ("net", "spool")]
SHORT_SEED, SHORT_S, SHORT_RATE = "short", 110, 250

# What docs/reliability.md reports: 300 gateway kills, 300 crashes of PostgreSQL, 50 failovers, and the rest.
LONG = {
    "refuse": {"gateway-kill": 220, "postgres-immediate": 80, "postmaster-kill": 60, "backend-kill": 60,
               "failover": 35, "failover-cancelled": 10, "failover-async": 5,
               **dict.fromkeys(["gateway-term", "gateway-stop", "postgres-fast", "backend-terminate",
                                "backend-cancel", "postgres-stop", "row-lock", "pg-cut", "pg-refuse", "pg-stall",
                                "pg-delay", "pg-half-open", "pg-lost-answer", "http-cut", "http-stall", "http-delay",
                                "http-half-open", "http-lost-answer", "twin-kill", "twin-crash", "storm", "disk-data",
                                "disk-wal", "clock-gateway", "clock-postgres"], 5)},
    "spool": {"gateway-kill": 50, "spool-kill": 25, "drain-crash": 10, "postgres-immediate": 40, "postmaster-kill": 30,
              "backend-kill": 30, "disk-spool": 8,
              **dict.fromkeys(["gateway-stop", "postgres-stop", "pg-cut", "pg-stall", "pg-half-open",
                               "pg-lost-answer", "twin-crash", "disk-data", "disk-wal"], 3)},
}
LONG_CALLS, LONG_DEPTH = 15, 500


def plan_counts(wanted_of, seed):
    """Rounds with each fault so many times: [{index, world, outage, seed, faults}]. wanted_of: {outage:
    {fault: times}}."""
    rounds = []
    for outage, counts in wanted_of.items():
        for kind in dict.fromkeys(fault.world for fault in FAULTS.values()):
            wanted = [name for name, count in counts.items() for _ in range(count)
                      if FAULTS[name].world == kind and FAULTS[name].outage in ("", outage)]
            random.Random(f"{seed}:{outage}:{kind}").shuffle(wanted)
            while wanted:
                cost, chosen = 0, []
                while wanted and cost < ROUND_S:
                    chosen.append(wanted.pop())
                    cost += FAULTS[chosen[-1]].cost_s
                rounds.append({"world": kind, "outage": outage, "faults": chosen})
    return number(rounds, seed)


def plan_short(seed):
    return sorted(plan_counts(SHORT, seed), key=lambda spec: SHORT_ORDER.index((spec["world"], spec["outage"])))


def plan_time(names, seed, outages):
    """Rounds without end: each world of the mix in turn, its faults at random."""
    rng = random.Random(f"{seed}:plan")
    index = 0
    while True:
        worlds = [(outage, kind) for outage in outages for kind in
                  dict.fromkeys(FAULTS[name].world for name in names if FAULTS[name].outage in ("", outage))]
        rng.shuffle(worlds)
        for outage, kind in worlds:
            possible = [name for name in names
                        if FAULTS[name].world == kind and FAULTS[name].outage in ("", outage)]
            cost, chosen = 0, []
            while cost < ROUND_S / 2:
                chosen.append(rng.choice(possible))
                cost += FAULTS[chosen[-1]].cost_s
            yield number([{"world": kind, "outage": outage, "faults": chosen}], seed, index)[0]
            index += 1


def number(rounds, seed, first=0):
    for index, spec in enumerate(rounds, first):
        spec.update(index=index, seed=f"{seed}:{index}")
    return rounds


class Runner:
    """Runs rounds in worlds that it keeps. live(text): a line for a person who watches."""

    def __init__(self, binary, rate=700, clients=2, live=lambda text: None, keep=False):
        self.binary, self.rate, self.clients, self.live, self.keep = binary, rate, clients, live, keep
        self.world = None

    def world_for(self, spec):
        if self.world and (self.world.kind, self.world.outage) != (spec["world"], spec["outage"]):
            self.close()
        if self.world is None:
            self.world = World(spec["world"], self.binary, spec["outage"])
        return self.world

    def close(self):
        if self.world:
            self.world.remove()
        self.world = None

    def run(self, spec, deadline=None):
        """One round; what came of it, as it goes into the JSON."""
        started, began_us = time.monotonic(), now_us()
        result = {**spec, "struck": [], "counts": {}, "problems": [], "totals": {}}
        try:
            if "sweep" in spec:
                sweep.check_tool(spec["sweep"], self.binary)
            world = self.world_for(spec)
            world.begin(spec["seed"], self.rate, self.clients, *([sweep.spool_bytes(spec["sweep"])] if "sweep" in spec else []))
            world.wait_for_commits()
            if "sweep" in spec:
                sweep.strike_all(world, spec, result, deadline, self.live)
            else:
                self.strike_all(world, spec, result, began_us, deadline)
            lost = any(FAULTS[name].commits_are_lost for name in spec["faults"])
            self.live("checking")
            found, problems = world.end(commits_were_lost=lost)
            result.update(counts=dict(found.counts), totals=found.totals)
            result["problems"] += problems
            result["examples"] = dict(found.examples)
            result["timeline"] = [(at - began_us, events) for at, events in world.clients.timeline[::2]]
        except Skipped:
            raise
        except Exception:  # whatever went wrong, it is this round's problem and not the next one's
            result["problems"].append(traceback.format_exc(limit=-3))
        if result["problems"] or any(result["counts"].values()):
            result["kept"] = self.world.root if self.world and self.keep else ""
            if self.world:
                self.world.remove(keep=self.keep)
            self.world = None
        result["seconds"] = round(time.monotonic() - started, 1)
        return result

    def strike_all(self, world, spec, result, began_us, deadline):
        rng = random.Random(spec["seed"])
        for name in spec["faults"]:
            if deadline and time.monotonic() > deadline:
                break
            time.sleep(rng.uniform(0.1, 0.5))
            if rng.random() < 0.3:
                world.enroll_late(rng.randrange(1, 4))
            self.live(name)
            hit, before = Hit(FAULTS[name], world, rng), world.clients.sums()
            FAULTS[name].strike(world, hit)
            first_us = hit.marks.pop("first_us", None) or world.clients.first_us(FIRST_COMMIT_S)
            if first_us is None:
                hit.problems.append(f"{name}: nothing was committed within {FIRST_COMMIT_S} s after it was over")
            else:
                hit.marks["first_2xx_ms"] = round((first_us - hit.marks["back_us"]) / 1000, 1)
            after = world.clients.sums()
            hit.marks.update(refused=after["503"] - before["503"], unknown=after["0"] - before["0"])
            for mark in ("down_us", "back_us"):
                hit.marks[mark.replace("_us", "_at_ms")] = (hit.marks.pop(mark) - began_us) // 1000
            result["struck"].append(hit.marks)
            if hit.problems:
                hit.problems.append(f"the clients then: {world.clients.say_state()}")
            result["problems"] += hit.problems
            for gateway in world.gateways:
                if not gateway.is_running:
                    raise AssertionError(f"{name}: the gateway left by itself with {gateway.child.returncode}\n"
                                         f"{gateway.log()[-3000:]}")
