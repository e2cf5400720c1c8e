"""oncehook audit: finds every counter that is not its events, and nothing else."""

import json
import uuid

import pytest

from support.capture import COUNTED, capture, event
from support.gateway import oncehook


def audit(database, *arguments):
    """Exit code and lines, as the gateway's role: it needs no more than to read."""
    done = oncehook("audit", "--database", database.gateway_url, *arguments, check=False)
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
    busy.sql("DELETE FROM campaign_events WHERE enrollment_id = %s AND event_type = 'sent'", enrollments[0])
    code, lines, _ = audit(busy)
    sent = busy.value("SELECT total_sent FROM campaign_instances WHERE id = %s", instance)
    assert code == 1 and lines[:-1] == [
        f"campaign_instances {instance} total_sent counter={sent} events={sent - 1}",
        f"campaign_enrollments {enrollments[0]} total_events counter=2 events=1"]


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
    assert audit(busy, "--instance", str(uuid.uuid4()))[:2] == (0, ["0 instances, 0 enrollments, 0 events: 0 drifts"])


def test_since_looks_at_what_newer_events_touched_and_recomputes_it_whole(busy):
    busy.sql("CREATE TABLE campaign_events_2001_02 (LIKE campaign_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    busy.sql("ALTER TABLE campaign_events ATTACH PARTITION campaign_events_2001_02 FOR VALUES FROM "
             "('2001-02-01 00:00:00+00') TO ('2001-03-01 00:00:00+00')")
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


@pytest.mark.parametrize("arguments", [["--repair"], ["--instance", "7"], ["--since", "2024-13"], ["--since", "2024-1"],
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
