/* SPDX-License-Identifier: Apache-2.0 */
/* spool/spool.h: opening, closing, and what is asked from outside. */
#include "spool/spool.h"

#include "base/clock.h"
#include "base/thread.h"
#include "log/log.h"
#include "spool/room.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SEGMENT_SHARE = 16, /* of spool.bytes: the room that is free again after a segment is drained */
    SEGMENT_BYTES_MIN = 64 * 1024,
    SEGMENT_BYTES_MAX = 64 * 1024 * 1024,
    SETTLE_BYTES = 8 * 1024 * 1024, /* what SQLite reads again after a crash */
    READ_PATIENCE_MS = 600000,
    LOOK_PATIENCE_MS = 2000, /* nothing is lost by giving up, and somebody waits */
};

struct spool *spool_new(const struct config *config)
{
    struct spool *spool = calloc(1, sizeof(*spool));
    if (!spool)
        return NULL;
    spool->config = config;
    spool->read_patience_ms = READ_PATIENCE_MS;
    spool->directory = spool->lock = spool->acknowledged.fd = spool->drained.fd = -1;
    uint64_t bytes = config->spool.bytes / SEGMENT_SHARE;
    spool->segment_bytes_max = bytes < SEGMENT_BYTES_MIN   ? SEGMENT_BYTES_MIN
                               : bytes > SEGMENT_BYTES_MAX ? SEGMENT_BYTES_MAX
                                                           : bytes;
    spool->settle_bytes =
        spool->segment_bytes_max / 4 < SETTLE_BYTES ? spool->segment_bytes_max / 4 : SETTLE_BYTES;
    list_init(&spool->queue);
    pthread_mutex_init(&spool->mutex, NULL);
    thread_cond_init(&spool->filled);
    thread_cond_init(&spool->readable);
    return spool;
}

enum oh_status spool_open(const struct config *config, struct metrics_shard *shard,
                          spool_on_decided *on_decided, void *context, struct spool **out,
                          struct oh_error *err)
{
    pid_t owner;
    *out = NULL;
    struct spool *spool = spool_new(config);
    if (!spool)
        return oh_fail(err, OH_NO_MEMORY, "no memory for the spool");
    spool->shard = shard;
    spool->on_decided = on_decided;
    spool->context = context;
    enum oh_status status = directory_open(spool, &owner, err);
    if (status == OH_OK)
        status = writer_start(spool, err);
    if (status != OH_OK) {
        spool_close(spool);
        return status;
    }
    struct spool_state state;
    spool_get_state(spool, &state);
    LOG_LINE(LOG_INFO, "spool", "open", log_text("directory", config->spool.directory),
             log_int("waiting", (int64_t)state.waiting), log_int("bytes", (int64_t)state.bytes),
             log_int("lost", (int64_t)state.lost));
    *out = spool;
    return OH_OK;
}

enum oh_status spool_look(const struct config *config, struct spool **out, pid_t *owner,
                          struct oh_error *err)
{
    *out = NULL;
    struct spool *spool = spool_new(config);
    if (!spool)
        return oh_fail(err, OH_NO_MEMORY, "no memory for the spool");
    spool->only_looks = true;
    spool->read_patience_ms = LOOK_PATIENCE_MS;
    enum oh_status status = directory_open(spool, owner, err);
    if (status != OH_OK) {
        spool_close(spool);
        return status;
    }
    atomic_store(&spool->oldest_wall_us, reader_oldest_wall_us(spool));
    *out = spool;
    return OH_OK;
}

void spool_get_state(struct spool *spool, struct spool_state *state)
{
    uint64_t drained = atomic_load(&spool->last_drained);
    int64_t oldest_us = atomic_load(&spool->oldest_wall_us), now_us = clock_wall_us();
    memset(state, 0, sizeof(*state));
    state->last_acknowledged = atomic_load(&spool->last_acknowledged);
    state->waiting = state->last_acknowledged - drained;
    state->bytes = atomic_load(&spool->bytes);
    state->lost = atomic_load(&spool->lost);
    if (state->waiting > 0 && oldest_us > 0 && now_us > oldest_us)
        state->oldest_s = (now_us - oldest_us) / 1000000;
    state->accepts = !spool->only_looks && spool_accepts(spool);
    pthread_mutex_lock(&spool->mutex);
    state->segments = spool->segment_count;
    snprintf(state->problem, sizeof(state->problem), "%s",
             spool->problem[0] ? spool->problem : spool->trouble);
    pthread_mutex_unlock(&spool->mutex);
    if (!state->accepts && !spool->only_looks && !state->problem[0])
        snprintf(state->problem, sizeof(state->problem), "the disk does not answer");
}

void spool_each_loss(const struct spool *spool, spool_on_loss *each, void *context)
{
    directory_read_losses(spool, each, context);
}

void spool_close(struct spool *spool)
{
    if (!spool)
        return;
    writer_stop(spool);
    reader_free(spool);
    directory_close(spool);
    pthread_cond_destroy(&spool->filled);
    pthread_cond_destroy(&spool->readable);
    pthread_mutex_destroy(&spool->mutex);
    free(spool);
}
