/* SPDX-License-Identifier: Apache-2.0 */
/* How long a segment that cannot be read is tried again before a record of it counts as lost. A
 * disk that does not read now may read later, and what lies on it is not lost by waiting. Pure: it
 * is told what came of the last try, and the time. */
#ifndef SPOOL_PATIENCE_H
#define SPOOL_PATIENCE_H

#include "spool/segment.h"

enum {
    PATIENCE_TRIES = 3,             /* of a number more, once the time is over */
    PATIENCE_LOOKS = 1,             /* of damage more: a second look shows whether it is any */
    PATIENCE_STRETCH = 64,          /* numbers given up without tries: some pages of records */
    PATIENCE_GAP_US = 60 * 1000000, /* between two tries, what counts of it at most */
};

/* Of one segment; zero at its beginning. */
struct patience {
    int64_t failed_at_us; /* the last I/O error, no record being read since; 0 = none */
    int64_t failing_us;   /* how long it was tried since the first of them */
    bool is_over;
    uint64_t number;   /* that failed last */
    unsigned failures; /* how often, where that counts */
    uint64_t given_up; /* the last number that was; 0 = a record was read since */
    unsigned untried;  /* how many without a try */
};

/* Number `number` could not be read: whether the segment is opened and read again. False: the
 * number may be given up. An I/O error is waited out for most_us without a record in between, while
 * it is tried (the drain may rest for hours between two tries, which are no patience); then a
 * number has some tries more, but those next to one that was given up have none, or a bad stretch
 * would take hours; not so many that a disk that is away for seconds costs a segment. No memory, no
 * descriptor, no room say nothing about the segment, and are waited for without end. */
static inline bool patience_tries_again(struct patience *patience, enum segment_result result,
                                        uint64_t number, int64_t now_us, int64_t most_us)
{
    if (result == SEGMENT_AGAIN || result == SEGMENT_FULL) {
        patience->failed_at_us = patience->failing_us = 0;
        return true;
    }
    if (result == SEGMENT_FAILED) {
        int64_t gap_us = patience->failed_at_us ? now_us - patience->failed_at_us : 0;
        patience->failing_us += gap_us < PATIENCE_GAP_US ? gap_us : PATIENCE_GAP_US;
        patience->failed_at_us = now_us;
        patience->is_over |= patience->failing_us >= most_us;
        if (!patience->is_over)
            return true;
        if (patience->given_up && number == patience->given_up + 1 &&
            patience->untried < PATIENCE_STRETCH) {
            patience->untried++;
            return false;
        }
    }
    if (patience->number != number) {
        patience->number = number;
        patience->failures = 0;
    }
    if (patience->failures++ < (result == SEGMENT_FAILED ? PATIENCE_TRIES : PATIENCE_LOOKS))
        return true;
    patience->untried = 0;
    return false;
}

/* The segment cannot be opened, which is no bad page: that one was does not end the time for it. */
static inline void patience_note_unopened(struct patience *patience)
{
    patience->is_over = false;
    patience->untried = PATIENCE_STRETCH;
}

/* A record was read. Time that is over stays so: one bad page after the other would cost it. */
static inline void patience_note_record(struct patience *patience)
{
    patience->failed_at_us = patience->failing_us = 0;
    patience->given_up = patience->untried = 0;
}

#endif
