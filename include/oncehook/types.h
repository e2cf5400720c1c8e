/* SPDX-License-Identifier: Apache-2.0 */
/* The small types that every part of liboncehook's public API shares: byte slices, statuses,
 * errors with a reason, and the arena that one request's results live in.
 *
 * Nothing here does I/O or reads a clock. All functions of the library are thread-safe as long as
 * an object that is being changed is used by one thread only; recipes, catalogs and key rings are
 * immutable after they are built and may then be shared by any number of threads. */
#ifndef ONCEHOOK_TYPES_H
#define ONCEHOOK_TYPES_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define OH_MUST_CHECK                      __attribute__((warn_unused_result))
#define OH_PRINTF(format_index, first_arg) __attribute__((format(printf, format_index, first_arg)))
#else
#define OH_MUST_CHECK
#define OH_PRINTF(format_index, first_arg)
#endif

/* A run of bytes that somebody else owns; not NUL-terminated. data == NULL means "absent", which
 * is different from present and empty (data != NULL, len == 0). */
struct oh_slice {
    const char *data;
    size_t len; /* bytes */
};

/* Why a call did not give a result. */
enum oh_status {
    OH_OK = 0,
    OH_INVALID,    /* the caller's input (recipe, secret, option) is wrong; oh_error says how */
    OH_UNREADABLE, /* the bytes from outside cannot be read as what they should be */
    OH_TOO_MANY,   /* a bound was passed (events of a delivery, arena bytes) */
    OH_NO_MEMORY,
    OH_SYSTEM, /* the operating system or a library refused; oh_error says what */
};

/* A reason in words, for the person who has to mend it. Never holds a secret or a payload. */
struct oh_error {
    char text[512]; /* NUL-terminated, one line */
    int line;       /* line in the YAML it is about, from 1; 0 = not known */
};

/* Fills *err (which may be NULL) and returns `status`, so that `return oh_fail(err, …)` works.
 * Cuts the text where it does not fit. Thread: any. */
enum oh_status oh_fail(struct oh_error *err, enum oh_status status, const char *format, ...)
    OH_PRINTF(3, 4);

/* An arena: many small allocations, freed at once. One owner, one thread at a time. */
struct oh_arena;

/* A new arena that takes `first_bytes` at once and grows by blocks up to `max_bytes` in all.
 * Returns NULL when memory is gone. The caller frees it with oh_arena_free(). */
struct oh_arena *oh_arena_new(size_t first_bytes, size_t max_bytes) OH_MUST_CHECK;

/* `bytes` bytes aligned for any type, not zeroed, valid until the arena is freed; NULL when the
 * arena's bound or memory is reached. `bytes` == 0 gives a valid pointer. */
void *oh_arena_alloc(struct oh_arena *arena, size_t bytes) OH_MUST_CHECK;

/* What the arena has taken of memory so far, in bytes. */
size_t oh_arena_bytes(const struct oh_arena *arena);

/* Frees the arena and everything in it. NULL is allowed. */
void oh_arena_free(struct oh_arena *arena);

#endif
