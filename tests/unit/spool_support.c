/* SPDX-License-Identifier: Apache-2.0 */
/* spool_support.h: the events are made from their number, so that a record that comes back is
 * compared with what it must be. */
#include "spool_support.h"

#include "base/clock.h"
#include "base/slice.h"

#include <assert.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { PAYLOAD_BYTES_MAX = 1000, FAR_US = 60 * 1000000, WAIT_MS = 20 };

static void on_decided(void *context, struct delivery *decided)
{
    struct bed *bed = context;
    pthread_mutex_lock(&bed->mutex);
    while (decided) {
        struct delivery *next = decided->next_decided;
        bed->spooled += decided->outcomes[DELIVERY_SPOOLED];
        bed->undecided += decided->outcomes[DELIVERY_UNDECIDED];
        delivery_free(decided);
        decided = next;
    }
    pthread_cond_signal(&bed->decided);
    pthread_mutex_unlock(&bed->mutex);
}

int bed_setup_in(void **state, const char *parent)
{
    struct bed *bed = calloc(1, sizeof(*bed));
    const char *names[] = {"shop"};
    assert(bed);
    snprintf(bed->directory, sizeof(bed->directory), "%s/oncehook-spool-XXXXXX", parent);
    assert(mkdtemp(bed->directory));
    bed->source = (struct config_source){.name = "shop",
                                         .provider = "hmac",
                                         .scope_id = "source:shop",
                                         .scope_other = "source:shop",
                                         .ack_deadline_ms = 3000};
    bed->config.spool.directory = bed->directory;
    bed->config.spool.bytes = (size_t)1 << 30;
    bed->config.spool.age_s = 30 * 24 * 3600;
    bed->config.sources = &bed->source;
    bed->config.source_count = 1;
    bed->config.source_slots = bed->slots;
    bed->config.source_slot_mask = 1;
    bed->slots[XXH3_64bits("shop", 4) & 1] = 1;
    bed->metrics = metrics_new(names, 1, 1);
    pthread_mutex_init(&bed->mutex, NULL);
    pthread_cond_init(&bed->decided, NULL);
    *state = bed;
    return 0;
}

int bed_setup(void **state)
{
    return bed_setup_in(state, "/tmp");
}

int bed_teardown(void **state)
{
    struct bed *bed = *state;
    bed_close(bed);
    DIR *directory = opendir(bed->directory);
    for (struct dirent *entry; directory && (entry = readdir(directory)) != NULL;) {
        char path[400];
        snprintf(path, sizeof(path), "%s/%s", bed->directory, entry->d_name);
        unlink(path);
    }
    if (directory)
        closedir(directory);
    rmdir(bed->directory);
    metrics_free(bed->metrics);
    free(bed);
    return 0;
}

void bed_open(struct bed *bed)
{
    struct oh_error err = {.text = ""};
    enum oh_status status = spool_open(&bed->config, metrics_shard_at(bed->metrics, 0), on_decided,
                                       bed, &bed->spool, &err);
    if (status != OH_OK)
        fprintf(stderr, "%s\n", err.text);
    assert(status == OH_OK);
}

void bed_close(struct bed *bed)
{
    spool_close(bed->spool);
    bed->spool = NULL;
}

/* The payload of event `number`, of a length of its own. */
static size_t write_payload(unsigned number, char out[PAYLOAD_BYTES_MAX])
{
    size_t len = 100 + number * 7919 % 800;
    int head = snprintf(out, PAYLOAD_BYTES_MAX, "{\"n\":%u,\"x\":\"", number);
    memset(out + head, 'a' + (int)(number % 26), len);
    memcpy(out + head + len, "\"}", 2);
    return (size_t)head + len + 2;
}

static struct delivery *make_delivery(struct bed *bed, unsigned number)
{
    char payload[PAYLOAD_BYTES_MAX], key[32];
    size_t len = write_payload(number, payload);
    int key_len = snprintf(key, sizeof(key), "evt-%u", number);
    struct oh_arena *arena = oh_arena_new(4096, 1 << 20);
    struct oh_request request = {.method = SLICE_LITERAL("POST"),
                                 .url = SLICE_LITERAL("/in/shop"),
                                 .body = slice_of(payload, len)};
    int64_t wall_us = bed->accepted_wall_us ? bed->accepted_wall_us : clock_wall_us();
    struct delivery *delivery =
        delivery_new(arena, &bed->source, &request, wall_us, clock_mono_us());
    struct oh_event *event = oh_arena_alloc(arena, sizeof(*event));
    char *kept = oh_arena_alloc(arena, (size_t)key_len);
    assert(delivery && event && kept);
    memcpy(kept, key, (size_t)key_len);
    *event = (struct oh_event){.key = slice_of(kept, (size_t)key_len),
                               .type = OH_EVENT_OPENED,
                               .channel = OH_CHANNEL_EMAIL,
                               .provider_type = SLICE_LITERAL("open"),
                               .occurred_at_us = 1700000000000000 + number,
                               .has_enrollment = number % 2,
                               .has_instance = number % 3 == 0,
                               .raw = delivery->request.body};
    if (number % 5)
        event->payload = event->raw;
    memset(event->enrollment_id, (int)(number & 0xff), 16);
    memset(event->instance_id, (int)(number >> 8 & 0xff), 16);
    struct oh_extraction extraction = {event, 1};
    assert(delivery_take_events(delivery, &extraction) == OH_OK);
    delivery->deadline_mono_us =
        bed->deadline_mono_us ? bed->deadline_mono_us : clock_mono_us() + FAR_US;
    return delivery;
}

void bed_put(struct bed *bed, unsigned first, unsigned count)
{
    struct list events;
    list_init(&events);
    size_t decided_before = bed->spooled + bed->undecided;
    for (unsigned i = first; i < first + count; i++)
        list_push_tail(&events, &make_delivery(bed, i)->events[0].link);
    spool_put(bed->spool, &events, count);
    pthread_mutex_lock(&bed->mutex);
    while (bed->spooled + bed->undecided < decided_before + count)
        pthread_cond_wait(&bed->decided, &bed->mutex);
    pthread_mutex_unlock(&bed->mutex);
}

/* True if the record is event `number` as make_delivery() made it. */
static bool is_as_put(struct bed *bed, const struct delivery *delivery)
{
    const struct delivery_event *item = &delivery->events[0];
    const struct oh_event *event = item->event;
    char payload[PAYLOAD_BYTES_MAX], key[OH_KEY_BYTES_MAX + 1];
    if (!event || event->key.len > OH_KEY_BYTES_MAX)
        return false;
    memcpy(key, event->key.data, event->key.len);
    key[event->key.len] = '\0';
    unsigned number = 0;
    if (sscanf(key, "evt-%u", &number) != 1)
        return false;
    struct oh_slice raw = slice_of(payload, write_payload(number, payload));
    if (bed->seen && number < bed->seen_max)
        bed->seen[number] = true;
    return delivery->source == &bed->source && item->scope.data == bed->source.scope_id &&
           slice_equals(event->raw, raw) && event->type == OH_EVENT_OPENED &&
           event->channel == OH_CHANNEL_EMAIL && event->grade == OH_GRADE_ID &&
           slice_equals(event->provider_type, SLICE_LITERAL("open")) &&
           event->occurred_at_us == 1700000000000000 + number &&
           event->has_enrollment == (number % 2 == 1) && event->has_instance == (number % 3 == 0) &&
           (!event->has_enrollment || event->enrollment_id[15] == (number & 0xff)) &&
           (!event->has_instance || event->instance_id[15] == (number >> 8 & 0xff)) &&
           (number % 5 ? slice_equals(event->payload, raw) : !event->payload.data);
}

struct range {
    uint64_t first, last, lost;
};

static void add_loss(void *context, uint64_t first, uint64_t last, const char *words)
{
    struct range *range = context;
    (void)words;
    first = first > range->first ? first : range->first;
    last = last < range->last ? last : range->last;
    range->lost += first <= last ? last - first + 1 : 0;
}

/* What of the chunk did not come back is in `losses`, before the drain passes it. */
static void demand_losses_of(const struct bed *bed, const struct spool_chunk *chunk)
{
    struct range range = {chunk->first, chunk->last, 0};
    spool_each_loss(bed->spool, add_loss, &range);
    assert(range.lost + chunk->count == chunk->last - chunk->first + 1);
}

size_t bed_drain(struct bed *bed)
{
    size_t records = 0;
    for (;;) {
        struct spool_chunk *chunk = spool_read(bed->spool, 400, 1 << 20);
        if (!chunk) {
            struct spool_state state;
            spool_get_state(bed->spool, &state);
            if (state.waiting == 0)
                return records;
            (void)spool_wait(bed->spool, WAIT_MS);
            continue;
        }
        for (size_t i = 0; i < chunk->count; i++)
            bed->wrong += !is_as_put(bed, chunk->deliveries[i]);
        records += chunk->count;
        demand_losses_of(bed, chunk);
        spool_finish(bed->spool, chunk);
    }
}
