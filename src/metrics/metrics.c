/* SPDX-License-Identifier: Apache-2.0 */
/* metrics/metrics.h: the table of all metrics, the shards that threads count in, and the text page.
 *
 * A shard has one writer, so counting is a relaxed load and store without a locked instruction; the
 * atomics only promise the reader whole words. Every series exists from the start with 0, so that
 * rate() sees the first event. Format: Prometheus text exposition 0.0.4,
 * https://prometheus.io/docs/instrumenting/exposition_formats/ */
#include "metrics/metrics.h"

#include <stdbool.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* COUNTER_SUM is summed over shards, COUNTER_SECONDS too and kept in µs, GAUGE_MAX is the greatest
 * of them, the ASKED ones come from struct metrics_gauges, the PRINTED one by its callback. */
enum metric_kind {
    COUNTER_SUM,
    COUNTER_SECONDS,
    GAUGE_MAX,
    GAUGE_ASKED,
    COUNTER_ASKED,
    HISTOGRAM,
    GAUGE_PRINTED
};
enum metric_labels { PLAIN, BY_SOURCE, BY_OUTCOME, BY_STATUS, BY_REASON };

#define X(name, word) word,
static const char *const outcome_words[] = {METRIC_OUTCOMES(X)};
static const char *const status_words[] = {METRIC_STATUSES(X) "other"};
static const char *const reason_words[] = {METRIC_REASONS(X)};
#undef X

/* How many series of one source a set of labels makes, and their second label. */
static const struct {
    const char *label;
    const char *const *words;
    size_t count;
} label_table[] = {
    [PLAIN] = {NULL, NULL, 1},
    [BY_SOURCE] = {NULL, NULL, 1},
    [BY_OUTCOME] = {"outcome", outcome_words, METRIC_OUTCOME_COUNT},
    [BY_STATUS] = {"status", status_words, METRIC_STATUS_COUNT},
    [BY_REASON] = {"reason", reason_words, METRIC_REASON_COUNT},
};

/* Upper bounds of the buckets, as they are observed; divided by `divisor` they are shown. */
enum { BUCKETS_MAX = 15 };

enum { HISTOGRAM_BATCH_EVENTS, HISTOGRAM_COMMIT, HISTOGRAM_ACK, HISTOGRAM_COUNT };
static const struct histogram_shape {
    double divisor;
    size_t count; /* of bounds; one more bucket takes what is beyond */
    uint64_t bounds[BUCKETS_MAX];
} shapes[HISTOGRAM_COUNT] = {
    [HISTOGRAM_BATCH_EVENTS] = {1, 10, {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000}},
    [HISTOGRAM_COMMIT] = {1e6,
                          14,
                          {500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000,
                           1000000, 2500000, 5000000, 10000000}},
    [HISTOGRAM_ACK] = {1e6,
                       13,
                       {1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000,
                        2500000, 5000000, 10000000}},
};

typedef _Atomic uint64_t cell;

struct histogram {
    cell sum;
    cell buckets[BUCKETS_MAX + 1];
};

/* What one thread counts for one source. */
struct source_cells {
    cell events[METRIC_OUTCOME_COUNT];
    cell deliveries[METRIC_STATUS_COUNT];
    cell rejects[METRIC_REASON_COUNT];
    cell id_changed;
    cell last_event;
};

enum { CACHE_LINE_BYTES = 64 };

struct metrics_shard {
    _Alignas(CACHE_LINE_BYTES) cell deadlocks;
    cell bound;
    cell memory_closed;
    cell busy_us;
    cell fixed_us;
    struct histogram histograms[HISTOGRAM_COUNT];
    uint32_t source_count;
    struct source_cells sources[];
};

struct metrics {
    uint32_t source_count, shard_count;
    char **source_labels;          /* escaped */
    struct metrics_shard **shards; /* each its own cache lines */
};

/* ---- the table ---- */

#define IN_SHARD(member)  offsetof(struct metrics_shard, member)
#define IN_SOURCE(member) offsetof(struct source_cells, member)
#define IN_GAUGES(member) offsetof(struct metrics_gauges, member)

/* In the order of the page. docs/metrics.md is held against it by a test. */
static const struct metric {
    const char *name;
    enum metric_kind kind;
    enum metric_labels labels;
    size_t place; /* of its first cell, of its value among the gauges, or the histogram's number */
    const char *help;
} metric_table[] = {
    {"oncehook_events_total", COUNTER_SUM, BY_OUTCOME, IN_SOURCE(events),
     "Events decided, by source and outcome (exclusive; a drained event counts again)."},
    {"oncehook_deliveries_total", COUNTER_SUM, BY_STATUS, IN_SOURCE(deliveries),
     "Deliveries answered, by source and HTTP status."},
    {"oncehook_rejects_total", COUNTER_SUM, BY_REASON, IN_SOURCE(rejects),
     "Deliveries refused, or verified and unreadable, by source and reason."},
    {"oncehook_id_changed_total", COUNTER_SUM, BY_SOURCE, IN_SOURCE(id_changed),
     "Events with the fields of a recent one under a new id (best effort)."},
    {"oncehook_last_event_timestamp_seconds", GAUGE_MAX, BY_SOURCE, IN_SOURCE(last_event),
     "Unix time at which a source's last event was captured; 0 = none since the start."},
    {"oncehook_secret_last_match_timestamp_seconds", GAUGE_PRINTED, PLAIN, 0,
     "Unix time at which a secret last signed a delivery; 0 = not since the start."},
    {"oncehook_configuration_loaded_timestamp_seconds", GAUGE_ASKED, PLAIN,
     IN_GAUGES(configuration_loaded), "Unix time at which the secrets in use were loaded."},
    {"oncehook_reload_failures_total", COUNTER_ASKED, PLAIN, IN_GAUGES(reload_failures),
     "Reloads (SIGHUP) whose configuration was refused; the old one stayed."},
    {"oncehook_deadlocks_total", COUNTER_SUM, PLAIN, IN_SHARD(deadlocks),
     "Batches that PostgreSQL ended as deadlocked (40P01); each was tried again."},
    {"oncehook_orphans_bound_total", COUNTER_SUM, PLAIN, IN_SHARD(bound),
     "Orphans that this gateway's sweep bound to an enrollment that appeared later."},
    {"oncehook_memory_closed_total", COUNTER_SUM, PLAIN, IN_SHARD(memory_closed),
     "Connections that held most, closed for limits.memory."},
    {"oncehook_batch_events", HISTOGRAM, PLAIN, HISTOGRAM_BATCH_EVENTS,
     "Events a committed batch."},
    {"oncehook_commit_seconds", HISTOGRAM, PLAIN, HISTOGRAM_COMMIT,
     "Seconds from sending a batch to its known commit."},
    {"oncehook_ack_seconds", HISTOGRAM, PLAIN, HISTOGRAM_ACK,
     "Seconds from a delivery's acceptance to its answer."},
    {"oncehook_queue_events", GAUGE_ASKED, PLAIN, IN_GAUGES(queue_events),
     "Events admitted and not yet decided."},
    {"oncehook_oldest_waiting_seconds", GAUGE_ASKED, PLAIN, IN_GAUGES(oldest_waiting_seconds),
     "Age of the oldest event that no lane has sent yet."},
    {"oncehook_spool_events", GAUGE_ASKED, PLAIN, IN_GAUGES(spool_events),
     "Events in the spool, waiting for PostgreSQL."},
    {"oncehook_spool_bytes", GAUGE_ASKED, PLAIN, IN_GAUGES(spool_bytes),
     "Size of the spool on disk."},
    {"oncehook_spool_lost_total", COUNTER_ASKED, PLAIN, IN_GAUGES(spool_lost),
     "Records of the spool that were acknowledged and cannot be read, since its first start."},
    {"oncehook_lanes", GAUGE_ASKED, PLAIN, IN_GAUGES(lanes), "Lanes: connections that write."},
    {"oncehook_lane_busy_seconds_total", COUNTER_SECONDS, PLAIN, IN_SHARD(busy_us),
     "Seconds that lanes had a batch with PostgreSQL, all lanes together."},
    {"oncehook_lane_fixed_seconds_total", COUNTER_SECONDS, PLAIN, IN_SHARD(fixed_us),
     "The part of them that every batch takes, however few events it has."},
    {"oncehook_waiting_batches", GAUGE_ASKED, PLAIN, IN_GAUGES(waiting_batches),
     "Full batches that wait behind those with PostgreSQL."},
    {"oncehook_slow_statements_total", COUNTER_ASKED, PLAIN, IN_GAUGES(slow_statements),
     "Statements of this gateway that took longer than database.slow_statement."},
    {"oncehook_database_up", GAUGE_ASKED, PLAIN, IN_GAUGES(database_up),
     "1 if events can be committed now, else 0."},
    {"oncehook_connections", GAUGE_ASKED, PLAIN, IN_GAUGES(connections),
     "Open client connections of the gateway listener."},
    {"oncehook_memory_bytes", GAUGE_ASKED, PLAIN, IN_GAUGES(memory_bytes),
     "Bytes that count for limits.memory."},
    {"oncehook_counter_drift", GAUGE_ASKED, PLAIN, IN_GAUGES(counter_drift),
     "Counters that differ from their events, when last measured; absent until then."},
    {"oncehook_months_ahead", GAUGE_ASKED, PLAIN, IN_GAUGES(months_ahead),
     "Months made for events to come, after this one."},
    {"oncehook_oldest_transaction_seconds", GAUGE_ASKED, PLAIN,
     IN_GAUGES(oldest_transaction_seconds), "Age of the oldest open transaction."},
    {"oncehook_dead_row_share", GAUGE_ASKED, PLAIN, IN_GAUGES(dead_row_share),
     "Share of dead rows in the table that has most of them."},
    {"oncehook_id_headroom", GAUGE_ASKED, PLAIN, IN_GAUGES(id_headroom),
     "Share that is left of the numbers that end first: sequences, transaction ids."},
    {"oncehook_hit_ratio", GAUGE_ASKED, PLAIN, IN_GAUGES(hit_ratio),
     "Share of block reads that shared_buffers answered, since the last look."},
    {"oncehook_database_bytes", GAUGE_ASKED, PLAIN, IN_GAUGES(database_bytes),
     "Size of the database on disk."},
    {"oncehook_quarantine_oldest_seconds", GAUGE_ASKED, PLAIN, IN_GAUGES(quarantine_oldest_seconds),
     "Age of the oldest delivery in quarantine that nobody has resolved; 0 = none."},
    {"oncehook_retention_age_seconds", GAUGE_ASKED, PLAIN, IN_GAUGES(retention_age_seconds),
     "Since a retention ended well."},
};

/* ---- life ---- */

/* A label's value as the page shows it: \\ \" \n (exposition format, "Comments, help text…"). */
static char *label_escape(const char *text)
{
    char *escaped = malloc(strlen(text) * 2 + 1);
    if (!escaped)
        return NULL;
    char *to = escaped;
    for (; *text; text++) {
        if (*text == '\\' || *text == '"' || *text == '\n')
            *to++ = '\\';
        *to++ = *text == '\n' ? 'n' : *text;
    }
    *to = 0;
    return escaped;
}

static struct metrics_shard *shard_new(uint32_t source_count)
{
    size_t bytes = sizeof(struct metrics_shard) + source_count * sizeof(struct source_cells);
    bytes = (bytes + CACHE_LINE_BYTES - 1) / CACHE_LINE_BYTES * CACHE_LINE_BYTES;
    struct metrics_shard *shard = aligned_alloc(CACHE_LINE_BYTES, bytes);
    if (shard) {
        memset(shard, 0, bytes);
        shard->source_count = source_count;
    }
    return shard;
}

struct metrics *metrics_new(const char *const *source_names, uint32_t source_count,
                            uint32_t shard_count)
{
    struct metrics *metrics = calloc(1, sizeof(*metrics));
    if (!metrics)
        return NULL;
    metrics->source_labels = calloc((size_t)source_count + 1, sizeof(char *));
    metrics->shards = calloc((size_t)shard_count + 1, sizeof(struct metrics_shard *));
    if (!metrics->source_labels || !metrics->shards)
        goto fail;
    metrics->source_count = source_count;
    metrics->shard_count = shard_count;
    for (uint32_t i = 0; i < source_count; i++)
        if (!(metrics->source_labels[i] = label_escape(source_names[i])))
            goto fail;
    for (uint32_t i = 0; i < shard_count; i++)
        if (!(metrics->shards[i] = shard_new(source_count)))
            goto fail;
    return metrics;
fail:
    metrics_free(metrics);
    return NULL;
}

void metrics_free(struct metrics *metrics)
{
    if (!metrics)
        return;
    for (uint32_t i = 0; i < metrics->source_count; i++)
        free(metrics->source_labels[i]);
    for (uint32_t i = 0; i < metrics->shard_count; i++)
        free(metrics->shards[i]);
    free(metrics->source_labels);
    free(metrics->shards);
    free(metrics);
}

struct metrics_shard *metrics_shard_at(struct metrics *metrics, uint32_t index)
{
    return metrics->shards[index];
}

/* ---- counting ---- */

static uint64_t cell_read(const cell *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

static void cell_add(cell *c, uint64_t n)
{
    atomic_store_explicit(c, cell_read(c) + n, memory_order_relaxed);
}

void metrics_count_event(struct metrics_shard *shard, uint32_t source, enum metric_outcome outcome,
                         uint64_t n)
{
    if (source < shard->source_count) /* a drained event's source may be configured no more */
        cell_add(&shard->sources[source].events[outcome], n);
}

static enum metric_status status_place(int status)
{
    switch (status) {
#define X(name, word) \
    case name:        \
        return METRIC_STATUS_##name;
        METRIC_STATUSES(X)
#undef X
    default:
        return METRIC_STATUS_OTHER;
    }
}

void metrics_count_delivery(struct metrics_shard *shard, uint32_t source, int status)
{
    cell_add(&shard->sources[source].deliveries[status_place(status)], 1);
}

void metrics_count_reject(struct metrics_shard *shard, uint32_t source, enum metric_reason reason)
{
    if (source < shard->source_count)
        cell_add(&shard->sources[source].rejects[reason], 1);
}

void metrics_count_id_changed(struct metrics_shard *shard, uint32_t source)
{
    if (source < shard->source_count)
        cell_add(&shard->sources[source].id_changed, 1);
}

void metrics_count_deadlock(struct metrics_shard *shard)
{
    cell_add(&shard->deadlocks, 1);
}

void metrics_count_busy_us(struct metrics_shard *shard, int64_t us, int64_t fixed_us)
{
    cell_add(&shard->busy_us, us > 0 ? (uint64_t)us : 0);
    cell_add(&shard->fixed_us, fixed_us > 0 ? (uint64_t)(fixed_us < us ? fixed_us : us) : 0);
}

void metrics_count_bound(struct metrics_shard *shard, uint64_t n)
{
    cell_add(&shard->bound, n);
}

void metrics_count_memory_closed(struct metrics_shard *shard, uint64_t n)
{
    cell_add(&shard->memory_closed, n);
}

void metrics_note_last_event(struct metrics_shard *shard, uint32_t source, int64_t unix_s)
{
    if (source >= shard->source_count)
        return;
    cell *last = &shard->sources[source].last_event;
    if (unix_s > 0 && (uint64_t)unix_s > cell_read(last))
        atomic_store_explicit(last, (uint64_t)unix_s, memory_order_relaxed);
}

static void histogram_observe(struct metrics_shard *shard, int place, uint64_t value)
{
    struct histogram *histogram = &shard->histograms[place];
    size_t bucket = 0;
    while (bucket < shapes[place].count && value > shapes[place].bounds[bucket])
        bucket++;
    cell_add(&histogram->buckets[bucket], 1);
    cell_add(&histogram->sum, value);
}

void metrics_observe_batch_events(struct metrics_shard *shard, uint32_t events)
{
    histogram_observe(shard, HISTOGRAM_BATCH_EVENTS, events);
}

void metrics_observe_commit_us(struct metrics_shard *shard, int64_t us)
{
    histogram_observe(shard, HISTOGRAM_COMMIT, us > 0 ? (uint64_t)us : 0);
}

void metrics_observe_ack_us(struct metrics_shard *shard, int64_t us)
{
    histogram_observe(shard, HISTOGRAM_ACK, us > 0 ? (uint64_t)us : 0);
}

/* ---- reading ---- */

/* One series; `word` counts within the second label. */
static uint64_t series_read(const struct metrics *metrics, const struct metric *metric,
                            uint32_t source, size_t word)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < metrics->shard_count; i++) {
        const struct metrics_shard *shard = metrics->shards[i];
        const char *cells =
            metric->labels == PLAIN ? (const char *)shard : (const char *)&shard->sources[source];
        uint64_t part = cell_read((const cell *)(const void *)(cells + metric->place) + word);
        if (metric->kind != GAUGE_MAX)
            value += part;
        else if (part > value)
            value = part;
    }
    return value;
}

static void render_counted(FILE *page, const struct metrics *metrics, const struct metric *metric)
{
    if (metric->kind == COUNTER_SECONDS) {
        fprintf(page, "%s %.16g\n", metric->name, (double)series_read(metrics, metric, 0, 0) / 1e6);
        return;
    }
    if (metric->labels == PLAIN) {
        fprintf(page, "%s %llu\n", metric->name,
                (unsigned long long)series_read(metrics, metric, 0, 0));
        return;
    }
    const char *label = label_table[metric->labels].label;
    for (uint32_t source = 0; source < metrics->source_count; source++)
        for (size_t word = 0; word < label_table[metric->labels].count; word++) {
            fprintf(page, "%s{source=\"%s\"", metric->name, metrics->source_labels[source]);
            if (label)
                fprintf(page, ",%s=\"%s\"", label, label_table[metric->labels].words[word]);
            fprintf(page, "} %llu\n",
                    (unsigned long long)series_read(metrics, metric, source, word));
        }
}

static void render_histogram(FILE *page, const struct metrics *metrics, const struct metric *metric)
{
    const char *name = metric->name;
    const struct histogram_shape *shape = &shapes[metric->place];
    uint64_t buckets[BUCKETS_MAX + 1] = {0}, sum = 0, count = 0;
    for (uint32_t i = 0; i < metrics->shard_count; i++) {
        const struct histogram *part = &metrics->shards[i]->histograms[metric->place];
        for (size_t b = 0; b <= shape->count; b++)
            buckets[b] += cell_read(&part->buckets[b]);
        sum += cell_read(&part->sum);
    }
    for (size_t b = 0; b < shape->count; b++) {
        count += buckets[b];
        fprintf(page, "%s_bucket{le=\"%g\"} %llu\n", name,
                (double)shape->bounds[b] / shape->divisor, (unsigned long long)count);
    }
    count += buckets[shape->count];
    fprintf(page, "%s_bucket{le=\"+Inf\"} %llu\n", name, (unsigned long long)count);
    fprintf(page, "%s_sum %.16g\n", name, (double)sum / shape->divisor);
    fprintf(page, "%s_count %llu\n", name, (unsigned long long)count);
}

static void render_metric(FILE *page, const struct metrics *metrics,
                          const struct metrics_gauges *gauges, const struct metric *metric)
{
    static const char *const type_words[] = {"counter", "counter",   "gauge", "gauge",
                                             "counter", "histogram", "gauge"};
    bool asked = metric->kind == GAUGE_ASKED || metric->kind == COUNTER_ASKED;
    double value =
        asked ? *(const double *)(const void *)((const char *)gauges + metric->place) : 0;
    if (isnan(value) || (metric->kind == GAUGE_PRINTED && !gauges->print_secrets))
        return; /* never measured */
    fprintf(page, "# HELP %s %s\n# TYPE %s %s\n", metric->name, metric->help, metric->name,
            type_words[metric->kind]);
    if (metric->kind == HISTOGRAM)
        render_histogram(page, metrics, metric);
    else if (metric->kind == GAUGE_PRINTED)
        gauges->print_secrets(gauges->secrets, page, metric->name);
    else if (asked)
        fprintf(page, "%s %.16g\n", metric->name, value);
    else
        render_counted(page, metrics, metric);
}

char *metrics_render(const struct metrics *metrics, const struct metrics_gauges *gauges,
                     size_t *len)
{
    char *text = NULL;
    FILE *page = open_memstream(&text, len);
    if (!page)
        return NULL;
    for (size_t i = 0; i < sizeof(metric_table) / sizeof(metric_table[0]); i++)
        render_metric(page, metrics, gauges, &metric_table[i]);
    bool failed = ferror(page);
    if (fclose(page) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}
