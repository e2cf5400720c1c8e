/* SPDX-License-Identifier: Apache-2.0 */
/* The ceilings of pg_direct: its rows by plain COPY into the events table, without ledger and
 * counters, or its keys by plain INSERT into the ledger. Batches of the same size, each a
 * transaction of its own; libpq alone, nothing of the gateway's store room. */
#ifndef BENCH_FEED_H
#define BENCH_FEED_H

#include "delivery/delivery.h"

enum feed_kind { FEED_CAPTURE, FEED_COPY, FEED_KEYS, FEED_KIND_COUNT };

/* The kind of that name (capture, copy, keys); FEED_KIND_COUNT: there is none. */
enum feed_kind feed_kind_of(const char *name);

/* One connection. */
struct feed;

/* Connects; kind is FEED_COPY or FEED_KEYS. *out belongs to the caller: feed_free(). */
enum oh_status feed_new(const char *url, const char *schema, enum feed_kind kind, struct feed **out,
                        struct oh_error *err) OH_MUST_CHECK;
void feed_free(struct feed *feed);

/* Writes a batch and commits it. */
enum oh_status feed_write(struct feed *feed, struct delivery_event *const *events, size_t count,
                          struct oh_error *err) OH_MUST_CHECK;

#endif
