/* SPDX-License-Identifier: Apache-2.0 */
/* Means of what was seen, and the size of batch that follows from them; see pace.h. */
#include "lane/pace.h"

enum {
    FORGET = 8,    /* a batch takes off an eighth of what earlier ones have taught */
    FEW = 2,       /* batches of fewer events than this are nearly all fixed part */
    DIFFERENT = 8, /* sizes differ enough when they spread by an eighth of their mean */
};

static const double fade = 1 - 1.0 / FORGET;

/* Where the sizes differ enough, the line through them; else what was known, as far as it can be.
 */
static void learn_fixed(struct pace *pace, size_t count, int64_t took_us)
{
    double events = (double)count, us = (double)took_us;
    pace->batches = pace->batches * fade + 1;
    pace->events = pace->events * fade + events;
    pace->events_squared = pace->events_squared * fade + events * events;
    pace->us = pace->us * fade + us;
    pace->events_us = pace->events_us * fade + events * us;

    double mean_events = pace->events / pace->batches, mean_us = pace->us / pace->batches;
    double variance = pace->events_squared / pace->batches - mean_events * mean_events;
    if (variance * DIFFERENT * DIFFERENT > mean_events * mean_events) {
        double slope_us = (pace->events_us / pace->batches - mean_events * mean_us) / variance;
        double fixed_us = mean_us - slope_us * mean_events;
        pace->fixed_us = fixed_us < 0 ? 0 : (int64_t)(fixed_us < mean_us ? fixed_us : mean_us);
    } else if (mean_events < FEW || pace->fixed_us > (int64_t)mean_us ||
               (pace->fixed_us == 0 && count <= PACE_LARGE_BATCH)) {
        pace->fixed_us = (int64_t)mean_us;
    }
}

void pace_note(struct pace *pace, size_t count, int64_t took_us)
{
    double events = (double)(count ? count : 1), us = (double)took_us;
    pace->number++;
    learn_fixed(pace, count, took_us);
    if (count >= PACE_LARGE_BATCH) {
        /* Sums, so that one short batch that was held up does not count for many long ones. */
        pace->large_events = pace->large_events * fade + events;
        pace->large_us = pace->large_us * fade + us;
    } else if (us / events * pace->large_events < pace->large_us) {
        /* It can only show that an event takes less. */
        pace->large_us = us / events * pace->large_events;
    } else {
        pace->large_us *= fade;
    }
    if (pace->large_events > 0)
        pace->event_ns = (int64_t)(pace->large_us * 1000 / pace->large_events);
}

void pace_rest(struct pace *pace)
{
    pace->large_events *= fade;
    pace->large_us *= fade * fade;
}

size_t pace_batch_events(const struct pace *pace, bool is_shared, size_t most)
{
    if (pace->event_ns == 0)
        return most;
    int64_t us = is_shared ? PACE_SHARED_US : PACE_BATCH_US;
    int64_t least_us = (is_shared ? PACE_SHARED_PARTS : PACE_FIXED_PARTS) * pace->fixed_us;
    if (us < least_us)
        us = least_us;
    int64_t events = us * 1000 / pace->event_ns;
    if (events < PACE_LARGE_BATCH)
        events = PACE_LARGE_BATCH;
    if (pace->number % PACE_PROBE == 0)
        events *= 2;
    return events < (int64_t)most ? (size_t)events : most;
}

struct pace_shares pace_share(const struct pace *pace, size_t most, bool has_fresh,
                              bool has_drained)
{
    struct pace_shares shares = {.fresh = most, .drained = PACE_DRAIN_FEW};
    if (has_fresh && has_drained && most > 1)
        shares.fresh -= most / 16 + 1;
    if (!has_fresh && pace->drained > PACE_DRAIN_FEW && most > PACE_DRAIN_FEW)
        shares.drained = most < pace->drained ? most : pace->drained;
    return shares;
}

void pace_note_locks(struct pace *pace, bool has_locked)
{
    if (has_locked)
        pace->drained = PACE_DRAIN_FEW;
    else if (pace->drained < PACE_DRAIN_MANY)
        pace->drained = pace->drained < PACE_DRAIN_FEW ? PACE_DRAIN_FEW : 2 * pace->drained;
}

/* Where processors are shared, one in 100 waits half as long again as the mean for what is work. A
 * network or a standby takes always about the same. Of a stall nobody knows the end: as long again
 * as the batch is late, once it is known what it should take. */
int64_t pace_wait_us(int64_t event_ns, int64_t fixed_us, size_t in_flight, int64_t elapsed_us,
                     size_t before)
{
    int64_t batch_us = (int64_t)in_flight * event_ns / 1000;
    int64_t left_us = batch_us > elapsed_us ? batch_us - elapsed_us : 0;
    int64_t late_us = elapsed_us - (batch_us > fixed_us ? batch_us : fixed_us);
    if (event_ns == 0 || fixed_us == 0 || late_us < 0)
        late_us = 0;
    int64_t mean_us = left_us + (int64_t)before * event_ns / 1000 + batch_us;
    int64_t work_us = mean_us > 2 * fixed_us ? mean_us - 2 * fixed_us : 0;
    return mean_us + mean_us / 4 + work_us / 4 + late_us;
}
