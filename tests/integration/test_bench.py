"""The benchmark's own programs against the real gateway: they send what a provider would send, count what
the database counts, and write the JSON of the contract. Nothing here depends on how fast anything is."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

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
    curve = result["latency_curve"]  # as far as a single value, and never falling
    assert [share for share, _ in curve[:3]] == [0, 0.5, 0.75] and sorted(curve) == curve
    assert curve[1][1] == result["p50_ms"] and curve[-1][1] <= result["max_ms"]
    return 0, done.stderr, result


@pytest.fixture
def gateway(start_gateway):
    """As everywhere, but what waits may wait: on a busy machine nothing is to be refused for its age."""
    return start_gateway({"queue": {"age": "2s"}})


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


def test_load_keeps_to_one_instance(gateway, database, certificate):
    database.seed(3, 5)
    _, _, result = load_gateway(gateway, certificate, "hmac", "--max", "--instances", 1)
    assert_as_answered(database, result["totals"])
    assert database.value("SELECT count(DISTINCT instance_id) FROM campaign_events") == 1
    assert database.value("SELECT count(DISTINCT enrollment_id) FROM campaign_events") == 5


def test_load_holds_idle_connections(gateway, certificate, tmp_path):
    report = tmp_path / "report.json"
    code, said, _ = load("--url", f"https://127.0.0.1:{gateway.https_port}", "--ca", certificate[0], "--idle",
                         "--connections", 8, "-c", gateway.config_path, "--source", "hmac", "--watch",
                         f"gateway={gateway.child.pid}", "--json", report, check=False)
    result = json.loads(report.read_text())["results"][0]
    assert code == 0, said
    assert result["totals"]["connected"] == 8 and result["totals"]["sent"] == 0 and result["rss_mib"] > 0


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
    (["--url", "http://127.0.0.1:1", "--max", "--rate", "5"], "either --rate N or --max or --idle"),
    (["--url", "http://127.0.0.1:1", "--max", "--source", "nobody"], "no source 'nobody'"),
    (["--url", "http://127.0.0.1:1", "--max", "--duplicates", "101"], "--duplicates"),
])
def test_load_refuses(arguments, why, gateway):
    code, said, _ = load("-c", gateway.config_path, "--source", "hmac", *arguments, check=False)
    assert code == 2 and why in said, said


def test_load_refuses_a_certificate_that_it_does_not_trust(gateway, tmp_path):
    other = sign.self_signed(str(tmp_path))
    code, said, _ = load("--url", f"https://127.0.0.1:{gateway.https_port}", "--ca", other[0], "--max",
                         "-c", gateway.config_path, "--source", "hmac", "--timeout", 3, check=False)
    assert code == 1 and "certificate" in said, said


# ---- run ----------------------------------------------------------------------------------------------


# CONTRACT "Benchmarks", literally.
NAMES = ("noop_http noop_https pg_direct pg_copy pg_keys gateway_http_1 gateway_https_1 gateway_https_10 "
         "gateway_https_100 noop_https_new gateway_https_1_new gateway_https_100_ecdsa gateway_http_duplicates "
         "peer_seed peer_fastify peer_fastify_batch").split()
RATIOS = ("https_of_parts http_of_parts https_of_parts_rate http_of_parts_rate batch100_of_direct direct_of_parts "
          "new_of_noop http_of_best_node http_of_seed duplicates_of_fresh cpu_over_noop_us").split()
PEERS_MADE = os.path.join(REPOSITORY, "build", "peers", "installed")


def run(directory, *arguments):
    """bench/run with the build under test, its database in `directory`; (stdout, report)."""
    report_path = os.path.join(directory, "report.json")
    # /tmp and not pytest's own tree: the user postgres must pass, the socket's path stay short.
    with tempfile.TemporaryDirectory(prefix="oh-bench-", dir="/tmp") as disk:
        os.chmod(disk, 0o755)
        done = process.run([os.path.join(REPOSITORY, "bench", "run"), "--rounds", "1", "--build", BUILD, "--dir", disk,
                            "--connections", "16", "--json", report_path, *arguments],
                           timeout=300, check=False, env={**os.environ, **ENVIRONMENT})
        left = os.listdir(disk)
    if "is in memory" in done.stderr:
        pytest.skip("no disk below the tests' directory")
    assert done.returncode == 0, done.stderr
    assert left == [], "it leaves files"
    with open(report_path, encoding="utf-8") as file:
        report = json.load(file)
    for row in report["results"]:
        assert set(row) >= FIELDS and set(row["cpu_us_per_event"]) == PARTIES, row
        assert row["events_per_second"] > 0 and row["name"] in done.stdout, row
    return done.stdout, report


def test_run_knows_the_rows_of_the_contract():
    listed = process.run([os.path.join(REPOSITORY, "bench", "run"), "--list"]).stdout.splitlines()
    assert set(NAMES) <= {line.split()[0] for line in listed}
    listed = process.run([os.path.join(REPOSITORY, "bench", "run"), "--list", "--quick"]).stdout.splitlines()
    assert [line.split()[0] for line in listed] == [
        "noop_http", "noop_https", "pg_direct", "pg_copy", "pg_keys", "gateway_http_1", "gateway_https_1"]


def test_run_makes_the_ratios_of_the_contract():
    """Of numbers that are easy to reckon with."""
    sys.path.insert(0, os.path.join(REPOSITORY, "bench"))
    from harness import result
    rates = {name: 100 for name in [*NAMES, "gateway_http_1_hot", "gateway_https_1_small", "gateway_https_1_large"]}
    rates |= {"gateway_http_1": 80, "gateway_https_1": 60, "peer_seed": 2, "peer_fastify": 10, "peer_fastify_batch": 40,
              "pg_copy": 300, "pg_keys": 150, "gateway_https_100": 90, "gateway_https_1_new": 70,
              "gateway_http_duplicates": 160, "gateway_http_1_hot": 20,
              "gateway_https_1_small": 60, "gateway_https_1_large": 30}
    cpu = {name: {"gateway": 10, "postgres": None, "client": 10} for name in rates}
    cpu |= {"pg_direct": {"gateway": None, "postgres": 20, "client": 99},
            "gateway_http_1": {"gateway": 20, "postgres": 20, "client": 10},
            "gateway_https_1": {"gateway": 25, "postgres": 40, "client": 15}}
    made = result.ratios([{"name": name, "events_per_second": rates[name], "cpu_us_per_event": cpu[name]}
                          for name in rates])
    assert made == {"https_of_parts": 0.5, "http_of_parts": 0.8, "https_of_parts_rate": 1.2, "http_of_parts_rate": 1.6,
                    "batch100_of_direct": 0.9, "direct_of_parts": 1, "new_of_noop": 0.7, "http_of_best_node": 2,
                    "http_of_seed": 40, "duplicates_of_fresh": 2, "cpu_over_noop_us": 15, "hot_of_spread": 0.25,
                    "large_of_none": 0.5}
    assert set(RATIOS) <= set(made)
    judged = {one["name"]: one["reached"] for one in result.targets({"ratios": made, "figures": {"half_p50_ms": 3.1}})}
    assert judged["batch100_of_direct"] and judged["duplicates_of_fresh"] and judged["http_of_best_node"]
    assert not judged["half_p50_ms"] and not judged["cpu_over_noop_us"] and not judged["new_of_noop"]


@pytest.mark.long
def test_run_measures_rows_and_figures(tmp_path):
    """What is new to each kind of server, as short as can be, with the figures, the plots, and some thousand events
    for --large; bench/run itself holds each answer against the database."""
    rows = ["noop_https", "pg_direct", "pg_copy", "pg_keys", "gateway_https_1", "gateway_https_100_ecdsa"]
    said, report = run(str(tmp_path), "--seconds", "0.7", "--rows", ",".join(rows), "--extras", "--large", "0.01",
                       "--idle-connections", "64",
                       "--svg", str(tmp_path / "plots"))
    assert [row["name"] for row in report["results"]] == [*rows, "gateway_https_1_half", "gateway_https_1_small",
                                                         "gateway_https_1_large"]
    assert set(report["ratios"]) == {"https_of_parts", "https_of_parts_rate", "direct_of_parts", "cpu_over_noop_us",
                                     "large_of_none"}
    assert set(report["figures"]) == {
        "half_p50_ms", "half_p99_ms", "half_p999_ms", "rss_full_load_mib", "rss_idle_tls_mib", "rss_idle_mib",
        "start_to_ready_ms", "disk_bytes_per_event", "wal_bytes_per_event"}
    assert all(value > 0 for name, value in report["figures"].items()), report["figures"]
    measured = {**report["ratios"], **report["figures"]}
    assert len(report["targets"]) == 10
    for target in report["targets"]:
        assert target["measured"] == measured[target["name"]]
        better = target["measured"] - target["target"]
        assert target["reached"] == (better >= 0 if target["sense"] == "at least" else better <= 0), target
        assert target["name"] in said
    machine = report["machine"]
    assert machine["settings"]["fsync"] == machine["settings"]["synchronous_commit"] == "on"
    assert {"cores", "model", "kernel", "postgresql", "commit"} <= set(machine)
    half = next(row for row in report["results"] if row["name"] == "gateway_https_1_half")
    assert half["offered_per_second"] > 0 and half["latency_curve"][0] == [0, half["latency_curve"][0][1]]
    for name in ("rates", "cpu", "latency"):
        root = xml.etree.ElementTree.parse(tmp_path / "plots" / f"performance-{name}.svg").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and len(list(root.iter())) > 20


@pytest.mark.long
@pytest.mark.skipif(not os.path.exists(PEERS_MADE), reason="bench/run has not installed the peers here")
def test_run_measures_a_peer(tmp_path):
    """A peer answers only what its own tables hold, as the gateway does."""
    _, report = run(str(tmp_path), "--seconds", "0.5", "--rows", "peer_fastify_batch")
    assert all(set(row["totals"]["statuses"]) == {"200"} for row in report["results"])


@pytest.mark.long
def test_indexes_are_measured_and_are_there_again():
    """With all, without each, with none: bench/indexes itself fails when one is not made again."""
    with tempfile.TemporaryDirectory(prefix="oh-bench-", dir="/tmp") as disk:
        os.chmod(disk, 0o755)
        done = process.run([os.path.join(REPOSITORY, "bench", "indexes"), "--build", BUILD, "--dir", disk,
                            "--seconds", "0.5", "--rounds", "1"], timeout=120, check=False,
                           env={**os.environ, **ENVIRONMENT})
        assert os.listdir(disk) == [], "it leaves files"
    if "is in memory" in done.stderr:
        pytest.skip("no disk below the tests' directory")
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()]
    names = [row[0] for row in rows[2:]]
    assert names[0] == "all indexes" and names[-1] == "no index at all" and "`idx_campaign_events_tx`" in names
    disk = {row[0]: float(row[3].replace(",", "")) for row in rows[2:]}
    assert disk["all indexes"] > disk["no index at all"] > 0


@pytest.mark.parametrize("argv, words", [
    (["bench/run", "--json", "/nonexistent/result.json"], "/nonexistent/result.json: cannot be written"),
    (["bench/run", "--rounds", "0"], "--rounds: more than 0"),
    (["bench/run", "--dir", "/nonexistent"], "--dir /nonexistent: no such directory"),
    (["bench/turns", BUILD, "--build", "/nonexistent"], "--build /nonexistent: no program oncehook in it"),
    (["bench/turns", BUILD, BUILD], "a BUILD is given twice"),
    (["bench/turns", BUILD, "--rates", "-5"], "--rates: from 0"),
    (["bench/indexes", "--seconds", "0"], "--seconds: more than 0"),
    (["bench/instructions", "--sizes", "1,many"], "--sizes: numbers from 1"),
    (["bench/instructions", "--function", "/nonexistent"], "--function /nonexistent: no such file"),
    (["bench/overload", "--json", "/nonexistent/result.json"], "/nonexistent/result.json: cannot be written"),
    ([f"{BUILD}/bench/spool", "put", "/nonexistent/spool", "--events", "x"], "--events: a whole number from 1"),
    ([f"{BUILD}/bench/spool", "put", "/nonexistent/spool", "--events", "0"], "--events: a whole number from 1"),
    ([f"{BUILD}/bench/spool", "put", "/nonexistent/spool", "--start", "1.5"], "--start: a whole number from 0"),
    ([f"{BUILD}/bench/spool", "put", "/nonexistent/spool", "--lanes", "2x"], "--lanes: a whole number from 1 to 64"),
    ([f"{BUILD}/bench/spool", "put", "/nonexistent/spool", "--payload", ""], "--payload: a whole number from 64 to 65535"),
    ([f"{BUILD}/bench/spool", "put", "/nonexistent/spool", "--rate", "fast"], "--rate: a whole number from 1"),
    ([f"{BUILD}/bench/spool", "put", "/nonexistent/spool", "--bytes", "1GiB"], "--bytes: a whole number from 1048576"),
    ([f"{BUILD}/bench/spool", "put", "/nonexistent/spool", "--deadline", "-1"], "--deadline: a whole number from 0"),
    ([f"{BUILD}/bench/spool", "get", "/nonexistent/spool", "--chunk", "nan"], "--chunk: a whole number from 1"),
    ([f"{BUILD}/bench/pg_direct", "-c", "x", "--source", "x", "--seconds", "5x"], "--seconds: a number from 0.1"),
    ([f"{BUILD}/bench/pg_direct", "-c", "x", "--source", "x", "--seconds", "5", "--warmup", "x"], "--warmup: a number from 0"),
    ([f"{BUILD}/bench/noop", "--http", "127.0.0.1:0", "--threads", "2x"], "--threads: a whole number from 1 to 64"),
    ([f"{BUILD}/bench/load", "--connections", "1.5"], "--connections: a whole number from 1 to 60000"),
    ([f"{BUILD}/bench/load", "--seconds", "5s"], "--seconds: a number from 0.1 to 86400"),
    (["tests/faults/run", "--sweep", "fsync:EIO", "--calls", "0"], "0: a number from 1"),
    (["tests/faults/run", "--sweep", "fsync:EIO"], "--sweep fsync:EIO needs --outage spool"),
    (["tests/faults/run", "--count", "failover=0"], "N from 1"),
    (["tests/faults/mutants", "undecided-is-200", "nosuch"], "no mutant is called nosuch"),
    (["tests/faults/run", "--json", "/nonexistent/faults.jsonl"], "no directory to write in"),
])
def test_what_cannot_work_is_said_before_anything_is_started(argv, words):
    """Not after half an hour of measuring, and not as zeros of a run that did nothing."""
    done = process.run([os.path.join(REPOSITORY, argv[0]), *argv[1:]], timeout=30, check=False,
                       env={**os.environ, "ONCEHOOK_BINARY": BINARY})
    assert done.returncode == 2 and words in done.stderr, done.stderr


@pytest.mark.parametrize("program, words", [
    ("bench/turns", "by turns"), ("tests/faults/run", "--sweep"), ("tests/faults/report", "--write"),
    ("tests/faults/mutants", "undecided-is-200"), ("tests/faults/long", "Two to three")])
def test_help_is_help(program, words):
    done = process.run([os.path.join(REPOSITORY, program), "--help"], timeout=30, check=False)
    assert done.returncode == 0 and words in done.stdout and done.stderr == "", done
    done = process.run([os.path.join(REPOSITORY, program), "--nonsense"], timeout=30, check=False)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr, done


@pytest.mark.long
def test_two_builds_are_measured_by_turns():
    """In a closed loop and in an open one; every event of every run is in the database, or it fails. The second build
    takes twenty deliveries a second, which its own rows show and no others: each was loaded, and none in place of another."""
    with tempfile.TemporaryDirectory(prefix="oh-bench-", dir="/tmp") as disk:
        os.chmod(disk, 0o755)
        other = os.path.join(disk, "other")
        os.mkdir(other)
        with open(os.path.join(other, "oncehook"), "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o755)) as file:
            file.write(f"""#!/bin/sh -e
sed 's/"name": "bench",/& "rate_limit": {{"per_second": 20, "burst": 1}},/' "$3" >"$3.other"
grep -q rate_limit "$3.other"
exec '{BINARY}' "$1" "$2" "$3.other"
""")
        done = process.run([os.path.join(REPOSITORY, "bench", "turns"), BUILD, other, "--build", BUILD, "--dir", disk,
                            "--row", "gateway_http_1", "--rates", "0,100", "--rounds", "1", "--seconds", "0.5",
                            "--connections", "8"], timeout=120, check=False, env={**os.environ, **ENVIRONMENT})
        assert os.listdir(disk) == ["other"], "it leaves files"
    if "is in memory" in done.stderr:
        pytest.skip("no disk below the tests' directory")
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[2:]]
    assert [(row[0], row[1]) for row in rows] == [(rate, build) for rate in ("as many as it takes", "100") for build in (BUILD, other)]
    rates = [float(row[2].replace(",", "")) for row in rows]
    assert all(0 < slow < 50 < fast for fast, slow in (rates[:2], rates[2:])), done.stdout
    missing = process.run([os.path.join(REPOSITORY, "bench", "turns"), "/nonexistent"], timeout=30, check=False)
    assert missing.returncode == 2 and "no program oncehook in /nonexistent" in missing.stderr


@pytest.mark.long
def test_a_call_of_capture_costs_no_more_instructions_than_it_did():
    """Not timed: counted, so that it is the same on a busy machine. What stood before 0018 needs 1.41 and 0.57 million."""
    with tempfile.TemporaryDirectory(prefix="oh-bench-", dir="/tmp") as disk:
        os.chmod(disk, 0o755)
        done = process.run([os.path.join(REPOSITORY, "bench", "instructions"), "--build", BUILD, "--dir", disk, "--sizes", "1"],
                           timeout=120, check=False, env={**os.environ, **ENVIRONMENT})
        assert os.listdir(disk) == [], "it leaves files"
    assert done.returncode == 0, done.stderr
    events, fresh, _, duplicate, _ = [int(cell.replace(",", "")) for cell in done.stdout.splitlines()[2].strip("| ").split("|")]
    assert events == 1 and 100_000 < duplicate < 560_000 and duplicate < fresh < 1_340_000


@pytest.mark.parametrize("start", ["output(*argv)", "Server(argv, 'log').child.wait()", "subprocess.run(bound(argv))"])
def test_what_the_harness_started_ends_with_it(tmp_path, start):
    """However it ends: a load that goes on would be measured with the next run."""
    script = f"import subprocess, sys; sys.path.insert(0, sys.argv.pop(1)); argv = sys.argv[1:]; from harness.base import *; {start}"
    started = tmp_path / "started"
    parent = process.spawn([sys.executable, "-c", script, os.path.join(REPOSITORY, "bench"), "sh", "-c",
                            f"echo $$ >{started}; exec sleep 100"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pid = int(process.wait_until(lambda: started.exists() and started.read_text(), what="the child"))
    parent.kill()
    parent.wait()

    def is_gone():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as line:
                return not line.read()  # a zombie that nobody has waited for
        except FileNotFoundError:
            return True
    try:
        process.wait_until(is_gone, 5, what="the end of the child")
    finally:
        if not is_gone():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("wrong, lost, fails", [
    ({}, {}, False),
    ({"events": 9}, {}, True),    # acknowledged and not there
    ({"keys": 11}, {}, True),     # an event too few
    ({"enrolled": 9}, {}, True),  # captured and not counted
    ({"counted": 9}, {}, True),
    ({"events": 11, "keys": 11}, {}, True),                 # there and not acknowledged …
    ({"events": 11, "keys": 11}, {"timeouts": 1}, False),   # … which an answer that was lost explains
    ({"events": 11, "keys": 11}, {"statuses": {"503": 1}}, False),
    ({"events": 9, "keys": 9}, {"timeouts": 1}, True),
])
def test_run_holds_answers_against_the_database(wrong, lost, fails):
    """Ten events were acknowledged, two of them orphans."""
    sys.path.insert(0, os.path.join(REPOSITORY, "bench"))
    from harness import base, postgres
    before = {"events": 5, "keys": 7, "enrolled": 100, "countable": 3, "counted": 100, "wal_bytes": 1, "disk_bytes": 1}
    grown = {"events": 10, "keys": 10, "enrolled": 8, "countable": 8, "counted": 8, **wrong}
    after = {word: before[word] + grown.get(word, 0) for word in before}
    totals = {"captured": 10, "orphans": 2, "statuses": {"200": 10}, **lost}
    written = ("events", "keys", "enrolled", "counted")
    if fails:
        with pytest.raises(base.Failed):
            postgres.check_against_database("row", written, totals, before, after)
    else:
        postgres.check_against_database("row", written, totals, before, after)


def test_peers_are_pinned_and_name_no_host():
    """The lock names versions and checksums; where packages come from is npm's own setting."""
    with open(os.path.join(REPOSITORY, "bench", "peers", "package-lock.json"), encoding="utf-8") as file:
        packages = json.load(file)["packages"]
    packages.pop("")
    assert packages and all("resolved" not in entry and "integrity" in entry for entry in packages.values())
