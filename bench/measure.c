/* SPDX-License-Identifier: Apache-2.0 */
/* A measured window and how it is told. */
#include "measure.h"

#include "base/clock.h"
#include "usage.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

static const char *const party_names[MEASURE_PARTIES] = {"gateway", "postgres", "client",
                                                         "machine"};

bool measure_watch(struct measure *measure, const char *text)
{
    const char *equals = strchr(text, '=');
    char *end = NULL;
    long pid = equals ? strtol(equals + 1, &end, 10) : 0;
    if (!equals || pid < 1 || *end)
        return false;
    for (size_t i = 0; i < 2; i++) {
        if (strlen(party_names[i]) == (size_t)(equals - text) &&
            memcmp(party_names[i], text, (size_t)(equals - text)) == 0) {
            measure->pids[i] = (pid_t)pid;
            return true;
        }
    }
    return false;
}

static int64_t cpu_of(const struct measure *measure, enum measure_party party)
{
    switch (party) {
    case MEASURE_CLIENT:
        return usage_self_cpu_us();
    case MEASURE_MACHINE:
        return usage_machine_cpu_us();
    default:
        return measure->pids[party] ? usage_tree_cpu_us(measure->pids[party]) : -1;
    }
}

void measure_begin(struct measure *measure)
{
    measure->rss_bytes = -1;
    for (enum measure_party party = 0; party < MEASURE_PARTIES; party++)
        measure->cpu_us[party] = cpu_of(measure, party);
    measure_look(measure);
    measure->from_us = clock_mono_us();
}

void measure_look(struct measure *measure)
{
    if (!measure->pids[MEASURE_GATEWAY])
        return;
    int64_t now = usage_tree_rss_bytes(measure->pids[MEASURE_GATEWAY]);
    if (now > measure->rss_bytes)
        measure->rss_bytes = now;
}

void measure_end(struct measure *measure)
{
    measure->until_us = clock_mono_us();
    measure_look(measure);
    for (enum measure_party party = 0; party < MEASURE_PARTIES; party++) {
        int64_t after = cpu_of(measure, party);
        bool known = after >= 0 && measure->cpu_us[party] >= 0;
        measure->cpu_us[party] = known ? after - measure->cpu_us[party] : -1;
    }
}

double measure_cpu_per_event(const struct measure *measure, const struct measure_result *result,
                             enum measure_party party)
{
    if (measure->cpu_us[party] < 0 || result->events == 0)
        return NAN;
    return (double)measure->cpu_us[party] / (double)result->events;
}

/* A number with `digits` decimals, or null. */
static json_t *number(double value, int digits)
{
    double unit = pow(10, digits);
    return isnan(value) ? json_null() : json_real(round(value * unit) / unit);
}

static double latency_ms(const struct measure_result *result, double fraction)
{
    if (!result->latencies || result->latencies->count == 0)
        return NAN;
    return (double)histogram_at(result->latencies, fraction) / 1000;
}

/* The curve of all latencies, as HdrHistogram prints it: [share, ms], each share half as far from 1
 * as the one before it, to where a single value stands. */
static json_t *curve(const struct histogram *latencies)
{
    json_t *points = json_array();
    for (uint64_t parts = 1; latencies && 2 * latencies->count >= parts; parts *= 2) {
        double share = 1 - 1 / (double)parts;
        json_array_append_new(
            points, json_pack("[f, f]", share, (double)histogram_at(latencies, share) / 1000));
    }
    return points;
}

json_t *measure_to_json(const struct measure *measure, const struct measure_result *result)
{
    json_t *cpu = json_object();
    for (enum measure_party party = 0; party < MEASURE_MACHINE; party++)
        json_object_set_new(cpu, party_names[party],
                            number(measure_cpu_per_event(measure, result, party), 2));
    double rss_mib = measure->rss_bytes < 0 ? NAN : (double)measure->rss_bytes / 1048576;
    return json_pack(
        "{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:o}", "name", result->name,
        "events_per_second", number(result->events_per_second, 1), "p50_ms",
        number(latency_ms(result, 0.5), 3), "p99_ms", number(latency_ms(result, 0.99), 3),
        "p999_ms", number(latency_ms(result, 0.999), 3), "cpu_us_per_event", cpu, "rss_mib",
        number(rss_mib, 1), "max_ms", number(latency_ms(result, 1), 3), "machine_cpu_us_per_event",
        number(measure_cpu_per_event(measure, result, MEASURE_MACHINE), 2), "seconds",
        number((double)(measure->until_us - measure->from_us) / 1e6, 3), "events",
        (json_int_t)result->events, "latency_curve", curve(result->latencies));
}

void measure_print(const struct measure *measure, const struct measure_result *result)
{
    printf("%-22s %.0f events/s", result->name, result->events_per_second);
    if (result->latencies && result->latencies->count > 0)
        printf("   latency ms: p50 %.2f  p99 %.2f  p99.9 %.2f  max %.2f", latency_ms(result, 0.5),
               latency_ms(result, 0.99), latency_ms(result, 0.999), latency_ms(result, 1));
    printf("\n%-22s CPU µs an event:", "");
    for (enum measure_party party = 0; party < MEASURE_PARTIES; party++) {
        double cpu = measure_cpu_per_event(measure, result, party);
        if (!isnan(cpu))
            printf("  %s %.1f", party_names[party], cpu);
    }
    if (measure->rss_bytes >= 0)
        printf("   gateway's memory %.1f MiB", (double)measure->rss_bytes / 1048576);
    printf("\n");
}

bool measure_write(const char *path, json_t *result)
{
    struct utsname name;
    uname(&name);
    json_t *whole = json_pack("{s:{s:i, s:s, s:s}, s:[o], s:{}}", "machine", "cores",
                              (int)sysconf(_SC_NPROCESSORS_ONLN), "kernel", name.release,
                              "architecture", name.machine, "results", result, "ratios");
    if (!whole)
        return false;
    size_t flags = JSON_INDENT(2) | JSON_REAL_PRECISION(12);
    int failed = strcmp(path, "-") == 0 ? json_dumpf(whole, stdout, flags)
                                        : json_dump_file(whole, path, flags);
    json_decref(whole);
    return failed == 0;
}
