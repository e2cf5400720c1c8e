/* SPDX-License-Identifier: Apache-2.0 */
/* One number on disk: the last acknowledged record, the last drained one. Two slots with a
 * checksum, written in turn, so that a torn write leaves the number before. */
#ifndef SPOOL_MARK_H
#define SPOOL_MARK_H

#include "oncehook/types.h"

#include <stdbool.h>

enum mark_state {
    MARK_FINE,
    MARK_ABSENT,   /* no file */
    MARK_DOUBTFUL, /* a slot does not verify: the number may be older than the last one saved, 0
                      with no slot left */
    MARK_UNREAD,   /* as doubtful, for the disk did not read: it may in a moment */
};

struct mark {
    int directory; /* descriptor, the caller's */
    const char *name;
    int fd; /* -1: the next save makes a new file */
    uint64_t sequence, number;
};

/* Reads directory/name; it stays open where it is fine, until mark_close(). Errors: none; errno
 * says why what could not be read is MARK_UNREAD. */
enum mark_state mark_load(struct mark *mark, int directory, const char *name);

/* Puts the number on disk. False: it could not be; errno says why. The number on disk is then the
 * one before or this one. */
bool mark_save(struct mark *mark, uint64_t number) OH_MUST_CHECK;
void mark_close(struct mark *mark);

#endif
