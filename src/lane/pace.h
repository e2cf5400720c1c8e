/* SPDX-License-Identifier: Apache-2.0 */
/* How long a lane's batches take, learned from those that ran: how large the next one may be, and
 * what a newcomer would wait. Pure: it is told sizes and times, and has no clock of its own.
 *
 * A batch takes a fixed part (round trip, commit, a standby's answer) and a part for each event.
 * Small batches show the first, large ones the second. */
#ifndef LANE_PACE_H
#define LANE_PACE_H

#include <stddef.h>
#include <stdint.h>

enum {
    PACE_LARGE_BATCH = 64, /* events; from here on a batch shows what an event takes */
    /* What comes while a batch runs waits for it. Long enough that the fixed part of a local
       server's batch is a few hundredths of it. */
    PACE_BATCH_US = 20000,
    PACE_FIXED_PARTS = 3, /* a batch that is cut takes at least so many times its fixed part */
};

/* Zero = nothing is known yet. */
struct pace {
    int64_t fixed_us; /* what a small batch takes, smoothed */
    int64_t
        event_ns; /* what an event of a large batch takes, its share of the fixed part included */
};

/* A batch of `count` events took so long. */
void pace_note(struct pace *pace, size_t count, int64_t took_us);

/* How many events the next batch may hold, PACE_LARGE_BATCH to `most`. */
size_t pace_batch_events(const struct pace *pace, size_t most);

#endif
