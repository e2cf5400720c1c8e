/* SPDX-License-Identifier: Apache-2.0 */
/* One batch of a lane: what is sent to PostgreSQL together, and what its answer means for each
 * event. Runs in the lane's thread; blocks at most as long as the deliveries' deadlines allow. */
#ifndef LANE_BATCH_H
#define LANE_BATCH_H

#include "lane/recent.h"
#include "metrics/metrics.h"
#include "store/store.h"

/* What a batch asks of its lane's connection afterwards. */
enum batch_wants {
    BATCH_WANTS_NOTHING,
    BATCH_WANTS_CHECKS, /* our fault: the checks of a new connection say what is wrong */
    BATCH_WANTS_PAUSE,  /* the server is out of something: back off */
};

/* What a batch works with; owned by the lane. */
struct batch {
    const struct config *config;
    struct store *store;
    struct recent *recent;
    struct metrics_shard *shard;
    bool has_spool; /* what PostgreSQL cannot take now is turned away to it */
    /* Waits for a new connection until the deadline (monotonic µs); false: there is none. */
    bool (*reconnect)(void *context, int64_t deadline_mono_us, const struct store_error *why);
    void *context;
    uint32_t lane;                 /* for logs */
    struct delivery_event **items; /* [config->batch.events] gathered, as the turns came */
    size_t count;
    struct delivery_event **rows;    /* [config->batch.events] those that are sent */
    enum delivery_outcome *outcomes; /* [config->batch.events] */
    uint32_t *slots;                 /* for equal keys: [slot_count] */
    uint32_t slot_count;             /* power of two, at least twice the events */
    /* While it runs. */
    size_t sent;              /* rows that went to PostgreSQL as events; valid after batch_run() */
    bool has_locked;          /* it locked rows of counters, as duplicates do, too; likewise */
    uint32_t commits, faults; /* statements */
    uint32_t settled;         /* rows that bisecting or the quarantine has come to an end with */
    int64_t bisect_until_mono_us; /* 0 = nothing was bisected yet */
    struct store_error fault;     /* why a row is faulty */
    /* What comes out. */
    struct delivery *decided; /* chain of deliveries whose last event is decided */
    struct list turned_away;  /* events for the spool */
    size_t turned_away_count;
    struct list again; /* events for another batch: bisecting took too long */
    size_t again_count;
    enum batch_wants wants;
    struct store_error problem; /* why, for health */
};

/* Allocates the arrays of a zeroed batch whose members up to `lane` are set. */
bool batch_init(struct batch *batch) OH_MUST_CHECK;
void batch_free(struct batch *batch);

/* Runs every gathered event. Afterwards `count` is 0, each event is decided or in one of the two
 * lists, `decided` holds what can be handed back, and the store may have lost its connection
 * (store_is_connected). */
void batch_run(struct batch *batch);

/* An event that cannot go to PostgreSQL now: to turned_away if there is a spool, it does not come
 * from there and its deadline has not passed; else it is decided undecided. */
void batch_turn_away(struct batch *batch, struct delivery_event *event, int64_t now_mono_us);

#endif
