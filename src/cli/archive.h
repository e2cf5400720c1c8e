/* SPDX-License-Identifier: Apache-2.0 */
/* A month of events as a file: what COPY gives, gzip'ed, with its SHA-256 beside it, both on the
 * disk before the call returns. */
#ifndef CLI_ARCHIVE_H
#define CLI_ARCHIVE_H

#include "oncehook/types.h"

#include <libpq-fe.h>

struct archive {
    char *path;      /* DIR/TABLE.copy.gz, absolute; the caller frees it */
    char sha256[65]; /* of the file's bytes, lower-case hex */
    long long rows;  /* without the line of column names */
};

/* Whether DIR takes files: asked before any month has to wait for its own. Leaves none behind.
 * Errors: OH_SYSTEM. */
enum oh_status archive_check(const char *directory, struct oh_error *err) OH_MUST_CHECK;

/* Writes DIR/TABLE.copy.gz and DIR/TABLE.copy.gz.sha256 (as sha256sum -c reads it). A file of that
 * name is never overwritten. on_bytes: told how many bytes COPY has given so far. Errors:
 * OH_SYSTEM, OH_INVALID (the name is taken), OH_NO_MEMORY; nothing stays behind. Thread: the
 * connection's. */
enum oh_status archive_write(PGconn *connection, const char *table, const char *directory,
                             void (*on_bytes)(void *context, long long bytes), void *context,
                             struct archive *out, struct oh_error *err) OH_MUST_CHECK;

#endif
