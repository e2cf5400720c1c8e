/* SPDX-License-Identifier: Apache-2.0 */
/* The table of what each provider sends, the deliveries planned from it, and their bytes. The
 * expectations are counted here and nowhere else. */
#include "cli/demo_plan.h"

#include "base/clock.h"
#include "base/encode.h"
#include "base/slice.h"

#include <stdlib.h>

/* Longer bodies wait for the server's "100 Continue", so that its answer is read and not cut off by
 * a reset. */
enum { LARGE_BYTES_MIN = 1024 * 1024, LARGE_BYTES_MAX = 32 * 1024 * 1024, NO_TOTAL = -1 };

const struct demo_kind_row demo_kinds[DEMO_KIND_COUNT] = {
#define X(name, words, status, flags, events_of, refusal) \
    {words, status, flags, DEMO_##events_of, refusal},
    DEMO_KINDS(X)
#undef X
};

/* The order of the totals in sql/demo_look.sql. */
enum { SENT, DELIVERED, OPENED, CLICKED, REPLIED, BOUNCED, UNSUBSCRIBED, COMPLETED };

/* The provider's own word for a type, and the total that it adds to. */
struct word {
    const char *type;
    int total;
};

/* What a provider sends: deliveries of each kind; the first ones carry `events` each, whose types
 * go round `words`. */
struct demo_share {
    const char *provider;
    uint32_t events, word_count;
    uint32_t counts[DEMO_KIND_COUNT]; /* in the order of DEMO_KINDS */
    struct word words[8];
};

static const struct demo_share shares[DEMO_SOURCES_MAX] = {
    {"github", 1, 2, {2000, 500, 0, 5, 5, 5}, {{"issues", NO_TOTAL}, {"push", NO_TOTAL}}},
    {"stripe",
     1,
     2,
     {4000, 1000, 0, 5, 5, 5},
     {{"invoice.paid", NO_TOTAL}, {"charge.failed", NO_TOTAL}}},
    {"sendgrid",
     20,
     6,
     {400, 100, 10, 5, 5, 5},
     {{"processed", SENT},
      {"delivered", DELIVERED},
      {"open", OPENED},
      {"click", CLICKED},
      {"bounce", BOUNCED},
      {"unsubscribe", UNSUBSCRIBED}}},
    {"hmac",
     1,
     8,
     {6000, 1500, 0, 5, 5, 5, 0, 2, 20, 20},
     {{"sent", SENT},
      {"delivered", DELIVERED},
      {"opened", OPENED},
      {"clicked", CLICKED},
      {"replied", REPLIED},
      {"bounced", BOUNCED},
      {"unsubscribed", UNSUBSCRIBED},
      {"completed", COMPLETED}}},
};

static const struct demo_share nowhere = {"no-such-source", 1, 0, {[DEMO_NOWHERE] = 5}, {{0}}};

/* The word of event number n, and its enrollment; the same in every place that asks. */
static const struct word *word_of(const struct demo_share *share, uint32_t event)
{
    return &share->words[event % share->word_count];
}

static uint32_t enrollment_of(uint32_t event)
{
    return event / 7 % DEMO_ENROLLMENTS;
}

/* ---- plan ------------------------------------------------------------------------------------ */

/* Counts what must come of a new event that is accepted. */
static void expect_event(struct demo *demo, size_t source, uint32_t event)
{
    int64_t *rises = &demo->rises[enrollment_of(event) % DEMO_INSTANCES * DEMO_COUNTERS];
    int total = word_of(demo->shares[source], event)->total;
    if (total != NO_TOTAL)
        rises[total]++;
    rises[DEMO_EVENTS]++;
    demo->rises[DEMO_SOURCE_ROWS + source]++;
    demo->decided[source]++;
}

static enum oh_status plan_group(struct demo *demo, const struct demo_share *share, size_t source,
                                 enum demo_kind kind, struct oh_error *err)
{
    struct demo_group *group = &demo->groups[source][kind];
    const struct demo_kind_row *row = &demo_kinds[kind];
    const struct demo_group *old = row->events_of == kind ? NULL : group - kind + row->events_of;
    group->source = source;
    group->kind = kind;
    group->count = share->counts[kind];
    group->events = row->events_of == DEMO_FIRST ? share->events : kind == DEMO_TWICE ? 2 : 1;
    group->in_body = group->events + (kind == DEMO_TWICE);
    if (kind == DEMO_STALE && group->count && !post_can_be_stale(demo->doors[source].source))
        group->count = 0;
    group->jobs = calloc(group->count + 1, sizeof(*group->jobs));
    if (!group->jobs)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    for (uint32_t i = 0; i < group->count; i++) {
        struct demo_job *job = &group->jobs[i];
        job->group = group;
        job->first_event =
            old ? old->jobs[i * (old->count / group->count)].first_event : demo->next_event;
        if (old && kind != DEMO_AFTER_HANG_UP)
            demo->decided[source] += group->events;
        demo->decided[source] += kind == DEMO_TWICE;
        for (uint32_t n = 0; !old && n < group->events; n++, demo->next_event++)
            if (row->status < 400)
                expect_event(demo, source, demo->next_event);
    }
    return OH_OK;
}

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

static enum oh_status open_doors(struct demo *demo, struct oh_error *err)
{
    enum oh_status status = OH_OK;
    for (size_t i = 0; status == OH_OK && i < DEMO_SOURCES_MAX; i++) {
        const struct config_source *source = find_source(demo->config, shares[i].provider);
        if (!source)
            continue;
        demo->shares[demo->source_count] = &shares[i];
        demo->names[demo->source_count] = source->name;
        status = post_open(&demo->doors[demo->source_count++], demo->config, source,
                           demo->options->https_url, NULL, demo->options->directory, err);
    }
    demo->names[demo->source_count] = nowhere.provider;
    if (demo->source_count == 0)
        return oh_fail(err, OH_INVALID, "%s: no source that the demo knows", demo->config->path);
    return status;
}

enum oh_status demo_plan(struct demo *demo, struct oh_error *err)
{
    enum oh_status status = open_doors(demo, err);
    size_t len = demo->config->limits.body_bytes + 1;
    if (len > LARGE_BYTES_MAX)
        return oh_fail(err, OH_INVALID, "limits.body_bytes is too large for the demo");
    if (len <= LARGE_BYTES_MIN)
        len = LARGE_BYTES_MIN + 1;
    demo->too_large = slice_of(calloc(1, len), len);
    if (!demo->too_large.data)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    uuid_random(demo->salt);
    demo->start_us = clock_wall_us();
    for (size_t source = 0; source <= demo->source_count; source++)
        for (int kind = 0; status == OH_OK && kind < DEMO_KIND_COUNT; kind++)
            status = plan_group(demo, source < demo->source_count ? demo->shares[source] : &nowhere,
                                source, (enum demo_kind)kind, err);
    return status;
}

void demo_plan_free(struct demo *demo)
{
    for (size_t source = 0; source <= DEMO_SOURCES_MAX; source++)
        for (int kind = 0; kind < DEMO_KIND_COUNT; kind++)
            free(demo->groups[source][kind].jobs);
    for (size_t i = 0; i < demo->source_count; i++)
        post_close(&demo->doors[i]);
    free((char *)demo->too_large.data);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

enum oh_status demo_deliver(const struct demo *demo, const struct demo_job *job,
                            struct oh_arena *arena, struct sample_delivery *delivery,
                            struct oh_error *err)
{
    const struct demo_group *group = job->group;
    /* To the source that is not there goes what the first one would take. */
    size_t source = group->source % demo->source_count;
    struct text {
        uint8_t id[16];
        char enrollment[37], instance[37];
    } *texts = oh_arena_alloc(arena, group->in_body * sizeof(*texts));
    struct sample_event *events = oh_arena_alloc(arena, group->in_body * sizeof(*events));
    if (!texts || !events)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    for (uint32_t i = 0; i < group->in_body; i++) {
        uint32_t event = job->first_event + i % group->events;
        uint32_t enrollment = enrollment_of(event);
        memcpy(texts[i].id, demo->salt, sizeof(demo->salt));
        memcpy(texts[i].id + sizeof(demo->salt) - sizeof(event), &event, sizeof(event));
        /* The ids of sql/demo_campaign.sql. */
        snprintf(texts[i].instance, 37, "de310000-0000-4000-8000-%012x",
                 enrollment % DEMO_INSTANCES);
        snprintf(texts[i].enrollment, 37, "de320000-0000-4000-8000-%012x", enrollment);
        events[i] = (struct sample_event){texts[i].id, word_of(demo->shares[source], event)->type,
                                          texts[i].enrollment, texts[i].instance};
    }
    return post_make(&demo->doors[source], events, group->in_body, demo->start_us,
                     group->kind == DEMO_TOO_LARGE ? demo->too_large : slice_of(NULL, 0),
                     demo_kinds[group->kind].flags, arena, delivery, err);
}
