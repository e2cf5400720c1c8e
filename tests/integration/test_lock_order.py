"""docs/lock-order.md, held against the SQL and against PostgreSQL.

ONCEHOOK_LOCK_SECONDS (default 10) is how long everything contends with everything."""

import collections
import contextlib
import glob
import json
import os
import re
import subprocess
import sys
import threading

import psycopg2
import pytest

from support import sign
from support.contend import enrollment_id, instance_id
from support.gateway import REPOSITORY
from support.process import spawn, wait_until

SECONDS = float(os.environ.get("ONCEHOOK_LOCK_SECONDS", "10"))
PLACES = {"campaign_templates": 1, "campaign_instances": 2, "campaign_enrollments": 3,
          "enrollment_references": "3b", "event_keys": 4,
          "campaign_events": 5, "quarantined_deliveries": 6, "workflow_states": 7, "enrichment_cache": 8,
          "retired_months": 9, "folded_events": 10, "key_walk": 11,
          "learned_secrets": 12, "adopted_tables": 13, "adopted_changes": 14}


# ---- the text -------------------------------------------------------------------------------

LOCKING = re.compile(r"\b(INSERT INTO|UPDATE(?= [a-z])|DELETE FROM|MERGE INTO)\s+(\w+)"
                     r"|\b(FROM)\s+(\w+)(?=[^;]*\bFOR (?:NO KEY UPDATE|UPDATE|SHARE|KEY SHARE)\b)")
PLACE = re.compile(r"-- Lock order, place (\d+b?): (rows locked above|[a-z_]+)")


def functions():
    """(file, name, body) of every function in sql/."""
    for path in sorted(glob.glob(os.path.join(REPOSITORY, "sql", "*.up.sql"))):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        for found in re.finditer(r"CREATE (?:OR REPLACE )?FUNCTION (\w+)\(.*?AS \$\$(.*?)\$\$", text, re.S):
            yield os.path.basename(path), found[1], found[2]


def statements(body):
    """(what it locks or None, its comments) of every statement."""
    for statement in re.sub(r"--[^\n]*", lambda comment: comment[0].replace(";", ","), body).split(";"):
        code = re.sub(r"--[^\n]*", "", statement)
        code = re.sub(r"'(?:[^']|'')*'", "''", code)
        comments = re.findall(r"--[^\n]*", statement)
        found = LOCKING.search(code)
        yield (found[2] or found[4]) if found else None, "\n".join(comments)


def test_every_locking_statement_names_its_place_and_places_ascend():
    seen = 0
    for file, name, body in functions():
        highest = (0, "")
        for table, comments in statements(body):
            if table is None:
                continue
            seen += 1
            said = PLACE.findall(comments)
            assert len(said) == 1, f"{file}: {name}: a statement that locks {table} must name its place once"
            place, what = said[0]
            assert place == str(PLACES[table]), f"{file}: {name}: {table} has place {PLACES[table]}, not {place}"
            place = (int(place.rstrip("b")), place.lstrip("0123456789"))
            if what == "rows locked above":
                assert place <= highest, f"{file}: {name}: nothing of place {place} was locked above"
            else:
                assert what == table, f"{file}: {name}: the comment says {what}, the statement {table}"
                assert place > highest, f"{file}: {name}: place {place} after {highest}"
                highest = place
    assert seen >= 8


@pytest.mark.parametrize("body, table", [
    ("UPDATE campaign_instances i SET a = 1", "campaign_instances"),
    ("INSERT INTO event_keys VALUES (1)", "event_keys"),
    ("PERFORM FROM campaign_instances i WHERE x ORDER BY id FOR NO KEY UPDATE", "campaign_instances"),
    ("SELECT x INTO y FROM (SELECT id FROM campaign_enrollments e\n ORDER BY id FOR UPDATE) l",
     "campaign_enrollments"),
    ("DELETE FROM campaign_events", "campaign_events"), ("SELECT 1 FROM campaign_events", None),
    ("RAISE EXCEPTION 'INSERT INTO x'", None)])
def test_the_reader_of_statements_sees_what_locks(body, table):
    assert [found for found, _ in statements(body)] == [table]


def test_the_page_names_every_function_that_locks_and_every_table_in_its_place():
    with open(os.path.join(REPOSITORY, "docs", "lock-order.md"), encoding="utf-8") as file:
        page = file.read()
    for table, place in PLACES.items():
        assert re.search(rf"^\| {place} \| `{table}` \|", page, re.M), table
    for _, name, body in functions():
        if any(table for table, _ in statements(body)):
            assert f"| `{name}`" in page, name


# ---- everything against everything ----------------------------------------------------------

def deadlocks(database):
    return database.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")


def test_a_deadlock_would_be_seen(database):
    """The measure of the next test measures: two transactions in opposite orders."""
    ids = [instance for instance, _ in database.seed(instances=2)]
    states = []

    def lock(connection, one):
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT FROM campaign_instances WHERE id = %s FOR NO KEY UPDATE", (one,))
        except psycopg2.Error as error:
            states.append(error.pgcode)
            connection.rollback()
    with contextlib.closing(database.connect()) as a, contextlib.closing(database.connect()) as b:
        a.autocommit = b.autocommit = False
        lock(a, ids[0])
        lock(b, ids[1])
        beside = threading.Thread(target=lock, args=(a, ids[1]))
        beside.start()
        lock(b, ids[0])
        beside.join(30)
    assert states == ["40P01"]
    wait_until(lambda: deadlocks(database) == 1, what="the statistics")


def recompute(database):
    """Counters that are not the number of their rows, by hand and not by what the product computes."""
    wrong = database.counter_drift()
    wrong += database.sql("SELECT 'total_enrolled', i.id::text FROM campaign_instances i WHERE total_enrolled <> "
                          "(SELECT count(*) FROM campaign_enrollments e WHERE e.instance_id = i.id)")
    wrong += database.sql("SELECT 'event without its own instance', v.id::text FROM campaign_events v "
                          "JOIN campaign_enrollments e ON e.id = v.enrollment_id WHERE v.instance_id <> e.instance_id")
    wrong += database.sql("SELECT 'key or event alone', coalesce(v.provider_event_id, k.provider_event_id) "
                          "FROM campaign_events v FULL JOIN event_keys k USING (provider_event_id, key_scope) "
                          "WHERE v.id IS NULL OR k.provider_event_id IS NULL")
    wrong += database.sql("SELECT 'key with two events', provider_event_id FROM campaign_events "
                          "GROUP BY provider_event_id, key_scope HAVING count(*) > 1")
    return wrong


def contend(database, rng, parts):
    """Runs one process a part ({"part", "connections", …}) beside each other for SECONDS; their counts.
    Every fifth enrollment there is comes into being, and some leave, meanwhile."""
    instances, enrollments = 6, 150
    job = {"seed": rng.randrange(1 << 32), "seconds": SECONDS, "instances": instances, "enrollments": enrollments,
           "hot": 5, "pool": enrollments + int(SECONDS * 40), "keys": int(SECONDS * 4000), "url": database.owner_url}
    database.sql("INSERT INTO campaign_templates (id) VALUES (%s)", instance_id(-1))
    database.sql("INSERT INTO campaign_instances (id, template_id) SELECT x::uuid, %s FROM unnest(%s) x",
                 instance_id(-1), [instance_id(n) for n in range(instances)])
    database.sql("INSERT INTO campaign_enrollments (id, instance_id) "
                 "SELECT e::uuid, i::uuid FROM unnest(%s, %s) u(e, i)",
                 [enrollment_id(n) for n in range(enrollments)],
                 [instance_id(0 if n < 5 else n % instances) for n in range(enrollments)])
    users = [{"part": "enroll", "connections": 2}, {"part": "unenroll", "connections": 1}, {"part": "refer", "connections": 1},
             {"part": "update", "connections": 2}, {"part": "read", "connections": 1},
             {"part": "retention", "connections": 1}]
    children = [spawn([sys.executable, "-m", "support.contend", json.dumps({**job, "process": process, **part})],
                      cwd=os.path.dirname(__file__), stdout=subprocess.PIPE, text=True)
                for process, part in enumerate(parts + users)]
    counts = []
    for child in children:
        out, _ = child.communicate(timeout=SECONDS + 120)
        assert child.returncode == 0
        counts.append(json.loads(out))
    print("\n".join(map(str, counts)))
    return counts


def check(database, counts):
    """No deadlock, every counter right; returns the sums of what happened."""
    total = collections.Counter()
    for one in counts:
        total.update({name: value for name, value in one.items() if name != "part"})
    assert total["40P01"] == 0 and deadlocks(database) == 0
    assert recompute(database) == []
    # It was a test at all: every outcome happened, and every part got through.
    assert all(total[name] > 0 for name in ("c", "o", "d", "enrolled", "unenrolled", "referred", "months")), total
    assert all(one.get("transactions", 0) > 0 for one in counts), counts
    return total


def test_two_processes_against_everything_without_a_deadlock_and_counters_right(database, rng):
    """capture_v1 as two gateways would call it, sorted in opposite orders, which no gateway does."""
    gateway = {"part": "gateway", "connections": 2, "url": database.gateway_url}
    upkeep = [{"part": part, "connections": count, "url": database.gateway_url}
              for part, count in (("sweep", 2), ("sweep", 1), ("repair", 1))]
    total = check(database, contend(database, rng, [gateway, gateway, *upkeep]))
    assert total["bound"] > 0 and total["repaired"] > 0
    # What the letters said is what is there.
    assert total["c"] + total["o"] == database.value("SELECT count(*) FROM campaign_events")
    assert 0 < database.value("SELECT count(*) FROM quarantined_deliveries") <= 5


def test_two_gateways_against_everything_without_a_deadlock_and_counters_right(database, rng, start_gateway):
    sources = [sign.Hmac("a"), sign.Hmac("b", secrets=["the-secret-of-both"])]
    sources[0].config["secrets"] = sources[1].config["secrets"]
    gateways = [start_gateway(sources=sources) for _ in range(2)]
    total = check(database, contend(database, rng, [
        {"part": "deliver", "connections": 4, "port": one.http_port, "secret": "the-secret-of-both"}
        for one in gateways] + [{"part": "repair", "connections": 1, "url": database.gateway_url}]))
    # A 503 may have been committed in part, and is then a duplicate at the retry; a 200 is there.
    assert total["c"] + total["o"] <= database.value("SELECT count(*) FROM campaign_events")
    for one in gateways:
        assert one.metric("oncehook_deadlocks_total") == 0
    assert sum(one.metric("oncehook_orphans_bound_total") for one in gateways) > 0
