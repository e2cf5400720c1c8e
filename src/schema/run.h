/* SPDX-License-Identifier: Apache-2.0 */
/* Runs one step of a migration: with a short lock_timeout and tries where others would queue behind
 * it, and so that it may be run again after it was killed anywhere. */
#ifndef SCHEMA_RUN_H
#define SCHEMA_RUN_H

#include "schema/session.h"
#include "schema/step.h"

struct run {
    const struct step *step;
    bool is_again; /* it was begun before: what lies there is of it */
    /* Called inside the step's transaction (of one that has none: in a transaction after it),
     * before its first statement (may be NULL) and after its last; an error undoes it. */
    enum oh_status (*before)(struct session *session, void *context);
    enum oh_status (*after)(struct session *session, void *context);
    void *context;
};

/* Runs the step. session->waits says what it waited for. Errors: as the server's; nothing of the
 * step has happened then, or it may be run again with is_again. */
enum oh_status run_step(struct session *session, const struct run *run) OH_MUST_CHECK;

/* Drops the parts on months that an interrupted step has built and not attached, which no way back
 * knows. */
enum oh_status run_clean(struct session *session, const struct step *step) OH_MUST_CHECK;

/* One transaction of `sql` and the hooks, tried again while it meets locks. */
enum oh_status run_transaction(struct session *session, const char *sql,
                               const struct run *run) OH_MUST_CHECK;

#endif
