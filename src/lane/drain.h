/* SPDX-License-Identifier: Apache-2.0 */
/* The drain: brings what is in the spool to the lanes, in the order of its chunks, while PostgreSQL
 * is there and new events go on coming. A chunk is finished once PostgreSQL has all of it; what is
 * not finished stays in the spool and is read again, and the ledger makes that harmless. */
#ifndef LANE_DRAIN_H
#define LANE_DRAIN_H

#include "lane/lane.h"

struct drain;

/* Starts the thread. Everything given must outlive the drain. */
enum oh_status drain_start(const struct config *config, struct lanes *lanes, struct spool *spool,
                           struct drain **out, struct oh_error *err) OH_MUST_CHECK;

/* Deliveries (chained by next_decided) whose chunk is set have come back from the lanes. Never
 * blocks. Thread: any. */
void drain_on_decided(struct drain *drain, struct delivery *decided);

/* Ends the thread at once; what the lanes still have may come back later. NULL is allowed. */
void drain_stop(struct drain *drain);

/* After the lanes have ended: gives unfinished chunks back to the spool. NULL is allowed. */
void drain_free(struct drain *drain);

#endif
