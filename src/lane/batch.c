/* SPDX-License-Identifier: Apache-2.0 */
/* The decisions of a batch, in their order:
 *   expired? -> known duplicate? -> equal key in this batch? -> capture, with what each answer asks
 * for. Only a known commit gives an outcome other than "undecided"; every retry has a bound; poison
 * is found by bisection, so innocent neighbours commit. */
#include "lane/batch.h"

#include "base/clock.h"
#include "log/log.h"

#include <stdlib.h>
#include <string.h>

enum {
    BACKOFF_MS = 5, /* first pause before the same batch is sent again; doubles, with jitter */
    MONTHS_AHEAD = 3,
};

bool batch_init(struct batch *batch)
{
    size_t events = batch->config->batch.events;
    batch->slot_count = 4;
    while (batch->slot_count < events * 2)
        batch->slot_count *= 2;
    batch->items = calloc(events, sizeof(struct delivery_event *));
    batch->rows = calloc(events, sizeof(struct delivery_event *));
    batch->outcomes = calloc(events, sizeof(*batch->outcomes));
    batch->slots = calloc(batch->slot_count, sizeof(*batch->slots));
    return batch->items && batch->rows && batch->outcomes && batch->slots;
}

void batch_free(struct batch *batch)
{
    free(batch->items);
    free(batch->rows);
    free(batch->outcomes);
    free(batch->slots);
}

/* ---- deciding -------------------------------------------------------------------------------- */

static void count_outcome(struct batch *batch, const struct delivery_event *event,
                          enum delivery_outcome outcome)
{
    static const enum metric_outcome metrics[DELIVERY_OUTCOME_COUNT] = {
        [DELIVERY_CAPTURED] = METRIC_OUTCOME_CAPTURED,
        [DELIVERY_ORPHAN] = METRIC_OUTCOME_ORPHAN,
        [DELIVERY_DUPLICATE] = METRIC_OUTCOME_DUPLICATE,
        [DELIVERY_QUARANTINED] = METRIC_OUTCOME_QUARANTINED,
        [DELIVERY_SPOOLED] = METRIC_OUTCOME_SPOOLED,
    };
    if (outcome == DELIVERY_QUARANTINED && !event->event)
        metrics_count_reject(batch->shard, event->delivery->source->number,
                             METRIC_REASON_UNREADABLE);
    if (outcome != DELIVERY_UNDECIDED)
        metrics_count_event(batch->shard, event->delivery->source->number, metrics[outcome], 1);
}

void batch_decide(struct batch *batch, struct delivery_event *event, enum delivery_outcome outcome)
{
    struct delivery *delivery = event->delivery;
    count_outcome(batch, event, outcome);
    if (!delivery_decide(event, outcome))
        return;
    delivery->next_decided = batch->decided;
    batch->decided = delivery;
}

static void note_problem(struct batch *batch, const char *what, const struct store_error *error,
                         size_t events)
{
    batch->problem = *error;
    LOG_RATE_LIMITED(LOG_ERROR, "lane", what, log_int("lane", batch->lane),
                     log_text("sqlstate", error->sqlstate),
                     log_text("reason", store_error_words(error)),
                     log_int("events", (int64_t)events));
}

/* Takes out the rows whose delivery has been answered by its deadline; the others keep their order.
 */
static size_t drop_expired(struct delivery_event **rows, size_t count, int64_t now_us)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (rows[i]->delivery->deadline_mono_us > now_us)
            rows[kept++] = rows[i];
        else
            rows[i]->outcome = DELIVERY_UNDECIDED;
    }
    return kept;
}

static int64_t oldest_deadline(struct delivery_event *const *rows, size_t count)
{
    int64_t oldest = INT64_MAX;
    for (size_t i = 0; i < count; i++)
        if (rows[i]->delivery->deadline_mono_us < oldest)
            oldest = rows[i]->delivery->deadline_mono_us;
    return oldest;
}

static int64_t latest_deadline(struct delivery_event *const *rows, size_t count)
{
    int64_t latest = 0;
    for (size_t i = 0; i < count; i++)
        if (rows[i]->delivery->deadline_mono_us > latest)
            latest = rows[i]->delivery->deadline_mono_us;
    return latest;
}

/* ---- capture --------------------------------------------------------------------------------- */

static void take_commit(struct batch *batch, struct delivery_event **rows, size_t count,
                        uint64_t generation, int64_t sent_us)
{
    int64_t now_us = clock_mono_us(), now_s = now_us / 1000000;
    metrics_observe_batch_events(batch->shard, (uint32_t)count);
    metrics_observe_commit_us(batch->shard, now_us - sent_us);
    for (size_t i = 0; i < count; i++) {
        uint32_t source = rows[i]->delivery->source->number;
        rows[i]->outcome = batch->outcomes[i];
        if (recent_learn(batch->recent, generation, rows[i], now_s) &&
            batch->outcomes[i] != DELIVERY_DUPLICATE)
            metrics_count_id_changed(batch->shard, source);
        if (batch->outcomes[i] != DELIVERY_DUPLICATE)
            metrics_note_last_event(batch->shard, source,
                                    rows[i]->delivery->accepted_wall_us / 1000000);
    }
}

static void quarantine_row(struct batch *batch, struct delivery_event *row,
                           const struct store_error *why)
{
    struct store_error error;
    struct oh_slice raw = row->event ? row->event->raw : row->delivery->request.body;
    const char *reason = row->event ? why->text : row->delivery->unreadable;
    enum store_action action = store_quarantine(batch->store, row->delivery, raw, reason,
                                                row->delivery->deadline_mono_us, &error);
    if (action == STORE_COMMITTED) {
        row->outcome = DELIVERY_QUARANTINED;
        return;
    }
    row->outcome = DELIVERY_UNDECIDED;
    note_problem(batch, "an event could not be quarantined", &error, 1);
}

static void pause_before_retry(uint32_t attempt)
{
    int64_t most_us = (int64_t)(BACKOFF_MS << (attempt < 6 ? attempt : 6)) * 1000;
    struct timespec pause = {.tv_nsec = (long)((clock_mono_us() * 7919) % most_us) * 1000};
    nanosleep(&pause, NULL);
}

static void capture_rows(struct batch *batch, struct delivery_event **rows, size_t count);

/* A row of these makes the whole batch fail: halve until it stands alone. */
static void bisect_rows(struct batch *batch, struct delivery_event **rows, size_t count,
                        enum store_action action, const struct store_error *error)
{
    if (count > 1) {
        capture_rows(batch, rows, count / 2);
        capture_rows(batch, rows + count / 2, count - count / 2);
    } else if (action == STORE_POISON) {
        quarantine_row(batch, rows[0], error);
    } else {
        rows[0]->outcome = DELIVERY_UNDECIDED;
        note_problem(batch, "an event was refused by the database", error, 1);
    }
}

/* One more try is allowed after `action`? Makes ready for it. */
static bool prepare_retry(struct batch *batch, enum store_action action, uint32_t attempt,
                          int64_t deadline_mono_us, const struct store_error *error)
{
    struct store_error again;
    switch (action) {
    case STORE_RETRY:
        if (strcmp(error->sqlstate, "40P01") == 0)
            metrics_count_deadlock(batch->shard);
        pause_before_retry(attempt);
        return true;
    case STORE_MAKE_MONTH:
        return store_make_months(batch->store, MONTHS_AHEAD, deadline_mono_us, &again) ==
               STORE_COMMITTED;
    case STORE_RECONNECT:
        /* Outcome unknown: the ledger makes the second try harmless. Forgotten only now: before the
         * connection, another lane could still learn what a former primary committed. */
        if (!store_connect(batch->store, deadline_mono_us, &again))
            return false;
        recent_forget(batch->recent);
        return true;
    default:
        return false;
    }
}

/* Gives each row an outcome. Bisection goes at most log2(batch) deep. */
static void capture_rows(struct batch *batch, struct delivery_event **rows, size_t count)
{
    struct store_error error = {.sqlstate = ""};
    enum store_action action = STORE_RECONNECT;

    for (uint32_t attempt = 0; attempt <= batch->config->database.retries; attempt++) {
        int64_t sent_us = clock_mono_us();
        count = drop_expired(rows, count, sent_us);
        if (count == 0)
            return;
        int64_t deadline_us = latest_deadline(rows, count);
        uint64_t generation = recent_generation(batch->recent);
        action = store_capture(batch->store, rows, count, batch->outcomes,
                               oldest_deadline(rows, count), &error);
        if (action == STORE_COMMITTED) {
            take_commit(batch, rows, count, generation, sent_us);
            return;
        }
        if (action == STORE_POISON || action == STORE_REFUSED) {
            bisect_rows(batch, rows, count, action, &error);
            return;
        }
        if (attempt == batch->config->database.retries ||
            !prepare_retry(batch, action, attempt, deadline_us, &error))
            break;
    }
    /* Our fault too: the checks at the next connection say what is wrong, and readyz with them. */
    batch->intake_stopped |= action == STORE_STOP_INTAKE || action == STORE_OUR_FAULT;
    note_problem(batch, "a batch was not committed", &error, count);
    for (size_t i = 0; i < count; i++)
        rows[i]->outcome = DELIVERY_UNDECIDED;
}

/* ---- one batch ------------------------------------------------------------------------------- */

/* The row of this batch that has the item's key, or NULL after the item became it. */
static struct delivery_event *find_same(struct batch *batch, struct delivery_event *item,
                                        uint32_t number)
{
    uint32_t at = (uint32_t)item->key_hash & (batch->slot_count - 1);
    while (batch->slots[at]) {
        struct delivery_event *other = batch->items[batch->slots[at] - 1];
        if (delivery_same_key(other, item))
            return other;
        at = (at + 1) & (batch->slot_count - 1);
    }
    batch->slots[at] = number + 1;
    return NULL;
}

/* Sorts out what need not be sent; returns the number of rows. */
static size_t select_rows(struct batch *batch)
{
    int64_t now_us = clock_mono_us();
    size_t rows = 0;
    if (batch->count > 1)
        memset(batch->slots, 0, batch->slot_count * sizeof(*batch->slots));
    for (size_t i = 0; i < batch->count; i++) {
        struct delivery_event *item = batch->items[i];
        item->outcome = DELIVERY_UNDECIDED;
        item->same = NULL;
        if (item->delivery->deadline_mono_us <= now_us)
            continue;
        if (!item->event) {
            quarantine_row(batch, item, NULL);
            continue;
        }
        if (recent_has(batch->recent, item, now_us / 1000000)) {
            item->outcome = DELIVERY_DUPLICATE;
            continue;
        }
        if (batch->count > 1)
            item->same = find_same(batch, item, (uint32_t)i);
        if (!item->same)
            batch->rows[rows++] = item;
    }
    return rows;
}

/* The outcome of an event whose key another event of the batch carried to the database. */
static enum delivery_outcome outcome_of_same(const struct delivery_event *first)
{
    switch (first->outcome) {
    case DELIVERY_CAPTURED:
    case DELIVERY_ORPHAN:
    case DELIVERY_DUPLICATE:
        return DELIVERY_DUPLICATE;
    default:
        /* Undecided, or poison that this one need not share: the provider sends it again. */
        return DELIVERY_UNDECIDED;
    }
}

void batch_run(struct batch *batch)
{
    batch->intake_stopped = false;
    size_t rows = select_rows(batch);
    if (rows > 0)
        capture_rows(batch, batch->rows, rows);
    for (size_t i = 0; i < batch->count; i++)
        if (batch->items[i]->same)
            batch->items[i]->outcome = outcome_of_same(batch->items[i]->same);
    /* Handed over last and once: a delivery that is handed back may be gone at once. */
    for (size_t i = 0; i < batch->count; i++)
        batch_decide(batch, batch->items[i], batch->items[i]->outcome);
    batch->count = 0;
}
