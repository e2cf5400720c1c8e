/* SPDX-License-Identifier: Apache-2.0 */
/* The gateway as a whole: the rooms wired together, started in one ordered list, drained on a
 * signal. Here alone http, lane and admin meet. */
#ifndef APP_APP_H
#define APP_APP_H

#include "config/config.h"

/* Runs the gateway until SIGTERM or SIGINT, then drains and leaves within 10 s. SIGHUP reads the
 * file again and takes its secrets; a file with mistakes changes nothing. Prints on stdout, a line
 * each: "listening https=PORT http=PORT admin=PORT" (0 = none) when it takes connections, "ready"
 * when it can capture events for the first time. Call it with one thread running: it blocks the
 * signals for all threads. OH_SYSTEM or OH_INVALID with *err when it could not start; then the
 * process must end. */
enum oh_status app_run(const struct config *config, struct oh_error *err) OH_MUST_CHECK;

/* Where a drain stands: records that are left, and why PostgreSQL is not used ("" = it is). */
typedef void app_on_progress(void *context, uint64_t waiting, const char *problem);

/* Brings the spool of a stopped gateway to PostgreSQL, without listening, until it is empty or
 * SIGTERM or SIGINT comes; *left = records that are still in it. on_progress is called every 200 ms
 * and at the end, in the calling thread. Like app_run() it blocks signals, and the process must end
 * afterwards. Errors: those of spool_open(), OH_SYSTEM, OH_INVALID. */
enum oh_status app_drain(const struct config *config, app_on_progress *on_progress, void *context,
                         uint64_t *left, struct oh_error *err) OH_MUST_CHECK;

#endif
