"""The alert rules of deploy/prometheus, run by promtool: each fires for its cause and alone, none fires
while all is well, each names metrics that a gateway shows and a look that doctor has. A rule that never
or always fires is seen."""

import copy
import json
import os
import re
import subprocess

import pytest

from support.gateway import REPOSITORY

RULES = os.path.join(REPOSITORY, "deploy/prometheus/oncehook.rules.yml")
SILENT = "OncehookSourceSilent"  # takes two weeks and hours

# Series of a gateway that is well, in promtool's notation: START+STEPxCOUNT, a value a minute.
WELL = {
    "oncehook_database_up": "1x400", "oncehook_spool_events": "0x400", "oncehook_spool_lost_total": "0x400",
    "oncehook_spool_bytes": "1000x400", "oncehook_counter_drift": "0x400", "oncehook_months_ahead": "3x400",
    "oncehook_id_headroom": "0.95x400", "oncehook_lanes": "2x400", "oncehook_waiting_batches": "0x400",
    "oncehook_lane_busy_seconds_total": "0+110x400",   # 92 % of two lanes …
    "oncehook_lane_fixed_seconds_total": "0+40x400",   # … of which a third is no use
    "oncehook_ack_seconds_count": "0+1000x400", 'oncehook_ack_seconds_bucket{le="0.01"}': "0+600x400",
    'oncehook_ack_seconds_bucket{le="0.1"}': "0+960x400", 'oncehook_ack_seconds_bucket{le="0.5"}': "0+995x400",
    "oncehook_database_bytes": "9e9x400", "oncehook_hit_ratio": "0.995x400",
    "oncehook_oldest_transaction_seconds": "0+60x30 0x370", "oncehook_dead_row_share": "0.3x400",
    "oncehook_slow_statements_total": "0x400", "oncehook_deadlocks_total": "0x400",
    'oncehook_deliveries_total{source="a",status="503"}': "0x400",
    'oncehook_deliveries_total{source="a",status="200"}': "0+1000x400",
    'oncehook_rejects_total{source="a",reason="signature_wrong"}': "0+1x400",
    'oncehook_rejects_total{source="a",reason="stale"}': "0x400",
    "oncehook_quarantine_oldest_seconds": "0x400", "oncehook_reload_failures_total": "0x400",
}
SLOW = 'oncehook_ack_seconds_bucket{le="%s"}'

# Alert -> what differs from a gateway that is well (None: the series is not there), the minutes at which it
# fires, and at which it does not yet.
BAD = {
    "OncehookAbsent": ({"oncehook_database_up": None}, 6, 4),
    "OncehookDatabaseAway": ({"oncehook_database_up": "1x9 0x300"}, 12, 10),
    "OncehookRefuses": ({'oncehook_deliveries_total{source="a",status="503"}': "0x9 1+1x300"}, 17, 12),
    "OncehookEventsLost": ({"oncehook_spool_lost_total": "0x9 2x300"}, 11, 9),
    "OncehookSpoolStuck": ({"oncehook_spool_events": "0x9 50x300"}, 21, 17),
    "OncehookCounterDrift": ({"oncehook_counter_drift": "0x9 1x300"}, 11, 9),
    "OncehookMonthsMissing": ({"oncehook_months_ahead": "3x9 -1x300"}, 132, 120),
    "OncehookIdsRunOut": ({"oncehook_id_headroom": "0.51x9 0.49x300"}, 11, 9),
    "OncehookAnswersSlowP50": ({SLOW % "0.01": "0+490x400"}, 21, 8),
    "OncehookAnswersSlowP95": ({SLOW % "0.1": "0+940x400"}, 21, 8),
    "OncehookAnswersSlowP99": ({SLOW % "0.5": "0+989x400"}, 21, 8),
    "OncehookLanesFull": ({"oncehook_lane_fixed_seconds_total": "0+5x400"}, 21, 8),
    "OncehookBatchesWait": ({"oncehook_waiting_batches": "4x9 5x300"}, 13, 9),
    "OncehookDatabaseLarge": ({"oncehook_database_bytes": "10e9x9 11e9x300"}, 72, 60),
    "OncehookSpoolLarge": ({"oncehook_spool_bytes": "500e6x9 530e6x300"}, 21, 15),
    "OncehookHitRatioLow": ({"oncehook_hit_ratio": "0.992x9 0.97x300"}, 80, 60),
    "OncehookTransactionOld": ({"oncehook_oldest_transaction_seconds": "3000+60x400"}, 12, 9),
    "OncehookDeadRows": ({"oncehook_dead_row_share": "0.4x9 0.6x300"}, 72, 60),
    "OncehookSlowStatements": ({"oncehook_slow_statements_total": "0+2x400"}, 10, 2),
    "OncehookDeadlocks": ({"oncehook_deadlocks_total": "0x9 1x300"}, 11, 9),
    "OncehookSignaturesWrong": ({'oncehook_rejects_total{source="a",reason="signature_wrong"}': "0+10x400"}, 27, 15),
    "OncehookReloadRefused": ({"oncehook_reload_failures_total": "0x9 1x300"}, 11, 9),
    "OncehookDeliveriesStale": ({'oncehook_rejects_total{source="a",reason="stale"}': "0+2x400"}, 10, 2),
    "OncehookQuarantine": ({"oncehook_quarantine_oldest_seconds": "86000+60x400"}, 10, 5),
}


def rules_text():
    with open(RULES, encoding="utf-8") as file:
        return file.read()


ALERTS = re.findall(r"^ *- alert: (\w+)$", rules_text(), re.M)


@pytest.fixture(scope="module")
def promtool():
    """Fetched when it is not there; without it these tests fail, they are not passed over."""
    done = subprocess.run([os.path.join(REPOSITORY, "tests/promtool")], capture_output=True, text=True,
                          timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def firing(minute, *alerts):
    return {"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": f"{minute}m",
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in alerts]}


def group(series, *expected, interval="1m"):
    return {"interval": interval, "promql_expr_test": list(expected),
            "input_series": [{"series": name, "values": values} for name, values in series.items() if values]}


def cases(bad):
    """A promtool test file: all is well for 3 hours; each cause, before it counts and when it does."""
    groups = [group(WELL, *[firing(minute) for minute in range(0, 180, 10)])]
    for name, (changes, fires, not_yet) in bad.items():
        groups.append(group({**WELL, **changes}, firing(not_yet), firing(fires, name)))
    return {"evaluation_interval": "1m", "tests": groups}


def silence_cases():
    """By the hour: a source sends from 8 to 18, but at weekends; on the third Wednesday it does not."""
    def series(is_silent):
        total, values = 0, []
        for hour in range(16 * 24 + 20):
            day, at = divmod(hour, 24)
            total += 100 if day % 7 < 5 and 8 <= at < 18 and not (day == 16 and is_silent) else 0
            values.append(str(total))
        return {'oncehook_events_total{source="a",outcome="captured"}': " ".join(values)}
    before = [firing((day * 24 + at) * 60) for day in range(16) for at in (3, 12, 20)]
    then = (16 * 24 + 15) * 60
    return {"evaluation_interval": "1h", "tests": [
        group(series(False), *before, firing(then), interval="1h"),
        group(series(True), *before, firing(then, SILENT), interval="1h")]}


def of_sources(text):
    """The rules of the last group alone."""
    return "groups:\n" + text[text.index("  - name: oncehook-sources"):]


def run(promtool, directory, tests, rules=None):
    """promtool's words about the rules (text) under these tests; "" = every test passed."""
    rules_path, tests_path = os.path.join(directory, "rules.yml"), os.path.join(directory, "tests.yml")
    with open(rules_path, "w", encoding="utf-8") as file:
        file.write(rules or rules_text())
    with open(tests_path, "w", encoding="utf-8") as file:
        json.dump({"rule_files": [rules_path], **copy.deepcopy(tests)}, file)  # JSON is YAML
    done = subprocess.run([promtool, "test", "rules", tests_path], capture_output=True, text=True, timeout=120,
                          check=False)
    assert done.returncode == (0 if "SUCCESS" in done.stdout + done.stderr else 1), done.stderr
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_rules_are_valid(promtool):
    done = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and f"{len(ALERTS)} rules found" in done.stdout, done.stdout + done.stderr


def test_each_alert_fires_for_its_cause_and_alone(promtool, tmp_path):
    assert set(BAD) | {SILENT} == set(ALERTS) and len(set(ALERTS)) == len(ALERTS)
    assert run(promtool, tmp_path, cases(BAD)) == ""


def test_a_source_is_silent_when_it_never_is(promtool, tmp_path):
    assert run(promtool, tmp_path, silence_cases(), of_sources(rules_text())) == ""


def test_a_rule_that_never_or_always_fires_is_seen(promtool, tmp_path):
    """Each rule made blind, and made to fire at once: the tests above see every one of them."""
    text = rules_text()
    lines = re.sub(r"(expr:) .*\n((?: {10}.*\n)*)", r"\1 vector(0) > 1\n", text)
    assert lines.count("vector(0) > 1") == len(ALERTS)
    said = run(promtool, tmp_path, cases(BAD), lines)
    assert set(re.findall(r'exp: *\{? *\{?alertname="(\w+)"', said)) == set(BAD), said[:3000]
    assert SILENT in run(promtool, tmp_path, silence_cases(), of_sources(lines))
    said = run(promtool, tmp_path, cases({}), lines.replace("vector(0) > 1", "vector(1)"))
    assert set(re.findall(r'alertname="(\w+)"', said)) == set(ALERTS)


def test_rules_name_metrics_and_looks_that_are_there():
    with open(os.path.join(REPOSITORY, "docs/metrics.md"), encoding="utf-8") as file:
        known = set(re.findall(r"^\| `(oncehook_\w+)", file.read(), re.M))
    used = {re.sub(r"_(bucket|count|sum)$", "", name) for name in re.findall(r"\boncehook_\w+", rules_text())}
    assert used <= known, used - known
    with open(os.path.join(REPOSITORY, "docs/watching.md"), encoding="utf-8") as file:
        docs = file.read()
    looks = set(re.findall(r"^\| `([a-z ]+)` \|", docs, re.M))
    assert set(re.findall(r"look: ([a-z ]+)\}", rules_text())) <= looks
    assert re.findall(r"^\| `(Oncehook\w+)` \|", docs, re.M) == ALERTS
