"""Reading through /v1: what the routes give, how they page, what they refuse, and what PostgreSQL does
for it."""

import contextlib
import os
import re
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import pytest

from support import process
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
