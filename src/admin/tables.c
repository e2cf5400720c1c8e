/* SPDX-License-Identifier: Apache-2.0 */
/* admin/tables.h: one connection, one statement, a deadline on everything, kept for 5 seconds. */
#include "admin/tables.h"

#include "base/clock.h"
#include "log/log.h"

#include <libpq-fe.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEPT_US = 5 * 1000000,
    QUERY_DEADLINE_US = 1500000, /* beyond the server's own statement_timeout */
};

/* pg_total_relation_size() takes a lock on the table, so a migration can make it wait. */
static const char session_options[] =
    "-c statement_timeout=1000 -c lock_timeout=500 -c default_transaction_read_only=on";

static const char sizes_sql[] =
    "SELECT parent.relname, sum(pg_total_relation_size(part.oid))::bigint AS bytes,"
    "       CASE WHEN bool_or(part.reltuples >= 0)"
    "            THEN sum(greatest(part.reltuples, 0))::bigint END AS rows"
    "  FROM pg_class part"
    "  JOIN pg_class parent ON parent.oid = coalesce(pg_partition_root(part.oid), part.oid)"
    "  JOIN pg_namespace schema ON schema.oid = parent.relnamespace"
    " WHERE part.relkind IN ('r', 'p') AND schema.nspname = $1"
    " GROUP BY parent.oid, parent.relname"
    " ORDER BY bytes DESC, parent.relname LIMIT 5";

struct tables {
    const char *url, *schema;
    pthread_mutex_t mutex; /* guards what follows; held while PostgreSQL is asked */
    PGconn *connection;    /* NULL = none */
    json_t *sizes;         /* NULL = none, or the last attempt failed */
    int64_t read_us;       /* when that was, monotonic; 0 = never */
};

struct tables *tables_new(const char *url, const char *schema)
{
    struct tables *tables = calloc(1, sizeof(*tables));
    if (!tables)
        return NULL;
    tables->url = url;
    tables->schema = schema;
    pthread_mutex_init(&tables->mutex, NULL);
    return tables;
}

void tables_free(struct tables *tables)
{
    if (!tables)
        return;
    PQfinish(tables->connection);
    json_decref(tables->sizes);
    pthread_mutex_destroy(&tables->mutex);
    free(tables);
}

static void drop_notice(void *context, const PGresult *notice)
{
    (void)context;
    (void)notice; /* libpq would print it to stderr, between our JSON lines */
}

static bool tables_connect(struct tables *tables)
{
    /* Reading shows a server that has gone away meanwhile. */
    if (tables->connection && PQconsumeInput(tables->connection) &&
        PQstatus(tables->connection) == CONNECTION_OK)
        return true;
    PQfinish(tables->connection);
    /* Later keywords win over the URI's. 2 s is the least that libpq's connect_timeout knows. */
    const char *const keywords[] = {"dbname", "application_name", "connect_timeout", "options",
                                    NULL};
    const char *const values[] = {tables->url, "oncehook admin", "2", session_options, NULL};
    tables->connection = PQconnectdbParams(keywords, values, 1);
    if (PQstatus(tables->connection) != CONNECTION_OK)
        return false;
    PQsetNoticeReceiver(tables->connection, drop_notice, NULL);
    return true;
}

/* The next result, or NULL when there is none by the deadline (or no connection any more). */
static PGresult *next_result(PGconn *connection, int64_t deadline_us)
{
    while (PQisBusy(connection)) {
        int64_t left_us = deadline_us - clock_mono_us();
        struct pollfd fd = {.fd = PQsocket(connection), .events = POLLIN};
        if (left_us <= 0 || poll(&fd, 1, (int)(left_us / 1000) + 1) < 0 ||
            !PQconsumeInput(connection))
            return NULL;
    }
    return PQgetResult(connection);
}

static json_t *rows_to_json(const PGresult *rows)
{
    json_t *sizes = json_array();
    for (int i = 0; i < PQntuples(rows); i++) {
        json_t *count = PQgetisnull(rows, i, 2)
                            ? json_null()
                            : json_integer(strtoll(PQgetvalue(rows, i, 2), NULL, 10));
        json_array_append_new(
            sizes, json_pack("{s:s, s:I, s:o}", "name", PQgetvalue(rows, i, 0), "bytes",
                             (json_int_t)strtoll(PQgetvalue(rows, i, 1), NULL, 10), "rows", count));
    }
    return sizes;
}

/* Asks PostgreSQL. A connection that did not answer in time is dropped: its state is unknown. */
static json_t *tables_ask(struct tables *tables)
{
    json_t *sizes = NULL;
    PGresult *rows = NULL;
    int64_t deadline_us = 0;
    if (!tables_connect(tables))
        goto out;
    deadline_us = clock_mono_us() + QUERY_DEADLINE_US;
    if (PQsendQueryParams(tables->connection, sizes_sql, 1, NULL, &tables->schema, NULL, NULL, 0))
        rows = next_result(tables->connection, deadline_us);
    if (PQresultStatus(rows) == PGRES_TUPLES_OK)
        sizes = rows_to_json(rows);
out:
    if (!sizes)
        LOG_RATE_LIMITED(LOG_WARNING, "admin", "table sizes cannot be read",
                         log_text("reason", rows ? PQresultErrorField(rows, PG_DIAG_SQLSTATE)
                                                 : "no answer from the database"));
    PQclear(rows);
    while (rows && (rows = next_result(tables->connection, deadline_us)))
        PQclear(rows);
    if (PQtransactionStatus(tables->connection) != PQTRANS_IDLE) {
        PQfinish(tables->connection);
        tables->connection = NULL;
    }
    return sizes;
}

json_t *tables_read(struct tables *tables)
{
    pthread_mutex_lock(&tables->mutex);
    if (tables->read_us == 0 || clock_mono_us() - tables->read_us > KEPT_US) {
        json_decref(tables->sizes);
        tables->sizes = tables_ask(tables);
        tables->read_us = clock_mono_us();
    }
    json_t *sizes = json_deep_copy(tables->sizes); /* reference counts are not shared by threads */
    pthread_mutex_unlock(&tables->mutex);
    return sizes;
}
