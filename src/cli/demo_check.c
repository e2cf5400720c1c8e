/* SPDX-License-Identifier: Apache-2.0 */
/* The demo's checks: what came, from the answers and from PostgreSQL, beside what was planned. */
#include "cli/demo_plan.h"

/* One check a kind and source: every delivery got the answer that it must get. */
static void check_answers(const struct demo_plan *plan, const struct demo_numbers *numbers,
                          struct report *report)
{
    uint64_t all[CAMPAIGN_SOURCES_MAX + 1][DEMO_KIND_COUNT] = {{0}};
    uint64_t right[CAMPAIGN_SOURCES_MAX + 1][DEMO_KIND_COUNT] = {{0}};
    int32_t other[CAMPAIGN_SOURCES_MAX + 1][DEMO_KIND_COUNT] = {{0}};
    for (size_t i = 0; i < plan->job_count; i++) {
        const struct demo_job *job = &plan->jobs[i];
        all[job->source][job->kind]++;
        if (job->status == demo_kind_status[job->kind])
            right[job->source][job->kind]++;
        else
            other[job->source][job->kind] = job->status;
    }
    for (size_t s = 0; s <= plan->source_count; s++)
        for (int k = 0; k < DEMO_KIND_COUNT; k++)
            if (all[s][k])
                report_check(report, right[s][k] == all[s][k],
                             "%s, %s: %llu of %llu answers are %d, another is %d",
                             numbers->sources[s].name, demo_kind_words[k],
                             (unsigned long long)right[s][k], (unsigned long long)all[s][k],
                             demo_kind_status[k], other[s][k]);
}

/* The answers' sums. Where a client hung up or was told 503, its events may have been captured
 * without an answer that said so: then the next answer calls them duplicates. */
static void check_sums(const struct demo_plan *plan, const struct demo_numbers *numbers,
                       struct report *report)
{
    for (size_t i = 0; i < plan->source_count; i++) {
        const struct demo_source_numbers *source = &numbers->sources[i];
        long long captured = (long long)source->captured, rows = plan->rows[i];
        long long duplicates = (long long)source->duplicates;
        long long unheard = (long long)source->hung_up;
        bool exact = numbers->retried == 0;
        report_check(report, captured <= rows && (!exact || captured + unheard >= rows),
                     "%s: answers say %lld events captured, sent were %lld new ones", source->name,
                     captured, rows);
        report_check(report, captured + duplicates == rows + plan->duplicates[i],
                     "%s: answers say %lld captured and %lld duplicates, together must be %lld",
                     source->name, captured, duplicates, rows + (long long)plan->duplicates[i]);
        report_check(report, source->orphans == 0 && source->others == 0,
                     "%s: answers say %llu orphans and %llu quarantined or spooled, must be none",
                     source->name, (unsigned long long)source->orphans,
                     (unsigned long long)source->others);
    }
}

static void check_rows(const struct demo_plan *plan, const struct demo_numbers *numbers,
                       struct report *report)
{
    for (size_t i = 0; i < plan->source_count; i++) {
        long long rows = numbers->after.sources[i].rows, keys = numbers->after.sources[i].keys;
        long long more = rows - numbers->before.sources[i].rows;
        report_check(report, more == plan->rows[i],
                     "%s: PostgreSQL has %lld more rows, sent were %lld new events",
                     numbers->sources[i].name, more, (long long)plan->rows[i]);
        report_check(report, rows == keys, "%s: %lld rows have only %lld different ids",
                     numbers->sources[i].name, rows, keys);
    }
}

static void check_instance(const struct campaign_instance *before,
                           const struct campaign_instance *after, const int64_t *totals,
                           int64_t bound, struct report *report)
{
    for (int c = 0; c < CAMPAIGN_COUNTERS; c++) {
        long long total = after->totals[c] - before->totals[c];
        long long events = after->events[c] - before->events[c];
        report_check(report, total == totals[c] && events == totals[c],
                     "%s: total_%s rose by %lld, its events by %lld, both must by %lld",
                     after->name, campaign_counters[c], total, events, (long long)totals[c]);
    }
    long long events = after->events_of_all_types - before->events_of_all_types;
    report_check(report, events == bound, "%s: %lld more events of all types, must be %lld",
                 after->name, events, (long long)bound);
    report_check(report, after->enrolled == after->enrollments,
                 "%s: total_enrolled is %lld, enrollments are %lld", after->name,
                 (long long)after->enrolled, (long long)after->enrollments);
}

void demo_check(const struct demo_plan *plan, const struct demo_numbers *numbers,
                struct report *report)
{
    check_answers(plan, numbers, report);
    check_sums(plan, numbers, report);
    check_rows(plan, numbers, report);
    long long bound = 0;
    for (int i = 0; i < CAMPAIGN_INSTANCES; i++) {
        check_instance(&numbers->before.instances[i], &numbers->after.instances[i], plan->totals[i],
                       plan->bound[i], report);
        bound += plan->bound[i];
    }
    long long totals = numbers->after.enrollment_totals - numbers->before.enrollment_totals;
    report_check(report, totals == bound,
                 "total_events of the enrollments rose by %lld, must by %lld", totals, bound);
    report_check(report, numbers->after.enrollments_drifted == numbers->before.enrollments_drifted,
                 "%lld enrollments have a total_events that is not the number of their events",
                 (long long)numbers->after.enrollments_drifted);
}
