/* SPDX-License-Identifier: Apache-2.0 */
/* The table of what each provider sends, the list of deliveries made from it, and their bytes. */
#include "cli/demo_plan.h"

#include "base/clock.h"
#include "base/encode.h"
#include "base/slice.h"

#include <stdlib.h>

enum {
    BODY_BYTES_MAX = 32 * 1024 * 1024,
    REDELIVERED_OF = 4, /* every 4th first delivery is sent again */
    NO_COUNTER = -1,
};

#define NOWHERE_NAME "no-such-source"

/* The order of campaign_counters. */
enum { SENT, DELIVERED, OPENED, CLICKED, REPLIED, BOUNCED, UNSUBSCRIBED, COMPLETED };

struct word {
    const char *type; /* the provider's own */
    int counter;      /* of campaign_counters, or NO_COUNTER */
};

static const struct word github_words[] = {{"issues", NO_COUNTER}, {"push", NO_COUNTER}};
static const struct word stripe_words[] = {{"invoice.paid", NO_COUNTER},
                                           {"charge.failed", NO_COUNTER}};
static const struct word sendgrid_words[] = {{"processed", SENT}, {"delivered", DELIVERED},
                                             {"open", OPENED},    {"click", CLICKED},
                                             {"bounce", BOUNCED}, {"unsubscribe", UNSUBSCRIBED}};
static const struct word hmac_words[] = {{"sent", SENT},
                                         {"delivered", DELIVERED},
                                         {"opened", OPENED},
                                         {"clicked", CLICKED},
                                         {"replied", REPLIED},
                                         {"bounced", BOUNCED},
                                         {"unsubscribed", UNSUBSCRIBED},
                                         {"completed", COMPLETED}};

/* How many deliveries of each kind a provider sends; the first ones carry `events` each, whose
 * types go round `words`. */
struct demo_share {
    const char *provider;
    const struct word *words;
    uint32_t word_count;
    uint32_t first, events, twice, spoilt, hang_ups, too_large;
};

#define WORDS(list) list, sizeof(list) / sizeof(list[0])

static const struct demo_share shares[] = {
    /* provider, words, first, events, twice, spoilt, hang_ups, too_large */
    {"github", WORDS(github_words), 2000, 1, 0, 5, 0, 0},
    {"stripe", WORDS(stripe_words), 4000, 1, 0, 5, 0, 0},
    {"sendgrid", WORDS(sendgrid_words), 400, 20, 10, 5, 0, 0},
    {"hmac", WORDS(hmac_words), 6000, 1, 0, 5, 20, 2},
};

enum { SHARE_COUNT = sizeof(shares) / sizeof(shares[0]) };
_Static_assert((int)SHARE_COUNT <= (int)CAMPAIGN_SOURCES_MAX, "a snapshot holds every source");

/* ---- plan ------------------------------------------------------------------------------------ */

static void add_job(struct demo_plan *plan, uint32_t source, enum demo_kind kind,
                    uint32_t first_event, uint32_t events)
{
    if (plan->job_count < plan->job_room)
        plan->jobs[plan->job_count++] = (struct demo_job){
            .source = source, .kind = kind, .first_event = first_event, .events = events};
}

/* The word of event number n, the same in every place that asks. */
static const struct word *word_of(const struct demo_share *share, uint32_t event)
{
    return &share->words[event % share->word_count];
}

static uint32_t enrollment_of(uint32_t event)
{
    return event / 7 % CAMPAIGN_ENROLLMENTS;
}

/* Plans `count` deliveries of new events, all of which must be captured and counted. */
static void plan_new(struct demo_plan *plan, uint32_t source, enum demo_kind kind, uint32_t count,
                     uint32_t events)
{
    const struct demo_share *share = plan->sources[source].share;
    for (uint32_t i = 0; i < count; i++) {
        add_job(plan, source, kind, plan->next_event, events);
        for (uint32_t n = 0; n < events; n++) {
            uint32_t event = plan->next_event++;
            uint32_t instance = enrollment_of(event) % CAMPAIGN_INSTANCES;
            int counter = word_of(share, event)->counter;
            plan->rows[source]++;
            plan->bound[instance]++;
            if (counter != NO_COUNTER)
                plan->totals[instance][counter]++;
        }
    }
}

/* Plans `count` deliveries of one new event each, none of which may be captured. */
static void plan_refused(struct demo_plan *plan, uint32_t source, enum demo_kind kind,
                         uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        add_job(plan, source, kind, plan->next_event++, 1);
}

static void plan_source(struct demo_plan *plan, uint32_t source)
{
    const struct demo_share *share = plan->sources[source].share;
    plan_new(plan, source, DEMO_FIRST, share->first, share->events);
    plan_new(plan, source, DEMO_TWICE, share->twice, 2);
    plan_refused(plan, source, DEMO_TAMPERED, share->spoilt);
    if (post_stale_s(plan->sources[source].source) >= 0)
        plan_refused(plan, source, DEMO_STALE, share->spoilt);
    plan_refused(plan, source, DEMO_UNSIGNED, share->spoilt);
    plan_refused(plan, source, DEMO_TOO_LARGE, share->too_large);
    plan_new(plan, source, DEMO_HANG_UP, share->hang_ups, 1);
}

static enum oh_status make_list(struct demo_plan *plan, struct oh_error *err)
{
    plan->job_room = 1024;
    for (size_t i = 0; i < SHARE_COUNT; i++)
        plan->job_room += 3 * shares[i].first;
    plan->jobs = calloc(plan->job_room, sizeof(*plan->jobs));
    if (!plan->jobs)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    for (uint32_t i = 0; i < plan->source_count; i++)
        plan_source(plan, i);
    plan_refused(plan, (uint32_t)plan->source_count, DEMO_NOWHERE, shares[0].spoilt);
    /* What is sent again: the same events, so nothing new may come of it. */
    size_t planned = plan->job_count;
    for (size_t i = 0; i < planned; i++) {
        struct demo_job job = plan->jobs[i];
        if (job.kind == DEMO_TWICE)
            plan->duplicates[job.source]++;
        if (job.kind == DEMO_FIRST && i % REDELIVERED_OF == 0) {
            plan->duplicates[job.source] += job.events;
            add_job(plan, job.source, DEMO_AGAIN, job.first_event, job.events);
        }
        if (job.kind == DEMO_HANG_UP)
            add_job(plan, job.source, DEMO_AFTER_HANG_UP, job.first_event, job.events);
    }
    return plan->job_count < plan->job_room ? OH_OK
                                            : oh_fail(err, OH_TOO_MANY, "the plan is too long");
}

/* ---- making a delivery ----------------------------------------------------------------------- */

static void event_id(const struct demo_plan *plan, uint32_t event, uint8_t id[16])
{
    memcpy(id, plan->salt, sizeof(plan->salt));
    for (int i = 0; i < 4; i++)
        id[12 + i] = (uint8_t)(event >> (8 * (3 - i)));
}

uint32_t demo_plan_events_sent(const struct demo_job *job)
{
    return job->kind == DEMO_TWICE ? job->events + 1 : job->events;
}

static enum oh_status make_sample(const struct demo_plan *plan, const struct demo_job *job,
                                  const struct demo_source *source, struct oh_arena *arena,
                                  struct sample_delivery *delivery, struct oh_error *err)
{
    uint32_t count = demo_plan_events_sent(job);
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
        event_id(plan, event, texts[i].id);
        campaign_enrollment_id(enrollment, texts[i].enrollment);
        campaign_instance_id(enrollment % CAMPAIGN_INSTANCES, texts[i].instance);
        events[i] = (struct sample_event){texts[i].id, word_of(source->share, event)->type,
                                          texts[i].enrollment, texts[i].instance};
    }
    return sample_make(source->source, events, count, plan->start_us, arena, delivery, err);
}

enum oh_status demo_plan_deliver(const struct demo_plan *plan, const struct demo_job *job,
                                 struct oh_arena *arena, struct sample_delivery *delivery,
                                 struct oh_error *err)
{
    /* To the source that does not exist goes what the first one would take. */
    const struct demo_source *source = &plan->sources[job->source % plan->source_count];
    int64_t now_ms = clock_wall_us() / 1000;
    enum oh_status status = make_sample(plan, job, source, arena, delivery, err);
    if (job->kind == DEMO_TOO_LARGE)
        delivery->body = plan->too_large;
    if (job->kind == DEMO_STALE)
        now_ms -= post_stale_s(source->source) * 1000;
    if (status == OH_OK && job->kind != DEMO_UNSIGNED)
        status = post_sign(source->signer, source->signed_url, now_ms, arena, delivery, err);
    if (status == OH_OK && job->kind == DEMO_TAMPERED)
        status = post_tamper(arena, delivery, err);
    return status;
}

struct demo_job demo_plan_one_more(struct demo_plan *plan)
{
    return (struct demo_job){
        .source = (uint32_t)plan->source_count - 1, .first_event = plan->next_event++, .events = 1};
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

static enum oh_status make_urls(const struct demo_plan *plan, struct demo_source *source,
                                struct oh_error *err)
{
    const char *base = plan->options->https_url, *public_url = plan->config->listen.public_url;
    const char *name = source->source->name;
    if (asprintf(&source->url, "%s/in/%s", base, name) < 0)
        source->url = NULL;
    if (asprintf(&source->signed_url, "%s/in/%s", public_url ? public_url : base, name) < 0)
        source->signed_url = NULL;
    return source->url && source->signed_url ? OH_OK : oh_fail(err, OH_NO_MEMORY, "out of memory");
}

static enum oh_status open_sources(struct demo_plan *plan, struct oh_error *err)
{
    for (size_t i = 0; i < SHARE_COUNT; i++) {
        struct demo_source *source = &plan->sources[plan->source_count];
        source->source = find_source(plan->config, shares[i].provider);
        if (!source->source)
            continue;
        plan->source_count++;
        source->share = &shares[i];
        enum oh_status status = make_urls(plan, source, err);
        if (status == OH_OK)
            status = post_open_signer(source->source, NULL, plan->options->directory,
                                      &source->signer, err);
        if (status != OH_OK)
            return status;
    }
    return plan->source_count ? OH_OK
                              : oh_fail(err, OH_INVALID, "%s: no source that the demo knows",
                                        plan->options->config);
}

/* One byte more than the gateway takes. */
static enum oh_status make_too_large(struct demo_plan *plan, struct oh_error *err)
{
    size_t len = plan->config->limits.body_bytes + 1;
    if (len > BODY_BYTES_MAX)
        return oh_fail(err, OH_INVALID, "limits.body_bytes is too large for the demo");
    char *body = malloc(len + 1);
    if (!body)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    memset(body, ' ', len);
    body[len] = '\0';
    plan->too_large = slice_of(body, len);
    return OH_OK;
}

enum oh_status demo_plan_open(struct demo_plan *plan, const struct demo_options *options,
                              const struct config *config, struct oh_error *err)
{
    uint8_t random[16];
    uuid_random(random);
    memcpy(plan->salt, random, sizeof(plan->salt));
    plan->options = options;
    plan->config = config;
    plan->start_us = clock_wall_us();
    if (asprintf(&plan->nowhere_url, "%s/in/" NOWHERE_NAME, options->https_url) < 0) {
        plan->nowhere_url = NULL;
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    }
    enum oh_status status = open_sources(plan, err);
    if (status == OH_OK)
        status = make_too_large(plan, err);
    if (status == OH_OK)
        status = make_list(plan, err);
    return status;
}

void demo_plan_close(struct demo_plan *plan)
{
    for (size_t i = 0; i < plan->source_count; i++) {
        oh_signer_free(plan->sources[i].signer);
        free(plan->sources[i].url);
        free(plan->sources[i].signed_url);
    }
    free((char *)plan->too_large.data);
    free(plan->nowhere_url);
    free(plan->jobs);
}
