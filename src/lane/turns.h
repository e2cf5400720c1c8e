/* SPDX-License-Identifier: Apache-2.0 */
/* What waits in a lane: a queue for each source, which take turns. A batch takes one event of each,
 * so a source waits behind as many events of each other one as it has itself, however many those
 * have.
 *
 * Not locked: the lane's mutex guards it. The counts may be read without. */
#ifndef LANE_TURNS_H
#define LANE_TURNS_H

#include "base/list.h"
#include "delivery/delivery.h"

#include <stdatomic.h>

/* The new events of one source. */
struct source_queue {
    struct list events;             /* oldest first */
    struct list link;               /* in `order` while there are events */
    _Atomic size_t count;           /* of events */
    _Atomic int64_t oldest_mono_us; /* when the first was accepted; 0 = there is none */
};

struct turns {
    struct source_queue *queues; /* [source_count] */
    struct list order;           /* the queues that have events, the next one first */
    _Atomic size_t waiting;      /* how many those are */
    _Atomic size_t events;       /* in all queues */
};

/* False: no memory. Free it in any case. */
bool turns_init(struct turns *turns, size_t source_count) OH_MUST_CHECK;
void turns_free(struct turns *turns);

bool turns_is_empty(const struct turns *turns);

/* Appends `count` events, all of one source. */
void turns_put(struct turns *turns, uint32_t source, struct list *events, size_t count);

/* The event whose turn it is, still in its queue; NULL = there is none. */
struct delivery_event *turns_next(const struct turns *turns);

/* Takes that event out; the turn goes to the next source. */
void turns_take(struct turns *turns);

/* Moves to `taken` what has passed its deadline, or everything. */
void turns_expire(struct turns *turns, bool all, int64_t now_mono_us, struct list *taken);

/* How many events are sent before one of this source that comes now, at most. Without the lock. */
size_t turns_before(const struct turns *turns, uint32_t source);

/* Age of the oldest event; 0 = there is none. */
int64_t turns_oldest_us(const struct turns *turns, int64_t now_mono_us);

#endif
