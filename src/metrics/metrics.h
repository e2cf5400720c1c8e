/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics: one table of counters, histograms and gauges (the names of CONTRACT.md).
 *
 * Counters and histograms are kept per thread (a shard each, relaxed atomics without contention)
 * and summed on read. Gauges are asked for on read, by a callback that the app gives. */
#ifndef METRICS_METRICS_H
#define METRICS_METRICS_H

#include "oncehook/types.h"

#include <stdatomic.h>
#include <stdio.h>

/* Label values of oncehook_events_total{source,outcome}. */
#define METRIC_OUTCOMES(X)        \
    X(CAPTURED, "captured")       \
    X(DUPLICATE, "duplicate")     \
    X(ORPHAN, "orphan")           \
    X(QUARANTINED, "quarantined") \
    X(SPOOLED, "spooled")

/* Label values of oncehook_rejects_total{source,reason}. */
#define METRIC_REASONS(X)                     \
    X(SIGNATURE_MISSING, "signature_missing") \
    X(SIGNATURE_WRONG, "signature_wrong")     \
    X(STALE, "stale")                         \
    X(NOT_ALLOWED, "not_allowed")             \
    X(UNREADABLE, "unreadable")               \
    X(TOO_FAST, "too_fast")

/* Statuses of oncehook_deliveries_total{source,status}. Beside them "other": a recipe's answer. */
#define METRIC_STATUSES(X) \
    X(200, "200")          \
    X(202, "202")          \
    X(400, "400")          \
    X(401, "401")          \
    X(405, "405")          \
    X(413, "413")          \
    X(429, "429")          \
    X(503, "503")

#define X(name, word) METRIC_OUTCOME_##name,
enum metric_outcome { METRIC_OUTCOMES(X) METRIC_OUTCOME_COUNT };
#undef X
#define X(name, word) METRIC_REASON_##name,
enum metric_reason { METRIC_REASONS(X) METRIC_REASON_COUNT };
#undef X
#define X(name, word) METRIC_STATUS_##name,
enum metric_status { METRIC_STATUSES(X) METRIC_STATUS_OTHER, METRIC_STATUS_COUNT };
#undef X

struct metrics;
struct metrics_shard;

/* source_names: the label values, in the order of the sources' numbers; copied. shard_count:
 * threads that count. NULL when memory is gone. */
struct metrics *metrics_new(const char *const *source_names, uint32_t source_count,
                            uint32_t shard_count) OH_MUST_CHECK;
void metrics_free(struct metrics *metrics);

/* The shard of one thread, index < shard_count; owned by `metrics`. */
struct metrics_shard *metrics_shard_at(struct metrics *metrics, uint32_t index);

/* source: the source's number; of one that is not configured, nothing is counted. Thread: the
 * shard's own. */
void metrics_count_event(struct metrics_shard *shard, uint32_t source, enum metric_outcome outcome,
                         uint64_t n);
/* status: as a number (200 …). */
void metrics_count_delivery(struct metrics_shard *shard, uint32_t source, int status);
void metrics_count_reject(struct metrics_shard *shard, uint32_t source, enum metric_reason reason);
void metrics_count_id_changed(struct metrics_shard *shard, uint32_t source);
void metrics_count_deadlock(struct metrics_shard *shard);
/* Connections closed to hold limits.memory. */
void metrics_count_memory_closed(struct metrics_shard *shard, uint64_t n);
/* A lane had a batch with PostgreSQL for that long; of it, the part that does not grow with events.
 */
void metrics_count_busy_us(struct metrics_shard *shard, int64_t us, int64_t fixed_us);
/* n orphans whose enrollment appeared and that are counted now. */
void metrics_count_bound(struct metrics_shard *shard, uint64_t n);
/* unix seconds of the last captured event of a source; kept as the greatest. */
void metrics_note_last_event(struct metrics_shard *shard, uint32_t source, int64_t unix_s);

/* Histograms: events a batch, seconds from sending a batch to its known commit, seconds from a
 * delivery's acceptance to its answer. */
void metrics_observe_batch_events(struct metrics_shard *shard, uint32_t events);
void metrics_observe_commit_us(struct metrics_shard *shard, int64_t us);
void metrics_observe_ack_us(struct metrics_shard *shard, int64_t us);

/* What is asked for when metrics are read; a negative value is not shown. */
/* NAN: not measured, the metric is absent. */
struct metrics_gauges {
    double queue_events;
    double oldest_waiting_seconds;
    double spool_events;
    double spool_lost;    /* since the spool's first start */
    double database_up;   /* 1 or 0 */
    double counter_drift; /* last measured */
    double connections;   /* open client connections */
    double memory_bytes;  /* what counts for limits.memory */
    double spool_bytes, lanes, waiting_batches;
    double slow_statements; /* since the start */
    double reload_failures, configuration_loaded;
    /* Writes a line for each secret, "METRIC{…} VALUE"; NULL: not shown. */
    void (*print_secrets)(void *context, FILE *page, const char *metric);
    void *secrets;
    /* Of the database, when last looked at. */
    double months_ahead, oldest_transaction_seconds, dead_row_share, id_headroom, hit_ratio,
        database_bytes, quarantine_oldest_seconds, retention_age_seconds;
};

/* The Prometheus text exposition (version 0.0.4), malloc'ed and NUL-terminated, *len its length;
 * NULL when memory is gone. Thread: any. */
char *metrics_render(const struct metrics *metrics, const struct metrics_gauges *gauges,
                     size_t *len) OH_MUST_CHECK;

#endif
