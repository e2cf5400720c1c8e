"""Proves that the checker can fail: each kind of damage is planted in a database that real load has
filled, and the checker must see it, and nothing that is not there."""

import contextlib
import os
import time

from machine import checker, journal
from machine.world import World

EVENT = "(SELECT id FROM campaign_events WHERE enrollment_id IS NOT NULL AND instance_id IS NOT NULL LIMIT 1)"
COLUMNS = ('"timestamp", tx, delivery_id, instance_id, enrollment_id, source, provider, provider_event_id, '
           "key_scope, key_grade, event_type, provider_event_type, channel, payload, payload_bytes")

WAIT_S = 120

# (kind, what, SQL that plants it); each is planted alone, in a copy of the database.
DAMAGE = [
    ("LOST", "an acknowledged event and its key are gone",
     "WITH gone AS (DELETE FROM campaign_events WHERE instance_id IS NULL AND enrollment_id IS NULL AND id = "
     "(SELECT min(id) FROM campaign_events WHERE instance_id IS NULL AND enrollment_id IS NULL) RETURNING *) "
     "DELETE FROM event_keys k USING gone WHERE k.provider_event_id = gone.provider_event_id "
     "AND k.key_scope = gone.key_scope"),
    ("LOST", "a kept body is gone",
     "DELETE FROM quarantined_deliveries WHERE id = (SELECT min(id) FROM quarantined_deliveries)"),
    ("DUPLICATED", "an event is there twice",
     f"INSERT INTO campaign_events ({COLUMNS}) SELECT {COLUMNS} FROM campaign_events WHERE id = {EVENT}"),
    ("WRONG", "a payload has another value",
     "UPDATE campaign_events SET payload = jsonb_set(payload, '{n}', '7') WHERE id = (SELECT min(id) "
     "FROM campaign_events WHERE provider = 'hmac' AND payload IS NOT NULL)"),
    ("WRONG", "exact bytes differ in one",
     "UPDATE campaign_events SET payload_bytes = set_byte(payload_bytes, 9, 255) WHERE payload_bytes IS NOT NULL "
     "AND id = (SELECT min(id) FROM campaign_events WHERE payload_bytes IS NOT NULL)"),
    ("WRONG", "an event has another type",
     "UPDATE campaign_events SET event_type = CASE event_type WHEN 'viewed' THEN 'other' ELSE 'viewed' END "
     "WHERE id = (SELECT min(id) FROM campaign_events WHERE provider = 'hmac' AND payload IS NOT NULL)"),
    ("WRONG", "an event counts in an instance that is not its enrollment's",
     "UPDATE campaign_events v SET instance_id = (SELECT i.id FROM campaign_instances i "
     f"WHERE i.id <> v.instance_id LIMIT 1) WHERE id = {EVENT}"),
    ("WRONG", "a key without an event",
     "INSERT INTO event_keys (provider_event_id, key_scope) VALUES ('nobody', 'source:mail')"),
    ("COUNTER", "an instance's counter is one too high",
     "UPDATE campaign_instances SET total_opened = total_opened + 1 WHERE id = (SELECT min(id::text)::uuid "
     "FROM campaign_instances)"),
    ("COUNTER", "an enrollment's counter is one too low",
     f"UPDATE campaign_enrollments SET total_events = total_events - 1 WHERE id = (SELECT enrollment_id FROM "
     f"campaign_events WHERE id = {EVENT})"),
    ("COUNTER", "last_event_at is late",
     "UPDATE campaign_enrollments SET last_event_at = last_event_at + interval '1 second' WHERE id = (SELECT "
     f"enrollment_id FROM campaign_events WHERE id = {EVENT})"),
    ("COUNTER", "an orphan whose enrollment is there",
     "INSERT INTO campaign_enrollments (id, instance_id) SELECT enrollment_id, (SELECT min(id::text)::uuid FROM "
     "campaign_instances) FROM campaign_events WHERE instance_id IS NULL AND enrollment_id IS NOT NULL LIMIT 1"),
    ("PHANTOM", "an event that nobody sent",
     "WITH made AS (INSERT INTO event_keys (provider_event_id, key_scope) VALUES ('ghost', 'source:mail')) "
     "INSERT INTO campaign_events (source, provider, provider_event_id, key_scope, payload) "
     "VALUES ('mail', 'hmac', 'ghost', 'source:mail', '{}')"),
    ("PHANTOM", "a kept body that nobody sent",
     "INSERT INTO quarantined_deliveries (source, body, body_sha256) VALUES ('mail', 'x', sha256('x'))"),
]


def lie(paths, change):
    """Copies of the journals in which change(answer) has replaced the first answer that it can."""
    copies, done = [], False
    for path in paths:
        copies.append(path + ".lie")
        with open(path, encoding="utf-8") as source, open(copies[-1], "w", encoding="utf-8") as copy:
            for line in source:
                fields = line.rstrip("\n").split("\t")
                if fields[0] == "O" and not done:
                    answer = journal.Answer(*map(int, fields[2:]))
                    changed = change(answer)
                    if changed:
                        line, done = "\t".join(map(str, ["O", fields[1], *changed])) + "\n", True
                copy.write(line)
    assert done, "no answer to change"
    return copies


LIES = [
    ("a duplicate is called captured", lambda answer: answer._replace(captured=1, duplicates=0)
     if answer.status == 200 and (answer.captured, answer.duplicates) == (0, 1) else None),
    ("numbers that do not add up", lambda answer: answer._replace(duplicates=answer.duplicates + 1)
     if answer.status == 200 else None),
    ("200 with something in the spool", lambda answer: answer._replace(spooled=1, captured=answer.captured - 1)
     if answer.status == 200 and answer.captured else None),
]


def run(binary):
    world = World("plain", binary, "refuse")
    try:
        world.begin("self-test", 700, 1)
        world.wait_for_commits()
        give_up = time.monotonic() + WAIT_S
        # Bodies without an event are rare: one is needed to be damaged.
        while world.clients.sums()["acked_events"] < 3000 or not world.primary.value(
                "SELECT count(*) FROM quarantined_deliveries", database=world.database):
            assert world.clients.all[0].child.poll() is None and time.monotonic() < give_up
            world.clients.first_us(0.05)
        world.clients.finish()
        world.enroll_late(len(world.late_waiting) // 2)
        problems = world.settle()
        for gateway in world.gateways:
            gateway.stop()
        problems += damage_all(world, [binary, "audit", "--database", world.primary.owner_url(world.database)])
    finally:
        world.remove()
    for problem in problems:
        print(f"tests/faults/run --self-test: {problem}")
    print(f"tests/faults/run --self-test: {len(DAMAGE) + len(LIES)} kinds of damage, {len(problems)} not seen as they are")
    return 1 if problems else 0


def damage_all(world, audit):
    paths, problems = world.clients.paths, []

    def check(database, journals):
        with contextlib.closing(world.primary.connect(database)) as connection:
            return checker.check(connection, journals, [*audit[:-1], world.primary.owner_url(database)])

    clean = check(world.database, paths)
    if not clean.clean:
        problems.append(f"without damage: {dict(clean.counts)} {dict(clean.examples)}")
    for kind, what, sql in DAMAGE:
        damaged = f"{world.database}_damaged"
        world.primary.sql(f"CREATE DATABASE {damaged} OWNER oncehook_owner TEMPLATE {world.database}")
        with contextlib.closing(world.primary.connect(damaged)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            if cursor.rowcount < 1:
                problems.append(f"{what}: nothing to damage")
        found = check(damaged, paths)
        if not found.counts[kind]:
            problems.append(f"{kind} is not seen: {what}: {dict(found.counts)}")
        world.primary.sql(f"DROP DATABASE {damaged} WITH (FORCE)")
    for what, change in LIES:
        copies = lie(paths, change)
        if not check(world.database, copies).counts["ANSWER"]:
            problems.append(f"ANSWER is not seen: {what}")
        for path in copies:
            os.unlink(path)
    return problems
