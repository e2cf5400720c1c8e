/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of a command line: all of the text, within bounds, or the end with words and exit code.
 */
#ifndef BENCH_NUMBER_H
#define BENCH_NUMBER_H

#include <argp.h>
#include <stdint.h>
#include <stdlib.h>

/* `most` below 2^53, so that a whole number is exact. NaN is in no bounds. */
static inline double number_or_usage(struct argp_state *state, const char *name, const char *text,
                                     double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value <= most))
        argp_error(state, "--%s: a number from %.15g to %.15g", name, least, most);
    return value;
}

static inline uint64_t count_or_usage(struct argp_state *state, const char *name, const char *text,
                                      double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value <= most) ||
        value != (double)(uint64_t)value)
        argp_error(state, "--%s: a whole number from %.15g to %.15g", name, least, most);
    return (uint64_t)value;
}

#endif
