"""Ratios, figures, targets, and the tables that say them. Tables are Markdown, for docs/performance.md."""

import datetime
import os
import platform
import re
import statistics
import sys

from .base import ROOT, Failed, output
from .postgres import ENROLLMENTS, INSTANCES, SETTINGS
from .rows import FIGURES, HALF, LATER, PEERS, RATE_RATIOS, RATIOS, ROWS, TARGETS

MEASURES = {"gateway": "server", "postgres": "PostgreSQL", "client": "client"}


def median(runs):
    return merge(runs, statistics.median)


def mean(runs):
    return merge(runs, statistics.fmean)


def merge(runs, middle):
    """One result of several: the middle of each number, and of each point that all curves have."""
    merged = {}
    for field, first in runs[0].items():
        values = [run.get(field) for run in runs]
        if field == "totals":
            merged[field] = values[-1]
        elif isinstance(first, dict):
            merged[field] = merge(values, middle)
        elif isinstance(first, (int, float)) and not isinstance(first, bool):
            merged[field] = middle([value for value in values if value is not None])
        else:
            merged[field] = first
    if "latency_curve" in merged:
        merged["latency_curve"] = [[points[0][0], middle([ms for _, ms in points])]
                                   for points in zip(*(run["latency_curve"] for run in runs))]
    return merged


def ratios(results):
    """Those of the contract that these results give."""
    by_name = {result["name"]: result for result in results}
    found = {}

    def rate(name):
        return by_name[name]["events_per_second"]

    def cpu(name):
        return {party: value or 0 for party, value in by_name[name]["cpu_us_per_event"].items()}

    def have(*names):
        return set(names) <= set(by_name)

    for protocol in ("https", "http"):
        if have(f"noop_{protocol}", "pg_direct", f"gateway_{protocol}_1"):
            noop, product = cpu(f"noop_{protocol}"), cpu(f"gateway_{protocol}_1")
            parts = noop["gateway"] + noop["client"] + cpu("pg_direct")["postgres"]
            found[f"{protocol}_of_parts"] = parts / sum(product.values())
            together = 1 / (1 / rate(f"noop_{protocol}") + 1 / rate("pg_direct"))
            found[f"{protocol}_of_parts_rate"] = rate(f"gateway_{protocol}_1") / together
    if have("noop_https", "gateway_https_1"):
        found["cpu_over_noop_us"] = cpu("gateway_https_1")["gateway"] - cpu("noop_https")["gateway"]
    if have("pg_direct", "pg_copy", "pg_keys"):
        found["direct_of_parts"] = rate("pg_direct") * (1 / rate("pg_copy") + 1 / rate("pg_keys"))
    peers = [rate(name) for name in PEERS if have(name)]
    if have("gateway_http_1") and len(peers) > 1:
        found["http_of_best_node"] = rate("gateway_http_1") / max(peers)
    for name, (above, below) in RATE_RATIOS.items():
        if have(above, below):
            found[name] = rate(above) / rate(below)
    return {name: round(found[name], 3) for name in RATIOS if name in found}


def figures(results, more):
    """The other numbers; `more`: those that are no row's."""
    by_name = {result["name"]: result for result in results}
    found = dict(more)
    if HALF in by_name:
        found.update({f"half_{name}": by_name[HALF][name] for name in ("p50_ms", "p99_ms", "p999_ms")})
    gateway = [result for name, result in by_name.items() if name.startswith("gateway_")]
    if gateway:
        found["rss_full_load_mib"] = max(result["rss_mib"] for result in gateway)
    for what in ("disk", "wal"):
        if "gateway_https_1" in by_name:
            found[f"{what}_bytes_per_event"] = by_name["gateway_https_1"][f"{what}_bytes_per_event"]
    return {name: round(found[name], 3) for name in FIGURES if found.get(name) is not None}


def targets(report):
    """[name, measured, sense, target, reached] of each target that was measured."""
    measured = {**report["ratios"], **report["figures"]}
    return [{"name": name, "measured": measured[name], "sense": {"+": "at least", "-": "at most"}[sense],
             "target": bound, "reached": measured[name] >= bound if sense == "+" else measured[name] <= bound}
            for name, sense, bound in TARGETS if name in measured]


def machine(bench, options):
    def first(*argv):
        try:
            return output(*argv, cwd=ROOT).strip()
        except (Failed, OSError):
            return "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"model name\s*:\s*(.*)", file.read())
    with open("/proc/meminfo", encoding="ascii") as file:
        known = {name: int(number) for name, number in re.findall(r"(\w+):\s+(\d+)", file.read())}
    memory = known["MemTotal"] // 1024
    huge = known.get("HugePages_Total", 0) * known.get("Hugepagesize", 0) // 1024  # reserved: PostgreSQL takes them by itself
    return {"cores": os.cpu_count(), "model": model.group(1) if model else platform.machine(),
            "memory_mib": memory, "huge_pages_mib": huge, "kernel": platform.release(),
            "postgresql": bench.postgres.sql("SHOW server_version"), "settings": SETTINGS,
            "libh2o": first("dpkg-query", "-W", "-f", "${Version}", "libh2o-evloop0.13"),
            "openssl": first("openssl", "version"), "node": first("node", "--version"),
            "filesystem": first("stat", "-f", "-c", "%T", bench.postgres.directory),
            "commit": bench.commit,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "command": " ".join(["bench/run", *sys.argv[1:]]), "rounds": options.rounds,
            "seconds": options.seconds, "connections": options.connections,
            "instances": INSTANCES, "enrollments": ENROLLMENTS}


# ---- tables --------------------------------------------------------------------------------------

def cell(value, form):
    return "" if value is None else format(value, form)


def table(head, rows):
    """Markdown whose columns stand below each other; numbers to the right."""
    cells = [head, *rows]
    width = [max(len(row[i]) for row in cells) for i in range(len(head))]

    def line(row):
        padded = [text.ljust(width[i]) if not i or not re.match(r"[\d,. ]*$", text) else text.rjust(width[i])
                  for i, text in enumerate(row)]
        return "| " + " | ".join(padded) + " |"
    return "\n".join([line(head), "|" + "|".join("-" * (w + 2) for w in width) + "|", *map(line, rows)])


def tables(report):
    """Everything that was measured, in words."""
    info = report["machine"]
    said = [f"`{info['command']}` at {info['commit']}: {info['cores']} cores {info['model']}, {info['memory_mib']} MiB, "
            f"Linux {info['kernel']}, PostgreSQL {info['postgresql']}, libh2o {info['libh2o']}, {info['openssl']}, "
            f"Node {info['node']}, {info['filesystem']}.\nMedians of {info['rounds']} runs of {info['seconds']:g} s, "
            f"closed loop, {info['connections']} connections unless the row says otherwise.", ""]
    said.append(table(
        ["row", "events/s", "p50 ms", "p99 ms", "p99.9 ms", "server µs", "PostgreSQL µs", "client µs", "RSS MiB"],
        [[f"`{row['name']}`", f"{row['events_per_second']:,.0f}",
          *(cell(row[name], ".1f") for name in ("p50_ms", "p99_ms", "p999_ms")),
          *(cell(row["cpu_us_per_event"][party], ".1f") for party in MEASURES), cell(row["rss_mib"], ".1f")]
         for row in report["results"]]))
    said += ["", *(f"`{row['name']}`: {(ROWS.get(row['name']) or LATER[row['name']]).what}"
                   for row in report["results"]), ""]
    judged = {one["name"]: one for one in report["targets"]}
    said.append(table(["ratio or figure", "measured", "target", "reached", "what it is"], [
        [f"`{name}`", f"{value:,.2f}", f"{judged[name]['sense']} {judged[name]['target']:g}" if name in judged else "",
         ("yes" if judged[name]["reached"] else "no") if name in judged else "", {**RATIOS, **FIGURES}[name]]
        for name, value in {**report["ratios"], **report["figures"]}.items()]))
    return "\n".join(said)
