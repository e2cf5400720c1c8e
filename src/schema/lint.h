/* SPDX-License-Identifier: Apache-2.0 */
/* migrate lint: finds what would stop a running gateway for longer than a moment, what an older
 * gateway would miss, and what cannot be run again, in the text of migrations. Pure. */
#ifndef SCHEMA_LINT_H
#define SCHEMA_LINT_H

#include "base/embedded.h"

#include "oncehook/types.h"

#include <stdbool.h>

struct lint_rule {
    const char *name;    /* "index-locks-writers" */
    const char *finds;   /* what it looks for */
    const char *why;     /* what would happen */
    const char *instead; /* what to write */
};

/* All of them, ended by a NULL name. */
extern const struct lint_rule lint_rules[];

struct lint;
typedef void lint_sink(void *context, const char *file, int line, const struct lint_rule *rule);

/* NULL: no memory. The caller frees it with lint_free(). */
struct lint *lint_new(void) OH_MUST_CHECK;
void lint_free(struct lint *lint);

/* Reads one migration (".down.sql" at the end of its name: the way back) and calls `sink` (NULL:
 * for nobody) for each finding. What it makes is known when the next file is read, so files are
 * given in order, ups before downs. */
void lint_read(struct lint *lint, const struct embedded_file *file, lint_sink *sink, void *context);

#endif
