"""Reading through /v1: what the routes give, how they page, what they refuse, and what PostgreSQL does
for it."""

import contextlib
import importlib.machinery
import importlib.util
import os
import re
import sys
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import pytest

from support import process
from support.capture import capture, connect, event
from support.gateway import REPOSITORY, TOKEN


def get(gateway, path, expect=200, **parameters):
    """The JSON of an answer with that status."""
    query = "?" + urllib.parse.urlencode(parameters) if parameters else ""
    answer = gateway.admin(path + query, token=TOKEN)
    assert answer.status == expect, answer
    if expect >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json["status"] == expect and answer.json["title"] and answer.json["detail"]
    return answer.json


def pages(gateway, path, **parameters):
    """Every page of a list, by its cursors."""
    found, cursor = [], {}
    while True:
        page = get(gateway, path, **parameters, **cursor)
        assert list(page) == ["data", "next"]
        found.append(page["data"])
        if page["next"] is None:
            return found
        cursor = {"cursor": page["next"]}


# ---- templates and instances -----------------------------------------------------------------------


def make_templates(database, count):
    """Templates made by one statement, so of one created_at, each with three steps by mail and two on
    LinkedIn, inserted backwards; one step of each is switched off."""
    database.sql("INSERT INTO campaign_templates (name) SELECT 'template ' || n FROM generate_series(1, %s) n", count)
    database.sql("INSERT INTO email_sequences (template_id, step_number, subject, body, is_active)"
                 " SELECT t.id, n, 'mail ' || n, 'text', n <> 2 FROM campaign_templates t, generate_series(3, 1, -1) n")
    database.sql("INSERT INTO linkedin_sequences (template_id, step_number, type, is_active)"
                 " SELECT t.id, n, 'message', true FROM campaign_templates t, generate_series(2, 1, -1) n")


def test_templates_come_with_their_active_steps_in_order(gateway, database):
    make_templates(database, 23)
    found = pages(gateway, "/v1/templates", limit=10)
    assert [len(page) for page in found] == [10, 10, 3], "a page ended early"
    templates = [template for page in found for template in page]
    assert {t["name"] for t in templates} == {f"template {n}" for n in range(1, 24)}
    for template in templates:
        assert [s["subject"] for s in template["email_sequences"]] == ["mail 1", "mail 3"]
        assert [s["step_number"] for s in template["linkedin_sequences"]] == [1, 2]
        assert "body" not in template["email_sequences"][0]
    database.sql("UPDATE campaign_templates SET is_active = name <> 'template 7'")
    assert [t["name"] for t in get(gateway, "/v1/templates", active="false")["data"]] == ["template 7"]
    assert len(get(gateway, "/v1/templates", active="true")["data"]) == 22


@pytest.mark.parametrize("limit", [1, 10, 100])
def test_a_page_of_templates_is_one_statement_whatever_its_size(start_gateway, database, limit):
    """The report counted 101 for a page of 50."""
    make_templates(database, 100)
    gateway = start_gateway()
    get(gateway, "/v1/templates", limit=1)  # connects
    database.sql(f"ALTER DATABASE {database.name} SET log_statement = 'all'")
    [pid] = [row[0] for row in database.sql("SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                                            " AND application_name = 'oncehook read'")]
    database.sql("SELECT pg_terminate_backend(%s)", pid)  # the next connection logs
    begun = len(database.cluster.log_text())
    assert len(get(gateway, "/v1/templates", limit=limit)["data"]) == limit
    statements = [line for line in database.cluster.log_text()[begun:].splitlines()
                  if "execute <unnamed>" in line and "GET /v1/templates" in line]
    assert len(statements) == 1, statements
    assert "FROM email_sequences" not in "".join(
        line for line in database.cluster.log_text()[begun:].splitlines() if "execute" in line and line not in statements)


def test_instances_are_filtered_and_paged_without_their_providers_secrets(gateway, database):
    database.seed(instances=7, enrollments=2)
    other = database.seed(instances=3)[0][0]
    database.sql("UPDATE campaign_instances SET status = 'paused', total_opened = 5,"
                 " provider_config = '{\"key\": \"geheim\"}' WHERE id = %s", other)
    found = [i for page in pages(gateway, "/v1/instances", limit=3) for i in page]
    assert len(found) == 10 and [i["id"] for i in found] == sorted(i["id"] for i in found)
    [paused] = get(gateway, "/v1/instances", status="paused")["data"]
    assert (paused["id"], paused["total_opened"], paused["total_enrolled"]) == (other, 5, 1)
    assert "provider_config" not in paused
    assert len(get(gateway, "/v1/instances", template_id=paused["template_id"])["data"]) == 3


# ---- what is refused ---------------------------------------------------------------------------------


WRONG = [
    ("/v1/templates", "limit", ["0", "101", "-1", "ten", "10; DROP TABLE campaign_templates", "", "1" * 400, "1e1"]),
    ("/v1/templates", "active", ["maybe", "", "true false"]),
    ("/v1/templates", "cursor", ["12", "12-x", "a-b-c", "12-", "9" * 20 + "-1"]),
    ("/v1/templates", "page", ["2"]),
    ("/v1/instances", "cursor", ["7"]),
    ("/v1/instances", "template_id", ["' OR 1=1"]),
    ("/v1/contacts", "cursor", ["1-1", "x"]), ("/v1/contacts", "email", ["a@b"]),
    ("/v1/events", "type", ["read", "SENT"]), ("/v1/events", "from", ["yesterday", "2026-02-30T00:00:00Z", "1700000000"]),
    ("/v1/events", "cursor", ["1-1-1", "1-"]), ("/v1/events", "instance_id", ["1"]),
    ("/v1/analytics/rates", "from", ["2026-02-30", "2026-01-01T00:00:00Z", "2000-01-01", "2999-01-01"]),
    ("/v1/analytics/rates", "tz", ["Nowhere", "XYZ5", "a b", "'", "x" * 65]),
    ("/v1/events/after/first", "wait", ["61", "-1", "x"]), ("/v1/events/after/first", "limit", ["1001"]),
    ("/v1/events/after/first", "cursor", ["first"]),
    ("/v1/instances", "status", ["x" * 256, b"\xff", b"a\0b", ""]),
]


def test_a_wrong_parameter_is_named(gateway):
    for path, parameter, values in WRONG:
        for value in values:
            answer = get(gateway, path, 400, **{parameter: value})
            assert answer["parameter"] == parameter, (path, value, answer)
            assert parameter in answer["detail"] or "GET /v1" in answer["detail"], answer


def test_a_parameter_counts_once_and_a_path_has_its_methods(gateway):
    assert gateway.admin("/v1/templates?limit=1&limit=2", token=TOKEN).json["parameter"] == "limit"
    answer = gateway.admin("/v1/templates", token=TOKEN, method="POST", body=b"{}")
    assert answer.status == 405 and answer.headers["allow"] == "GET, HEAD"
    assert gateway.admin("/v1/templates", token=TOKEN, method="HEAD").status == 200
    assert gateway.admin("/v1/templates/x", token=TOKEN).status == 404
    for path in ("/v1/templates", "/v1/instances", "/v1"):
        assert gateway.admin(path).status == 401
        assert gateway.admin(path, token=TOKEN + "x").status == 401


def test_a_readers_session_cannot_write(gateway, database):
    """What a route reads may be a view of the user's own that calls something; it cannot write."""
    database.sql("ALTER TABLE linkedin_sequences RENAME TO steps")
    database.sql("CREATE FUNCTION touch() RETURNS boolean LANGUAGE sql AS $$"
                 " INSERT INTO quarantined_deliveries (source, body_sha256) VALUES ('x', 'x') RETURNING true $$")
    database.sql("CREATE VIEW linkedin_sequences AS SELECT s.* FROM steps s WHERE touch()")
    database.sql("GRANT SELECT ON linkedin_sequences TO oncehook_gateway")
    template = database.value("INSERT INTO campaign_templates (name) VALUES ('t') RETURNING id")
    database.sql("INSERT INTO steps (template_id) VALUES (%s)", template)
    get(gateway, "/v1/templates", 503)
    assert database.value("SELECT count(*) FROM quarantined_deliveries") == 0
    assert any(line.get("sqlstate") == "25006" for line in gateway.log_lines()), gateway.log_text()


def test_the_documented_routes_are_those_of_the_binary(gateway):
    """docs/api.md against GET /v1, both ways."""
    with open(os.path.join(REPOSITORY, "docs/api.md"), encoding="utf-8") as file:
        rows = re.findall(r"^\| `(GET|POST) (/v1/\S+)` \|([^|]*)\|", file.read(), re.M)
    documented = {(method, path): re.findall(r"`(\w+)`", names) for method, path, names in rows}
    known = {(route["method"], route["path"]): [
        one["name"] for one in route["parameters"]
        if one["name"] != "body" and f"{{{one['name']}}}" not in route["path"]] for route in get(gateway, "/v1")["routes"]}
    assert documented == known


# ---- beside each other -------------------------------------------------------------------------------


def test_a_slow_read_holds_up_no_probe_and_no_capture(start_gateway, database):
    gateway = start_gateway({"database": {"lock_timeout": "300ms"}})
    with contextlib.closing(database.connect()) as holder, ThreadPoolExecutor(150) as pool:
        holder.cursor().execute("BEGIN; LOCK TABLE campaign_templates, email_sequences")
        children = [pool.submit(gateway.admin, "/v1/templates", token=TOKEN) for _ in range(150)]
        for _ in range(20):
            began = time.monotonic()
            for path in ("/livez", "/readyz", "/health", "/metrics"):
                assert gateway.admin(path).status == 200
            assert time.monotonic() - began < 1
        assert gateway.deliver("hmac", gateway.sources["hmac"].event()).status == 200
        answers = [child.result() for child in children]
        holder.cursor().execute("ROLLBACK")
    assert {answer.status for answer in answers} == {503}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
    assert any("under way" in answer.json["detail"] for answer in answers), "the queue has no bound"
    process.wait_until(lambda: gateway.admin("/v1/templates", token=TOKEN).status == 200, what="reading again")


# Zero times of other languages, milliseconds read as seconds, and what PostgreSQL has beyond: an adopted system holds some.
ODD_TIMES = ["infinity", "infinity", "294276-12-31 23:59:59.999999Z", "55840-01-01Z", "2300-01-01 00:00:00.000002Z",
             "2300-01-01 00:00:00.000001Z", "2026-01-01Z", "1970-01-01Z", "1969-12-31 23:59:59.999999Z", "0001-01-01Z",
             "4713-01-01Z BC", "-infinity", "-infinity"]


@pytest.mark.parametrize("path, insert", [
    ("/v1/events", "campaign_events (\"timestamp\", provider_event_id, key_scope) VALUES (%s, %s, 'source:x')"),
    ("/v1/contacts", "imported_contacts (imported_at, email) VALUES (%s, %s)"),
    ("/v1/templates", "campaign_templates (created_at, name) VALUES (%s, %s)")])
def test_pages_go_on_behind_any_time(gateway, database, path, insert):
    for place, time in enumerate(ODD_TIMES):
        database.sql(f"INSERT INTO {insert}", time, f"{place}@example.com")
    found = [row for page in pages(gateway, path, limit=1) for row in page]
    assert len(found) == len(ODD_TIMES) == len({row["id"] for row in found})
    names = [row.get("provider_event_id") or row.get("email") or row["name"] for row in found]
    assert sorted(names[:2]) + names[2:-2] + sorted(names[-2:]) == [f"{place}@example.com" for place in range(len(ODD_TIMES))]


@pytest.mark.parametrize("cursor", ["b-1", "bb1-1", "c-1", "z", "z-", "zz-1", "z1-1", "b210866803200000001-1", "9223372036854775808-1",
                                    "b99999999999999999999-1", "-1-1", "%31-b1"])
def test_a_cursor_that_is_none_is_refused(gateway, cursor):
    get(gateway, f"/v1/events?cursor={cursor}", expect=400)


# ---- contacts: the report's cursor and a whole one -----------------------------------------------------


def import_contacts(database, count, source="csv", seconds_ago=0):
    """One import is one statement: its contacts share imported_at."""
    database.sql("INSERT INTO imported_contacts (email, company_domain, source, imported_at)"
                 " SELECT source || n || '@example.com', 'company' || n %% 3 || '.example', source, at"
                 "   FROM (VALUES (%s, now() - %s * interval '1 second')) v(source, at), generate_series(1, %s) n",
                 source, seconds_ago, count)


def test_no_contact_of_an_import_is_skipped_where_the_reports_cursor_skips(gateway, database):
    import_contacts(database, 25, "new")
    import_contacts(database, 25, "old", seconds_ago=60)
    found = [c["email"] for page in pages(gateway, "/v1/contacts", limit=10) for c in page]
    everybody = {row[0] for row in database.sql("SELECT email FROM imported_contacts")}
    assert len(found) == 50 and set(found) == everybody
    # The report's solution, word for word: WHERE imported_at < cursor ORDER BY imported_at DESC LIMIT limit + 1.
    seen, cursor = [], None
    while True:
        rows = database.sql("SELECT email, imported_at FROM imported_contacts WHERE %s::timestamptz IS NULL"
                            " OR imported_at < %s ORDER BY imported_at DESC LIMIT 11", cursor, cursor)
        seen += [email for email, _ in rows[:10]]
        if len(rows) <= 10:
            break
        cursor = rows[9][1]
    assert len(seen) == 20, "the report's cursor skips nothing here: then this test shows nothing"


def test_contacts_are_found_by_source_and_domain_and_shift_nothing(gateway, database):
    import_contacts(database, 9, "a")
    import_contacts(database, 6, "b", seconds_ago=5)
    assert len(get(gateway, "/v1/contacts", source="b")["data"]) == 6
    assert {c["company_domain"] for c in get(gateway, "/v1/contacts", domain="company1.example")["data"]} == \
        {"company1.example"}
    page = get(gateway, "/v1/contacts", limit=10)
    import_contacts(database, 3, "c", seconds_ago=-5)  # OFFSET 10 would now give three of them again
    rest = get(gateway, "/v1/contacts", limit=10, cursor=page["next"])
    assert rest["next"] is None and len(rest["data"]) == 5
    assert not {c["email"] for c in page["data"]} & {c["email"] for c in rest["data"]}


# ---- events --------------------------------------------------------------------------------------------


def test_events_by_every_filter_are_what_sql_says(gateway, database, rng):
    [(one, enrollments), (other, _)] = database.seed(instances=2, enrollments=2)
    moments = ["2024-05-01T12:00:00Z", "2024-05-02T12:00:00Z", "2024-05-03T12:00:00Z"]
    capture(database.gateway_url, *(
        event(source=rng.choice("ab"), type=rng.choice(["sent", "opened", "bounced"]), at=rng.choice(moments),
              **rng.choice([{"enrollment": rng.choice(enrollments)}, {"instance": other}, {}])) for _ in range(120)))

    def expect(condition, *values):
        return [row[0] for row in database.sql(f"SELECT id FROM campaign_events WHERE {condition}"
                                               " ORDER BY \"timestamp\" DESC, id DESC", *values)]

    for limit in (7, 1000):
        for parameters, condition, values in (
                ({}, "true", ()), ({"type": "opened"}, "event_type = 'opened'", ()), ({"source": "a"}, "source = 'a'", ()),
                ({"enrollment_id": enrollments[0]}, "enrollment_id = %s", (enrollments[0],)),
                ({"instance_id": one, "type": "sent"}, "instance_id = %s AND event_type = 'sent'", (one,)),
                ({"from": moments[1]}, "\"timestamp\" >= %s", (moments[1],)),
                ({"from": moments[1], "to": moments[2]}, "\"timestamp\" >= %s AND \"timestamp\" < %s", tuple(moments[1:]))):
            found = [e["id"] for page in pages(gateway, "/v1/events", limit=limit, **parameters) for e in page]
            assert found == expect(condition, *values), (limit, parameters)
    [first] = get(gateway, "/v1/events", limit=1)["data"]
    assert first["timestamp"] == "2024-05-03T12:00:00+00:00" and first["payload"] == {"k": 1}


def test_a_page_of_events_has_a_bound_in_bytes(gateway, database):
    capture(database.gateway_url, *(event(payload={"text": "x" * 1_500_000}) for _ in range(5)))
    assert [len(page) for page in pages(gateway, "/v1/events", limit=1000)] == [2, 2, 1]


# ---- rates ---------------------------------------------------------------------------------------------


def test_rates_are_of_days_in_their_zone(gateway, database):
    """The day on which clocks go forward in Berlin has 23 hours, and begins at 23:00 UTC the day before."""
    [(instance, _)] = database.seed()
    for moment, kinds in (("2024-03-30T22:59:59Z", "sent"), ("2024-03-30T23:00:00Z", "sent sent delivered opened"),
                          ("2024-03-31T21:59:59Z", "delivered bounced other"), ("2024-03-31T22:00:00Z", "sent")):
        capture(database.gateway_url, *(event(at=moment, type=kind) for kind in kinds.split()))
    capture(database.gateway_url, event(at="2024-03-31T12:00:00Z", type="replied", instance=instance))
    answer = get(gateway, "/v1/analytics/rates", **{"from": "2024-03-30", "to": "2024-04-01", "tz": "Europe/Berlin"})
    days = {day["day"]: day for day in answer["data"]}
    assert answer["tz"] == "Europe/Berlin" and list(days) == ["2024-03-30", "2024-03-31", "2024-04-01"]
    berlin = days["2024-03-31"]
    assert [berlin[n] for n in ("sent", "delivered", "opened", "replied", "bounced")] == [2, 2, 1, 1, 1]
    assert (berlin["delivery_rate"], berlin["open_rate"], berlin["bounce_rate"]) == (1.0, 0.5, 0.5)
    assert (days["2024-03-30"]["sent"], days["2024-04-01"]["sent"]) == (1, 1)
    assert days["2024-04-01"]["open_rate"] is None
    utc = {day["day"]: day for day in get(gateway, "/v1/analytics/rates",
                                          **{"from": "2024-03-30", "to": "2024-04-01"})["data"]}
    assert (utc["2024-03-30"]["sent"], utc["2024-03-31"]["sent"], utc["2024-04-01"]["sent"]) == (3, 1, 0)
    [only] = get(gateway, "/v1/analytics/rates", instance_id=instance, **{"from": "2024-03-31", "to": "2024-03-31"})["data"]
    assert (only["replied"], only["sent"]) == (1, 0)
    assert len(get(gateway, "/v1/analytics/rates")["data"]) == 30


# ---- plans ---------------------------------------------------------------------------------------------


@pytest.fixture
def filled(cluster, migrated):
    """50,000 events of 90 days; bench/reads does the same with a million. It takes seconds, so there is one
    test for all that needs it."""
    made = cluster.create_database(template=migrated)
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("bench_reads", os.path.join(REPOSITORY, "bench/reads"))
    bench = importlib.util.module_from_spec(importlib.util.spec_from_loader("bench_reads", loader))
    loader.exec_module(bench)
    with contextlib.closing(connect(made.owner_url)) as owner, contextlib.closing(connect(made.gateway_url)) as reader:
        bench.fill(owner, 50_000)
        yield made, bench, bench.Reader(reader)
    made.drop()


def test_plans(filled):
    """Every route is served by its index, and a page far behind costs a page; the check can fail; and two
    of the report's remedies do not do what they should."""
    _, bench, reader = filled
    wrong = {name: words for name, _, _, _, words in bench.check_plans(reader) if words}
    assert not wrong, wrong
    check_of_plans_can_fail(filled)
    reports_index_on_source_is_not_used_by_its_list(filled)
    reports_query_for_templates_loses_the_order_of_the_steps(filled)


def check_of_plans_can_fail(filled):
    made, bench, reader = filled
    with contextlib.closing(connect(made.owner_url)) as owner:
        owner.cursor().execute("ALTER INDEX idx_imported_contacts_company_domain RENAME TO hidden")
        try:
            wrong = {name for name, _, _, _, words in bench.check_plans(reader) if words}
        finally:
            owner.cursor().execute("ALTER INDEX hidden RENAME TO idx_imported_contacts_company_domain")
    assert wrong == {"contacts of a domain"}


def reports_index_on_source_is_not_used_by_its_list(filled):
    """`ORDER BY imported_at DESC LIMIT 50` of a source that many contacts have: the index on the date is taken and
    filtered. (source, imported_at, id) serves a rare source and its cursor too."""
    made, _, _ = filled
    with contextlib.closing(connect(made.owner_url)) as owner, owner.cursor() as cursor:
        cursor.execute("BEGIN; DROP INDEX idx_imported_date, idx_imported_source;"
                       "CREATE INDEX reports_source ON imported_contacts (source);"
                       "CREATE INDEX reports_date ON imported_contacts (imported_at); ANALYZE imported_contacts")
        cursor.execute("EXPLAIN SELECT * FROM imported_contacts WHERE source = 'csv' ORDER BY imported_at DESC LIMIT 50")
        plan = "\n".join(row[0] for row in cursor.fetchall())
        cursor.execute("ROLLBACK")
    assert "reports_date" in plan and "reports_source" not in plan, plan


def reports_query_for_templates_loses_the_order_of_the_steps(filled):
    """Its second option aggregates DISTINCT objects: they come by their id, and emails times LinkedIn steps are built
    before DISTINCT takes them away."""
    made, _, _ = filled
    text = """SELECT t.id, COALESCE(json_agg(DISTINCT jsonb_build_object('id', es.id, 'step_number', es.step_number))
                FILTER (WHERE es.id IS NOT NULL), '[]'), count(*)
              FROM campaign_templates t
              LEFT JOIN email_sequences es ON es.template_id = t.id AND es.is_active = true
              LEFT JOIN linkedin_sequences ls ON ls.template_id = t.id AND ls.is_active = true
             GROUP BY t.id"""
    rows = made.sql(text)
    assert {row[2] for row in rows} == {15}
    orders = [[step["step_number"] for step in row[1]] for row in rows]
    assert any(order != sorted(order) for order in orders)
