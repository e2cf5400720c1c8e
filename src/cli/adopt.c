/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook migrate adopt: an installation with tables of ours in another schema becomes ours while
 * its application runs. Each step is one call of adopt_step_v1(), one short transaction, so that
 * whatever ends this leaves a whole state and the next run goes on from there; the last one is the
 * switch. What the steps do is said in sql/0016_adopt.up.sql. */
#include "cli/adopt.h"

#include "base/clock.h"
#include "base/embedded.h"
#include "cli/cli.h"
#include "cli/database.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    WAIT_S = 60,
    PAUSE_MAX_MS = 100,
    SWITCHES_MAX = 20,
    COUNT_S = 2, /* between two counts of the changes that are left */
    SAY_S = 10,  /* between two lines where there is no terminal */
    PATIENCE_S_MAX = 86400,
    NEARER = 50 /* it comes nearer: within the patience, by this part of the rest */
};

/* Changes that were noted and not copied yet. Never by less than what comes, or it has no end. */
struct rest {
    long long left, copied;    /* as last counted; all that were copied */
    int64_t counted_us;        /* 0: not yet */
    long long said, copied_at; /* `left` and `copied` when they were last said */
    int64_t said_us;
    long long mark; /* `left` when it last came nearer */
    int64_t mark_us;
};

struct adopt {
    PGconn *connection;
    const char *old_schema;
    char *scopes; /* {"PROVIDER": "KEY_SCOPE"}, as JSON */
    char workflow[40];
    const char *reason; /* why it ends unfinished, for the row of its workflow; NULL: see `error` */
    struct store_error error;
    bool is_tty;
    long long pages, pages_done; /* of the progress bar */
    int64_t pages_said_us;
    struct rest rest;
    int64_t patience_us;
};

/* ---- SQL ------------------------------------------------------------------------------------- */

static bool fail(struct adopt *a, const PGresult *result)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *words = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    if (a->is_tty)
        cli_clear_bar();
    cli_database_take_error(a->connection, result, &a->error);
    if (cli_database_is_stopped())
        fputs("oncehook migrate: stopped; what is copied stays, changes are still noted. Run it "
              "again to go on, or with --cancel to end it\n",
              stderr);
    else if (state && (strcmp(state, "42883") == 0 || strcmp(state, "42P01") == 0))
        fputs("oncehook migrate: the schema knows no adoption: run `oncehook migrate up` first\n",
              stderr);
    else
        fprintf(stderr, "oncehook migrate: database: %s%s",
                words ? words : PQerrorMessage(a->connection), words ? "\n" : "");
    return false;
}

/* 40P01, 55P03: others' locks, and nothing has happened. */
static bool is_busy(const PGresult *result)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    return state && (strcmp(state, "55P03") == 0 || strcmp(state, "40P01") == 0);
}

/* Calls `sql` with the old schema and the scopes; tries again for a minute what meets locks, with
 * pauses, so that the application gets through. NULL: stderr says why. */
static PGresult *call(struct adopt *a, const char *sql, int count)
{
    const char *const values[] = {a->old_schema, a->scopes};
    const int64_t end_us = clock_mono_us() + WAIT_S * INT64_C(1000000);
    for (int pause_ms = 50;; pause_ms = pause_ms < 1000 ? pause_ms * 2 : pause_ms) {
        PGresult *rows = PQexecParams(a->connection, sql, count, NULL, values, NULL, NULL, 0);
        if (PQresultStatus(rows) == PGRES_TUPLES_OK)
            return rows;
        bool again = is_busy(rows) && !cli_database_is_stopped() && clock_mono_us() < end_us;
        if (!again && is_busy(rows) && !cli_database_is_stopped()) {
            a->reason = "no lock within a minute: an old table is in use by a long transaction";
            fprintf(stderr,
                    "oncehook migrate: %s (pg_stat_activity). Nothing is lost: run it again\n",
                    a->reason);
        } else if (!again)
            fail(a, rows);
        PQclear(rows);
        if (!again)
            return NULL;
        usleep((useconds_t)pause_ms * 1000);
    }
}

/* ---- what it prints -------------------------------------------------------------------------- */

/* The lines of a look; *problems counts those that stand in the way. */
static bool print_look(struct adopt *a, const char *sql, int *problems)
{
    PGresult *rows = call(a, sql, 2);
    for (int i = 0; rows && i < PQntuples(rows); i++) {
        bool is_problem = strcmp(PQgetvalue(rows, i, 0), "problem") == 0;
        *problems += is_problem;
        printf("%s%s\n", is_problem ? "in the way: " : "", PQgetvalue(rows, i, 1));
    }
    PQclear(rows);
    return rows != NULL;
}

/* Rows that cannot come along: before the switch they stand in the way, after it they are told. */
static bool print_left_out(struct adopt *a, bool is_after, int *problems)
{
    const char *const values[] = {a->old_schema, is_after ? "_before_oncehook" : ""};
    PGresult *looks = PQexecParams(a->connection, embedded_find(embedded_sql, "adopt_left_out.sql"),
                                   2, NULL, values, NULL, NULL, 0);
    bool ok = PQresultStatus(looks) == PGRES_TUPLES_OK || fail(a, looks);
    for (int i = 0; ok && i < PQntuples(looks); i++) {
        const char *table = PQgetvalue(looks, i, 0), *words = PQgetvalue(looks, i, 2);
        PGresult *row = call(a, PQgetvalue(looks, i, 1), 0);
        const char *amount = row ? PQgetvalue(row, 0, 0) : "0";
        const char *rows = strcmp(amount, "1") == 0 ? "row" : "rows";
        ok = row != NULL;
        *problems += strcmp(amount, "0") != 0;
        if (strcmp(amount, "0") == 0)
            ;
        else if (is_after)
            printf("%s: left out, and in %s.%s_before_oncehook alone: %s %s %s\n", table,
                   a->old_schema, table, amount, rows, words);
        else
            printf("in the way: %s.%s: %s %s %s: they would be left out, so mend or delete them "
                   "first\n",
                   a->old_schema, table, amount, rows, words);
        PQclear(row);
    }
    PQclear(looks);
    return ok;
}

static bool print_drift(struct adopt *a)
{
    PGresult *rows =
        call(a, "SELECT counter, counted, events, instances FROM adopt_drift_v1($1)", 1);
    long long wrong = 0;
    if (rows)
        printf("%-20s %14s %14s %20s\n", "counter", "it says", "events", "instances that differ");
    for (int i = 0; rows && i < PQntuples(rows); i++) {
        printf("%-20s %14s %14s %20s\n", PQgetvalue(rows, i, 0), PQgetvalue(rows, i, 1),
               PQgetvalue(rows, i, 2), PQgetvalue(rows, i, 3));
        wrong += strtoll(PQgetvalue(rows, i, 3), NULL, 10);
    }
    if (rows)
        puts(wrong ? "the old counters differ from the old events; the new ones are counted from "
                     "the events"
                   : "the old counters are those of the events");
    PQclear(rows);
    return rows != NULL;
}

static bool see_pages(struct adopt *a)
{
    PGresult *row = call(a, "SELECT sum(end_page), sum(next_page) FROM adopted_tables", 0);
    if (row) {
        a->pages = strtoll(PQgetvalue(row, 0, 0), NULL, 10);
        a->pages_done = strtoll(PQgetvalue(row, 0, 1), NULL, 10);
    }
    PQclear(row);
    return row != NULL;
}

/* A bar; without a terminal a line now and then. */
static bool say_pages(struct adopt *a, const char *table)
{
    const int64_t now_us = clock_mono_us(), every_us = a->is_tty ? 500000 : SAY_S * 1000000LL;
    if (!a->pages_said_us && !a->is_tty)
        a->pages_said_us = now_us; /* most are done before the first line */
    if (now_us - a->pages_said_us < every_us)
        return true;
    a->pages_said_us = now_us;
    if (!see_pages(a))
        return false;
    if (a->is_tty)
        cli_draw_bar(a->pages_done, a->pages, "%s", table);
    else
        printf("%s: %lld of %lld pages of all tables are copied\n", table, a->pages_done, a->pages);
    return true;
}

/* How far behind the application it is, and which of the two is faster. */
static void say_rest(struct adopt *a, int64_t now_us)
{
    struct rest *r = &a->rest;
    const double seconds = (double)(now_us - r->said_us) / 1e6;
    const long long copied = r->copied - r->copied_at;
    char rates[96] = "";
    if (r->said_us && seconds > 0)
        snprintf(rates, sizeof(rates), "; a second %.0f are copied and %.0f come",
                 (double)copied / seconds, (double)(r->left - r->said + copied) / seconds);
    if (a->is_tty)
        cli_draw_bar(r->copied, r->copied + r->left, "catching up: %lld changes left%s", r->left,
                     rates);
    else
        printf("catching up: %lld changes left%s\n", r->left, rates);
    r->said_us = now_us;
    r->said = r->left;
    r->copied_at = r->copied;
}

/* Of an application that is too busy. */
static bool give_up(struct adopt *a, const char *reason)
{
    fprintf(stderr,
            "%s. Nothing is switched; what is copied stays, changes are still noted. Run it again "
            "in a quieter time: it goes on from there. Or with --cancel, to end it\n",
            reason);
    a->reason = reason;
    return false;
}

/* After each `amount` changes that were copied. False: it does not come nearer, or cannot count. */
static bool see_rest(struct adopt *a, long long amount)
{
    struct rest *r = &a->rest;
    r->copied += amount;
    if (r->counted_us && clock_mono_us() - r->counted_us < COUNT_S * 1000000LL)
        return true;
    PGresult *row = call(a, "SELECT count(*) FROM adopted_changes", 0);
    if (!row)
        return false;
    r->left = strtoll(PQgetvalue(row, 0, 0), NULL, 10);
    PQclear(row);
    const int64_t now_us = r->counted_us = clock_mono_us();
    if (!r->mark_us || r->left < r->mark - r->mark / NEARER) {
        r->mark = r->left;
        r->mark_us = now_us;
    }
    const bool is_late = now_us - r->mark_us >= a->patience_us;
    if (a->is_tty || is_late || !r->said_us || now_us - r->said_us >= SAY_S * 1000000LL)
        say_rest(a, now_us);
    if (!is_late)
        return true;
    fflush(stdout);
    fprintf(stderr,
            "%soncehook migrate: %lld changes are left, and for %lld s it did not come nearer: ",
            a->is_tty ? "\n" : "", r->left, (long long)(a->patience_us / 1000000));
    return give_up(a, "the application changes its rows as fast as they are copied");
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* Until nothing is left but the switch. */
static bool copy(struct adopt *a)
{
    a->rest.counted_us = a->rest.mark_us = 0;
    while (!cli_database_is_stopped()) {
        const int64_t began_us = clock_mono_us();
        PGresult *row = call(a, "SELECT step, name, amount FROM adopt_step_v1($1, $2::jsonb)", 2);
        if (!row || PQgetisnull(row, 0, 0)) {
            PQclear(row);
            return row != NULL;
        }
        const int64_t took_ms = (clock_mono_us() - began_us) / 1000;
        const char *step = PQgetvalue(row, 0, 0);
        bool ok = true;
        if (strcmp(step, "noted") == 0)
            printf("%s: its changes are noted from now on\n", PQgetvalue(row, 0, 1));
        else if (strcmp(step, "copied") == 0)
            ok = say_pages(a, PQgetvalue(row, 0, 1));
        else if (strcmp(step, "again") == 0)
            ok = see_rest(a, strtoll(PQgetvalue(row, 0, 2), NULL, 10));
        PQclear(row);
        fflush(stdout);
        if (!ok)
            return false;
        /* As long as the step took: half of the time is left to the application. */
        usleep((useconds_t)(took_ms < PAUSE_MAX_MS ? took_ms : PAUSE_MAX_MS) * 1000);
    }
    return fail(a, NULL);
}

static bool change_over(struct adopt *a)
{
    for (int tries = 0; tries < SWITCHES_MAX && !cli_database_is_stopped(); tries++) {
        const int64_t began_us = clock_mono_us();
        PGresult *row = call(a, "SELECT adopt_switch_v1($1, $2::jsonb)", 2);
        bool ok = row != NULL, is_done = ok && PQgetvalue(row, 0, 0)[0] == 't';
        PQclear(row);
        if (is_done)
            printf("switched: the old names are views now, and the old tables …_before_oncehook "
                   "(%.0f ms)\n",
                   (double)(clock_mono_us() - began_us) / 1e3);
        if (!ok || is_done)
            return ok;
        if (tries + 1 < SWITCHES_MAX)
            printf("switch: more changed while it waited for the tables than it may copy under its "
                   "locks; that comes first, then try %d of %d\n",
                   tries + 2, SWITCHES_MAX);
        fflush(stdout);
        if (!copy(a))
            return false;
    }
    if (cli_database_is_stopped())
        return fail(a, NULL);
    fputs("oncehook migrate: ", stderr);
    return give_up(a, "each time that the tables were locked for the switch, more had changed than "
                      "may be copied under locks");
}

static bool print_result(struct adopt *a)
{
    PGresult *rows =
        call(a, "SELECT name, copied, duplicates FROM adopted_tables ORDER BY number", 0);
    for (int i = 0; rows && i < PQntuples(rows); i++)
        printf("%s: %s rows%s%s\n", PQgetvalue(rows, i, 0), PQgetvalue(rows, i, 1),
               strcmp(PQgetvalue(rows, i, 2), "0") ? ", events that were there already: " : "",
               strcmp(PQgetvalue(rows, i, 2), "0") ? PQgetvalue(rows, i, 2) : "");
    PQclear(rows);
    return rows != NULL;
}

/* ---- the command ----------------------------------------------------------------------------- */

/* The key_scope of a provider's ids, where the configuration has one for all of its sources. */
static char *read_scopes(const struct config *config)
{
    json_t *scopes = json_object();
    for (size_t i = 0; config && scopes && i < config->source_count; i++) {
        const struct config_source *source = &config->sources[i];
        const char *known = json_string_value(json_object_get(scopes, source->provider));
        char shared[96];
        snprintf(shared, sizeof(shared), "provider:%s", source->provider);
        bool differs = known && strcmp(known, source->scope_id) != 0;
        json_object_set_new(scopes, source->provider,
                            json_string(differs ? shared : source->scope_id));
    }
    char *text = scopes ? json_dumps(scopes, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    json_decref(scopes);
    return text;
}

/* One adoption at a time; it ends with the connection. */
static bool lock(struct adopt *a)
{
    PGresult *row = call(a,
                         "SELECT pg_try_advisory_lock(hashtext('oncehook adopt'), "
                         "hashtext(current_schema()))",
                         0);
    bool is_ours = row && PQgetvalue(row, 0, 0)[0] == 't';
    if (row && !is_ours)
        fputs("oncehook migrate: another adoption is running\n", stderr);
    PQclear(row);
    return is_ours;
}

/* Of an earlier run: 's' switched, 'o' of another schema, 'b' begun, 0 none. */
static bool find_earlier(struct adopt *a, char *state)
{
    PGresult *row = call(
        a,
        "SELECT coalesce((SELECT CASE WHEN old_schema <> $1 THEN 'o' WHEN switched_at IS NOT NULL"
        " THEN 's' WHEN columns IS NOT NULL THEN 'b' END FROM adopted_tables ORDER BY number"
        " LIMIT 1), '')",
        1);
    *state = row ? PQgetvalue(row, 0, 0)[0] : '\0';
    PQclear(row);
    return row != NULL;
}

static bool begin_workflow(struct adopt *a)
{
    PGresult *row =
        call(a, "SELECT workflow_begin_v1('adopt', jsonb_build_object('from', $1::text))", 1);
    if (row)
        snprintf(a->workflow, sizeof(a->workflow), "%s", PQgetvalue(row, 0, 0));
    PQclear(row);
    return row != NULL;
}

static void end_workflow(struct adopt *a, bool ok)
{
    char words[CLI_ERROR_SIZE];
    const char *const values[] = {
        a->workflow, ok ? NULL : cli_database_write_error(a->reason, &a->error, words)};
    PQclear(PQexecParams(a->connection, "SELECT workflow_end_v1($1::uuid, $2)", 2, NULL, values,
                         NULL, NULL, 0));
}

/* Else the first plans through the views would be made for empty tables. */
static bool analyze(struct adopt *a)
{
    PGresult *done = PQexec(
        a->connection,
        "ANALYZE campaign_templates, email_sequences, linkedin_sequences, campaign_instances, "
        "campaign_enrollments, workflow_states, campaign_events, event_keys");
    bool ok = PQresultStatus(done) == PGRES_COMMAND_OK || fail(a, done);
    PQclear(done);
    return ok;
}

static bool run(struct adopt *a)
{
    if (!begin_workflow(a))
        return false;
    bool ok = copy(a) && see_pages(a) && analyze(a) && change_over(a);
    if (a->is_tty)
        cli_clear_bar();
    int left_out = 0;
    ok = ok && print_result(a) && print_left_out(a, true, &left_out);
    end_workflow(a, ok);
    return ok;
}

static int cancel(struct adopt *a)
{
    PGresult *row = call(a, "SELECT adopt_cancel_v1($1)", 1);
    if (row)
        printf("ended: changes are no longer noted; rows that were copied stay: %s\n",
               PQgetvalue(row, 0, 0));
    PQclear(row);
    return row ? CLI_OK : CLI_USAGE;
}

/* Looks, and unless it only should, does it. */
static int adopt(struct adopt *a, bool is_dry_run, bool is_cancel)
{
    char earlier = 0;
    int problems = 0;
    if (!find_earlier(a, &earlier))
        return CLI_USAGE;
    if (earlier == 's' || earlier == 'o' || (is_cancel && !earlier)) {
        fputs(earlier == 's' ? "oncehook migrate: it is adopted already\n"
              : earlier ? "oncehook migrate: an adoption of another schema was begun: --from it\n"
                        : "oncehook migrate: no adoption was begun\n",
              stderr);
        return CLI_NO;
    }
    if (is_cancel)
        return lock(a) ? cancel(a) : CLI_NO;
    if (!print_look(a, embedded_find(embedded_sql, "adopt_look.sql"), &problems) ||
        (!problems &&
         (!print_look(a, "SELECT kind, line FROM adopt_look_rows_v1($1, $2::jsonb)", &problems) ||
          !print_left_out(a, false, &problems))))
        return CLI_USAGE;
    if (!problems && !print_drift(a))
        return CLI_USAGE;
    if (problems || is_dry_run)
        return problems ? CLI_NO : CLI_OK;
    if (earlier)
        puts("goes on with what was begun");
    return lock(a) && run(a) ? CLI_OK : CLI_NO;
}

static bool read_patience(const char *text, int64_t *us)
{
    char *end = NULL;
    long seconds = text[0] >= '0' && text[0] <= '9' ? strtol(text, &end, 10) : 0;
    if (!end || *end != '\0' || seconds < 1 || seconds > PATIENCE_S_MAX)
        return false;
    *us = seconds * INT64_C(1000000);
    return true;
}

int cli_adopt(int argc, char **argv)
{
    struct cli_database_options from = {.url = NULL};
    struct adopt a = {.old_schema = "public", .is_tty = isatty(STDERR_FILENO)};
    const char *patience = "60";
    bool is_dry_run = false, is_cancel = false;
    const struct cli_option options[] = {
        CLI_DATABASE_OPTIONS(from, "owner",
                             "database.owner_url, database.schema and the sources' scopes",
                             "oncehook's schema"),
        {"from", .argument = "NAME", .value = &a.old_schema,
         .words = "The schema of the old tables (default: public)"},
        {"patience", .argument = "SECONDS", .value = &patience,
         .words = "End it when the application has been as fast as the copying for so long "
                  "(default: 60)"},
        {"dry-run", .words = "Say what is there and what stands in the way, change nothing",
         .flag = &is_dry_run},
        {"cancel", .words = "End an adoption before its switch: the old tables are as before",
         .flag = &is_cancel},
        {0},
    };
    struct cli_database database;
    cli_read_options(
        options,
        "Take over the campaign tables of another schema while their application runs: their "
        "rows are copied in short transactions, ids of events go into the ledger, and views take "
        "the old names; the old tables stay, renamed. Then the counters are audited. It may be "
        "stopped and run again. Exit 0 when it is adopted; 1 when something stands in the way or "
        "it was stopped, or the application changes its rows as fast as they are copied; 2 for "
        "anything else.",
        argc, argv);
    if (!read_patience(patience, &a.patience_us)) {
        fprintf(stderr, "oncehook migrate: --patience: seconds, 1 to %d\n", PATIENCE_S_MAX);
        return CLI_USAGE;
    }
    if (!cli_database_find(&from, true, &database))
        return CLI_USAGE;
    int code = CLI_USAGE;
    a.scopes = read_scopes(database.config);
    a.connection = a.scopes ? cli_database_connect(&database, "oncehook migrate") : NULL;
    if (a.connection) {
        PQclear(PQexec(a.connection, "SET statement_timeout = 0")); /* the role may have one */
        cli_database_stop_on_signal(a.connection);
        code = adopt(&a, is_dry_run, is_cancel);
    }
    cli_database_finish(a.connection);
    free(a.scopes);
    if (code == CLI_OK && !is_dry_run && !is_cancel) {
        char *audit[] = {(char *)"audit",    (char *)"--database",    (char *)database.url,
                         (char *)"--schema", (char *)database.schema, NULL};
        fflush(stdout);
        code = cli_audit(5, audit);
    }
    cli_database_release(&database);
    return fflush(stdout) != 0 ? CLI_USAGE : code;
}
