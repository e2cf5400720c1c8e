"""What a person reads: a line a round, the table at the end, the table of docs/reliability.md."""

import collections

from machine import sweep
from machine.checker import KINDS
from machine.faults import FAULTS
from machine.sweep import SITES


def is_bad(result):
    return bool(result["problems"]) or any(result["counts"].values()) or not result["counts"]


def percentile(values, share):
    """Nearest rank; None of nothing."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)] if ordered else None


def milliseconds(values):
    if not values:
        return "-"
    return f"{percentile(values, 50):.0f} / {percentile(values, 99):.0f} / {max(values):.0f}"


def say_depth(swept):
    """(up to which N every call was struck, the greatest N). By the names of threads where each of them has its turn;
    what ends or begins a process strikes who comes first."""
    calls = swept["calls"]
    if SITES[swept["site"]].strikes_once:
        numbers = {number for runs in calls.values() for first, last in runs for number in range(first, last + 1)}
        calls = {"any": sweep.runs(numbers)}
    every = sorted(((runs[0][1], name) for name, runs in calls.items() if runs and runs[0][0] == 1), reverse=True)
    greatest = max((runs[-1][1] for runs in calls.values() if runs), default=0)
    return ", ".join(f"{number:,}" + (f" ({name})" if name != "any" else "") for number, name in every) or "0", f"{greatest:,}"


def round_line(result):
    counts = collections.Counter(result["faults"][:len(result["struck"])])
    totals = result["totals"]
    text = (f"round {result['index']:3} {result['world']:5} {result['outage']:6} {result['seconds']:5.1f} s  "
            f"{totals.get('stored', 0):7} events, {totals.get('acked', 0):7} acknowledged, "
            f"{totals.get('unknown', 0):5} unknown  "
            f"{'BAD' if is_bad(result) else 'ok '} {' '.join(f'{n}×{c}' for n, c in counts.items())}")
    if "swept" in result:
        swept = result["swept"]
        text += f"{swept['site']}: {swept['struck']} calls" + "".join(
            f", {what.replace('_', ' ')} {swept[what]}" for what in ("refused_to_start", "left") if swept[what])
        text += "; every one up to {}, at most {}".format(*say_depth(swept))
    lines = [text]
    for kind, count in result["counts"].items():
        if count:
            lines += [f"    {kind} {count}", *(f"      {what}" for what in result["examples"].get(kind, []))]
    lines += [f"    {problem.strip()}".replace("\n", "\n      ") for problem in result["problems"]]
    if result.get("kept"):
        lines.append(f"    kept in {result['kept']}")
    return "\n".join(lines)


def by_fault(results):
    """{fault: {"times", "ready_ms": […], "first_2xx_ms": […], "bad"}}, in the order of the table."""
    found = {name: {"times": 0, "ready_ms": [], "first_2xx_ms": [], "bad": 0} for name in FAULTS}
    for result in results:
        for hit in result["struck"]:
            row = found[hit["fault"]]
            row["times"] += 1
            for name in ("ready_ms", "first_2xx_ms"):
                if name in hit:
                    row[name].append(hit[name])
        for name in set(result["faults"]):
            found[name]["bad"] += is_bad(result)
    return {name: row for name, row in found.items() if row["times"] or row["bad"]}


def print_summary(results):
    faults = by_fault(results)
    if faults:
        print(f"\n{'fault':20} {'times':>6}   {'restart to ready':>22}   {'back to first commit':>22}"
              f"\n{'':20} {'':>6}   {'p50 / p99 / max, ms':>22}   {'p50 / p99 / max, ms':>22}")
    for name, row in faults.items():
        print(f"{name:20} {row['times']:6}   {milliseconds(row['ready_ms']):>22}   "
              f"{milliseconds(row['first_2xx_ms']):>22}{'   in a bad round' if row['bad'] else ''}")
    counts, totals = collections.Counter(), collections.Counter()
    for result in results:
        counts.update(result["counts"])
        totals.update(result["totals"])
    faults = sum(len(result["struck"]) for result in results)
    calls = sum(result["swept"]["struck"] for result in results if "swept" in result)
    print(f"\n{len(results)} rounds, {faults} faults, {calls} failed calls, {totals['attempts']} attempts, {totals['stored']} events "
          f"stored, {totals['acked']} acknowledged, {totals['unknown']} unknown")
    print("  ".join(f"{kind} {counts[kind]}" for kind in KINDS)
          + f"  other problems {sum(len(result['problems']) for result in results)}")


def print_faults():
    for fault in FAULTS.values():
        print(f"{fault.name:20} {fault.what}; {fault.recovers}" + (" (--outage spool)" if fault.outage else ""))
