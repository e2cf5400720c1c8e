/* SPDX-License-Identifier: Apache-2.0 */
/* Which database a command works on: --database URL, or -c FILE. */
#ifndef CLI_DATABASE_H
#define CLI_DATABASE_H

#include "config/config.h"
#include "store/store.h"

#include <libpq-fe.h>

/* What argp read; every member may be NULL. */
struct cli_database_options {
    const char *url;    /* --database */
    const char *config; /* -c FILE */
    const char *schema; /* --schema; default: the configured one, else public */
};

/* The rows of a command's table (cli/cli.h) that fill them. `whose`: "owner" or "gateway". */
#define CLI_DATABASE_OPTIONS(into, whose, takes, what_schema)                        \
    {"config", 'c', .argument = "FILE", .value = &(into).config,                     \
     .words = "Take " takes " from FILE"},                                           \
        {"database", .argument = "URL", .value = &(into).url,                        \
         .words = "The " whose "'s login, a libpq URI or conninfo"},                 \
    {                                                                                \
        "schema", .argument = "NAME", .value = &(into).schema,                       \
                  .words = what_schema " (default: the configured one, else public)" \
    }

struct cli_database {
    const char *url, *schema;
    struct config *config; /* what they may point into; NULL without -c */
};

/* Finds URL and schema; `owner`: database.owner_url of the configuration, else database.url. Says
 * on stderr what is missing or wrong and returns false (exit code 2). True: the caller ends with
 * cli_database_release(). */
bool cli_database_find(const struct cli_database_options *options, bool owner,
                       struct cli_database *out) OH_MUST_CHECK;
void cli_database_release(struct cli_database *database);

/* A connection whose statements see the schema alone. NULL: stderr says why (exit code 2). The
 * caller ends it with PQfinish(). `name` goes to application_name. */
PGconn *cli_database_connect(const struct cli_database *database, const char *name) OH_MUST_CHECK;

/* One transaction that answers rows, the caller's. A victim of other SQL (deadlock, lock_timeout,
 * serialization) has done nothing and is tried again. NULL: stderr says why, after `name`. */
PGresult *cli_database_ask(PGconn *connection, const char *name, const char *sql, int count,
                           const char *const *values) OH_MUST_CHECK;

enum { CLI_ERROR_SIZE = 384 };

/* Keeps what the server said of `result`, or libpq of the connection where it is NULL. */
void cli_database_take_error(PGconn *connection, const PGresult *result, struct store_error *error);
/* For the row of a workflow that did not end: "stopped", or the reason (may be NULL), or the error
 * in one line, its SQLSTATE first; words of the server that may quote a row are left out, as in a
 * log. Returns `words`. */
const char *cli_database_write_error(const char *reason, const struct store_error *error,
                                     char words[CLI_ERROR_SIZE]);

/* SIGINT and SIGTERM cancel what this connection runs from now on; one connection at a time. */
void cli_database_stop_on_signal(PGconn *connection);
/* True once one of them came. */
bool cli_database_is_stopped(void);
/* Ends the connection (may be NULL), and what cli_database_stop_on_signal() set up. */
void cli_database_finish(PGconn *connection);

#endif
