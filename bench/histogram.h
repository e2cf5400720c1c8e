/* SPDX-License-Identifier: Apache-2.0 */
/* A log-linear histogram in the manner of HdrHistogram (Debian packages no C one): every power of
 * two is split into 128 buckets, so a value is known to within 1/128 of itself. Fixed memory, no
 * allocation, one writer. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

enum {
    HISTOGRAM_SUB_BITS = 7,
    HISTOGRAM_VALUE_BITS = 34, /* values from 2^34 µs (4.7 hours) on count as that */
    HISTOGRAM_BUCKETS = (HISTOGRAM_VALUE_BITS - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS
};

/* All zero = empty. */
struct histogram {
    uint64_t buckets[HISTOGRAM_BUCKETS];
    uint64_t count;
    int64_t max;
};

/* Notes one value in µs; a negative one counts as 0. */
void histogram_record(struct histogram *histogram, int64_t us);

/* Adds all of `from` to `to`. */
void histogram_add(struct histogram *to, const struct histogram *from);

/* The value in µs that `fraction` (0…1) of all values do not pass: the upper end of its bucket,
 * never more than the greatest value. 0 when empty. */
int64_t histogram_at(const struct histogram *histogram, double fraction);

#endif
