/* SPDX-License-Identifier: Apache-2.0 */
/* Keys that were committed a short while ago, so that a redelivery needs no round trip; and
 * composites, so that a provider that changes its ids on retries is noticed.
 *
 * The filter compares whole keys and learns one only after its commit is known. It forgets after
 * RECENT_SECONDS, and all at once when any lane reconnects: a failover may have lost commits.
 * Shared by all lanes; thread: any. */
#ifndef LANE_RECENT_H
#define LANE_RECENT_H

#include "delivery/delivery.h"

enum { RECENT_SECONDS = 600 };

struct recent;

struct recent *recent_new(void) OH_MUST_CHECK;
void recent_free(struct recent *recent);

/* The generation to give to recent_learn(): read it before the batch is sent, so that nothing that
 * a former primary committed is learned after a reconnect. */
uint64_t recent_generation(const struct recent *recent);
/* Forgets everything. */
void recent_forget(struct recent *recent);

/* True if the event's key was committed lately. now_s: monotonic seconds. */
bool recent_has(struct recent *recent, const struct delivery_event *event, int64_t now_s);

/* Learns a committed event. Returns true when the same composite of the same source was committed
 * lately under another id. */
bool recent_learn(struct recent *recent, uint64_t generation, const struct delivery_event *event,
                  int64_t now_s);

#endif
