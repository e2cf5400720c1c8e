"""One process that contends for locks: `python3 -m support.contend '{"part": …}'`, a JSON line at its end.

Every part does what some part of the system or a user does, as often as it can, for `seconds`. What one
transaction offered is only known to have happened after its commit, so parts count commits alone."""

import collections
import contextlib
import hashlib
import hmac
import http.client
import json
import random
import sys
import threading
import time
import uuid

import psycopg2

from support import capture as sql

RETRY = ("40P01", "40001", "55P03", "57014")


def stable_uuid(*words):
    return str(uuid.UUID(bytes=hashlib.sha256(repr(words).encode()).digest()[:16]))


def instance_id(number):
    return stable_uuid("instance", number)


def enrollment_id(number):
    return stable_uuid("enrollment", number)


def reference_id(enrollment):
    """Of the one reference that an enrollment has, its own id as text."""
    digest = bytearray(hashlib.sha256(b"source:r\0" + enrollment.encode()).digest()[:16])
    digest[6], digest[8] = digest[6] & 15 | 128, digest[8] & 63 | 128
    return str(uuid.UUID(bytes=bytes(digest)))


class Part:
    """One connection's work. self.n: what happened; SQLSTATE of every error among it."""

    def __init__(self, job, number):
        self.job, self.url, self.n = job, job["url"], collections.Counter()
        self.rng = random.Random(f"{job['seed']}:{job['part']}:{job['process']}:{number}")
        self.number, self.pending, self.error = number, None, None
        self.seen = self.after = None

    def run(self):
        try:
            self.contend(time.monotonic() + self.job["seconds"])
        except Exception as error:  # main() raises it
            self.error = error

    def contend(self, until):
        if self.job["part"] == "deliver":
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.job["port"], timeout=20)) as client:
                while time.monotonic() < until:
                    self.n.update(self.deliver(client))
            return
        with contextlib.closing(psycopg2.connect(self.url)) as connection:
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '5s'")
            connection.commit()
            while time.monotonic() < until:
                try:
                    with connection.cursor() as cursor:
                        after = getattr(self, self.job["part"])(cursor)
                    connection.commit()
                    self.n["transactions"] += 1
                    self.n.update(after or {})
                except psycopg2.Error as error:
                    connection.rollback()
                    self.n[error.pgcode or "connection"] += 1
                    if error.pgcode not in RETRY:
                        raise

    # ---- the gateway ----

    def event(self):
        """An event out of a pool that all processes draw from: the same key may come from any of them,
        always with the same enrollment, with whatever instance."""
        job, rng = self.job, self.rng
        number = rng.randrange(job["keys"])
        same = random.Random(f"{job['seed']}:event:{number}")
        hot = same.random() < 0.3
        enrollment = enrollment_id(same.randrange(job["hot"] if hot else job["pool"]))
        kind = same.choice(["enrollment"] * 8 + ["instance", "nobody"])
        claimed = rng.choice([None, instance_id(rng.randrange(job["instances"])), stable_uuid("none", number)])
        if same.random() < 0.2:
            enrollment = reference_id(enrollment)
        return sql.event(id=f"evt_{number // 2}", scope=f"source:{'ab'[number % 2]}",
                         type=same.choice(sql.TYPES),
                         enrollment=enrollment if kind == "enrollment" else None,
                         instance={"enrollment": claimed, "nobody": None,
                                   "instance": instance_id(same.randrange(job["instances"]))}[kind])

    def gateway(self, cursor):
        events = [self.event() for _ in range(self.rng.choice([1, 2, 10, 60]))]
        if self.rng.random() < 0.8:  # opposite orders
            events.sort(key=lambda one: (one["enrollment"] or "", one["id"]), reverse=self.number % 2 == 0)
        letters = sql.call(cursor, *events, function=self.rng.choice(["capture_v1", "capture_v2"]))
        assert len(letters) == len(events)
        if self.rng.random() < 0.05:
            body = b"body %d" % self.rng.randrange(5)
            cursor.execute("SELECT quarantine_v1('a', 'hmac', 'unreadable', 'POST', '/in/a', '{}', %s, %s)",
                           (body, hashlib.sha256(body).digest()))
        if self.rng.random() < 0.01:
            cursor.connection.commit()  # months are made in a transaction of their own
            cursor.execute("SELECT oncehook_make_months(%s)", (self.rng.randrange(3, 9),))
        return collections.Counter(letters)

    def deliver(self, client):
        """The same events as signed deliveries, to a real gateway."""
        events = [self.event() for _ in range(self.rng.choice([1, 2, 10, 60]))]
        source = events[0]["scope"][-1]
        events = [{"id": one["id"], "type": one["type"], "enrollment_id": one["enrollment"],
                   "instance_id": one["instance"]} for one in events if one["scope"][-1] == source]
        body = json.dumps(events).encode()
        client.request("POST", f"/in/{source}", body, {
            "Content-Type": "application/json",
            "X-Signature": hmac.new(self.job["secret"].encode(), body, hashlib.sha256).hexdigest()})
        answer = client.getresponse()
        said = answer.read()
        if answer.status != 200:
            assert answer.status == 503, (answer.status, said)
            return {"503": 1}
        said = json.loads(said)
        assert said["captured"] + said["duplicates"] == len(events), said
        return {"transactions": 1, "c": said["captured"] - said["orphans"], "o": said["orphans"],
                "d": said["duplicates"]}

    # ---- upkeep ----

    def sweep(self, cursor):
        """A gateway's sweep, as often as it can, in small bites."""
        cursor.execute("SELECT seen::text, after::text, enrollments::text[] FROM unbound_v2(%s, %s, 200, 100)",
                       (self.seen, self.after))
        seen, after, found = cursor.fetchone()
        cursor.connection.commit()
        bound = 0
        if found:
            self.rng.shuffle(found)
            cursor.execute("SELECT bind_v2(%s::uuid[], 50)", (found,))
            bound = cursor.fetchone()[0]
            cursor.connection.commit()
        if bound == 0:
            self.seen, self.after = seen, after
        return {"bound": bound}

    def repair(self, cursor):
        """A repair of many counters in any order, and of what it did: in sum, nothing."""
        rng = self.rng
        rows = [("total_sent", instance_id(rng.randrange(self.job["instances"])), None) for _ in range(4)]
        # Of those that are there from the start: one that appeared between the two calls would keep the second.
        rows += [(rng.choice(["total_events", "last_event_at"]), enrollment_id(rng.randrange(self.job["enrollments"])),
                  None) for _ in range(20)]
        cursor.execute("SELECT id::text, received_at FROM campaign_events ORDER BY received_at DESC LIMIT 5")
        rows += [("provider_event_id", *row) for row in cursor.fetchall()]
        rng.shuffle(rows)
        names, ids, times = map(list, zip(*rows))
        for drift in (3, -3):
            cursor.execute("SELECT repair_v1(%s::text[], %s::text[], %s::bigint[], %s::timestamptz[])",
                           (names, ids, [drift] * len(rows), times))
        cursor.connection.commit()
        time.sleep(rng.random() * 0.05)
        return {"repaired": 1}

    # ---- users, by plain SQL ----

    def enroll(self, cursor):
        """Enrollments whose events may be on their way already: several instances, unsorted, one
        statement. An id comes once, ever: events keep the id of an enrollment that was deleted."""
        job, rng = self.job, self.rng
        if self.pending is None:
            self.pending = list(range(job["enrollments"] + self.number, job["pool"], job["connections"]))
            rng.shuffle(self.pending)
        time.sleep(rng.random() * 0.1)
        rows = [(enrollment_id(n), instance_id(rng.randrange(job["instances"])))
                for n in self.pending[:rng.choice([1, 2, 6])]]
        cursor.execute("INSERT INTO campaign_enrollments (id, instance_id) "
                       "SELECT e::uuid, i::uuid FROM unnest(%s::text[], %s::text[]) u(e, i)",
                       ([row[0] for row in rows], [row[1] for row in rows]))
        cursor.connection.commit()
        del self.pending[:len(rows)]
        return {"enrolled": len(rows)}

    def refer(self, cursor):
        """References by plain SQL, as docs/lock-order.md has it, and by the routine."""
        some = [enrollment_id(self.rng.randrange(self.job["pool"])) for _ in range(5)]
        try:
            if self.rng.random() < 0.5:
                cursor.execute("INSERT INTO enrollment_references SELECT 'source:r', e.id::text, e.id FROM campaign_enrollments "
                               "e WHERE e.id = ANY (%s::uuid[]) ORDER BY e.id::text COLLATE \"C\" ON CONFLICT DO NOTHING", (some,))
                referred = cursor.rowcount
            else:
                cursor.execute("SELECT reference_v1(%s, ARRAY['source:r'], ARRAY[%s])", (some[0], some[0]))
                referred = cursor.fetchone()[0]
            cursor.connection.commit()
        except (psycopg2.errors.ForeignKeyViolation, psycopg2.errors.NoDataFound):
            cursor.connection.rollback()  # it is not there, or left meanwhile
            referred = 0
        time.sleep(self.rng.random() * 0.05)
        return {"referred": referred}

    def unenroll(self, cursor):
        """DELETE as docs/lock-order.md has it: instances first, and only enrollments of those."""
        some = [enrollment_id(self.rng.randrange(self.job["pool"])) for _ in range(3)]
        cursor.execute("SELECT id::text FROM campaign_instances WHERE id IN (SELECT instance_id FROM "
                       "campaign_enrollments WHERE id = ANY (%s::uuid[])) ORDER BY id FOR NO KEY UPDATE", (some,))
        locked = [row[0] for row in cursor.fetchall()]
        cursor.execute("DELETE FROM campaign_enrollments WHERE id IN (SELECT id FROM campaign_enrollments "
                       "WHERE id = ANY (%s::uuid[]) AND instance_id = ANY (%s::uuid[]) ORDER BY id FOR UPDATE)",
                       (some, locked))
        deleted = cursor.rowcount
        cursor.connection.commit()
        time.sleep(self.rng.random() * 0.1)
        return {"unenrolled": deleted}

    def update(self, cursor):
        """Single rows, and many rows the documented way."""
        instance = instance_id(self.rng.randrange(self.job["instances"]))
        if self.rng.random() < 0.5:
            cursor.execute("UPDATE campaign_instances SET status = 'active' WHERE id = %s", (instance,))
            return
        cursor.execute("UPDATE campaign_enrollments e SET next_action_at = now() FROM (SELECT id FROM "
                       "campaign_enrollments WHERE instance_id = %s ORDER BY id FOR NO KEY UPDATE) l "
                       "WHERE e.id = l.id", (instance,))

    def read(self, cursor):
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        cursor.execute("SELECT sum(total_sent), sum(total_enrolled) FROM campaign_instances")
        cursor.execute("SELECT count(*) FROM campaign_events WHERE instance_id IS NOT NULL")

    # ---- retention ----

    def retention(self, cursor):
        """Old keys in the order of their place; an empty old month attached, detached, dropped."""
        old = [f"old_{self.rng.randrange(10**9)}" for _ in range(20)]
        cursor.execute("INSERT INTO event_keys SELECT id, 'source:a', now() - interval '1 year' "
                       "FROM unnest(%s) id ORDER BY id COLLATE \"C\" ON CONFLICT DO NOTHING", (old,))
        cursor.connection.commit()
        cursor.execute("SELECT FROM event_keys WHERE received_at < now() - interval '180 days' "
                       "ORDER BY provider_event_id, key_scope FOR UPDATE")
        cursor.execute("DELETE FROM event_keys WHERE received_at < now() - interval '180 days'")
        cursor.connection.commit()
        cursor.execute("SET LOCAL lock_timeout = '100ms'")
        cursor.execute("SELECT pg_advisory_xact_lock('campaign_events'::regclass::oid::bigint)")
        cursor.execute("CREATE TABLE campaign_events_1999_01 (LIKE campaign_events INCLUDING DEFAULTS "
                       "INCLUDING CONSTRAINTS)")
        cursor.execute("ALTER TABLE campaign_events ATTACH PARTITION campaign_events_1999_01 FOR VALUES "
                       "FROM ('1999-01-01 00:00:00+00') TO ('1999-02-01 00:00:00+00')")
        cursor.execute("ALTER TABLE campaign_events DETACH PARTITION campaign_events_1999_01")
        cursor.execute("DROP TABLE campaign_events_1999_01")
        cursor.connection.commit()
        time.sleep(0.2)
        return {"months": 1}


def main():
    job = json.loads(sys.argv[1])
    parts = [Part(job, number) for number in range(job["connections"])]
    threads = [threading.Thread(target=part.run) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for part in parts:
        if part.error:
            raise part.error
    total = collections.Counter()
    for part in parts:
        total.update(part.n)
    print(json.dumps({"part": job["part"], **total}))


if __name__ == "__main__":
    main()
