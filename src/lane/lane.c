/* SPDX-License-Identifier: Apache-2.0 */
/* The lanes' threads. One tick of a lane: connected? -> gather what waits -> run the batch -> hand
 * the decided deliveries back. http threads only append to a lane's queue under its mutex. */
#include "lane/lane.h"

#include "base/clock.h"
#include "lane/batch.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
    LANES_MAX = 256,
    IDLE_CHECK_MS = 500,    /* how soon an idle lane notices a lost connection */
    RECONNECT_CAP_MS = 250, /* full jitter below this */
    INTAKE_PAUSE_MS = 1000, /* after "out of disk" and the like */
};

struct lane {
    struct lanes *lanes;
    uint32_t number;
    pthread_t thread;
    bool has_thread;
    struct batch batch;

    pthread_mutex_t mutex; /* guards the next four */
    pthread_cond_t filled;
    struct list queue;
    size_t queued;
    char problem[256]; /* why it is not connected */

    _Atomic int64_t oldest_mono_us; /* when the queue's head was accepted; 0 = empty queue */
    _Atomic bool connected;
    _Atomic int64_t busy_since_mono_us; /* a batch is with PostgreSQL since then; 0 = none */
};

struct lanes {
    const struct config *config;
    lanes_on_decided *on_decided;
    void *context;
    struct recent *recent;
    _Atomic bool stopping;
    _Atomic int64_t stop_deadline_mono_us;
    uint32_t count;
    struct lane lanes[];
};

/* ---- the queue ------------------------------------------------------------------------------- */

/* An instance belongs to one lane, so lanes do not wait for each other's counter rows. A wrong lane
 * is only slower, never incorrect. */
static uint32_t choose_lane(const struct lanes *lanes, const struct delivery_event *item)
{
    uint64_t hash = item->key_hash;
    if (item->event && item->event->has_instance)
        hash = XXH3_64bits(item->event->instance_id, 16);
    else if (item->event && item->event->has_enrollment)
        hash = XXH3_64bits(item->event->enrollment_id, 16);
    return (uint32_t)(hash % lanes->count);
}

static enum admission_verdict check_lane(const struct lanes *lanes, const struct lane *lane,
                                         int64_t now_us)
{
    if (!atomic_load_explicit(&lane->connected, memory_order_relaxed))
        return ADMISSION_DOWN;
    int64_t oldest_us = atomic_load_explicit(&lane->oldest_mono_us, memory_order_relaxed);
    if (oldest_us && now_us - oldest_us > lanes->config->queue.age_ms * 1000)
        return ADMISSION_OLD;
    return ADMISSION_OK;
}

/* Called with the mutex held, after the queue's head has changed. */
static void note_oldest(struct lane *lane)
{
    int64_t oldest_us = 0;
    if (!list_is_empty(&lane->queue))
        oldest_us =
            LIST_ENTRY(lane->queue.next, struct delivery_event, link)->delivery->accepted_mono_us;
    atomic_store_explicit(&lane->oldest_mono_us, oldest_us, memory_order_relaxed);
}

static void append(struct lane *lane, struct list *items, size_t count)
{
    pthread_mutex_lock(&lane->mutex);
    bool was_empty = list_is_empty(&lane->queue);
    list_splice_tail(&lane->queue, items);
    lane->queued += count;
    if (was_empty)
        note_oldest(lane);
    pthread_mutex_unlock(&lane->mutex);
    if (was_empty)
        pthread_cond_signal(&lane->filled);
}

enum admission_verdict lanes_submit(struct lanes *lanes, struct delivery *delivery)
{
    struct list parts[LANES_MAX];
    size_t counts[LANES_MAX] = {0};
    int64_t accepted_us = delivery->accepted_mono_us;

    if (atomic_load_explicit(&lanes->stopping, memory_order_relaxed))
        return ADMISSION_DOWN;
    for (uint32_t i = 0; i < delivery->event_count; i++) {
        struct delivery_event *item = &delivery->events[i];
        if (item->outcome != DELIVERY_UNDECIDED)
            continue; /* an equal key earlier in this delivery */
        uint32_t number = choose_lane(lanes, item);
        if (counts[number]++ == 0)
            list_init(&parts[number]);
        list_push_tail(&parts[number], &item->link);
    }
    for (uint32_t i = 0; i < lanes->count; i++) {
        if (counts[i] == 0)
            continue;
        enum admission_verdict verdict = check_lane(lanes, &lanes->lanes[i], accepted_us);
        if (verdict != ADMISSION_OK)
            return verdict;
    }
    /* From the first append on the delivery may be decided and gone. */
    for (uint32_t i = 0, count = lanes->count; i < count; i++)
        if (counts[i])
            append(&lanes->lanes[i], &parts[i], counts[i]);
    return ADMISSION_OK;
}

/* Takes what waits, up to the batch's bounds; waits for the first up to timeout_ms. */
static void gather(struct lane *lane, int64_t timeout_ms)
{
    const struct config *config = lane->lanes->config;
    struct batch *batch = &lane->batch;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (timeout_ms % 1000) * 1000000;
    until.tv_sec += timeout_ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;

    size_t bytes = 0;
    pthread_mutex_lock(&lane->mutex);
    while (list_is_empty(&lane->queue) &&
           !atomic_load_explicit(&lane->lanes->stopping, memory_order_relaxed))
        if (pthread_cond_timedwait(&lane->filled, &lane->mutex, &until) == ETIMEDOUT)
            break;
    while (batch->count < config->batch.events && !list_is_empty(&lane->queue)) {
        struct delivery_event *item = LIST_ENTRY(lane->queue.next, struct delivery_event, link);
        size_t size = item->event ? item->event->raw.len : item->delivery->request.body.len;
        if (batch->count > 0 && bytes + size > config->batch.bytes)
            break;
        list_remove(&item->link);
        bytes += size;
        batch->items[batch->count++] = item;
    }
    lane->queued -= batch->count;
    int64_t oldest_us = 0;
    if (!list_is_empty(&lane->queue))
        oldest_us =
            LIST_ENTRY(lane->queue.next, struct delivery_event, link)->delivery->accepted_mono_us;
    atomic_store_explicit(&lane->oldest_mono_us, oldest_us, memory_order_relaxed);
    pthread_mutex_unlock(&lane->mutex);
}

static void hand_back(struct lane *lane)
{
    struct delivery *decided = lane->batch.decided;
    lane->batch.decided = NULL;
    if (decided)
        lane->lanes->on_decided(lane->lanes->context, decided);
}

/* ---- connection ------------------------------------------------------------------------------ */

static void set_problem(struct lane *lane, const char *text)
{
    pthread_mutex_lock(&lane->mutex);
    snprintf(lane->problem, sizeof(lane->problem), "%s", text);
    pthread_mutex_unlock(&lane->mutex);
}

/* While the lane is away: what waits is decided undecided as soon as its deadline passes (or all of
 * it, with `all`), so that memory is given back. */
static void release_waiting(struct lane *lane, bool all)
{
    int64_t now_us = clock_mono_us();
    do {
        gather(lane, 0);
        struct list keep;
        list_init(&keep);
        size_t kept = 0, gathered = lane->batch.count;
        for (size_t i = 0; i < gathered; i++) {
            struct delivery_event *item = lane->batch.items[i];
            if (all || item->delivery->deadline_mono_us <= now_us) {
                batch_decide(&lane->batch, item, DELIVERY_UNDECIDED);
            } else {
                list_push_tail(&keep, &item->link);
                kept++;
            }
        }
        lane->batch.count = 0;
        hand_back(lane);
        if (kept > 0) {
            pthread_mutex_lock(&lane->mutex);
            list_splice_tail(&keep, &lane->queue); /* they came first */
            list_splice_tail(&lane->queue, &keep);
            lane->queued += kept;
            note_oldest(lane);
            pthread_mutex_unlock(&lane->mutex);
            return; /* the rest is younger */
        }
        if (gathered == 0)
            return;
    } while (true);
}

static void sleep_ms(int64_t ms)
{
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000};
    nanosleep(&pause, NULL);
}

static void note_connected(struct lane *lane)
{
    recent_forget(lane->lanes->recent); /* a failover may have lost commits */
    set_problem(lane, "");
    atomic_store(&lane->connected, true);
    LOG_LINE(LOG_INFO, "lane", "connected to PostgreSQL", log_int("lane", lane->number));
}

static void note_lost(struct lane *lane, const char *why)
{
    if (atomic_exchange(&lane->connected, false))
        LOG_LINE(LOG_WARNING, "lane", "connection to PostgreSQL lost",
                 log_int("lane", lane->number), log_text("reason", why));
    set_problem(lane, why);
}

/* One try to connect, then a pause with full jitter. */
static void reconnect(struct lane *lane, unsigned *seed)
{
    const struct config *config = lane->lanes->config;
    struct store_error error;
    int64_t deadline_us = clock_mono_us() + config->database.connect_timeout_ms * 1000;
    if (store_connect(lane->batch.store, deadline_us, &error)) {
        note_connected(lane);
        return;
    }
    char before[sizeof(lane->problem)];
    snprintf(before, sizeof(before), "%s", lane->problem);
    set_problem(lane, store_error_words(&error));
    if (strcmp(before, lane->problem) != 0)
        LOG_LINE(LOG_ERROR, "lane", "cannot use PostgreSQL", log_int("lane", lane->number),
                 log_text("sqlstate", error.sqlstate),
                 log_text("reason", store_error_words(&error)));
    release_waiting(lane, false);
    sleep_ms(rand_r(seed) % RECONNECT_CAP_MS + 1);
}

/* ---- the thread ------------------------------------------------------------------------------ */

static bool is_time_to_stop(struct lane *lane)
{
    if (!atomic_load(&lane->lanes->stopping))
        return false;
    pthread_mutex_lock(&lane->mutex);
    bool is_empty = list_is_empty(&lane->queue);
    pthread_mutex_unlock(&lane->mutex);
    return is_empty || clock_mono_us() > atomic_load(&lane->lanes->stop_deadline_mono_us) ||
           !store_is_connected(lane->batch.store);
}

static void *run_lane(void *argument)
{
    struct lane *lane = argument;
    struct batch *batch = &lane->batch;
    unsigned seed = (unsigned)(clock_wall_us() ^ lane->number);

    while (!is_time_to_stop(lane)) {
        if (!store_is_connected(batch->store)) {
            reconnect(lane, &seed);
            continue;
        }
        gather(lane, IDLE_CHECK_MS);
        if (batch->count == 0) {
            if (!store_check_idle(batch->store))
                note_lost(lane, "PostgreSQL closed the connection");
            continue;
        }
        atomic_store_explicit(&lane->busy_since_mono_us, clock_mono_us(), memory_order_relaxed);
        batch_run(batch);
        atomic_store_explicit(&lane->busy_since_mono_us, 0, memory_order_relaxed);
        hand_back(lane);
        if (!store_is_connected(batch->store))
            note_lost(lane, store_error_words(&batch->problem));
        else if (batch->intake_stopped) {
            note_lost(lane, store_error_words(&batch->problem));
            store_disconnect(batch->store);
            release_waiting(lane, true);
            sleep_ms(INTAKE_PAUSE_MS);
        }
    }
    atomic_store(&lane->connected, false);
    release_waiting(lane, true);
    return NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

static bool lane_init(struct lanes *lanes, uint32_t number, struct metrics *metrics, uint32_t shard)
{
    struct lane *lane = &lanes->lanes[number];
    char name[24];
    pthread_condattr_t attributes;

    lane->lanes = lanes;
    lane->number = number;
    list_init(&lane->queue);
    pthread_mutex_init(&lane->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&lane->filled, &attributes);
    pthread_condattr_destroy(&attributes);
    snprintf(lane->problem, sizeof(lane->problem), "not connected yet");
    snprintf(name, sizeof(name), "lane %u", number);
    lane->batch.config = lanes->config;
    lane->batch.store = store_new(lanes->config, lanes->config->database.url, name);
    lane->batch.recent = lanes->recent;
    lane->batch.shard = metrics_shard_at(metrics, shard);
    lane->batch.lane = number;
    return lane->batch.store && batch_init(&lane->batch);
}

enum oh_status lanes_start(const struct config *config, struct metrics *metrics,
                           uint32_t first_shard, lanes_on_decided *on_decided, void *context,
                           struct lanes **out, struct oh_error *err)
{
    uint32_t count = config->database.lanes;
    if (count == 0 || count > LANES_MAX)
        return oh_fail(err, OH_INVALID, "database.lanes must be 1 to %d", LANES_MAX);
    struct lanes *lanes = calloc(1, sizeof(*lanes) + count * sizeof(lanes->lanes[0]));
    if (!lanes)
        return oh_fail(err, OH_NO_MEMORY, "no memory for the lanes");
    lanes->config = config;
    lanes->on_decided = on_decided;
    lanes->context = context;
    lanes->recent = recent_new();
    enum oh_status status = lanes->recent ? OH_OK : OH_NO_MEMORY;
    for (uint32_t i = 0; status == OH_OK && i < count; i++) {
        lanes->count = i + 1;
        if (!lane_init(lanes, i, metrics, first_shard + i))
            status = OH_NO_MEMORY;
    }
    for (uint32_t i = 0; status == OH_OK && i < count; i++) {
        struct lane *lane = &lanes->lanes[i];
        lane->has_thread = pthread_create(&lane->thread, NULL, run_lane, lane) == 0;
        if (!lane->has_thread)
            status = OH_SYSTEM;
    }
    if (status != OH_OK) {
        lanes_stop(lanes, 0);
        lanes_free(lanes);
        return oh_fail(err, status, "the lanes could not be started");
    }
    *out = lanes;
    return OH_OK;
}

void lanes_get_state(struct lanes *lanes, struct lanes_state *state)
{
    int64_t now_us = clock_mono_us();
    *state = (struct lanes_state){.total = lanes->count};
    for (uint32_t i = 0; i < lanes->count; i++) {
        struct lane *lane = &lanes->lanes[i];
        bool connected = atomic_load(&lane->connected);
        int64_t oldest_us = atomic_load(&lane->oldest_mono_us);
        state->connected += connected;
        int64_t busy_since_us = atomic_load(&lane->busy_since_mono_us);
        bool is_stuck =
            busy_since_us && now_us - busy_since_us > lanes->config->ack_deadline_ms * 1000;
        state->idle += connected && !busy_since_us;
        state->stuck += is_stuck;
        if (oldest_us && now_us - oldest_us > state->oldest_waiting_us)
            state->oldest_waiting_us = now_us - oldest_us;
        pthread_mutex_lock(&lane->mutex);
        state->waiting += (uint32_t)(lane->queued / lanes->config->batch.events);
        if ((!connected || is_stuck) && !state->problem[0])
            snprintf(state->problem, sizeof(state->problem), "%s",
                     connected ? "PostgreSQL does not answer" : lane->problem);
        pthread_mutex_unlock(&lane->mutex);
    }
}

void lanes_stop(struct lanes *lanes, int64_t deadline_mono_us)
{
    atomic_store(&lanes->stop_deadline_mono_us, deadline_mono_us);
    atomic_store(&lanes->stopping, true);
    for (uint32_t i = 0; i < lanes->count; i++) {
        struct lane *lane = &lanes->lanes[i];
        pthread_mutex_lock(&lane->mutex);
        pthread_cond_signal(&lane->filled);
        pthread_mutex_unlock(&lane->mutex);
    }
    for (uint32_t i = 0; i < lanes->count; i++)
        if (lanes->lanes[i].has_thread) {
            pthread_join(lanes->lanes[i].thread, NULL);
            lanes->lanes[i].has_thread = false;
        }
}

void lanes_free(struct lanes *lanes)
{
    if (!lanes)
        return;
    for (uint32_t i = 0; i < lanes->count; i++) {
        store_free(lanes->lanes[i].batch.store);
        batch_free(&lanes->lanes[i].batch);
        pthread_cond_destroy(&lanes->lanes[i].filled);
        pthread_mutex_destroy(&lanes->lanes[i].mutex);
    }
    recent_free(lanes->recent);
    free(lanes);
}
