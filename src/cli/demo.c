/* SPDX-License-Identifier: Apache-2.0 */
/* The demo: drives the plan over HTTPS kind by kind, again after a 503 as providers do, looks at
 * PostgreSQL before and after, checks, and reports.
 *
 * The room promises that every number it prints was measured, and that none of them is right only
 * because it was computed from another one: what must come is counted while planning, what came is
 * read from the answers and from PostgreSQL. */
#include "cli/demo.h"

#include "base/clock.h"
#include "base/slice.h"
#include "cli/cli.h"
#include "cli/demo_plan.h"

#include <stdlib.h>
#include <unistd.h>

enum {
    CONNECTIONS = 32,
    TIMEOUT_MS = 30 * 1000,
    TRIES_MAX = 10,        /* of one delivery that gets 503 */
    RETRY_AFTER_MAX_S = 5, /* the longest that the demo waits between tries */
    ARENA_BYTES_MAX = 4 * 1024 * 1024,
};

struct demo {
    const struct demo_options *options;
    struct config *config;
    struct campaign *campaign;
    struct demo_plan plan;
    uint32_t *latencies_us; /* of the first deliveries' answers */
    size_t latency_count;
    struct report report;
    struct demo_numbers numbers;
    /* The kind that is under way. */
    enum demo_kind kind;
    uint64_t done, all; /* events */
    int64_t start_us, retry_after_s;
};

/* ---- drive ----------------------------------------------------------------------------------- */

static void on_answer(void *context, const struct client_answer *answer)
{
    struct demo *demo = context;
    struct demo_job *job = answer->tag;
    struct demo_source_numbers *numbers = &demo->numbers.sources[job->source];
    struct post_outcome outcome;
    job->status = answer->status;
    job->hung_up = !answer->status && !answer->failure;
    if (job->status == 503 || answer->failure) { /* a later round sends it again */
        if (answer->retry_after_s > demo->retry_after_s)
            demo->retry_after_s = answer->retry_after_s;
        return;
    }
    demo->done += demo_plan_events_sent(job);
    numbers->sent[job->kind] += demo_plan_events_sent(job);
    if (job->hung_up)
        numbers->hung_up += demo_plan_events_sent(job);
    if (job->status >= 400)
        numbers->refused[job->kind] += demo_plan_events_sent(job);
    if (job->kind == DEMO_FIRST)
        demo->latencies_us[demo->latency_count++] = (uint32_t)answer->latency_us;
    if ((job->status == 200 || job->status == 202) && post_read_outcome(answer->body, &outcome)) {
        numbers->captured += outcome.captured;
        numbers->duplicates += outcome.duplicates;
        numbers->orphans += outcome.orphans;
        numbers->others += outcome.quarantined + outcome.spooled;
    }
    report_progress(&demo->report, demo->kind, demo->done, demo->all,
                    clock_mono_us() - demo->start_us);
}

static enum oh_status post_job(struct demo *demo, struct client *client, struct demo_job *job,
                               struct oh_error *err)
{
    struct oh_arena *arena = oh_arena_new(16 * 1024, ARENA_BYTES_MAX);
    struct sample_delivery delivery = {.header_count = 0};
    enum oh_status status = arena ? demo_plan_deliver(&demo->plan, job, arena, &delivery, err)
                                  : oh_fail(err, OH_NO_MEMORY, "out of memory");
    if (status == OH_OK) {
        struct client_request request = {
            .url = job->kind == DEMO_NOWHERE ? demo->plan.nowhere_url
                                             : demo->plan.sources[job->source].url,
            .headers = delivery.headers,
            .header_count = delivery.header_count,
            .body = delivery.body,
            .tag = job,
        };
        if (job->kind == DEMO_HANG_UP)
            request.flags |= CLIENT_HANG_UP;
        if (job->kind == DEMO_TOO_LARGE) /* so that the answer is read, not cut off by a reset */
            request.flags |= CLIENT_EXPECT_CONTINUE;
        job->tries++;
        status = client_post(client, &request, err);
    }
    oh_arena_free(arena);
    return status;
}

static bool is_open(const struct demo_job *job)
{
    return job->tries < TRIES_MAX && !job->hung_up && (job->status == 0 || job->status == 503);
}

/* Sends every delivery of one kind; those that got no answer or 503 again, as providers do. */
static enum oh_status drive_kind(struct demo *demo, struct client *client, enum demo_kind kind,
                                 struct oh_error *err)
{
    demo->kind = kind;
    demo->done = demo->all = 0;
    for (size_t i = 0; i < demo->plan.job_count; i++)
        if (demo->plan.jobs[i].kind == kind)
            demo->all += demo_plan_events_sent(&demo->plan.jobs[i]);
    demo->start_us = clock_mono_us();
    enum oh_status status = OH_OK;
    for (int round = 0; status == OH_OK && round < TRIES_MAX; round++) {
        size_t open = 0;
        demo->retry_after_s = 0;
        for (size_t i = 0; status == OH_OK && i < demo->plan.job_count; i++)
            if (demo->plan.jobs[i].kind == kind && is_open(&demo->plan.jobs[i])) {
                demo->numbers.retried += round > 0;
                status = post_job(demo, client, &demo->plan.jobs[i], err);
            }
        if (status == OH_OK)
            status = client_finish(client, err);
        for (size_t i = 0; i < demo->plan.job_count; i++)
            open += demo->plan.jobs[i].kind == kind && is_open(&demo->plan.jobs[i]);
        if (open == 0)
            break;
        int64_t pause_s = demo->retry_after_s < 1 ? 1 : demo->retry_after_s;
        sleep((unsigned)(pause_s < RETRY_AFTER_MAX_S ? pause_s : RETRY_AFTER_MAX_S));
    }
    if (kind == DEMO_FIRST)
        demo->numbers.first_us = clock_mono_us() - demo->start_us;
    return status;
}

static int compare_latencies(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static enum oh_status drive(struct demo *demo, struct oh_error *err)
{
    struct client *client;
    const struct client_options options = {
        .ca = demo->options->ca, .connections = CONNECTIONS, .timeout_ms = TIMEOUT_MS};
    enum oh_status status = client_new(&options, on_answer, demo, &client, err);
    for (int kind = 0; status == OH_OK && kind < DEMO_KIND_COUNT; kind++)
        status = drive_kind(demo, client, (enum demo_kind)kind, err);
    client_free(client);
    if (status != OH_OK)
        return status;
    size_t count = demo->latency_count;
    qsort(demo->latencies_us, count, sizeof(*demo->latencies_us), compare_latencies);
    if (count) {
        demo->numbers.p50_us = demo->latencies_us[count / 2];
        demo->numbers.p99_us = demo->latencies_us[count - 1 - count / 100];
    }
    for (size_t i = 0; i < demo->plan.job_count; i++)
        if (demo->plan.jobs[i].kind == DEMO_FIRST) {
            demo->numbers.first_events += demo->plan.jobs[i].events;
            demo->numbers.first_deliveries++;
        }
    return OH_OK;
}

/* ---- start and end --------------------------------------------------------------------------- */

/* A curl command that can be pasted; it carries a new event. */
static enum oh_status print_curl(struct demo *demo, struct oh_error *err)
{
    struct demo_job job = demo_plan_one_more(&demo->plan);
    struct oh_arena *arena = oh_arena_new(16 * 1024, ARENA_BYTES_MAX);
    struct sample_delivery delivery = {.header_count = 0};
    enum oh_status status = arena ? demo_plan_deliver(&demo->plan, &job, arena, &delivery, err)
                                  : oh_fail(err, OH_NO_MEMORY, "out of memory");
    if (status == OH_OK)
        post_print_curl(demo->report.to, demo->options->ca, demo->plan.sources[job.source].url,
                        &delivery);
    oh_arena_free(arena);
    return status;
}

static enum oh_status look(struct demo *demo, struct campaign_snapshot *out, struct oh_error *err)
{
    const char *names[CAMPAIGN_SOURCES_MAX];
    for (size_t i = 0; i < demo->plan.source_count; i++)
        names[i] = demo->plan.sources[i].source->name;
    return campaign_look(demo->campaign, names, demo->plan.source_count, out, err);
}

static enum oh_status prepare(struct demo *demo, struct oh_error *err)
{
    enum oh_status status = demo_plan_open(&demo->plan, demo->options, demo->config, err);
    if (status != OH_OK)
        return status;
    demo->numbers.connections = CONNECTIONS;
    demo->numbers.cores = sysconf(_SC_NPROCESSORS_ONLN);
    demo->numbers.source_count = demo->plan.source_count;
    for (size_t i = 0; i < demo->plan.source_count; i++)
        demo->numbers.sources[i].name = demo->plan.sources[i].source->name;
    demo->numbers.sources[demo->plan.source_count].name = "no-such-source";
    demo->latencies_us = calloc(demo->plan.job_count, sizeof(*demo->latencies_us));
    if (!demo->latencies_us)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    status = campaign_open(demo->options->owner_url, demo->config->database.schema, &demo->campaign,
                           err);
    if (status == OH_OK)
        status = campaign_make(demo->campaign, err);
    return status == OH_OK ? look(demo, &demo->numbers.before, err) : status;
}

static enum oh_status run(struct demo *demo, struct oh_error *err)
{
    enum oh_status status = prepare(demo, err);
    if (status != OH_OK)
        return status;
    report_head(&demo->report, demo->options, &demo->numbers);
    status = drive(demo, err);
    if (status == OH_OK)
        status = look(demo, &demo->numbers.after, err);
    if (status != OH_OK)
        return status;
    report_tables(&demo->report, &demo->numbers);
    demo_check(&demo->plan, &demo->numbers, &demo->report);
    report_verdict(&demo->report);
    report_next(&demo->report, demo->options, demo->plan.sources[0].source->name);
    return print_curl(demo, err);
}

int demo_run(const struct demo_options *options)
{
    struct demo *demo = calloc(1, sizeof(*demo));
    struct config_mistakes mistakes = {NULL, 0};
    struct oh_error err = {.text = ""};
    int code = CLI_USAGE;
    if (!demo)
        return CLI_USAGE;
    demo->options = options;
    report_init(&demo->report, stdout);
    if (config_load(options->config, &demo->config, &mistakes) != OH_OK)
        config_mistakes_print(options->config, &mistakes);
    else if (run(demo, &err) == OH_OK)
        code = demo->report.missed ? CLI_NO : CLI_OK;
    else
        fprintf(stderr, "oncehook: the demo stopped: %s\n", err.text);
    fflush(stdout);
    config_mistakes_free(&mistakes);
    campaign_close(demo->campaign);
    demo_plan_close(&demo->plan);
    free(demo->latencies_us);
    config_free(demo->config);
    free(demo);
    return code;
}
