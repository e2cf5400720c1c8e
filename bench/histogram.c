/* SPDX-License-Identifier: Apache-2.0 */
/* Latency histogram: constant time to note, 1/128 exact, mergeable. */
#include "histogram.h"

enum { SUB_COUNT = 1 << HISTOGRAM_SUB_BITS };

/* Values below 128 have a bucket each; from there on a row of 128 buckets holds one power of two.
 */
static unsigned bucket_of(uint64_t value)
{
    if (value < SUB_COUNT)
        return (unsigned)value;
    unsigned top_bit = 63 - (unsigned)__builtin_clzll(value);
    unsigned shift = top_bit - HISTOGRAM_SUB_BITS;
    return ((shift + 1) << HISTOGRAM_SUB_BITS) + (unsigned)((value >> shift) & (SUB_COUNT - 1));
}

/* The greatest value that bucket_of() puts into `bucket`. */
static int64_t bucket_end(unsigned bucket)
{
    unsigned row = bucket >> HISTOGRAM_SUB_BITS;
    uint64_t sub = bucket & (SUB_COUNT - 1);
    if (row == 0)
        return (int64_t)sub;
    return (int64_t)(((sub + SUB_COUNT + 1) << (row - 1)) - 1);
}

void histogram_record(struct histogram *histogram, int64_t us)
{
    const int64_t last = ((int64_t)1 << HISTOGRAM_VALUE_BITS) - 1;
    if (us < 0)
        us = 0;
    if (us > last)
        us = last;
    histogram->buckets[bucket_of((uint64_t)us)]++;
    histogram->count++;
    if (us > histogram->max)
        histogram->max = us;
}

void histogram_add(struct histogram *to, const struct histogram *from)
{
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        to->buckets[i] += from->buckets[i];
    to->count += from->count;
    if (from->max > to->max)
        to->max = from->max;
}

int64_t histogram_at(const struct histogram *histogram, double fraction)
{
    if (histogram->count == 0)
        return 0;
    double exact = fraction * (double)histogram->count;
    uint64_t wanted = (uint64_t)exact;
    if ((double)wanted < exact || wanted == 0)
        wanted++;
    uint64_t seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen >= wanted) {
            int64_t end = bucket_end(i);
            return end < histogram->max ? end : histogram->max;
        }
    }
    return histogram->max;
}
