/* SPDX-License-Identifier: Apache-2.0 */
/* What the demo tells a person: lines of at most 80 columns, colour only on a terminal. */
#ifndef CLI_DEMO_REPORT_H
#define CLI_DEMO_REPORT_H

#include "cli/campaign.h"
#include "cli/demo.h"

#include <stdbool.h>
#include <stdio.h>

/* The kinds of deliveries, in the order in which they are sent: name, words, the answer that each
 * must get (HTTP status; 0 = none is waited for), the word in the table of refusals (NULL:
 * accepted). */
#define DEMO_KINDS(X)                                                 \
    X(FIRST, "first deliveries", 200, NULL)                           \
    X(AGAIN, "redeliveries", 200, NULL)                               \
    X(TWICE, "one id twice in an array", 200, NULL)                   \
    X(TAMPERED, "tampered bodies", 401, "body changed after signing") \
    X(STALE, "stale timestamps", 401, "timestamp too old")            \
    X(UNSIGNED, "no signature", 401, "no signature")                  \
    X(NOWHERE, "unknown source", 404, "unknown source")               \
    X(TOO_LARGE, "bodies too large", 413, "body too large")           \
    X(HANG_UP, "clients that hang up", 0, NULL)                       \
    X(AFTER_HANG_UP, "and send again", 200, NULL)

enum demo_kind {
#define X(name, words, status, refusal) DEMO_##name,
    DEMO_KINDS(X)
#undef X
        DEMO_KIND_COUNT
};

extern const char *const demo_kind_words[DEMO_KIND_COUNT];
extern const int demo_kind_status[DEMO_KIND_COUNT];
extern const char *const demo_kind_refusals[DEMO_KIND_COUNT];

/* The numbers of one source; of the demo's own last one, the source that does not exist. */
struct demo_source_numbers {
    const char *name;
    uint64_t sent[DEMO_KIND_COUNT]; /* events, each delivery once however often it was tried */
    uint64_t refused[DEMO_KIND_COUNT];
    uint64_t captured, duplicates, orphans,
        others; /* of the answers; others: quarantined, spooled */
    uint64_t hung_up;
};

struct demo_numbers {
    struct demo_source_numbers sources[CAMPAIGN_SOURCES_MAX + 1];
    size_t source_count; /* without the one that does not exist */
    uint64_t retried;    /* deliveries sent again after a 503, as providers do */
    uint64_t first_events, first_deliveries;
    int64_t first_us;       /* how long the first deliveries took */
    int64_t p50_us, p99_us; /* of their answers */
    uint32_t connections;
    long cores;
    struct campaign_snapshot before, after;
};

struct report {
    FILE *to;
    bool terminal, colour;
    uint64_t checks, missed;
    int64_t last_progress_us;
};

void report_init(struct report *report, FILE *to);

/* Shows how far a kind is: one line that is rewritten on a terminal; else a line when it is done.
 */
void report_progress(struct report *report, enum demo_kind kind, uint64_t done, uint64_t all,
                     int64_t elapsed_us);

/* Counts a check; says it in words when it does not hold. */
void report_check(struct report *report, bool holds, const char *format, ...) OH_PRINTF(3, 4);

void report_head(struct report *report, const struct demo_options *options,
                 const struct demo_numbers *numbers);
void report_tables(struct report *report, const struct demo_numbers *numbers);
void report_verdict(struct report *report);

/* What to look at next; the last line is the heading of a curl command that the caller prints. */
void report_next(struct report *report, const struct demo_options *options, const char *source);

#endif
