/* SPDX-License-Identifier: Apache-2.0 */
/* What the demo sends and what must come of it, made before the first delivery leaves; and beside
 * it what was measured. The parts of the demo share this. */
#ifndef CLI_DEMO_PLAN_H
#define CLI_DEMO_PLAN_H

#include "cli/demo.h"
#include "cli/post.h"

#include <libpq-fe.h>

/* The kinds of deliveries, in the order in which they are sent: name, words, the answer that each
 * must get (HTTP status; 0 = none is waited for), how it is spoilt (enum post_flags), the kind
 * whose events it sends again, the words in the table of refusals (NULL: accepted). */
#define DEMO_KINDS(X)                                                                          \
    X(FIRST, "first deliveries", 200, 0, FIRST, NULL)                                          \
    X(AGAIN, "redeliveries", 200, 0, FIRST, NULL)                                              \
    X(TWICE, "one id twice in an array", 200, 0, TWICE, NULL)                                  \
    X(TAMPERED, "tampered bodies", 401, POST_TAMPERED, TAMPERED, "body changed after signing") \
    X(STALE, "stale timestamps", 401, POST_STALE, STALE, "timestamp too old")                  \
    X(UNSIGNED, "no signature", 401, POST_UNSIGNED, UNSIGNED, "no signature")                  \
    X(NOWHERE, "unknown source", 404, 0, NOWHERE, "unknown source")                            \
    X(TOO_LARGE, "bodies too large", 413, 0, TOO_LARGE, "body too large")                      \
    X(HANG_UP, "clients that hang up", 0, 0, HANG_UP, NULL)                                    \
    X(AFTER_HANG_UP, "and send again", 200, 0, HANG_UP, NULL)

enum demo_kind {
#define X(name, words, status, flags, events_of, refusal) DEMO_##name,
    DEMO_KINDS(X)
#undef X
        DEMO_KIND_COUNT
};

extern const struct demo_kind_row {
    const char *words;
    int status;
    unsigned flags;
    enum demo_kind events_of;
    const char *refusal;
} demo_kinds[DEMO_KIND_COUNT];

/* sql/demo_campaign.sql makes them; sql/demo_look.sql gives a row for each counter of each
 * instance, in the order of enum demo_counter, then one for each source. */
enum { DEMO_INSTANCES = 3, DEMO_ENROLLMENTS = 1000, DEMO_SOURCES_MAX = 4, DEMO_FIRST_MAX = 16384 };
enum demo_counter {
    DEMO_TOTALS = 8, /* sent, delivered, … completed */
    DEMO_EVENTS = 8, /* of all types */
    DEMO_ENROLLED,   /* what the plan does not change */
    DEMO_COUNTERS = DEMO_ENROLLED + 2,
    DEMO_SOURCE_ROWS = DEMO_INSTANCES * DEMO_COUNTERS,
    DEMO_ROWS_MAX = DEMO_SOURCE_ROWS + DEMO_SOURCES_MAX,
};

/* Columns of sql/demo_look.sql. */
enum { LOOK_SUBJECT, LOOK_WHAT, LOOK_COUNTER, LOOK_BESIDE, LOOK_EVENTS };

struct demo_group;

/* One delivery. Its bytes are made when it is sent, the same bytes each time: they follow from the
 * numbers of its events and the moment when the demo began. */
struct demo_job {
    struct demo_group *group;
    uint32_t first_event, tries;
    int status;    /* of the last answer; 0 = none yet */
    bool answered; /* or hung up: it is not sent again */
};

/* What is counted of a group, beyond the sums of its answers: events, each delivery once however
 * often it was tried. */
enum demo_number { DEMO_SENT = POST_OUTCOMES, DEMO_REFUSED, DEMO_HUNG_UP, DEMO_NUMBERS };

/* The deliveries of one kind to one source. */
struct demo_group {
    size_t source;
    enum demo_kind kind;
    uint32_t events;  /* different ones in a delivery */
    uint32_t in_body; /* one more where one id stands twice */
    uint32_t count;   /* deliveries */
    struct demo_job *jobs;
    uint64_t numbers[DEMO_NUMBERS];
};

struct demo_share; /* a row of the table of what each provider sends */

struct demo {
    const struct demo_options *options;
    struct config *config;
    const struct demo_share *shares[DEMO_SOURCES_MAX];
    struct post_door doors[DEMO_SOURCES_MAX];
    const char *names[DEMO_SOURCES_MAX + 1]; /* the last one names the source that is not there */
    size_t source_count;
    struct demo_group groups[DEMO_SOURCES_MAX + 1][DEMO_KIND_COUNT];
    uint8_t salt[16]; /* makes this run's ids its own; an event's number takes the last 4 */
    int64_t start_us; /* the time that stands in the events */
    uint32_t next_event;
    struct oh_slice too_large;
    /* What must come: how far each row of the look rises, and what the answers call captured or
     * duplicate. */
    int64_t rises[DEMO_ROWS_MAX], decided[DEMO_SOURCES_MAX + 1];
    /* What came. */
    PGresult *before, *after;
    uint64_t retried; /* deliveries sent again after a 503, as providers do */
    int64_t first_us; /* how long the first deliveries took */
    uint32_t latencies_us[DEMO_FIRST_MAX];
    size_t latency_count;
    /* The report. */
    bool terminal, colour;
    uint64_t checks, missed;
    int64_t last_progress_us;
};

/* Fills the plan of *demo, which has options and config; demo_plan_free() in any case. Errors:
 * OH_INVALID when no source of the configuration is one that the demo knows, or a key is missing;
 * OH_NO_MEMORY. */
enum oh_status demo_plan(struct demo *demo, struct oh_error *err) OH_MUST_CHECK;
void demo_plan_free(struct demo *demo);

/* The delivery of `job`, signed now, and spoilt as its kind says; bytes in `arena` or `demo`. */
enum oh_status demo_deliver(const struct demo *demo, const struct demo_job *job,
                            struct oh_arena *arena, struct sample_delivery *delivery,
                            struct oh_error *err) OH_MUST_CHECK;

/* What the demo tells a person: lines of at most 80 columns, colour only on a terminal. Progress is
 * one line that is rewritten on a terminal; else a line when a kind is done. */
void demo_report_start(struct demo *demo);
void demo_report_progress(struct demo *demo, enum demo_kind kind, uint64_t all, int64_t elapsed_us);
void demo_report_tables(struct demo *demo);
/* Checks what was measured against the plan: a line of words for each miss, then the verdict. */
void demo_report_checks(struct demo *demo);
/* What to look at next; the last line is the heading of a curl command that the caller prints. */
void demo_report_next(const struct demo *demo);

#endif
