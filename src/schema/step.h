/* SPDX-License-Identifier: Apache-2.0 */
/* A migration's text as steps. A line `-- step: KIND, words` begins one; what stands before the
 * first such line is a step of kind `transaction`, unless it is comments only. Pure. */
#ifndef SCHEMA_STEP_H
#define SCHEMA_STEP_H

#include "base/embedded.h"
#include "base/slice.h"

enum step_kind {
    STEP_TRANSACTION,  /* all of it in one transaction */
    STEP_CONCURRENTLY, /* one statement that PostgreSQL runs outside of a transaction only */
    STEP_BATCHES, /* one statement with a LIMIT, a transaction each time, until it finds no row */
};
enum { STEPS_MAX = 32 };

struct step {
    enum step_kind kind;
    struct oh_slice text; /* without its marker's line; part of the file's text */
    int line;             /* of its first byte in the file, from 1 */
};

struct steps {
    struct step items[STEPS_MAX];
    size_t count; /* at least 1 */
};

/* The word that stands in a marker. */
const char *step_kind_name(enum step_kind kind);

/* Splits the file. Errors: OH_INVALID (a kind that there is not, more than STEPS_MAX); *err names
 * the file and the line. */
enum oh_status steps_read(const struct embedded_file *file, struct steps *out,
                          struct oh_error *err) OH_MUST_CHECK;

/* Where the first statement of `text` begins: behind white space and comments; text.len: nowhere.
 */
size_t step_skip_comments(struct oh_slice text);

#endif
