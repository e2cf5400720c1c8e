"""A bad and a good migration for each rule of `migrate lint`, and what the bad one does to PostgreSQL.

Both stand on the tables of BEFORE, as if an earlier migration had made them."""

from collections import namedtuple

BEFORE = """
CREATE TABLE owners (id integer PRIMARY KEY);
INSERT INTO owners SELECT generate_series(0, 9);
CREATE TABLE things (id integer PRIMARY KEY, a integer, b varchar(20), owner integer);
INSERT INTO things SELECT n, n % 7, 'b' || n, n % 10 FROM generate_series(1, 2000) n;
CREATE INDEX things_b ON things (b);
CREATE TABLE parted (at integer NOT NULL, v integer) PARTITION BY RANGE (at);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (1000);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (1000) TO (3000);
INSERT INTO parted SELECT n, n FROM generate_series(0, 1999) n;
CREATE TABLE loose (at integer NOT NULL, v integer);
INSERT INTO loose SELECT n, n FROM generate_series(3000, 3999) n;
CREATE FUNCTION f_v1() RETURNS integer LANGUAGE sql AS 'SELECT 1';
"""

# proof: what the bad one's transaction shows in PostgreSQL:
#   scan     reads `table` while it holds `mode` on it        rewrite  writes it anew under `mode`
#   lock     holds `mode` on it, behind every running query   error    fails with the SQLSTATE `mode`
#   rows     has locked every row of it                       none     a rule about gateways or the runner
Example = namedtuple("Example", "rule proof table mode bad good")

AEL, SHARE, SRE = "AccessExclusiveLock", "ShareLock", "ShareRowExclusiveLock"

EXAMPLES = [
    Example("does-not-parse", "error", "things", "42601", "ALTER TABEL things ADD c integer;",
            "ALTER TABLE things ADD c integer;"),
    Example("index-locks-writers", "scan", "things", SHARE, "CREATE INDEX things_a ON things (a);",
            "-- step: concurrently, so that writers go on\nCREATE INDEX CONCURRENTLY things_a ON things (a);"),
    Example("index-locks-writers", "scan", "parted_1", SHARE, "CREATE INDEX parted_v ON parted (v);",
            "CREATE INDEX parted_v ON ONLY parted (v);\n"
            "-- step: concurrently\nCREATE INDEX CONCURRENTLY parted_1_v ON parted_1 (v);\n"
            "-- step: concurrently\nCREATE INDEX CONCURRENTLY parted_2_v ON parted_2 (v);\n"
            "-- step: transaction\nALTER INDEX parted_v ATTACH PARTITION parted_1_v;\n"
            "-- step: transaction\nALTER INDEX parted_v ATTACH PARTITION parted_2_v;"),
    Example("index-if-not-exists", "none", "things", None,
            "-- step: concurrently\nCREATE INDEX CONCURRENTLY IF NOT EXISTS things_a ON things (a);",
            "-- step: concurrently\nCREATE INDEX CONCURRENTLY things_a ON things (a);"),
    Example("drop-index-locks", "lock", "things", AEL, "DROP INDEX things_b;",
            "-- step: concurrently\nDROP INDEX CONCURRENTLY IF EXISTS things_b;"),
    Example("concurrently-in-transaction", "error", "things", "25001",
            "CREATE INDEX CONCURRENTLY things_a ON things (a);",
            "-- step: concurrently\nCREATE INDEX CONCURRENTLY things_a ON things (a);"),
    Example("concurrently-in-transaction", "error", "things", "25001", "VACUUM things;",
            "-- step: concurrently\nVACUUM things;"),
    Example("own-transaction", "none", "things", None, "ALTER TABLE things ADD c integer; COMMIT;",
            "ALTER TABLE things ADD c integer;"),
    Example("constraint-not-valid", "scan", "things", AEL,
            "ALTER TABLE things ADD CONSTRAINT things_a_check CHECK (a >= 0);",
            "ALTER TABLE things ADD CONSTRAINT things_a_check CHECK (a >= 0) NOT VALID;\n"
            "-- step: transaction\nALTER TABLE things VALIDATE CONSTRAINT things_a_check;"),
    Example("constraint-not-valid", "scan", "things", SRE,
            "ALTER TABLE things ADD CONSTRAINT things_owner FOREIGN KEY (owner) REFERENCES owners;",
            "ALTER TABLE things ADD CONSTRAINT things_owner FOREIGN KEY (owner) REFERENCES owners NOT VALID;\n"
            "-- step: transaction\nALTER TABLE things VALIDATE CONSTRAINT things_owner;"),
    Example("constraint-not-valid", "scan", "things", AEL, "ALTER TABLE things ADD c integer CHECK (c > 0);",
            "ALTER TABLE things ADD c integer, ADD CONSTRAINT things_c CHECK (c > 0) NOT VALID;\n"
            "-- step: transaction\nALTER TABLE things VALIDATE CONSTRAINT things_c;"),
    Example("constraint-builds-index", "scan", "things", AEL,
            "ALTER TABLE things ADD CONSTRAINT things_b_key UNIQUE (b);",
            "-- step: concurrently\nCREATE UNIQUE INDEX CONCURRENTLY things_b_key ON things (b);\n"
            "-- step: transaction\nALTER TABLE things ADD CONSTRAINT things_b_key UNIQUE USING INDEX things_b_key;"),
    Example("validate-under-lock", "scan", "things", AEL,
            "ALTER TABLE things ADD CONSTRAINT things_a_check CHECK (a >= 0) NOT VALID;\n"
            "ALTER TABLE things VALIDATE CONSTRAINT things_a_check;",
            "ALTER TABLE things ADD CONSTRAINT things_a_check CHECK (a >= 0) NOT VALID;\n"
            "-- step: transaction\nALTER TABLE things VALIDATE CONSTRAINT things_a_check;"),
    Example("validate-under-lock", "scan", "things", AEL,
            "ALTER TABLE things ADD CONSTRAINT things_a_check CHECK (a >= 0) NOT VALID, VALIDATE CONSTRAINT things_a_check;",
            "ALTER TABLE things ADD CONSTRAINT things_a_check CHECK (a >= 0) NOT VALID, ALTER a SET DEFAULT 0;\n"
            "-- step: transaction\nALTER TABLE things VALIDATE CONSTRAINT things_a_check;"),
    Example("index-locks-writers", "scan", "things", SHARE,
            "CREATE TABLE IF NOT EXISTS things (id integer);\nCREATE INDEX things_a ON things (a);",
            "CREATE TABLE IF NOT EXISTS others (id integer);\nCREATE INDEX others_id ON others (id);"),
    Example("column-volatile-default", "rewrite", "things", AEL,
            "ALTER TABLE things ADD c uuid DEFAULT gen_random_uuid();",
            "ALTER TABLE things ADD c uuid;\n"
            "-- step: transaction\nALTER TABLE things ALTER c SET DEFAULT gen_random_uuid();\n"
            "-- step: batches\nUPDATE things t SET c = gen_random_uuid() FROM (SELECT id FROM things WHERE c IS NULL "
            "ORDER BY id LIMIT 1000 FOR NO KEY UPDATE) few WHERE t.id = few.id;"),
    Example("column-volatile-default", "rewrite", "things", AEL, "ALTER TABLE things ADD c bigserial;",
            "ALTER TABLE things ADD c timestamptz NOT NULL DEFAULT now();"),
    Example("column-not-null", "error", "things", "23502", "ALTER TABLE things ADD c integer NOT NULL;",
            "ALTER TABLE things ADD c integer NOT NULL DEFAULT 0;"),
    Example("set-not-null-scans", "scan", "things", AEL, "ALTER TABLE things ALTER a SET NOT NULL;",
            "ALTER TABLE things ADD CONSTRAINT things_a_there CHECK (a IS NOT NULL) NOT VALID;\n"
            "-- step: transaction\nALTER TABLE things VALIDATE CONSTRAINT things_a_there;\n"
            "-- step: transaction\nALTER TABLE things ALTER a SET NOT NULL;\n"
            "ALTER TABLE things DROP CONSTRAINT things_a_there;"),
    Example("type-rewrite", "rewrite", "things", AEL, "ALTER TABLE things ALTER a TYPE bigint;",
            "-- lint: allow type-rewrite because varchar to text writes nothing\n"
            "ALTER TABLE things ALTER b TYPE text;"),
    Example("rewrites-table", "none", "things", None, "-- step: concurrently\nREINDEX SCHEMA hooks;",
            "-- step: concurrently\nREINDEX TABLE CONCURRENTLY things;"),
    Example("rewrites-table", "rewrite", "things", AEL, "CLUSTER things USING things_b;",
            "-- step: concurrently\nREINDEX TABLE CONCURRENTLY things;"),
    Example("partition-of-locks", "lock", "parted", AEL,
            "CREATE TABLE parted_3 PARTITION OF parted FOR VALUES FROM (4000) TO (5000);",
            "CREATE TABLE parted_3 (LIKE parted INCLUDING ALL);\n"
            "ALTER TABLE parted ATTACH PARTITION parted_3 FOR VALUES FROM (4000) TO (5000);"),
    Example("attach-scans", "scan", "loose", AEL,
            "ALTER TABLE parted ATTACH PARTITION loose FOR VALUES FROM (3000) TO (4000);",
            "ALTER TABLE loose ADD CONSTRAINT loose_at CHECK (at >= 3000 AND at < 4000) NOT VALID;\n"
            "-- step: transaction\nALTER TABLE loose VALIDATE CONSTRAINT loose_at;\n"
            "-- step: transaction\n-- lint: allow attach-scans because loose_at says the bounds\n"
            "ALTER TABLE parted ATTACH PARTITION loose FOR VALUES FROM (3000) TO (4000);"),
    Example("detach-locks", "lock", "parted", AEL, "ALTER TABLE parted DETACH PARTITION parted_1;",
            "-- step: concurrently\nALTER TABLE parted DETACH PARTITION parted_1 CONCURRENTLY;"),
    Example("whole-table-write", "rows", "things", None, "UPDATE things SET a = 0;",
            "-- step: batches\nUPDATE things t SET a = 0 FROM (SELECT id FROM things WHERE a <> 0 ORDER BY id "
            "LIMIT 500 FOR NO KEY UPDATE) few WHERE t.id = few.id;"),
    Example("whole-table-write", "rows", "things", None, "WITH w AS (UPDATE things SET a = 0 RETURNING id) SELECT id FROM w;",
            "WITH w AS (SELECT id FROM things) SELECT count(*) FROM w;"),
    Example("whole-table-write", "rows", "things", None,
            "MERGE INTO things t USING owners o ON t.owner = o.id WHEN MATCHED THEN UPDATE SET a = 0;",
            "CREATE TABLE t AS SELECT * FROM things;\nCREATE TABLE u (id integer);\n"
            "MERGE INTO u USING owners o ON u.id = o.id WHEN NOT MATCHED THEN INSERT VALUES (o.id);"),
    Example("batch-without-limit", "rows", "things", None, "-- step: batches\nUPDATE things SET a = 0 WHERE a <> 0;",
            "-- step: batches\nDELETE FROM things WHERE id IN (SELECT id FROM things WHERE a = 6 ORDER BY id "
            "LIMIT 100 FOR UPDATE);"),
    Example("lock-table", "lock", "things", SHARE, "LOCK TABLE things IN SHARE MODE;",
            "LOCK TABLE things IN SHARE UPDATE EXCLUSIVE MODE;"),
    Example("several-tables", "lock", "owners", AEL,
            "ALTER TABLE things ADD c integer;\nALTER TABLE owners ADD c integer;",
            "ALTER TABLE things ADD c integer;\n-- step: transaction\nALTER TABLE owners ADD c integer;"),
    Example("lock-timeout", "none", "things", None, "SET LOCAL lock_timeout = 0;\nALTER TABLE things ADD c integer;",
            "SET LOCAL statement_timeout = '1h';\nALTER TABLE things ADD c integer;"),
    Example("removes", "none", "things", None, "ALTER TABLE things DROP COLUMN b;",
            "-- lint: allow removes because nothing since 0.2 reads it\nALTER TABLE things DROP COLUMN b;"),
    Example("removes", "none", "things", None, "DROP FUNCTION f_v1();", "CREATE TABLE t (a integer);\nDROP TABLE t;"),
    Example("removes", "none", "things", None, "DROP SCHEMA hooks CASCADE;", "-- lint: allow removes because it was made here\nDROP SCHEMA IF EXISTS more;"),
    Example("renames", "none", "things", None, "ALTER FUNCTION f_v1() RENAME TO f_v2;",
            "CREATE FUNCTION f_v2() RETURNS integer LANGUAGE sql AS 'SELECT 2';\nALTER FUNCTION f_v2() RENAME TO f_v3;"),
    Example("renames", "none", "things", None, "ALTER TABLE things SET SCHEMA other;",
            "ALTER TABLE things RENAME CONSTRAINT things_pkey TO things_key;"),
    Example("renames", "none", "things", None, "ALTER TABLE things RENAME b TO c;",
            "ALTER TABLE things RENAME CONSTRAINT things_pkey TO things_key;"),
    Example("replaces-function", "none", "things", None,
            "CREATE OR REPLACE FUNCTION f_v1() RETURNS integer LANGUAGE sql AS 'SELECT 2';",
            "CREATE FUNCTION f_v2() RETURNS integer LANGUAGE sql AS 'SELECT 2';"),
    Example("step-shape", "none", "things", None, "-- step: concurrently\nALTER TABLE things ADD c integer;",
            "-- step: transaction\nALTER TABLE things ADD c integer;"),
    Example("step-shape", "none", "things", None, "-- step: quickly\nALTER TABLE things ADD c integer;",
            "-- only words\n-- step: transaction, with words\nALTER TABLE things ADD c integer;"),
    Example("unseen", "none", "things", None, "DO $$ BEGIN EXECUTE 'LOCK TABLE things'; END $$;",
            "-- lint: allow unseen because it touches no table\nDO $$ BEGIN END $$;"),
    Example("allow-unclear", "none", "things", None, "-- lint: allow removes\nCREATE TABLE t (a integer);",
            "-- lint: allow removes because of the example\nDROP FUNCTION f_v1();"),
    Example("allow-unclear", "none", "things", None, "-- lint: allow anything because I say so\nCREATE TABLE t ();",
            "CREATE TABLE t ();"),
    Example("allow-unused", "none", "things", None,
            "-- lint: allow removes because of the example\nCREATE TABLE t (a integer);", "CREATE TABLE t (a integer);"),
]

# Of the way back (.down.sql).
DOWN = Example("down-once", "none", "things", None,
               "-- step: transaction\nDROP FUNCTION f_v1();\n-- step: transaction\nALTER TABLE things DROP COLUMN a;",
               "-- step: transaction\nDROP FUNCTION IF EXISTS f_v1();\n"
               "-- step: transaction\nALTER TABLE things DROP COLUMN IF EXISTS a;")
