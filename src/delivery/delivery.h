/* SPDX-License-Identifier: Apache-2.0 */
/* A delivery: one accepted request waiting for its events. It outlives the h2o request.
 *
 * Everything that belongs to it (a copy of the body, the events, this struct) lives in one arena.
 * Owner: the http thread that made it; it lends the delivery to the lanes and gets it back exactly
 * once, when `waiting` has come to 0, and only that thread frees it. Lanes touch the events that
 * they took and the atomics, nothing else. The request may be answered (deadline) before the
 * delivery is back: http then clears `reply` and the late result only ends the delivery. */
#ifndef DELIVERY_DELIVERY_H
#define DELIVERY_DELIVERY_H

#include "base/list.h"
#include "config/config.h"

#include <stdatomic.h>

/* What became of one event. The answer's numbers are the sums of these. */
enum delivery_outcome {
    DELIVERY_UNDECIDED, /* not known to be committed: the answer is 503 */
    DELIVERY_CAPTURED,
    DELIVERY_ORPHAN, /* captured, and its enrollment is not there (yet) */
    DELIVERY_DUPLICATE,
    DELIVERY_QUARANTINED,
    DELIVERY_SPOOLED,
    DELIVERY_OUTCOME_COUNT
};

struct delivery;

/* One event on its way through a lane. */
struct delivery_event {
    struct list link;             /* in the queue of its lane, then in the lane's batch */
    struct delivery *delivery;    /* whose event it is */
    const struct oh_event *event; /* NULL: the delivery's whole body goes to quarantine */
    struct oh_slice scope;        /* key_scope, belongs to the source */
    uint64_t key_hash;            /* XXH3 of the key: finds slots, never decides equality */
    struct delivery_event *same;  /* in a batch: the first event with this key, else NULL */
    enum delivery_outcome outcome;
};

struct delivery {
    struct oh_arena *arena;
    const struct config_source *source;
    uint8_t id[16];            /* delivery_id */
    struct oh_request request; /* body and the headers kept for quarantine, copied into the arena */
    const char *unreadable;    /* why; NULL: events could be read */
    struct delivery_event *events;
    uint32_t event_count;
    uint32_t duplicates_within; /* equal keys inside this delivery, decided before lanes */
    size_t bytes;               /* what it counts for in the queue */
    size_t memory;              /* bytes of its arena when it was lent; the http thread's */
    int64_t accepted_wall_us, accepted_mono_us, deadline_mono_us;
    _Atomic uint32_t waiting; /* events that no lane has decided yet */
    _Atomic uint32_t outcomes[DELIVERY_OUTCOME_COUNT];
    uint32_t http_thread; /* who gets it back */
    void *reply;          /* the http room's own; only its thread touches it */
    struct list link;     /* in the http thread's list of waiting deliveries */
    struct delivery *next_decided;
    struct spool_chunk
        *chunk; /* it comes from the spool and goes back to its drain; NULL = http's */
};

/* A delivery in `arena` (which it owns from now on) with room for nothing yet. `body` and the
 * headers are copied. NULL when the arena is full; then the caller still owns the arena. */
struct delivery *delivery_new(struct oh_arena *arena, const struct config_source *source,
                              const struct oh_request *request, int64_t wall_us,
                              int64_t mono_us) OH_MUST_CHECK;

/* True if both have the same key in the same scope: whole bytes are compared. */
bool delivery_same_key(const struct delivery_event *a, const struct delivery_event *b);

/* Takes the extraction's events: resolves equal keys (the later one is a duplicate at once), sets
 * scopes. OH_NO_MEMORY when the arena is full. */
enum oh_status delivery_take_events(struct delivery *delivery,
                                    const struct oh_extraction *extraction) OH_MUST_CHECK;

/* Makes it a delivery of one quarantined body. `why` is copied. */
enum oh_status delivery_take_unreadable(struct delivery *delivery, const char *why) OH_MUST_CHECK;

/* Notes an event's outcome; true if it was the last of its delivery (then the caller hands the
 * delivery back). Thread: any, one call an event. */
bool delivery_decide(struct delivery_event *event, enum delivery_outcome outcome);

/* Ends the delivery with all its memory. */
void delivery_free(struct delivery *delivery);

/* The bounds of everything that waits between http and PostgreSQL: events, bytes, a source's share.
 */
struct admission;

enum admission_verdict {
    ADMISSION_OK,
    ADMISSION_FULL,      /* events or bytes: 503 */
    ADMISSION_SHARE,     /* this source holds its share: 503 */
    ADMISSION_TOO_LARGE, /* more events than the queue holds at all: 413 */
    ADMISSION_OLD,       /* what waits has waited longer than queue.age: 503 */
    ADMISSION_DOWN,      /* events are known not to be committed now: 503 */
    ADMISSION_SPOOL,     /* the same, and the spool takes none either: 503 */
    ADMISSION_STOPPING,  /* the process ends: 503 */
};

struct admission *admission_new(const struct config *config) OH_MUST_CHECK;
void admission_free(struct admission *admission);

/* Reserves room for the delivery, or says why not. Thread: any. */
enum admission_verdict admission_enter(struct admission *admission,
                                       const struct delivery *delivery);

/* Gives back what admission_enter() reserved. */
void admission_leave(struct admission *admission, const struct delivery *delivery);

/* Events inside, for metrics. */
uint64_t admission_events(const struct admission *admission);

#endif
