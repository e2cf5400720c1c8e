/* SPDX-License-Identifier: Apache-2.0 */
/* The audit window: one instance a statement (sql/audit_window.sql), and so one snapshot each; a
 * counter and its events move together, so an instance is right or wrong whenever it is looked at.
 */
#include "upkeep/chores.h"

#include "base/clock.h"
#include "base/embedded.h"
#include "log/log.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BURST_US = 250000 };
#define QUERY_CANCELED "57014"

static void note_instance(struct window *window, const PGresult *row)
{
    snprintf(window->after, sizeof(window->after), "%s", PQgetvalue(row, 0, 0));
    if (window->drifts == 0 && !PQgetisnull(row, 0, 2))
        snprintf(window->first, sizeof(window->first), "%s %s %s", PQgetvalue(row, 0, 2),
                 PQgetvalue(row, 0, 3), PQgetvalue(row, 0, 4));
    window->drifts += strtoll(PQgetvalue(row, 0, 1), NULL, 10);
}

/* Says it once a change. */
static void end_round(struct window *window, int64_t *drifts)
{
    *drifts = window->drifts;
    if (window->drifts != window->said || strcmp(window->first, window->said_of) != 0) {
        if (window->drifts > 0)
            LOG_LINE(LOG_ERROR, "upkeep", "counters differ from their events",
                     log_int("drifts", window->drifts), log_text("first", window->first),
                     log_text("repair", "oncehook doctor -c FILE says why; then "
                                        "oncehook audit --repair -c FILE"));
        else
            LOG_LINE(LOG_INFO, "upkeep", "counters agree with their events again",
                     log_int("drifts", 0));
        window->said = window->drifts;
        memcpy(window->said_of, window->first, sizeof(window->said_of));
    }
    window->after[0] = window->first[0] = '\0';
    window->drifts = 0;
}

/* What takes longer than a statement may is left to `oncehook audit`. */
static enum store_action pass_over(struct window *window, struct store *store,
                                   int64_t deadline_mono_us, struct store_error *error)
{
    const char *const values[] = {window->after[0] ? window->after : NULL};
    PGresult *row = NULL;
    enum store_action action = store_query(store,
                                           "/* next_instance */ SELECT id FROM campaign_instances "
                                           "WHERE $1::uuid IS NULL OR id > $1 ORDER BY id LIMIT 1",
                                           1, values, deadline_mono_us, &row, error);
    if (action == STORE_COMMITTED && PQntuples(row) == 1) {
        snprintf(window->after, sizeof(window->after), "%s", PQgetvalue(row, 0, 0));
        LOG_LINE(LOG_WARNING, "upkeep", "an instance is too large for the audit window",
                 log_text("instance", window->after), log_text("measure", "oncehook audit"));
    }
    PQclear(row);
    return action;
}

enum store_action window_run(struct window *window, struct store *store, int64_t deadline_mono_us,
                             int64_t *drifts, struct store_error *error)
{
    const char *sql = embedded_find(embedded_sql, "audit_window.sql");
    const int64_t end_us = clock_mono_us() + BURST_US;
    enum store_action action = STORE_COMMITTED;
    for (bool is_over = false; !is_over && action == STORE_COMMITTED && clock_mono_us() < end_us;) {
        const char *const values[] = {window->after[0] ? window->after : NULL};
        PGresult *row = NULL;
        action = store_query(store, sql, 1, values, deadline_mono_us, &row, error);
        is_over = action == STORE_COMMITTED && PQntuples(row) == 0;
        if (is_over)
            end_round(window, drifts);
        else if (action == STORE_COMMITTED)
            note_instance(window, row);
        PQclear(row);
        if (strcmp(error->sqlstate, QUERY_CANCELED) == 0 && action != STORE_COMMITTED)
            action = pass_over(window, store, deadline_mono_us, error);
    }
    return action;
}
