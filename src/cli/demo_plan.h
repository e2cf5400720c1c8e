/* SPDX-License-Identifier: Apache-2.0 */
/* What the demo sends, and what must come of it: a list of deliveries, made before the first one
 * leaves. The expectations are counted here and nowhere else. */
#ifndef CLI_DEMO_PLAN_H
#define CLI_DEMO_PLAN_H

#include "cli/demo.h"
#include "cli/demo_report.h"
#include "cli/post.h"

struct demo_share; /* a row of the table of what each provider sends */

struct demo_source {
    const struct demo_share *share;
    const struct config_source *source;
    struct oh_signer *signer;
    char *url, *signed_url;
};

/* One delivery. Its bytes are made when it is sent, the same bytes each time: they follow from the
 * numbers of its events and the moment when the demo began. */
struct demo_job {
    uint32_t source; /* number; source_count = the one that does not exist */
    enum demo_kind kind;
    uint32_t first_event; /* number of its first event */
    uint32_t events;      /* different ones */
    uint32_t tries;
    int32_t status; /* of the last answer; 0 = none yet */
    bool hung_up;
};

struct demo_plan {
    const struct demo_options *options;
    const struct config *config;
    struct demo_source sources[CAMPAIGN_SOURCES_MAX];
    size_t source_count;
    struct demo_job *jobs;
    size_t job_count, job_room;
    uint8_t salt[12]; /* makes this run's ids its own */
    int64_t start_us; /* the time that stands in the events */
    uint32_t next_event;
    char *nowhere_url; /* of the source that does not exist */
    struct oh_slice too_large;
    /* What must come: new rows of a source, and events of its answers that are no new ones; more of
     * a counter, and more bound events of an instance. */
    int64_t rows[CAMPAIGN_SOURCES_MAX], duplicates[CAMPAIGN_SOURCES_MAX];
    int64_t totals[CAMPAIGN_INSTANCES][CAMPAIGN_COUNTERS];
    int64_t bound[CAMPAIGN_INSTANCES];
};

/* Fills *plan, which is all zero; demo_plan_close() in any case. Errors: OH_INVALID when no source
 * of `config` is one that the demo knows, or a key is missing; OH_NO_MEMORY. */
enum oh_status demo_plan_open(struct demo_plan *plan, const struct demo_options *options,
                              const struct config *config, struct oh_error *err) OH_MUST_CHECK;
void demo_plan_close(struct demo_plan *plan);

/* Events that stand in the job's body: one more than it has where one stands twice. */
uint32_t demo_plan_events_sent(const struct demo_job *job);

/* The delivery of `job`, signed now, and spoilt as its kind says; bytes in `arena` or `plan`. */
enum oh_status demo_plan_deliver(const struct demo_plan *plan, const struct demo_job *job,
                                 struct oh_arena *arena, struct sample_delivery *delivery,
                                 struct oh_error *err) OH_MUST_CHECK;

/* A job outside the list, for the last source: a new event that has not been sent. */
struct demo_job demo_plan_one_more(struct demo_plan *plan);

/* Checks what was measured against the plan: one line of words for each miss. */
void demo_check(const struct demo_plan *plan, const struct demo_numbers *numbers,
                struct report *report);

#endif
