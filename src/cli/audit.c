/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook audit: every counter recomputed from its rows, in one snapshot. Reads only, streams what
 * it finds, and locks nobody out. The statements are sql/audit_*.sql; each gives rows of (table,
 * id, column, counter, events). */
#include "cli/cli.h"

#include "base/embedded.h"
#include "base/encode.h"
#include "base/slice.h"
#include "cli/database.h"

#include <argp.h>
#include <stdio.h>
#include <string.h>

enum { KEY_JSON = 0x100, KEY_INSTANCE, KEY_SINCE, KEY_REPAIR, KEY_DATABASE, KEY_SCHEMA };

static const struct argp_option options[] = {
    {"config", 'c', "FILE", 0, "Take database.url and database.schema from FILE", 0},
    {"database", KEY_DATABASE, "URL", 0, "A login that may read, a libpq URI or conninfo", 0},
    {"schema", KEY_SCHEMA, "NAME", 0, "The schema (default: the configured one, else public)", 0},
    {"json", KEY_JSON, NULL, 0, "One JSON object instead of lines", 0},
    {"instance", KEY_INSTANCE, "ID", 0, "Only this instance and what belongs to it", 0},
    {"since", KEY_SINCE, "MONTH", 0,
     "Only counters that an event received since MONTH (YYYY-MM, UTC) has touched; those are "
     "recomputed whole",
     0},
    {"repair", KEY_REPAIR, NULL, 0, "(later) Subtract the drift", 0},
    {0},
};

struct audit_options {
    struct cli_database_options database;
    bool json;
    const char *instance; /* NULL = all */
    char since[32];       /* first moment of the month, "" = from the beginning */
};

static bool read_month(const char *text, char out[32])
{
    int year, month, end = 0;
    if (strlen(text) != 7 || sscanf(text, "%4d-%2d%n", &year, &month, &end) != 2 || end != 7 ||
        year < 1970 || month < 1 || month > 12)
        return false;
    snprintf(out, 32, "%04d-%02d-01 00:00:00+00", year, month);
    return true;
}

static error_t read_option(int key, char *arg, struct argp_state *state)
{
    struct audit_options *audit = state->input;
    uint8_t uuid[16];

    switch (key) {
    case 'c':
        audit->database.config = arg;
        return 0;
    case KEY_DATABASE:
        audit->database.url = arg;
        return 0;
    case KEY_SCHEMA:
        audit->database.schema = arg;
        return 0;
    case KEY_JSON:
        audit->json = true;
        return 0;
    case KEY_INSTANCE:
        if (!uuid_parse(slice_of_text(arg), uuid))
            argp_error(state, "--instance: '%s' is not a UUID", arg);
        audit->instance = arg;
        return 0;
    case KEY_SINCE:
        if (!read_month(arg, audit->since))
            argp_error(state, "--since: '%s' is not a month (YYYY-MM)", arg);
        return 0;
    case KEY_REPAIR:
        argp_error(state, "--repair comes later");
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s': no argument wanted", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    options,
    read_option,
    NULL,
    "Recompute every counter from its events in one snapshot, and look up each event's key in the "
    "ledger. A line for each that differs: TABLE ID COLUMN counter=… events=…; then a summary. "
    "Exit 0 "
    "without drift, 1 with.",
    NULL,
    NULL,
    NULL,
};

static const char *find_sql(const char *name)
{
    const struct embedded_file *file = embedded_sql;
    while (file->name && strcmp(file->name, name) != 0)
        file++;
    return file->text;
}

static bool fail(PGconn *connection)
{
    fprintf(stderr, "oncehook audit: database: %s", PQerrorMessage(connection));
    return false;
}

static bool run(PGconn *connection, const char *sql)
{
    PGresult *result = PQexec(connection, sql);
    bool done = PQresultStatus(result) == PGRES_COMMAND_OK;
    PQclear(result);
    return done || fail(connection);
}

static bool start_query(PGconn *connection, const struct audit_options *audit, const char *file)
{
    const char *const values[] = {audit->instance, audit->since[0] ? audit->since : NULL};
    return PQsendQueryParams(connection, find_sql(file), 2, NULL, values, NULL, NULL, 0) ||
           fail(connection);
}

static void print_drift(const struct audit_options *audit, const PGresult *row, long long number)
{
    const char *table = PQgetvalue(row, 0, 0), *id = PQgetvalue(row, 0, 1);
    const char *column = PQgetvalue(row, 0, 2);
    const char *counter = PQgetvalue(row, 0, 3), *events = PQgetvalue(row, 0, 4);

    if (audit->json) /* names, UUIDs and integers: nothing here needs escaping */
        printf("%s{\"table\":\"%s\",\"id\":\"%s\",\"column\":\"%s\",\"counter\":%s,\"events\":%s}",
               number > 0 ? "," : "", table, id, column, counter, events);
    else
        printf("%s %s %s counter=%s events=%s\n", table, id, column, counter, events);
}

/* Prints the rows of one statement as they come; adds their number to *drifts. */
static bool report_drift(PGconn *connection, const struct audit_options *audit, const char *file,
                         long long *drifts)
{
    bool ok = start_query(connection, audit, file);
    if (!ok)
        return false;
    PQsetSingleRowMode(connection);
    for (PGresult *result; (result = PQgetResult(connection)) != NULL; PQclear(result)) {
        if (PQresultStatus(result) == PGRES_SINGLE_TUPLE)
            print_drift(audit, result, (*drifts)++);
        else if (PQresultStatus(result) != PGRES_TUPLES_OK)
            ok = fail(connection);
    }
    return ok;
}

static bool report_scope(PGconn *connection, const struct audit_options *audit, long long drifts)
{
    bool ok = start_query(connection, audit, "audit_scope.sql");
    for (PGresult *result; ok && (result = PQgetResult(connection)) != NULL; PQclear(result)) {
        if (PQresultStatus(result) != PGRES_TUPLES_OK)
            ok = fail(connection);
        else if (audit->json)
            printf("],\"drifts\":%lld,\"instances\":%s,\"enrollments\":%s,\"events\":%s}\n", drifts,
                   PQgetvalue(result, 0, 0), PQgetvalue(result, 0, 1), PQgetvalue(result, 0, 2));
        else
            printf("%s instances, %s enrollments, %s events: %lld drifts\n",
                   PQgetvalue(result, 0, 0), PQgetvalue(result, 0, 1), PQgetvalue(result, 0, 2),
                   drifts);
    }
    return ok;
}

static bool report(PGconn *connection, const struct audit_options *audit, long long *drifts)
{
    static const char *const files[] = {"audit_instances.sql", "audit_enrollments.sql",
                                        "audit_keys.sql"};

    if (!run(connection,
             "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0"))
        return false;
    if (audit->json)
        printf("{\"drift\":[");
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        if (!report_drift(connection, audit, files[i], drifts))
            return false;
    return report_scope(connection, audit, *drifts) && run(connection, "COMMIT");
}

int cli_audit(int argc, char **argv)
{
    static char name[] = "oncehook audit";
    struct audit_options audit = {0};
    struct cli_database database;
    long long drifts = 0;

    argv[0] = name;
    argp_err_exit_status = CLI_USAGE;
    if (argp_parse(&parser, argc, argv, 0, NULL, &audit) != 0 ||
        !cli_database_find(&audit.database, false, &database))
        return CLI_USAGE;

    PGconn *connection = cli_database_connect(&database, name);
    bool ok = connection && report(connection, &audit, &drifts);
    PQfinish(connection);
    cli_database_release(&database);
    if (fflush(stdout) != 0 || !ok)
        return CLI_USAGE;
    return drifts == 0 ? CLI_OK : CLI_NO;
}
