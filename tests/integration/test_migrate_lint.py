"""`oncehook migrate lint`: each rule finds its bad example and passes its good one, and a real PostgreSQL
shows that the bad one does what the rule says and the good one does not."""

import contextlib
import itertools
import re

import psycopg2
import pytest

from support.gateway import REPOSITORY, oncehook
from support.lint_examples import BEFORE, DOWN, EXAMPLES

MODES = ["AccessShareLock", "RowShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock", "ShareLock",
         "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"]
WRITERS_WAIT = MODES[MODES.index("ShareLock"):]
NAMES = [f"{number}-{example.rule}" for number, example in enumerate(EXAMPLES)]
serial = itertools.count()


def lint(tmp_path, text, name="9999_example.up.sql", check=False):
    """(rule, line) of each finding."""
    before, file = tmp_path / "9998_before.up.sql", tmp_path / name
    before.write_text(BEFORE)
    file.write_text(text)
    done = oncehook("migrate", "lint", before, file, check=check)
    found = re.findall(rf"^{re.escape(str(file))}:(\d+): ([\w-]+): .", done.stdout, re.M)
    assert done.returncode == (1 if "0 findings" not in done.stdout.splitlines()[-1] else 0), done.stdout
    return {(rule, int(line)) for line, rule in found}


# ---- what it says ---------------------------------------------------------------------------

def test_each_rule_finds_its_bad_example_and_passes_its_good_one(tmp_path):
    for name, example in zip(NAMES, EXAMPLES):
        last = example.bad.count("\n") + 1
        found = {rule for rule, line in lint(tmp_path, example.bad) if 1 <= line <= last}
        assert example.rule in found, f"{name}: {found}"
        assert lint(tmp_path, example.good) == set(), name


def test_way_back_of_several_steps_can_be_run_again(tmp_path):
    name = "9999_example.down.sql"
    assert lint(tmp_path, DOWN.bad, name) == {("down-once", 2)}
    assert lint(tmp_path, DOWN.good, name) == set()


def test_line_is_that_of_the_statement(tmp_path):
    text = "-- words\nCREATE TABLE t (a text DEFAULT 'x;\n');\n\n-- step: transaction\n/* more\n words */ UPDATE things SET a = 1;"
    assert lint(tmp_path, text) == {("whole-table-write", 7)}


def test_table_of_the_same_migration_is_exempt(tmp_path):
    assert lint(tmp_path, "CREATE TABLE t (a integer);\nCREATE INDEX i ON t (a);\nALTER TABLE t ADD b bigserial;\n"
                          "UPDATE t SET a = 1;\nALTER TABLE t ALTER a SET NOT NULL;\nDROP INDEX i;\nDROP TABLE t;") == set()


def test_rules_are_listed_and_each_has_an_example():
    said = oncehook("migrate", "lint", "--rules").stdout
    rules = re.findall(r"^([\w-]+)$", said, re.M)
    assert set(rules) == {example.rule for example in [*EXAMPLES, DOWN]}
    assert len(re.findall(r"^  (?:finds|why|instead) +\S", said, re.M)) == 3 * len(rules)


def test_migrations_of_this_binary_pass():
    assert oncehook("migrate", "lint").stdout == "0 findings\n"


def test_every_exemption_of_the_migrations_is_needed_and_has_a_reason():
    """Without their `-- lint:` lines they are findings, as many as there are lines."""
    import glob
    for path in sorted(glob.glob(f"{REPOSITORY}/sql/0*.sql")):
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
        for line in (line for line in lines if line.startswith("-- lint:")):
            assert re.fullmatch(r"-- lint: allow [\w-]+ because \w.{20,}", line), f"{path}: {line}"


def test_rules_are_those_of_the_page():
    with open(f"{REPOSITORY}/docs/migrations.md", encoding="utf-8") as file:
        table = re.findall(r"^\| `([\w-]+)` \| (.*?) \| (.*?) \| (.*) \|$", file.read(), re.M)
    said = oncehook("migrate", "lint", "--rules").stdout
    assert table == re.findall(r"^([\w-]+)\n  finds +(.*)\n  why +(.*)\n  instead +(.*)$", said, re.M)


def test_missing_file_is_2(tmp_path):
    done = oncehook("migrate", "lint", tmp_path / "none.sql", check=False)
    assert done.returncode == 2 and "none.sql" in done.stderr


# ---- what PostgreSQL does -------------------------------------------------------------------

@pytest.fixture(scope="module")
def server(cluster):
    made = cluster.create_database()
    yield made
    made.drop()


@pytest.fixture
def before(server):
    """A connection with the tables of BEFORE in a schema of its own."""
    schema = f"example_{next(serial)}"
    with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {schema}; SET search_path = {schema};" + BEFORE)
        yield cursor
        connection.rollback()
        connection.autocommit = True
        cursor.execute(f"DROP SCHEMA {schema} CASCADE")


def tables(cursor):
    """Of each table: its oid, its file, the scans that were counted so far."""
    cursor.execute("SELECT relname, oid, relfilenode, pg_stat_get_xact_numscans(oid) FROM pg_class "
                   "WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')")
    return {name: rest for name, *rest in cursor.fetchall()}


def begin(cursor):
    cursor.connection.autocommit = False
    return tables(cursor)


def look(cursor, there):
    """Of each table: the strongest lock that this transaction holds, whether it has read it, or written it anew."""
    cursor.execute("SELECT relation, array_agg(mode) FROM pg_locks WHERE pid = pg_backend_pid() AND granted "
                   "AND locktype = 'relation' GROUP BY relation")
    held = {oid: max(modes, key=MODES.index) for oid, modes in cursor.fetchall()}
    now = tables(cursor)
    return {name: (held.get(oid), now[name][2] > scans, now[name][1] != node)
            for name, (oid, node, scans) in there.items() if name in now}


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.proof != "none"],
                         ids=[n for n, e in zip(NAMES, EXAMPLES) if e.proof != "none"])
def test_bad_example_does_to_postgresql_what_the_rule_says(before, example):
    there = begin(before)
    if example.proof == "error":
        with pytest.raises(psycopg2.Error) as failure:
            before.execute(example.bad)
        assert failure.value.pgcode == example.mode
        return
    before.execute(example.bad)
    if example.proof == "rows":
        assert before.rowcount > 1700
        return
    mode, scanned, rewritten = look(before, there)[example.table]
    assert mode == example.mode
    assert {"scan": scanned, "rewrite": rewritten, "lock": True}[example.proof]


@pytest.mark.parametrize("example", EXAMPLES, ids=NAMES)
def test_good_example_runs_and_never_works_on_a_table_while_writers_wait(before, example):
    for step in re.split(r"^(?=-- step: )", example.good, flags=re.M):
        kind = (re.match(r"-- step: (\w+)", step) or [None, "transaction"])[1]
        while re.sub("--.*", "", step).strip():
            there = None if kind == "concurrently" else begin(before)
            before.execute(step)
            rows = before.rowcount
            if there:
                for name, (mode, scanned, rewritten) in look(before, there).items():
                    assert mode not in WRITERS_WAIT or not (scanned or rewritten), name
                before.connection.commit()
                before.connection.autocommit = True
            if kind != "batches" or rows == 0:
                break


# ---- where the report is wrong --------------------------------------------------------------

def test_report_index_migration_fails_inside_its_begin_and_its_if_not_exists_keeps_an_invalid_index(before):
    """Report 9, Migration 2."""
    before.execute("INSERT INTO things VALUES (0, 0, 'b1', 0)")
    with pytest.raises(psycopg2.Error) as failure:
        before.execute("BEGIN; CREATE INDEX CONCURRENTLY IF NOT EXISTS things_a ON things (a); COMMIT")
    assert failure.value.pgcode == "25001"
    before.execute("ROLLBACK")
    with pytest.raises(psycopg2.Error):  # two rows 'b1': any failure leaves it behind
        before.execute("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS things_b_key ON things (b)")
    before.execute("DELETE FROM things WHERE id = 0")
    before.execute("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS things_b_key ON things (b)")
    before.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'things_b_key'::regclass")
    assert before.fetchone() == (False,)
