/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes: gather -> capture -> decide. A lane is a thread with one PostgreSQL connection; an
 * instance belongs to one lane of the process, so lanes do not wait for each other's counter rows.
 * While events are few the first lane gets all of them; see spread.h.
 * Group commit without a timer: while one batch commits, the next one gathers. A source that
 * floods does not hold up the others: a batch takes one event of each in turn. */
#ifndef LANE_LANE_H
#define LANE_LANE_H

#include "metrics/metrics.h"
#include "spool/spool.h"

struct lanes;

/* Called once a batch by a lane's thread with the deliveries whose last event is decided, chained
 * by next_decided. May not block. */
typedef void lanes_on_decided(void *context, struct delivery *decided);

/* Starts config->database.lanes threads. first_shard: the metrics shard of lane 0, the others
 * follow. spool: takes what PostgreSQL cannot while it is away; NULL = `outage: refuse`. Everything
 * given must outlive the lanes. */
enum oh_status lanes_start(const struct config *config, struct metrics *metrics,
                           uint32_t first_shard, struct spool *spool, lanes_on_decided *on_decided,
                           void *context, struct lanes **out, struct oh_error *err) OH_MUST_CHECK;

/* Hands over a delivery with at least one event; its events go to the lanes their instances belong
 * to, and those of a lane that is known to be down to the spool. ADMISSION_OLD or _DOWN: nothing
 * was taken. Thread: any. */
enum admission_verdict lanes_submit(struct lanes *lanes, struct delivery *delivery) OH_MUST_CHECK;

/* Hands over a delivery of one event from the spool (chunk is set), to wait behind all new events
 * of its lane. False: its lane is not connected, or has enough for two batches; nothing was taken.
 * Thread: any. */
bool lanes_feed(struct lanes *lanes, struct delivery *delivery) OH_MUST_CHECK;

/* What lanes_submit() would say now of a delivery of this source with about so many events:
 * ADMISSION_OK unless no lane takes one, or one does not that a delivery of this size has events
 * for. Cheap. Thread: any. */
enum admission_verdict lanes_look(const struct lanes *lanes, const struct config_source *source,
                                  size_t events, int64_t now_mono_us);

/* What health and metrics show. */
struct lanes_state {
    uint32_t total;            /* lanes */
    uint32_t connected;        /* lanes with a connection that passed the checks */
    uint32_t idle;             /* lanes without a statement in flight */
    uint32_t stuck;            /* lanes whose statement is in flight longer than ack_deadline */
    uint32_t waiting;          /* full batches queued beyond those in flight */
    int64_t oldest_waiting_us; /* age of the oldest event not yet sent; 0 = none */
    char problem[256];         /* why a lane is not connected, "" = all are */
    const char *part;          /* of the database that is not well then; static, NULL = all is */
};
void lanes_get_state(struct lanes *lanes, struct lanes_state *state);

/* Ends the lanes: what is queued is still sent until deadline, the rest is decided UNDECIDED.
 * Returns when all threads are joined. */
void lanes_stop(struct lanes *lanes, int64_t deadline_mono_us);
void lanes_free(struct lanes *lanes);

#endif
