/* SPDX-License-Identifier: Apache-2.0 */
/* admin/tables.h: one connection, one statement, a deadline on everything, kept for 5 seconds. */
#include "admin/tables.h"

#include "base/clock.h"
#include "log/log.h"
#include "store/store.h"

#include <libpq-fe.h>
#include <pthread.h>
#include <stdlib.h>

enum {
    KEPT_US = 5 * 1000000,
    CONNECT_US = 2 * 1000000,
    STATEMENT_MS =
        1000, /* pg_total_relation_size() takes a lock, so a migration can make it wait */
    QUERY_US = 1500000,
};

static const char sizes_sql[] =
    "/* table_sizes */ SELECT coalesce(json_agg(top), '[]') FROM ("
    "SELECT parent.relname AS name, sum(pg_total_relation_size(part.oid))::bigint AS bytes,"
    "       CASE WHEN bool_or(part.reltuples >= 0)"
    "            THEN sum(greatest(part.reltuples, 0))::bigint END AS rows"
    "  FROM pg_class part"
    "  JOIN pg_class parent ON parent.oid = coalesce(pg_partition_root(part.oid), part.oid)"
    "  JOIN pg_namespace schema ON schema.oid = parent.relnamespace"
    " WHERE part.relkind IN ('r', 'p') AND schema.nspname = $1"
    " GROUP BY parent.oid, parent.relname"
    " ORDER BY bytes DESC, parent.relname LIMIT 5) top";

struct tables {
    const char *schema;
    pthread_mutex_t mutex; /* guards what follows; held while PostgreSQL is asked */
    struct store *store;
    json_t *sizes;   /* NULL = none, or the last attempt failed */
    int64_t read_us; /* when that was, monotonic; 0 = never */
};

struct tables *tables_new(const struct config *config)
{
    struct tables *tables = calloc(1, sizeof(*tables));
    struct store *store = store_new(config, config->database.url, "admin");
    if (!tables || !store) {
        free(tables);
        store_free(store);
        return NULL;
    }
    store_set_patience(store, STATEMENT_MS, NULL);
    tables->store = store;
    tables->schema = config->database.schema;
    pthread_mutex_init(&tables->mutex, NULL);
    return tables;
}

void tables_free(struct tables *tables)
{
    if (!tables)
        return;
    store_free(tables->store);
    json_decref(tables->sizes);
    pthread_mutex_destroy(&tables->mutex);
    free(tables);
}

/* Asks PostgreSQL. A connection that did not answer in time is dropped by the store. */
static json_t *tables_ask(struct tables *tables)
{
    struct store_error error = {.sqlstate = ""};
    PGresult *rows = NULL;
    json_t *sizes = NULL;
    bool is_there = store_check_idle(tables->store) ||
                    store_connect(tables->store, clock_mono_us() + CONNECT_US, &error);
    if (is_there && store_query(tables->store, sizes_sql, 1, &tables->schema,
                                clock_mono_us() + QUERY_US, &rows, &error) == STORE_COMMITTED)
        sizes = json_loads(PQgetvalue(rows, 0, 0), 0, NULL);
    PQclear(rows);
    if (!sizes)
        LOG_RATE_LIMITED(LOG_WARNING, "admin", "table sizes cannot be read",
                         log_text("sqlstate", error.sqlstate),
                         log_text("reason", store_error_words(&error)));
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
