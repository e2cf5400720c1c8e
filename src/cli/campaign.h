/* SPDX-License-Identifier: Apache-2.0 */
/* The demo's campaign in PostgreSQL: a template, active instances, enrollments, and a look at their
 * counters beside count(*) of their events. Connects as the schema's owner. */
#ifndef CLI_CAMPAIGN_H
#define CLI_CAMPAIGN_H

#include "oncehook/types.h"

enum {
    CAMPAIGN_INSTANCES = 3,
    CAMPAIGN_ENROLLMENTS = 1000,
    CAMPAIGN_COUNTERS = 8,
    CAMPAIGN_SOURCES_MAX = 8,
};

/* The event types with a total of their own, in the order of struct campaign_instance. */
extern const char *const campaign_counters[CAMPAIGN_COUNTERS];

struct campaign_instance {
    char name[64];
    int64_t enrolled, enrollments;     /* total_enrolled, and the rows it must equal */
    int64_t totals[CAMPAIGN_COUNTERS]; /* total_sent … */
    int64_t events[CAMPAIGN_COUNTERS]; /* count(*) of the bound events of that type */
    int64_t events_of_all_types;
};

/* Everything of one moment: one transaction's snapshot. */
struct campaign_snapshot {
    struct campaign_instance instances[CAMPAIGN_INSTANCES];
    int64_t enrollment_totals; /* sum of total_events of the enrollments */
    int64_t
        enrollments_drifted; /* enrollments whose total_events is not count(*) of their events */
    struct {
        int64_t rows;
        int64_t keys; /* different (key_scope, provider_event_id) among them */
    } sources[CAMPAIGN_SOURCES_MAX];
};

struct campaign;

/* *out belongs to the caller: campaign_close(). Errors: OH_SYSTEM with PostgreSQL's words. */
enum oh_status campaign_open(const char *url, const char *schema, struct campaign **out,
                             struct oh_error *err) OH_MUST_CHECK;

/* Makes what is not there yet; running it again changes nothing. */
enum oh_status campaign_make(struct campaign *campaign, struct oh_error *err) OH_MUST_CHECK;

/* sources: names, at most CAMPAIGN_SOURCES_MAX. */
enum oh_status campaign_look(struct campaign *campaign, const char *const *sources, size_t count,
                             struct campaign_snapshot *out, struct oh_error *err) OH_MUST_CHECK;
void campaign_close(struct campaign *campaign);

/* The ids, as text with NUL. Enrollment n (0..CAMPAIGN_ENROLLMENTS-1) belongs to instance
 * n % CAMPAIGN_INSTANCES. */
void campaign_instance_id(uint32_t n, char out[37]);
void campaign_enrollment_id(uint32_t n, char out[37]);

#endif
