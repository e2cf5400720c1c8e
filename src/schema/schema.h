/* SPDX-License-Identifier: Apache-2.0 */
/* The schema: migrations of sql/, embedded in the binary, applied by the owner's role. */
#ifndef SCHEMA_SCHEMA_H
#define SCHEMA_SCHEMA_H

#include "oncehook/types.h"

#include <stdbool.h>

/* The schema versions that this binary works on: its own N, and N+1. */
int schema_version_wanted(void);

struct schema_report {
    /* Called for each line that `migrate` prints (no newline at its end). */
    void (*line)(void *context, const char *text);
    void *context;
};

/* Applies all migrations that are missing in schema `schema` of the database at `url`, each in its
 * own transaction, under an advisory lock that is tried in a loop. dry_run: says what it would do.
 * Errors: OH_INVALID (a changed migration, a table it did not make; *err says which and what to
 * do), OH_SYSTEM (database). */
enum oh_status schema_up(const char *url, const char *schema, bool dry_run,
                         const struct schema_report *report, struct oh_error *err) OH_MUST_CHECK;

/* Undoes the last `steps` migrations; over rows only with force. */
enum oh_status schema_down(const char *url, const char *schema, int steps, bool force, bool dry_run,
                           const struct schema_report *report, struct oh_error *err) OH_MUST_CHECK;

/* One line a migration: version, name, applied when, or pending. */
enum oh_status schema_status(const char *url, const char *schema,
                             const struct schema_report *report,
                             struct oh_error *err) OH_MUST_CHECK;

#endif
