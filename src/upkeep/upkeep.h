/* SPDX-License-Identifier: Apache-2.0 */
/* Upkeep: what the database needs from time to time. Two threads, each with a connection of its
 * own, so that a long look never holds up what is urgent: months are made three ahead, at first
 * contact and every hour; orphans are bound to enrollments that appear later, within seconds; the
 * audit window recomputes the counters, instance by instance, in a twentieth of the time, and what
 * the metrics say of the database is looked at.
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

/* Sets counter_drift, and what is watched of the database (upkeep/watch.c); -1 = not known. Thread:
 * any. */
void upkeep_fill_gauges(const struct upkeep *upkeep, struct metrics_gauges *gauges);

#endif
