/* SPDX-License-Identifier: Apache-2.0 */
/* The gateway as a whole: the rooms wired together, started in one ordered list, drained on a
 * signal. Here alone http, lane and admin meet. */
#ifndef APP_APP_H
#define APP_APP_H

#include "config/config.h"

/* Runs the gateway until SIGTERM or SIGINT, then drains and leaves within 10 s. Prints on stdout, a
 * line each: "listening https=PORT http=PORT admin=PORT" (0 = none) when it takes connections,
 * "ready" when it can capture events for the first time. Call it with one thread running: it blocks
 * the signals for all threads. OH_SYSTEM or OH_INVALID with *err when it could not start; then the
 * process must end. */
enum oh_status app_run(const struct config *config, struct oh_error *err) OH_MUST_CHECK;

#endif
