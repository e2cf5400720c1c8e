"""Sections 1 to 4 of the report that the data model comes from (docs/seed-report.md): its own SQL where it does
not do what it says, run against PostgreSQL and SQLite, beside the form that does. The rest: test_seed_remedies.py."""

import contextlib
import json
import re
import shutil
import sqlite3
import subprocess
import threading

import psycopg2
import pytest

from support.capture import capture, event
from support.process import wait_until
from support.report import lite, module_database, one, sessions, theirs  # noqa: F401 (fixtures)

# ---- 1 and appendix A -----------------------------------------------------------------------

ATTACKS = ["30'; DROP TABLE workflow_states; --", "30 OR 1=1", "30; DELETE FROM workflow_states",
           "30 UNION SELECT * FROM pg_shadow"]


def parse_int(text):
    """ECMAScript's parseInt(text, 10): the leading number, whatever follows."""
    found = re.match(r"\s*([+-]?\d+)", text)
    return int(found[1]) if found else None


def test_parseint_takes_all_four_attacks_and_the_remedy_swallows_its_own_error():
    assert [parse_int(text) for text in ATTACKS] == [30] * 4  # each lies within 1..365 and is run
    if shutil.which("node"):
        remedy = """async function cleanupOldWorkflows(retentionDays) {
              try { const validatedDays = parseInt(retentionDays, 10);
                    if (isNaN(validatedDays) || validatedDays < 1 || validatedDays > 365)
                      throw new Error(`Invalid retentionDays: ${retentionDays}`);
                    return 1; } catch (error) { return 0; } }
            (async () => { for (const text of JSON.parse(process.argv[1])) console.log(await cleanupOldWorkflows(text)); })()"""
        done = subprocess.run(["node", "-e", remedy, json.dumps([*ATTACKS, "nonsense"])], capture_output=True, text=True,
                              timeout=30, check=True)
        assert done.stdout.split() == ["1"] * 4 + ["0"]  # the fifth is not a rejection: appendix A's own test fails
    # What works: the whole string.
    assert not any(re.fullmatch(r"[1-9]\d{0,2}", text) for text in ATTACKS)


def test_the_attack_in_section_1_drops_a_table_and_the_gateways_role_may_not(theirs, database):
    theirs[0].sql("DELETE FROM workflow_states WHERE status = 'completed' AND completed_at < NOW() - "
                  f"INTERVAL '{ATTACKS[0]} days'")
    assert theirs[0].state("SELECT FROM workflow_states") == "42P01"
    for statement in ("DROP TABLE campaign_events", "DELETE FROM campaign_events", "TRUNCATE event_keys"):
        with contextlib.closing(psycopg2.connect(database.gateway_url)) as gateway, gateway.cursor() as cursor, \
                pytest.raises(psycopg2.Error) as caught:
            cursor.execute(statement)
        assert caught.value.pgcode == "42501", statement


# ---- 2 --------------------------------------------------------------------------------------

OPTION_2 = """
    SELECT t.id, COALESCE(json_agg(DISTINCT jsonb_build_object('id', es.id, 'step_number', es.step_number))
             FILTER (WHERE es.id IS NOT NULL), '[]') AS email_sequences,
           COALESCE(json_agg(DISTINCT jsonb_build_object('id', ls.id, 'step_number', ls.step_number))
             FILTER (WHERE ls.id IS NOT NULL), '[]') AS linkedin_sequences
      FROM campaign_templates t
      LEFT JOIN email_sequences es ON es.template_id = t.id AND es.is_active = true
      LEFT JOIN linkedin_sequences ls ON ls.template_id = t.id AND ls.is_active = true
     WHERE t.is_active = true GROUP BY t.id ORDER BY t.created_at DESC LIMIT 10 OFFSET 0"""
LATERAL = """
    SELECT t.id, (SELECT coalesce(json_agg(json_build_object('id', s.id, 'step_number', s.step_number)
                                           ORDER BY s.step_number, s.id), '[]')
                    FROM email_sequences s WHERE s.template_id = t.id AND s.is_active) AS email_sequences
      FROM (SELECT * FROM campaign_templates WHERE is_active ORDER BY created_at DESC, id DESC LIMIT 10) t"""


def test_aggregating_with_distinct_loses_the_steps_order_and_multiplies_the_rows(theirs):
    one = theirs[0]
    one.sql("INSERT INTO campaign_templates (name, created_at) SELECT 't', now() + n * interval '1 second' "
            "FROM generate_series(1, 30) n")
    for table in ("email_sequences", "linkedin_sequences"):
        # Ids fall as steps rise: any other order than the ids' would show.
        one.sql(f"INSERT INTO {table} (id, template_id, step_number) SELECT ('00000000-0000-0000-0000-' || "
                "to_char(100 - n, 'FM000000000000'))::uuid, id, n FROM (SELECT id FROM campaign_templates ORDER BY created_at DESC LIMIT 1) t, "
                "generate_series(1, 20) n")
    steps = [[step["step_number"] for step in row[1]] for row in one.sql(OPTION_2) if row[1]]
    assert steps == [list(range(20, 0, -1))]  # the order of random ids, not of the steps
    plan = one.plan("EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF) " + OPTION_2)
    joined = max(int(rows) for rows in re.findall(r"rows=(\d+) loops", plan))
    assert joined >= 20 * 20 + 29  # e-mails times messages, of all 30 templates for a page of 10
    steps = [[step["step_number"] for step in row[1]] for row in one.sql(LATERAL) if row[1]]
    assert steps == [list(range(1, 21))]


def test_log_statement_shows_one_session_and_is_a_superusers(sessions, empty_database):
    first, second = sessions(2)
    first.sql("SET log_statement = 'all'")
    assert second.value("SHOW log_statement") == "none"
    with contextlib.closing(psycopg2.connect(empty_database.owner_url)) as owner, owner.cursor() as cursor, \
            pytest.raises(psycopg2.Error) as caught:
        cursor.execute("SET log_statement = 'all'")
    assert caught.value.pgcode == "42501"


CONTACTS = """CREATE TABLE imported_contacts (email TEXT PRIMARY KEY, first_name TEXT, company_domain TEXT, source TEXT NOT
                NULL, data TEXT NOT NULL, imported_at TEXT DEFAULT CURRENT_TIMESTAMP);
              CREATE INDEX idx_imported_source ON imported_contacts(source);
              CREATE INDEX idx_imported_date ON imported_contacts(imported_at);"""


def test_a_text_primary_key_of_sqlite_takes_any_number_of_nulls(lite):
    lite.executescript(CONTACTS)
    lite.executemany("INSERT INTO imported_contacts (email, source, data) VALUES (?, 's', '{}')", [(None,)] * 3)
    assert lite.execute("SELECT count(*) FROM imported_contacts WHERE email IS NULL").fetchone() == (3,)


def test_a_day_is_the_sessions_day_and_an_index_only_scan_is_one_after_vacuum(theirs):
    one = theirs[0]
    one.sql("INSERT INTO campaign_events (event_type, \"timestamp\") SELECT 'opened', date_trunc('day', now() AT TIME ZONE "
            "'UTC') AT TIME ZONE 'UTC' - interval '2 days' + n * interval '1 hour' FROM generate_series(0, 23) n")
    opens = "SELECT DATE(timestamp) AS date, COUNT(*) FROM campaign_events WHERE event_type = 'opened' " \
            "AND timestamp > NOW() - INTERVAL '30 days' GROUP BY DATE(timestamp) ORDER BY 1"
    one.sql("SET TimeZone = 'UTC'")
    utc = one.sql(opens)
    one.sql("SET TimeZone = 'America/New_York'")
    assert [row[1] for row in utc] == [24] and len(one.sql(opens)) == 2
    named = opens.replace("DATE(timestamp)", "(\"timestamp\" AT TIME ZONE 'UTC')::date")
    assert one.sql(named) == utc  # the zone is named, so every session has the same days
    one.sql("CREATE INDEX idx_campaign_events_type_timestamp ON campaign_events (event_type, timestamp DESC)")
    one.sql("INSERT INTO campaign_events (event_type, timestamp) SELECT 'opened', now() FROM generate_series(1, 3000)")
    one.sql("SET enable_seqscan = off; SET enable_bitmapscan = off")
    explain = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) " + opens
    assert re.search(r"Index Only Scan.*Heap Fetches: [1-9]", one.plan(explain), re.S)  # an index scan in all but name
    one.sql("VACUUM ANALYZE campaign_events")
    assert re.search(r"Index Only Scan.*Heap Fetches: 0", one.plan(explain), re.S)


def contacts_page(lite, limit, cursor=None, ties=False):
    """The report's getContacts; `ties`: the form that works."""
    query, parameters = "SELECT imported_at, email FROM imported_contacts WHERE 1=1", []
    if cursor and ties:
        query += " AND (coalesce(imported_at, ''), email) < (?, ?)"
        parameters += cursor
    elif cursor:
        query += " AND imported_at < ?"
        parameters.append(cursor[0])
    query += " ORDER BY coalesce(imported_at, '') DESC, email DESC" if ties else " ORDER BY imported_at DESC"
    rows = lite.execute(query + " LIMIT ?", [*parameters, limit + 1]).fetchall()
    page = rows[:limit]
    return page, ((page[-1][0] or "") if ties else page[-1][0], page[-1][1]) if len(rows) > limit else None


def all_pages(lite, ties):
    found, cursor = [], None
    while True:
        page, cursor = contacts_page(lite, 50, cursor, ties)
        found += page
        if not cursor or (not ties and cursor[0] is None):  # nextCursor null: the end, for the report's caller
            return found


def test_a_cursor_on_imported_at_alone_skips_ties_and_nulls(lite):
    lite.executescript(CONTACTS)
    lite.executemany("INSERT INTO imported_contacts (email, source, data) VALUES (?, 's', '{}')",
                     [(f"c{n}@example.com",) for n in range(200)])  # one import: one second
    lite.execute("UPDATE imported_contacts SET imported_at = NULL WHERE email LIKE '%7@example.com'")
    assert len(all_pages(lite, ties=False)) <= 70  # of 200
    assert len(set(all_pages(lite, ties=True))) == 200


def test_a_limit_that_is_parsed_is_no_bound_and_a_filter_sorts_every_page(lite):
    lite.executescript(CONTACTS)
    lite.executemany("INSERT INTO imported_contacts (email, source, data) VALUES (?, 's', '{}')",
                     [(f"c{n}@example.com",) for n in range(300)])
    count = "SELECT email FROM imported_contacts ORDER BY imported_at DESC LIMIT ?"
    assert len(lite.execute(count, [parse_int("-2") + 1]).fetchall()) == 300  # ?limit=-2: everything
    with pytest.raises(sqlite3.IntegrityError, match="datatype mismatch"):
        lite.execute(count, [None])  # ?limit=abc: NaN, which is bound as NULL
    plan = "EXPLAIN QUERY PLAN SELECT * FROM imported_contacts WHERE source = 's' AND imported_at < 'x' " \
           "ORDER BY imported_at DESC LIMIT 51"
    lite.execute("DROP INDEX idx_imported_date")
    assert "TEMP B-TREE" in str(lite.execute(plan).fetchall())  # by source: all rows of the source, each page
    lite.execute("CREATE INDEX both ON imported_contacts (source, imported_at, email)")
    assert "TEMP B-TREE" not in str(lite.execute(plan).fetchall())


# ---- 3 --------------------------------------------------------------------------------------

@contextlib.contextmanager
def deadlock(first, second, statements):
    """Runs [(first's, second's), (first's, second's)] so that both wait for each other; gives the SQLSTATEs and
    the victim, in its aborted transaction. Both are rolled back after."""
    for session, text in zip((first, second), statements[0]):
        session.sql("SET lock_timeout = '10s'; BEGIN")
        session.sql(text)
    states = {}

    def go(session, text):
        try:
            session.sql(text)
        except psycopg2.Error as error:
            states[session] = error.pgcode
    waiting = threading.Thread(target=go, args=(first, statements[1][0]))
    waiting.start()
    wait_until(lambda: second.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = %s",
                                    first.connection.get_backend_pid()), what="the first waits")
    go(second, statements[1][1])
    wait_until(lambda: states, what="a victim")
    victim, = states
    yield states[victim], victim
    victim.sql("ROLLBACK")
    waiting.join(10)
    (second if victim is first else first).sql("ROLLBACK")


def test_a_statement_retried_in_its_aborted_transaction_fails_again(theirs):
    """The retry of 3.1 and 3.3 repeats the statement that failed; the transaction is gone by then."""
    first, second = theirs
    ids = [row[0] for row in first.sql("INSERT INTO campaign_instances (status) VALUES ('a'), ('b') RETURNING id::text")]
    update = "UPDATE campaign_instances SET total_sent = total_sent + 1 WHERE id = '{}'"
    with deadlock(first, second, [[update.format(ids[0]), update.format(ids[1])],
                                  [update.format(ids[1]), update.format(ids[0])]]) as (state, victim):
        assert state == "40P01"
        assert [victim.state(update.format(ids[0])) for _ in range(3)] == ["25P02"] * 3
    # What works: the whole transaction again. oncehook's is one statement, a call.
    victim.sql("BEGIN")
    victim.sql(update.format(ids[1]))
    victim.sql(update.format(ids[0]))
    victim.sql("COMMIT")


def test_one_order_of_tables_without_one_inside_a_table_still_deadlocks(theirs):
    first, second = theirs
    ids = [row[0] for row in first.sql("INSERT INTO campaign_enrollments (contact_id) VALUES (gen_random_uuid()), "
                                       "(gen_random_uuid()) RETURNING id::text")]
    update = "UPDATE campaign_enrollments SET status = 'paused' WHERE id = '{}'"  # both keep to the report's rule
    with deadlock(first, second, [[update.format(ids[0]), update.format(ids[1])],
                                  [update.format(ids[1]), update.format(ids[0])]]) as (state, _):
        assert state == "40P01"


def test_retrying_an_increment_after_a_lost_connection_counts_twice(theirs):
    first, second = theirs
    one = first.value("INSERT INTO campaign_instances DEFAULT VALUES RETURNING id::text")
    increment = f"UPDATE campaign_instances SET total_sent = total_sent + 1 WHERE id = '{one}'"
    first.sql(increment)  # committed; suppose the connection ends before its answer arrives …
    first.connection.close()
    second.sql(increment)  # … /connection terminated/ matches, and the statement is sent again
    assert second.value("SELECT total_sent FROM campaign_instances") == 2


def test_a_key_makes_the_second_try_harmless(database):
    (instance, (enrollment,)), = database.seed()
    again = event(enrollment=enrollment, type="sent")
    assert [capture(database.gateway_url, again) for _ in range(2)] == ["c", "d"]
    assert database.value("SELECT total_sent FROM campaign_instances WHERE id = %s", instance) == 1


def test_lock_timeout_is_off_by_default_and_two_pools_of_fifty_are_too_many(one):
    settings = dict(one.sql("SELECT name, boot_val FROM pg_settings WHERE name IN "
                            "('lock_timeout', 'max_connections', 'superuser_reserved_connections')"))
    assert settings["lock_timeout"] == "0"  # so /lock timeout/ never matches: nothing sets one
    assert 2 * 50 > int(settings["max_connections"]) - int(settings["superuser_reserved_connections"])


def test_a_status_that_is_read_unlocked_lets_a_pause_slip_between(theirs):
    first, second = theirs
    instance = first.value("INSERT INTO campaign_instances DEFAULT VALUES RETURNING id::text")
    look = f"SELECT status FROM campaign_instances WHERE id = '{instance}'"
    enroll = f"INSERT INTO campaign_enrollments (instance_id, contact_id) VALUES ('{instance}', gen_random_uuid())"
    pause = "UPDATE campaign_instances SET status = 'paused'"
    first.sql("BEGIN")
    assert first.value(look) == "active"  # findByPk: "row-level locking prevents concurrent modifications"
    second.sql(pause)
    first.sql(enroll)
    first.sql("COMMIT")
    assert first.sql("SELECT i.status, count(*) FROM campaign_instances i JOIN campaign_enrollments e "
                     "ON e.instance_id = i.id GROUP BY 1") == [("paused", 1)]
    second.sql("UPDATE campaign_instances SET status = 'active'")
    first.sql("BEGIN")
    assert first.value(look + " FOR NO KEY UPDATE") == "active"
    assert second.state(pause) == "55P03"  # the pause waits
    first.sql(enroll)
    first.sql("COMMIT")


# ---- 4 --------------------------------------------------------------------------------------

def test_the_check_of_a_rollback_does_not_see_the_sequences(theirs):
    one = theirs[0]
    for table in ("campaign_events", "campaign_enrollments", "campaign_instances"):  # a rollback that stopped half-way
        one.sql(f"DROP TABLE {table}")
    one.sql("DROP TABLE campaign_templates CASCADE")
    schema = one.value("SELECT current_schema()")
    seen = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
    assert one.sql(seen + " AND tablename LIKE 'campaign_%%'", schema) == []
    assert {row[0] for row in one.sql(seen, schema)} > {"email_sequences", "linkedin_sequences"}


def test_a_constant_default_rewrites_nothing_and_the_four_steps_fail(theirs):
    one = theirs[0]
    one.sql("INSERT INTO campaign_instances (total_sent) SELECT n % 2 FROM generate_series(1, 10) n")
    file = "SELECT pg_relation_filenode('campaign_instances')"
    before = one.value(file)
    one.sql("ALTER TABLE campaign_instances ADD COLUMN constant integer NOT NULL DEFAULT 0")
    assert one.value(file) == before
    # The report's four steps: rows that sent nothing stay null.
    one.sql("ALTER TABLE campaign_instances ADD COLUMN total_delivered integer")
    one.sql("UPDATE campaign_instances SET total_delivered = total_sent WHERE total_delivered IS NULL AND total_sent > 0")
    one.sql("ALTER TABLE campaign_instances ALTER COLUMN total_delivered SET DEFAULT 0")
    assert one.state("ALTER TABLE campaign_instances ALTER COLUMN total_delivered SET NOT NULL") == "23502"


def test_set_not_null_scans_under_the_lock_unless_a_valid_check_says_so(theirs):
    first, second = theirs
    first.sql("ALTER TABLE campaign_instances ADD CONSTRAINT n CHECK (status IS NOT NULL) NOT VALID")
    first.sql("BEGIN")
    first.sql("ALTER TABLE campaign_instances VALIDATE CONSTRAINT n")
    second.sql("SELECT FROM campaign_instances")  # the scan stops nobody …
    second.sql("UPDATE campaign_instances SET status = 'x'")
    first.sql("COMMIT")
    first.sql("SET client_min_messages = debug1")
    del first.connection.notices[:]
    first.sql("ALTER TABLE campaign_instances ALTER COLUMN status SET NOT NULL")
    assert "existing constraints on column" in "".join(first.connection.notices)  # … and SET NOT NULL has none
    del first.connection.notices[:]
    first.sql("ALTER TABLE campaign_instances ALTER COLUMN template_id SET NOT NULL")
    assert "existing constraints on column" not in "".join(first.connection.notices)
    first.sql("BEGIN; ALTER TABLE campaign_instances ALTER COLUMN template_id DROP NOT NULL")
    assert second.state("SELECT FROM campaign_instances") == "55P03"  # all of it under ACCESS EXCLUSIVE
    first.sql("ROLLBACK")


ADD = "ALTER TABLE campaign_events ADD CONSTRAINT v2 CHECK (channel IN ('email', 'linkedin', 'video', 'sms', 'phone')) NOT VALID"
VALIDATE = "ALTER TABLE campaign_events VALIDATE CONSTRAINT v2"


def test_not_valid_and_validate_in_one_transaction_keep_everybody_out(theirs):
    first, second = theirs
    first.sql("BEGIN")
    first.sql(ADD)
    first.sql(VALIDATE)
    assert second.state("SELECT FROM campaign_events") == "55P03"
    first.sql("ROLLBACK")
    first.sql(ADD)
    first.sql("BEGIN")
    first.sql(VALIDATE)
    second.sql("SELECT FROM campaign_events")
    second.sql("INSERT INTO campaign_events (channel) VALUES ('sms')")
    first.sql("COMMIT")
