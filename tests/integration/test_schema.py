"""Migrations, months, roles and what the schema enforces."""

import contextlib
import re
import threading
import uuid

import psycopg2
import pytest

from support.capture import capture, connect, event
from support.gateway import oncehook
from support.postgres import GATEWAY, OWNER

TABLES = {"campaign_templates", "email_sequences", "linkedin_sequences", "campaign_instances",
          "campaign_enrollments", "campaign_events", "event_keys", "enrollment_references",
          "quarantined_deliveries", "schema_migrations",
          "workflow_states", "workflow_states_archive", "enrichment_cache",
          "imported_contacts", "folded_events", "folded_enrollments",
          "retired_months", "campaign_events_retired", "key_walk", "learned_secrets", "adopted_tables", "adopted_changes"}

# What others rely on by name (CONTRACT: SQL).
COLUMNS = {
    "campaign_templates": "id name type path_type icp_profile_id settings is_active created_at",
    "email_sequences": "id template_id step_number subject body delay_hours is_active",
    "linkedin_sequences": "id template_id step_number type message delay_hours is_active",
    "campaign_instances": "id template_id name status provider_config total_enrolled total_sent total_delivered "
                          "total_opened total_clicked total_replied total_bounced total_unsubscribed "
                          "total_completed",
    "campaign_enrollments": "id instance_id contact_id status next_action_at completed_at total_events "
                            "last_event_at tx",
    "campaign_events": "id source provider provider_event_id key_scope key_grade event_type provider_event_type "
                       "channel instance_id enrollment_id timestamp received_at delivery_id tx payload "
                       "payload_bytes",
    "enrollment_references": "key_scope reference enrollment_id created_at id tx",
    "event_keys": "provider_event_id key_scope received_at",
    "quarantined_deliveries": "id source provider received_at reason method url headers body body_sha256 "
                              "attempts resolved_at",
    "imported_contacts": "id email first_name last_name title company company_domain phone linkedin_url source "
                         "data imported_at",
    "schema_migrations": "version name checksum applied_at",
    "workflow_states": "id workflow_name status context current_step error started_at completed_at",
    "workflow_states_archive": "id workflow_name status context current_step error started_at completed_at "
                               "archived_at",
    "enrichment_cache": "type key data contact_email company_domain quality_score data_sources cached_at expires_at"}

# Columns that a row cannot be inserted without: keys, and the ids a row belongs to.
DEMANDED = {("email_sequences", "template_id"), ("linkedin_sequences", "template_id"),
            ("campaign_instances", "template_id"), ("campaign_enrollments", "instance_id"),
            ("enrollment_references", "key_scope"), ("enrollment_references", "reference"),
            ("enrollment_references", "enrollment_id"),
            ("event_keys", "provider_event_id"), ("event_keys", "key_scope"),
            ("quarantined_deliveries", "source"), ("quarantined_deliveries", "body_sha256"),
            ("workflow_states_archive", "id"), ("enrichment_cache", "type"), ("enrichment_cache", "key"),
            ("imported_contacts", "email"),
            ("folded_events", "instance_id"), ("folded_events", "event_type"), ("folded_events", "from_at"),
            ("folded_enrollments", "enrollment_id"),
            ("learned_secrets", "source"), ("learned_secrets", "secret"), ("adopted_tables", "number")}

TYPES = {"uuid": ["campaign_templates.id", "campaign_instances.id", "campaign_enrollments.id",
                  "campaign_enrollments.contact_id", "campaign_events.delivery_id", "campaign_events.instance_id",
                  "campaign_events.enrollment_id"],
         "xid8": ["campaign_events.tx"], "jsonb": ["campaign_events.payload", "quarantined_deliveries.headers"],
         "bytea": ["campaign_events.payload_bytes", "quarantined_deliveries.body"],
         "bigint": ["campaign_events.id"]}


def migrate(database, *arguments, check=True, **options):
    return oncehook("migrate", *arguments, "--database", database.owner_url, check=check, **options)


def tables(database, schema="public"):
    return {row[0] for row in database.sql(
        "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'p') "
        "AND NOT relispartition", schema)}


def refused(database, statement, *parameters, user_url=None):
    """Runs the statement, which must fail; its SQLSTATE."""
    with contextlib.closing(connect(user_url or database.owner_url)) as connection:
        with connection.cursor() as cursor, pytest.raises(psycopg2.Error) as failure:
            cursor.execute(statement, parameters or None)
    return failure.value.pgcode


# ---- what is there --------------------------------------------------------------------------

def test_up_makes_the_tables_of_the_contract_with_their_columns(database):
    assert tables(database) == TABLES
    for table, names in COLUMNS.items():
        found = {row[0] for row in database.sql(
            "SELECT column_name FROM information_schema.columns WHERE table_name = %s", table)}
        assert set(names.split()) <= found, table
    for kind, columns in TYPES.items():
        for column in columns:
            assert database.value("SELECT data_type FROM information_schema.columns "
                                  "WHERE table_name || '.' || column_name = %s", column) == kind, column


def test_only_keys_and_owning_ids_must_be_given(database):
    assert {tuple(row) for row in database.sql("""
        SELECT table_name, column_name FROM information_schema.columns
         WHERE table_name = ANY (%s) AND is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO'
           AND table_name <> 'schema_migrations'""", list(TABLES))} == DEMANDED


def test_defaults_are_those_of_the_contract(database):
    assert database.sql("INSERT INTO campaign_templates DEFAULT VALUES RETURNING type, is_active, "
                        "created_at IS NOT NULL") == [("email", True, True)]
    assert database.sql("INSERT INTO campaign_instances (template_id) SELECT id FROM campaign_templates "
                        "RETURNING status, provider_config, total_enrolled, total_completed") == \
        [("draft", {}, 0, 0)]
    assert database.sql("INSERT INTO campaign_enrollments (instance_id) SELECT id FROM campaign_instances "
                        "RETURNING status, total_events, last_event_at") == [("active", 0, None)]
    assert database.sql("INSERT INTO campaign_events DEFAULT VALUES RETURNING event_type, key_grade") == \
        [("other", "id")]


def test_indexes_of_the_contract_are_there_on_every_month(database):
    names = {row[0] for row in database.sql("SELECT indexname FROM pg_indexes WHERE tablename = 'campaign_events'")}
    assert names == {"campaign_events_pkey", "idx_campaign_events_type_timestamp", "idx_campaign_events_timestamp",
                     "idx_campaign_events_enrollment", "idx_campaign_events_instance",
                     "idx_campaign_events_orphans", "idx_campaign_events_orphans_tx", "idx_campaign_events_tx"}
    assert database.sql("""
        SELECT DISTINCT count(*) FROM pg_index x JOIN pg_inherits h ON h.inhrelid = x.indrelid
         WHERE h.inhparent = 'campaign_events'::regclass AND x.indisvalid GROUP BY x.indrelid""") == [(len(names),)]


@pytest.mark.parametrize("condition, index", [
    ("event_type = 'opened' AND \"timestamp\" > now() - interval '30 days'", "event_type_timestamp"),
    ("enrollment_id = '00000000-0000-0000-0000-000000000001' ", "enrollment_id"),
    ("instance_id = '00000000-0000-0000-0000-000000000001'", "instance_id"),
    ("instance_id IS NULL AND enrollment_id IS NOT NULL ORDER BY enrollment_id LIMIT 9", "enrollment_id"),
    ("instance_id IS NULL AND enrollment_id IS NOT NULL AND tx >= '7'", "tx")])
def test_reads_find_their_index(database, condition, index):
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        cursor.execute(f"EXPLAIN SELECT * FROM campaign_events WHERE {condition}")
        assert f"_{index}_idx" in "\n".join(row[0] for row in cursor.fetchall())


# ---- migrations -----------------------------------------------------------------------------

def test_up_is_said_line_by_line_and_twice_changes_nothing(empty_database):
    *first, verified = migrate(empty_database, "up").stdout.splitlines()
    count = empty_database.value("SELECT count(*) FROM schema_migrations")
    assert len([line for line in first if line.startswith("applied 0")]) == count
    assert verified == f"verified: version {count} of {count}, 0 invalid indexes, 0 constraints not validated"
    assert migrate(empty_database, "up").stdout.startswith("nothing to do")
    status = migrate(empty_database, "status").stdout.splitlines()
    assert len(status) == count and not any("pending" in line for line in status)
    assert empty_database.value("SELECT count(*) FROM schema_migrations WHERE checksum ~ '^[0-9a-f]{64}$'") == count


def test_down_undoes_one_and_all_and_leaves_nothing(empty_database):
    everything = """SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace)
                         + (SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace)
                         + (SELECT count(*) FROM pg_type WHERE typnamespace = 'public'::regnamespace)"""
    migrate(empty_database, "up")
    assert migrate(empty_database, "down").stdout.count("undid ") == 1
    assert [line.split()[-1] for line in migrate(empty_database, "status").stdout.splitlines()].count("pending") == 1
    migrate(empty_database, "down", "99")
    assert empty_database.value(everything) == 0
    assert migrate(empty_database, "down").stdout.startswith("nothing to do")
    migrate(empty_database, "up")
    assert capture(empty_database.gateway_url, event()) == "c"


def test_each_single_step_down_and_up_again_works(empty_database):
    migrate(empty_database, "up")
    count = empty_database.value("SELECT count(*) FROM schema_migrations")
    for steps in range(1, count + 1):
        migrate(empty_database, "down", steps)
        migrate(empty_database, "up")
        assert empty_database.value("SELECT count(*) FROM schema_migrations") == count
        assert capture(empty_database.gateway_url, event()) == "c"
        empty_database.sql("TRUNCATE campaign_events, event_keys")


def test_dry_run_says_what_it_would_do_and_changes_nothing(empty_database):
    said = migrate(empty_database, "up", "--dry-run").stdout
    assert "would apply 0001" in said and tables(empty_database) == set()
    migrate(empty_database, "up")
    said = migrate(empty_database, "down", "2", "--dry-run").stdout
    assert len(set(re.findall(r"^would undo (\d{4})", said, re.M))) == 2
    assert tables(empty_database) == TABLES


def test_down_over_rows_needs_force_and_undoes_nothing_before(empty_database):
    migrate(empty_database, "up")
    capture(empty_database.gateway_url, event())
    before = migrate(empty_database, "status").stdout
    done = migrate(empty_database, "down", "99", check=False)
    assert done.returncode == 1 and "would destroy the rows of" in done.stderr and "--force" in done.stderr
    assert migrate(empty_database, "status").stdout == before
    migrate(empty_database, "down", "99", "--force")
    assert tables(empty_database) == set()


def test_changed_migration_is_refused(empty_database):
    migrate(empty_database, "up")
    empty_database.sql("UPDATE schema_migrations SET checksum = repeat('0', 64) WHERE version = 2")
    for action in ("up", "down", "status"):
        done = migrate(empty_database, action, check=False)
        assert done.returncode == 1 and "0002" in done.stderr and "was changed" in done.stderr
    assert tables(empty_database) == TABLES


def test_table_it_did_not_make_is_refused_and_untouched(empty_database):
    empty_database.sql("CREATE TABLE campaign_events (mine integer)")
    done = migrate(empty_database, "up", check=False)
    assert done.returncode == 1 and "campaign_events" in done.stderr and "not made by oncehook" in done.stderr
    assert "applied" not in done.stdout + done.stderr, "half a schema beside somebody else's tables"
    assert empty_database.sql("SELECT * FROM campaign_events") == []


def test_schema_migrations_of_another_tool_is_refused_and_untouched(empty_database):
    empty_database.sql("CREATE TABLE schema_migrations (version varchar PRIMARY KEY)")
    empty_database.sql("INSERT INTO schema_migrations VALUES ('20250109000000')")
    for action in ("up", "down", "status"):
        done = migrate(empty_database, action, check=False)
        assert done.returncode == 1 and "not made by oncehook" in done.stderr
    assert tables(empty_database) == {"schema_migrations"}


def test_newer_database_is_left_alone(empty_database):
    migrate(empty_database, "up")
    empty_database.sql("INSERT INTO schema_migrations VALUES (9999, 'future', 'x')")
    assert "9999" in migrate(empty_database, "up").stdout
    assert "newer" in migrate(empty_database, "status").stdout
    done = migrate(empty_database, "down", check=False)
    assert done.returncode == 1 and "9999" in done.stderr


def test_several_at_once_apply_each_migration_once(empty_database):
    said, threads = [], []
    for _ in range(4):
        threads.append(threading.Thread(target=lambda: said.append(migrate(empty_database, "up").stdout)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    count = empty_database.value("SELECT count(*) FROM schema_migrations")
    assert len(said) == 4 and "".join(said).count("applied 0") == count


def test_another_schema_than_public_holds_everything(empty_database):
    schema = 'Odd "name'
    empty_database.sql("CREATE TABLE campaign_events (mine integer)")  # somebody else's, in public
    migrate(empty_database, "up", "--schema", schema)
    assert tables(empty_database) == {"campaign_events"}
    with contextlib.closing(connect(empty_database.gateway_url)) as connection, connection.cursor() as cursor:
        from support.capture import CALL, arrays
        cursor.execute(f'SELECT "Odd ""name".{CALL}', arrays([event(), event()]))
        assert cursor.fetchone() == ("cc",)
        cursor.execute('SELECT "Odd ""name".oncehook_make_months(4)')
        assert cursor.fetchone() == (1,)
        cursor.execute('SELECT count(*) FROM "Odd ""name".campaign_events')
        assert cursor.fetchone() == (2,)
    migrate(empty_database, "down", "99", "--force", "--schema", schema)
    assert tables(empty_database) == {"campaign_events"}


def test_missing_gateway_role_is_named_with_the_sql_that_makes_it(private_cluster):
    private_cluster.sql(f"DROP ROLE {GATEWAY}")
    database = private_cluster.create_database()
    done = migrate(database, "up", check=False)
    assert done.returncode == 2 and "CREATE ROLE oncehook_gateway LOGIN;" in done.stderr
    private_cluster.sql(f"ALTER ROLE {OWNER} CREATEROLE")
    migrate(database, "up")
    assert private_cluster.sql("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", GATEWAY) == [(False,)]


@pytest.mark.parametrize("arguments", [[], ["sideways"], ["up", "3"], ["down", "0"], ["down", "x"], ["down", "1", "2"],
                                       ["up", "--no-such"], ["up"]])
def test_wrong_usage_is_2_with_words_on_stderr(arguments):
    done = oncehook("migrate", *arguments, check=False)
    assert done.returncode == 2 and done.stderr and not done.stdout


def test_unreachable_database_is_2_and_shows_no_password():
    done = oncehook("migrate", "up", "--database", "postgresql://nobody:hunter2@127.0.0.1:1/none", check=False)
    assert done.returncode == 2 and done.stderr and "hunter2" not in done.stderr


# ---- roles ----------------------------------------------------------------------------------

@pytest.mark.parametrize("statement", [
    "DELETE FROM campaign_events", "DELETE FROM event_keys", "DELETE FROM campaign_enrollments",
    "DELETE FROM enrollment_references", "UPDATE enrollment_references SET created_at = now()",
    "DELETE FROM learned_secrets", "UPDATE learned_secrets SET source = 'x'",
    "DELETE FROM quarantined_deliveries", "TRUNCATE campaign_events", "TRUNCATE event_keys",
    "UPDATE event_keys SET received_at = now()", "UPDATE schema_migrations SET version = 9",
    "INSERT INTO schema_migrations VALUES (9, '', '')", "CREATE TABLE mine (a integer)",
    "CREATE SCHEMA mine", "DROP FUNCTION capture_v1", "ALTER TABLE campaign_events ADD COLUMN x integer",
    "ALTER TABLE campaign_events DETACH PARTITION campaign_events_2000_01", "CREATE INDEX ON event_keys (received_at)",
    "SELECT setval('campaign_events_id_seq', 1)", "SET ROLE oncehook_owner"])
def test_gateway_role_may_not(database, statement):
    assert refused(database, statement, user_url=database.gateway_url) == "42501"


def test_gateway_role_owns_nothing_and_has_no_rights_of_the_cluster(database):
    assert database.value("SELECT count(*) FROM pg_class WHERE relowner = %s::regrole", GATEWAY) == 0
    assert database.value("SELECT count(*) FROM pg_proc WHERE proowner = %s::regrole", GATEWAY) == 0
    assert database.sql("SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls "
                        "FROM pg_roles WHERE rolname = %s", GATEWAY) == [(False,) * 5]


def test_public_has_no_rights_on_anything(database):
    granted = database.sql("""
        SELECT relname FROM pg_class, aclexplode(relacl) a
         WHERE relnamespace = 'public'::regnamespace AND a.grantee = 0
        UNION ALL
        SELECT proname FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) a
         WHERE pronamespace = 'public'::regnamespace AND a.grantee = 0""")
    assert granted == []


def test_only_months_retention_and_adoption_run_with_the_owners_rights_and_every_function_fixes_its_path(database):
    # The adopt… ones are triggers of an adopted application's statements, which has no rights here.
    assert database.sql("SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef "
                        "ORDER BY 1") == [("adopt_note_change",), ("adopted_delete_row",), ("adopted_insert_event",), ("adopted_update_row",),
                                          ("oncehook_make_months",), ("retention_step_v1",), ("retention_step_v2",)]
    assert database.sql("""
        SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
           AND NOT coalesce('search_path=public, pg_temp' = ANY (proconfig), false)""") == []


def test_gateway_that_could_act_as_owner_is_refused(private_cluster):
    private_cluster.sql(f"GRANT {OWNER} TO {GATEWAY}")
    done = migrate(private_cluster.create_database(), "up", check=False)
    assert done.returncode == 2 and "can act as" in done.stderr


# ---- months ---------------------------------------------------------------------------------

def months(database):
    return [row[0] for row in database.sql(
        "SELECT pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid "
        "WHERE h.inhparent = 'campaign_events'::regclass ORDER BY c.relname")]


def test_months_stand_ahead_with_bounds_in_utc_and_none_is_default(database):
    names = [row[0] for row in database.sql(
        "SELECT 'campaign_events_' || to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + k * interval '1 month', "
        "'YYYY_MM') FROM generate_series(0, 3) k")]
    found = [row[0] for row in database.sql("SELECT inhrelid::regclass::text FROM pg_inherits "
                                            "WHERE inhparent = 'campaign_events'::regclass ORDER BY 1")]
    assert found == names
    assert database.value("SELECT partdefid FROM pg_partitioned_table "
                          "WHERE partrelid = 'campaign_events'::regclass") == 0


def test_gateway_makes_months_in_any_time_zone_with_the_same_bounds(database):
    with contextlib.closing(connect(database.gateway_url)) as connection, connection.cursor() as cursor:
        for zone, ahead in (("Pacific/Kiritimati", 5), ("America/Los_Angeles", 7)):
            cursor.execute(f"SET TIME ZONE '{zone}'")
            cursor.execute("SELECT oncehook_make_months(%s), oncehook_make_months(%s)", (ahead, ahead))
            assert cursor.fetchone() == (2, 0)
    database.sql("SET TIME ZONE 'UTC'")
    bounds = months(database)
    assert len(bounds) == 8
    for bound, following in zip(bounds, bounds[1:]):
        assert bound.split("'")[1].endswith("-01 00:00:00+00") and bound.split("'")[3] == following.split("'")[1]


def test_many_callers_make_each_month_once(database):
    made = []

    def work():
        with contextlib.closing(connect(database.gateway_url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT oncehook_make_months(12)")
            made.append(cursor.fetchone()[0])
    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(made) == [0, 0, 0, 0, 0, 9]
    assert len(months(database)) == 13


def test_making_months_does_not_wait_for_a_capture_nor_stop_it(database):
    with contextlib.closing(connect(database.gateway_url)) as capturing, capturing.cursor() as cursor:
        capturing.autocommit = False
        from support.capture import call
        assert call(cursor, event()) == "c"
        with contextlib.closing(connect(database.gateway_url)) as making, making.cursor() as other:
            making.autocommit = False
            other.execute("SELECT oncehook_make_months(6)")
            assert other.fetchone() == (3,)
            assert call(cursor, event()) == "c"
            assert capture(database.gateway_url, event()) == "c"
            making.commit()
        capturing.commit()


@pytest.mark.parametrize("ahead", ["-1", "121", "NULL"])
def test_absurd_number_of_months_is_refused(database, ahead):
    assert refused(database, f"SELECT oncehook_make_months({ahead})", user_url=database.gateway_url) == "22023"


# ---- what the schema enforces ---------------------------------------------------------------

def test_instance_and_id_of_an_enrollment_never_change(database):
    (first, [enrollment]), (second, _) = database.seed(instances=2)
    for column, value in (("instance_id", second), ("id", str(uuid.uuid4()))):
        assert refused(database, f"UPDATE campaign_enrollments SET {column} = %s WHERE id = %s", value,
                       enrollment) == "23001"
    assert refused(database, "UPDATE campaign_instances SET id = %s WHERE id = %s", str(uuid.uuid4()), first) == "23001"
    database.sql("UPDATE campaign_enrollments SET instance_id = instance_id, id = id, status = 'paused'")
    assert database.value("SELECT instance_id::text FROM campaign_enrollments WHERE id = %s", enrollment) == first


@pytest.mark.parametrize("table", ["email_sequences", "linkedin_sequences"])
def test_step_number_is_positive(database, table):
    database.seed()
    insert = f"INSERT INTO {table} (template_id, step_number) SELECT id, %s FROM campaign_templates"
    database.sql(insert, 1)
    for wrong in (0, -1):
        assert refused(database, insert, wrong) == "23514"


def test_contact_is_enrolled_once_in_an_instance(database):
    [(instance, _)] = database.seed()
    insert = "INSERT INTO campaign_enrollments (instance_id, contact_id) VALUES (%s, %s)"
    contact = str(uuid.uuid4())
    database.sql(insert, instance, contact)
    assert refused(database, insert, instance, contact) == "23505"
    assert database.value("SELECT total_enrolled FROM campaign_instances") == 2


def enrolled(database):
    return dict(database.sql("SELECT i.id::text, i.total_enrolled FROM campaign_instances i"))


def test_total_enrolled_follows_every_plain_statement(database):
    seeded = database.seed(instances=3, enrollments=5)
    (first, members), (second, _), (third, _) = seeded
    assert enrolled(database) == {first: 5, second: 5, third: 5}
    database.sql("INSERT INTO campaign_enrollments (instance_id) SELECT x::uuid FROM unnest(%s) x",
                 [third, first, third, first, third])
    assert enrolled(database) == {first: 7, second: 5, third: 8}
    database.sql("DELETE FROM campaign_enrollments WHERE instance_id = %s OR id = %s::uuid", third, members[0])
    assert enrolled(database) == {first: 6, second: 5, third: 0}
    database.sql("DELETE FROM campaign_enrollments WHERE false")
    database.sql("DELETE FROM campaign_instances WHERE id = %s", second)
    assert enrolled(database) == {first: 6, third: 0}
    database.sql("TRUNCATE campaign_enrollments CASCADE")  # references belong to them
    assert enrolled(database) == {first: 0, third: 0}


def test_total_enrolled_counts_only_what_on_conflict_really_inserted(database):
    [(instance, _)] = database.seed(enrollments=0)
    contact = str(uuid.uuid4())
    for _ in range(3):
        database.sql("INSERT INTO campaign_enrollments (instance_id, contact_id) VALUES (%s, %s) "
                     "ON CONFLICT DO NOTHING", instance, contact)
    assert enrolled(database) == {instance: 1}


def test_deleting_a_template_takes_all_that_hangs_on_it_and_leaves_events(database):
    [(_, [enrollment])] = database.seed()
    database.sql("INSERT INTO email_sequences (template_id) SELECT id FROM campaign_templates")
    capture(database.gateway_url, event(enrollment=enrollment))
    database.sql("DELETE FROM campaign_templates")
    for table in ("email_sequences", "campaign_instances", "campaign_enrollments"):
        assert database.value(f"SELECT count(*) FROM {table}") == 0
    assert database.value("SELECT count(*) FROM campaign_events") == 1
    assert database.value("SELECT count(*) FROM event_keys") == 1


def test_counter_updates_stay_on_their_page(database):
    seeded = database.seed(instances=2, enrollments=50)
    everybody = [one for _, several in seeded for one in several]
    for _ in range(10):
        capture(database.gateway_url, *[event(enrollment=one) for one in everybody])
    from support.process import wait_until
    ask = """SELECT min(n_tup_hot_upd::float / nullif(n_tup_upd, 0)) FROM pg_stat_user_tables
              WHERE relname IN ('campaign_instances', 'campaign_enrollments') AND n_tup_upd >= 20"""
    wait_until(lambda: (database.value(ask) or 0) > 0.5, what="most updates are HOT")


def test_seed_queries_run_unchanged(database):
    database.sql("""SELECT DATE(timestamp) as date, COUNT(*) as opens FROM campaign_events
        WHERE event_type = 'opened' AND timestamp > NOW() - INTERVAL '30 days' GROUP BY DATE(timestamp)""")
    database.sql("""SELECT * FROM campaign_enrollments WHERE status = 'active' AND next_action_at <= NOW()
        ORDER BY next_action_at LIMIT 100""")
    database.sql("SELECT * FROM campaign_instances WHERE provider_config @> '{\"email_provider\": \"lemlist\"}'")
    database.sql("""SELECT t.*, COALESCE(json_agg(DISTINCT jsonb_build_object('id', es.id, 'step_number',
        es.step_number, 'subject', es.subject, 'delay_hours', es.delay_hours)) FILTER (WHERE es.id IS NOT NULL),
        '[]') as email_sequences FROM campaign_templates t LEFT JOIN email_sequences es ON es.template_id = t.id
        AND es.is_active = true WHERE t.is_active GROUP BY t.id ORDER BY t.created_at DESC LIMIT 10 OFFSET 0""")
    database.sql("SELECT version FROM schema_migrations")
