/* SPDX-License-Identifier: Apache-2.0 */
/* How long a lane's batches take, learned from those that ran: how large the next one may be, and
 * what a newcomer would wait. Pure: it is told sizes and times, and has no clock of its own.
 *
 * A batch takes a fixed part (round trip, commit, a standby's answer) and a part for each event.
 * Batches of different sizes tell them apart. */
#ifndef LANE_PACE_H
#define LANE_PACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PACE_LARGE_BATCH = 32, /* events; from here on a batch shows what an event takes */
    /* What comes while a batch runs waits for it. Long enough that the fixed part of a local
       server's batch is a few hundredths of it. */
    PACE_BATCH_US = 20000,
    /* While several sources wait: each waits for the rest of one batch and for its own, so short
       ones keep a flood of one from delaying the others. */
    PACE_SHARED_US = 8000,
    PACE_PROBE = 16, /* every so many batches one of twice the size, to tell the parts apart */
    PACE_SHARED_PARTS = 2,
    PACE_FIXED_PARTS = 3, /* a batch that is cut takes at least so many times its fixed part */
    /* Events from the spool in a batch, at most: while new ones wait, or where such batches lock
       rows of counters, for which lanes wait for each other the more the larger they are; else. */
    PACE_DRAIN_FEW = 128,
    PACE_DRAIN_MANY = 512,
};

/* Zero = nothing is known yet. */
struct pace {
    int64_t fixed_us; /* what a batch takes beside its events */
    /* What an event of a large batch takes, its share of the fixed part included; smoothed. */
    int64_t event_ns;
    /* Sums over the batches that ran, older ones fading: how many, events, events squared, time,
       events by time. A line through them has the fixed part where there are no events. */
    double batches, events, events_squared, us, events_us;
    double large_events, large_us; /* the same of large batches alone */
    uint32_t number;               /* of the batch */
    size_t drained; /* events from the spool that a batch may hold; less than _FEW is that */
};

/* A batch of `count` events took so long. */
void pace_note(struct pace *pace, size_t count, int64_t took_us);

/* Nothing has come for a while: what large batches took is worth less, and believed less, each
 * time. The next batch may be as large as before. */
void pace_rest(struct pace *pace);

/* How many events the next batch may hold, PACE_LARGE_BATCH to `most`. is_shared: several sources
 * wait, or did a moment ago. */
size_t pace_batch_events(const struct pace *pace, bool is_shared, size_t most);

/* Of how many events each kind may be in a batch of `most`. */
struct pace_shares {
    size_t fresh, drained;
};

/* has_fresh: new events wait; has_drained: events from the spool do. While both do, a sixteenth is
 * left to the spool, so that it comes to its end under any load, and it makes no batch much longer
 * that new events wait for. */
struct pace_shares pace_share(const struct pace *pace, size_t most, bool has_fresh,
                              bool has_drained);

/* A batch is over that locked rows of counters, or failed, or that locked none. */
void pace_note_locks(struct pace *pace, bool has_locked);

/* What an event that comes now waits for its commit, in 99 of 100 cases: what is left of the batch
 * of `in_flight` events that has been with PostgreSQL for elapsed_us, the `before` events that are
 * taken before it, and its own batch. event_ns and fixed_us are those of the pace. */
int64_t pace_wait_us(int64_t event_ns, int64_t fixed_us, size_t in_flight, int64_t elapsed_us,
                     size_t before);

#endif
