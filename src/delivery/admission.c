/* SPDX-License-Identifier: Apache-2.0 */
/* Admission: reserve first, look afterwards, give back what was too much. So the bounds hold for
 * any number of threads without a lock; at worst two that arrive together at the edge are both
 * refused. */
#include "delivery/delivery.h"

#include <stdlib.h>

struct admission {
    uint32_t events_max, share_max; /* events: in all, of one source */
    size_t bytes_max;
    _Atomic uint64_t events, bytes;
    size_t source_count;
    _Atomic uint64_t source_events[];
};

struct admission *admission_new(const struct config *config)
{
    struct admission *admission =
        calloc(1, sizeof(*admission) + config->source_count * sizeof(admission->source_events[0]));
    if (!admission)
        return NULL;
    admission->events_max = config->queue.events;
    admission->bytes_max = config->queue.bytes;
    admission->share_max =
        (uint32_t)((uint64_t)config->queue.events * config->queue.share_percent / 100);
    if (admission->share_max == 0)
        admission->share_max = 1;
    admission->source_count = config->source_count;
    return admission;
}

void admission_free(struct admission *admission)
{
    free(admission);
}

enum admission_verdict admission_enter(struct admission *admission, const struct delivery *delivery)
{
    uint32_t n = delivery->event_count;
    if (n > admission->events_max)
        return ADMISSION_TOO_LARGE;
    _Atomic uint64_t *of_source = &admission->source_events[delivery->source->number];
    uint64_t source_events = atomic_fetch_add_explicit(of_source, n, memory_order_relaxed);
    uint64_t events = atomic_fetch_add_explicit(&admission->events, n, memory_order_relaxed);
    uint64_t bytes =
        atomic_fetch_add_explicit(&admission->bytes, delivery->bytes, memory_order_relaxed);
    if (events + n > admission->events_max ||
        (bytes > 0 && bytes + delivery->bytes > admission->bytes_max)) {
        admission_leave(admission, delivery);
        return ADMISSION_FULL;
    }
    /* A delivery larger than the share still passes while its source holds nothing else. */
    if (source_events > 0 && source_events + n > admission->share_max) {
        admission_leave(admission, delivery);
        return ADMISSION_SHARE;
    }
    return ADMISSION_OK;
}

void admission_leave(struct admission *admission, const struct delivery *delivery)
{
    uint32_t n = delivery->event_count;
    atomic_fetch_sub_explicit(&admission->source_events[delivery->source->number], n,
                              memory_order_relaxed);
    atomic_fetch_sub_explicit(&admission->events, n, memory_order_relaxed);
    atomic_fetch_sub_explicit(&admission->bytes, delivery->bytes, memory_order_relaxed);
}

uint64_t admission_events(const struct admission *admission)
{
    return atomic_load_explicit(&admission->events, memory_order_relaxed);
}
