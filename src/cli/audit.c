/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook audit: every counter recomputed from its rows, in one snapshot, month by month; with
 * --repair the measured drift is subtracted, in small transactions, while traffic runs.
 *
 * A capture, a binding and an enrollment change a counter and its rows in one transaction, so their
 * difference in any snapshot is the drift, and it stands still until somebody repairs it. The
 * statements are sql/audit_*.sql: they sum up in temporary tables and read everything else; locks
 * are taken by repair_v1() alone (docs/lock-order.md). */
#include "cli/cli.h"

#include "base/clock.h"
#include "base/embedded.h"
#include "base/encode.h"
#include "base/slice.h"
#include "cli/database.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { REPAIR_ROWS = 500, SHOWN_MAX = 20 };

struct audit {
    PGconn *connection;
    bool json;
    const char *instance; /* NULL = all */
    const char *since;    /* first moment of the month; NULL = from the beginning */
    PGresult *months;     /* of this measure: from, to, bytes */
    bool is_tty;          /* a progress bar is drawn */
    long long drifts;     /* of the last measure */
    long long mendable;   /* of them, what repair_v1() can take away */
    bool is_refused;      /* the repair, for a detached month */
    PGresult *detached;   /* months that are, as this measure saw it: name, mend */
};

static bool fail(const struct audit *audit)
{
    fprintf(stderr, "oncehook audit: database: %s", PQerrorMessage(audit->connection));
    return false;
}

static bool run(const struct audit *audit, const char *sql)
{
    PGresult *result = PQexec(audit->connection, sql);
    bool done = PQresultStatus(result) == PGRES_COMMAND_OK;
    PQclear(result);
    return done || fail(audit);
}

/* Runs sql/NAME for one month (-1: the statement wants none). *out (may be NULL) is the caller's.
 */
static bool run_file(const struct audit *audit, const char *name, int month, PGresult **out)
{
    enum { TIMESTAMPTZ = 1184, UUID = 2950 };
    static const Oid types[] = {TIMESTAMPTZ, TIMESTAMPTZ, UUID, TIMESTAMPTZ};
    const char *const values[] = {month < 0 ? NULL : PQgetvalue(audit->months, month, 0),
                                  month < 0 ? NULL : PQgetvalue(audit->months, month, 1),
                                  audit->instance, audit->since};
    PGresult *result = PQexecParams(audit->connection, embedded_find(embedded_sql, name), 4, types,
                                    values, NULL, NULL, 0);
    bool done = PQresultStatus(result) == PGRES_TUPLES_OK ||
                PQresultStatus(result) == PGRES_COMMAND_OK || fail(audit);
    if (done && out)
        *out = result;
    else
        PQclear(result);
    return done;
}

/* ---- measuring ------------------------------------------------------------------------------- */

struct progress {
    int64_t start_us;
    long long bytes, bytes_done, rows;
};

static void draw(const struct audit *audit, const struct progress *progress, int done)
{
    double seconds = (double)(clock_mono_us() - progress->start_us) / 1e6 + 1e-6;
    double share = progress->bytes ? (double)progress->bytes_done / (double)progress->bytes : 1;
    char rows[96] = "";
    if (!audit->is_tty)
        return;
    if (progress->rows > 0)
        snprintf(rows, sizeof(rows), ", %lld events, %.0f/s, %.0f s left", progress->rows,
                 (double)progress->rows / seconds, seconds * (1 - share) / share);
    cli_draw_bar(progress->bytes_done, progress->bytes, "%d/%d months%s", done,
                 PQntuples(audit->months), rows);
}

/* Three statements for each month that has any rows. */
static bool measure_months(const struct audit *audit)
{
    struct progress progress = {.start_us = clock_mono_us()};
    int count = PQntuples(audit->months);
    bool ok = true;
    for (int i = 0; i < count; i++)
        progress.bytes += strtoll(PQgetvalue(audit->months, i, 2), NULL, 10);
    for (int i = 0; i < count && ok; i++) {
        PGresult *rows = NULL;
        long long bytes = strtoll(PQgetvalue(audit->months, i, 2), NULL, 10);
        draw(audit, &progress, i);
        if (bytes == 0)
            continue;
        ok = run_file(audit, "audit_month.sql", i, &rows) &&
             run_file(audit, "audit_keys.sql", i, NULL) &&
             run_file(audit, "audit_bound.sql", i, NULL);
        progress.rows += ok ? strtoll(PQgetvalue(rows, 0, 0), NULL, 10) : 0;
        progress.bytes_done += bytes;
        PQclear(rows);
    }
    if (audit->is_tty)
        cli_clear_bar();
    return ok;
}

/* The tables are locked against DETACH before the snapshot is taken: no month is counted that
 * vanishes, and none vanishes between two looks. */
static bool begin(struct audit *audit)
{
    static const char months[] =
        "SELECT coalesce(b[1], '-infinity')::timestamptz, coalesce(b[2], 'infinity')::timestamptz,"
        "       sum(pg_relation_size(oid))"
        "  FROM (SELECT c.oid, regexp_match(pg_get_expr(c.relpartbound, c.oid),"
        "               $$FROM \\((?:MINVALUE|'([^']*)')\\) TO \\((?:MAXVALUE|'([^']*)')\\)$$) b"
        "          FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid"
        "         WHERE h.inhparent = 'campaign_events'::regclass"
        "        UNION ALL"
        "        SELECT to_regclass(format('%I', r.table_name)),"
        "               ARRAY[r.from_at::text, r.to_at::text]"
        "          FROM retired_months r WHERE r.folded_at IS NULL) m"
        " GROUP BY 1, 2 ORDER BY 1";
    if (!run(audit, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
                    "SET LOCAL statement_timeout = 0; SET LOCAL work_mem = '32MB';"
                    "LOCK TABLE campaign_events, campaign_events_retired "
                    "IN ACCESS SHARE MODE"))
        return false;
    PQclear(audit->months);
    PQclear(audit->detached);
    audit->months = PQexec(audit->connection, months);
    audit->detached = PQexec(audit->connection, "SELECT name, mend FROM detached_months()");
    return (PQresultStatus(audit->months) == PGRES_TUPLES_OK &&
            PQresultStatus(audit->detached) == PGRES_TUPLES_OK) ||
           fail(audit);
}

/* Fills audit_sums and audit_drift; *scope: a row of audit_scope.sql, the caller's. */
static bool measure(struct audit *audit, PGresult **scope)
{
    if (!run(audit, "TRUNCATE pg_temp.audit_sums, pg_temp.audit_drift RESTART IDENTITY") ||
        !begin(audit) || !measure_months(audit) || !run_file(audit, "audit_folded.sql", -1, NULL) ||
        !run_file(audit, "audit_instances.sql", -1, NULL) ||
        !run_file(audit, "audit_enrollments.sql", -1, NULL) ||
        !run_file(audit, "audit_scope.sql", -1, scope))
        return false;
    audit->drifts = strtoll(PQgetvalue(*scope, 0, 3), NULL, 10);
    /* A mistyped id must not pass as healthy; a deleted one may still have drift. */
    if (audit->instance && !audit->since && audit->drifts == 0 &&
        strcmp(PQgetvalue(*scope, 0, 0), "0") == 0) {
        fprintf(stderr, "oncehook audit: there is no instance %s\n", audit->instance);
        return false;
    }
    audit->mendable = strtoll(PQgetvalue(*scope, 0, 4), NULL, 10);
    return run(audit, "COMMIT");
}

/* ---- reporting ------------------------------------------------------------------------------- */

static void print_drift(const struct audit *audit, const PGresult *row, bool is_first)
{
    const char *table = PQgetvalue(row, 0, 0), *id = PQgetvalue(row, 0, 1);
    const char *column = PQgetvalue(row, 0, 2);
    const char *counter = PQgetisnull(row, 0, 3) ? "null" : PQgetvalue(row, 0, 3);
    const char *events = PQgetvalue(row, 0, 4);
    bool is_text = strcmp(column, "last_event_at") == 0 || strcmp(column, "instance_id") == 0;

    if (!audit->json)
        printf("%s %s %s counter=%s events=%s\n", table, id, column, counter, events);
    else { /* names, UUIDs, integers, times, keys as audit_bound.sql writes them */
        const char *quote = is_text ? "\"" : "", *null = PQgetisnull(row, 0, 3) ? "" : quote;
        printf("%s{\"table\":\"%s\",\"id\":\"%s\",\"column\":\"%s\",\"counter\":%s%s%s,"
               "\"events\":%s%s%s}",
               is_first ? "" : ",", table, id, column, null, counter, null, quote, events, quote);
    }
}

/* Events of a detached month are counted and not here: that is why what follows differs. */
static void print_detached(const struct audit *audit)
{
    for (int i = 0; i < PQntuples(audit->detached); i++)
        fprintf(
            stderr,
            "oncehook audit: %s is detached, and what its events were counted as is no drift to "
            "repair. Back with: %s\n",
            PQgetvalue(audit->detached, i, 0), PQgetvalue(audit->detached, i, 1));
}

/* Prints what the last measure found, as it comes; a person gets the first of many. */
static bool print_drifts(const struct audit *audit)
{
    bool ok = true, is_first = true;
    char sql[200];
    snprintf(sql, sizeof(sql),
             "SELECT table_name, id, column_name, counter, events FROM pg_temp.audit_drift "
             "ORDER BY table_name LIKE '%%event%%', number LIMIT %d",
             audit->json ? INT_MAX : SHOWN_MAX);
    if (!PQsendQuery(audit->connection, sql))
        return fail(audit);
    PQsetSingleRowMode(audit->connection);
    for (PGresult *row; (row = PQgetResult(audit->connection)) != NULL; PQclear(row)) {
        if (PQresultStatus(row) == PGRES_SINGLE_TUPLE) {
            print_drift(audit, row, is_first);
            is_first = false;
        } else if (PQresultStatus(row) != PGRES_TUPLES_OK)
            ok = fail(audit);
    }
    if (ok && !audit->json && audit->drifts > SHOWN_MAX)
        printf("… and %lld more; --json has all\n", audit->drifts - SHOWN_MAX);
    return ok;
}

static bool report(struct audit *audit)
{
    PGresult *scope = NULL;
    bool ok = measure(audit, &scope);
    if (ok)
        print_detached(audit);
    if (ok && audit->json)
        printf("{\"drift\":[");
    ok = ok && print_drifts(audit);
    if (ok && audit->json)
        printf("],\"drifts\":%lld,\"instances\":%s,\"enrollments\":%s,\"events\":%s", audit->drifts,
               PQgetvalue(scope, 0, 0), PQgetvalue(scope, 0, 1), PQgetvalue(scope, 0, 2));
    else if (ok)
        printf("%s instances, %s enrollments, %s events: %lld drifts\n", PQgetvalue(scope, 0, 0),
               PQgetvalue(scope, 0, 1), PQgetvalue(scope, 0, 2), audit->drifts);
    for (int i = 0; ok && audit->json && i < PQntuples(audit->detached); i++)
        printf("%s\"%s\"%s", i ? "," : ",\"detached\":[", PQgetvalue(audit->detached, i, 0),
               i + 1 == PQntuples(audit->detached) ? "]" : "");
    PQclear(scope);
    return ok;
}

/* ---- repairing ------------------------------------------------------------------------------- */

/* Held until the connection ends, from before the snapshot: of two repairs the second measures
 * after the first has subtracted. Waiting would hold no snapshot, but serves nobody. */
static bool lock_repair(const struct audit *audit)
{
    PGresult *row =
        PQexec(audit->connection, "SELECT pg_try_advisory_lock(hashtext('oncehook repair'),"
                                  " hashtext(current_schema()))");
    bool ok = PQresultStatus(row) == PGRES_TUPLES_OK || fail(audit);
    bool is_ours = ok && PQgetvalue(row, 0, 0)[0] == 't';
    if (ok && !is_ours)
        fputs("oncehook audit: another --repair is running\n", stderr);
    PQclear(row);
    return is_ours && run(audit, "SET lock_timeout = '5s'");
}

/* One transaction. After a failure the repair ends: what was committed is not measured again as
 * drift. */
static bool repair_rows(const struct audit *audit, long long first)
{
    char number[24];
    snprintf(number, sizeof(number), "%lld", first);
    const char *const values[] = {number};
    PGresult *result = cli_database_ask(
        audit->connection, "oncehook audit",
        "SELECT repair_v1(array_agg(column_name), array_agg(id), array_agg(drift), "
        "array_agg(at)) FROM pg_temp.audit_drift WHERE is_mendable AND number >= $1::integer "
        "AND number < $1::integer + 500",
        1, values);
    bool is_done = result != NULL;
    PQclear(result);
    return is_done;
}
_Static_assert(REPAIR_ROWS == 500, "stands in the statement above");

/* Subtracts what was measured, and measures again: *audit says then what is left. */
static bool repair(struct audit *audit)
{
    const long long drifts = audit->drifts, mendable = audit->mendable;
    PGresult *scope = NULL;
    if (PQntuples(audit->detached) > 0) {
        fputs("oncehook audit: --repair is refused while a month is detached: attach it, or rename "
              "it if its events shall not count any more\n",
              stderr);
        audit->is_refused = true;
        return true;
    }
    for (long long first = 1; first <= drifts; first += REPAIR_ROWS)
        if (!repair_rows(audit, first))
            return false;
    if (drifts > 0 && !measure(audit, &scope))
        return false;
    PQclear(scope);
    if (audit->json)
        printf(",\"repaired\":%lld,\"left\":[", mendable);
    else
        printf("repaired %lld, left %lld\n", mendable, audit->drifts);
    bool ok = print_drifts(audit);
    if (audit->json)
        putchar(']');
    return ok;
}

/* ---- the command ----------------------------------------------------------------------------- */

static bool read_month(const char *text, char out[32])
{
    int year, month, end = 0;
    if (strlen(text) != 7 || sscanf(text, "%4d-%2d%n", &year, &month, &end) != 2 || end != 7 ||
        year < 1970 || month < 1 || month > 12)
        return false;
    snprintf(out, 32, "%04d-%02d-01 00:00:00+00", year, month);
    return true;
}

int cli_audit(int argc, char **argv)
{
    struct cli_database_options where = {0};
    struct audit audit = {.is_tty = isatty(STDERR_FILENO)};
    const char *month = NULL;
    bool is_repair = false;
    char since[32];
    uint8_t uuid[16];
    const struct cli_option options[] = {
        CLI_DATABASE_OPTIONS(where, "gateway", "database.url and database.schema", "The schema"),
        {"json", 0, false, NULL, "One JSON object instead of lines", NULL, &audit.json},
        {"instance", 0, false, "ID", "Only this instance and what belongs to it", &audit.instance,
         NULL},
        {"since", 0, false, "MONTH",
         "Only counters that an event received since MONTH (YYYY-MM, UTC) has touched; those are "
         "recomputed whole",
         &month, NULL},
        {"repair", 0, false, NULL,
         "Subtract the measured drift, put missing keys back, and measure again", NULL, &is_repair},
        {0},
    };
    cli_read_options(options,
                     "Recompute every counter from its events in one snapshot, and look up each "
                     "event's key in the ledger. A line for each that differs (of many the first "
                     "20; --json has all): TABLE ID COLUMN "
                     "counter=… events=…; then a summary. Exit 0 without drift (--repair: when "
                     "none is left), 1 with.",
                     argc, argv);
    if (audit.instance && !uuid_parse(slice_of_text(audit.instance), uuid)) {
        fprintf(stderr, "oncehook audit: --instance: '%s' is not a UUID\n", audit.instance);
        return CLI_USAGE;
    }
    if (month && !read_month(month, since)) {
        fprintf(stderr, "oncehook audit: --since: '%s' is not a month (YYYY-MM)\n", month);
        return CLI_USAGE;
    }
    audit.since = month ? since : NULL;

    struct cli_database database;
    if (!cli_database_find(&where, false, &database))
        return CLI_USAGE;
    audit.connection = cli_database_connect(&database, "oncehook audit");
    bool ok = audit.connection && (!is_repair || lock_repair(&audit)) &&
              run(&audit, embedded_find(embedded_sql, "audit_tables.sql")) && report(&audit) &&
              (!is_repair || repair(&audit));
    if (ok && audit.json)
        puts("}");
    PQclear(audit.months);
    PQclear(audit.detached);
    PQfinish(audit.connection);
    cli_database_release(&database);
    if (fflush(stdout) != 0 || !ok)
        return CLI_USAGE;
    return audit.drifts == 0 && !audit.is_refused ? CLI_OK : CLI_NO;
}
