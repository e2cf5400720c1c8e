"""oncehook audit: finds every counter that is not its events, and nothing else; --repair takes it away."""

import contextlib
import json
import os
import pty
import re
import subprocess
import threading
import time
import uuid

import pytest

from support.capture import COUNTED, capture, connect, event
from support.gateway import BINARY, environment, oncehook
from support.process import wait_until


def audit(database, *arguments):
    """Exit code and lines, as the gateway's role: it needs no more than to read."""
    done = oncehook("audit", "--database", database.gateway_url, *arguments, check=False, timeout=120)
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.fixture
def busy(database):
    """A database with 3 instances, 12 enrollments and 120 events, 40 of them orphans or of nobody."""
    database.busy = database.seed(instances=3, enrollments=4)
    for instance, enrollments in database.busy:
        events = [event(enrollment=one, type=kind) for one in enrollments for kind in (COUNTED[0], COUNTED[2])]
        events += [event(instance=instance, type=kind) for kind in COUNTED] * 2
        capture(database.gateway_url, *events[:24])
    capture(database.gateway_url, *[event(enrollment=str(uuid.uuid4())) for _ in range(20)])
    return database


def test_no_drift_is_0_and_a_summary(busy):
    total = busy.value("SELECT count(*) FROM campaign_events")
    assert audit(busy) == (0, [f"3 instances, 12 enrollments, {total} events: 0 drifts"], "")


def test_empty_database_has_no_drift(database):
    assert audit(database)[:2] == (0, ["0 instances, 0 enrollments, 0 events: 0 drifts"])


@pytest.mark.parametrize("column", [f"total_{name}" for name in COUNTED + ["enrolled"]])
@pytest.mark.parametrize("by", [1, -1])
def test_each_total_of_an_instance_is_checked(busy, column, by):
    instance = busy.busy[1][0]
    before = busy.value(f"SELECT {column} FROM campaign_instances WHERE id = %s", instance)
    busy.sql(f"UPDATE campaign_instances SET {column} = {column} + %s WHERE id = %s", by, instance)
    code, lines, _ = audit(busy)
    assert code == 1 and len(lines) == 2 and lines[1].endswith(": 1 drifts")
    assert lines[0] == f"campaign_instances {instance} {column} counter={before + by} events={before}"


def test_total_events_of_an_enrollment_is_checked(busy):
    enrollment = busy.busy[2][1][0]
    busy.sql("UPDATE campaign_enrollments SET total_events = 99 WHERE id = %s", enrollment)
    code, lines, _ = audit(busy)
    assert code == 1 and lines[:-1] == [f"campaign_enrollments {enrollment} total_events counter=99 events=2"]


def test_lost_and_added_events_are_found(busy):
    instance, enrollments = busy.busy[0]
    (key,), = busy.sql("DELETE FROM campaign_events WHERE enrollment_id = %s AND event_type = 'sent' "
                       "RETURNING key_scope || '/' || provider_event_id", enrollments[0])
    code, lines, _ = audit(busy)
    sent = busy.value("SELECT total_sent FROM campaign_instances WHERE id = %s", instance)
    assert code == 1 and lines[:-1] == [
        f"campaign_instances {instance} total_sent counter={sent} events={sent - 1}",
        f"campaign_enrollments {enrollments[0]} total_events counter=2 events=1",
        f"event_keys {key} provider_event_id counter=1 events=0"]


def test_event_without_its_key_and_key_with_two_events_are_found(busy):
    first, second = busy.sql("SELECT id, provider_event_id FROM campaign_events WHERE instance_id IS NULL LIMIT 2")
    busy.sql("DELETE FROM event_keys WHERE provider_event_id = %s", first[1])
    busy.sql("INSERT INTO campaign_events (provider_event_id, key_scope) VALUES (%s, 'source:test')", second[1])
    code, lines, _ = audit(busy)
    assert code == 1 and set(lines[:-1]) == {
        f"campaign_events {first[0]} provider_event_id counter=0 events=1",
        f"campaign_events {second[0]} provider_event_id counter=1 events=2"}


def test_instance_narrows_it_to_what_belongs_to_it(busy):
    (first, members), (second, _), _ = busy.busy
    busy.sql("UPDATE campaign_instances SET total_opened = total_opened + 1")
    busy.sql("UPDATE campaign_enrollments SET total_events = total_events + 1")
    code, lines, _ = audit(busy, "--instance", first)
    assert code == 1 and len(lines) == 1 + 4 + 1
    assert all(first in line or any(one in line for one in members) for line in lines[:-1])
    assert lines[-1].startswith("1 instances, 4 enrollments, ")
    nobody = str(uuid.uuid4())
    assert audit(busy, "--instance", nobody) == (2, [], f"oncehook audit: there is no instance {nobody}\n")


def old_month(database):
    database.sql("CREATE TABLE campaign_events_2001_02 (LIKE campaign_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    database.sql("ALTER TABLE campaign_events ATTACH PARTITION campaign_events_2001_02 FOR VALUES FROM "
                 "('2001-02-01 00:00:00+00') TO ('2001-03-01 00:00:00+00')")


def test_since_looks_at_what_newer_events_touched_and_recomputes_it_whole(busy):
    old_month(busy)
    instance = busy.busy[0][0]
    # All events but some of one instance become old ones.
    busy.sql("UPDATE campaign_events SET received_at = '2001-02-03 04:05:06+00' WHERE instance_id <> %s", instance)
    busy.sql("UPDATE campaign_events SET received_at = '2001-02-03 04:05:06+00' WHERE id IN "
             "(SELECT id FROM campaign_events WHERE instance_id = %s "
             "AND enrollment_id IS NULL LIMIT 3)", instance)
    assert audit(busy, "--since", "2001-02")[0] == 0
    code, lines, _ = audit(busy, "--since", "2001-03")
    assert code == 0 and lines[-1].startswith("1 instances, 4 enrollments, ")
    busy.sql("UPDATE campaign_instances SET total_sent = total_sent + 1")
    assert len(audit(busy, "--since", "2001-03")[1]) == 2
    assert len(audit(busy)[1]) == 4


def test_json_says_the_same(busy):
    assert json.loads("".join(audit(busy, "--json")[1])) == {
        "drift": [], "drifts": 0, "instances": 3, "enrollments": 12,
        "events": busy.value("SELECT count(*) FROM campaign_events")}
    busy.sql("UPDATE campaign_instances SET total_opened = 1000, total_sent = 1001")
    code, lines, _ = audit(busy, "--json")
    found = json.loads("".join(lines))
    assert code == 1 and found["drifts"] == len(found["drift"]) == 6
    assert {one["column"]: one["counter"] for one in found["drift"]} == {"total_opened": 1000, "total_sent": 1001}
    assert set(found["drift"][0]) == {"table", "id", "column", "counter", "events"}


@pytest.mark.parametrize("arguments", [["--instance", "7"], ["--since", "2024-13"], ["--since", "2024-1"],
                                       ["--since", "24-01-01"], ["extra"], ["--no-such"]])
def test_wrong_usage_is_2(database, arguments):
    code, lines, stderr = audit(database, *arguments)
    assert code == 2 and not lines and stderr


def test_database_without_the_schema_is_2(empty_database):
    code, lines, stderr = audit(empty_database)
    assert code == 2 and not lines and "campaign_events" in stderr


def test_which_database_must_be_said():
    done = oncehook("audit", check=False)
    assert done.returncode == 2 and "--database" in done.stderr


def test_two_events_of_one_key_in_two_months_are_found(busy):
    """The ledger lost a key, the provider sent the event again: the key there is the second event's."""
    old_month(busy)
    (first, name, scope), = busy.sql("SELECT id, provider_event_id, key_scope FROM campaign_events LIMIT 1")
    busy.sql("UPDATE campaign_events SET received_at = '2001-02-03 04:05:06+00' WHERE id = %s", first)
    assert audit(busy)[0] == 0  # an event may be moved
    busy.sql("DELETE FROM event_keys WHERE provider_event_id = %s", name)
    assert capture(busy.gateway_url, event(id=name, scope=scope)) == "c"
    code, lines, _ = audit(busy)
    assert code == 1 and lines[:-1] == [f"campaign_events {first} provider_event_id counter=1 events=2"]


def test_last_event_at_before_an_event_is_found(busy):
    one, other = busy.busy[0][1][:2]
    busy.sql("UPDATE campaign_enrollments SET last_event_at = '2024-01-01 00:00:00+00' WHERE id = %s", one)
    busy.sql("UPDATE campaign_enrollments SET last_event_at = NULL WHERE id = %s", other)
    busy.sql("UPDATE campaign_enrollments SET last_event_at = now() WHERE id = %s", busy.busy[1][1][0])  # may be
    code, lines, _ = audit(busy)
    assert code == 1 and set(lines[:-1]) == {
        f"campaign_enrollments {one} last_event_at counter=2024-01-01T00:00:00.000000Z events=2024-05-01T12:00:00.000000Z",
        f"campaign_enrollments {other} last_event_at counter=null events=2024-05-01T12:00:00.000000Z"}
    found = json.loads("".join(audit(busy, "--json")[1]))["drift"]
    assert sorted((one["counter"] or "") for one in found) == ["", "2024-01-01T00:00:00.000000Z"]


def test_a_terminal_sees_a_bar_and_a_file_does_not(busy):
    master, slave = pty.openpty()
    done = subprocess.run([BINARY, "audit", "--database", busy.gateway_url], stdout=subprocess.PIPE, stderr=slave,
                          text=True, timeout=60, check=True, env=environment())
    os.close(slave)
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert re.search(r"\[#+ *\] \d/4 months, \d+ events, \d+/s, \d+ s left", shown) and shown.endswith("\r\033[K")
    assert done.stdout.endswith(": 0 drifts\n") and audit(busy)[2] == ""


# ---- --repair -------------------------------------------------------------------------------

def plant(database, rng):
    """A drift in every counter of every instance and enrollment, last_event_at too early, missing keys;
    how many drifts that is."""
    names = ["total_enrolled"] + [f"total_{name}" for name in COUNTED]
    instances = [row[0] for row in database.sql("SELECT id::text FROM campaign_instances ORDER BY id")]
    for instance in instances:
        drifts = [rng.choice([-1, 1]) * rng.randrange(1, 1 << 40) for _ in names]
        database.sql(f"UPDATE campaign_instances SET {', '.join(f'{name} = {name} + %s' for name in names)} "
                     "WHERE id = %s", *drifts, instance)
    enrollments = [row[0] for row in database.sql("SELECT id::text FROM campaign_enrollments ORDER BY id")]
    late = 0
    for one in enrollments:
        (last,), = database.sql("UPDATE campaign_enrollments SET total_events = total_events + %s, last_event_at = "
                                "least(last_event_at, '2020-01-01') WHERE id = %s RETURNING last_event_at",
                                rng.choice([-3, 5]), one)
        late += last is not None
    keys = len(database.sql("DELETE FROM event_keys WHERE (provider_event_id, key_scope) IN "
                            "(SELECT provider_event_id, key_scope FROM campaign_events ORDER BY id LIMIT 5) RETURNING 1"))
    return len(instances) * len(names) + len(enrollments) + late + keys


def test_repair_takes_every_drift_away_and_says_so(busy, rng):
    before = busy.sql("SELECT * FROM campaign_instances ORDER BY id"), \
        busy.sql("SELECT * FROM campaign_enrollments ORDER BY id"), busy.sql("SELECT * FROM event_keys ORDER BY 1, 2")
    planted = plant(busy, rng)
    code, lines, _ = audit(busy, "--repair")
    assert code == 0 and lines[-1] == f"repaired {planted}, left 0" and lines[-2].endswith(f": {planted} drifts")
    assert planted > 20 and len(lines) == 20 + 1 + 2 and lines[20] == f"… and {planted - 20} more; --json has all"
    assert before == (busy.sql("SELECT * FROM campaign_instances ORDER BY id"),
                      busy.sql("SELECT * FROM campaign_enrollments ORDER BY id"),
                      busy.sql("SELECT * FROM event_keys ORDER BY 1, 2"))
    assert audit(busy)[0] == 0 and audit(busy, "--repair")[:2] == (
        0, [f"3 instances, 12 enrollments, {busy.value('SELECT count(*) FROM campaign_events')} events: 0 drifts",
            "repaired 0, left 0"])


def test_repair_says_it_in_json_and_keeps_to_an_instance(busy):
    first, second = busy.busy[0][0], busy.busy[1][0]
    busy.sql("UPDATE campaign_instances SET total_opened = total_opened + 7")
    code, lines, _ = audit(busy, "--repair", "--json", "--instance", first)
    said = json.loads("".join(lines))
    assert code == 0 and said["drifts"] == said["repaired"] == 1 and said["left"] == []
    assert [one["id"] for one in said["drift"]] == [first]
    assert {line.split()[1] for line in audit(busy)[1][:-1]} == {second, busy.busy[2][0]}


def test_what_cannot_be_subtracted_is_left_and_is_1(busy):
    """Two events of one key: which one is right, a person must say."""
    name = busy.value("SELECT provider_event_id FROM campaign_events WHERE instance_id IS NULL LIMIT 1")
    busy.sql("INSERT INTO campaign_events (provider_event_id, key_scope) VALUES (%s, 'source:test')", name)
    busy.sql("UPDATE campaign_instances SET total_sent = 0")
    code, lines, _ = audit(busy, "--repair")
    assert code == 1 and lines[-2] == "repaired 3, left 1" and lines[-1].endswith("counter=1 events=2")
    busy.sql("DELETE FROM event_keys WHERE provider_event_id = %s", name)
    code, lines, _ = audit(busy, "--repair", "--json")
    said = json.loads("".join(lines))
    assert code == 1 and said["repaired"] == 1 and [one["counter"] for one in said["left"]] == [1]


def test_of_two_repairs_at_once_the_second_is_refused_and_nothing_is_subtracted_twice(busy, rng):
    plant(busy, rng)
    with contextlib.closing(connect(busy.gateway_url)) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtext('oncehook repair'), hashtext('public'))")
        code, lines, stderr = audit(busy, "--repair")
        assert code == 2 and not lines and "another --repair" in stderr
        assert audit(busy)[0] == 1  # only to look needs no lock
    codes = []
    threads = [threading.Thread(target=lambda: codes.append(audit(busy, "--repair")[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 in codes and set(codes) <= {0, 2} and audit(busy)[0] == 0


def test_a_repair_that_is_killed_between_is_finished_by_the_next(busy, rng):
    """As far as it came it is subtracted, the rest is drift: the second of two batches waits for a row."""
    busy.seed(instances=1, enrollments=600)
    busy.sql("UPDATE campaign_enrollments SET total_events = total_events + 1")
    last = busy.value("SELECT id::text FROM campaign_enrollments ORDER BY id DESC LIMIT 1")
    with contextlib.closing(busy.connect()) as holder, holder.cursor() as cursor:
        holder.autocommit = False
        cursor.execute("SELECT FROM campaign_enrollments WHERE id = %s FOR UPDATE", (last,))
        child = subprocess.Popen([BINARY, "audit", "--repair", "--database", busy.gateway_url],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
        wait_until(lambda: busy.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                                      "AND application_name = 'oncehook audit' AND datname = current_database()"),
                   30, what="the second batch waits")
        child.kill()
        child.wait()
        assert audit(busy, "--repair")[0] == 2  # what the dead one left is still under way
        busy.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                 "AND application_name = 'oncehook audit' AND datname = current_database()")
    code, lines, _ = audit(busy)
    assert code == 1 and lines[-1].endswith(": 112 drifts")  # 612 - 500
    wait_until(lambda: audit(busy, "--repair")[0] == 0, 20, what="the lock of the dead one is gone")
    assert audit(busy)[0] == 0


def test_repair_under_load_leaves_no_drift_and_loses_no_event(busy, start_gateway, rng):
    gateway = start_gateway()
    source, enrollments = gateway.sources["sendgrid"], [one for _, members in busy.busy for one in members]
    sent, problems, stop, numbers = [], [], threading.Event(), iter(range(1 << 30))

    def deliver():
        while not stop.is_set():
            late = str(uuid.uuid4())
            events = [source.event(enrollment_id=rng.choice(enrollments)) for _ in range(20)] + [source.event(enrollment_id=late)]
            body = source.encode(*events)
            while (answer := gateway.post("sendgrid", body, tls=False)).status == 503:
                pass
            if answer.status != 200 or answer.json["captured"] + answer.json["duplicates"] != 21:
                problems.append(answer)
            sent.append(21)
            if next(numbers) % 5 == 0:
                busy.sql("INSERT INTO campaign_enrollments (id, instance_id) VALUES (%s, %s)", late, busy.busy[0][0])
    threads = [threading.Thread(target=deliver) for _ in range(3)]
    already = busy.value("SELECT count(*) FROM campaign_events")
    for thread in threads:
        thread.start()
    try:
        for _ in range(4):
            plant(busy, rng)
            code, lines, stderr = audit(busy, "--repair")
            assert code == 0 and lines[-1].endswith("left 0"), (lines[-3:], stderr)
            time.sleep(0.5)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert problems == [] and len(sent) > 20
    assert busy.value("SELECT count(*) FROM campaign_events") == already + sum(sent)
    assert audit(busy)[0] == 0 and busy.counter_drift() == []
    assert gateway.metric("oncehook_deadlocks_total") == 0


# ---- the window of a gateway ----------------------------------------------------------------

def lines_of(gateway, message):
    return [line for line in gateway.log_lines() if line["message"] == message]


def test_the_gauge_follows_the_drift_and_the_log_says_it_once_a_change(busy, start_gateway):
    gateway = start_gateway()
    wait_until(lambda: "oncehook_counter_drift" in gateway.metrics(), 20, what="the first round")
    assert gateway.metric("oncehook_counter_drift") == 0 and not lines_of(gateway, "counters differ from their events")
    instance, enrollment = busy.busy[1][0], busy.busy[1][1][0]
    busy.sql("UPDATE campaign_instances SET total_clicked = total_clicked + 1, total_enrolled = 0 WHERE id = %s", instance)
    busy.sql("UPDATE campaign_enrollments SET total_events = 0 WHERE id = %s", enrollment)
    wait_until(lambda: gateway.metric("oncehook_counter_drift") == 3, 20, what="the drift is seen")
    rounds = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'oncehook audit window'"
    assert busy.value(rounds) >= 1
    time.sleep(6)  # another round
    line, = lines_of(gateway, "counters differ from their events")
    assert line["level"] == "error" and line["drifts"] == 3 and "oncehook audit --repair" in line["repair"]
    assert line["first"] == f"campaign_instances {instance} total_clicked"
    assert audit(busy, "--repair")[0] == 0
    wait_until(lambda: gateway.metric("oncehook_counter_drift") == 0, 20, what="the repair is seen")
    assert len(lines_of(gateway, "counters agree with their events again")) == 1


def test_an_instance_that_takes_too_long_is_passed_over_and_named(busy, start_gateway):
    """A cancelled statement looks like one that took its 60 s."""
    with contextlib.closing(busy.connect()) as holder, holder.cursor() as cursor:
        holder.autocommit = False
        cursor.execute("LOCK TABLE campaign_enrollments IN ACCESS EXCLUSIVE MODE")
        gateway = start_gateway()

        def named():
            busy.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                     "AND application_name = 'oncehook audit window' AND datname = current_database()")
            return lines_of(gateway, "an instance is too large for the audit window")
        line = wait_until(named, 30, what="it is named")[0]
        assert line["instance"] == min(instance for instance, _ in busy.busy)
    wait_until(lambda: gateway.metrics().get("oncehook_counter_drift") == 0, 30, what="the round ends")
