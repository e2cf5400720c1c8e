/* SPDX-License-Identifier: Apache-2.0 */
/* The lanes' threads. One tick of a lane: connected? -> gather what waits -> run the batch -> hand
 * the decided deliveries back. http threads only append to a lane's queues under its mutex.
 */
#include "lane/lane.h"

#include "base/clock.h"
#include "base/thread.h"
#include "lane/batch.h"
#include "lane/keeper.h"
#include "lane/pace.h"
#include "lane/spread.h"
#include "lane/turns.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
    LANES_MAX = 256,
    IDLE_CHECK_MS = 500, /* how soon an idle lane notices a lost connection */
    ATTEND_MS = 20,      /* how often a lane without a connection looks after what waits */
    /* A connect that takes longer than this is an outage: what waits goes to the spool while there
       is time. Above a reconnect over TLS to another region, far below any deadline. */
    GRACE_MS = 300,
    INTAKE_PAUSE_MS = 1000, /* after "out of disk" and the like */
    /* A delivery of so many events for each lane has some for every one of them, nearly always. */
    EVENTS_OF_ALL_LANES = 4,
    SHARED_MS = 500, /* so long after several sources waited, batches stay short for the next */
};

struct lane {
    struct lanes *lanes;
    uint32_t number;
    pthread_t thread;
    bool has_thread;
    struct batch batch;
    int64_t lost_mono_us; /* when the connection was lost */

    pthread_mutex_t mutex; /* guards what follows, up to has_ended */
    pthread_cond_t changed;
    struct turns turns;
    struct list drained; /* events from the spool, behind all new ones */
    size_t drained_count;
    struct link link;
    bool has_ended; /* nobody looks after the queue any more */

    _Atomic int64_t busy_since_mono_us; /* a batch is with PostgreSQL since then; 0 = none */
    _Atomic size_t in_flight;           /* its events */
    _Atomic int64_t event_ns, fixed_us; /* those of `pace`, for the other threads */
    struct pace pace;                   /* the lane's thread's own */
    int64_t shared_until_mono_us;       /* several sources waited a moment ago; its own, too */
};

struct lanes {
    const struct config *config;
    struct spool *spool; /* NULL = outage: refuse */
    lanes_on_decided *on_decided;
    void *context;
    struct recent *recent;
    struct keeper *keeper;
    atomic_bool keeper_stopping; /* the lanes have ended: no connect is waited for */
    _Atomic bool stopping;
    _Atomic int64_t stop_deadline_mono_us;
    struct spread spread;
    uint64_t *hashes; /* [config->batch.events] of the first lane's batch */
    uint32_t count;
    struct lane lanes[];
};

static const char connection_lost[] = "connection to PostgreSQL lost";

static enum link_state state_of(const struct lane *lane)
{
    return atomic_load_explicit(&lane->link.state, memory_order_relaxed);
}

/* ---- the queues ------------------------------------------------------------------------------ */

/* An instance belongs to one lane, so lanes do not wait for each other's counter rows. A wrong
 * lane, as for what is queued when spread changes its mind, is only slower, never incorrect. */
static uint64_t hash_of(const struct delivery_event *item)
{
    if (item->event && item->event->has_instance)
        return XXH3_64bits(item->event->instance_id, 16);
    if (item->event && item->event->has_enrollment)
        return XXH3_64bits(item->event->enrollment_id, 16);
    return item->key_hash;
}

static uint32_t choose_lane(struct lanes *lanes, const struct delivery_event *item, int64_t now_us)
{
    int64_t since_us =
        atomic_load_explicit(&lanes->lanes[0].busy_since_mono_us, memory_order_relaxed);
    return spread_choose(&lanes->spread, hash_of(item), item->delivery->event_count,
                         since_us ? now_us - since_us : 0);
}

/* The first lane has gathered; is_left: more waits than it took. */
static void note_batch(struct lanes *lanes, bool is_left)
{
    const struct batch *batch = &lanes->lanes[0].batch;
    int64_t now_us = clock_mono_us();
    size_t in_flight = 0;
    bool needs_all = is_left;
    for (uint32_t i = 1; i < lanes->count; i++) {
        const struct lane *lane = &lanes->lanes[i];
        int64_t since_us = atomic_load_explicit(&lane->busy_since_mono_us, memory_order_relaxed);
        in_flight += atomic_load_explicit(&lane->in_flight, memory_order_relaxed);
        needs_all |= since_us && now_us - since_us > SPREAD_HELD_UP_US;
    }
    for (size_t i = 0; i < batch->count; i++)
        lanes->hashes[i] = hash_of(batch->items[i]);
    spread_note(&lanes->spread, lanes->hashes, batch->count, in_flight, needs_all,
                lanes->lanes[0].pace.fixed_us);
}

/* What a delivery that comes now would wait for its commit. The age of its source's oldest event
 * alone says it too late: while more comes than goes, the tail waits longer than the head has. */
static int64_t wait_us(const struct lane *lane, uint32_t source, int64_t now_us)
{
    int64_t event_ns = atomic_load_explicit(&lane->event_ns, memory_order_relaxed);
    int64_t since_us = atomic_load_explicit(&lane->busy_since_mono_us, memory_order_relaxed);
    size_t in_flight = atomic_load_explicit(&lane->in_flight, memory_order_relaxed);
    int64_t fixed_us = atomic_load_explicit(&lane->fixed_us, memory_order_relaxed);
    return pace_wait_us(event_ns, fixed_us, in_flight, since_us ? now_us - since_us : 0,
                        turns_before(&lane->turns, source));
}

static enum admission_verdict check_lane(const struct lanes *lanes, const struct lane *lane,
                                         uint32_t source, int64_t now_us)
{
    if (state_of(lane) == LINK_DOWN)
        return !lanes->spool                 ? ADMISSION_DOWN
               : spool_accepts(lanes->spool) ? ADMISSION_OK
                                             : ADMISSION_SPOOL;
    const struct source_queue *queue = &lane->turns.queues[source];
    int64_t oldest_us = atomic_load_explicit(&queue->oldest_mono_us, memory_order_relaxed);
    int64_t age_max_us = lanes->config->queue.age_ms * 1000;
    if (oldest_us &&
        (now_us - oldest_us > age_max_us || wait_us(lane, source, now_us) > age_max_us))
        return ADMISSION_OLD;
    return ADMISSION_OK;
}

/* What cannot go to PostgreSQL: to the spool, or decided undecided. */
static void turn_away(struct lanes *lanes, struct list *items, size_t count)
{
    if (count == 0)
        return;
    if (lanes->spool) {
        spool_put(lanes->spool, items, count);
        return;
    }
    struct delivery *decided = NULL;
    struct list *node;
    while ((node = list_pop_head(items))) {
        struct delivery_event *item = LIST_ENTRY(node, struct delivery_event, link);
        struct delivery *delivery = item->delivery;
        if (!delivery_decide(item, DELIVERY_UNDECIDED))
            continue;
        delivery->next_decided = decided;
        decided = delivery;
    }
    if (decided)
        lanes->on_decided(lanes->context, decided);
}

/* Whether the lane is down is decided together with the append, so that nothing is left in a queue
 * that nobody looks after. False: it is down, `items` are still the caller's. */
static bool append(struct lane *lane, uint32_t source, struct list *items, size_t count)
{
    pthread_mutex_lock(&lane->mutex);
    bool is_taken = state_of(lane) != LINK_DOWN && !lane->has_ended;
    bool was_empty = turns_is_empty(&lane->turns);
    if (is_taken)
        turns_put(&lane->turns, source, items, count);
    pthread_mutex_unlock(&lane->mutex);
    if (is_taken && was_empty)
        pthread_cond_signal(&lane->changed);
    return is_taken;
}

enum admission_verdict lanes_submit(struct lanes *lanes, struct delivery *delivery)
{
    struct list parts[LANES_MAX], rest;
    size_t counts[LANES_MAX] = {0}, rest_count = 0;
    int64_t accepted_us = delivery->accepted_mono_us;
    uint32_t source = delivery->source->number;

    if (atomic_load_explicit(&lanes->stopping, memory_order_relaxed))
        return ADMISSION_STOPPING;
    for (uint32_t i = 0; i < delivery->event_count; i++) {
        struct delivery_event *item = &delivery->events[i];
        if (item->outcome != DELIVERY_UNDECIDED)
            continue; /* an equal key earlier in this delivery */
        uint32_t number = choose_lane(lanes, item, accepted_us);
        if (counts[number]++ == 0)
            list_init(&parts[number]);
        list_push_tail(&parts[number], &item->link);
    }
    for (uint32_t i = 0; i < lanes->count; i++) {
        if (counts[i] == 0)
            continue;
        enum admission_verdict verdict = check_lane(lanes, &lanes->lanes[i], source, accepted_us);
        if (verdict != ADMISSION_OK)
            return verdict;
    }
    /* From the first append on the delivery may be decided and gone, but for what is in `parts`. */
    list_init(&rest);
    for (uint32_t i = 0; i < lanes->count; i++) {
        if (counts[i] == 0 || append(&lanes->lanes[i], source, &parts[i], counts[i]))
            continue;
        list_splice_tail(&rest, &parts[i]);
        rest_count += counts[i];
    }
    turn_away(lanes, &rest, rest_count);
    return ADMISSION_OK;
}

enum admission_verdict lanes_look(const struct lanes *lanes, const struct config_source *source,
                                  size_t events, int64_t now_mono_us)
{
    bool needs_all = events >= EVENTS_OF_ALL_LANES * (size_t)lanes->count;
    enum admission_verdict verdict = ADMISSION_OK;
    for (uint32_t i = 0; i < lanes->count; i++) {
        verdict = check_lane(lanes, &lanes->lanes[i], source->number, now_mono_us);
        if ((verdict == ADMISSION_OK) != needs_all)
            break;
    }
    return verdict;
}

bool lanes_feed(struct lanes *lanes, struct delivery *delivery)
{
    uint32_t number = choose_lane(lanes, &delivery->events[0], clock_mono_us());
    struct lane *lane = &lanes->lanes[number];
    pthread_mutex_lock(&lane->mutex);
    bool is_taken =
        state_of(lane) == LINK_UP && lane->drained_count < 2 * PACE_DRAIN_MANY && !lane->has_ended;
    if (is_taken) {
        list_push_tail(&lane->drained, &delivery->events[0].link);
        lane->drained_count++;
        pthread_cond_signal(&lane->changed);
    }
    pthread_mutex_unlock(&lane->mutex);
    return is_taken;
}

/* Adds an event to the batch if there is room for it. */
static bool add(struct batch *batch, struct delivery_event *item, size_t *bytes)
{
    size_t size = item->event ? item->event->raw.len : item->delivery->request.body.len;
    if (batch->count == batch->config->batch.events ||
        (batch->count > 0 && *bytes + size > batch->config->batch.bytes))
        return false;
    *bytes += size;
    batch->items[batch->count++] = item;
    return true;
}

static void take_turns(struct lane *lane, size_t most, size_t *bytes)
{
    struct delivery_event *item;
    while (lane->batch.count < most && (item = turns_next(&lane->turns)) &&
           add(&lane->batch, item, bytes))
        turns_take(&lane->turns);
}

static void take_drained(struct lane *lane, size_t most, size_t *bytes)
{
    for (size_t i = 0; i < most && !list_is_empty(&lane->drained); i++) {
        struct delivery_event *item = LIST_ENTRY(lane->drained.next, struct delivery_event, link);
        if (!add(&lane->batch, item, bytes))
            return;
        list_remove(&item->link);
        lane->drained_count--;
    }
}

static bool has_nothing(const struct lane *lane)
{
    return turns_is_empty(&lane->turns) && list_is_empty(&lane->drained);
}

static void wait_changed(struct lane *lane, int64_t until_mono_us)
{
    struct timespec until = {.tv_sec = until_mono_us / 1000000,
                             .tv_nsec = until_mono_us % 1000000 * 1000};
    pthread_cond_timedwait(&lane->changed, &lane->mutex, &until);
}

/* Takes what waits, up to the batch's bounds; waits a while for the first. */
static void gather(struct lane *lane)
{
    struct batch *batch = &lane->batch;
    int64_t until_us = clock_mono_us() + IDLE_CHECK_MS * 1000;
    size_t bytes = 0;
    pthread_mutex_lock(&lane->mutex);
    while (has_nothing(lane) && !atomic_load(&lane->lanes->stopping) && clock_mono_us() < until_us)
        wait_changed(lane, until_us);
    int64_t now_us = clock_mono_us();
    if (lane->turns.waiting > 1)
        lane->shared_until_mono_us = now_us + SHARED_MS * 1000;
    size_t most = pace_batch_events(&lane->pace, now_us < lane->shared_until_mono_us,
                                    batch->config->batch.events);
    struct pace_shares shares = pace_share(&lane->pace, most, !turns_is_empty(&lane->turns),
                                           !list_is_empty(&lane->drained));
    take_turns(lane, shares.fresh, &bytes);
    take_drained(lane, shares.drained, &bytes);
    bool is_left = !has_nothing(lane);
    pthread_mutex_unlock(&lane->mutex);
    if (lane->number == 0 && lane->lanes->count > 1)
        note_batch(lane->lanes, is_left);
}

static void hand_back(struct lane *lane)
{
    struct batch *batch = &lane->batch;
    struct delivery *decided = batch->decided;
    batch->decided = NULL;
    if (decided)
        lane->lanes->on_decided(lane->lanes->context, decided);
    if (batch->again_count > 0) {
        struct list one, *node;
        pthread_mutex_lock(&lane->mutex);
        while ((node = list_pop_head(&batch->again))) {
            list_init(&one);
            list_push_tail(&one, node);
            turns_put(&lane->turns,
                      LIST_ENTRY(node, struct delivery_event, link)->delivery->source->number, &one,
                      1);
        }
        pthread_mutex_unlock(&lane->mutex);
        batch->again_count = 0;
    }
    size_t count = batch->turned_away_count;
    batch->turned_away_count = 0;
    turn_away(lane->lanes, &batch->turned_away, count);
}

/* ---- without a connection -------------------------------------------------------------------- */

/* Looks after the queues of a lane that is not connected: what waits is decided as soon as its
 * deadline passes, so that memory is given back; with `all`, everything goes to the spool, or is
 * decided undecided. What came from the spool goes back to its drain. */
static void release(struct lane *lane, bool all)
{
    int64_t now_us = clock_mono_us();
    struct list taken, *node;
    list_init(&taken);
    pthread_mutex_lock(&lane->mutex);
    turns_expire(&lane->turns, all, now_us, &taken);
    list_splice_tail(&taken, &lane->drained);
    lane->drained_count = 0;
    pthread_mutex_unlock(&lane->mutex);
    while ((node = list_pop_head(&taken)))
        batch_turn_away(&lane->batch, LIST_ENTRY(node, struct delivery_event, link), now_us);
    hand_back(lane);
}

/* Waits a moment for the keeper; true when the lane is connected. A connect that takes long is an
 * outage. While it is one, nothing stays in the queue that the spool could take; without a spool it
 * stays until its deadline, since the database may be back before. */
static bool attend(struct lane *lane)
{
    int64_t now_us = clock_mono_us();
    pthread_mutex_lock(&lane->mutex);
    if (state_of(lane) != LINK_UP && !atomic_load(&lane->lanes->stopping))
        wait_changed(lane, now_us + ATTEND_MS * 1000);
    if (state_of(lane) == LINK_LOST && clock_mono_us() - lane->lost_mono_us > GRACE_MS * 1000)
        atomic_store(&lane->link.state, LINK_DOWN);
    enum link_state state = state_of(lane);
    pthread_mutex_unlock(&lane->mutex);
    if (state != LINK_UP)
        release(lane, state == LINK_DOWN && lane->lanes->spool);
    return state == LINK_UP;
}

static void lose(struct lane *lane, enum link_state state, const char *what,
                 const struct store_error *why, int64_t pause_ms)
{
    store_disconnect(lane->batch.store);
    if (lane->number == 0)
        spread_let_go(&lane->lanes->spread);
    lane->lost_mono_us = clock_mono_us();
    LOG_RATE_LIMITED(LOG_WARNING, "lane", what, log_int("lane", lane->number),
                     log_text("reason", store_error_words(why)));
    keeper_take(lane->lanes->keeper, &lane->link, state, why, pause_ms);
}

/* Called by the batch when its connection is lost with the outcome unknown. Waits for a new one
 * until the deadline; while a spool is there, only as long as this is no outage. */
static bool reconnect(void *context, int64_t deadline_mono_us, const struct store_error *why)
{
    struct lane *lane = context;
    lose(lane, LINK_LOST, connection_lost, why, 0);
    while (!attend(lane))
        if ((lane->lanes->spool && state_of(lane) == LINK_DOWN) ||
            clock_mono_us() > deadline_mono_us || atomic_load(&lane->lanes->stopping))
            return false;
    return true;
}

/* ---- the thread ------------------------------------------------------------------------------ */

static bool is_time_to_stop(struct lane *lane)
{
    if (!atomic_load(&lane->lanes->stopping))
        return false;
    pthread_mutex_lock(&lane->mutex);
    bool is_empty = turns_is_empty(&lane->turns); /* what is from the spool stays there */
    pthread_mutex_unlock(&lane->mutex);
    return is_empty || clock_mono_us() > atomic_load(&lane->lanes->stop_deadline_mono_us) ||
           state_of(lane) != LINK_UP;
}

static void run_batch(struct lane *lane)
{
    struct batch *batch = &lane->batch;
    size_t count = batch->count;
    int64_t began_us = clock_mono_us();
    atomic_store_explicit(&lane->in_flight, count, memory_order_relaxed);
    atomic_store_explicit(&lane->busy_since_mono_us, began_us, memory_order_relaxed);
    batch_run(batch);
    atomic_store_explicit(&lane->busy_since_mono_us, 0, memory_order_relaxed);
    atomic_store_explicit(&lane->in_flight, 0, memory_order_relaxed);
    int64_t took_us = clock_mono_us() - began_us;
    /* Neither poison nor what was not sent as events says anything about the server's pace. */
    if (!batch->bisect_until_mono_us && batch->sent > 0)
        pace_note(&lane->pace, count, took_us);
    if (batch->sent > 0)
        pace_note_locks(&lane->pace, batch->has_locked || batch->commits == 0);
    if (lane->number == 0 && took_us > SPREAD_HELD_UP_US)
        spread_let_go(&lane->lanes->spread);
    atomic_store_explicit(&lane->event_ns, lane->pace.event_ns, memory_order_relaxed);
    atomic_store_explicit(&lane->fixed_us, lane->pace.fixed_us, memory_order_relaxed);
    metrics_count_busy_us(batch->shard, took_us, lane->pace.fixed_us);
    /* The lane's state comes first: what is handed back must not find it connected. */
    const struct store_error *why = &batch->problem;
    if (state_of(lane) == LINK_UP) {
        if (batch->wants == BATCH_WANTS_PAUSE)
            lose(lane, LINK_DOWN, "PostgreSQL cannot take events now", why, INTAKE_PAUSE_MS);
        else if (!store_is_connected(batch->store))
            lose(lane, LINK_LOST, connection_lost, why, 0);
        else if (batch->wants == BATCH_WANTS_CHECKS)
            lose(lane, LINK_LOST, "the connection is made anew, to check the server", why, 0);
    }
    hand_back(lane);
    if (state_of(lane) == LINK_DOWN)
        release(lane, batch->wants == BATCH_WANTS_PAUSE);
}

static void *run_lane(void *argument)
{
    static const struct store_error closed = {.text = "PostgreSQL closed the connection"};
    struct lane *lane = argument;
    thread_set_name("lane", lane->number);
    while (!is_time_to_stop(lane)) {
        if (!attend(lane))
            continue;
        gather(lane);
        if (lane->batch.count > 0) {
            run_batch(lane);
            continue;
        }
        pace_rest(&lane->pace);
        atomic_store_explicit(&lane->event_ns, lane->event_ns / 2, memory_order_relaxed);
        if (!store_check_idle(lane->batch.store))
            lose(lane, LINK_LOST, connection_lost, &closed, 0);
    }
    pthread_mutex_lock(&lane->mutex);
    lane->has_ended = true;
    pthread_mutex_unlock(&lane->mutex);
    release(lane, true);
    return NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

static bool lane_init(struct lanes *lanes, uint32_t number, struct metrics *metrics, uint32_t shard)
{
    struct lane *lane = &lanes->lanes[number];
    struct batch *batch = &lane->batch;
    char name[24];

    lane->lanes = lanes;
    lane->number = number;
    lane->lost_mono_us = clock_mono_us();
    list_init(&lane->drained);
    pthread_mutex_init(&lane->mutex, NULL);
    thread_cond_init(&lane->changed);
    snprintf(name, sizeof(name), "lane %u", number);
    batch->config = lanes->config;
    batch->store = store_new(lanes->config, lanes->config->database.url, name);
    batch->recent = lanes->recent;
    batch->shard = metrics_shard_at(metrics, shard);
    batch->has_spool = lanes->spool != NULL;
    batch->reconnect = reconnect;
    batch->context = lane;
    batch->lane = number;
    lane->link = (struct link){.store = batch->store,
                               .mutex = &lane->mutex,
                               .changed = &lane->changed,
                               .state = LINK_LOST, /* the first try is on its way */
                               .problem = "not connected yet",
                               .part = "database"};
    if (batch->store)
        store_set_patience(batch->store, 0, &lanes->keeper_stopping);
    return turns_init(&lane->turns, lanes->config->source_count) && batch->store &&
           batch_init(batch);
}

/* A failover may have lost commits. */
static void on_connected(void *context)
{
    struct lanes *lanes = context;
    recent_forget(lanes->recent);
}

enum oh_status lanes_start(const struct config *config, struct metrics *metrics,
                           uint32_t first_shard, struct spool *spool, lanes_on_decided *on_decided,
                           void *context, struct lanes **out, struct oh_error *err)
{
    uint32_t count = config->database.lanes;
    if (count == 0 || count > LANES_MAX)
        return oh_fail(err, OH_INVALID, "database.lanes must be 1 to %d", LANES_MAX);
    struct lanes *lanes = calloc(1, sizeof(*lanes) + count * sizeof(lanes->lanes[0]));
    if (!lanes)
        return oh_fail(err, OH_NO_MEMORY, "no memory for the lanes");
    lanes->config = config;
    lanes->spool = spool;
    lanes->spread.lanes = count;
    lanes->spread.in_use = count;
    lanes->on_decided = on_decided;
    lanes->context = context;
    lanes->recent = recent_new();
    lanes->hashes = calloc(config->batch.events, sizeof(*lanes->hashes));
    enum oh_status status = lanes->recent && lanes->hashes ? OH_OK : OH_NO_MEMORY;
    for (uint32_t i = 0; status == OH_OK && i < count; i++) {
        lanes->count = i + 1;
        if (!lane_init(lanes, i, metrics, first_shard + i))
            status = OH_NO_MEMORY;
    }
    if (status == OH_OK) {
        lanes->keeper = keeper_start(config, &lanes->lanes[0].link, sizeof(lanes->lanes[0]), count,
                                     on_connected, lanes);
        status = lanes->keeper ? OH_OK : OH_SYSTEM;
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
        bool connected = state_of(lane) == LINK_UP;
        state->connected += connected;
        int64_t busy_since_us = atomic_load(&lane->busy_since_mono_us);
        bool is_stuck =
            busy_since_us && now_us - busy_since_us > lanes->config->ack_deadline_ms * 1000;
        state->idle += connected && !busy_since_us;
        state->stuck += is_stuck;
        pthread_mutex_lock(&lane->mutex);
        int64_t oldest_us = turns_oldest_us(&lane->turns, now_us);
        if (oldest_us > state->oldest_waiting_us)
            state->oldest_waiting_us = oldest_us;
        state->waiting += (uint32_t)(lane->turns.events / lanes->config->batch.events);
        if ((!connected || is_stuck) && !state->problem[0]) {
            snprintf(state->problem, sizeof(state->problem), "%s",
                     connected ? "PostgreSQL does not answer" : lane->link.problem);
            state->part = connected ? "database (it does not answer)" : lane->link.part;
        }
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
        pthread_cond_signal(&lane->changed);
        pthread_mutex_unlock(&lane->mutex);
    }
    for (uint32_t i = 0; i < lanes->count; i++)
        if (lanes->lanes[i].has_thread) {
            pthread_join(lanes->lanes[i].thread, NULL);
            lanes->lanes[i].has_thread = false;
        }
    atomic_store(&lanes->keeper_stopping, true);
    keeper_stop(lanes->keeper);
    lanes->keeper = NULL;
}

void lanes_free(struct lanes *lanes)
{
    if (!lanes)
        return;
    for (uint32_t i = 0; i < lanes->count; i++) {
        store_free(lanes->lanes[i].batch.store);
        batch_free(&lanes->lanes[i].batch);
        turns_free(&lanes->lanes[i].turns);
        pthread_cond_destroy(&lanes->lanes[i].changed);
        pthread_mutex_destroy(&lanes->lanes[i].mutex);
    }
    recent_free(lanes->recent);
    free(lanes->hashes);
    free(lanes);
}
