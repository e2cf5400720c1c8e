/* SPDX-License-Identifier: Apache-2.0 */
/* The upkeep threads: a list of chores, each with its period and its thread. A chore that fails is
 * tried again soon and never holds up the gateway. */
#include "upkeep/upkeep.h"

#include "base/clock.h"
#include "base/thread.h"
#include "upkeep/chores.h"

#include <libpq-fe.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

enum {
    MONTHS_AHEAD = 3,
    RETRY_S = 2,
    CHORE_S = 30,       /* how long a chore may take */
    WINDOW_S = 60,      /* how long a statement of the audit window may */
    RETENTION_S = 3600, /* how long a statement of retention may: it sums up a whole month */
    WINDOW_SHARE = 20,  /* it takes one part of so many of the time */
};

enum { URGENT, SLOW, RARE, WORKER_COUNT };

struct worker {
    struct upkeep *upkeep;
    struct store *store;
    pthread_t thread;
};

struct upkeep {
    const struct config *config;
    struct metrics_shard *shard;
    struct worker workers[WORKER_COUNT];
    struct sweep sweep;   /* of URGENT */
    struct window window; /* of SLOW */
    struct watch watch;   /* of SLOW */
    _Atomic int64_t counter_drift;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    atomic_bool is_stopping; /* changes under mutex */
};

static enum store_action make_months(struct upkeep *upkeep, struct store *store,
                                     int64_t deadline_us, struct store_error *error)
{
    (void)upkeep;
    PGresult *rows = NULL;
    struct store_error of_look;
    enum store_action action = store_make_months(store, MONTHS_AHEAD, deadline_us, error);
    /* Also where making failed: then one of these may stand in its way. */
    if (store_query(store, "/* detached_months */ SELECT name, mend FROM detached_months()", 0,
                    NULL, deadline_us, &rows, &of_look) != STORE_COMMITTED &&
        action == STORE_COMMITTED) {
        action = STORE_RETRY;
        *error = of_look;
    }
    for (int i = 0; i < PQntuples(rows); i++)
        LOG_LINE(LOG_WARNING, "upkeep", "a month is detached",
                 log_text("month", PQgetvalue(rows, i, 0)),
                 log_text("mend", PQgetvalue(rows, i, 1)));
    PQclear(rows);
    return action;
}

static enum store_action bind_orphans(struct upkeep *upkeep, struct store *store,
                                      int64_t deadline_us, struct store_error *error)
{
    return sweep_run(&upkeep->sweep, store, upkeep->shard, deadline_us, error);
}

static enum store_action measure_drift(struct upkeep *upkeep, struct store *store,
                                       int64_t deadline_us, struct store_error *error)
{
    int64_t drifts = atomic_load(&upkeep->counter_drift);
    (void)deadline_us;
    enum store_action action = window_run(&upkeep->window, store, INT64_MAX, &drifts, error);
    atomic_store(&upkeep->counter_drift, drifts);
    return action;
}

static enum store_action watch_database(struct upkeep *upkeep, struct store *store,
                                        int64_t deadline_us, struct store_error *error)
{
    return watch_run(&upkeep->watch, store, deadline_us, error);
}

static enum store_action let_go(struct upkeep *upkeep, struct store *store, int64_t deadline_us,
                                struct store_error *error)
{
    (void)deadline_us;
    return retention_run(upkeep->config, store, error);
}

static const struct chore {
    const char *name;
    int worker;
    int64_t every_s; /* after its end */
    int64_t share;   /* and at least so many times as long as it took */
    enum store_action (*run)(struct upkeep *, struct store *, int64_t deadline_mono_us,
                             struct store_error *);
} chores[] = {
    {"make months", URGENT, 3600, 0, make_months},
    {"bind orphans", URGENT, 2, 0, bind_orphans},
    {"audit window", SLOW, 5, WINDOW_SHARE - 1, measure_drift},
    {"watch", SLOW, 30, WINDOW_SHARE - 1, watch_database},
    {"retention", RARE, 3600, 0, let_go}, /* it looks itself whether a day has passed */
};

enum { CHORE_COUNT = sizeof(chores) / sizeof(chores[0]) };

/* Runs a chore; returns when it is due again (monotonic µs). */
static int64_t run_chore(struct worker *worker, const struct chore *chore)
{
    struct upkeep *upkeep = worker->upkeep;
    struct store_error error = {0};
    int64_t start_us = clock_mono_us(), every_us = chore->every_s * 1000000;
    if (chore->run(upkeep, worker->store, start_us + CHORE_S * 1000000LL, &error) ==
        STORE_COMMITTED) {
        int64_t share_us = (clock_mono_us() - start_us) * chore->share;
        return clock_mono_us() + (share_us > every_us ? share_us : every_us);
    }
    if (!atomic_load(&upkeep->is_stopping))
        LOG_LINE(LOG_WARNING, "upkeep", "a chore failed; it is tried again",
                 log_text("chore", chore->name), log_text("sqlstate", error.sqlstate),
                 log_text("reason", store_error_words(&error)));
    return clock_mono_us() + RETRY_S * 1000000;
}

/* Runs what is due; returns when to come again (monotonic µs). */
static int64_t run_due(struct worker *worker, int64_t *due_us)
{
    struct upkeep *upkeep = worker->upkeep;
    int64_t now_us = clock_mono_us(), next_us = INT64_MAX;
    if (!store_check_idle(worker->store)) {
        struct store_error error;
        int64_t connect_us = upkeep->config->database.connect_timeout_ms * 1000;
        if (worker == &upkeep->workers[URGENT])
            sweep_forget(&upkeep->sweep);
        else if (worker == &upkeep->workers[SLOW])
            watch_forget(&upkeep->watch);
        if (!store_connect(worker->store, now_us + connect_us, &error))
            return clock_mono_us() + RETRY_S * 1000000; /* the lanes say why, once */
    }
    for (int i = 0; i < CHORE_COUNT; i++) {
        if (worker != &upkeep->workers[chores[i].worker])
            continue;
        if (due_us[i] <= now_us)
            due_us[i] = run_chore(worker, &chores[i]);
        if (due_us[i] < next_us)
            next_us = due_us[i];
    }
    return next_us;
}

static void *run_worker(void *argument)
{
    struct worker *worker = argument;
    struct upkeep *upkeep = worker->upkeep;
    thread_set_name("upkeep", worker - upkeep->workers);
    int64_t due_us[CHORE_COUNT] = {0};
    pthread_mutex_lock(&upkeep->mutex);
    while (!atomic_load(&upkeep->is_stopping)) {
        pthread_mutex_unlock(&upkeep->mutex);
        int64_t next_us = run_due(worker, due_us);
        struct timespec until = {.tv_sec = next_us / 1000000, .tv_nsec = next_us % 1000000 * 1000};
        pthread_mutex_lock(&upkeep->mutex);
        if (!atomic_load(&upkeep->is_stopping))
            pthread_cond_timedwait(&upkeep->wake, &upkeep->mutex, &until);
    }
    pthread_mutex_unlock(&upkeep->mutex);
    return NULL;
}

static bool start_worker(struct upkeep *upkeep, int number, const char *name, int64_t statement_ms)
{
    struct worker *worker = &upkeep->workers[number];
    worker->upkeep = upkeep;
    worker->store = store_new(upkeep->config, upkeep->config->database.url, name);
    if (!worker->store)
        return false;
    store_set_patience(worker->store, statement_ms, &upkeep->is_stopping);
    if (pthread_create(&worker->thread, NULL, run_worker, worker) == 0)
        return true;
    store_free(worker->store);
    worker->store = NULL;
    return false;
}

enum oh_status upkeep_start(const struct config *config, struct metrics_shard *shard,
                            struct upkeep **out, struct oh_error *err)
{
    struct upkeep *upkeep = calloc(1, sizeof(*upkeep));
    if (!upkeep)
        return oh_fail(err, OH_NO_MEMORY, "no memory for upkeep");
    upkeep->config = config;
    upkeep->shard = shard;
    upkeep->counter_drift = -1;
    watch_forget(&upkeep->watch);
    pthread_mutex_init(&upkeep->mutex, NULL);
    thread_cond_init(&upkeep->wake);
    if (!start_worker(upkeep, URGENT, "upkeep", config->database.statement_timeout_ms) ||
        !start_worker(upkeep, SLOW, "audit window", WINDOW_S * 1000) ||
        (config->retention.by == CONFIG_RETENTION_BY_GATEWAY &&
         !start_worker(upkeep, RARE, "retention", RETENTION_S * 1000))) {
        upkeep_stop(upkeep);
        return oh_fail(err, OH_SYSTEM, "the upkeep threads could not be started");
    }
    *out = upkeep;
    return OH_OK;
}

void upkeep_stop(struct upkeep *upkeep)
{
    if (!upkeep)
        return;
    pthread_mutex_lock(&upkeep->mutex);
    atomic_store(&upkeep->is_stopping, true);
    pthread_cond_broadcast(&upkeep->wake);
    pthread_mutex_unlock(&upkeep->mutex);
    for (int i = 0; i < WORKER_COUNT; i++)
        if (upkeep->workers[i].store) {
            pthread_join(upkeep->workers[i].thread, NULL);
            store_free(upkeep->workers[i].store);
        }
    sweep_forget(&upkeep->sweep);
    pthread_cond_destroy(&upkeep->wake);
    pthread_mutex_destroy(&upkeep->mutex);
    free(upkeep);
}

void upkeep_fill_gauges(const struct upkeep *upkeep, struct metrics_gauges *gauges)
{
    int64_t drift = atomic_load(&upkeep->counter_drift);
    gauges->counter_drift = drift < 0 ? NAN : (double)drift;
    watch_fill(&upkeep->watch, gauges);
}
