"""Compares the clients' journals with PostgreSQL, by SQL of its own. What may never happen:

  LOST        acknowledged (200, or 202 once the spool is drained), and not there
  DUPLICATED  one key stored as two events
  WRONG       stored, but not as it was sent: payload, type, enrollment, instance
  COUNTER     a counter that is not the number of its events; `oncehook audit` must see the same
  PHANTOM     stored, and never sent
  ANSWER      an answer whose numbers cannot be true: they do not add up, an event that had been
              acknowledged is captured again, more is called captured than is stored
What was sent and never acknowledged may be there or not."""

import collections
import re
import subprocess

from machine import journal
from machine.traffic import TYPES

KINDS = ("LOST", "DUPLICATED", "WRONG", "COUNTER", "PHANTOM", "ANSWER")
COUNTED = TYPES[:8]  # those with a total at the instance
EXAMPLES = 5

STORED = f"""
SELECT v.key_scope, v.provider_event_id,
       left(encode(sha256(coalesce(v.payload_bytes, convert_to(v.payload::text, 'UTF8'))), 'hex'),
            {journal.HASH_DIGITS}),
       CASE WHEN (v.payload IS NULL) = (v.payload_bytes IS NULL) THEN 'payload'
            WHEN v.provider <> 'hmac' THEN ''
            WHEN v.payload IS NULL THEN ''
            WHEN v.event_type <> v.payload->>'type' THEN 'event_type'
            WHEN v.enrollment_id::text IS DISTINCT FROM v.payload->>'enrollment_id' THEN 'enrollment_id'
            WHEN v.enrollment_id IS NULL AND v.instance_id::text IS DISTINCT FROM v.payload->>'instance_id'
                 THEN 'instance_id'
            ELSE '' END
       || CASE WHEN v.instance_id IS NOT NULL AND v.enrollment_id IS NOT NULL
                    AND v.instance_id IS DISTINCT FROM e.instance_id THEN ' instance of the enrollment'
               ELSE '' END
  FROM campaign_events v LEFT JOIN campaign_enrollments e ON e.id = v.enrollment_id"""

KEPT = "SELECT source, encode(body_sha256, 'hex'), encode(sha256(body), 'hex') FROM quarantined_deliveries"

LEDGER = """
SELECT coalesce(k.key_scope, v.key_scope), coalesce(k.provider_event_id, v.provider_event_id)
  FROM event_keys k FULL JOIN campaign_events v
       ON v.provider_event_id = k.provider_event_id AND v.key_scope = k.key_scope
 WHERE k.key_scope IS NULL OR v.key_scope IS NULL"""

INSTANCES = f"""
SELECT 'campaign_instances', i.id::text, c.name, c.counter, c.events
  FROM campaign_instances i
  LEFT JOIN (SELECT instance_id, {", ".join(f"sum((event_type = '{t}')::int) AS {t}" for t in COUNTED)}
               FROM campaign_events GROUP BY instance_id) n ON n.instance_id = i.id
 CROSS JOIN LATERAL (VALUES
       ('total_enrolled', i.total_enrolled,
        (SELECT count(*) FROM campaign_enrollments e WHERE e.instance_id = i.id)),
       {", ".join(f"('total_{t}', i.total_{t}, coalesce(n.{t}, 0))" for t in COUNTED)}
     ) c(name, counter, events)
 WHERE c.counter <> c.events"""

ENROLLMENTS = """
SELECT 'campaign_enrollments', e.id::text, c.name, c.counter, c.events
  FROM campaign_enrollments e
  LEFT JOIN (SELECT enrollment_id, count(*) AS events, max(least("timestamp", received_at)) AS last
               FROM campaign_events WHERE instance_id IS NOT NULL GROUP BY enrollment_id) n
       ON n.enrollment_id = e.id
 CROSS JOIN LATERAL (VALUES
       ('total_events', e.total_events::text, coalesce(n.events, 0)::text),
       ('last_event_at', e.last_event_at::text, n.last::text)) c(name, counter, events)
 WHERE c.counter IS DISTINCT FROM c.events"""

UNBOUND = """
SELECT 'campaign_events', v.id::text, 'instance_id', 'null', e.instance_id::text
  FROM campaign_events v JOIN campaign_enrollments e ON e.id = v.enrollment_id
 WHERE v.instance_id IS NULL"""


class Findings:
    """What a check found: .counts, .examples by kind, .totals of what it looked at."""

    def __init__(self):
        self.counts = collections.Counter({kind: 0 for kind in KINDS})
        self.examples = collections.defaultdict(list)
        self.totals = {}

    def add(self, kind, what):
        self.counts[kind] += 1
        if len(self.examples[kind]) < EXAMPLES:
            self.examples[kind].append(what)

    @property
    def clean(self):
        return not any(self.counts.values())


def rows_of(connection, sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


class Sent:
    """What the journals say, by key."""

    def __init__(self, paths):
        self.attempts = [pair for path in paths for pair in journal.read(path)]
        self.hashes = collections.defaultdict(set)
        self.acked = {}                    # key -> number of the first attempt that was acknowledged
        self.committed_us = {}             # key -> when the first 200 arrived
        self.statuses = collections.Counter()
        for attempt, answer in self.attempts:
            status = answer.status if answer else 0
            self.statuses[status] += 1
            for key, digest in attempt.keys:
                name = self.name(attempt, key)
                self.hashes[name].add(digest)
                if status in (200, 202):
                    self.acked.setdefault(name, attempt.number)
                if status == 200:
                    earliest = self.committed_us.get(name, answer.time_us)
                    self.committed_us[name] = min(earliest, answer.time_us)

    @staticmethod
    def name(attempt, key):
        return (attempt.source if key.startswith(journal.QUARANTINED) else attempt.scope, key)


def check_stored(connection, sent, found):
    """LOST, DUPLICATED, WRONG, PHANTOM; the set of stored keys."""
    stored = set()
    for scope, key, digest, wrong in rows_of(connection, STORED):
        name = (scope, key)
        if name in stored:
            found.add("DUPLICATED", f"{name}")
        stored.add(name)
        if name not in sent.hashes:
            found.add("PHANTOM", f"{name}")
        elif wrong or digest not in sent.hashes[name]:
            found.add("WRONG", f"{name}: {wrong.strip() or 'payload differs'}")
    for scope, key in rows_of(connection, LEDGER):
        found.add("WRONG", f"{(scope, key)}: ledger and events do not name the same keys")
    for source, named, real in rows_of(connection, KEPT):
        name = (source, journal.QUARANTINED + named)
        stored.add(name)
        if name not in sent.hashes:
            found.add("PHANTOM", f"{name} in quarantined_deliveries")
        elif named != real:
            found.add("WRONG", f"{name}: bytes differ")
    for name, number in sent.acked.items():
        if name not in stored:
            found.add("LOST", f"{name}, attempt {number}")
    return stored


def check_answers(sent, stored, found, commits_were_lost):
    captured_total = 0
    captured_alone = collections.Counter()
    for attempt, answer in sent.attempts:
        if answer is None or answer.status not in (200, 202):
            continue
        where = f"attempt {attempt.number} of {attempt.source}"
        names = [Sent.name(attempt, key) for key, _ in attempt.keys]
        total = answer.captured + answer.duplicates + answer.quarantined + answer.spooled
        if total != len(names) or answer.orphans > answer.captured:
            found.add("ANSWER", f"{where}: {answer} for {len(names)} events")
        if answer.status == 200 and answer.spooled or answer.status == 202 and not answer.spooled:
            found.add("ANSWER", f"{where}: {answer.status} with spooled={answer.spooled}")
        captured_total += answer.captured
        if commits_were_lost or names[0][1].startswith(journal.QUARANTINED):
            continue
        before = {name for name in names if sent.committed_us.get(name, 1 << 62) < attempt.time_us}
        if answer.status == 200 and answer.captured > len(set(names) - before):
            found.add("ANSWER", f"{where}: captured {answer.captured}, {len(before)} were acknowledged before")
        if len(names) == 1 and answer.captured:
            captured_alone[names[0]] += 1
    for name, times in captured_alone.items():
        if times > 1:
            found.add("ANSWER", f"{name} was called captured {times} times")
    events = {name for name in stored if not name[1].startswith(journal.QUARANTINED)}
    if not commits_were_lost and captured_total > len(events):
        found.add("ANSWER", f"{captured_total} were called captured, {len(events)} are stored")


def check_counters(connection, audit, found, binds):
    own = rows_of(connection, INSTANCES) + rows_of(connection, ENROLLMENTS)
    if binds:
        own += rows_of(connection, UNBOUND)
    for row in own:
        found.add("COUNTER", " ".join(map(str, row)))
    run = subprocess.run(audit, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300,
                         check=False)
    drifts = {tuple(line.split()[1:3]) for line in run.stdout.splitlines()
              if re.match(r"campaign_(instances|enrollments) ", line)}
    mine = {row[1:3] for row in own if row[2].startswith("total_")}
    if run.returncode not in (0, 1) or (run.returncode == 0) != (not drifts) or drifts != mine:
        found.add("COUNTER", f"audit left with {run.returncode} and {len(drifts)} drifts, own SQL sees "
                             f"{len(mine)}: {(run.stdout + run.stderr)[-300:]}")


def check(connection, paths, audit, binds=True, commits_were_lost=False):
    """All of it. connection: psycopg2, autocommit; audit: the command line of `oncehook audit`; binds:
    orphans whose enrollment came must be bound by now; commits_were_lost: by an asynchronous failover,
    so that an acknowledged event may rightly be captured once more."""
    found, sent = Findings(), Sent(paths)
    stored = check_stored(connection, sent, found)
    check_answers(sent, stored, found, commits_were_lost)
    check_counters(connection, audit, found, binds)
    found.totals = {"attempts": len(sent.attempts), "keys": len(sent.hashes), "stored": len(stored),
                    "acked": len(sent.acked), "unknown": sent.statuses[0],
                    **{str(status): count for status, count in sorted(sent.statuses.items()) if status}}
    return found
