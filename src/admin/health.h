/* SPDX-License-Identifier: Apache-2.0 */
/* What /health and /health/database say, from the gateway's state. No I/O. */
#ifndef ADMIN_HEALTH_H
#define ADMIN_HEALTH_H

#include "admin/admin.h"

#include <jansson.h>

/* {"status", "gateway":{"status",…}, "lanes":…, "database":…, "queue":…, "spool"?:…, "timestamp"}.
 * The whole is unhealthy if no event can be taken now, degraded if any part is not healthy. A new
 * reference; NULL when memory is gone. */
json_t *health_of_all(const struct config *config, const struct admin_state *state);

/* {"status", "warning"?, "pool":{"total","idle","waiting"}, "tables":[…], "timestamp"}. tables:
 * taken over (the caller's reference goes); NULL = could not be read. */
json_t *health_of_database(const struct admin_state *state, json_t *tables);

#endif
