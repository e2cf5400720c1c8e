/* SPDX-License-Identifier: Apache-2.0 */
/* admin/api.h: the connections, one statement, its row as an answer, and the long poll. */
#include "admin/api.h"

#include "base/clock.h"
#include "base/embedded.h"
#include "base/thread.h"
#include "log/log.h"
#include "store/store.h"

#include <libpq-fe.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>

enum {
    STORES_MAX = 2,
    IN_FLIGHT_MAX = 128, /* half of the listener's connections: the others are for probes */
    LONG_POLLS_MAX = 16,
    TURN_US = 5 * 1000000, /* how long a request waits for a connection */
    POLL_FIRST_MS = 20,    /* a long poll asks again after this, then ever later */
    POLL_LAST_MS = 250,
    ATTEMPTS = 3,
    RETRY_MS = 20,
    HORIZON_BYTES = 24,
};
#define QUERY_CANCELED "57014"
#define INVALID_VALUE  "22023"

/* One reader takes one core at most, and none for compiling a plan: capture comes first. */
static const char session_of_readers[] =
    "/* session_of_reads */ SELECT set_config('TimeZone', 'UTC', false),"
    " set_config('default_transaction_read_only', 'on', false),"
    " set_config('max_parallel_workers_per_gather', '0', false), set_config('jit', 'off', false)";
static const char session_of_writers[] =
    "/* session_of_writes */ SELECT set_config('TimeZone', 'UTC', false)";

/* Connections of one kind. */
struct pool {
    const char *session; /* what a new connection is set to */
    size_t count;
    struct store *all[STORES_MAX];
    struct store *idle[STORES_MAX];
    size_t idle_count;
};

struct api {
    const struct config *config;
    pthread_mutex_t mutex; /* guards the pools and the counts */
    pthread_cond_t wake;   /* a store is idle again, or the end */
    struct pool readers, writers;
    int in_flight, polling;
    atomic_bool stop;
};

/* ---- life -------------------------------------------------------------------------------------
 */

static bool pool_init(struct pool *pool, struct api *api, const char *name, size_t count,
                      const char *session)
{
    pool->session = session;
    for (size_t i = 0; i < count; i++) {
        struct store *store = store_new(api->config, api->config->database.url, name);
        if (!store)
            return false;
        store_set_patience(store, api->config->database.statement_timeout_ms, &api->stop);
        pool->all[pool->count++] = pool->idle[pool->idle_count++] = store;
    }
    return true;
}

struct api *api_new(const struct config *config)
{
    struct api *api = calloc(1, sizeof(*api));
    if (!api)
        return NULL;
    api->config = config;
    pthread_mutex_init(&api->mutex, NULL);
    thread_cond_init(&api->wake);
    if (pool_init(&api->readers, api, "read", STORES_MAX, session_of_readers) &&
        pool_init(&api->writers, api, "write", 1, session_of_writers))
        return api;
    api_free(api);
    return NULL;
}

void api_stop(struct api *api)
{
    pthread_mutex_lock(&api->mutex);
    atomic_store(&api->stop, true);
    pthread_cond_broadcast(&api->wake);
    pthread_mutex_unlock(&api->mutex);
}

void api_free(struct api *api)
{
    if (!api)
        return;
    for (size_t i = 0; i < STORES_MAX; i++) {
        store_free(api->readers.all[i]);
        store_free(api->writers.all[i]);
    }
    pthread_mutex_destroy(&api->mutex);
    pthread_cond_destroy(&api->wake);
    free(api);
}

/* ---- a connection's turn ----------------------------------------------------------------------
 */

static struct timespec timespec_of(int64_t us)
{
    return (struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
}

/* NULL: none was free in time, or it is the end. */
static struct store *take_store(struct api *api, struct pool *pool)
{
    struct timespec until = timespec_of(clock_mono_us() + TURN_US);
    struct store *store = NULL;
    int late = 0;
    pthread_mutex_lock(&api->mutex);
    while (pool->idle_count == 0 && late == 0 && !atomic_load(&api->stop))
        late = pthread_cond_timedwait(&api->wake, &api->mutex, &until);
    if (pool->idle_count > 0 && !atomic_load(&api->stop))
        store = pool->idle[--pool->idle_count];
    pthread_mutex_unlock(&api->mutex);
    return store;
}

static void give_back(struct api *api, struct pool *pool, struct store *store)
{
    pthread_mutex_lock(&api->mutex);
    pool->idle[pool->idle_count++] = store;
    pthread_cond_broadcast(&api->wake);
    pthread_mutex_unlock(&api->mutex);
}

/* Waits without a connection; false: it is the end. */
static bool wait_ms(struct api *api, int64_t ms)
{
    struct timespec until = timespec_of(clock_mono_us() + ms * 1000);
    int late = 0;
    pthread_mutex_lock(&api->mutex);
    while (late == 0 && !atomic_load(&api->stop))
        late = pthread_cond_timedwait(&api->wake, &api->mutex, &until);
    pthread_mutex_unlock(&api->mutex);
    return !atomic_load(&api->stop);
}

/* ---- one statement ----------------------------------------------------------------------------
 */

static struct reply reply_busy(const char *words)
{
    struct reply reply = reply_problem(503, NULL, "%s", words);
    reply.retry_after_s = 1;
    return reply;
}

static bool ensure_connected(struct api *api, const struct pool *pool, struct store *store,
                             struct store_error *error)
{
    int64_t deadline_us = clock_mono_us() + api->config->database.connect_timeout_ms * 1000;
    return store_check_idle(store) || (store_connect(store, deadline_us, error) &&
                                       store_query(store, pool->session, 0, NULL, deadline_us, NULL,
                                                   error) == STORE_COMMITTED);
}

/* A lost connection is tried again where nothing was written; what PostgreSQL asks to try again
 * (a deadlock, a lock's timeout) always is, since nothing of it happened. */
static enum store_action run(struct api *api, struct pool *pool, struct store *store,
                             const struct route_call *call, PGresult **rows,
                             struct store_error *error)
{
    const char *sql = embedded_find(embedded_sql, call->route->sql);
    enum store_action action = STORE_RECONNECT;
    for (int attempt = 1; attempt <= ATTEMPTS; attempt++) {
        bool was_sent = false;
        if (ensure_connected(api, pool, store, error)) {
            was_sent = true;
            action =
                store_query(store, sql, call->value_count, call->values, INT64_MAX, rows, error);
        }
        bool again = (action == STORE_RETRY && strcmp(error->sqlstate, QUERY_CANCELED) != 0) ||
                     (action == STORE_RECONNECT && was_sent && pool == &api->readers);
        if (!again || !wait_ms(api, RETRY_MS * attempt))
            return action;
    }
    return action;
}

static struct reply reply_error(const struct route_call *call, enum store_action action,
                                const struct store_error *error)
{
    for (const struct route_param *param = call->route->params; param->name; param++)
        if (param->type == ROUTE_ZONE && strcmp(error->sqlstate, INVALID_VALUE) == 0)
            return reply_problem(400, param->name, "%s must be the name of a time zone.",
                                 param->name);
    if (strncmp(error->sqlstate, "22", 2) == 0)
        return reply_problem(400, NULL,
                             "A parameter or the body holds what PostgreSQL cannot take.");
    LOG_RATE_LIMITED(LOG_WARNING, "admin", "a request below /v1 failed",
                     log_text("path", call->route->path), log_text("sqlstate", error->sqlstate),
                     log_text("reason", store_error_words(error)));
    if (strcmp(error->sqlstate, QUERY_CANCELED) == 0)
        return reply_busy("It took longer than database.statement_timeout. Ask for less.");
    if (action == STORE_RECONNECT && (call->route->flags & ROUTE_WRITES))
        return reply_busy("The connection to PostgreSQL was lost; it may have happened or not.");
    return reply_busy("PostgreSQL cannot answer this now; the log says why.");
}

/* The statement's row; see admin/route.h. */
static struct reply reply_row(const struct route_call *call, const PGresult *rows)
{
    unsigned status = (unsigned)strtoul(PQgetvalue(rows, 0, 0), NULL, 10);
    const char *body = PQgetvalue(rows, 0, 1);
    if (status >= 400)
        return body[0] == '{' ? reply_problem_members(status, body)
                              : reply_problem(status, NULL, "%s", body);
    struct reply reply = {.status = status, .content_type = "application/json"};
    if (call->route->flags & ROUTE_LINES)
        reply.content_type = "application/x-ndjson";
    reply.len = (size_t)PQgetlength(rows, 0, 1);
    reply.body = malloc(reply.len + 1);
    if (reply.body)
        memcpy(reply.body, body, reply.len + 1);
    if (call->route->flags & ROUTE_WAITS)
        snprintf(reply.cursor, sizeof(reply.cursor), "%s", PQgetvalue(rows, 0, 2));
    return reply;
}

static struct reply ask(struct api *api, const struct route_call *call)
{
    struct pool *pool = call->route->flags & ROUTE_WRITES ? &api->writers : &api->readers;
    struct store_error error = {.sqlstate = ""};
    PGresult *rows = NULL;
    struct reply reply;
    struct store *store = take_store(api, pool);
    if (!store)
        return reply_busy("Too many requests are waiting for PostgreSQL.");
    enum store_action action = run(api, pool, store, call, &rows, &error);
    give_back(api, pool, store);
    if (action != STORE_COMMITTED)
        return reply_error(call, action, &error);
    reply = PQntuples(rows) == 1 ? reply_row(call, rows)
                                 : reply_problem(404, NULL, "There is nothing at this path.");
    PQclear(rows);
    return reply;
}

/* ---- the long poll ----------------------------------------------------------------------------
 */

static bool is_gone(int fd)
{
    char byte;
    return fd >= 0 && recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* Adds `by` to a count unless it would pass `max`. */
static bool count_in(struct api *api, int *count, int max)
{
    pthread_mutex_lock(&api->mutex);
    bool fits = *count < max;
    *count += fits;
    pthread_mutex_unlock(&api->mutex);
    return fits;
}

static void count_out(struct api *api, int *count)
{
    pthread_mutex_lock(&api->mutex);
    (*count)--;
    pthread_mutex_unlock(&api->mutex);
}

/* The oldest transaction that has not ended: while it is the same one, the feed has nothing new,
 * and the statement that tells costs a fraction of a page. False: it cannot be had, or is as
 * before. */
static bool has_moved(struct api *api, char horizon[HORIZON_BYTES])
{
    struct store_error error;
    PGresult *row = NULL;
    bool moved = false;
    struct store *store = take_store(api, &api->readers);
    if (!store)
        return false;
    if (ensure_connected(api, &api->readers, store, &error) &&
        store_query(store, "/* feed_horizon */ SELECT pg_snapshot_xmin(pg_current_snapshot())", 0,
                    NULL, INT64_MAX, &row, &error) == STORE_COMMITTED) {
        moved = strcmp(horizon, PQgetvalue(row, 0, 0)) != 0;
        snprintf(horizon, HORIZON_BYTES, "%s", PQgetvalue(row, 0, 0));
    }
    PQclear(row);
    give_back(api, &api->readers, store);
    return moved;
}

/* Asks until there is something. The first answer's cursor is the position from then on: "now" is
 * when the client asked. */
static struct reply ask_and_wait(struct api *api, struct route_call *call, int fd)
{
    int64_t end_us = clock_mono_us() + call->wait_s * 1000000, pause_ms = POLL_FIRST_MS;
    char horizon[HORIZON_BYTES] = "";
    struct reply reply = ask(api, call);
    if (reply.status != 204 || call->wait_s == 0)
        return reply;
    if (!count_in(api, &api->polling, LONG_POLLS_MAX)) {
        free(reply.body);
        return reply_busy("Too many clients wait for events.");
    }
    while (reply.status == 204 && clock_mono_us() < end_us && !is_gone(fd) &&
           wait_ms(api, pause_ms)) {
        pause_ms = pause_ms * 2 < POLL_LAST_MS ? pause_ms * 2 : POLL_LAST_MS;
        if (!has_moved(api, horizon))
            continue;
        snprintf(call->texts[0], sizeof(call->texts[0]), "%s", reply.cursor);
        call->values[0] = call->texts[0];
        free(reply.body);
        reply = ask(api, call);
    }
    count_out(api, &api->polling);
    return reply;
}

struct reply api_answer(struct api *api, const struct route_request *request)
{
    struct route_call call;
    struct reply reply;
    if (!route_read(request, &call, &reply))
        return reply;
    if (!count_in(api, &api->in_flight, IN_FLIGHT_MAX))
        return reply_busy("Too many requests are under way.");
    reply =
        call.route->flags & ROUTE_WAITS ? ask_and_wait(api, &call, request->fd) : ask(api, &call);
    count_out(api, &api->in_flight);
    return reply;
}
