/* SPDX-License-Identifier: Apache-2.0 */
/* Means of what was seen, and the size of batch that follows from them; see pace.h. */
#include "lane/pace.h"

enum {
    SMOOTH = 4, /* what was known counts three times as much as what is seen */
    FORGET = 8, /* a small batch takes off an eighth of what a stall has taught */
};

static int64_t smooth(int64_t known, int64_t seen)
{
    return known ? ((SMOOTH - 1) * known + seen) / SMOOTH : seen;
}

void pace_note(struct pace *pace, size_t count, int64_t took_us)
{
    int64_t event_ns = took_us * 1000 / (int64_t)(count ? count : 1);
    if (count <= PACE_LARGE_BATCH)
        pace->fixed_us = smooth(pace->fixed_us, took_us);
    if (count >= PACE_LARGE_BATCH)
        pace->event_ns = smooth(pace->event_ns, event_ns);
    else if (event_ns < pace->event_ns) /* it can only show that an event takes less */
        pace->event_ns = event_ns;
    else
        pace->event_ns -= pace->event_ns / FORGET;
}

size_t pace_batch_events(const struct pace *pace, size_t most)
{
    if (pace->event_ns == 0)
        return most;
    int64_t us = PACE_FIXED_PARTS * pace->fixed_us;
    int64_t events = (us > PACE_BATCH_US ? us : PACE_BATCH_US) * 1000 / pace->event_ns;
    if (events < PACE_LARGE_BATCH)
        events = PACE_LARGE_BATCH;
    return events < (int64_t)most ? (size_t)events : most;
}
