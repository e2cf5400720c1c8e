"""The benchmark's own programs against the real gateway: they send what a provider would send, count what
the database counts, and write the JSON of the contract. Nothing here depends on how fast anything is."""

import json
import os
import socket
import subprocess
import tempfile

import pytest

from support import process, sign
from support.gateway import BINARY, ENVIRONMENT, REPOSITORY, environment

BUILD = os.path.dirname(BINARY)
LOAD = os.path.join(REPOSITORY, "bench", "load")
PARTIES = {"gateway", "postgres", "client"}
FIELDS = {"name", "events_per_second", "p50_ms", "p99_ms", "p999_ms", "cpu_us_per_event", "rss_mib"}


def load(*arguments, check=True):
    """Runs bench/load with the build under test; (exit code, stderr, its one result or None)."""
    argv = [LOAD, "--seconds", "0.5", "--warmup", "0.1", "--json", "-", *map(str, arguments)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120,
                          check=False, env=environment(ONCEHOOK_BUILD=BUILD))
    if not check:
        return done.returncode, done.stderr, None
    assert done.returncode == 0, f"{argv} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
    report = json.loads(done.stdout)
    assert set(report) == {"machine", "results", "ratios"} and len(report["results"]) == 1, report
    result = report["results"][0]
    assert set(result) >= FIELDS and set(result["cpu_us_per_event"]) == PARTIES, result
    assert result["events_per_second"] > 0
    assert 0 < result["p50_ms"] <= result["p99_ms"] <= result["p999_ms"] <= result["max_ms"]
    return 0, done.stderr, result


def load_gateway(gateway, certificate, source, *arguments, tls=True, check=True):
    url = f"https://127.0.0.1:{gateway.https_port}" if tls else f"http://127.0.0.1:{gateway.http_port}"
    return load("--url", url, "--ca", certificate[0], "-c", gateway.config_path, "--source", source,
                "--connections", 8, "--watch", f"gateway={gateway.child.pid}", *arguments, check=check)


def assert_as_answered(database, totals):
    """The answers and the database say the same numbers."""
    assert set(totals["statuses"]) == {"200"} and totals["broken"] == totals["timeouts"] == 0, totals
    assert totals["quarantined"] == totals["spooled"] == 0
    assert database.value("SELECT count(*) FROM campaign_events") == totals["captured"] > 0
    assert database.value("SELECT count(*) FROM event_keys") == totals["captured"]
    assert database.counter_drift() == []


# ---- load ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["hmac", "github", "stripe", "sendgrid"])
def test_load_signs_fresh_events_of_enrollments_that_exist(provider, gateway, database, certificate, tmp_path):
    database.seed(3, 5)
    extra = []
    if provider == "sendgrid":
        key = tmp_path / "key.pem"
        key.write_bytes(gateway.sources[provider].private)
        extra = ["--key", key]
    _, said, result = load_gateway(gateway, certificate, provider, "--max", *extra)
    totals = result["totals"]
    assert "orphan" not in said and totals["duplicates"] == totals["orphans"] == 0, (said, totals)
    assert_as_answered(database, totals)
    assert database.value("SELECT sum(total_events) FROM campaign_enrollments") == totals["captured"]
    assert database.value("SELECT count(DISTINCT key_grade) FROM campaign_events WHERE key_grade <> 'id'") == 0
    assert result["cpu_us_per_event"]["gateway"] is not None and result["rss_mib"] > 0


def test_load_splits_deliveries_and_repeats_them(gateway, database, certificate):
    database.seed(2, 5)
    _, _, result = load_gateway(gateway, certificate, "hmac", "--max", "--events-per-delivery", 7,
                                "--duplicates", 50, tls=False)
    totals = result["totals"]
    assert totals["captured"] + totals["duplicates"] == 7 * totals["statuses"]["200"]
    assert totals["duplicates"] > 0
    assert_as_answered(database, totals)


def test_load_at_a_rate_sends_what_was_due(gateway, database, certificate):
    database.seed(1, 5)
    _, _, result = load_gateway(gateway, certificate, "hmac", "--rate", 100, tls=False)
    assert result["offered_per_second"] == 100
    assert result["totals"]["sent"] == 60  # 0.1 s of warm-up and 0.5 s, whatever the server did
    assert_as_answered(database, result["totals"])


def test_load_makes_a_connection_for_each_delivery(gateway, database, certificate):
    database.seed(1, 5)
    _, _, result = load_gateway(gateway, certificate, "hmac", "--max", "--new-connections")
    assert result["totals"]["connected"] == result["totals"]["sent"]
    assert_as_answered(database, result["totals"])


def test_load_counts_waiting_from_when_a_request_was_due(gateway, tmp_path):
    """A server that never answers: 100 requests are due within half a second, most can be sent only when
    others have timed out, and each has waited since it was due, sent or not."""
    report = tmp_path / "report.json"
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        code, _, _ = load("--url", f"http://127.0.0.1:{silent.getsockname()[1]}", "--rate", 200, "--warmup", 0,
                          "--timeout", 0.5, "--connections", 8, "-c", gateway.config_path, "--source", "hmac",
                          "--json", report, check=False)
    result = json.loads(report.read_text())["results"][0]
    assert code == 1 and result["events_per_second"] == 0, result
    assert result["totals"]["timeouts"] + result["totals"]["unsent"] == 100, result
    assert result["p50_ms"] > 500, result


@pytest.mark.parametrize("arguments, why", [
    (["--url", "http://192.0.2.1:80", "--max"], "not this machine"),
    (["--url", "ftp://127.0.0.1", "--max"], "--url"),
    (["--url", "http://127.0.0.1:1", "--max", "--rate", "5"], "either --rate N or --max"),
    (["--url", "http://127.0.0.1:1", "--max", "--source", "nobody"], "no source 'nobody'"),
    (["--url", "http://127.0.0.1:1", "--max", "--duplicates", "101"], "--duplicates"),
])
def test_load_refuses(arguments, why, gateway):
    code, said, _ = load("-c", gateway.config_path, "--source", "hmac", *arguments, check=False)
    assert code == 2 and why in said, said


def test_load_refuses_a_certificate_that_it_does_not_trust(gateway, tmp_path):
    other = sign.self_signed(str(tmp_path))
    code, said, _ = load("--url", f"https://127.0.0.1:{gateway.https_port}", "--ca", other[0], "--max",
                         "-c", gateway.config_path, "--source", "hmac", "--timeout", 1, check=False)
    assert code == 1 and "certificate" in said, said


# ---- run ----------------------------------------------------------------------------------------------


@pytest.mark.long
def test_run_measures_the_gateway_beside_its_parts(tmp_path):
    """Every row of --quick, very short; bench/run itself holds each answer against the database."""
    report_path = tmp_path / "report.json"
    # /tmp and not pytest's own tree: the user postgres must pass, the socket's path stay short.
    with tempfile.TemporaryDirectory(prefix="oh-bench-", dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        done = process.run([os.path.join(REPOSITORY, "bench", "run"), "--quick", "--rounds", "1", "--seconds", "0.5", "--build", BUILD,
                            "--dir", directory, "--connections", "16", "--json", report_path],
                           timeout=300, check=False, env={**os.environ, **ENVIRONMENT})
        left = os.listdir(directory)
    if "is in memory" in done.stderr:
        pytest.skip("no disk below the tests' directory")
    assert done.returncode == 0, done.stderr
    report = json.loads(report_path.read_text())
    names = ["noop_http", "noop_https", "pg_direct", "gateway_http_1", "gateway_https_1"]
    assert [row["name"] for row in report["results"]] == names
    for row in report["results"]:
        assert set(row) >= FIELDS and row["events_per_second"] > 0, row
        assert row["name"] in done.stdout
    for name in ("https_of_parts", "http_of_parts", "https_of_parts_rate", "http_of_parts_rate"):
        assert report["ratios"][name] > 0
    assert isinstance(report["ratios"]["cpu_over_noop_us"], float)
    machine = report["machine"]
    assert machine["settings"]["fsync"] == machine["settings"]["synchronous_commit"] == "on"
    assert {"cores", "model", "kernel", "postgresql", "commit"} <= set(machine)
    assert left == [], "it leaves files"
