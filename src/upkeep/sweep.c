/* SPDX-License-Identifier: Apache-2.0 */
/* Orphans whose enrollment has appeared are bound and counted, once (sql/0011_references.up.sql). A
 * look is remembered only when all that it found is bound: what fails is found again. */
#include "upkeep/chores.h"

#include "base/clock.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bounds of one transaction that binds, of one look, and of the walk: fast until all orphans were
 * looked at once after a start, slow from then on. */
enum { BIND_ENROLLMENTS = 100, BIND_EVENTS = 1000, UUID_CHARS = 36 };
#define LOOK_AT_MOST   "2000"
#define WALK_FAST      "50000"
#define WALK_SLOW      "2000"
#define QUERY_CANCELED "57014"
_Static_assert(BIND_EVENTS == 1000, "stands in the statement below");

void sweep_forget(struct sweep *sweep)
{
    free(sweep->seen);
    *sweep = (struct sweep){0};
}

/* Binds all orphans of the enrollments, `count` of them as SQL writes an array of uuid; *is_done if
 * there was time. */
static enum store_action bind_all(struct store *store, const char *enrollments, long count,
                                  struct metrics_shard *shard, int64_t deadline_mono_us,
                                  bool *is_done, struct store_error *error)
{
    long from = 0;
    while (from < count && clock_mono_us() < deadline_mono_us) {
        char some[BIND_ENROLLMENTS * (UUID_CHARS + 1) + 2];
        long n = count - from < BIND_ENROLLMENTS ? count - from : BIND_ENROLLMENTS;
        snprintf(some, sizeof(some), "{%.*s}", (int)(n * (UUID_CHARS + 1) - 1),
                 enrollments + 1 + from * (UUID_CHARS + 1));
        const char *const values[] = {some};
        PGresult *rows = NULL;
        enum store_action action =
            store_query(store, "/* bind_v2 */ SELECT bind_v2($1::uuid[], 1000)", 1, values,
                        INT64_MAX, &rows, error);
        if (action != STORE_COMMITTED)
            return action;
        long bound = strtol(PQgetvalue(rows, 0, 0), NULL, 10);
        PQclear(rows);
        metrics_count_bound(shard, (uint64_t)bound);
        if (bound < BIND_EVENTS)
            from += n;
    }
    *is_done = from >= count;
    return STORE_COMMITTED;
}

enum { SEEN, AFTER, MORE, ENROLLMENTS, COUNT };

static void remember(struct sweep *sweep, const PGresult *row)
{
    free(sweep->seen);
    sweep->seen = strdup(PQgetvalue(row, 0, SEEN)); /* without memory: as after a start */
    snprintf(sweep->after, sizeof(sweep->after), "%s", PQgetvalue(row, 0, AFTER));
    sweep->has_walked |= !sweep->after[0];
}

enum store_action sweep_run(struct sweep *sweep, struct store *store, struct metrics_shard *shard,
                            int64_t deadline_mono_us, struct store_error *error)
{
    const char *const values[] = {sweep->seen, sweep->after[0] ? sweep->after : NULL,
                                  sweep->has_walked ? WALK_SLOW : WALK_FAST};
    PGresult *row = NULL;
    bool is_done = true;
    enum store_action action = store_query(
        store,
        "/* unbound_v2 */ SELECT seen, after, more, enrollments, cardinality(enrollments) FROM "
        "unbound_v2($1::pg_snapshot, $2::uuid, $3::integer, " LOOK_AT_MOST ")",
        3, values, INT64_MAX, &row, error);
    /* More is new than a look can hold, a bulk load: the fast walk comes by all of it. */
    bool is_flood = action == STORE_COMMITTED ? PQgetvalue(row, 0, MORE)[0] == 't'
                                              : strcmp(error->sqlstate, QUERY_CANCELED) == 0;
    if (action == STORE_COMMITTED && !PQgetisnull(row, 0, ENROLLMENTS))
        action = bind_all(store, PQgetvalue(row, 0, ENROLLMENTS),
                          strtol(PQgetvalue(row, 0, COUNT), NULL, 10), shard, deadline_mono_us,
                          &is_done, error);
    if (is_flood)
        sweep_forget(sweep);
    else if (action == STORE_COMMITTED && is_done)
        remember(sweep, row);
    PQclear(row);
    return action;
}
