/* SPDX-License-Identifier: Apache-2.0 */
/* Upkeep: what the database needs from time to time, in a thread and a connection of its own. Now:
 * months are made three ahead, at first contact and every hour. (Retention, the binding sweep and
 * the audit window come here.) */
#ifndef UPKEEP_UPKEEP_H
#define UPKEEP_UPKEEP_H

#include "config/config.h"

struct upkeep;

enum oh_status upkeep_start(const struct config *config, struct upkeep **out,
                            struct oh_error *err) OH_MUST_CHECK;
void upkeep_stop(struct upkeep *upkeep);

#endif
