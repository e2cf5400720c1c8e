/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that writes. What waits becomes one group, one transaction; then the last acknowledged
 * number is saved; only then the group is SPOOLED. While one group is with the disk, the next one
 * gathers.
 *
 * An I/O error ends the segment and the group is written once more, into a new one. A group that
 * cannot be written is undecided (503). After that nothing is tried for a second, and after a full
 * disk not before there is room. */
#include "base/clock.h"
#include "base/thread.h"
#include "log/log.h"
#include "spool/room.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    GROUP_EVENTS_MAX = 5000,
    GROUP_BYTES_MAX = 8 * 1024 * 1024,
    RECORD_EXTRA_BYTES = 320, /* beside the payload, for a rough sum */
    SLACK_BYTES = 128 * 1024, /* an empty segment, its WAL's index, a page more here and there */
    SETTLE_BYTES_MIN = 256 * 1024, /* of a WAL, however little room there is */
    PAUSE_MS = 1000,               /* after a failure */
    LOOK_MS = 200,                 /* how often a thread that has nothing to do looks around */
    STALL_MS = 1000,               /* a disk that takes longer is not one to rely on */
};

/* ---- whether it accepts ---------------------------------------------------------------------- */

/* Notes why nothing can be put, "" = it can; logs the change. */
static void set_problem(struct spool *spool, const char *text)
{
    pthread_mutex_lock(&spool->mutex);
    bool changed = (spool->problem[0] == '\0') != (text[0] == '\0');
    snprintf(spool->problem, sizeof(spool->problem), "%s", text);
    pthread_mutex_unlock(&spool->mutex);
    atomic_store(&spool->accepts, text[0] == '\0');
    if (changed && text[0])
        LOG_RATE_LIMITED(LOG_ERROR, "spool", "the spool takes no events", log_text("reason", text));
    else if (changed)
        LOG_RATE_LIMITED(LOG_INFO, "spool", "the spool takes events again",
                         log_text("directory", spool->config->spool.directory));
}

static uint64_t free_bytes(const struct spool *spool)
{
    struct statvfs status;
    if (fstatvfs(spool->directory, &status) != 0)
        return 0;
    return (uint64_t)status.f_bavail * status.f_frsize;
}

/* Looks whether what failed or was full is better now. */
static void look_around(struct spool *spool, int64_t now_us)
{
    struct spool_writer *writer = &spool->writer;
    if (writer->retry_at_mono_us) {
        if (now_us < writer->retry_at_mono_us)
            return;
        if (writer->room_bytes && free_bytes(spool) < writer->room_bytes) {
            writer->retry_at_mono_us = now_us + LOOK_MS * 1000;
            return;
        }
        writer->retry_at_mono_us = 0;
        writer->room_bytes = 0;
    }
    /* Once full, a segment's worth must be free before it goes on: no coming and going. */
    uint64_t wanted = SLACK_BYTES + (atomic_load(&spool->accepts) ? 0 : spool->segment_bytes_max);
    if (atomic_load(&spool->bytes) + wanted > spool->config->spool.bytes)
        set_problem(spool, "spool.bytes is reached");
    else
        set_problem(spool, "");
}

bool spool_accepts(const struct spool *spool)
{
    if (!atomic_load_explicit(&spool->accepts, memory_order_relaxed))
        return false;
    int64_t since_us = atomic_load_explicit(&spool->busy_since_mono_us, memory_order_relaxed);
    return !since_us || clock_mono_us() - since_us < STALL_MS * 1000;
}

/* ---- segments -------------------------------------------------------------------------------- */

/* Ends the segment. `well`: its file is in order, and its WAL may be moved into it. */
static void end_segment(struct spool *spool, bool well)
{
    struct spool_writer *writer = &spool->writer;
    struct oh_error err;
    if (!writer->segment)
        return;
    if (well)
        well = segment_settle(writer->segment, false, &err) == SEGMENT_OK;
    segment_close(writer->segment, well);
    writer->segment = NULL;
    pthread_mutex_lock(&spool->mutex);
    struct spool_segment *last = &spool->segments[spool->segment_count - 1];
    spool->writing = false;
    spool->retire = false;
    if (last->first > atomic_load(&spool->last_acknowledged))
        directory_drop(spool, spool->segment_count - 1); /* nothing in it was acknowledged */
    else
        directory_measure(spool, last);
    pthread_mutex_unlock(&spool->mutex);
}

static enum segment_result begin_segment(struct spool *spool, struct oh_error *err)
{
    struct spool_writer *writer = &spool->writer;
    uint64_t first = atomic_load(&spool->last_acknowledged) + 1;
    char path[4096];
    directory_path(spool, first, path, sizeof(path));
    pthread_mutex_lock(&spool->mutex);
    bool added = directory_add(spool, first);
    spool->writing = added;
    pthread_mutex_unlock(&spool->mutex);
    if (!added)
        return SEGMENT_AGAIN;
    enum segment_result result = segment_create(path, &writer->segment, err);
    writer->is_new = true;
    if (result != SEGMENT_OK) {
        pthread_mutex_lock(&spool->mutex);
        spool->writing = false;
        directory_drop(spool, spool->segment_count - 1);
        pthread_mutex_unlock(&spool->mutex);
    }
    return result;
}

/* Moves a WAL that is long into the file. On a disk with little room that is done while there is
 * some, since the file grows by it: a WAL of small groups is many times as long as what is in it.
 */
static enum segment_result settle_in_time(struct spool *spool, struct oh_error *err)
{
    struct segment *segment = spool->writer.segment;
    uint64_t bytes = segment_unsettled_bytes(segment);
    bool is_tight = bytes >= SETTLE_BYTES_MIN && bytes >= free_bytes(spool);
    if (is_tight || bytes >= spool->settle_bytes)
        return segment_settle(segment, is_tight, err);
    return SEGMENT_OK;
}

/* After a group: a segment that is full, drained or damaged ends; a long WAL is moved into the
 * file. What fails here has failed no record: they are in the WAL, fsync'ed. */
static void tend_segment(struct spool *spool)
{
    struct spool_writer *writer = &spool->writer;
    struct oh_error err;
    if (!writer->segment)
        return;
    pthread_mutex_lock(&spool->mutex);
    struct spool_segment *last = &spool->segments[spool->segment_count - 1];
    directory_measure(spool, last);
    bool damaged = last->damaged, retire = spool->retire;
    bool full = last->bytes >= spool->segment_bytes_max;
    pthread_mutex_unlock(&spool->mutex);
    if (full || retire || damaged)
        end_segment(spool, !damaged);
    else if (settle_in_time(spool, &err) != SEGMENT_OK)
        end_segment(spool, false);
}

/* ---- one group ------------------------------------------------------------------------------- */

/* All or nothing: in one transaction, and its last number saved. */
static enum segment_result write_group(struct spool *spool, struct oh_error *err)
{
    struct spool_writer *writer = &spool->writer;
    uint64_t number = atomic_load(&spool->last_acknowledged);
    enum segment_result result = SEGMENT_OK;
    if (!writer->segment)
        result = begin_segment(spool, err);
    if (result == SEGMENT_OK)
        result = segment_begin(writer->segment, err);
    for (size_t i = 0; result == SEGMENT_OK && i < writer->group_count; i++) {
        if (record_encode(&writer->buffer, writer->group[i]) != OH_OK) {
            (void)oh_fail(err, OH_NO_MEMORY, "no memory for a record");
            return SEGMENT_AGAIN;
        }
        result = segment_add(writer->segment, ++number,
                             (struct oh_slice){writer->buffer.bytes, writer->buffer.len}, err);
    }
    if (result == SEGMENT_OK)
        result = segment_commit(writer->segment, err);
    if (result != SEGMENT_OK)
        return result;
    if ((writer->is_new && fsync(spool->directory) != 0) ||
        !mark_save(&spool->acknowledged, number)) {
        (void)oh_fail(err, OH_SYSTEM, "%s", strerror(errno));
        return errno == ENOSPC || errno == EDQUOT ? SEGMENT_FULL : SEGMENT_FAILED;
    }
    writer->is_new = false;
    return SEGMENT_OK;
}

/* The group is safe: lets the drain see it. */
static void acknowledge_group(struct spool *spool)
{
    uint64_t before = atomic_load(&spool->last_acknowledged);
    if (before == atomic_load(&spool->last_drained))
        atomic_store(&spool->oldest_wall_us, spool->writer.group[0]->delivery->accepted_wall_us);
    pthread_mutex_lock(&spool->mutex);
    atomic_store(&spool->last_acknowledged, before + spool->writer.group_count);
    spool->retire = false; /* there is something to read in it again */
    pthread_cond_broadcast(&spool->readable);
    pthread_mutex_unlock(&spool->mutex);
}

static void note_failure(struct spool *spool, enum segment_result result,
                         const struct oh_error *err)
{
    struct spool_writer *writer = &spool->writer;
    char text[256];
    writer->retry_at_mono_us = clock_mono_us() + PAUSE_MS * 1000;
    writer->room_bytes = result == SEGMENT_FULL ? writer->group_bytes * 2 + SLACK_BYTES : 0;
    snprintf(text, sizeof(text), "%s: %.200s",
             result == SEGMENT_FULL ? "the disk is full" : "the disk fails", err->text);
    set_problem(spool, text);
}

static bool put_group(struct spool *spool)
{
    struct spool_writer *writer = &spool->writer;
    struct oh_error err = {.text = ""};
    enum segment_result result = SEGMENT_AGAIN;
    if (!atomic_load(&spool->accepts))
        return false;
    if (atomic_load(&spool->bytes) + writer->group_bytes + SLACK_BYTES >
        spool->config->spool.bytes) {
        set_problem(spool, "spool.bytes is reached");
        return false;
    }
    for (int attempt = 0; attempt < 2; attempt++) {
        result = write_group(spool, &err);
        if (result == SEGMENT_OK)
            return true;
        LOG_RATE_LIMITED(LOG_ERROR, "spool", "a group could not be written",
                         log_text("reason", err.text), log_int("attempt", attempt + 1),
                         log_int("events", (int64_t)writer->group_count));
        /* A full disk has damaged nothing: what is in the WAL may still fit into the file. */
        end_segment(spool, result == SEGMENT_FULL);
        if (result == SEGMENT_FULL)
            break;
    }
    note_failure(spool, result, &err);
    return false;
}

static void decide(struct spool *spool, struct delivery_event *event, enum delivery_outcome outcome)
{
    struct delivery *delivery = event->delivery;
    if (outcome == DELIVERY_SPOOLED)
        metrics_count_event(spool->shard, delivery->source->number, METRIC_OUTCOME_SPOOLED, 1);
    if (!delivery_decide(event, outcome))
        return;
    delivery->next_decided = spool->writer.decided;
    spool->writer.decided = delivery;
}

/* Takes what waits, up to a group; what is past its deadline is undecided. True: there is a group.
 */
static bool gather(struct spool *spool)
{
    struct spool_writer *writer = &spool->writer;
    struct list expired;
    list_init(&expired);
    int64_t now_us = clock_mono_us();
    writer->group_count = 0;
    writer->group_bytes = 0;
    pthread_mutex_lock(&spool->mutex);
    while (!list_is_empty(&spool->queue) && writer->group_count < GROUP_EVENTS_MAX &&
           writer->group_bytes < GROUP_BYTES_MAX) {
        struct delivery_event *event = LIST_ENTRY(spool->queue.next, struct delivery_event, link);
        list_remove(&event->link);
        spool->queued--;
        if (event->delivery->deadline_mono_us <= now_us) {
            list_push_tail(&expired, &event->link);
            continue;
        }
        writer->group_bytes +=
            (event->event ? event->event->raw.len : event->delivery->request.body.len) +
            RECORD_EXTRA_BYTES;
        writer->group[writer->group_count++] = event;
    }
    pthread_mutex_unlock(&spool->mutex);
    for (struct list *node; (node = list_pop_head(&expired)) != NULL;)
        decide(spool, LIST_ENTRY(node, struct delivery_event, link), DELIVERY_UNDECIDED);
    return writer->group_count > 0;
}

static void run_group(struct spool *spool)
{
    struct spool_writer *writer = &spool->writer;
    if (gather(spool)) {
        atomic_store(&spool->busy_since_mono_us, clock_mono_us());
        bool done = put_group(spool);
        if (done)
            acknowledge_group(spool);
        for (size_t i = 0; i < writer->group_count; i++)
            decide(spool, writer->group[i], done ? DELIVERY_SPOOLED : DELIVERY_UNDECIDED);
        atomic_store(&spool->busy_since_mono_us, 0);
    }
    struct delivery *decided = writer->decided;
    writer->decided = NULL;
    if (decided)
        spool->on_decided(spool->context, decided);
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* Waits for events; false: it is time to end. */
static bool wait_for_events(struct spool *spool)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LOOK_MS * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&spool->mutex);
    while (list_is_empty(&spool->queue) && !spool->stopping && !spool->retire)
        if (pthread_cond_timedwait(&spool->filled, &spool->mutex, &until) == ETIMEDOUT)
            break;
    bool goes_on = !spool->stopping || !list_is_empty(&spool->queue);
    pthread_mutex_unlock(&spool->mutex);
    return goes_on;
}

static void *run_writer(void *argument)
{
    struct spool *spool = argument;
    thread_set_name("spool", THREAD_NO_NUMBER);
    if (atomic_load(&spool->last_acknowledged) > atomic_load(&spool->last_drained))
        atomic_store(&spool->oldest_wall_us, reader_oldest_wall_us(spool));
    while (wait_for_events(spool)) {
        look_around(spool, clock_mono_us());
        run_group(spool);
        tend_segment(spool);
        pthread_mutex_lock(&spool->mutex);
        spool->retire = false; /* done, or there was nothing to end */
        pthread_mutex_unlock(&spool->mutex);
    }
    end_segment(spool, true);
    return NULL;
}

void spool_put(struct spool *spool, struct list *events, size_t count)
{
    pthread_mutex_lock(&spool->mutex);
    list_splice_tail(&spool->queue, events);
    spool->queued += count;
    pthread_cond_signal(&spool->filled); /* with the mutex: spool_close() destroys it */
    pthread_mutex_unlock(&spool->mutex);
}

enum oh_status writer_start(struct spool *spool, struct oh_error *err)
{
    struct spool_writer *writer = &spool->writer;
    writer->group = calloc(GROUP_EVENTS_MAX, sizeof(struct delivery_event *));
    if (!writer->group)
        return oh_fail(err, OH_NO_MEMORY, "no memory for the spool");
    look_around(spool, clock_mono_us());
    writer->has_thread = pthread_create(&writer->thread, NULL, run_writer, spool) == 0;
    return writer->has_thread ? OH_OK : oh_fail(err, OH_SYSTEM, "no thread for the spool");
}

void writer_stop(struct spool *spool)
{
    pthread_mutex_lock(&spool->mutex);
    spool->stopping = true;
    pthread_mutex_unlock(&spool->mutex);
    pthread_cond_signal(&spool->filled);
    if (spool->writer.has_thread)
        pthread_join(spool->writer.thread, NULL);
    record_buffer_free(&spool->writer.buffer);
    free(spool->writer.group);
}
