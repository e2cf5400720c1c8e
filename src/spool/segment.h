/* SPDX-License-Identifier: Apache-2.0 */
/* One segment: a SQLite file (WAL, synchronous=FULL) with the table
 *   records(number INTEGER PRIMARY KEY, hash BLOB, bytes BLOB).
 * All calls of SQLite are in segment.c. A segment belongs to one thread; the writing one and the
 * reading one of a file are two segments. No call retries anything: after SEGMENT_FAILED or
 * SEGMENT_FULL a writing segment may only be closed, since a second fsync of a file says nothing
 * about what the first one lost. */
#ifndef SPOOL_SEGMENT_H
#define SPOOL_SEGMENT_H

#include "spool/record.h"

enum segment_result {
    SEGMENT_OK,
    SEGMENT_END,     /* no more rows */
    SEGMENT_FULL,    /* no room on the disk */
    SEGMENT_FAILED,  /* an I/O error */
    SEGMENT_DAMAGED, /* not what was written */
    SEGMENT_AGAIN,   /* out of memory, of descriptors, or locked: says nothing about the file */
};

struct segment;

/* A new file (mode 0600) ready for segment_begin(); nothing may be at `path`. What a failure leaves
 * is the caller's to remove. */
enum segment_result segment_create(const char *path, struct segment **out,
                                   struct oh_error *err) OH_MUST_CHECK;

/* Opens for reading, beside a writer or alone; whatever SQLite has to recover stays in the WAL.
 * Where the disk has no room for the WAL's index nobody else can open it until it is closed. */
enum segment_result segment_open(const char *path, struct segment **out,
                                 struct oh_error *err) OH_MUST_CHECK;

/* Opens for reading and, with nobody else there, for changing rows: segment_begin(), segment_add()
 * of a number that is there puts these bytes in place of its own, segment_commit(). What was in
 * their place is overwritten. */
enum segment_result segment_open_to_change(const char *path, struct segment **out,
                                           struct oh_error *err) OH_MUST_CHECK;

/* Builds the file anew from its rows, on disk, and empties the WAL: no byte of a row that is gone
 * is left in either. Needs room for the file once more. */
enum segment_result segment_rebuild(struct segment *segment, struct oh_error *err) OH_MUST_CHECK;

/* Ends it. `well`: written to its end, so the WAL is moved into the file and removed; else no file
 * is touched. NULL is allowed. */
void segment_close(struct segment *segment, bool well);

/* One transaction: begin, add …, commit. SEGMENT_OK from commit: on disk. */
enum segment_result segment_begin(struct segment *segment, struct oh_error *err) OH_MUST_CHECK;
enum segment_result segment_add(struct segment *segment, uint64_t number, struct oh_slice bytes,
                                struct oh_error *err) OH_MUST_CHECK;
enum segment_result segment_commit(struct segment *segment, struct oh_error *err) OH_MUST_CHECK;

/* Bytes in the WAL that segment_settle() would move. */
uint64_t segment_unsettled_bytes(const struct segment *segment);

/* Moves the WAL into the file, with fsync of both; readers may go on. `shrink`: and gives its room
 * back, unless it is being read. */
enum segment_result segment_settle(struct segment *segment, bool shrink,
                                   struct oh_error *err) OH_MUST_CHECK;

/* The rows first..last from now on, in order, for segment_next(). */
enum segment_result segment_seek(struct segment *segment, uint64_t first, uint64_t last,
                                 struct oh_error *err) OH_MUST_CHECK;

struct segment_row {
    uint64_t number;
    struct oh_slice hash, bytes; /* valid until the next call */
};
enum segment_result segment_next(struct segment *segment, struct segment_row *row,
                                 struct oh_error *err) OH_MUST_CHECK;

/* Ends what segment_seek() began, so that the writer's WAL can start anew. */
void segment_rest(struct segment *segment);

/* The greatest number; SEGMENT_END: no rows. */
enum segment_result segment_greatest(struct segment *segment, uint64_t *number,
                                     struct oh_error *err) OH_MUST_CHECK;

#endif
