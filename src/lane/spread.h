/* SPDX-License-Identifier: Apache-2.0 */
/* Over how many lanes events are spread: one while they are few, all when one is not enough or is
 * held up (docs/adr/0018-lanes-in-use.md). A batch costs PostgreSQL the work of about five events
 * beside its own, so what one lane can do is not divided. */
#ifndef LANE_SPREAD_H
#define LANE_SPREAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SPREAD_EVENTS = 64,      /* so many at once: one lane alone is not enough any more */
    SPREAD_JOIN_EVENTS = 48, /* fewer at once: one gets them as well */
    SPREAD_LOAD_MAX = 256,   /* more need not be remembered longer */
    /* A batch that is with PostgreSQL for longer is not waited for. */
    SPREAD_HELD_UP_US = 20000,
    /* The fixed part of a batch is waiting then, for a standby or a network, and no work. */
    SPREAD_FIXED_US = 8000,
    SPREAD_KEPT_WORDS = 16, /* 1,024 bits: of a batch of 64 one event in sixteen is taken for it */
};

/* Zeroed, but for lanes; in_use = lanes. */
struct spread {
    uint32_t lanes;
    _Atomic uint32_t in_use; /* so many get new events, from the first: one, or all */
    /* What is with PostgreSQL from the first lane since it was alone: a bit for each hash. More of
       these follows it there, so that a row that somebody holds stops one lane only. */
    _Atomic uint64_t kept[SPREAD_KEPT_WORDS];
    /* The first lane's thread's own: the most events that were with PostgreSQL at once, fading with
       each time of fewer; and whether it was alone when it gathered last, so that the rest of it
       may be in the next batch. */
    size_t load;
    bool was_alone;
};

/* The lane, 0 to lanes - 1, for an event of this hash (of its instance), which comes in a delivery
 * of so many events. busy_us: how long the first lane's batch has been with PostgreSQL, 0 = none
 * is. Thread: any. */
uint32_t spread_choose(struct spread *spread, uint64_t hash, size_t events, int64_t busy_us);

/* The first lane has gathered a batch, of these hashes; in_flight: events of the other lanes'
 * batches; needs_all: more waits than it took, or another lane is held up; fixed_us: what a batch
 * takes beside its events. Thread: the first lane's. */
void spread_note(struct spread *spread, const uint64_t *hashes, size_t count, size_t in_flight,
                 bool needs_all, int64_t fixed_us);

/* The first lane's connection is lost, or its batch is over and took long: nothing of it is with
 * PostgreSQL, and all lanes are needed for now. Thread: the first lane's. */
void spread_let_go(struct spread *spread);

#endif
