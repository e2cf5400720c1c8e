"""A month that somebody detached by hand and that keeps its name: captures of that month cannot be committed,
and say so; everything else goes on; nothing subtracts what its events were counted as; and the SQL that is
named brings it back."""

import json
import re
import subprocess

import pytest

from support import process
from support.gateway import oncehook


def month(database, ahead):
    return database.value("SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC')"
                          f" + {ahead} * interval '1 month', '\"campaign_events_\"YYYY_MM')")


def detach(database, ahead):
    name = month(database, ahead)
    database.sql(f"ALTER TABLE campaign_events DETACH PARTITION {name}")
    return name


def the_sql(text):
    """The statement that a message names."""
    return re.search(r"ALTER TABLE campaign_events ATTACH PARTITION campaign_events_\d{4}_\d\d FOR VALUES "
                     r"FROM \('[-0-9: +]+'\) TO \('[-0-9: +]+'\)", text)[0]


def audit(database, *options):
    return oncehook("audit", "--database", database.gateway_url, *options, check=False)


def doctor(database, gateway):
    done = oncehook("doctor", "--database", database.gateway_url, "--admin",
                    f"http://127.0.0.1:{gateway.admin_port}", "--json", check=False)
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def check_refused(gateway, database, name):
    """While a month's captures fail: what is said, and where."""
    process.wait_until(lambda: gateway.request("GET", "/readyz").status == 503, what="not ready")
    assert "not ready: database (no month for new events)" in gateway.request("GET", "/readyz").body.decode()
    told = json.loads(gateway.admin("/readyz").body)["detail"]
    assert name in told and told.endswith(the_sql(told)), told  # nothing behind it that is no SQL
    assert any(name in line.get("reason", "") for line in gateway.log_lines())
    return the_sql(told)


def test_the_month_of_now(start_gateway, database):
    gateway = start_gateway(config={"database": {"lanes": 2}})
    (instance, (enrollment,)), = database.seed(1, 1)
    event = gateway.sources["hmac"].event(enrollment_id=enrollment)
    assert gateway.deliver("hmac", event).status == 200
    name = detach(database, 0)
    later = gateway.sources["hmac"].event(enrollment_id=enrollment)
    answer = gateway.deliver("hmac", later)
    assert answer.status == 503 and "away" not in answer.body.decode()
    statement = check_refused(gateway, database, name)
    assert gateway.deliver("hmac", later).status == 503

    looks = doctor(database, gateway)
    assert looks["detached months"]["state"] == "person" and looks["months"]["rows"][0]["value"] == -1
    assert looks["detached months"]["rows"][0]["subject"] == name
    assert the_sql(looks["detached months"]["rows"][0]["words"]) == statement

    done = audit(database)
    assert done.returncode == 1 and name in done.stderr and statement in done.stderr
    assert json.loads(audit(database, "--json").stdout)["detached"] == [name]
    done = audit(database, "--repair")
    assert done.returncode == 1 and "--repair is refused" in done.stderr and "repaired" not in done.stdout
    assert database.value("SELECT total_events FROM campaign_enrollments") == 1

    database.sql(statement)
    process.wait_until(lambda: gateway.request("GET", "/readyz").status == 200, what="ready again")
    assert json.loads(gateway.deliver("hmac", event).body)["duplicates"] == 1
    assert json.loads(gateway.deliver("hmac", later).body)["captured"] == 1
    assert database.counter_drift() == [] and audit(database, "--repair").returncode == 0


def test_audit_says_the_reason_first_and_few_of_what_follows_from_it(start_gateway, database):
    gateway = start_gateway()
    (_, enrollments), = database.seed(1, 25)
    events = [gateway.sources["hmac"].event(enrollment_id=one) for one in enrollments]
    assert gateway.deliver("hmac", *events).status == 200
    name = detach(database, 0)
    done = oncehook("audit", "--database", database.gateway_url, check=False, stderr=subprocess.STDOUT)
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    drifts = int(re.search(r": (\d+) drifts$", lines[-1])[1])
    assert drifts > 25 and len(lines) == 1 + 20 + 1 + 1, lines
    assert lines[0] == f"oncehook audit: {name} is detached, and what its events were counted as is no drift to " \
                       f"repair. Back with: {the_sql(lines[0])}"
    assert all("counter=" in line for line in lines[1:21])
    assert lines[21] == f"… and {drifts - 20} more; --json has all"
    assert len(json.loads(audit(database, "--json").stdout)["drift"]) == drifts


def test_a_gateway_that_starts_without_its_month_is_not_ready(start_gateway, database):
    name = detach(database, 0)
    gateway = start_gateway(wait=False)
    gateway.admin_port = int(process.wait_until(lambda: re.search(
        r"^listening .*admin=(\d+)", open(gateway.out_path, encoding="utf-8").read(), re.M), 20, what="listening")[1])
    line = process.wait_until(lambda: [line for line in gateway.log_lines()
                                       if line["message"] == "cannot use PostgreSQL"], what="why")[0]
    assert name in line["reason"]
    process.wait_until(lambda: gateway.metrics().get("oncehook_months_ahead") == -1, what="as doctor says")
    assert doctor(database, gateway)["months"]["rows"][0]["value"] == -1
    database.sql(the_sql(line["reason"]))
    gateway.wait_ready()


def test_what_stands_in_the_way_of_the_months_is_logged_though_none_can_be_made(start_gateway, database):
    """The month of now is detached: making fails, and the log says what to do, from upkeep too."""
    name = detach(database, 0)
    database.sql(f"DROP TABLE {month(database, 3)}")
    gateway = start_gateway(wait=False)

    def said(message):
        return [line for line in gateway.log_lines() if line["room"] == "upkeep" and line["message"] == message]
    failed = process.wait_until(lambda: said("a chore failed; it is tried again"), 20, what="a chore that fails")[0]
    assert failed["chore"] == "make months" and name in failed["reason"]
    line = process.wait_until(lambda: said("a month is detached"), what="the way back")[0]
    assert (line["level"], line["month"]) == ("warning", name)
    database.sql(the_sql(line["mend"]))
    gateway.wait_ready()
    process.wait_until(lambda: database.value("SELECT to_regclass(%s) IS NOT NULL", month(database, 3)), 30,
                       what="the month that was not made")


def test_a_month_to_come_keeps_no_other_from_being_made(start_gateway, database):
    database.sql(f"DROP TABLE {month(database, 2)}")
    name = detach(database, 1)
    gateway = start_gateway()
    process.wait_until(lambda: database.value("SELECT to_regclass(%s) IS NOT NULL", month(database, 2)),
                       what="the month behind it")
    line = process.wait_until(lambda: [line for line in gateway.log_lines()
                                       if line["message"] == "a month is detached"], what="a warning")[0]
    assert line["month"] == name
    assert gateway.deliver("hmac", gateway.sources["hmac"].event()).status == 200
    assert doctor(database, gateway)["months"]["state"] == "person"
    database.sql(the_sql(line["mend"]))
    assert database.value("SELECT oncehook_make_months(3)") == 0
    assert doctor(database, gateway)["detached months"]["state"] == "fine"


def test_drift_of_a_detached_month_is_not_to_be_repaired(start_gateway, database):
    """An old month: captures do not miss it, its counters' events do."""
    gateway = start_gateway()
    (_, (enrollment,)), = database.seed(1, 1)
    assert gateway.deliver("hmac", gateway.sources["hmac"].event(enrollment_id=enrollment)).status == 200
    name = month(database, 0)
    database.sql(f"ALTER TABLE campaign_events DETACH PARTITION {name}")
    database.sql(f"ALTER TABLE {name} RENAME TO campaign_events_2020_01")
    database.sql("SELECT oncehook_make_months(0)")
    process.wait_until(lambda: gateway.metrics().get("oncehook_counter_drift", 0) > 0, 30, what="the drift")
    looks = doctor(database, gateway)
    assert looks["drift"]["state"] == "person" and "--repair" not in looks["drift"]["todo"]
    assert "attach" in looks["drift"]["todo"].lower()
    assert audit(database, "--repair").returncode == 1
    database.sql("ALTER TABLE campaign_events_2020_01 RENAME TO somewhere_else")  # it shall not count any more
    assert "--repair" in doctor(database, gateway)["drift"]["todo"]
    assert "repaired 2, left 0" in audit(database, "--repair").stdout


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_detach_that_was_begun_and_not_ended(start_gateway, database, ahead):
    """DETACH … CONCURRENTLY that somebody cancelled: the month is marked, and takes no events."""
    gateway = start_gateway()
    holder, name = database.connect(), month(database, ahead)
    other = database.connect()
    try:
        with holder.cursor() as reading, other.cursor() as cursor:
            reading.execute(f"BEGIN; SELECT FROM {name}")
            cursor.execute("SET statement_timeout = '500ms'")
            with pytest.raises(Exception, match="timeout"):
                cursor.execute(f"ALTER TABLE campaign_events DETACH PARTITION {name} CONCURRENTLY")
            reading.execute("COMMIT")
    finally:
        holder.close()
        other.close()
    if ahead == 0:
        assert gateway.deliver("hmac", gateway.sources["hmac"].event()).status == 503
    words = doctor(database, gateway)["detached months"]["rows"][0]["words"]
    assert f"DETACH PARTITION {name} FINALIZE" in words
    database.sql(re.search(r"ALTER TABLE .* FINALIZE", words)[0])
    database.sql(the_sql(doctor(database, gateway)["detached months"]["rows"][0]["words"]))
    process.wait_until(lambda: gateway.request("GET", "/readyz").status == 200, what="ready again")
    assert gateway.deliver("hmac", gateway.sources["hmac"].event()).status == 200


def test_the_spool_keeps_what_a_missing_month_cannot_take(start_gateway, database, tmp_path):
    gateway = start_gateway(config={"outage": "spool", "spool": {"directory": str(tmp_path / "spool")}})
    detach(database, 0)
    assert gateway.deliver("hmac", gateway.sources["hmac"].event()).status == 202
    assert gateway.deliver("hmac", gateway.sources["hmac"].event()).status == 202
    told = json.loads(gateway.admin("/health").body)
    assert told["status"] == "degraded"
    database.sql(the_sql(told["database"]["problem"]))
    process.wait_until(lambda: database.value("SELECT count(*) FROM campaign_events") == 2, what="the drain")
