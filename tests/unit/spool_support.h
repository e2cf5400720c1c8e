/* SPDX-License-Identifier: Apache-2.0 */
/* A spool in a directory of its own, events to put in, and a drain that compares what comes back.
 */
#ifndef SPOOL_SUPPORT_H
#define SPOOL_SUPPORT_H

#include "spool/spool.h"

#include <pthread.h>

struct bed {
    struct config config;
    struct config_source source;
    uint32_t slots[2];
    char directory[64];
    struct metrics *metrics;
    struct spool *spool;
    int64_t deadline_mono_us, accepted_wall_us; /* of what is put; 0 = far away, now */
    pthread_mutex_t mutex;                      /* guards the next three */
    pthread_cond_t decided;
    size_t spooled, undecided;
    size_t wrong; /* records that came back other than they were put */
    bool *seen;   /* by event number, events_max of them; may be NULL */
    size_t seen_max;
};

/* cmocka's setup and teardown: *state is a struct bed; the directory is removed. */
int bed_setup(void **state);
int bed_setup_in(void **state, const char *parent); /* the directory's parent */
int bed_teardown(void **state);

void bed_open(struct bed *bed);
void bed_close(struct bed *bed);

/* Puts events number first..first+count-1 and waits until all are decided. */
void bed_put(struct bed *bed, unsigned first, unsigned count);

/* Reads and finishes everything there is; returns the number of records. */
size_t bed_drain(struct bed *bed);

#endif
