/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook retention: lets go of what is older than its policy says, step by step, until nothing is
 * left to do. A step is one call of retention_step_v2(), one transaction, so that whatever ends
 * this leaves a whole state and the next run goes on from there. Only integers that were read here
 * to their last character reach SQL, as parameters. */
#include "base/clock.h"
#include "base/embedded.h"
#include "cli/archive.h"
#include "cli/cli.h"
#include "cli/database.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* WALK_PAUSE: as the gateway's own, upkeep/retention.c. */
enum { DAY_S = 86400, WAIT_S = 60, WALK_PAUSE = 3 };

/* The parameters of retention_plan.sql and retention_step_v2(). Each has one more, NEXT: whether
 * months go to files; the run's workflow. */
enum { COMPLETED, FAILED, CACHE, EVENTS, LAST, LEDGER, NEXT, PARAMETER_COUNT };

/* What --table knows. `days`: where --days goes; -1: its rows carry their own time. */
static const struct table {
    const char *name;
    int days, days_max;
} tables[] = {
    {"events", EVENTS, 3650},
    {"ledger", LEDGER, 3650},
    {"workflows", COMPLETED, 365}, /* what failed has a policy of its own */
    {"cache", -1, 0},
};

enum { TABLE_COUNT = sizeof(tables) / sizeof(tables[0]) };

struct retention {
    PGconn *connection;
    const char *archive;             /* directory, or NULL */
    char values[PARAMETER_COUNT][8]; /* "" = null */
    const char *parameters[PARAMETER_COUNT];
    char workflow[40];  /* id of this run in workflow_states, or "" */
    const char *reason; /* why it ends unfinished, for that row; NULL: see `error` */
    struct store_error error;
    const char *month;                                        /* the one that is being archived */
    long long steps, steps_done;                              /* of the progress bar */
    long long completed, failed, cache, months, events, keys; /* what went */
    bool is_tty;
};

/* ---- progress -------------------------------------------------------------------------------- */

static void clear_bar(const struct retention *r)
{
    if (r->is_tty)
        cli_clear_bar();
}

static void draw(const struct retention *r, const char *what, long long bytes)
{
    char size[32] = "";
    if (bytes > 0)
        snprintf(size, sizeof(size), ", %lld MiB", bytes >> 20);
    if (r->is_tty)
        cli_draw_bar(r->steps_done, r->steps, "%s%s", what, size);
}

static void draw_archive(void *context, long long bytes)
{
    struct retention *r = context;
    if (bytes >> 22 != (bytes - 4096) >> 22) /* about every 4 MiB */
        draw(r, r->month, bytes);
}

static const char *plural(long long amount)
{
    return amount == 1 ? "" : "s";
}

/* ---- SQL ------------------------------------------------------------------------------------- */

static bool fail(struct retention *r, const PGresult *result)
{
    const char *words = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    clear_bar(r);
    cli_database_take_error(r->connection, result, &r->error);
    if (cli_database_is_stopped())
        fprintf(stderr, "oncehook retention: stopped; what is done stays done, and the next run "
                        "goes on from there\n");
    else if (words)
        fprintf(stderr, "oncehook retention: database: %s\n", words);
    else
        fprintf(stderr, "oncehook retention: database: %s", PQerrorMessage(r->connection));
    return false;
}

/* NULL: stderr says why. */
static PGresult *query(struct retention *r, const char *sql, int count, const char *const *values)
{
    PGresult *rows = PQexecParams(r->connection, sql, count, NULL, values, NULL, NULL, 0);
    if (PQresultStatus(rows) == PGRES_TUPLES_OK)
        return rows;
    fail(r, rows);
    PQclear(rows);
    return NULL;
}

static bool call(struct retention *r, const char *sql, int count, const char *const *values)
{
    PGresult *rows = query(r, sql, count, values);
    PQclear(rows);
    return rows != NULL;
}

/* One retention at a time, the gateway's own included. It ends with the connection. */
static bool lock(struct retention *r)
{
    PGresult *row = query(r,
                          "SELECT pg_try_advisory_lock(hashtext('oncehook retention'),"
                          " hashtext(current_schema()))",
                          0, NULL);
    bool is_ours = row && PQgetvalue(row, 0, 0)[0] == 't';
    if (row && !is_ours)
        fputs("oncehook retention: another one is running\n", stderr);
    PQclear(row);
    return is_ours;
}

static void say_who_is_in_the_way(struct retention *r)
{
    PGresult *row = query(r, embedded_find(embedded_sql, "retention_users.sql"), 0, NULL);
    fprintf(stderr, "oncehook retention: a month is in use%s%s; run it again later\n",
            row && PQntuples(row) > 0 ? " by " : "",
            row && PQntuples(row) > 0 ? PQgetvalue(row, 0, 0) : "");
    PQclear(row);
    r->reason = "a month is in use";
}

/* The next step; a month that is in use is tried again for a minute, with pauses, so that captures
 * that queue behind each try get through. */
static PGresult *next_step(struct retention *r)
{
    const int64_t end_us = clock_mono_us() + WAIT_S * 1000000LL;
    for (;;) {
        PGresult *row = PQexecParams(
            r->connection,
            "SELECT * FROM retention_step_v2($1::integer, $2::integer, $3::boolean, $4::integer, "
            "$5::boolean, $6::integer, (SELECT started_at FROM workflow_states WHERE id = "
            "$7::uuid))",
            PARAMETER_COUNT, NULL, r->parameters, NULL, NULL, 0);
        const char *state = PQresultErrorField(row, PG_DIAG_SQLSTATE);
        bool is_busy = state && (strcmp(state, "55P03") == 0 || strcmp(state, "40P01") == 0);
        if (PQresultStatus(row) == PGRES_TUPLES_OK)
            return row;
        if (!is_busy || cli_database_is_stopped())
            fail(r, row);
        else if (clock_mono_us() >= end_us) {
            clear_bar(r);
            say_who_is_in_the_way(r);
        }
        PQclear(row);
        if (!is_busy || cli_database_is_stopped() || clock_mono_us() >= end_us)
            return NULL;
        draw(r, "a month is in use; waiting", 0);
        usleep(500000);
    }
}

/* ---- steps ----------------------------------------------------------------------------------- */

static bool archive_month(struct retention *r, const char *table)
{
    struct archive archive;
    struct oh_error err = {0};
    char rows[24];
    r->month = table;
    if (archive_write(r->connection, table, r->archive, draw_archive, r, &archive, &err) != OH_OK) {
        if (cli_database_is_stopped())
            return fail(r, NULL);
        clear_bar(r);
        r->error.sqlstate[0] = '\0';
        snprintf(r->error.text, sizeof(r->error.text), "%.*s", (int)strcspn(err.text, "\n"),
                 err.text);
        fprintf(stderr,
                "oncehook retention: --archive: %s; %s waits for its archive: run it again\n",
                err.text, table);
        return false;
    }
    snprintf(rows, sizeof(rows), "%lld", archive.rows);
    const char *const values[] = {table, archive.path, archive.sha256, rows};
    bool ok = call(r, "SELECT archived_month_v1($1, $2, $3, $4::bigint)", 4, values);
    clear_bar(r);
    if (ok)
        printf("%s: %s event%s in %s\n", table, rows, plural(archive.rows), archive.path);
    free(archive.path);
    return ok;
}

static bool note_month(struct retention *r, const char *step, const char *table, const char *amount)
{
    const char *const values[] = {r->workflow, step, table};
    clear_bar(r);
    if (strcmp(step, "retired") == 0)
        printf("%s: left campaign_events\n", table);
    else if (strcmp(step, "folded") == 0)
        printf("%s: %s event%s folded into the sums\n", table, amount,
               plural(strtoll(amount, NULL, 10)));
    else if (strcmp(step, "dropped") == 0) {
        printf("%s: dropped\n", table);
        r->months++;
        r->events += strtoll(amount, NULL, 10);
    }
    fflush(stdout);
    return call(r, "SELECT workflow_step_v1($1::uuid, $2 || ' ' || $3)", 3, values) &&
           (strcmp(step, "archive") != 0 || archive_month(r, table));
}

static bool run_steps(struct retention *r)
{
    for (;; r->steps_done++) {
        const int64_t began_us = clock_mono_us();
        PGresult *row = next_step(r);
        if (!row || PQgetisnull(row, 0, 0)) {
            PQclear(row);
            return row != NULL;
        }
        const char *step = PQgetvalue(row, 0, 0), *name = PQgetvalue(row, 0, 1);
        long long amount = strtoll(PQgetvalue(row, 0, 2), NULL, 10);
        bool ok = true;
        if (strcmp(step, "expired") == 0)
            r->cache += amount;
        else if (strcmp(step, "forgotten") == 0) {
            r->keys += amount;
            /* Of the step and its commit, whose WAL captures wait for. */
            usleep((useconds_t)((clock_mono_us() - began_us) * WALK_PAUSE));
        } else if (strcmp(step, "archived") == 0)
            *(strcmp(name, "failed") == 0 ? &r->failed : &r->completed) += amount;
        else
            ok = note_month(r, step, name, PQgetvalue(row, 0, 2));
        draw(r, name, 0);
        PQclear(row);
        if (!ok)
            return false;
        if (cli_database_is_stopped())
            return fail(r, NULL);
    }
}

/* What a run would do: its lines for --dry-run, else the length of the progress bar. */
static bool plan(struct retention *r, bool is_dry_run)
{
    r->parameters[LAST] = is_dry_run ? "true" : "false"; /* exact numbers */
    r->parameters[NEXT] = r->archive ? "true" : "false";
    PGresult *rows =
        query(r, embedded_find(embedded_sql, "retention_plan.sql"), PARAMETER_COUNT, r->parameters);
    r->parameters[LAST] = r->archive ? "true" : "false"; /* months go to a file */
    for (int i = 0; rows && i < PQntuples(rows); i++) {
        r->steps += strtoll(PQgetvalue(rows, i, 1), NULL, 10) + (r->archive ? 1 : 0);
        if (is_dry_run)
            puts(PQgetvalue(rows, i, 0));
    }
    if (rows && is_dry_run && PQntuples(rows) == 0)
        puts("nothing is old enough");
    PQclear(rows);
    return rows != NULL;
}

/* Recorded in workflow_states, whatever its end; what was killed is found by the next one. */
static bool run(struct retention *r)
{
    PGresult *row =
        query(r,
              "SELECT workflow_begin_v1('retention', jsonb_build_object('completed_days',"
              " $1::integer, 'failed_days', $2::integer, 'cache', $3::boolean,"
              " 'event_days', $4::integer, 'archive', $5::boolean, 'key_days', $6::integer))",
              NEXT, r->parameters);
    if (!row)
        return false;
    snprintf(r->workflow, sizeof(r->workflow), "%s", PQgetvalue(row, 0, 0));
    r->parameters[NEXT] = r->workflow;
    PQclear(row);
    bool ok = run_steps(r);
    clear_bar(r);
    printf("workflow_states: %lld completed and %lld failed archived; enrichment_cache: %lld "
           "deleted; campaign_events: %lld month%s, %lld event%s; event_keys: %lld deleted\n",
           r->completed, r->failed, r->cache, r->months, plural(r->months), r->events,
           plural(r->events), r->keys);

    char words[CLI_ERROR_SIZE];
    const char *const end[] = {r->workflow,
                               ok ? NULL : cli_database_write_error(r->reason, &r->error, words)};
    PGresult *ended = PQexecParams(r->connection, "SELECT workflow_end_v1($1::uuid, $2)", 2, NULL,
                                   end, NULL, NULL, 0);
    PQclear(ended); /* without it, the next begin ends it */
    return ok;
}

/* ---- the command ----------------------------------------------------------------------------- */

/* All of it digits, and 1 to max; 0 = it is not. */
static long read_days(const char *text, long max)
{
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++)
        if (!isdigit((unsigned char)text[i]))
            return 0;
    long days = len >= 1 && len <= 4 ? strtol(text, NULL, 10) : 0;
    return days <= max ? days : 0;
}

static int refuse_days(const char *text)
{
    fputs("oncehook retention: Invalid retentionDays: ", stderr);
    for (size_t i = 0; text[i] && i < 200; i++)
        fputc(iscntrl((unsigned char)text[i]) ? '?' : text[i], stderr);
    fputc('\n', stderr);
    return CLI_USAGE;
}

static int days_of(int64_t seconds)
{
    return (int)((seconds + DAY_S - 1) / DAY_S);
}

/* The policy of the tables that were asked for: the configuration's, else the default one. */
static void set_policy(struct retention *r, const struct config *config, const struct table *only)
{
    const int policy[] = {
        [COMPLETED] = config ? days_of(config->retention.workflows_completed_s) : 30,
        [FAILED] = config ? days_of(config->retention.workflows_failed_s) : 90,
        [EVENTS] = config ? days_of(config->retention.events_s) : 90,
        [LEDGER] = config ? days_of(config->retention.ledger_s) : 180,
    };
    for (int i = 0; i < PARAMETER_COUNT; i++) {
        if (i == CACHE || i == LAST || i == NEXT)
            continue;
        bool is_asked = !only || only->days == i || (i == FAILED && only->days == COMPLETED);
        if (is_asked && !r->values[i][0])
            snprintf(r->values[i], sizeof(r->values[i]), "%d", policy[i]);
        r->parameters[i] = r->values[i][0] ? r->values[i] : NULL;
    }
    r->parameters[CACHE] = !only || only->days < 0 ? "true" : "false";
}

/* --table and --days into *only and the policy; false: stderr says why (exit code 2). */
static bool read_scope(struct retention *r, const char *name, const char *days,
                       const struct table **only)
{
    for (int i = 0; name && i < TABLE_COUNT; i++)
        if (strcmp(name, tables[i].name) == 0)
            *only = &tables[i];
    if (days && *only && (*only)->days < 0)
        return fputs("oncehook retention: --days: rows of the cache carry their own expiry\n",
                     stderr),
               false;
    if (days && !read_days(days, *only ? (*only)->days_max : 3650))
        return refuse_days(days), false;
    if (name && !*only)
        fprintf(stderr,
                "oncehook retention: --table: events, ledger, workflows or cache, not '%s'\n",
                name);
    else if (days && !*only)
        fputs("oncehook retention: --days needs --table\n", stderr);
    else {
        if (days)
            snprintf(r->values[(*only)->days], sizeof(r->values[0]), "%ld", read_days(days, 3650));
        return true;
    }
    return false;
}

static bool can_archive(struct retention *r)
{
    struct oh_error err = {0};
    bool ok = !r->archive || archive_check(r->archive, &err) == OH_OK;
    if (!ok)
        fprintf(stderr, "oncehook retention: --archive: %s\n", err.text);
    return ok;
}

int cli_retention(int argc, char **argv)
{
    struct cli_database_options from = {.url = NULL};
    struct retention r = {.is_tty = isatty(STDERR_FILENO)};
    const struct table *only = NULL;
    const char *name = NULL, *days = NULL;
    bool is_dry_run = false;
    const struct cli_option options[] = {
        CLI_DATABASE_OPTIONS(from, "owner", "database.owner_url, database.schema and retention",
                             "The schema"),
        {"table", .argument = "NAME", .value = &name,
         .words = "Only events, ledger, workflows or cache (default: all of them)"},
        {"days", .argument = "N", .value = &days,
         .words = "Instead of the policy of --table: workflows (those that completed) 1 to 365, "
                  "events and ledger 1 to 3650"},
        {"dry-run", .words = "Say exactly what would go, change nothing", .flag = &is_dry_run},
        {"archive", .argument = "DIR", .value = &r.archive,
         .words = "Write each month to DIR before it is dropped: compressed COPY, with a checksum"},
        {0},
    };
    struct cli_database database;
    cli_read_options(options,
                     "Let go of what is older than its policy says: whole months of events (their "
                     "counts stay), completed and failed workflows (they go to the archive table), "
                     "expired cache rows, keys of the ledger whose events are gone. One at a time. "
                     "Exit 0 when nothing is left to do; 1 when it began and did not come to the "
                     "end, as when it was stopped, a month is in use or an archive cannot be "
                     "written (run it again); 2 for anything else.",
                     argc, argv);
    if (!read_scope(&r, name, days, &only) || !can_archive(&r) ||
        !cli_database_find(&from, true, &database))
        return CLI_USAGE;
    set_policy(&r, database.config, only);
    r.connection = cli_database_connect(&database, "oncehook retention");
    bool ok = r.connection && plan(&r, is_dry_run);
    if (ok && !is_dry_run) {
        cli_database_stop_on_signal(r.connection);
        ok = lock(&r) && run(&r);
    }
    cli_database_finish(r.connection);
    cli_database_release(&database);
    if (fflush(stdout) != 0 || !ok)
        return r.workflow[0] ? CLI_NO : CLI_USAGE;
    return CLI_OK;
}
