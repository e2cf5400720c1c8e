/* SPDX-License-Identifier: Apache-2.0 */
/* Answers below /v1: a request becomes one statement on a connection of admin's own, and
 * PostgreSQL's JSON the answer.
 *
 * Two connections read (read-only sessions), one writes; who finds none free waits a moment in a
 * bounded queue, and is answered 503 beyond it. Probes and metrics share nothing with them. */
#ifndef ADMIN_API_H
#define ADMIN_API_H

#include "admin/route.h"
#include "config/config.h"

struct api;

/* Asks database.url; config must outlive it. Does not connect. NULL when memory is gone. */
struct api *api_new(const struct config *config);

/* Answers one request; takes as long as a statement may, and as the client asked to wait. Thread:
 * any, several at once. */
struct reply api_answer(struct api *api, const struct route_request *request);

/* Ends all waiting within a moment; what is asked then is answered 503. Thread: any. */
void api_stop(struct api *api);

/* After api_stop(), when no thread is in api_answer() any more. NULL is allowed. */
void api_free(struct api *api);

#endif
