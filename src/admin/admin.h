/* SPDX-License-Identifier: Apache-2.0 */
/* The admin listener: health, metrics (later pages and /v1). Plain HTTP, meant for loopback or a
 * private network; its own worker thread and its own PostgreSQL connection, so that it never holds up
 * an http thread or a lane. */
#ifndef ADMIN_ADMIN_H
#define ADMIN_ADMIN_H

#include "config/config.h"
#include "metrics/metrics.h"

struct admin;

/* What the parts of the gateway say of themselves. */
struct admin_state {
    bool ready;             /* events can be captured now */
    const char *not_ready;  /* static name of the part that is not well; NULL if ready */
    uint32_t lanes_total, lanes_connected, lanes_idle, lanes_waiting;
    char database_problem[256]; /* "" = none */
    struct metrics_gauges gauges;
};

struct admin_hooks {
    void *context;
    void (*get_state)(void *context, struct admin_state *state); /* may not block; admin's thread */
};

enum oh_status admin_start(const struct config *config, const struct metrics *metrics,
                           const struct admin_hooks *hooks, struct admin **out,
                           struct oh_error *err) OH_MUST_CHECK;
uint16_t admin_port(const struct admin *admin);
void admin_stop(struct admin *admin);

#endif
