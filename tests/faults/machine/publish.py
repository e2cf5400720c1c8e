"""What docs/reliability.md shows of a run: tables and a picture, made of its JSON so that no number is
typed by hand."""

import collections
import html

from machine import report
from machine.checker import KINDS
from machine.faults import FAULTS
from machine.sweep import SITES

MARKS = {what: (f"<!-- made by tests/faults/report: {what} begin -->", f"<!-- made by tests/faults/report: {what} end -->")
         for what in ("faults", "calls")}
PICTURE = "reliability.svg"
BIN_MS = 200
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 900, 300, 60, 70, 30
LABEL_WIDTH = 110  # of a fault's name; nearer to the edge it ends at its fault


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def totals(results):
    counts, sums = collections.Counter(), collections.Counter()
    for result in results:
        counts.update(result["counts"])
        sums.update(result["totals"])
    bad = sum(map(report.is_bad, results))
    seeds = sorted({result["seed"].rsplit(":", 1)[0] for result in results})
    faults = sum(len(result["struck"]) for result in results)
    calls = sum(result["swept"]["struck"] for result in results if "swept" in result)
    text = (f"Seed `{'`, `'.join(seeds)}`, {len(results)} rounds, {sum(r['seconds'] for r in results) / 60:.0f} minutes: "
            f"{faults:,} faults and {calls:,} failed system calls; {sums['attempts']:,} deliveries sent, "
            f"{sums['200']:,} answered 200, {sums['202']:,} 202, {sums['503']:,} 503, {sums['unknown']:,} unknown; "
            f"{sums['stored']:,} events stored, {sums['acked']:,} of them acknowledged. "
            f"Rounds in which anything was wrong: {bad}.")
    return text + "\n\n" + table(KINDS, [[counts[kind] for kind in KINDS]])


def faults_table(results):
    both = report.by_fault(results)
    by_outage = {outage: report.by_fault([r for r in results if r["outage"] == outage]) for outage in ("refuse", "spool")}
    rows = []
    for name, row in both.items():
        times = [by_outage[outage].get(name, {"times": 0})["times"] or "" for outage in ("refuse", "spool")]
        rows.append([f"`{name}`", FAULTS[name].what, FAULTS[name].recovers, *times,
                     report.milliseconds(row["first_2xx_ms"])])
    return table(["fault", "what strikes", "what brings it back", "times, `refuse`", "times, `spool`",
                  "until the first new commit, ms: p50 / p99 / max"], rows)


def figures(results):
    """The two figures with a target."""
    hits = [hit for result in results for hit in result["struck"]]
    ready = [hit["ready_ms"] for hit in hits if "ready_ms" in hit]
    crashes = {"postgres-immediate", "postgres-fast", "postmaster-kill", "backend-kill", "twin-crash", "spool-kill",
               "failover", "failover-cancelled", "failover-async"}
    first = [hit["first_2xx_ms"] for hit in hits if hit["fault"] in crashes and "first_2xx_ms" in hit]
    lost = sum(hit.get("lost_before_retries", 0) for hit in hits)
    rows = [["start of a killed gateway to ready (`/readyz`)", len(ready), report.milliseconds(ready), "200"],
            ["PostgreSQL back to the first new commit", len(first), report.milliseconds(first), "1000"]]
    text = table(["what", "times", "p50 / p99 / max, ms", "wanted below, ms"], rows)
    if any(hit["fault"] == "failover-async" for hit in hits):
        text += (f"\n\nThe asynchronous failovers lost {lost:,} acknowledged events. After the providers had sent "
                 "them again, each was there, once.")
    return text


def sweep_table(results):
    rows = []
    for swept in (result["swept"] for result in results):
        site = SITES[swept["site"]]
        rows.append([f"`{site.call}`" + (", TLS" if site.world == "tls" else ""), site.becomes.replace("+", ", then "),
                     "start" if site.starting else "work", site.outage or "refuse", f"{swept['struck']:,}",
                     *report.say_depth(swept), swept["no_more"] and "yes" or "", swept["refused_to_start"] or "",
                     swept["left"] or ""])
    return table(["call", "becomes", "while it", "outage", "calls struck", "every N up to", "greatest N", "no more of them",
                  "did not start", "left"], rows)


def picture(result):
    """Events acknowledged per second over the time of one round, with its faults."""
    last_us, last, bins = 0, 0, collections.Counter()
    for at_us, events in result["timeline"]:
        bins[at_us // 1000 // BIN_MS] += max(0, events - last)
        last_us, last = max(last_us, at_us), max(last, events)
    span = max(bins) + 1
    rates = [bins[number] * 1000 / BIN_MS for number in range(span)]
    top = max(rates) or 1
    plot_width, plot_height = WIDTH - LEFT - 10, HEIGHT - TOP - BOTTOM

    def x(ms):
        return LEFT + plot_width * ms / (span * BIN_MS)

    def y(rate):
        return TOP + plot_height * (1 - rate / top)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
             'font-size="11">', f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for number, hit in enumerate(result["struck"]):
        left, right = x(hit["down_at_ms"]), x(hit["back_at_ms"])
        parts.append(f'<rect x="{left:.1f}" y="{TOP}" width="{max(1.5, right - left):.1f}" height="{plot_height}" '
                     'fill="#d33" fill-opacity="0.25"/>')
        side = "end" if left > WIDTH - LABEL_WIDTH else "start"
        parts.append(f'<text x="{left:.1f}" y="{TOP - 6 - 12 * (number % 5)}" fill="#a22" text-anchor="{side}">'
                     f'{html.escape(hit["fault"])}</text>')
    points = " ".join(f"{x(number * BIN_MS):.1f},{y(rate):.1f} {x((number + 1) * BIN_MS):.1f},{y(rate):.1f}"
                      for number, rate in enumerate(rates))
    parts.append(f'<polyline points="{points}" fill="none" stroke="#246" stroke-width="1.2"/>')
    for share in (0, 0.5, 1):
        parts.append(f'<text x="{LEFT - 6}" y="{y(top * share) + 4:.1f}" text-anchor="end">{top * share:,.0f}</text>')
    for second in range(0, span * BIN_MS // 1000 + 1, 5):
        parts.append(f'<text x="{x(second * 1000):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{second} s</text>')
    parts.append(f'<text x="4" y="{TOP - 6}">events/s</text></svg>')
    return "\n".join(parts) + "\n"


def parts(results):
    """What there is to say of faults, and of failed calls; a run may have made one of them alone."""
    struck, swept = ([one for one in results if one.get(what)] for what in ("struck", "swept"))
    made = {"faults": [totals(struck), figures(struck), "### Each fault", faults_table(struck)] if struck else [],
            "calls": ["### Each call", totals(swept), sweep_table(swept)] if swept else []}
    return {what: "\n\n".join(texts) for what, texts in made.items() if texts}


def page(text, results):
    """The page with those of its generated parts replaced of which there are results."""
    for what, made in parts(results).items():
        begin, end = MARKS[what]
        before, _, rest = text.partition(begin)
        text = before + begin + "\n" + made + "\n" + end + rest.partition(end)[2]
    return text


def most_telling(results):
    """The round for the picture: with most kinds of faults, of those that have a timeline."""
    return max((result for result in results if result.get("timeline") and result["struck"]),
               key=lambda result: (len({hit["fault"] for hit in result["struck"]}), -result["index"]), default=None)
