"""oncehook forget: the person leaves, every count stays."""

import hashlib
import json
import os
import subprocess
import threading
import uuid

import pytest

from support.capture import call, capture, event
from support.gateway import BINARY, environment, oncehook
from support.postgres import OWNER
from support.process import wait_until

WHO = "Ann.Example@example.com"


def forget(database, *arguments, code=0):
    done = oncehook("forget", "--database", database.owner_url, *arguments, check=False, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    return {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines() if line.split()[1].isdigit()}


def audit(database):
    return oncehook("audit", "--database", database.gateway_url, check=False).returncode


def quarantine(database, body, url="/in/test", headers="{}"):
    return database.value("INSERT INTO quarantined_deliveries (source, url, headers, body, body_sha256) VALUES "
                          "('test', %s, %s, %s, %s) RETURNING id", url, headers, body, hashlib.sha256(body).digest())


@pytest.fixture
def people(database):
    """One contact in two instances and another one in one of them, all with events of both forms."""
    (one, (first, other)), (two, (second,)) = database.seed(1, 2)[0], database.seed(1, 1)[0]
    contact = str(uuid.uuid4())
    database.sql("UPDATE campaign_enrollments SET contact_id = %s WHERE id IN (%s, %s)", contact, first, second)
    database.sql("UPDATE campaign_enrollments SET next_action_at = now()")
    database.events = [event(enrollment=who, type=kind, payload={"email": WHO, "who": who})
                       for who in (first, second, other) for kind in ("sent", "opened", "other")]
    database.events += [event(enrollment=first, payload=None, bytes=b"\x00" + WHO.encode())]
    capture(database.gateway_url, *database.events)
    database.contact, database.first, database.second, database.other = contact, first, second, other
    return database


def kept(database, enrollment):
    return database.value("SELECT count(*) FROM campaign_events WHERE enrollment_id = %s AND "
                          "(payload IS NOT NULL OR payload_bytes IS NOT NULL)", enrollment)


def counters(database):
    return database.sql("SELECT id, total_enrolled, total_sent, total_opened FROM campaign_instances ORDER BY 1"), \
        database.sql("SELECT id, total_events, last_event_at FROM campaign_enrollments ORDER BY 1"), \
        database.sql("SELECT provider_event_id, key_scope, received_at FROM event_keys ORDER BY 1, 2")


def test_a_contact_leaves_and_every_count_stays(people):
    before = counters(people)
    wanted = forget(people, "--contact", people.contact, "--dry-run")
    assert wanted == {"enrollments": 2, "events": 7, "quarantine": 0, "contact": 0} and kept(people, people.first) == 4
    assert forget(people, "--contact", people.contact) == wanted
    assert kept(people, people.first) == kept(people, people.second) == 0 and kept(people, people.other) == 3
    assert counters(people) == before and audit(people) == 0
    # The row is nobody's, and nothing is due for it.
    assert people.value("SELECT count(*) FROM campaign_enrollments WHERE contact_id = %s", people.contact) == 0
    assert people.sql("SELECT id::text, next_action_at IS NULL FROM campaign_enrollments WHERE forgotten_at IS NOT NULL "
                      "ORDER BY 1") == [(one, True) for one in sorted([people.first, people.second])]
    # A redelivery is a duplicate and brings nothing back.
    assert set(capture(people.gateway_url, *people.events)) == {"d"} and kept(people, people.first) == 0
    # Again: nothing.
    for again in (("--contact", people.contact), ("--enrollment", people.first)):
        assert set(forget(people, *again).values()) == {0}
    assert people.sql("SELECT workflow_name, status, context FROM workflow_states ORDER BY started_at LIMIT 1") == [
        ("oncehook.forget", "completed", {"enrollments": 2, "events": 7, "quarantined": 0})]


@pytest.mark.parametrize("done", ["retire_month_v1(60, true)", "fold_month_v1('campaign_events_2001_03')"])
def test_a_month_that_was_retired_and_is_not_dropped_yet_loses_them_too(people, done):
    """It may wait for its archive for long, and the archive is made of it."""
    people.sql("CREATE TABLE campaign_events_2001_03 (LIKE campaign_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    people.sql(f"ALTER TABLE campaign_events_2001_03 OWNER TO {OWNER}")
    people.sql("ALTER TABLE campaign_events ATTACH PARTITION campaign_events_2001_03 "
               "FOR VALUES FROM ('2001-03-01Z') TO ('2001-04-01Z')")
    people.sql("UPDATE event_keys SET received_at = '2001-03-15'")
    people.sql("UPDATE campaign_events SET received_at = '2001-03-15'")
    people.sql("SELECT retire_month_v1(60, %s)", "true" in done)
    if "fold" in done:
        people.sql(f"SELECT {done}")
    before = counters(people)
    wanted = forget(people, "--contact", people.contact, "--dry-run")
    assert wanted["events"] == 7 and forget(people, "--contact", people.contact) == wanted
    assert people.sql("SELECT enrollment_id::text, count(*) FROM campaign_events_retired "
                      "WHERE payload IS NOT NULL OR payload_bytes IS NOT NULL GROUP BY 1") == [(people.other, 3)]
    assert counters(people) == before and audit(people) == 0
    assert people.value("SELECT context ->> 'events' FROM workflow_states WHERE workflow_name = 'oncehook.forget'") == "7"


def test_an_id_that_names_nobody_is_said(people):
    for whom in ("--contact", "--enrollment"):
        done = oncehook("forget", "--database", people.owner_url, whom, str(uuid.uuid4()), "--dry-run", check=False)
        assert done.returncode == 0 and "nothing in the database names them" in done.stderr
    done = oncehook("forget", "--database", people.owner_url, "--contact", people.contact, "--dry-run", check=False)
    assert done.stderr == ""


def test_an_enrollment_alone_and_what_comes_later_is_counted_without_payload(people):
    forget(people, "--enrollment", people.first)
    assert kept(people, people.first) == 0 and kept(people, people.second) == 3
    later = [event(enrollment=people.first, type="sent", payload={"email": WHO}),
             event(enrollment=people.first, payload=None, bytes=b"\x00"), event(enrollment=people.second)]
    sent = people.value("SELECT sum(total_sent) FROM campaign_instances")
    assert capture(people.gateway_url, *later) == "ccc"
    assert kept(people, people.first) == 0 and kept(people, people.second) == 4
    assert people.value("SELECT sum(total_sent) FROM campaign_instances") == sent + 1 and audit(people) == 0
    # The contact's other enrollments are found by the contact still.
    assert forget(people, "--contact", people.contact)["enrollments"] == 1


def test_events_of_an_enrollment_that_is_gone_lose_their_payload_too(database):
    gone = str(uuid.uuid4())
    assert capture(database.gateway_url, event(enrollment=gone), event(enrollment=gone)) == "oo"
    assert forget(database, "--enrollment", gone) == {"enrollments": 0, "events": 2, "quarantine": 0, "contact": 0}
    assert kept(database, gone) == 0 and audit(database) == 0


NAMING = [b"broken {%(id)s", b"ID=%(ID)s&", b"%(plain)s", b'{"to":"ann.example@EXAMPLE.com"', b"email=ann.example%%40example.com&",
          b'{"a":"\\nann.example\\u0040example.com."', b"\xff\x00 <ann.example@example.com>"]
OTHERS = [b"joann.example@example.com", b"ann.example@example.com.au", b"ann-example@example.com", b"annxexample@example.com", b"{"]


def test_quarantined_bodies_that_name_the_person_are_emptied_and_their_hashes_stay(people):
    people.sql("INSERT INTO imported_contacts (email, id) VALUES (%s, %s), ('other@example.com', gen_random_uuid())",
               WHO, people.contact)
    people.sql("INSERT INTO enrichment_cache (type, key, contact_email) VALUES ('contact', 'k', %s), "
               "('contact', %s, NULL), ('contact', 'x', 'other@example.com')", WHO.lower(), WHO)
    words = {b"id": people.second.encode(), b"ID": people.second.upper().encode(),
             b"plain": people.contact.replace("-", "").encode()}
    mine = {quarantine(people, body % words) for body in NAMING}
    mine.add(quarantine(people, b"url", url=f"/in/test?for={people.first}"))
    mine.add(quarantine(people, b"headers", headers=json.dumps({"X-To": WHO})))
    others = {quarantine(people, body) for body in OTHERS}
    hashes = people.sql("SELECT id, body_sha256 FROM quarantined_deliveries ORDER BY id")
    wanted = forget(people, "--contact", people.contact, "--dry-run")
    assert wanted["quarantine"] == len(mine) and wanted["contact"] == 3
    assert people.value("SELECT count(*) FROM quarantined_deliveries WHERE body IS NULL") == 0
    assert forget(people, "--contact", people.contact) == wanted
    assert {row[0] for row in people.sql("SELECT id FROM quarantined_deliveries WHERE body IS NULL AND url IS NULL "
                                         "AND headers IS NULL AND resolved_at IS NOT NULL")} == mine
    assert {row[0] for row in people.sql("SELECT id FROM quarantined_deliveries WHERE body IS NOT NULL")} == others
    assert people.sql("SELECT id, body_sha256 FROM quarantined_deliveries ORDER BY id") == hashes
    assert people.sql("SELECT email FROM imported_contacts") == [("other@example.com",)]
    assert people.sql("SELECT key FROM enrichment_cache") == [("x",)]
    # The same body again only counts.
    body = NAMING[0] % words
    people.sql("SELECT quarantine_v1('test', 'hmac', 'x', 'POST', '/', '{}', %s, %s)", body, hashlib.sha256(body).digest())
    assert people.value("SELECT count(*) FROM quarantined_deliveries WHERE body IS NOT NULL") == len(others)


def test_a_capture_under_way_is_waited_for_and_loses_its_payload(people):
    """It read the enrollment before it was marked: its events are cleaned by the walk that comes after."""
    with people.connect() as holder, holder.cursor() as cursor:
        holder.autocommit = False
        assert call(cursor, event(enrollment=people.first, payload={"email": WHO})) == "c"
        done = []
        beside = threading.Thread(target=lambda: done.append(forget(people, "--enrollment", people.first)))
        beside.start()
        wait_until(lambda: people.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND "
                                        "application_name = 'oncehook forget'"), what="forget waits for the capture")
        holder.commit()
    beside.join(60)
    assert done and done[0]["events"] == 5 and kept(people, people.first) == 0 and audit(people) == 0


def test_many_events_go_in_batches_while_captures_run(database):
    (instance, (one, two)), = database.seed(1, 2)
    for _ in range(3):
        capture(database.gateway_url, *[event(enrollment=one) for _ in range(1000)])
    stop, letters = threading.Event(), []

    def deliver():
        while not stop.is_set():
            letters.append(capture(database.gateway_url, *[event(enrollment=who) for who in (one, two)]))
    beside = threading.Thread(target=deliver)
    beside.start()
    try:
        assert forget(database, "--enrollment", one)["events"] >= 3000
    finally:
        stop.set()
        beside.join(30)
    assert set(letters) == {"cc"} and kept(database, one) == 0 and kept(database, two) == len(letters)
    assert audit(database) == 0
    assert database.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0


@pytest.mark.parametrize("arguments", [[], ["--enrollment", "7"], ["--contact", "x"], ["--email", "a@b.c"],
                                       ["--enrollment", str(uuid.uuid4()), "--contact", str(uuid.uuid4())],
                                       ["--contact", str(uuid.uuid4()), "--email", "nobody"]])
def test_wrong_usage_is_2_and_changes_nothing(database, arguments):
    done = oncehook("forget", "--database", database.owner_url, *arguments, check=False)
    assert done.returncode == 2 and done.stderr and not done.stdout


def test_what_it_says_is_to_be_read_and_copied(people):
    """Plain ids, each as the option that takes it; one is not many."""
    people.sql("INSERT INTO imported_contacts (id, email) VALUES (%s, %s)", people.contact, WHO)
    where = ("--database", people.owner_url, "--contact", people.contact)
    done = oncehook("forget", *where, "--dry-run").stdout
    assert "contact       1 row would be deleted\n" in done and "enrollments   2 would be marked" in done
    done = oncehook("forget", *where).stdout
    assert "contact       1 row is deleted\n" in done and "enrollments   2 are marked" in done, done
    assert "ids           not found by the contact any more; for a second run:\n" in done
    assert {f"              --enrollment {one}" for one in (people.first, people.second)} == set(done.splitlines()[-2:])
    assert "{" not in done


def test_it_is_the_owners_and_says_so_to_the_gateways_role(database):
    done = oncehook("forget", "--database", database.gateway_url, "--contact", str(uuid.uuid4()), check=False)
    assert done.returncode == 2 and "permission denied" in done.stderr


# ---- this node's spool ----------------------------------------------------------------------

@pytest.fixture
def spooled(database, tmp_path):
    """50 events in a spool; number n names the enrollment whose uuid begins with n."""
    directory = str(tmp_path / "spool")
    put = [os.path.join(os.path.dirname(BINARY), "bench", "spool"), "put", directory, "--events", "50"]
    subprocess.run(put, check=True, capture_output=True, timeout=60, env=environment())
    config = tmp_path / "oncehook.yaml"
    config.write_text(json.dumps({
        "listen": {"http": "127.0.0.1:0"}, "database": {"url": database.gateway_url, "owner_url": database.owner_url},
        "outage": "spool", "spool": {"directory": directory},
        "sources": [{"name": "shop", "provider": "hmac", "secrets": ["s3cret-of-the-shop"], "header": "X-Signature"}]}))
    return str(config)


def in_files(directory, text):
    """The files of the directory that hold the text."""
    return [name for name in os.listdir(directory)
            if text.encode() in open(os.path.join(directory, name), "rb").read()]


def test_what_waits_in_the_spool_loses_the_person_and_is_counted(database, spooled):
    marked, gone = (str(uuid.UUID(bytes=number.to_bytes(8, "little") + bytes(8))) for number in (7, 9))
    (instance, _), = database.seed()
    database.sql("INSERT INTO campaign_enrollments (id, instance_id) VALUES (%s, %s)", marked, instance)

    def run(who, *options):
        done = oncehook("forget", "-c", spooled, "--enrollment", who, *options, check=False)
        return done.returncode, next(line for line in done.stdout.splitlines() if line.startswith("spool")).split()[1]
    assert run(marked, "--dry-run") == run(marked) == run(gone) == (0, "1") and run(marked) == (0, "0")
    assert oncehook("spool", "drain", "-c", spooled).stdout.startswith("50 drained")
    assert kept(database, marked) == 0 and kept(database, gone) == 0
    assert database.value("SELECT count(*) FROM campaign_events") == 50
    assert database.value("SELECT count(*) FROM campaign_events WHERE payload IS NOT NULL OR payload_bytes <> ''") == 48
    assert audit(database) == 0


def test_a_spool_that_cannot_be_read_is_not_passed_over(database, spooled):
    """What is done and what is not, in the words that a person reads; nothing looks finished."""
    where = ("forget", "-c", spooled, "--enrollment", str(uuid.UUID(bytes=(7).to_bytes(8, "little") + bytes(8))))
    with open(spooled, encoding="utf-8") as file:
        directory = json.load(file)["spool"]["directory"]
    os.rename(directory, directory + ".aside")
    with open(directory, "w", encoding="ascii") as file:
        file.write("no directory")
    done = oncehook(*where, check=False)
    assert done.returncode == 2 and "oncehook forget: spool: " in done.stderr
    assert done.stdout.splitlines()[-1] == \
        "spool         NOT DONE: what waits there may still name the person; the rest is done. Mend it, run this again"
    done = oncehook(*where, "--dry-run", check=False)
    assert done.returncode == 2 and done.stdout.splitlines()[-1] == "spool         not looked at"
    os.remove(directory)
    os.rename(directory + ".aside", directory)
    assert "spool         1 record in " in oncehook(*where).stdout


def test_a_contact_leaves_the_spool_too(database, spooled):
    """Found by the contact: its address, and its enrollments' ids, are looked for in the records."""
    enrollment, contact = str(uuid.UUID(bytes=(7).to_bytes(8, "little") + bytes(8))), str(uuid.uuid4())
    (instance, _), = database.seed()
    database.sql("INSERT INTO campaign_enrollments (id, instance_id, contact_id) VALUES (%s, %s, %s)",
                 enrollment, instance, contact)
    for options in (("--dry-run",), ()):
        done = oncehook("forget", "-c", spooled, "--contact", contact, *options, check=False)
        assert done.returncode == 0, done.stderr
        assert next(line for line in done.stdout.splitlines() if line.startswith("spool")).split()[1] == "1"
    assert oncehook("spool", "drain", "-c", spooled).stdout.startswith("50 drained")
    assert kept(database, enrollment) == 0 and audit(database) == 0


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_nothing_of_the_person_is_left_in_the_files_of_the_spool(start_gateway, database, tmp_path, end):
    """Half a thousand records, every fifth of the person, in several segments; the gateway is stopped, or killed
    with its WAL as it was."""
    directory = tmp_path / "spool"
    (_, enrollments), = database.seed(1, 5)
    away = database.gateway_url.replace(f":{database.cluster.port}/", ":9/")
    config = {"outage": "spool", "spool": {"directory": str(directory), "bytes": "2MiB"},
              "database": {"url": away, "owner_url": database.owner_url}}
    gateway = start_gateway(config)
    source, planted = gateway.sources["hmac"], "Ann.Planted@example.com"
    for number in range(100):
        events = [source.event(enrollment_id=who, note=f"{planted if who == enrollments[0] else 'other@example.com'} " * 9)
                  for who in enrollments]
        assert [gateway.deliver("hmac", one, tls=False).status for one in events] == [202] * 5
    body = b"no JSON for " + planted.lower().encode()
    assert gateway.post("hmac", body).status == 202

    def run(*options):
        return oncehook("forget", "-c", gateway.config_path, "--enrollment", enrollments[0], "--email", planted,
                        *options, check=False)
    done = run()
    assert done.returncode == 1 and f"which process {gateway.child.pid} has" in done.stdout, done.stdout + done.stderr
    getattr(gateway, end)()
    assert len(in_files(directory, planted)) > 1 and "101 records" in run("--dry-run").stdout
    others = sum(open(directory / name, "rb").read().count(b"other@example.com") for name in os.listdir(directory))
    done = run()
    assert done.returncode == 0 and "101 records" in done.stdout, done.stdout + done.stderr
    assert in_files(directory, planted) == in_files(directory, planted.lower()) == []
    assert others and in_files(directory, "other@example.com")

    with open(gateway.config_path, encoding="utf-8") as file:
        text = file.read()
    with open(gateway.config_path, "w", encoding="utf-8") as file:
        file.write(text.replace(away, database.gateway_url))
    done = oncehook("spool", "drain", "-c", gateway.config_path)
    assert done.stdout == "501 drained, 0 lost, 0 left\n", done.stdout
    assert database.value("SELECT count(*) FROM campaign_events") == 500 and database.counter_drift() == []
    assert kept(database, enrollments[0]) == 0 and kept(database, enrollments[1]) == 100 and audit(database) == 0
    assert database.sql("SELECT body, reason FROM quarantined_deliveries")[0][1].startswith("forgotten")
    gateway.child = None if end == "stop" else gateway.child
