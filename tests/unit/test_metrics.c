/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of metrics: every series stands on the page from the start, shards add up, histograms
 * are cumulative, labels cannot break the page, and docs/metrics.md names exactly what is shown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "metrics/metrics.h"

#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const two_sources[] = {"stripe", "git\"h\\u\nb"};

static char *render(const struct metrics *metrics, const struct metrics_gauges *gauges)
{
    static const struct metrics_gauges none = {.counter_drift = NAN};
    size_t len = 0;
    char *page = metrics_render(metrics, gauges ? gauges : &none, &len);
    assert_non_null(page);
    assert_int_equal(strlen(page), len);
    assert_int_equal(page[len - 1], '\n');
    return page;
}

/* True if `line` is one whole line of the page. */
static bool has_line(const char *page, const char *line)
{
    size_t len = strlen(line);
    for (const char *p = page; (p = strstr(p, line)); p++)
        if ((p == page || p[-1] == '\n') && p[len] == '\n')
            return true;
    return false;
}

static void assert_line(const char *page, const char *line)
{
    if (!has_line(page, line))
        fail_msg("no line \"%s\" in:\n%s", line, page);
}

static void metrics_show_every_series_from_the_start(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new(two_sources, 2, 3);
    char *page = render(metrics, NULL);
#define X(name, word) \
    assert_line(page, "oncehook_events_total{source=\"stripe\",outcome=\"" word "\"} 0");
    METRIC_OUTCOMES(X)
#undef X
#define X(name, word) \
    assert_line(page, "oncehook_deliveries_total{source=\"stripe\",status=\"" word "\"} 0");
    METRIC_STATUSES(X)
#undef X
#define X(name, word) \
    assert_line(page, "oncehook_rejects_total{source=\"stripe\",reason=\"" word "\"} 0");
    METRIC_REASONS(X)
#undef X
    assert_line(page, "oncehook_deliveries_total{source=\"stripe\",status=\"other\"} 0");
    assert_line(page, "oncehook_id_changed_total{source=\"stripe\"} 0");
    assert_line(page, "oncehook_last_event_timestamp_seconds{source=\"stripe\"} 0");
    assert_line(page, "oncehook_deadlocks_total 0");
    assert_line(page, "oncehook_commit_seconds_bucket{le=\"0.0005\"} 0");
    assert_line(page, "oncehook_commit_seconds_bucket{le=\"10\"} 0");
    assert_line(page, "oncehook_ack_seconds_bucket{le=\"0.001\"} 0");
    assert_line(page, "oncehook_batch_events_bucket{le=\"1000\"} 0");
    assert_line(page, "oncehook_batch_events_count 0");
    assert_line(page, "oncehook_database_up 0");
    assert_line(page, "# TYPE oncehook_events_total counter");
    assert_line(page, "# TYPE oncehook_ack_seconds histogram");
    assert_line(page, "# TYPE oncehook_last_event_timestamp_seconds gauge");
    free(page);
    metrics_free(metrics);
}

static void metrics_escape_labels(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new(two_sources, 2, 1);
    char *page = render(metrics, NULL);
    assert_line(page, "oncehook_id_changed_total{source=\"git\\\"h\\\\u\\nb\"} 0");
    free(page);
    metrics_free(metrics);
}

static void metrics_sum_the_shards(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new(two_sources, 2, 3);
    for (uint32_t i = 0; i < 3; i++) {
        struct metrics_shard *shard = metrics_shard_at(metrics, i);
        metrics_count_event(shard, 0, METRIC_OUTCOME_CAPTURED, 10);
        metrics_count_event(shard, 1, METRIC_OUTCOME_SPOOLED, i);
        metrics_count_delivery(shard, 0, 503);
        metrics_count_delivery(shard, 0, 204);
        metrics_count_reject(shard, 0, METRIC_REASON_STALE);
        metrics_count_deadlock(shard);
        metrics_count_id_changed(shard, 0);
        metrics_note_last_event(shard, 0, 1700000000 - i);
        metrics_count_busy_us(shard, 250000, i == 0 ? 100000 : 300000);
    }
    metrics_note_last_event(metrics_shard_at(metrics, 0), 0, 1600000000);
    char *page = render(metrics, NULL);
    assert_line(page, "oncehook_events_total{source=\"stripe\",outcome=\"captured\"} 30");
    assert_line(page, "oncehook_events_total{source=\"git\\\"h\\\\u\\nb\",outcome=\"spooled\"} 3");
    assert_line(page, "oncehook_deliveries_total{source=\"stripe\",status=\"503\"} 3");
    assert_line(page, "oncehook_deliveries_total{source=\"stripe\",status=\"other\"} 3");
    assert_line(page, "oncehook_deliveries_total{source=\"stripe\",status=\"200\"} 0");
    assert_line(page, "oncehook_rejects_total{source=\"stripe\",reason=\"stale\"} 3");
    assert_line(page, "oncehook_deadlocks_total 3");
    assert_line(page, "oncehook_lane_busy_seconds_total 0.75");
    assert_line(page, "oncehook_lane_fixed_seconds_total 0.6");
    assert_line(page, "oncehook_id_changed_total{source=\"stripe\"} 3");
    assert_line(page, "oncehook_last_event_timestamp_seconds{source=\"stripe\"} 1700000000");
    free(page);
    metrics_free(metrics);
}

static void metrics_histograms_are_cumulative(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new(two_sources, 2, 2);
    metrics_observe_commit_us(metrics_shard_at(metrics, 0), 500); /* on a bound: in it */
    metrics_observe_commit_us(metrics_shard_at(metrics, 1), 501); /* the next one */
    metrics_observe_commit_us(metrics_shard_at(metrics, 1), -5);  /* a clock's whim counts as 0 */
    metrics_observe_commit_us(metrics_shard_at(metrics, 0), 20000000);
    metrics_observe_ack_us(metrics_shard_at(metrics, 0), 1500);
    metrics_observe_batch_events(metrics_shard_at(metrics, 0), 1000);
    char *page = render(metrics, NULL);
    assert_line(page, "oncehook_commit_seconds_bucket{le=\"0.0005\"} 2");
    assert_line(page, "oncehook_commit_seconds_bucket{le=\"0.001\"} 3");
    assert_line(page, "oncehook_commit_seconds_bucket{le=\"10\"} 3");
    assert_line(page, "oncehook_commit_seconds_bucket{le=\"+Inf\"} 4");
    assert_line(page, "oncehook_commit_seconds_count 4");
    assert_line(page, "oncehook_commit_seconds_sum 20.001001");
    assert_line(page, "oncehook_ack_seconds_bucket{le=\"0.0025\"} 1");
    assert_line(page, "oncehook_ack_seconds_count 1");
    assert_line(page, "oncehook_batch_events_bucket{le=\"500\"} 0");
    assert_line(page, "oncehook_batch_events_bucket{le=\"1000\"} 1");
    assert_line(page, "oncehook_batch_events_sum 1000");
    free(page);
    metrics_free(metrics);
}

static void metrics_gauges_are_what_was_given(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new(NULL, 0, 0);
    struct metrics_gauges gauges = {.queue_events = 12345678901,
                                    .oldest_waiting_seconds = 0.125,
                                    .spool_events = 7,
                                    .database_up = 1,
                                    .counter_drift = NAN,
                                    .connections = 4096};
    char *page = render(metrics, &gauges);
    assert_line(page, "oncehook_queue_events 12345678901");
    assert_line(page, "oncehook_oldest_waiting_seconds 0.125");
    assert_line(page, "oncehook_spool_events 7");
    assert_line(page, "oncehook_database_up 1");
    assert_line(page, "oncehook_connections 4096");
    assert_null(strstr(page, "oncehook_counter_drift"));
    free(page);
    gauges.counter_drift = 0;
    page = render(metrics, &gauges);
    assert_line(page, "oncehook_counter_drift 0");
    free(page);
    gauges = (struct metrics_gauges){.months_ahead = -1, .hit_ratio = 0.75, .id_headroom = NAN};
    page = render(metrics, &gauges);
    assert_line(page, "oncehook_months_ahead -1");
    assert_line(page, "oncehook_hit_ratio 0.75");
    assert_null(strstr(page, "oncehook_id_headroom"));
    free(page);
    metrics_free(metrics);
}

static void *count_many(void *context)
{
    for (int i = 0; i < 100000; i++) {
        metrics_count_event(context, 0, METRIC_OUTCOME_CAPTURED, 1);
        metrics_observe_ack_us(context, i);
    }
    return NULL;
}

static void metrics_lose_nothing_between_threads(void **state)
{
    (void)state;
    struct metrics *metrics = metrics_new(two_sources, 2, 4);
    pthread_t threads[4];
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, count_many, metrics_shard_at(metrics, i)), 0);
    for (int i = 0; i < 20; i++) /* reading meanwhile is what a scrape does */
        free(render(metrics, NULL));
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    char *page = render(metrics, NULL);
    assert_line(page, "oncehook_events_total{source=\"stripe\",outcome=\"captured\"} 400000");
    assert_line(page, "oncehook_ack_seconds_count 400000");
    free(page);
    metrics_free(metrics);
}

/* Reads the whole docs/metrics.md; the build gives its path. */
static char *read_docs(void)
{
    FILE *file = fopen(METRICS_DOCS, "re");
    if (!file)
        fail_msg("cannot open %s", METRICS_DOCS);
    static char text[65536];
    size_t len = fread(text, 1, sizeof(text) - 1, file);
    text[len] = 0;
    fclose(file);
    return text;
}

static void print_a_secret(void *context, FILE *page, const char *metric)
{
    (void)context;
    fprintf(page, "%s{source=\"stripe\",secret=\"1\"} 0\n", metric);
}

/* Each "# HELP name" and its TYPE must be a row "| `name…` | type |" of the docs, and the other
 * way. */
static void metrics_are_those_of_the_docs(void **state)
{
    (void)state;
    const char *docs = read_docs();
    struct metrics *metrics = metrics_new(two_sources, 2, 1);
    struct metrics_gauges gauges = {.counter_drift = 0, .print_secrets = print_a_secret};
    char *page = render(metrics, &gauges);
    int shown = 0, documented = 0;
    for (const char *p = page; (p = strstr(p, "# TYPE ")); p++) {
        char name[128], type[16], row[256];
        assert_int_equal(sscanf(p, "# TYPE %127s %15s", name, type), 2);
        snprintf(row, sizeof(row), "\n| `%s", name);
        const char *at = strstr(docs, row);
        if (!at)
            fail_msg("%s is not in docs/metrics.md", name);
        const char *cell = strstr(at, " | ");
        if (!cell || strncmp(cell + 3, type, strlen(type)) != 0)
            fail_msg("docs/metrics.md does not call %s a %s", name, type);
        shown++;
    }
    for (const char *p = docs; (p = strstr(p, "\n| `oncehook_")); p++)
        documented++;
    assert_true(shown > 10);
    assert_int_equal(documented, shown);
    free(page);
    metrics_free(metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metrics_show_every_series_from_the_start),
        cmocka_unit_test(metrics_escape_labels),
        cmocka_unit_test(metrics_sum_the_shards),
        cmocka_unit_test(metrics_histograms_are_cumulative),
        cmocka_unit_test(metrics_gauges_are_what_was_given),
        cmocka_unit_test(metrics_lose_nothing_between_threads),
        cmocka_unit_test(metrics_are_those_of_the_docs),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
