/* SPDX-License-Identifier: Apache-2.0 */
/* One batch of a lane: what is sent to PostgreSQL together, and what its answer means for each
 * event. Runs in the lane's thread; blocks at most as long as the deliveries' deadlines allow. */
#ifndef LANE_BATCH_H
#define LANE_BATCH_H

#include "lane/recent.h"
#include "metrics/metrics.h"
#include "store/store.h"

/* What a batch works with; owned by the lane. */
struct batch {
    const struct config *config;
    struct store *store;
    struct recent *recent;
    struct metrics_shard *shard;
    uint32_t lane;                 /* for logs */
    struct delivery_event **items; /* [config->batch.events] gathered, in the order they came */
    size_t count;
    struct delivery_event **rows;    /* [config->batch.events] those that are sent */
    enum delivery_outcome *outcomes; /* [config->batch.events] */
    uint32_t *slots;                 /* for equal keys: [slot_count] */
    uint32_t slot_count;             /* power of two, at least twice the events */
    struct delivery *decided;        /* chain of deliveries whose last event is decided */
    bool intake_stopped;             /* the server is out of something: back off */
    struct store_error problem;      /* why, for health */
};

/* Allocates the arrays of a zeroed batch whose first five members are set. */
bool batch_init(struct batch *batch) OH_MUST_CHECK;
void batch_free(struct batch *batch);

/* Decides every gathered event. Afterwards `count` is 0, `decided` holds what can be handed back,
 * and the store may have lost its connection (store_is_connected). */
void batch_run(struct batch *batch);

/* Decides one event without the database, for what waits too long. */
void batch_decide(struct batch *batch, struct delivery_event *event, enum delivery_outcome outcome);

#endif
