/* SPDX-License-Identifier: Apache-2.0 */
/* What each rule of migrate lint finds, why, and what to write instead; docs/migrations.md has the
 * same table. */
#include "schema/lint_rules.h"

#include "schema/lint.h"

#include <stddef.h>

const struct lint_rule lint_rules[RULE_COUNT + 1] = {
    [DOES_NOT_PARSE] = {"does-not-parse", "text that PostgreSQL 15's grammar refuses",
                        "it would fail when it is applied; or it is newer than the grammar here",
                        "SQL of PostgreSQL 15, without psql's backslash commands"},
    [INDEX_LOCKS_WRITERS] =
        {"index-locks-writers", "CREATE INDEX without CONCURRENTLY on a table that is there",
         "SHARE on the table: every capture waits until the index is built",
         "`-- step: concurrently` and CREATE INDEX CONCURRENTLY; of a partitioned table too: the "
         "runner makes it ON ONLY the parent, CONCURRENTLY on each month, and ATTACHes"},
    [INDEX_IF_NOT_EXISTS] =
        {"index-if-not-exists", "CREATE INDEX … IF NOT EXISTS",
         "a CONCURRENTLY that failed leaves an INVALID index of that name: it is passed over, and "
         "never used by a query",
         "leave it out: the runner drops an INVALID one and makes it again"},
    [DROP_INDEX_LOCKS] = {"drop-index-locks",
                          "DROP INDEX without CONCURRENTLY, of a table that is not partitioned",
                          "ACCESS EXCLUSIVE on the table, behind every running query",
                          "`-- step: concurrently` and DROP INDEX CONCURRENTLY IF EXISTS"},
    [CONCURRENTLY_IN_TRANSACTION] = {"concurrently-in-transaction",
                                     "CONCURRENTLY or VACUUM in a step of kind transaction",
                                     "PostgreSQL refuses it inside BEGIN (25001)",
                                     "a step of its own: `-- step: concurrently`"},
    [OWN_TRANSACTION] = {"own-transaction", "BEGIN, COMMIT, ROLLBACK, SAVEPOINT",
                         "a step and the record of it commit together, or neither does",
                         "`-- step: transaction` begins the next transaction"},
    [CONSTRAINT_NOT_VALID] =
        {"constraint-not-valid",
         "a CHECK or foreign key without NOT VALID on a table that is there",
         "the table is read under ACCESS EXCLUSIVE (a foreign key: SHARE ROW EXCLUSIVE on both)",
         "ADD CONSTRAINT … NOT VALID, and VALIDATE CONSTRAINT in the next step"},
    [CONSTRAINT_BUILDS_INDEX] =
        {"constraint-builds-index", "UNIQUE, PRIMARY KEY or EXCLUDE on a table that is there",
         "its index is built under ACCESS EXCLUSIVE",
         "CREATE UNIQUE INDEX CONCURRENTLY, and ADD CONSTRAINT … USING INDEX in the next step"},
    [VALIDATE_UNDER_LOCK] =
        {"validate-under-lock", "VALIDATE CONSTRAINT in a step that has locked the table already",
         "locks last until COMMIT: the table is read under the lock of ADD CONSTRAINT after all",
         "VALIDATE CONSTRAINT in a step of its own"},
    [COLUMN_VOLATILE_DEFAULT] =
        {"column-volatile-default",
         "ADD COLUMN with a default that is volatile (or not known not to be), serial, identity, "
         "GENERATED … STORED",
         "the table is written anew under ACCESS EXCLUSIVE; a constant or now() is kept in the "
         "catalog",
         "ADD COLUMN, then ALTER COLUMN SET DEFAULT, then fill old rows in `-- step: batches`"},
    [COLUMN_NOT_NULL] = {"column-not-null", "ADD COLUMN … NOT NULL without a default",
                         "refused as soon as there is a row, and an older gateway's INSERT fails",
                         "a constant default beside it"},
    [SET_NOT_NULL_SCANS] =
        {"set-not-null-scans", "SET NOT NULL without a validated CHECK (column IS NOT NULL)",
         "the table is read under ACCESS EXCLUSIVE; behind such a CHECK it is not",
         "ADD CONSTRAINT … CHECK (… IS NOT NULL) NOT VALID; next step VALIDATE; next step SET NOT "
         "NULL and DROP CONSTRAINT"},
    [TYPE_REWRITE] =
        {"type-rewrite", "ALTER COLUMN … TYPE",
         "the table and its indexes are written anew under ACCESS EXCLUSIVE, and older gateways "
         "meet another type",
         "a new column, filled in batches; the old one goes a release later. varchar to text "
         "writes nothing: allow it"},
    [REWRITES_TABLE] =
        {"rewrites-table",
         "CLUSTER, VACUUM FULL, REINDEX without CONCURRENTLY, SET TABLESPACE, SET LOGGED, REFRESH "
         "MATERIALIZED VIEW without CONCURRENTLY",
         "nobody writes, or even reads, until it is done",
         "REINDEX … CONCURRENTLY; for the others a copy in batches, or pg_repack by hand"},
    [PARTITION_OF_LOCKS] = {"partition-of-locks",
                            "CREATE TABLE … PARTITION OF a table that is there",
                            "ACCESS EXCLUSIVE on the parent",
                            "CREATE TABLE … (LIKE …), then ATTACH PARTITION"},
    [ATTACH_SCANS] =
        {"attach-scans", "ATTACH PARTITION of a table that is there",
         "that table is read under ACCESS EXCLUSIVE, unless a validated CHECK says the bounds",
         "the CHECK first, NOT VALID and validated; then allow this"},
    [DETACH_LOCKS] = {"detach-locks", "DETACH PARTITION without CONCURRENTLY",
                      "ACCESS EXCLUSIVE on the parent, behind every running query",
                      "`-- step: concurrently` and DETACH PARTITION … CONCURRENTLY"},
    [WHOLE_TABLE_WRITE] =
        {"whole-table-write",
         "UPDATE, DELETE or MERGE of a table that is there, also inside another statement",
         "its rows stay locked until COMMIT, in heap order and not in the lock order",
         "`-- step: batches` and one statement with a LIMIT that no longer finds what it has done"},
    [BATCH_WITHOUT_LIMIT] = {"batch-without-limit", "a batch without LIMIT",
                             "the first batch is the whole table",
                             "UPDATE … FROM (SELECT key … ORDER BY key LIMIT 1000 FOR NO KEY "
                             "UPDATE)"},
    [LOCK_TABLE] = {"lock-table",
                    "LOCK TABLE in a mode that writers feel, on a table that is there",
                    "every capture waits until COMMIT", "a weaker mode, or none"},
    [SEVERAL_TABLES] =
        {"several-tables", "a step that keeps writers off two tables that are there",
         "they wait for the first while the second is waited for, and other SQL may hold them the "
         "other way round",
         "a step for each table"},
    [LOCK_TIMEOUT] = {"lock-timeout", "SET or RESET of lock_timeout, ALL",
                      "the runner's short lock_timeout, with tries, keeps captures from queueing",
                      "leave it to the runner"},
    [REMOVES] =
        {"removes",
         "DROP of a column, table, function or schema, TRUNCATE, DROP OWNED, of what another "
         "migration made",
         "gateways of the release before still use it",
         "expand now, contract one release later; then allow it and say since when nobody "
         "uses it"},
    [RENAMES] = {"renames",
                 "RENAME or SET SCHEMA of a table, column or function that another migration made",
                 "gateways of the release before use the old name",
                 "a new column or a view beside it, contracted one release later"},
    [REPLACES_FUNCTION] = {"replaces-function",
                           "CREATE OR REPLACE of a function that another migration made",
                           "gateways of both releases call it by one name",
                           "a new function with the next suffix: …_v2"},
    [STEP_SHAPE] = {"step-shape",
                    "a concurrently or batches step that is not one fitting statement",
                    "it is resumed as a whole: what was done before a kill would be done again",
                    "a step for each statement"},
    [DOWN_ONCE] = {"down-once", "DROP without IF EXISTS in a way back of several steps",
                   "it also takes back a way up that was interrupted, and must find nothing odd",
                   "IF EXISTS"},
    [UNSEEN] = {"unseen", "a DO block", "what it runs cannot be seen here",
                "plain statements; or allow it and say what it locks"},
    [ALLOW_UNCLEAR] = {"allow-unclear", "`-- lint: allow` of no known rule, or without `because`",
                       "who comes later must be able to judge it",
                       "-- lint: allow RULE because REASON"},
    [ALLOW_UNUSED] = {"allow-unused", "`-- lint: allow` of what is not found there",
                      "it would hide the next one", "delete it"},
};
