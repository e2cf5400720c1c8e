"""Sections 5 to 11 and appendix C of the report that the data model comes from (docs/seed-report.md), as
test_seed_report.py has sections 1 to 4."""

import contextlib
import sqlite3
import threading

import psycopg2
import pytest

from support.capture import capture, event
from support.process import wait_until
from support.report import lite, module_database, one, sessions, theirs  # noqa: F401 (fixtures)

# ---- 5 --------------------------------------------------------------------------------------

def test_the_gin_index_of_the_report_is_not_used_by_its_query(theirs):
    one = theirs[0]
    one.sql("CREATE INDEX theirs ON campaign_instances USING GIN ((provider_config -> 'email_provider'))")
    one.sql("SET enable_seqscan = off")
    query = "EXPLAIN SELECT * FROM campaign_instances WHERE provider_config @> '{\"email_provider\": \"lemlist\"}'"
    assert "Seq Scan" in one.plan(query)
    one.sql("CREATE INDEX ours ON campaign_instances USING GIN (provider_config jsonb_path_ops)")
    assert "Index Scan on ours" in one.plan(query)


def test_a_check_takes_null_so_a_step_needs_not_null_too(theirs, database):
    theirs[0].sql("ALTER TABLE email_sequences ADD CONSTRAINT email_sequences_step_number_positive CHECK (step_number > 0)")
    template = theirs[0].value("INSERT INTO campaign_templates DEFAULT VALUES RETURNING id::text")
    theirs[0].sql("INSERT INTO email_sequences (template_id, step_number) VALUES (%s, NULL)", template)
    template = database.value("INSERT INTO campaign_templates DEFAULT VALUES RETURNING id::text")
    for step in (None, 0, -1):
        with pytest.raises(psycopg2.IntegrityError):
            database.sql("INSERT INTO email_sequences (template_id, step_number) VALUES (%s, %s)", template, step)


def test_cascades_delete_the_ids_of_events_and_the_ledger_keeps_them(theirs, database):
    one = theirs[0]
    one.sql("WITH t AS (INSERT INTO campaign_templates DEFAULT VALUES RETURNING id), i AS (INSERT INTO campaign_instances "
            "(template_id) SELECT id FROM t RETURNING id), e AS (INSERT INTO campaign_enrollments (instance_id) SELECT id "
            "FROM i RETURNING id) INSERT INTO campaign_events (enrollment_id, provider_event_id) SELECT id, 'evt_1' FROM e")
    one.sql("DELETE FROM campaign_templates")
    one.sql("INSERT INTO campaign_events (provider_event_id) VALUES ('evt_1')")  # the provider's retry: a new event
    (instance, (enrollment,)), = database.seed()
    again = event(enrollment=enrollment)
    capture(database.gateway_url, again)
    database.sql("DELETE FROM campaign_templates")
    assert database.value("SELECT count(*) FROM campaign_events") == 1
    assert capture(database.gateway_url, again) == "d"


# ---- 6 and 10.3 -----------------------------------------------------------------------------

UNUSED = """SELECT schemaname, tablename, indexname, idx_scan, pg_size_pretty(pg_relation_size(indexrelid)) AS index_size
              FROM pg_stat_user_indexes WHERE schemaname = current_schema() AND idx_scan {}
               AND indexrelid NOT IN (SELECT indexrelid FROM pg_index WHERE indisprimary OR indisunique)"""


@pytest.mark.parametrize("scans", ["= 0", "< 100"])
def test_the_query_for_unused_indexes_names_columns_that_are_not_there(theirs, scans):
    one = theirs[0]
    assert one.state(UNUSED.format(scans)) == "42703"  # so "none detected" was never measured
    one.sql("CREATE INDEX unused ON campaign_instances (status)")
    right = UNUSED.format(scans).replace("tablename", "relname").replace("indexname", "indexrelname")
    assert [row[2] for row in one.sql(right)] == ["unused"]


def test_the_index_of_a_month_cannot_be_dropped_though_it_was_never_scanned(one):
    one.sql("CREATE TABLE events (at date, kind text) PARTITION BY RANGE (at); CREATE TABLE month PARTITION OF events "
            "FOR VALUES FROM ('2025-11-01') TO ('2025-12-01'); CREATE INDEX events_kind ON events (kind)")
    assert one.state("DROP INDEX month_kind_idx") == "2BP01"


def test_two_workers_that_look_for_due_enrollments_take_the_same(theirs):
    first, second = theirs
    first.sql("CREATE INDEX idx_campaign_enrollments_active_next_action ON campaign_enrollments(next_action_at) "
              "WHERE status = 'active' AND next_action_at IS NOT NULL")
    first.sql("INSERT INTO campaign_enrollments (contact_id, next_action_at) SELECT gen_random_uuid(), now() "
              "FROM generate_series(1, 10)")
    due = "SELECT id FROM campaign_enrollments WHERE status = 'active' AND next_action_at <= NOW() " \
          "ORDER BY next_action_at LIMIT 5"
    first.sql("SET enable_seqscan = off; SET enable_sort = off; BEGIN")
    second.sql("SET enable_seqscan = off; SET enable_sort = off; BEGIN")
    assert "idx_campaign_enrollments_active_next_action" in first.plan("EXPLAIN " + due)
    assert set(first.sql(due)) & set(second.sql(due))  # each is sent twice
    skip = due + " FOR NO KEY UPDATE SKIP LOCKED"
    mine, others = set(first.sql(skip)), set(second.sql(skip))
    assert len(mine) == len(others) == 5 and not mine & others


# ---- 7 --------------------------------------------------------------------------------------

def test_a_unique_constraint_does_not_hold_nulls_apart(theirs, database):
    one = theirs[0]
    instance = one.value("INSERT INTO campaign_instances DEFAULT VALUES RETURNING id::text")
    one.sql("INSERT INTO campaign_enrollments (instance_id, contact_id) VALUES (%s, NULL), (%s, NULL)", instance, instance)
    (instance, _), = database.seed()
    with pytest.raises(psycopg2.errors.NotNullViolation):
        database.sql("INSERT INTO campaign_enrollments (instance_id, contact_id) VALUES (%s, NULL)", instance)


def test_one_id_of_two_providers_is_refused_by_their_index_and_kept_by_the_ledger(theirs, database):
    one = theirs[0]
    one.sql("INSERT INTO campaign_events (provider, provider_event_id) VALUES ('twilio', '1')")
    assert one.state("INSERT INTO campaign_events (provider, provider_event_id) VALUES ('hubspot', '1')") == "23505"
    one.sql("INSERT INTO campaign_events (provider) VALUES ('hmac'), ('hmac')")  # and without an id nothing is held apart
    assert capture(database.gateway_url, event(id="1", scope="source:twilio"), event(id="1", scope="source:hubspot"),
                   event(id="1", scope="source:hubspot")) == "ccd"


def test_looking_before_inserting_is_a_race_that_ends_in_an_error(theirs):
    first, second = theirs
    look = "SELECT id FROM campaign_events WHERE provider_event_id = 'evt_9'"
    insert = "INSERT INTO campaign_events (provider_event_id) VALUES ('evt_9')"
    assert first.sql(look) == second.sql(look) == []
    first.sql(insert)
    assert second.state(insert) == "23505"  # findOne, then create: a 500, and the provider sends again
    second.sql(insert + " ON CONFLICT DO NOTHING")


def test_a_unique_index_on_an_id_cannot_live_on_a_partitioned_table(theirs):
    one = theirs[0]
    # Section 11's statement: the primary key and the unique index do not contain the partition key.
    assert one.state("CREATE TABLE campaign_events_partitioned (LIKE campaign_events INCLUDING ALL) "
                     "PARTITION BY RANGE (timestamp)") == "0A000"
    one.sql("CREATE TABLE parted (LIKE campaign_events) PARTITION BY RANGE (timestamp)")
    assert one.state("CREATE UNIQUE INDEX ON parted (provider_event_id)") == "0A000"
    one.sql("CREATE UNIQUE INDEX ON parted (provider_event_id, timestamp)")  # allowed, and holds nothing apart
    one.sql("CREATE TABLE month PARTITION OF parted FOR VALUES FROM ('2025-11-01') TO ('2025-12-01')")
    for day in (3, 4):
        one.sql("INSERT INTO parted (id, provider_event_id, timestamp) VALUES (gen_random_uuid(), 'evt_1', "
                f"'2025-11-0{day}')")


ARCHIVE = """CREATE TABLE workflow_states_archive (LIKE workflow_states INCLUDING ALL);
             ALTER TABLE workflow_states_archive ADD COLUMN archived_at timestamptz DEFAULT CURRENT_TIMESTAMP"""


def test_select_then_archive_then_delete_takes_a_workflow_that_runs_again(theirs):
    first, second = theirs
    first.sql(ARCHIVE)
    old = "INSERT INTO workflow_states (status, completed_at) SELECT 'completed', now() - interval '90 days' " \
          "FROM generate_series(1, 2)"
    where = "status = 'completed' AND completed_at < NOW() - (30 * INTERVAL '1 day')"
    first.sql(old)
    first.sql("BEGIN")
    ids = [row[0] for row in first.sql(f"SELECT id::text FROM workflow_states WHERE {where}")]
    first.sql("INSERT INTO workflow_states_archive SELECT * FROM workflow_states WHERE id = ANY (%s::uuid[])", ids)
    second.sql("UPDATE workflow_states SET status = 'running', completed_at = NULL, context = '{\"x\": 1}' "
               "WHERE id = %s", ids[0])
    first.sql("DELETE FROM workflow_states WHERE id = ANY (%s::uuid[])", ids)
    first.sql("COMMIT")
    assert first.sql("SELECT id FROM workflow_states") == []  # the running one is deleted …
    assert first.sql("SELECT DISTINCT status, context FROM workflow_states_archive") == [("completed", None)]  # … as it was
    # What works: one statement; what it deletes is what it archives.
    first.sql("TRUNCATE workflow_states_archive")
    first.sql(old)
    again = first.value("SELECT id::text FROM workflow_states LIMIT 1")
    second.sql("BEGIN; UPDATE workflow_states SET status = 'running' WHERE id = %s", again)
    first.sql("SET lock_timeout = '10s'")
    beside = threading.Thread(target=first.sql, args=(
        "WITH gone AS (DELETE FROM workflow_states WHERE " + where.replace("%", "%%") + " RETURNING *) "
        "INSERT INTO workflow_states_archive SELECT g.*, now() FROM gone g",))
    beside.start()
    wait_until(lambda: second.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = %s",
                                    first.connection.get_backend_pid()), what="the DELETE waits for the row")
    second.sql("COMMIT")
    beside.join(10)
    assert second.sql("SELECT id::text, status FROM workflow_states") == [(again, "running")]
    assert second.value("SELECT count(*) FROM workflow_states_archive") == 1


def test_insert_select_star_fails_after_the_next_column(theirs):
    one = theirs[0]
    one.sql(ARCHIVE)
    one.sql("INSERT INTO workflow_states DEFAULT VALUES")
    one.sql("ALTER TABLE workflow_states ADD COLUMN owner text DEFAULT 'x'")
    assert one.state("INSERT INTO workflow_states_archive SELECT * FROM workflow_states") == "42804"


def test_an_archive_made_like_its_table_takes_an_id_once(theirs, database):
    """INCLUDING ALL takes the primary key along: what was put back out of the archive can never leave again."""
    one = theirs[0]
    one.sql(ARCHIVE)
    one.sql("INSERT INTO workflow_states (status) VALUES ('completed')")
    archive = "INSERT INTO workflow_states_archive SELECT * FROM workflow_states"
    one.sql(archive)
    assert one.state(archive) == "23505"
    database.sql("INSERT INTO workflow_states (status, completed_at) VALUES ('completed', now() - interval '31 days')")
    for _ in range(2):
        assert database.value("SELECT retire_workflows_v1('completed', 30, 10)") == 1
        database.sql("INSERT INTO workflow_states (id, status, completed_at) SELECT DISTINCT id, status, completed_at "
                     "FROM workflow_states_archive")
    assert database.value("SELECT count(*) FROM workflow_states_archive") == 2


def test_a_failed_workflow_without_completed_at_is_never_cleaned_up(theirs):
    one = theirs[0]
    one.sql("INSERT INTO workflow_states (status, completed_at) VALUES ('failed', NULL), ('failed', now() - interval '1 year')")
    one.sql("DELETE FROM workflow_states WHERE status = 'failed' AND completed_at < NOW() - (90 * INTERVAL '1 day')")
    assert one.sql("SELECT status, completed_at FROM workflow_states") == [("failed", None)]


# ---- 8 --------------------------------------------------------------------------------------

def test_a_priority_of_text_is_served_by_the_alphabet(lite):
    lite.executescript("CREATE TABLE jobs (id TEXT PRIMARY KEY, status TEXT NOT NULL, priority TEXT NOT NULL, created_at "
                       "INTEGER NOT NULL); CREATE INDEX idx_jobs_status ON jobs(status, priority, created_at)")
    lite.executemany("INSERT INTO jobs VALUES (?, 'pending', ?, 1)", [(p, p) for p in ("low", "normal", "high", "urgent")])
    served = [row[0] for row in lite.execute("SELECT priority FROM jobs WHERE status = 'pending' ORDER BY priority, created_at")]
    assert served == ["high", "low", "normal", "urgent"]


CACHE = """CREATE TABLE enrichment_cache (type TEXT NOT NULL, key TEXT NOT NULL, data TEXT NOT NULL,
             cached_at TEXT NOT NULL, PRIMARY KEY (type, key));
           INSERT INTO enrichment_cache VALUES ('contact', 'a@example.com', '{}', '2020-01-01 00:00:00');"""


def test_the_expiry_of_8_2_gives_old_rows_a_month_more_and_new_ones_none(lite):
    lite.executescript(CACHE)
    lite.executescript("ALTER TABLE enrichment_cache ADD COLUMN expires_at INTEGER; UPDATE enrichment_cache SET expires_at = "
                       "strftime('%s', 'now') * 1000 + (720 * 60 * 60 * 1000) WHERE expires_at IS NULL;")
    lite.execute("INSERT INTO enrichment_cache (type, key, data, cached_at) VALUES ('contact', 'b', '{}', '2020-01-01')")
    for milliseconds in (0, 3650 * 86400 * 1000):  # the row of an old writer outlives ten years
        lite.execute("DELETE FROM enrichment_cache WHERE expires_at < strftime('%s', 'now') * 1000 + ?", [milliseconds])
        left = [row[0] for row in lite.execute("SELECT key FROM enrichment_cache ORDER BY key")]
        assert left == (["a@example.com", "b"] if milliseconds == 0 else ["b"])


MIGRATION_3 = """BEGIN TRANSACTION;
  ALTER TABLE enrichment_cache ADD COLUMN id TEXT; ALTER TABLE enrichment_cache ADD COLUMN contact_email TEXT;
  ALTER TABLE enrichment_cache ADD COLUMN company_domain TEXT; ALTER TABLE enrichment_cache ADD COLUMN enrichment_data TEXT;
  ALTER TABLE enrichment_cache ADD COLUMN created_at INTEGER; ALTER TABLE enrichment_cache ADD COLUMN expires_at INTEGER;
  UPDATE enrichment_cache SET enrichment_data = data, created_at = strftime('%s', cached_at) * 1000,
    expires_at = strftime('%s', cached_at) * 1000 + (720 * 60 * 60 * 1000) WHERE enrichment_data IS NULL;
  CREATE TABLE enrichment_cache_new (id TEXT PRIMARY KEY, contact_email TEXT, company_domain TEXT,
    enrichment_data TEXT NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL);
  INSERT INTO enrichment_cache_new SELECT COALESCE(id, type || '_' || key), contact_email, company_domain,
    COALESCE(enrichment_data, data), created_at, expires_at FROM enrichment_cache WHERE enrichment_data IS NOT NULL;
  DROP TABLE enrichment_cache; ALTER TABLE enrichment_cache_new RENAME TO enrichment_cache; COMMIT;"""


def test_migration_3_keeps_rows_that_nobody_finds_and_stops_at_two_keys_that_join_alike(lite):
    lite.executescript(CACHE + MIGRATION_3)
    assert lite.execute("SELECT contact_email, company_domain FROM enrichment_cache").fetchall() == [(None, None)]
    with pytest.raises(sqlite3.OperationalError, match="no such column: type"):
        lite.execute("SELECT enrichment_data FROM enrichment_cache WHERE type = 'contact' AND key = 'a@example.com'")
    with contextlib.closing(sqlite3.connect(":memory:")) as other:
        other.executescript(CACHE + "INSERT INTO enrichment_cache VALUES ('a_b', 'c', '{}', '2025-01-01'), "
                                    "('a', 'b_c', '{}', '2025-01-01');")
        with pytest.raises(sqlite3.IntegrityError):
            other.executescript(MIGRATION_3)
    with contextlib.closing(sqlite3.connect(":memory:")) as other:  # and after the fix of 8.2 it does not run at all
        other.executescript(CACHE + "ALTER TABLE enrichment_cache ADD COLUMN expires_at INTEGER;")
        with pytest.raises(sqlite3.OperationalError, match="duplicate column name"):
            other.executescript(MIGRATION_3)


def test_an_integrity_check_does_not_see_a_changed_byte_and_mmap_is_capped(tmp_path):
    path = str(tmp_path / "jobs.db")
    with contextlib.closing(sqlite3.connect(path)) as made:
        # No build of SQLite takes 30 GB; what it does take, turns an I/O error into a SIGBUS.
        assert made.execute("PRAGMA mmap_size = 30000000000").fetchone()[0] < 1 << 31
        made.executescript("CREATE TABLE jobs (parameters TEXT); INSERT INTO jobs VALUES ('amount 1000');")
    with open(path, "r+b") as file:
        bytes_ = file.read()
        file.seek(bytes_.index(b"amount 1000") + 7)
        file.write(b"9")
    with contextlib.closing(sqlite3.connect(path)) as changed:
        assert changed.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert changed.execute("SELECT parameters FROM jobs").fetchone() == ("amount 9000",)


# ---- 9 --------------------------------------------------------------------------------------

def test_create_index_concurrently_fails_in_a_transaction_and_on_a_partitioned_table(theirs):
    one = theirs[0]
    one.sql("BEGIN")
    index = "CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_campaign_events_type_timestamp ON {}(event_type, timestamp DESC)"
    assert one.state(index.format("campaign_events")) == "25001"
    one.sql("ROLLBACK")
    one.sql("CREATE TABLE parted (LIKE campaign_events) PARTITION BY RANGE (timestamp); CREATE TABLE month PARTITION OF parted "
            "FOR VALUES FROM ('2025-11-01') TO ('2025-12-01')")
    assert one.state(index.format("parted")) == "0A000"
    # What works: the parent's index alone, each month's concurrently, attached.
    one.sql("CREATE INDEX parent ON ONLY parted (event_type, timestamp DESC)")
    one.sql("CREATE INDEX CONCURRENTLY of_month ON month (event_type, timestamp DESC)")
    one.sql("ALTER INDEX parent ATTACH PARTITION of_month")
    assert one.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 'parent'::regclass")


def test_if_not_exists_keeps_an_index_that_is_invalid(theirs):
    one = theirs[0]
    one.sql("INSERT INTO workflow_states (workflow_name) VALUES ('same'), ('same')")
    index = "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS only_once ON workflow_states (workflow_name)"
    assert one.state(index) == "23505"
    one.sql("DELETE FROM workflow_states")
    one.sql(index)  # "already exists, skipping"
    assert one.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 'only_once'::regclass") is False


# ---- 10 and 11 ------------------------------------------------------------------------------

def test_pg_stat_statements_needs_more_than_its_extension(one):
    one.sql("CREATE EXTENSION pg_stat_statements")
    assert one.state("SELECT query FROM pg_stat_statements") == "55000"


def test_the_message_of_an_error_holds_what_was_sent(theirs):
    """10.1 logs error.message and the first 200 characters of the statement: both may be a person's."""
    with pytest.raises(psycopg2.Error) as caught:
        theirs[0].sql("SELECT %s::uuid", "alice@example.com")
    assert "alice@example.com" in caught.value.diag.message_primary


def test_bounds_without_a_zone_follow_the_session_and_a_month_by_timestamp_refuses_events(theirs):
    first, second = theirs
    first.sql("CREATE TABLE parted (LIKE campaign_events) PARTITION BY RANGE (timestamp)")
    first.sql("SET TimeZone = 'UTC'")
    second.sql("SET TimeZone = 'America/New_York'")
    first.sql("CREATE TABLE november PARTITION OF parted FOR VALUES FROM ('2025-11-01') TO ('2025-12-01')")
    second.sql("CREATE TABLE december PARTITION OF parted FOR VALUES FROM ('2025-12-01') TO ('2026-01-01')")
    insert = "INSERT INTO parted (id, timestamp) VALUES (gen_random_uuid(), '{}')"
    assert first.state(insert.format("2025-12-01 02:00:00+00")) == "23514"  # five hours that no month takes
    assert first.state(insert.format("2019-01-01")) == "23514"  # and the time is the provider's to say


def test_a_query_without_the_partition_key_reads_every_month(one):
    one.sql("CREATE TABLE events (at date, enrollment_id uuid) PARTITION BY RANGE (at); CREATE INDEX ON events (enrollment_id)")
    for month in range(1, 13):
        one.sql(f"CREATE TABLE events_{month} PARTITION OF events FOR VALUES FROM (DATE '2025-{month}-1') TO "
                f"((DATE '2025-{month}-1' + interval '1 month')::date)")
    by_person = one.plan("EXPLAIN SELECT FROM events WHERE enrollment_id = gen_random_uuid()")
    by_month = one.plan("EXPLAIN SELECT FROM events WHERE at = DATE '2025-03-05'")
    assert by_person.count(" on events_") == 12 and by_month.count(" on events_") == 1


def test_dropping_a_month_forgets_its_ids_where_they_live_in_it(database):
    """The report keeps the ids in the events; here the ledger outlives them."""
    again = event()
    capture(database.gateway_url, again)
    month = database.value("SELECT tableoid::regclass::text FROM campaign_events")
    database.sql(f"ALTER TABLE campaign_events DETACH PARTITION {month}")
    database.sql(f"DROP TABLE {month}")
    database.sql("SELECT oncehook_make_months(0)")
    assert database.value("SELECT count(*) FROM campaign_events") == 0
    assert capture(database.gateway_url, again) == "d"


# ---- appendix C -----------------------------------------------------------------------------

def test_explain_analyze_of_a_migration_runs_it(theirs):
    one = theirs[0]
    one.sql("INSERT INTO campaign_instances DEFAULT VALUES")
    one.sql("EXPLAIN ANALYZE UPDATE campaign_instances SET status = 'gone'")
    assert one.value("SELECT status FROM campaign_instances") == "gone"
    assert one.state("EXPLAIN ANALYZE ALTER TABLE campaign_instances ADD COLUMN x integer") == "42601"
