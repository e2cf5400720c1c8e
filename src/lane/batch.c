/* SPDX-License-Identifier: Apache-2.0 */
/* The decisions of a batch, in their order:
 *   expired? -> known duplicate? -> equal key in this batch? -> capture, with what each answer asks
 * for -> quarantine. Only a known commit gives a final outcome; every retry has a bound; poison is
 * found by bisection, so innocent neighbours commit.
 *
 * What bisection costs: a batch of n bad rows is 2n - 1 statements that fail and n that quarantine.
 * A lane is not held that long: after BISECT_MS, and at least one row decided, the others go back
 * to the end of the queue. So an event that comes while bad ones are sorted out is decided with the
 * next batch, which begins after at most BISECT_MS and a statement, and takes no longer than that:
 * at worst 2 * BISECT_MS and two statements more, however many bad ones there are. */
#include "lane/batch.h"

#include "base/clock.h"
#include "log/log.h"

#include <stdlib.h>
#include <string.h>

enum {
    BACKOFF_MS = 5, /* first pause before the same batch is sent again; doubles, with jitter */
    MONTHS_AHEAD = 3,
    BISECT_MS = 100, /* below queue.age, so that new events are not refused meanwhile */
};

/* What a row can be while its batch runs, beside its final outcome; DELIVERY_SPOOLED there means
 * that PostgreSQL could not take it now. */
enum {
    ROW_AGAIN = DELIVERY_OUTCOME_COUNT, /* undecided when the time for bisecting was over */
    ROW_FAULTY,                         /* failed alone with our fault, or a user's trigger's */
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
    list_init(&batch->turned_away);
    list_init(&batch->again);
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

static void decide(struct batch *batch, struct delivery_event *event, enum delivery_outcome outcome)
{
    struct delivery *delivery = event->delivery;
    count_outcome(batch, event, outcome);
    if (!delivery_decide(event, outcome))
        return;
    delivery->next_decided = batch->decided;
    batch->decided = delivery;
}

void batch_turn_away(struct batch *batch, struct delivery_event *event, int64_t now_mono_us)
{
    if (batch->has_spool && !event->delivery->chunk &&
        event->delivery->deadline_mono_us > now_mono_us) {
        list_push_tail(&batch->turned_away, &event->link);
        batch->turned_away_count++;
    } else {
        decide(batch, event, DELIVERY_UNDECIDED);
    }
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
    batch->commits++;
    batch->settled += (uint32_t)count;
    metrics_observe_batch_events(batch->shard, (uint32_t)count);
    metrics_observe_commit_us(batch->shard, now_us - sent_us);
    for (size_t i = 0; i < count; i++) {
        const struct oh_event *event = rows[i]->event;
        uint32_t source = rows[i]->delivery->source->number;
        rows[i]->outcome = batch->outcomes[i];
        batch->has_locked |=
            (event->has_enrollment || event->has_instance) && batch->outcomes[i] != DELIVERY_ORPHAN;
        if (recent_learn(batch->recent, generation, rows[i], now_s) &&
            batch->outcomes[i] != DELIVERY_DUPLICATE)
            metrics_count_id_changed(batch->shard, source);
        if (batch->outcomes[i] != DELIVERY_DUPLICATE)
            metrics_note_last_event(batch->shard, source,
                                    rows[i]->delivery->accepted_wall_us / 1000000);
    }
}

static void quarantine_row(struct batch *batch, struct delivery_event *row, const char *reason)
{
    struct store_error error;
    struct oh_slice raw = row->event ? row->event->raw : row->delivery->request.body;
    int64_t deadline_us = clock_mono_us() + batch->config->ack_deadline_ms * 1000;
    if (row->delivery->deadline_mono_us < deadline_us)
        deadline_us = row->delivery->deadline_mono_us;
    enum store_action action =
        store_quarantine(batch->store, row->delivery, raw, reason, deadline_us, &error);
    row->outcome = DELIVERY_QUARANTINED;
    if (action == STORE_COMMITTED)
        return;
    row->outcome = action == STORE_RETRY ? DELIVERY_UNDECIDED : DELIVERY_SPOOLED;
    if (action == STORE_STOP_INTAKE)
        batch->wants = BATCH_WANTS_PAUSE;
    note_problem(batch, "an event could not be quarantined", &error, 1);
}

/* A row that will never be captured as it is. Its provider sends it again, which gives whoever made
 * the constraint time to mend it; nobody does for one that comes from the spool. */
static void refuse_row(struct batch *batch, struct delivery_event *row,
                       const struct store_error *error)
{
    note_problem(batch, "an event was refused by the database", error, 1);
    if (row->delivery->chunk)
        quarantine_row(batch, row, error->text);
    else
        row->outcome = DELIVERY_UNDECIDED;
}

static void pause_before_retry(uint32_t attempt)
{
    int64_t most_us = (int64_t)(BACKOFF_MS << (attempt < 6 ? attempt : 6)) * 1000;
    struct timespec pause = {.tv_nsec = (long)((clock_mono_us() * 7919) % most_us) * 1000};
    nanosleep(&pause, NULL);
}

static void set_outcomes(struct delivery_event **rows, size_t count, int outcome)
{
    for (size_t i = 0; i < count; i++)
        rows[i]->outcome = (enum delivery_outcome)outcome;
}

static void capture_rows(struct batch *batch, struct delivery_event **rows, size_t count);

/* A row of these makes the whole batch fail: halve until it stands alone. */
static void bisect_rows(struct batch *batch, struct delivery_event **rows, size_t count,
                        enum store_action action, const struct store_error *error)
{
    if (batch->bisect_until_mono_us == 0)
        batch->bisect_until_mono_us = clock_mono_us() + BISECT_MS * 1000;
    if (count > 1) {
        capture_rows(batch, rows, count / 2);
        capture_rows(batch, rows + count / 2, count - count / 2);
        return;
    }
    batch->settled++;
    if (action == STORE_POISON) {
        quarantine_row(batch, rows[0], error->text);
    } else if (action == STORE_REFUSED) {
        refuse_row(batch, rows[0], error);
    } else {
        batch->fault = *error;
        set_outcomes(rows, 1, ROW_FAULTY);
    }
}

/* One more try is allowed after `action`? Makes ready for it. */
static bool prepare_retry(struct batch *batch, enum store_action action, uint32_t attempt,
                          int64_t deadline_mono_us, struct store_error *error)
{
    enum store_action made;
    switch (action) {
    case STORE_RETRY:
        if (strcmp(error->sqlstate, "40P01") == 0)
            metrics_count_deadlock(batch->shard);
        pause_before_retry(attempt);
        return true;
    case STORE_MAKE_MONTH:
        made = store_make_months(batch->store, MONTHS_AHEAD, deadline_mono_us, error);
        if (made != STORE_COMMITTED && made != STORE_RECONNECT)
            batch->wants = BATCH_WANTS_PAUSE; /* nothing can be captured: *error says why */
        return made == STORE_COMMITTED;
    case STORE_RECONNECT:
        /* Outcome unknown: the ledger makes the second try harmless. The filter forgets
         * after the connection is made and before it is used: earlier, another lane could still
         * learn what a former primary committed. */
        return batch->reconnect(batch->context, deadline_mono_us, error);
    default:
        return false;
    }
}

/* With a spool, a server that stands still is given up while there is time to write there. */
static int64_t give_up_at(const struct batch *batch, int64_t oldest_deadline_us, int64_t now_us)
{
    if (!batch->has_spool)
        return INT64_MAX;
    int64_t margin_us = batch->config->ack_deadline_ms * 1000 / 4;
    int64_t at_us = oldest_deadline_us - margin_us;
    return at_us > now_us + margin_us ? at_us : now_us + margin_us;
}

/* True once there is no doubt that all rows fail and not some: two single ones have come to their
 * end (log2 of the batch above them), another one fails, and nothing was committed. */
static bool fails_for_all(const struct batch *batch)
{
    uint32_t depth = 0;
    while ((size_t)1 << depth < batch->count)
        depth++;
    return batch->commits == 0 && batch->faults > depth + 2;
}

/* The time for bisecting is over, and it has come to an end with at least one row. */
static bool is_bisected_enough(const struct batch *batch, int64_t now_us)
{
    return batch->bisect_until_mono_us && now_us > batch->bisect_until_mono_us &&
           batch->settled > 0;
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
        if (is_bisected_enough(batch, sent_us)) {
            set_outcomes(rows, count, ROW_AGAIN);
            return;
        }
        int64_t most_us = sent_us + batch->config->ack_deadline_ms * 1000;
        int64_t latest_us = latest_deadline(rows, count), oldest_us = oldest_deadline(rows, count);
        uint64_t generation = recent_generation(batch->recent);
        action = store_capture(batch->store, rows, count, batch->outcomes, oldest_us,
                               give_up_at(batch, oldest_us, sent_us), &error);
        if (action == STORE_COMMITTED) {
            take_commit(batch, rows, count, generation, sent_us);
            return;
        }
        batch->faults += action == STORE_OUR_FAULT;
        if (action == STORE_POISON || action == STORE_REFUSED ||
            (action == STORE_OUR_FAULT && !fails_for_all(batch))) {
            bisect_rows(batch, rows, count, action, &error);
            return;
        }
        if (attempt == batch->config->database.retries ||
            !prepare_retry(batch, action, attempt, latest_us < most_us ? latest_us : most_us,
                           &error))
            break;
    }
    if (action == STORE_STOP_INTAKE)
        batch->wants = BATCH_WANTS_PAUSE;
    note_problem(batch, "a batch was not committed", &error, count);
    /* Slow, and there: that is overload. Anything else is an outage. */
    set_outcomes(rows, count, action == STORE_RETRY ? DELIVERY_UNDECIDED : DELIVERY_SPOOLED);
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
        if (!item->event)
            continue;
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

/* Bodies that no event could be read from; after the events, which must not wait for them. */
static void quarantine_bodies(struct batch *batch)
{
    int64_t until_us = clock_mono_us() + BISECT_MS * 1000;
    size_t done = 0;
    for (size_t i = 0; i < batch->count; i++) {
        struct delivery_event *item = batch->items[i];
        int64_t now_us = clock_mono_us();
        if (item->event || item->delivery->deadline_mono_us <= now_us)
            continue;
        if (done++ > 0 && now_us > until_us)
            item->outcome = (enum delivery_outcome)ROW_AGAIN;
        else
            quarantine_row(batch, item, item->delivery->unreadable);
    }
}

/* A row that failed alone with our fault: where others were committed, it is this row that a
 * trigger of the user's stumbles over; else nobody can tell, and it waits for a person. */
static void settle_faulty(struct batch *batch)
{
    bool has_faulty = false;
    for (size_t i = 0; i < batch->count; i++) {
        struct delivery_event *item = batch->items[i];
        if ((int)item->outcome != ROW_FAULTY)
            continue;
        has_faulty = true;
        if (batch->commits > 0)
            refuse_row(batch, item, &batch->fault);
        else
            item->outcome = DELIVERY_SPOOLED;
    }
    if (!has_faulty || batch->commits > 0)
        return;
    note_problem(batch, "a batch was not committed", &batch->fault, batch->count);
    batch->wants = BATCH_WANTS_CHECKS;
}

/* The outcome of an event whose key another event of the batch carried to the database. */
static enum delivery_outcome outcome_of_same(const struct delivery_event *first)
{
    switch ((int)first->outcome) {
    case DELIVERY_CAPTURED:
    case DELIVERY_ORPHAN:
    case DELIVERY_DUPLICATE:
        return DELIVERY_DUPLICATE;
    case DELIVERY_SPOOLED:
    case ROW_AGAIN:
        return first->outcome;
    default:
        /* Undecided, or poison that this one need not share: the provider sends it again. */
        return DELIVERY_UNDECIDED;
    }
}

/* Lets go of an event; its delivery may be gone afterwards. */
static void let_go(struct batch *batch, struct delivery_event *item, int64_t now_us)
{
    if (item->outcome == DELIVERY_SPOOLED) {
        batch_turn_away(batch, item, now_us);
    } else if ((int)item->outcome != ROW_AGAIN) {
        decide(batch, item, item->outcome);
    } else if (item->delivery->chunk) {
        decide(batch, item, DELIVERY_UNDECIDED); /* its drain feeds it again */
    } else {
        list_push_tail(&batch->again, &item->link);
        batch->again_count++;
    }
}

void batch_run(struct batch *batch)
{
    batch->wants = BATCH_WANTS_NOTHING;
    batch->commits = batch->faults = batch->settled = 0;
    batch->has_locked = false;
    batch->bisect_until_mono_us = 0;
    batch->sent = select_rows(batch);
    if (batch->sent > 0)
        capture_rows(batch, batch->rows, batch->sent);
    quarantine_bodies(batch);
    settle_faulty(batch);
    for (size_t i = 0; i < batch->count; i++)
        if (batch->items[i]->same)
            batch->items[i]->outcome = outcome_of_same(batch->items[i]->same);
    /* Last and once: a delivery that is handed back may be gone at once. */
    int64_t now_us = clock_mono_us();
    for (size_t i = 0; i < batch->count; i++)
        let_go(batch, batch->items[i], now_us);
    batch->count = 0;
}
