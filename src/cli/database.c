/* SPDX-License-Identifier: Apache-2.0 */
/* --database URL or -c FILE, for the commands that need a database and no gateway. */
#include "cli/database.h"

#include "cli/cli.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ATTEMPTS = 10 };

/* libpq's own complaint repeats the part that it cannot read, which may be the password. */
static bool is_readable(const char *url)
{
    PQconninfoOption *parsed = PQconninfoParse(url, NULL);
    PQconninfoFree(parsed);
    return parsed != NULL;
}

bool cli_database_find(const struct cli_database_options *options, bool owner,
                       struct cli_database *out)
{
    *out = (struct cli_database){.url = options->url, .schema = options->schema};
    if (!options->config && !options->url) {
        fprintf(stderr, "oncehook: which database? --database URL or -c FILE\n");
        return false;
    }
    if (options->url && !is_readable(options->url)) {
        fprintf(stderr, "oncehook: --database is nothing libpq can connect to, such as "
                        "postgresql://USER@HOST/DATABASE\n");
        return false;
    }
    if (options->config) {
        unsigned part = options->url ? 0 : owner ? CONFIG_OWNER : CONFIG_URL;
        if (!(out->config = cli_load_config(options->config, part)))
            return false;
        if (!out->url)
            out->url = owner ? out->config->database.owner_url : out->config->database.url;
        if (!out->schema)
            out->schema = out->config->database.schema;
    }
    if (!out->url) {
        fprintf(stderr, "oncehook: %s has no database.%s; it or --database URL is needed\n",
                options->config, owner ? "owner_url" : "url");
        cli_database_release(out);
        return false;
    }
    if (!out->schema)
        out->schema = "public";
    return true;
}

void cli_database_release(struct cli_database *database)
{
    config_free(database->config);
    *database = (struct cli_database){0};
}

/* Sets search_path, pg_temp last: else a temporary table would come before the schema's own. */
static bool enter_schema(PGconn *connection, const char *schema)
{
    char *quoted = PQescapeIdentifier(connection, schema, strlen(schema));
    char sql[192];
    bool fits = quoted && snprintf(sql, sizeof(sql), "SET search_path = %s, pg_temp", quoted) <
                              (int)sizeof(sql);
    PGresult *result = fits ? PQexec(connection, sql) : NULL;
    bool done = PQresultStatus(result) == PGRES_COMMAND_OK;

    PQclear(result);
    PQfreemem(quoted);
    return done;
}

PGconn *cli_database_connect(const struct cli_database *database, const char *name)
{
    static const char *const names[] = {"fallback_application_name", "connect_timeout", "dbname",
                                        NULL};
    const char *const values[] = {name, "10", database->url, NULL};
    PGconn *connection = PQconnectdbParams(names, values, 1);

    if (PQstatus(connection) == CONNECTION_OK && enter_schema(connection, database->schema))
        return connection;
    fprintf(stderr, "%s: database: %s", name,
            connection ? PQerrorMessage(connection) : "no memory\n");
    PQfinish(connection);
    return NULL;
}

PGresult *cli_database_ask(PGconn *connection, const char *name, const char *sql, int count,
                           const char *const *values)
{
    for (int attempt = 1;; attempt++) {
        PGresult *result = PQexecParams(connection, sql, count, NULL, values, NULL, NULL, 0);
        const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        bool again = state && attempt < ATTEMPTS &&
                     (strcmp(state, "40P01") == 0 || strcmp(state, "55P03") == 0 ||
                      strcmp(state, "40001") == 0);
        if (PQresultStatus(result) == PGRES_TUPLES_OK)
            return result;
        PQclear(result);
        if (!again) {
            fprintf(stderr, "%s: database: %s", name, PQerrorMessage(connection));
            return NULL;
        }
        usleep((useconds_t)attempt * 20000);
    }
}

void cli_database_take_error(PGconn *connection, const PGresult *result, struct store_error *error)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *words = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    snprintf(error->sqlstate, sizeof(error->sqlstate), "%s", state ? state : "");
    snprintf(error->text, sizeof(error->text), "%s", words ? words : PQerrorMessage(connection));
    error->text[strcspn(error->text, "\n")] = '\0';
}

const char *cli_database_write_error(const char *reason, const struct store_error *error,
                                     char words[CLI_ERROR_SIZE])
{
    if (cli_database_is_stopped())
        reason = "stopped";
    if (reason || !error->sqlstate[0])
        snprintf(words, CLI_ERROR_SIZE, "%s", reason ? reason : store_error_words(error));
    else
        snprintf(words, CLI_ERROR_SIZE, "SQLSTATE %s: %s", error->sqlstate,
                 store_error_words(error));
    return words;
}

/* ---- Ctrl-C ---------------------------------------------------------------------------------- */

static PGcancel *running;
static volatile sig_atomic_t is_stopped;

static void stop(int signal_number)
{
    char words[256];
    (void)signal_number;
    is_stopped = 1;
    if (running)
        PQcancel(running, words, sizeof(words)); /* may be called here, says its manual */
}

void cli_database_stop_on_signal(PGconn *connection)
{
    const struct sigaction action = {.sa_handler = stop};
    running = PQgetCancel(connection);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool cli_database_is_stopped(void)
{
    return is_stopped;
}

void cli_database_finish(PGconn *connection)
{
    if (running) {
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        PQfreeCancel(running);
        running = NULL;
    }
    PQfinish(connection);
}
