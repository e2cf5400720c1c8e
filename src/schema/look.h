/* SPDX-License-Identifier: Apache-2.0 */
/* What `migrate` says of a step before it runs, and looks at afterwards: the checklist that people
 * forget. */
#ifndef SCHEMA_LOOK_H
#define SCHEMA_LOOK_H

#include "schema/session.h"
#include "schema/statement.h"
#include "schema/step.h"

/* Prints a line for each table that is there and that the step works on or keeps others from: its
 * size, the lock, the work, an estimate. *tables, an array of names that the caller frees with
 * json_decref(), gets what should be analyzed afterwards. */
enum oh_status look_before(struct session *session, const struct step *step,
                           json_t *tables) OH_MUST_CHECK;

/* ANALYZE of those tables; one that cannot be had is said and passed over. */
void look_analyze(struct session *session, json_t *tables);

/* Prints what an interrupted change may have left. */
enum oh_status look_verify(struct session *session) OH_MUST_CHECK;

/* Is it there, and is it partitioned? 'p', 'r', 'm', or 0. */
enum oh_status look_kind(struct session *session, const char *table, char *kind) OH_MUST_CHECK;

#endif
