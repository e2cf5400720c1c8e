/* SPDX-License-Identifier: Apache-2.0 */
/* The admin listener: /livez /readyz /health /health/database /metrics, and /v1 (admin/route.h).
 * Plain HTTP, meant for loopback or a private network; its own threads (libmicrohttpd, one a
 * connection, at most 256) and its own PostgreSQL connections, so that it never holds up an http
 * thread or a lane, and a slow client, database or query never holds up a probe. */
#ifndef ADMIN_ADMIN_H
#define ADMIN_ADMIN_H

#include "lane/lane.h"
#include "metrics/metrics.h"
#include "spool/spool.h"

struct admin;

/* What the parts of the gateway say of themselves. */
struct admin_state {
    bool ready;            /* events can be captured now */
    const char *not_ready; /* static name of the part that is not well; NULL if ready */
    struct lanes_state lanes;
    struct spool_state spool; /* outage: spool */
    struct metrics_gauges gauges;
};

struct admin_hooks {
    void *context;
    /* Fills the zeroed *state. May not block. Thread: admin's own; never called twice at once. */
    void (*get_state)(void *context, struct admin_state *state);
};

/* Listens on config->admin.listen (port 0 = any free) and answers until admin_stop(). config and
 * metrics must outlive it, *hooks is copied. *out = NULL when no listener is configured. OH_SYSTEM:
 * the address cannot be had. */
enum oh_status admin_start(const struct config *config, const struct metrics *metrics,
                           const struct admin_hooks *hooks, struct admin **out,
                           struct oh_error *err) OH_MUST_CHECK;

/* The port it listens on; 0 for NULL. */
uint16_t admin_port(const struct admin *admin);

/* Closes the listener and all connections, ends the threads, frees. At most a few seconds. NULL is
 * allowed. */
void admin_stop(struct admin *admin);

#endif
