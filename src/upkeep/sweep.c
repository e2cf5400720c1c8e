/* SPDX-License-Identifier: Apache-2.0 */
/* Orphans whose enrollment has appeared are bound and counted, once (sql/0006_upkeep_v1.up.sql). A
 * look is remembered only when all that it found is bound: what fails is found again. */
#include "upkeep/chores.h"

#include "base/clock.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bounds of one transaction that binds, of one look, and of the walk: fast until all orphans were
 * looked at once after a start, slow from then on. */
enum { BIND_ENROLLMENTS = 100, BIND_EVENTS = 1000 };
#define LOOK_AT_MOST "2000"
#define WALK_FAST    "50000"
#define WALK_SLOW    "2000"
_Static_assert(BIND_EVENTS == 1000, "stands in the statement below");

void sweep_forget(struct sweep *sweep)
{
    free(sweep->seen);
    *sweep = (struct sweep){0};
}

/* Binds all orphans of the enrollments, an SQL array of `count`; *is_done if there was time. */
static enum store_action bind_all(struct store *store, const char *enrollments, long count,
                                  struct metrics_shard *shard, int64_t deadline_mono_us,
                                  bool *is_done, struct store_error *error)
{
    long from = 1;
    while (from <= count && clock_mono_us() < deadline_mono_us) {
        char first[24], last[24];
        snprintf(first, sizeof(first), "%ld", from);
        snprintf(last, sizeof(last), "%ld", from + BIND_ENROLLMENTS - 1);
        const char *const values[] = {enrollments, first, last};
        PGresult *rows = NULL;
        enum store_action action =
            store_query(store, "SELECT bind_v1(($1::uuid[])[$2::integer:$3::integer], 1000)", 3,
                        values, INT64_MAX, &rows, error);
        if (action != STORE_COMMITTED)
            return action;
        long bound = strtol(PQgetvalue(rows, 0, 0), NULL, 10);
        PQclear(rows);
        metrics_count_bound(shard, (uint64_t)bound);
        if (bound < BIND_EVENTS)
            from += BIND_ENROLLMENTS;
    }
    *is_done = from > count;
    return STORE_COMMITTED;
}

enum { SEEN, AFTER, MORE, ENROLLMENTS, COUNT };

/* One look and what follows from it; *more: the same look again. */
static enum store_action look(struct sweep *sweep, struct store *store, struct metrics_shard *shard,
                              int64_t deadline_mono_us, bool *more, struct store_error *error)
{
    const char *const values[] = {sweep->seen, sweep->after[0] ? sweep->after : NULL,
                                  sweep->has_walked ? WALK_SLOW : WALK_FAST};
    PGresult *rows = NULL;
    bool is_done = true;
    enum store_action action =
        store_query(store,
                    "SELECT seen, after, more, enrollments, cardinality(enrollments) FROM "
                    "unbound_v1($1::pg_snapshot, $2::uuid, $3::integer, " LOOK_AT_MOST ")",
                    3, values, INT64_MAX, &rows, error);
    if (action != STORE_COMMITTED)
        return action;
    if (!PQgetisnull(rows, 0, ENROLLMENTS))
        action = bind_all(store, PQgetvalue(rows, 0, ENROLLMENTS),
                          strtol(PQgetvalue(rows, 0, COUNT), NULL, 10), shard, deadline_mono_us,
                          &is_done, error);
    if (action == STORE_COMMITTED && is_done) {
        *more = PQgetvalue(rows, 0, MORE)[0] == 't';
        free(sweep->seen);
        sweep->seen = strdup(PQgetvalue(rows, 0, SEEN)); /* without memory: as after a start */
        snprintf(sweep->after, sizeof(sweep->after), "%s", PQgetvalue(rows, 0, AFTER));
        sweep->has_walked |= !sweep->after[0];
    }
    PQclear(rows);
    return action;
}

enum store_action sweep_run(struct sweep *sweep, struct store *store, struct metrics_shard *shard,
                            int64_t deadline_mono_us, struct store_error *error)
{
    enum store_action action = STORE_COMMITTED;
    for (bool more = true; more && action == STORE_COMMITTED && clock_mono_us() < deadline_mono_us;)
        action = look(sweep, store, shard, deadline_mono_us, &more, error);
    return action;
}
