/* SPDX-License-Identifier: Apache-2.0 */
/* Inside upkeep: the chores that need more than a line. Each belongs to one thread. */
#ifndef UPKEEP_CHORES_H
#define UPKEEP_CHORES_H

#include "metrics/metrics.h"
#include "store/store.h"

/* The sweep: where it stands. Zero it at first, and again after a lost connection: another server
 * may count its transactions differently. sweep_forget() frees what it holds. */
struct sweep {
    char *seen;      /* a pg_snapshot: what was visible at the last look; NULL = no look yet */
    char after[37];  /* the walk goes on after this enrollment; "" = from the first */
    bool has_walked; /* a whole walk is done: from now on it only needs to be slow */
};
void sweep_forget(struct sweep *sweep);

/* Binds what can be bound, and walks on. */
enum store_action sweep_run(struct sweep *sweep, struct store *store, struct metrics_shard *shard,
                            int64_t deadline_mono_us, struct store_error *error) OH_MUST_CHECK;

/* The audit window: where it stands in its round. Zeroed at first. */
struct window {
    char after[37];    /* the last instance that was looked at; "" = a round begins */
    int64_t drifts;    /* found in this round … */
    char first[160];   /* … and the first of them: "TABLE ID COLUMN" */
    int64_t said;      /* drifts of the last round that was written to the log */
    char said_of[160]; /* … and its first */
};

/* Looks at instances for a quarter of a second, or at one that takes longer. *drifts becomes the
 * number of a round that ended, else it stays. */
enum store_action window_run(struct window *window, struct store *store, int64_t deadline_mono_us,
                             int64_t *drifts, struct store_error *error) OH_MUST_CHECK;

/* One run of retention, where none has ended well today: everything that is old enough. Ends the
 * connection. Not STORE_COMMITTED: it could not begin. */
enum store_action retention_run(const struct config *config, struct store *store,
                                struct store_error *error) OH_MUST_CHECK;

/* What the metrics say of the database, each -1 while it is not known. The two sums are those of
 * the last look. watch_forget() before the first one, and when the connection is lost. */
enum { WATCH_LOOKS = 8 };
struct watch {
    _Atomic double values[WATCH_LOOKS];
    double part, whole;
};
void watch_forget(struct watch *watch);

/* Looks once. A look that fails does not keep the others from being taken; the last failure is
 * returned. */
enum store_action watch_run(struct watch *watch, struct store *store, int64_t deadline_mono_us,
                            struct store_error *error) OH_MUST_CHECK;

/* Thread: any. */
void watch_fill(const struct watch *watch, struct metrics_gauges *gauges);

#endif
