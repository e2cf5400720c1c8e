"""Plots as SVG, written by hand: bars and one curve need no library."""

import math
import os
import statistics
from xml.sax.saxutils import escape

from .rows import HALF

PARTIES = [("gateway", "server", "#2f6f9f"), ("postgres", "PostgreSQL", "#c98b2b"), ("client", "client", "#8a8f98")]
INK, FAINT, WIDTH, LABELS, RIGHT, ROW, CUT = "#1d2733", "#d5dae0", 860, 210, 90, 22, 6


def document(title, note, height, body):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" font-family="sans-serif" font-size="12" fill="{INK}" role="img" '
            f'aria-label="{escape(title)}">\n<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
            f'<text x="16" y="26" font-size="16" font-weight="bold">{escape(title)}</text>\n'
            f'<text x="16" y="44" fill="#5a6572">{escape(note)}</text>\n' + "\n".join(body) + "\n</svg>\n")


def steps_to(most, wanted=5):
    """Round numbers from 0 to at least `most`."""
    if most <= 0:
        return [0, 1]
    raw = most / wanted
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw)
    return [step * i for i in range(math.ceil(most / step - 1e-9) + 1)]


def bars(title, note, rows, legend=()):
    """rows: (label, [(value, colour), …], text at the end), the pieces beside each other. A bar of more than
    CUT times the median is cut, and says so: it would make all others too short to compare."""
    sums = [sum(value for value, _ in pieces) for _, pieces, _ in rows]
    marks = steps_to(max(one for one in sums if one <= CUT * statistics.median(sums)))
    room, top = WIDTH - LABELS - RIGHT, 92 if legend else 72
    bottom = top + ROW * len(rows)
    body = []
    for mark in marks:
        x = LABELS + room * mark / marks[-1]
        body.append(f'<line x1="{x:.1f}" y1="{top - 6}" x2="{x:.1f}" y2="{bottom}" stroke="{FAINT}"/>')
        body.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" fill="#5a6572">{mark:,.6g}</text>')
    for place, (name, colour) in enumerate(legend):
        body.append(f'<rect x="{LABELS + 130 * place}" y="60" width="12" height="12" fill="{colour}"/>'
                    f'<text x="{LABELS + 18 + 130 * place}" y="70">{escape(name)}</text>')
    for place, (label, pieces, end) in enumerate(rows):
        y, x = top + ROW * place, float(LABELS)
        body.append(f'<text x="{LABELS - 8}" y="{y + 14}" text-anchor="end">{escape(label)}</text>')
        whole = sums[place]
        shrink = min(1.0, marks[-1] / whole)  # a cut bar keeps its proportions
        for value, colour in pieces:
            wide = room * value * shrink / marks[-1]
            body.append(f'<rect x="{x:.1f}" y="{y + 2}" width="{wide:.1f}" height="{ROW - 6}" fill="{colour}"/>')
            x += wide
        if shrink < 1:
            body.append(f'<path d="M{x - 22:.1f} {y + ROW - 2} l8 -20 M{x - 14:.1f} {y + ROW - 2} l8 -20" '
                        'stroke="#ffffff" stroke-width="3"/>')
        body.append(f'<text x="{x + 6:.1f}" y="{y + 14}">{escape(end)}</text>')
    return document(title, note, bottom + 30, body)


def colour_of(name):
    return {"noop": "#8a8f98", "pg": "#c98b2b", "gateway": "#2f6f9f", "peer": "#a05252"}[name.split("_")[0]]


def rates(results, note):
    return bars("Events per second", note, [
        (result["name"], [(result["events_per_second"], colour_of(result["name"]))],
         f"{result['events_per_second']:,.0f}") for result in results if result["name"] != HALF])


def cpu(results, note):
    rows = []
    for result in results:
        spent = result["cpu_us_per_event"]
        pieces = [(spent[party] or 0, colour) for party, _, colour in PARTIES]
        if sum(value for value, _ in pieces) > 0:
            rows.append((result["name"], pieces, f"{sum(value for value, _ in pieces):,.1f}"))
    return bars("CPU time of an event by process, µs", note, rows, [(name, colour) for _, name, colour in PARTIES])


def latency(result, note):
    """The curve of percentiles: each step to the right is half as many events left."""
    curve = [(share, ms) for share, ms in result["latency_curve"] if share < 1]
    marks = steps_to(max(ms for _, ms in curve))
    left, right, top, bottom = 64, WIDTH - 40, 70, 330
    last = max(4.0, -math.log10(1 - curve[-1][0])) if curve[-1][0] > 0 else 4.0

    def x_of(share):
        return left + (right - left) * -math.log10(1 - share) / last

    def y_of(ms):
        return bottom - (bottom - top) * ms / marks[-1]
    body = []
    for mark in marks:
        body.append(f'<line x1="{left}" y1="{y_of(mark):.1f}" x2="{right}" y2="{y_of(mark):.1f}" stroke="{FAINT}"/>'
                    f'<text x="{left - 8}" y="{y_of(mark) + 4:.1f}" text-anchor="end" fill="#5a6572">{mark:g} ms</text>')
    for share in (0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999):
        if -math.log10(1 - share) <= last:
            x = x_of(share)
            body.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="{FAINT}"/>'
                        f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle" fill="#5a6572">'
                        f'{100 * share:.6g} %</text>')
    points = " ".join(f"{x_of(share):.1f},{y_of(ms):.1f}" for share, ms in curve)
    body.append(f'<polyline points="{points}" fill="none" stroke="#2f6f9f" stroke-width="2"/>')
    for share, name in ((0.5, "p50_ms"), (0.99, "p99_ms"), (0.999, "p999_ms")):
        x, y = x_of(share), y_of(result[name])
        body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="#2f6f9f"/>'
                    f'<text x="{x - 8:.1f}" y="{y - 8:.1f}" text-anchor="end" font-weight="bold">{result[name]:.1f} ms'
                    "</text>")
    title = f"Latency of the gateway over HTTPS at {result['events_per_second']:,.0f} events/s, open loop"
    return document(title, note, bottom + 36, body)


def write(report, directory):
    """performance-rates.svg, performance-cpu.svg and, where it was measured, performance-latency.svg."""
    info = report["machine"]
    note = (f"{info['cores']} cores shared by PostgreSQL {info['postgresql'].split()[0]}, server and load; medians of "
            f"{info['rounds']} runs; {info['commit']}")
    drawn = {"rates": rates(report["results"], note), "cpu": cpu(report["results"], note)}
    half = next((result for result in report["results"] if result["name"] == HALF), None)
    if half:
        drawn["latency"] = latency(half, "from when a delivery was due; " + note)
    os.makedirs(directory, exist_ok=True)
    for name, text in drawn.items():
        with open(os.path.join(directory, f"performance-{name}.svg"), "w", encoding="utf-8") as file:
            file.write(text)
