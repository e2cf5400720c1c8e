/* SPDX-License-Identifier: Apache-2.0 */
/* admin/health.h: each part judges itself, the whole is judged from them. */
#include "admin/health.h"

#include "admin/reply.h"

#include "base/clock.h"

#include <stdio.h>
#include <time.h>

enum health { HEALTHY, DEGRADED, UNHEALTHY };

static const char *const health_words[] = {"healthy", "degraded", "unhealthy"};

enum {
    WAITING_SATURATED =
        5, /* full batches beyond those in flight; more is saturation (the contract's) */
    QUEUE_DEGRADED_PERCENT = 80,
};

/* Now, as RFC 3339 in UTC with milliseconds. */
static json_t *timestamp(void)
{
    int64_t now_us = clock_wall_us();
    time_t now_s = (time_t)(now_us / 1000000);
    struct tm utc;
    gmtime_r(&now_s, &utc);
    char date[32], text[40];
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text, sizeof(text), "%s.%03dZ", date, (int)(now_us / 1000 % 1000));
    return json_string(text);
}

static enum health lanes_health(const struct admin_state *state)
{
    if (state->lanes.connected == 0)
        return UNHEALTHY;
    return state->lanes.connected < state->lanes.total ? DEGRADED : HEALTHY;
}

static enum health database_health(const struct admin_state *state)
{
    if (!state->gauges.database_up)
        return UNHEALTHY;
    return state->lanes.problem[0] ? DEGRADED : HEALTHY;
}

static enum health queue_health(const struct config *config, const struct admin_state *state)
{
    double percent = state->gauges.queue_events * 100 / config->queue.events;
    if (percent >= 100)
        return UNHEALTHY;
    return percent >= QUEUE_DEGRADED_PERCENT || state->lanes.waiting > WAITING_SATURATED ? DEGRADED
                                                                                         : HEALTHY;
}

static enum health spool_health(const struct spool_state *spool)
{
    if (!spool->accepts)
        return UNHEALTHY;
    return spool->waiting || spool->lost ? DEGRADED : HEALTHY;
}

/* Adds `name` to `all`, with its status in front, and keeps the worst. */
static void add_part(json_t *all, enum health *worst, const char *name, enum health health,
                     json_t *facts)
{
    json_t *part = json_pack("{s:s}", "status", health_words[health]);
    json_object_update(part, facts);
    json_decref(facts);
    json_object_set_new(all, name, part);
    if (health > *worst)
        *worst = health;
}

json_t *health_of_all(const struct config *config, const struct admin_state *state)
{
    json_t *all = json_pack("{s:s}", "status", "");
    enum health worst = HEALTHY;
    add_part(all, &worst, "gateway", state->ready ? HEALTHY : UNHEALTHY,
             json_pack("{s:I, s:s*}", "connections", (json_int_t)state->gauges.connections,
                       "not_ready", state->ready ? NULL : state->not_ready));
    add_part(all, &worst, "lanes", lanes_health(state),
             json_pack("{s:i, s:i, s:i}", "total", (int)state->lanes.total, "connected",
                       (int)state->lanes.connected, "idle", (int)state->lanes.idle));
    add_part(all, &worst, "database", database_health(state),
             json_pack("{s:s*}", "problem", state->lanes.problem[0] ? state->lanes.problem : NULL));
    add_part(all, &worst, "queue", queue_health(config, state),
             json_pack("{s:I, s:i, s:i, s:o}", "events", (json_int_t)state->gauges.queue_events,
                       "limit", (int)config->queue.events, "waiting", (int)state->lanes.waiting,
                       "oldest_waiting_seconds", reply_real(state->gauges.oldest_waiting_seconds)));
    if (config->outage == CONFIG_OUTAGE_SPOOL)
        add_part(all, &worst, "spool", spool_health(&state->spool),
                 json_pack("{s:b, s:s*, s:I, s:I, s:I, s:I}", "accepts", state->spool.accepts,
                           "problem", state->spool.problem[0] ? state->spool.problem : NULL,
                           "events", (json_int_t)state->spool.waiting, "bytes",
                           (json_int_t)state->spool.bytes, "oldest_seconds",
                           (json_int_t)state->spool.oldest_s, "lost",
                           (json_int_t)state->spool.lost));
    /* A part may be down while events are still taken (the spool): that is degraded. */
    if (worst == UNHEALTHY && state->ready)
        worst = DEGRADED;
    json_object_set_new(all, "status", json_string(health_words[worst]));
    json_object_set_new(all, "timestamp", timestamp());
    return all;
}

json_t *health_of_database(const struct admin_state *state, json_t *tables)
{
    const char *warning = NULL;
    enum health health = HEALTHY;
    if (!state->gauges.database_up) {
        health = UNHEALTHY;
        warning = state->lanes.problem[0] ? state->lanes.problem : "No connection";
    } else if (state->lanes.waiting > WAITING_SATURATED) {
        health = DEGRADED;
        warning = "Connection pool saturated";
    } else if (state->lanes.connected < state->lanes.total) {
        health = DEGRADED;
        warning = state->lanes.problem[0] ? state->lanes.problem : "A lane is not connected";
    } else if (!tables) {
        health = DEGRADED;
        warning = "Table sizes cannot be read";
    }
    return json_pack("{s:s, s:s*, s:{s:i, s:i, s:i}, s:o, s:o}", "status", health_words[health],
                     "warning", warning, "pool", "total", (int)state->lanes.total, "idle",
                     (int)state->lanes.idle, "waiting", (int)state->lanes.waiting, "tables",
                     tables ? tables : json_array(), "timestamp", timestamp());
}
