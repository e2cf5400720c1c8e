/* SPDX-License-Identifier: Apache-2.0 */
/* Retention by the gateway itself, once a day: retention_step_v2() until nothing is left to do, as
 * the configuration says (`oncehook retention` does the same, and archives). Of several gateways
 * one does it; what fails or is in the way, it leaves for the next hour. */
#include "upkeep/chores.h"

#include "base/clock.h"
#include "log/log.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <string.h>

/* After a step of the walk over keys, captures have the disk for so many times as long. */
enum { DAY_S = 86400, TRIES = 20, WALK_PAUSE = 3 };
enum { COMPLETED, FAILED, EVENTS, LEDGER, WORKFLOW, PARAMETER_COUNT };

static const char *write_days(char text[24], int64_t seconds)
{
    snprintf(text, 24, "%lld", (long long)((seconds + DAY_S - 1) / DAY_S));
    return text;
}

/* One step; *is_done: there is none left. What a month waits for (55P03, a reader) is tried again,
 * with pauses in which captures that queued behind the try get through. */
static enum store_action take_step(struct store *store, const char *const *parameters,
                                   bool *is_done, int64_t *dropped, struct store_error *error)
{
    enum store_action action = STORE_RETRY;
    bool has_worked = false; /* keys were walked */
    const int64_t began_us = clock_mono_us();
    for (int i = 0; i < TRIES && action == STORE_RETRY; i++) {
        PGresult *row = NULL;
        if (i > 0 && store_query(store, "/* retention_pause */ SELECT pg_sleep(0.5)", 0, NULL,
                                 INT64_MAX, NULL, error) != STORE_COMMITTED)
            return STORE_RECONNECT;
        action = store_query(store,
                             "/* retention_step_v2 */ SELECT step FROM retention_step_v2("
                             "$1::integer, $2::integer, true, $3::integer, false, $4::integer,"
                             " (SELECT started_at FROM workflow_states WHERE id = $5::uuid))",
                             PARAMETER_COUNT, parameters, INT64_MAX, &row, error);
        if (action == STORE_COMMITTED) {
            *is_done = PQgetisnull(row, 0, 0);
            *dropped += strcmp(PQgetvalue(row, 0, 0), "dropped") == 0;
            has_worked = strcmp(PQgetvalue(row, 0, 0), "forgotten") == 0;
        }
        PQclear(row);
    }
    if (action == STORE_COMMITTED && has_worked) {
        char seconds[24]; /* of the commit too, whose WAL captures wait for */
        snprintf(seconds, sizeof(seconds), "%.3f",
                 (double)(clock_mono_us() - began_us) * WALK_PAUSE / 1e6);
        const char *const values[] = {seconds};
        action = store_query(store, "/* retention_pause */ SELECT pg_sleep($1::float8)", 1, values,
                             INT64_MAX, NULL, error);
    }
    return action;
}

static enum store_action take_steps(struct store *store, const char *const *parameters,
                                    int64_t *dropped, struct store_error *error)
{
    enum store_action action = STORE_COMMITTED;
    for (bool is_done = false; !is_done && action == STORE_COMMITTED;)
        action = take_step(store, parameters, &is_done, dropped, error);
    return action;
}

/* The lock and the workflow of this run: "" where another retention is running, or a gateway's has
 * ended well today. */
static enum store_action begin(struct store *store, char workflow[40], struct store_error *error)
{
    PGresult *row = NULL;
    enum store_action action = store_query(
        store,
        "/* retention_begin */ SELECT CASE WHEN NOT EXISTS (SELECT FROM workflow_states w"
        " WHERE w.workflow_name = 'oncehook.retention' AND w.context @> '{\"by\": \"gateway\"}'"
        " AND w.status = 'completed' AND w.completed_at > now() - interval '23 hours')"
        " AND pg_try_advisory_lock(hashtext('oncehook retention'), hashtext(current_schema()))"
        " THEN workflow_begin_v1('retention', '{\"by\": \"gateway\"}') END",
        0, NULL, INT64_MAX, &row, error);
    if (action == STORE_COMMITTED)
        snprintf(workflow, 40, "%s", PQgetvalue(row, 0, 0));
    PQclear(row);
    return action;
}

enum store_action retention_run(const struct config *config, struct store *store,
                                struct store_error *error)
{
    char text[WORKFLOW][24], workflow[40] = "";
    const char *const parameters[] = {write_days(text[0], config->retention.workflows_completed_s),
                                      write_days(text[1], config->retention.workflows_failed_s),
                                      write_days(text[2], config->retention.events_s),
                                      write_days(text[3], config->retention.ledger_s), workflow};
    int64_t dropped = 0, start_us = clock_mono_us();
    enum store_action action = begin(store, workflow, error);
    if (action == STORE_COMMITTED && !workflow[0])
        store_disconnect(store);
    if (action != STORE_COMMITTED || !workflow[0])
        return action;
    action = take_steps(store, parameters, &dropped, error);

    if (action != STORE_COMMITTED && error->sqlstate[0])
        LOG_LINE(LOG_WARNING, "upkeep", "retention did not end; it is tried again in an hour",
                 log_text("sqlstate", error->sqlstate),
                 log_text("reason", store_error_words(error)));
    else if (dropped > 0)
        LOG_LINE(LOG_INFO, "upkeep", "old months were folded and dropped",
                 log_int("months", dropped),
                 log_int("took_ms", (clock_mono_us() - start_us) / 1000));

    const char *const end[] = {workflow, action == STORE_COMMITTED ? NULL : error->sqlstate};
    enum store_action ended = store_query(
        store, "/* retention_end */ SELECT workflow_end_v1($1::uuid, 'SQLSTATE ' || $2)", 2, end,
        INT64_MAX, NULL, error);
    (void)ended;             /* without it, the next begin ends the workflow */
    store_disconnect(store); /* and the lock with it: the connection is needed again in an hour */
    return STORE_COMMITTED;
}
