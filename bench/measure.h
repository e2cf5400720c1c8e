/* SPDX-License-Identifier: Apache-2.0 */
/* The window of time that a benchmark measures: what the processes spent in it, and the result as
 * one object of the contract's JSON (CONTRACT "Benchmarks") and as a line of a table. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include "histogram.h"

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

enum measure_party {
    MEASURE_GATEWAY,  /* the server under load */
    MEASURE_POSTGRES, /* the postmaster and all its processes */
    MEASURE_CLIENT,   /* this process */
    MEASURE_MACHINE,  /* all cores: the three, the kernel's threads, and whatever else runs */
    MEASURE_PARTIES
};

struct measure {
    pid_t pids[2]; /* of gateway and postgres; 0 = not watched */
    int64_t from_us, until_us;
    int64_t cpu_us[MEASURE_PARTIES]; /* spent in the window; < 0 = not known */
    int64_t rss_bytes;               /* greatest of the gateway; < 0 = not known */
};

struct measure_result {
    const char *name;
    double events_per_second;
    uint64_t events; /* acknowledged in the window */
    const struct histogram *latencies;
};

/* Reads "gateway=PID" or "postgres=PID"; false for anything else. */
bool measure_watch(struct measure *measure, const char *text);

/* The window opens and closes now. measure_look() in between, now and then, for the memory. */
void measure_begin(struct measure *measure);
void measure_look(struct measure *measure);
void measure_end(struct measure *measure);

/* CPU time per event in µs; NAN when not known. */
double measure_cpu_per_event(const struct measure *measure, const struct measure_result *result,
                             enum measure_party party);

/* {"name","events_per_second","p50_ms",…,"cpu_us_per_event":{…},"rss_mib"}; NULL when memory is
 * gone. The caller owns it and may add to it. */
json_t *measure_to_json(const struct measure *measure, const struct measure_result *result);

/* Prints the result as two or three lines to stdout. */
void measure_print(const struct measure *measure, const struct measure_result *result);

/* Writes {"machine":…,"results":[result],"ratios":{}} to the file `path` ("-": stdout). Takes over
 * `result`. False when it could not be written. */
bool measure_write(const char *path, json_t *result);

#endif
