/* SPDX-License-Identifier: Apache-2.0 */
/* The upkeep thread: a list of chores, each with its period. A chore that fails is tried again soon
 * and never holds up the gateway. */
#include "upkeep/upkeep.h"

#include "base/clock.h"
#include "store/store.h"

#include <pthread.h>
#include <stdlib.h>

enum {
    MONTHS_AHEAD = 3,
    MONTHS_EVERY_S = 3600,
    RETRY_S = 2,
    CHORE_S = 30, /* how long a chore may take */
};

struct upkeep {
    const struct config *config;
    struct store *store;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    bool is_stopping; /* under mutex */
};

static enum store_action make_months(struct upkeep *upkeep, int64_t deadline_us,
                                     struct store_error *error)
{
    return store_make_months(upkeep->store, MONTHS_AHEAD, deadline_us, error);
}

struct chore {
    const char *name;
    int64_t every_s;
    enum store_action (*run)(struct upkeep *, int64_t deadline_mono_us, struct store_error *);
};

static const struct chore chores[] = {
    {"make months", MONTHS_EVERY_S, make_months},
};

enum { CHORE_COUNT = sizeof(chores) / sizeof(chores[0]) };

/* Runs what is due; returns when to come again (monotonic µs). */
static int64_t run_due(struct upkeep *upkeep, int64_t *due_us)
{
    struct store_error error;
    int64_t now_us = clock_mono_us(), next_us = INT64_MAX;
    bool was_lost = !store_check_idle(upkeep->store);
    if (was_lost &&
        !store_connect(upkeep->store, now_us + upkeep->config->database.connect_timeout_ms * 1000,
                       &error))
        return clock_mono_us() + RETRY_S * 1000000; /* the lanes say why, once */
    for (int i = 0; i < CHORE_COUNT; i++) {
        if (due_us[i] <= now_us) {
            int64_t deadline_us = clock_mono_us() + CHORE_S * 1000000LL;
            bool is_done = chores[i].run(upkeep, deadline_us, &error) == STORE_COMMITTED;
            if (!is_done)
                LOG_LINE(LOG_WARNING, "upkeep", "a chore failed; it is tried again",
                         log_text("chore", chores[i].name), log_text("sqlstate", error.sqlstate),
                         log_text("reason", store_error_words(&error)));
            due_us[i] = clock_mono_us() + (is_done ? chores[i].every_s : RETRY_S) * 1000000;
        }
        if (due_us[i] < next_us)
            next_us = due_us[i];
    }
    return next_us;
}

static void *run_upkeep(void *argument)
{
    struct upkeep *upkeep = argument;
    int64_t due_us[CHORE_COUNT] = {0};
    pthread_mutex_lock(&upkeep->mutex);
    while (!upkeep->is_stopping) {
        pthread_mutex_unlock(&upkeep->mutex);
        int64_t next_us = run_due(upkeep, due_us);
        struct timespec until = {.tv_sec = next_us / 1000000, .tv_nsec = next_us % 1000000 * 1000};
        pthread_mutex_lock(&upkeep->mutex);
        if (!upkeep->is_stopping)
            pthread_cond_timedwait(&upkeep->wake, &upkeep->mutex, &until);
    }
    pthread_mutex_unlock(&upkeep->mutex);
    return NULL;
}

enum oh_status upkeep_start(const struct config *config, struct upkeep **out, struct oh_error *err)
{
    pthread_condattr_t attributes;
    struct upkeep *upkeep = calloc(1, sizeof(*upkeep));
    if (!upkeep)
        return oh_fail(err, OH_NO_MEMORY, "no memory for upkeep");
    upkeep->config = config;
    upkeep->store = store_new(config, config->database.url, "upkeep");
    pthread_mutex_init(&upkeep->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&upkeep->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    if (!upkeep->store || pthread_create(&upkeep->thread, NULL, run_upkeep, upkeep) != 0) {
        store_free(upkeep->store);
        free(upkeep);
        return oh_fail(err, OH_SYSTEM, "the upkeep thread could not be started");
    }
    *out = upkeep;
    return OH_OK;
}

void upkeep_stop(struct upkeep *upkeep)
{
    if (!upkeep)
        return;
    pthread_mutex_lock(&upkeep->mutex);
    upkeep->is_stopping = true;
    pthread_cond_signal(&upkeep->wake);
    pthread_mutex_unlock(&upkeep->mutex);
    pthread_join(upkeep->thread, NULL);
    store_free(upkeep->store);
    pthread_cond_destroy(&upkeep->wake);
    pthread_mutex_destroy(&upkeep->mutex);
    free(upkeep);
}
