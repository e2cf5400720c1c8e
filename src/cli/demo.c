/* SPDX-License-Identifier: Apache-2.0 */
/* The demo in four steps: plan (a list of deliveries and what each must lead to), drive (kind by
 * kind over HTTPS, again after a 503 as providers do), look at PostgreSQL, check.
 *
 * The room promises that every number it prints was measured, and that none of them is right only
 * because it was computed from another one: what must come is counted while planning, what came is
 * read from the answers and from PostgreSQL. */
#include "cli/demo.h"

#include "base/clock.h"
#include "base/encode.h"
#include "base/slice.h"
#include "cli/cli.h"
#include "cli/demo_report.h"
#include "cli/post.h"

#include <stdlib.h>
#include <unistd.h>

enum {
    CONNECTIONS = 32,
    TIMEOUT_MS = 30 * 1000,
    TRIES_MAX = 10,        /* of one delivery that gets 503 */
    RETRY_AFTER_MAX_S = 5, /* the longest that the demo waits between tries */
    BODY_BYTES_MAX = 32 * 1024 * 1024,
    REDELIVERED_OF = 4, /* every 4th first delivery is sent again */
    NO_COUNTER = -1,
};

#define NOWHERE_NAME "no-such-source"

/* ---- what is planned ------------------------------------------------------------------------- */

struct word {
    const char *type; /* the provider's own */
    int counter;      /* of campaign_counters, or NO_COUNTER */
};

/* Numbers of deliveries a kind; FIRST ones carry `events` each, spread over `words`. */
struct share {
    const char *provider;
    uint32_t first, events, twice, spoilt, hang_ups, too_large;
    struct word words[CAMPAIGN_COUNTERS];
    uint32_t word_count;
};

static const struct share shares[] = {
    {"github", 2000, 1, 0, 5, 0, 0, {{"issues", NO_COUNTER}, {"push", NO_COUNTER}}, 2},
    {"stripe",
     4000,
     1,
     0,
     5,
     0,
     0,
     {{"invoice.paid", NO_COUNTER}, {"charge.failed", NO_COUNTER}},
     2},
    {"sendgrid",
     400,
     20,
     10,
     5,
     0,
     0,
     {{"processed", 0},
      {"delivered", 1},
      {"open", 2},
      {"click", 3},
      {"bounce", 5},
      {"unsubscribe", 6}},
     6},
    {"hmac",
     6000,
     1,
     0,
     5,
     20,
     2,
     {{"sent", 0},
      {"delivered", 1},
      {"opened", 2},
      {"clicked", 3},
      {"replied", 4},
      {"bounced", 5},
      {"unsubscribed", 6},
      {"completed", 7}},
     8},
};

enum { SHARE_COUNT = sizeof(shares) / sizeof(shares[0]) };
_Static_assert((int)SHARE_COUNT <= (int)CAMPAIGN_SOURCES_MAX, "a snapshot holds every source");

struct source {
    const struct share *share;
    const struct config_source *source;
    struct oh_signer *signer;
    char *url, *signed_url;
};

/* One delivery. Its bytes are made when it is sent, the same bytes each time: they follow from the
 * numbers of its events and the moment when the demo began. */
struct job {
    uint32_t source; /* number; source_count = the one that does not exist */
    enum demo_kind kind;
    uint32_t first_event; /* number of its first event */
    uint32_t events;
    uint32_t tries;
    int32_t status; /* of the last answer; 0 = none yet */
    bool hung_up;
};

struct demo {
    const struct demo_options *options;
    struct config *config;
    struct campaign *campaign;
    struct source sources[SHARE_COUNT];
    size_t source_count;
    struct job *jobs;
    size_t job_count, job_room;
    uint32_t *latencies_us; /* of the first deliveries' answers */
    size_t latency_count;
    uint8_t salt[12]; /* makes this run's ids its own */
    int64_t start_us; /* the time that stands in the events */
    uint32_t next_event;
    char *too_large_body;
    size_t too_large_len;
    struct report report;
    struct demo_numbers numbers;
    /* What must come. */
    int64_t expected_totals[CAMPAIGN_INSTANCES][CAMPAIGN_COUNTERS];
    int64_t expected_rows[SHARE_COUNT], expected_bound[CAMPAIGN_INSTANCES];
    /* The phase that runs. */
    enum demo_kind kind;
    uint64_t phase_done, phase_all;
    int64_t phase_start_us, retry_after_s;
};

/* ---- plan ------------------------------------------------------------------------------------ */

static void add_job(struct demo *demo, uint32_t source, enum demo_kind kind, uint32_t first_event,
                    uint32_t events)
{
    if (demo->job_count < demo->job_room)
        demo->jobs[demo->job_count++] = (struct job){
            .source = source, .kind = kind, .first_event = first_event, .events = events};
}

/* The word of event number n, the same in every place that asks. */
static const struct word *word_of(const struct share *share, uint32_t event)
{
    return &share->words[event % share->word_count];
}

static uint32_t enrollment_of(uint32_t event)
{
    return event / 7 % CAMPAIGN_ENROLLMENTS;
}

/* Plans `count` deliveries of new events, all of which must be captured and counted. */
static void plan_new(struct demo *demo, uint32_t source, enum demo_kind kind, uint32_t count,
                     uint32_t events)
{
    const struct share *share = demo->sources[source].share;
    for (uint32_t i = 0; i < count; i++) {
        add_job(demo, source, kind, demo->next_event, events);
        for (uint32_t n = 0; n < events; n++) {
            uint32_t event = demo->next_event++;
            uint32_t instance = enrollment_of(event) % CAMPAIGN_INSTANCES;
            int counter = word_of(share, event)->counter;
            demo->expected_rows[source]++;
            demo->expected_bound[instance]++;
            if (counter != NO_COUNTER)
                demo->expected_totals[instance][counter]++;
        }
    }
}

/* Plans `count` deliveries of one new event each, none of which may be captured. */
static void plan_refused(struct demo *demo, uint32_t source, enum demo_kind kind, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        add_job(demo, source, kind, demo->next_event++, 1);
}

static void plan_source(struct demo *demo, uint32_t source)
{
    const struct share *share = demo->sources[source].share;
    plan_new(demo, source, DEMO_FIRST, share->first, share->events);
    plan_new(demo, source, DEMO_TWICE, share->twice, 2);
    plan_refused(demo, source, DEMO_TAMPERED, share->spoilt);
    if (post_stale_s(demo->sources[source].source) >= 0)
        plan_refused(demo, source, DEMO_STALE, share->spoilt);
    plan_refused(demo, source, DEMO_UNSIGNED, share->spoilt);
    plan_refused(demo, source, DEMO_TOO_LARGE, share->too_large);
    plan_new(demo, source, DEMO_HANG_UP, share->hang_ups, 1);
}

static enum oh_status plan(struct demo *demo, struct oh_error *err)
{
    demo->job_room = 1024;
    for (size_t i = 0; i < SHARE_COUNT; i++)
        demo->job_room += 3 * shares[i].first;
    demo->jobs = calloc(demo->job_room, sizeof(*demo->jobs));
    demo->latencies_us = calloc(demo->job_room, sizeof(*demo->latencies_us));
    if (!demo->jobs || !demo->latencies_us)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    for (uint32_t i = 0; i < demo->source_count; i++)
        plan_source(demo, i);
    plan_refused(demo, (uint32_t)demo->source_count, DEMO_NOWHERE, shares[0].spoilt);
    /* What is sent again: the same events, so nothing new may come of it. */
    size_t planned = demo->job_count;
    for (size_t i = 0; i < planned; i++) {
        struct job job = demo->jobs[i];
        if (job.kind == DEMO_FIRST && i % REDELIVERED_OF == 0)
            add_job(demo, job.source, DEMO_AGAIN, job.first_event, job.events);
        if (job.kind == DEMO_HANG_UP)
            add_job(demo, job.source, DEMO_AFTER_HANG_UP, job.first_event, job.events);
    }
    return demo->job_count < demo->job_room ? OH_OK
                                            : oh_fail(err, OH_TOO_MANY, "the plan is too long");
}

/* ---- making a delivery ----------------------------------------------------------------------- */

static void event_id(const struct demo *demo, uint32_t event, uint8_t id[16])
{
    memcpy(id, demo->salt, sizeof(demo->salt));
    for (int i = 0; i < 4; i++)
        id[12 + i] = (uint8_t)(event >> (8 * (3 - i)));
}

/* Events in an array that names the first one twice have this many. */
static uint32_t events_sent(const struct job *job)
{
    return job->kind == DEMO_TWICE ? job->events + 1 : job->events;
}

static enum oh_status make_sample(const struct demo *demo, const struct job *job,
                                  const struct source *source, struct oh_arena *arena,
                                  struct sample_delivery *delivery, struct oh_error *err)
{
    uint32_t count = events_sent(job);
    struct text {
        uint8_t id[16];
        char enrollment[37], instance[37];
    } *texts = oh_arena_alloc(arena, count * sizeof(*texts));
    struct sample_event *events = oh_arena_alloc(arena, count * sizeof(*events));
    if (!texts || !events)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    for (uint32_t i = 0; i < count; i++) {
        uint32_t event = job->first_event + (i < job->events ? i : 0);
        uint32_t enrollment = enrollment_of(event);
        event_id(demo, event, texts[i].id);
        campaign_enrollment_id(enrollment, texts[i].enrollment);
        campaign_instance_id(enrollment % CAMPAIGN_INSTANCES, texts[i].instance);
        events[i] = (struct sample_event){texts[i].id, word_of(source->share, event)->type,
                                          texts[i].enrollment, texts[i].instance};
    }
    return sample_make(source->source, events, count, demo->start_us, arena, delivery, err);
}

/* The delivery of `job`, signed, and spoilt as its kind says. */
static enum oh_status make_delivery(const struct demo *demo, const struct job *job,
                                    struct oh_arena *arena, struct sample_delivery *delivery,
                                    struct oh_error *err)
{
    /* To the source that does not exist goes what the first one would take. */
    const struct source *source = &demo->sources[job->source % demo->source_count];
    int64_t now_ms = clock_wall_us() / 1000;
    enum oh_status status = make_sample(demo, job, source, arena, delivery, err);
    if (job->kind == DEMO_TOO_LARGE)
        delivery->body = slice_of(demo->too_large_body, demo->too_large_len);
    if (job->kind == DEMO_STALE)
        now_ms -= post_stale_s(source->source) * 1000;
    if (status == OH_OK && job->kind != DEMO_UNSIGNED)
        status = post_sign(source->signer, source->signed_url, now_ms, arena, delivery, err);
    if (status == OH_OK && job->kind == DEMO_TAMPERED)
        status = post_tamper(arena, delivery, err);
    return status;
}

/* ---- drive ----------------------------------------------------------------------------------- */

static void on_answer(void *context, const struct client_answer *answer)
{
    struct demo *demo = context;
    struct job *job = answer->tag;
    struct demo_source_numbers *numbers = &demo->numbers.sources[job->source];
    struct post_outcome outcome;
    job->status = answer->status;
    job->hung_up = !answer->status && !answer->failure;
    if (job->status == 503 || answer->failure) { /* a later round sends it again */
        if (answer->retry_after_s > demo->retry_after_s)
            demo->retry_after_s = answer->retry_after_s;
        return;
    }
    demo->phase_done += events_sent(job);
    numbers->sent[job->kind] += events_sent(job);
    if (job->hung_up)
        numbers->hung_up += events_sent(job);
    if (job->status >= 400)
        numbers->refused[job->kind] += events_sent(job);
    if (job->kind == DEMO_FIRST)
        demo->latencies_us[demo->latency_count++] = (uint32_t)answer->latency_us;
    if ((job->status == 200 || job->status == 202) && post_read_outcome(answer->body, &outcome)) {
        numbers->captured += outcome.captured;
        numbers->duplicates += outcome.duplicates;
        numbers->orphans += outcome.orphans;
        numbers->others += outcome.quarantined + outcome.spooled;
    }
    report_progress(&demo->report, demo->kind, demo->phase_done, demo->phase_all,
                    clock_mono_us() - demo->phase_start_us);
}

static enum oh_status post_job(struct demo *demo, struct client *client, struct job *job,
                               struct oh_error *err)
{
    struct oh_arena *arena = oh_arena_new(16 * 1024, 2UL * BODY_BYTES_MAX);
    struct sample_delivery delivery = {.header_count = 0};
    enum oh_status status = arena ? make_delivery(demo, job, arena, &delivery, err)
                                  : oh_fail(err, OH_NO_MEMORY, "out of memory");
    if (status == OH_OK) {
        struct client_request request = {
            .headers = delivery.headers,
            .header_count = delivery.header_count,
            .body = delivery.body,
            .tag = job,
        };
        char *nowhere = NULL;
        if (job->kind == DEMO_HANG_UP)
            request.flags |= CLIENT_HANG_UP;
        if (job->kind == DEMO_TOO_LARGE) /* so that the answer is read, not cut off by a reset */
            request.flags |= CLIENT_EXPECT_CONTINUE;
        if (job->kind == DEMO_NOWHERE &&
            asprintf(&nowhere, "%s/in/" NOWHERE_NAME, demo->options->https_url) < 0)
            status = oh_fail(err, OH_NO_MEMORY, "out of memory");
        request.url = job->kind == DEMO_NOWHERE ? nowhere : demo->sources[job->source].url;
        if (status == OH_OK)
            status = client_post(client, &request, err);
        if (status == OH_OK)
            job->tries++;
        free(nowhere);
    }
    oh_arena_free(arena);
    return status;
}

static bool is_open(const struct job *job)
{
    return job->tries < TRIES_MAX && !job->hung_up && (job->status == 0 || job->status == 503);
}

/* Sends every delivery of one kind; those that got no answer or 503 again, as providers do. */
static enum oh_status drive_kind(struct demo *demo, struct client *client, enum demo_kind kind,
                                 struct oh_error *err)
{
    demo->kind = kind;
    demo->phase_done = demo->phase_all = 0;
    for (size_t i = 0; i < demo->job_count; i++)
        if (demo->jobs[i].kind == kind)
            demo->phase_all += events_sent(&demo->jobs[i]);
    demo->phase_start_us = clock_mono_us();
    enum oh_status status = OH_OK;
    for (int round = 0; status == OH_OK && round < TRIES_MAX; round++) {
        size_t open = 0;
        demo->retry_after_s = 0;
        for (size_t i = 0; status == OH_OK && i < demo->job_count; i++)
            if (demo->jobs[i].kind == kind && is_open(&demo->jobs[i])) {
                demo->numbers.retried += round > 0;
                status = post_job(demo, client, &demo->jobs[i], err);
            }
        if (status == OH_OK)
            status = client_finish(client, err);
        for (size_t i = 0; i < demo->job_count; i++)
            open += demo->jobs[i].kind == kind && is_open(&demo->jobs[i]);
        if (open == 0)
            break;
        int64_t pause_s = demo->retry_after_s < 1 ? 1 : demo->retry_after_s;
        sleep((unsigned)(pause_s < RETRY_AFTER_MAX_S ? pause_s : RETRY_AFTER_MAX_S));
    }
    if (kind == DEMO_FIRST)
        demo->numbers.first_us = clock_mono_us() - demo->phase_start_us;
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
    for (size_t i = 0; i < demo->job_count; i++)
        if (demo->jobs[i].kind == DEMO_FIRST) {
            demo->numbers.first_events += demo->jobs[i].events;
            demo->numbers.first_deliveries++;
        }
    return OH_OK;
}

/* ---- check ----------------------------------------------------------------------------------- */

/* One check a kind and source: every delivery got the answer that it must get. */
static void check_answers(struct demo *demo)
{
    for (uint32_t source = 0; source <= demo->source_count; source++)
        for (int kind = 0; kind < DEMO_KIND_COUNT; kind++) {
            uint64_t all = 0, right = 0;
            int other = 0;
            for (size_t i = 0; i < demo->job_count; i++) {
                const struct job *job = &demo->jobs[i];
                if (job->source != source || job->kind != (enum demo_kind)kind)
                    continue;
                all++;
                if (job->status == demo_kind_status[kind])
                    right++;
                else
                    other = job->status;
            }
            if (all)
                report_check(&demo->report, right == all,
                             "%s, %s: %llu of %llu answers are %d, another is %d",
                             demo->numbers.sources[source].name, demo_kind_words[kind],
                             (unsigned long long)right, (unsigned long long)all,
                             demo_kind_status[kind], other);
        }
}

/* The answers' numbers. Where a client hung up or was told 503, its events may have been captured
 * without an answer that said so: then the next answer calls them duplicates. */
static void check_outcomes(struct demo *demo)
{
    for (size_t i = 0; i < demo->source_count; i++) {
        const struct demo_source_numbers *numbers = &demo->numbers.sources[i];
        const struct share *share = demo->sources[i].share;
        uint64_t events = (uint64_t)demo->expected_rows[i];
        uint64_t again = numbers->sent[DEMO_AGAIN] + share->twice;
        uint64_t unheard = numbers->hung_up;
        bool may_lack = demo->numbers.retried > 0;
        report_check(&demo->report,
                     numbers->captured <= events &&
                         (may_lack || numbers->captured + unheard >= events),
                     "%s: answers say %llu events captured, sent were %llu new ones", numbers->name,
                     (unsigned long long)numbers->captured, (unsigned long long)events);
        report_check(&demo->report, numbers->captured + numbers->duplicates == events + again,
                     "%s: answers say %llu captured and %llu duplicates, together not %llu",
                     numbers->name, (unsigned long long)numbers->captured,
                     (unsigned long long)numbers->duplicates, (unsigned long long)(events + again));
        report_check(&demo->report, numbers->orphans == 0 && numbers->others == 0,
                     "%s: answers say %llu orphans and %llu quarantined or spooled, must be none",
                     numbers->name, (unsigned long long)numbers->orphans,
                     (unsigned long long)numbers->others);
    }
}

static void check_rows(struct demo *demo)
{
    const struct campaign_snapshot *before = &demo->numbers.before, *after = &demo->numbers.after;
    for (size_t i = 0; i < demo->source_count; i++) {
        int64_t rows = after->sources[i].rows - before->sources[i].rows;
        report_check(&demo->report, rows == demo->expected_rows[i],
                     "%s: PostgreSQL has %lld more rows, sent were %lld new events",
                     demo->numbers.sources[i].name, (long long)rows,
                     (long long)demo->expected_rows[i]);
        report_check(&demo->report, after->sources[i].rows == after->sources[i].keys,
                     "%s: %lld rows have only %lld different ids", demo->numbers.sources[i].name,
                     (long long)after->sources[i].rows, (long long)after->sources[i].keys);
    }
}

static void check_counters(struct demo *demo)
{
    int64_t bound = 0;
    for (int i = 0; i < CAMPAIGN_INSTANCES; i++) {
        const struct campaign_instance *before = &demo->numbers.before.instances[i];
        const struct campaign_instance *after = &demo->numbers.after.instances[i];
        for (int c = 0; c < CAMPAIGN_COUNTERS; c++) {
            int64_t total = after->totals[c] - before->totals[c];
            int64_t events = after->events[c] - before->events[c];
            int64_t expected = demo->expected_totals[i][c];
            report_check(&demo->report, total == expected && events == expected,
                         "%s: total_%s rose by %lld, its events by %lld, must be %lld", after->name,
                         campaign_counters[c], (long long)total, (long long)events,
                         (long long)expected);
        }
        int64_t events = after->events_of_all_types - before->events_of_all_types;
        report_check(&demo->report, events == demo->expected_bound[i],
                     "%s: %lld more events of all types, must be %lld", after->name,
                     (long long)events, (long long)demo->expected_bound[i]);
        report_check(&demo->report, after->enrolled == after->enrollments,
                     "%s: total_enrolled is %lld, enrollments are %lld", after->name,
                     (long long)after->enrolled, (long long)after->enrollments);
        bound += demo->expected_bound[i];
    }
    int64_t totals = demo->numbers.after.enrollment_totals - demo->numbers.before.enrollment_totals;
    report_check(&demo->report, totals == bound,
                 "total_events of the enrollments rose by %lld, must be %lld", (long long)totals,
                 (long long)bound);
    report_check(&demo->report,
                 demo->numbers.after.enrollments_drifted ==
                     demo->numbers.before.enrollments_drifted,
                 "%lld enrollments have a total_events that is not the number of their events",
                 (long long)demo->numbers.after.enrollments_drifted);
}

/* ---- what to look at next -------------------------------------------------------------------- */

/* A curl command that can be pasted until its timestamp is too old; it carries a new event. */
static enum oh_status print_curl(struct demo *demo, struct oh_error *err)
{
    struct source *source = &demo->sources[demo->source_count - 1];
    struct job job = {
        .source = (uint32_t)demo->source_count - 1, .first_event = demo->next_event++, .events = 1};
    struct oh_arena *arena = oh_arena_new(16 * 1024, 1024 * 1024);
    struct sample_delivery delivery = {.header_count = 0};
    enum oh_status status = arena ? make_delivery(demo, &job, arena, &delivery, err)
                                  : oh_fail(err, OH_NO_MEMORY, "out of memory");
    if (status == OH_OK)
        post_print_curl(demo->report.to, demo->options->ca, source->url, &delivery);
    oh_arena_free(arena);
    return status;
}

static enum oh_status print_next(struct demo *demo, struct oh_error *err)
{
    FILE *to = demo->report.to;
    char program[4096];
    ssize_t len = readlink("/proc/self/exe", program, sizeof(program) - 1);
    program[len > 0 ? len : 0] = '\0';
    fprintf(to,
            "\nWhat to look at next\n"
            "The rows:\n"
            "  . %s/env; psql \"$DATABASE_URL\" -c \"SELECT received_at, source, event_type,"
            " provider_event_id, instance_id FROM campaign_events ORDER BY id DESC LIMIT 10\"\n"
            "The counters:\n"
            "  . %s/env; psql \"$DATABASE_URL\" -c \"SELECT name, total_sent, total_delivered,"
            " total_opened, total_clicked FROM campaign_instances\"\n"
            "The metrics: %s/metrics\n"
            "A delivery of yours, signed; sent twice it is a duplicate:\n",
            demo->options->directory, demo->options->directory, demo->options->admin_url);
    enum oh_status status = print_curl(demo, err);
    if (status == OH_OK)
        fprintf(to,
                "Any other one, signed as its provider would (--print-curl shows it as curl):\n"
                "  %s send -c %s --source %s\n",
                program, demo->options->config, demo->sources[0].source->name);
    return status;
}

/* ---- start and end --------------------------------------------------------------------------- */

static const struct config_source *find_source(const struct config *config, const char *provider)
{
    const struct config_source *named = config_find_source(config, slice_of_text(provider));
    if (named && strcmp(named->provider, provider) == 0)
        return named;
    for (size_t i = 0; i < config->source_count; i++)
        if (strcmp(config->sources[i].provider, provider) == 0)
            return &config->sources[i];
    return NULL;
}

static enum oh_status open_sources(struct demo *demo, struct oh_error *err)
{
    for (size_t i = 0; i < SHARE_COUNT; i++) {
        struct source *source = &demo->sources[demo->source_count];
        source->source = find_source(demo->config, shares[i].provider);
        if (!source->source) {
            fprintf(demo->report.to, "  no source of %s in %s: left out\n", shares[i].provider,
                    demo->options->config);
            continue;
        }
        source->share = &shares[i];
        demo->numbers.sources[demo->source_count++].name = source->source->name;
        const char *public_url = demo->config->listen.public_url;
        if (asprintf(&source->url, "%s/in/%s", demo->options->https_url, source->source->name) <
                0 ||
            asprintf(&source->signed_url, "%s/in/%s",
                     public_url ? public_url : demo->options->https_url, source->source->name) < 0)
            return oh_fail(err, OH_NO_MEMORY, "out of memory");
        enum oh_status status =
            post_open_signer(source->source, NULL, demo->options->directory, &source->signer, err);
        if (status != OH_OK)
            return status;
    }
    demo->numbers.sources[demo->source_count].name = NOWHERE_NAME;
    demo->numbers.source_count = demo->source_count;
    return demo->source_count ? OH_OK
                              : oh_fail(err, OH_INVALID, "%s: no source that the demo knows",
                                        demo->options->config);
}

static enum oh_status look(struct demo *demo, struct campaign_snapshot *out, struct oh_error *err)
{
    const char *names[SHARE_COUNT];
    for (size_t i = 0; i < demo->source_count; i++)
        names[i] = demo->sources[i].source->name;
    return campaign_look(demo->campaign, names, demo->source_count, out, err);
}

static enum oh_status prepare(struct demo *demo, struct oh_error *err)
{
    uint8_t random[16];
    uuid_random(random);
    memcpy(demo->salt, random, sizeof(demo->salt));
    demo->start_us = clock_wall_us();
    demo->numbers.connections = CONNECTIONS;
    demo->numbers.cores = sysconf(_SC_NPROCESSORS_ONLN);
    enum oh_status status = open_sources(demo, err);
    demo->too_large_len = demo->config->limits.body_bytes + 1;
    if (status == OH_OK && demo->too_large_len > BODY_BYTES_MAX)
        status = oh_fail(err, OH_INVALID, "limits.body_bytes is too large for the demo");
    if (status == OH_OK && !(demo->too_large_body = malloc(demo->too_large_len)))
        status = oh_fail(err, OH_NO_MEMORY, "out of memory");
    if (status == OH_OK)
        memset(demo->too_large_body, ' ', demo->too_large_len);
    if (status == OH_OK)
        status = plan(demo, err);
    if (status == OH_OK)
        status = campaign_open(demo->options->owner_url, demo->config->database.schema,
                               &demo->campaign, err);
    if (status == OH_OK)
        status = campaign_make(demo->campaign, err);
    return status;
}

static enum oh_status run(struct demo *demo, struct oh_error *err)
{
    enum oh_status status = prepare(demo, err);
    if (status == OH_OK)
        status = look(demo, &demo->numbers.before, err);
    if (status != OH_OK)
        return status;
    report_head(&demo->report, demo->options, &demo->numbers);
    status = drive(demo, err);
    if (status == OH_OK)
        status = look(demo, &demo->numbers.after, err);
    if (status != OH_OK)
        return status;
    report_tables(&demo->report, &demo->numbers);
    check_answers(demo);
    check_outcomes(demo);
    check_rows(demo);
    check_counters(demo);
    report_verdict(&demo->report);
    return print_next(demo, err);
}

static void close_demo(struct demo *demo)
{
    for (size_t i = 0; i < SHARE_COUNT; i++) {
        oh_signer_free(demo->sources[i].signer);
        free(demo->sources[i].url);
        free(demo->sources[i].signed_url);
    }
    campaign_close(demo->campaign);
    free(demo->jobs);
    free(demo->latencies_us);
    free(demo->too_large_body);
    config_free(demo->config);
    free(demo);
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
    close_demo(demo);
    return code;
}
