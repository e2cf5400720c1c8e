/* SPDX-License-Identifier: Apache-2.0 */
/* How long a segment that cannot be read is tried again before a record of it counts as lost. A
 * disk that does not read now may read later, and what lies on it is not lost by waiting. Pure: it
 * is told what came of the last try, and the time. */
#ifndef SPOOL_PATIENCE_H
#define SPOOL_PATIENCE_H

#include "spool/segment.h"

enum {
    PATIENCE_TRIES = 3, /* of a number more, once the time is over */
    PATIENCE_LOOKS = 1, /* of damage more: a second look shows whether it is any */
};

/* Of one segment; zero at its beginning. */
struct patience {
    int64_t failing_since_us; /* an I/O error, no record being read since; 0 = none */
    bool is_over;
    uint64_t number;   /* that failed last */
    unsigned failures; /* how often, where that counts */
    uint64_t given_up; /* the last number that was; 0 = a record was read since */
};

/* Number `number` could not be read: whether the segment is opened and read again. False: the
 * number may be given up. An I/O error is waited out for most_us without a record in between; then
 * a number has some tries more, but those next to one that was given up have none: a bad stretch
 * would take hours. No memory, no descriptor, no room say nothing about the segment, and are waited
 * for without end. */
static inline bool patience_tries_again(struct patience *patience, enum segment_result result,
                                        uint64_t number, int64_t now_us, int64_t most_us)
{
    if (result == SEGMENT_AGAIN || result == SEGMENT_FULL) {
        patience->failing_since_us = 0;
        return true;
    }
    if (result == SEGMENT_FAILED) {
        if (patience->failing_since_us == 0)
            patience->failing_since_us = now_us;
        patience->is_over |= now_us - patience->failing_since_us >= most_us;
        if (!patience->is_over)
            return true;
        if (patience->given_up && number == patience->given_up + 1)
            return false;
    }
    if (patience->number != number) {
        patience->number = number;
        patience->failures = 0;
    }
    return patience->failures++ < (result == SEGMENT_FAILED ? PATIENCE_TRIES : PATIENCE_LOOKS);
}

/* A record was read. The time stays over where it is: one bad page after the other would cost it.
 */
static inline void patience_note_record(struct patience *patience)
{
    patience->failing_since_us = 0;
    patience->given_up = 0;
}

#endif
