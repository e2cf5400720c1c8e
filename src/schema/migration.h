/* SPDX-License-Identifier: Apache-2.0 */
/* The migrations of sql/ as a list: NNNN_name.up.sql and NNNN_name.down.sql, embedded. Versions
 * count from 1 without a gap. Pure. */
#ifndef SCHEMA_MIGRATION_H
#define SCHEMA_MIGRATION_H

#include "base/embedded.h"
#include "base/slice.h"

struct migration {
    int version;
    char name[64];     /* "campaigns" */
    char checksum[65]; /* SHA-256 of `up` without its `-- lint:` lines, lower-case hex */
    const struct embedded_file *up, *down;
};

struct migrations {
    struct migration *items; /* ascending by version; items[i].version == i + 1 */
    size_t count;
};

/* Reads `files` (ended by a NULL name; files of other names are passed over). Errors: OH_INVALID (a
 * gap, a missing half, a name too long), OH_NO_MEMORY. On OH_OK the caller frees with
 * migrations_free(). */
enum oh_status migrations_read(const struct embedded_file *files, struct migrations *out,
                               struct oh_error *err) OH_MUST_CHECK;
void migrations_free(struct migrations *migrations);

/* The next table that the text makes: a line that begins with "CREATE TABLE NAME". *at is where to
 * go on, begin with 0. data NULL: no more. */
struct oh_slice migration_next_table(const struct migration *migration, size_t *at);

#endif
