/* SPDX-License-Identifier: Apache-2.0 */
/* The enrollments, each with its instance, that the events of a run name: read from the database
 * before the run, or invented where there is none (then every event is an orphan). */
#ifndef BENCH_PAIRS_H
#define BENCH_PAIRS_H

#include "oncehook/types.h"

#include <stdbool.h>

enum { UUID_TEXT = 36 };

struct pair {
    char enrollment[UUID_TEXT], instance[UUID_TEXT]; /* text, no NUL */
};

struct pairs {
    struct pair *items;
    size_t count;
};

/* Reads up to `max` pairs in schema `schema` at `url` (libpq URI), waiting at most 5 s to connect.
 * OH_INVALID: there are none; OH_SYSTEM: the database said no. Free with pairs_free(). */
enum oh_status pairs_read(const char *url, const char *schema, size_t max, struct pairs *out,
                          struct oh_error *err) OH_MUST_CHECK;

/* `count` pairs of random ids, 100 enrollments to an instance. */
enum oh_status pairs_invent(size_t count, struct pairs *out, struct oh_error *err) OH_MUST_CHECK;

/* Keeps the pairs of the first `instances` instances that it finds. */
void pairs_keep_instances(struct pairs *pairs, uint32_t instances);

void pairs_free(struct pairs *pairs);

#endif
