/* SPDX-License-Identifier: Apache-2.0 */
/* One turn of the drain: take what came back -> finish what is done -> read on while the window has
 * room -> feed the lanes. */
#include "lane/drain.h"

#include "base/clock.h"
#include "base/thread.h"
#include "lane/pace.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNKS_MAX = 4, /* the window: read and not finished */
    TURN_MS = 5,    /* how soon a full lane is looked at again */
    IDLE_MS = 200,
    AGAIN_MS = 500, /* before what came back undecided is fed again */
};

struct drain {
    const struct config *config;
    struct lanes *lanes;
    struct spool *spool;
    pthread_t thread;

    pthread_mutex_t mutex; /* guards the next three */
    pthread_cond_t changed;
    struct delivery *returned;
    bool is_stopping;

    /* The thread's own. */
    struct spool_chunk *head, **tail; /* chunks that are not finished, in order */
    uint32_t chunk_count;
    struct spool_chunk *feeding; /* whose deliveries are fed, NULL = all are */
    size_t fed;                  /* of `feeding` */
    struct delivery *again;      /* came back undecided; chained by next_decided */
    int64_t again_mono_us;       /* when to feed them */
};

void drain_on_decided(struct drain *drain, struct delivery *decided)
{
    pthread_mutex_lock(&drain->mutex);
    while (decided) {
        struct delivery *next = decided->next_decided;
        decided->next_decided = drain->returned;
        drain->returned = decided;
        decided = next;
    }
    pthread_cond_signal(&drain->changed);
    pthread_mutex_unlock(&drain->mutex);
}

/* As it was before its first way through a lane. */
static void renew(struct delivery *delivery)
{
    for (int i = 0; i < DELIVERY_OUTCOME_COUNT; i++)
        atomic_store(&delivery->outcomes[i], 0);
    delivery->events[0].outcome = DELIVERY_UNDECIDED;
    atomic_store(&delivery->waiting, 1);
}

static void take_returned(struct drain *drain)
{
    pthread_mutex_lock(&drain->mutex);
    struct delivery *delivery = drain->returned;
    drain->returned = NULL;
    pthread_mutex_unlock(&drain->mutex);
    while (delivery) {
        struct delivery *next = delivery->next_decided;
        if (atomic_load(&delivery->outcomes[DELIVERY_UNDECIDED]) == 0) {
            delivery->chunk->undecided--;
        } else {
            renew(delivery);
            if (!drain->again)
                drain->again_mono_us = clock_mono_us() + AGAIN_MS * 1000;
            delivery->next_decided = drain->again;
            drain->again = delivery;
        }
        delivery = next;
    }
}

static void finish_chunks(struct drain *drain)
{
    struct spool_chunk *chunk;
    while ((chunk = drain->head) && chunk != drain->feeding && chunk->undecided == 0) {
        drain->head = chunk->next;
        if (!drain->head)
            drain->tail = &drain->head;
        drain->chunk_count--;
        spool_finish(drain->spool, chunk);
    }
}

static void read_chunk(struct drain *drain)
{
    if (drain->feeding || drain->chunk_count == CHUNKS_MAX)
        return;
    size_t most = (size_t)PACE_DRAIN_MANY * drain->config->database.lanes;
    struct spool_chunk *chunk = spool_read(drain->spool, most, drain->config->batch.bytes);
    if (!chunk)
        return;
    chunk->next = NULL;
    chunk->undecided = chunk->count;
    *drain->tail = chunk;
    drain->tail = &chunk->next;
    drain->chunk_count++;
    drain->feeding = chunk->count > 0 ? chunk : NULL;
    drain->fed = 0;
}

/* Feeds until a lane has enough. What came back is fed first: it is older. */
static void feed_lanes(struct drain *drain)
{
    while (drain->again && clock_mono_us() >= drain->again_mono_us) {
        struct delivery *next = drain->again->next_decided;
        if (!lanes_feed(drain->lanes, drain->again)) {
            drain->again_mono_us = clock_mono_us() + AGAIN_MS * 1000;
            break;
        }
        drain->again = next;
    }
    while (drain->feeding && lanes_feed(drain->lanes, drain->feeding->deliveries[drain->fed]))
        if (++drain->fed == drain->feeding->count)
            drain->feeding = NULL;
}

/* Until something comes back, or it is time to look again. */
static void wait_changed(struct drain *drain)
{
    int64_t until_us = clock_mono_us() + (drain->feeding ? TURN_MS : IDLE_MS) * 1000;
    struct timespec until = {.tv_sec = until_us / 1000000, .tv_nsec = until_us % 1000000 * 1000};
    pthread_mutex_lock(&drain->mutex);
    if (!drain->returned && !drain->is_stopping)
        pthread_cond_timedwait(&drain->changed, &drain->mutex, &until);
    pthread_mutex_unlock(&drain->mutex);
}

static bool is_stopping(struct drain *drain)
{
    pthread_mutex_lock(&drain->mutex);
    bool stopping = drain->is_stopping;
    pthread_mutex_unlock(&drain->mutex);
    return stopping;
}

static void *run_drain(void *argument)
{
    struct drain *drain = argument;
    thread_set_name("drain", THREAD_NO_NUMBER);
    while (!is_stopping(drain)) {
        take_returned(drain);
        finish_chunks(drain);
        read_chunk(drain);
        feed_lanes(drain);
        if (!drain->head)
            (void)spool_wait(drain->spool, IDLE_MS);
        else if (drain->feeding || drain->chunk_count == CHUNKS_MAX ||
                 !spool_wait(drain->spool, 0)) /* everything is read; wait for it to come back */
            wait_changed(drain);
    }
    return NULL;
}

enum oh_status drain_start(const struct config *config, struct lanes *lanes, struct spool *spool,
                           struct drain **out, struct oh_error *err)
{
    struct drain *drain = calloc(1, sizeof(*drain));
    if (!drain)
        return oh_fail(err, OH_NO_MEMORY, "no memory for the drain");
    drain->config = config;
    drain->lanes = lanes;
    drain->spool = spool;
    drain->tail = &drain->head;
    pthread_mutex_init(&drain->mutex, NULL);
    thread_cond_init(&drain->changed);
    *out = drain; /* before the first delivery may come back */
    if (pthread_create(&drain->thread, NULL, run_drain, drain) != 0) {
        *out = NULL;
        free(drain);
        return oh_fail(err, OH_SYSTEM, "the drain's thread could not be started");
    }
    return OH_OK;
}

void drain_stop(struct drain *drain)
{
    if (!drain)
        return;
    pthread_mutex_lock(&drain->mutex);
    drain->is_stopping = true;
    pthread_cond_signal(&drain->changed);
    pthread_mutex_unlock(&drain->mutex);
    pthread_join(drain->thread, NULL);
}

void drain_free(struct drain *drain)
{
    if (!drain)
        return;
    take_returned(drain);
    drain->feeding = NULL;
    finish_chunks(drain);
    while (drain->head) {
        struct spool_chunk *chunk = drain->head;
        drain->head = chunk->next;
        spool_release(drain->spool, chunk);
    }
    pthread_cond_destroy(&drain->changed);
    pthread_mutex_destroy(&drain->mutex);
    free(drain);
}
