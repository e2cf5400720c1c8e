/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper's thread: look for a link that is not up, try it, pause when that failed. */
#include "lane/keeper.h"

#include "base/clock.h"
#include "base/thread.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAUSE_CAP_MS = 250 };

struct keeper {
    const struct config *config;
    struct link *first;
    size_t stride;
    uint32_t count;
    keeper_on_connected *on_connected;
    void *context;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards the next two */
    pthread_cond_t wake;
    bool has_work, is_stopping;
};

static struct link *link_at(const struct keeper *keeper, uint32_t number)
{
    return (struct link *)(void *)((char *)keeper->first + number * keeper->stride);
}

/* With the link's mutex held. True if the reason is a new one. */
static bool set_state(struct link *link, enum link_state state, const struct store_error *error)
{
    const char *why = error ? store_error_words(error) : "";
    bool is_new = strncmp(link->problem, why, sizeof(link->problem) - 1) != 0;
    snprintf(link->problem, sizeof(link->problem), "%s", why);
    link->part = error ? store_error_part(error) : NULL;
    atomic_store(&link->state, state);
    pthread_cond_signal(link->changed);
    return is_new;
}

void keeper_take(struct keeper *keeper, struct link *link, enum link_state state,
                 const struct store_error *why, int64_t pause_ms)
{
    pthread_mutex_lock(link->mutex);
    link->not_before_mono_us = clock_mono_us() + pause_ms * 1000;
    set_state(link, state, why);
    pthread_mutex_unlock(link->mutex);
    pthread_mutex_lock(&keeper->mutex);
    keeper->has_work = true;
    pthread_cond_signal(&keeper->wake);
    pthread_mutex_unlock(&keeper->mutex);
}

/* What failed for the probe fails for all that have just been lost: they need not find out one by
 * one. */
static void note_failure(struct keeper *keeper, uint32_t number, const struct store_error *error)
{
    bool is_new = false;
    for (uint32_t i = 0; i < keeper->count; i++) {
        struct link *link = link_at(keeper, i);
        pthread_mutex_lock(link->mutex);
        if (i == number || atomic_load(&link->state) == LINK_LOST)
            is_new |= set_state(link, LINK_DOWN, error);
        pthread_mutex_unlock(link->mutex);
    }
    if (is_new)
        LOG_RATE_LIMITED(LOG_ERROR, "lane", "cannot use PostgreSQL", log_int("lane", number),
                         log_text("sqlstate", error->sqlstate),
                         log_text("reason", store_error_words(error)));
}

static bool try_link(struct keeper *keeper, uint32_t number)
{
    struct link *link = link_at(keeper, number);
    struct store_error error;
    int64_t deadline_us = clock_mono_us() + keeper->config->database.connect_timeout_ms * 1000;
    if (!store_connect(link->store, deadline_us, &error) ||
        store_make_months(link->store, 0, deadline_us, &error) != STORE_COMMITTED) {
        store_disconnect(link->store);
        note_failure(keeper, number, &error);
        return false;
    }
    keeper->on_connected(keeper->context);
    LOG_LINE(LOG_INFO, "lane", "connected to PostgreSQL", log_int("lane", number));
    pthread_mutex_lock(link->mutex);
    set_state(link, LINK_UP, NULL);
    pthread_mutex_unlock(link->mutex);
    return true;
}

/* Tries every link whose time has come, up to the first failure (*failed). Returns when to come
 * again (monotonic µs); INT64_MAX when all are up. */
static int64_t try_links(struct keeper *keeper, unsigned *seed, bool *failed)
{
    int64_t next_us = INT64_MAX;
    *failed = false;
    for (uint32_t i = 0; i < keeper->count; i++) {
        struct link *link = link_at(keeper, i);
        pthread_mutex_lock(link->mutex);
        bool is_up = atomic_load(&link->state) == LINK_UP;
        int64_t not_before_us = link->not_before_mono_us;
        pthread_mutex_unlock(link->mutex);
        if (is_up)
            continue;
        if (not_before_us > clock_mono_us())
            next_us = not_before_us < next_us ? not_before_us : next_us;
        else if ((*failed = !try_link(keeper, i)))
            return clock_mono_us() + (rand_r(seed) % PAUSE_CAP_MS + 1) * 1000;
    }
    return next_us;
}

static void *run_keeper(void *argument)
{
    struct keeper *keeper = argument;
    thread_set_name("keeper", THREAD_NO_NUMBER);
    unsigned seed = (unsigned)clock_wall_us();
    pthread_mutex_lock(&keeper->mutex);
    while (!keeper->is_stopping) {
        keeper->has_work = false;
        pthread_mutex_unlock(&keeper->mutex);
        bool failed; /* then the pause holds, whoever else is lost meanwhile */
        int64_t next_us = try_links(keeper, &seed, &failed);
        struct timespec until = {.tv_sec = next_us / 1000000, .tv_nsec = next_us % 1000000 * 1000};
        pthread_mutex_lock(&keeper->mutex);
        while (!keeper->is_stopping && (failed || !keeper->has_work) && clock_mono_us() < next_us) {
            if (next_us == INT64_MAX)
                pthread_cond_wait(&keeper->wake, &keeper->mutex);
            else
                pthread_cond_timedwait(&keeper->wake, &keeper->mutex, &until);
        }
    }
    pthread_mutex_unlock(&keeper->mutex);
    return NULL;
}

struct keeper *keeper_start(const struct config *config, struct link *first, size_t stride,
                            uint32_t count, keeper_on_connected *on_connected, void *context)
{
    struct keeper *keeper = calloc(1, sizeof(*keeper));
    if (!keeper)
        return NULL;
    keeper->config = config;
    keeper->first = first;
    keeper->stride = stride;
    keeper->count = count;
    keeper->on_connected = on_connected;
    keeper->context = context;
    pthread_mutex_init(&keeper->mutex, NULL);
    thread_cond_init(&keeper->wake);
    if (pthread_create(&keeper->thread, NULL, run_keeper, keeper) == 0)
        return keeper;
    free(keeper);
    return NULL;
}

void keeper_stop(struct keeper *keeper)
{
    if (!keeper)
        return;
    pthread_mutex_lock(&keeper->mutex);
    keeper->is_stopping = true;
    pthread_cond_signal(&keeper->wake);
    pthread_mutex_unlock(&keeper->mutex);
    pthread_join(keeper->thread, NULL);
    pthread_cond_destroy(&keeper->wake);
    pthread_mutex_destroy(&keeper->mutex);
    free(keeper);
}
