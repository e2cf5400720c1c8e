/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper connects: one thread for all lanes, so that no lane is ever held by a connect, by a
 * name server or by a host that drops packets, and what waits in a lane is attended to meanwhile.
 *
 * One lane's connection at a time is the probe. While it fails, the others wait and PostgreSQL is
 * asked once per pause (full jitter, at most 250 ms); after its success they follow at once. A
 * server that has no month for new events, and cannot be given one, is no better than one that is
 * away. */
#ifndef LANE_KEEPER_H
#define LANE_KEEPER_H

#include "store/store.h"

#include <pthread.h>
#include <stdatomic.h>

enum link_state {
    LINK_UP,   /* the store belongs to the lane */
    LINK_LOST, /* just lost: the keeper tries for the first time, the lane still takes events */
    LINK_DOWN, /* known to be away; the keeper goes on trying */
};

/* A lane's connection. Whoever changes `state` or `problem` holds *mutex; *changed is signalled. */
struct link {
    struct store *store; /* the lane's while the state is LINK_UP, else the keeper's */
    pthread_mutex_t *mutex;
    pthread_cond_t *changed;
    _Atomic enum link_state state;
    int64_t not_before_mono_us; /* no try before that */
    char problem[256];          /* why it is not connected, "" = it is */
    const char *part;           /* of the database that is not well; static */
};

struct keeper;

/* Called by the keeper's thread before a link is LINK_UP. */
typedef void keeper_on_connected(void *context);

/* Starts the thread. The links are links[i * stride] bytes apart (they stand in the lanes), all in
 * LINK_LOST, and must outlive the keeper. NULL when that fails. */
struct keeper *keeper_start(const struct config *config, struct link *first, size_t stride,
                            uint32_t count, keeper_on_connected *on_connected,
                            void *context) OH_MUST_CHECK;

/* Hands the link's store over to be connected again, now or after pause_ms. `state` is LINK_LOST or
 * LINK_DOWN. Thread: the lane's. */
void keeper_take(struct keeper *keeper, struct link *link, enum link_state state,
                 const struct store_error *why, int64_t pause_ms);

/* Ends the thread; a connect in progress is given up by its store's stop flag. NULL is allowed. */
void keeper_stop(struct keeper *keeper);

#endif
