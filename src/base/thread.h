/* SPDX-License-Identifier: Apache-2.0 */
/* A thread says what it does: in top -H, perf, gdb and core files; and waits by the clock that
 * nobody sets. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

enum { THREAD_NO_NUMBER = -1 };

/* Names the calling thread "what" or "what N"; the kernel keeps 15 characters. */
static inline void thread_set_name(const char *what, int64_t number)
{
    char name[16];
    if (number == THREAD_NO_NUMBER)
        (void)snprintf(name, sizeof(name), "%.15s", what);
    else
        (void)snprintf(name, sizeof(name), "%.9s %u", what, (uint16_t)number);
    (void)pthread_setname_np(pthread_self(), name);
}

/* A condition whose pthread_cond_timedwait() takes monotonic time, as base/clock.h gives it. Ends
 * with pthread_cond_destroy(). */
static inline void thread_cond_init(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

#endif
