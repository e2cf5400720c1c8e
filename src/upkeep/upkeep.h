/* SPDX-License-Identifier: Apache-2.0 */
/* Upkeep: what the database needs from time to time. Two threads, each with a connection of its
 * own, so that a long look never holds up what is urgent: months are made three ahead, at first
 * contact and every hour; orphans are bound to enrollments that appear later, within seconds; the
 * audit window recomputes the counters, instance by instance, in a twentieth of the time.
 * (Retention comes here.)docs/adr says why it is done this way. */
#ifndef UPKEEP_UPKEEP_H
#define UPKEEP_UPKEEP_H

#include "config/config.h"
#include "metrics/metrics.h"

struct upkeep;

/* `shard`: where bound orphans are counted; upkeep's alone. Both must outlive it. */
enum oh_status upkeep_start(const struct config *config, struct metrics_shard *shard,
                            struct upkeep **out, struct oh_error *err) OH_MUST_CHECK;
void upkeep_stop(struct upkeep *upkeep);

/* Counters that differed from their events in the last complete round of the audit window; -1 =
 * there was none yet. Thread: any. */
int64_t upkeep_counter_drift(const struct upkeep *upkeep);

#endif
