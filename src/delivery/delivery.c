/* SPDX-License-Identifier: Apache-2.0 */
/* One accepted request and the outcomes of its events. See delivery.h for who may touch what. */
#include "delivery/delivery.h"

#include "base/encode.h"
#include "base/slice.h"

#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* Copies the bytes of `slice` to *at and points it there. */
static void move_slice(struct oh_slice *slice, char **at)
{
    if (!slice->data)
        return;
    if (slice->len)
        memcpy(*at, slice->data, slice->len);
    slice->data = *at;
    *at += slice->len;
}

/* A copy in one block: the body first, then what quarantine and header ids need. */
static bool copy_request(struct oh_arena *arena, const struct oh_request *from,
                         struct oh_request *to)
{
    size_t bytes = from->body.len + from->method.len + from->url.len;
    for (size_t i = 0; i < from->header_count; i++)
        bytes += from->headers[i].name.len + from->headers[i].value.len;
    struct oh_header *headers = oh_arena_alloc(arena, from->header_count * sizeof(*headers));
    char *at = oh_arena_alloc(arena, bytes);
    if (!headers || !at)
        return false;
    *to = *from;
    to->headers = headers;
    move_slice(&to->body, &at);
    move_slice(&to->method, &at);
    move_slice(&to->url, &at);
    for (size_t i = 0; i < from->header_count; i++) {
        headers[i] = from->headers[i];
        move_slice(&headers[i].name, &at);
        move_slice(&headers[i].value, &at);
    }
    return true;
}

struct delivery *delivery_new(struct oh_arena *arena, const struct config_source *source,
                              const struct oh_request *request, int64_t wall_us, int64_t mono_us)
{
    struct delivery *delivery = oh_arena_alloc(arena, sizeof(*delivery));
    if (!delivery)
        return NULL;
    memset(delivery, 0, sizeof(*delivery));
    if (!copy_request(arena, request, &delivery->request))
        return NULL;
    delivery->arena = arena;
    delivery->source = source;
    delivery->accepted_wall_us = wall_us;
    delivery->accepted_mono_us = mono_us;
    delivery->deadline_mono_us = mono_us + source->ack_deadline_ms * 1000;
    delivery->bytes = request->body.len;
    list_init(&delivery->link);
    uuid_random(delivery->id);
    return delivery;
}

/* ---- equal keys within one delivery ---------------------------------------------------------- */

bool delivery_same_key(const struct delivery_event *a, const struct delivery_event *b)
{
    return a->key_hash == b->key_hash && slice_equals(a->event->key, b->event->key) &&
           slice_equals(a->scope, b->scope);
}

/* Open addressing over event numbers + 1; twice as many slots as events, so it never fills. */
static enum oh_status resolve_equal_keys(struct delivery *delivery)
{
    uint32_t slot_count = 4;
    while (slot_count < delivery->event_count * 2)
        slot_count *= 2;
    uint32_t *slots = oh_arena_alloc(delivery->arena, slot_count * sizeof(*slots));
    if (!slots)
        return OH_NO_MEMORY;
    memset(slots, 0, slot_count * sizeof(*slots));
    for (uint32_t i = 0; i < delivery->event_count; i++) {
        struct delivery_event *event = &delivery->events[i];
        uint32_t at = (uint32_t)event->key_hash & (slot_count - 1);
        while (slots[at] && !delivery_same_key(&delivery->events[slots[at] - 1], event))
            at = (at + 1) & (slot_count - 1);
        if (!slots[at]) {
            slots[at] = i + 1;
            continue;
        }
        event->outcome = DELIVERY_DUPLICATE;
        delivery->duplicates_within++;
    }
    return OH_OK;
}

enum oh_status delivery_take_events(struct delivery *delivery,
                                    const struct oh_extraction *extraction)
{
    const struct config_source *source = delivery->source;
    uint32_t count = extraction->count;
    delivery->events = oh_arena_alloc(delivery->arena, (count + 1) * sizeof(*delivery->events));
    if (!delivery->events)
        return OH_NO_MEMORY;
    memset(delivery->events, 0, (count + 1) * sizeof(*delivery->events));
    delivery->event_count = count;
    delivery->bytes += count * (sizeof(struct oh_event) + sizeof(struct delivery_event));
    for (uint32_t i = 0; i < count; i++) {
        struct delivery_event *event = &delivery->events[i];
        event->delivery = delivery;
        event->event = &extraction->events[i];
        event->scope = slice_of_text(event->event->grade == OH_GRADE_ID ? source->scope_id
                                                                        : source->scope_other);
        event->key_hash = XXH3_64bits(event->event->key.data, event->event->key.len);
        list_init(&event->link);
    }
    if (count > 1) {
        enum oh_status status = resolve_equal_keys(delivery);
        if (status != OH_OK)
            return status;
    }
    atomic_init(&delivery->waiting, count - delivery->duplicates_within);
    atomic_init(&delivery->outcomes[DELIVERY_DUPLICATE], delivery->duplicates_within);
    return OH_OK;
}

enum oh_status delivery_take_unreadable(struct delivery *delivery, const char *why)
{
    size_t why_bytes = strlen(why) + 1;
    char *reason = oh_arena_alloc(delivery->arena, why_bytes);
    delivery->events = oh_arena_alloc(delivery->arena, sizeof(*delivery->events));
    if (!delivery->events || !reason)
        return OH_NO_MEMORY;
    memset(delivery->events, 0, sizeof(*delivery->events));
    delivery->unreadable = memcpy(reason, why, why_bytes);
    delivery->event_count = 1;
    delivery->events[0].delivery = delivery;
    list_init(&delivery->events[0].link);
    atomic_init(&delivery->waiting, 1);
    return OH_OK;
}

bool delivery_decide(struct delivery_event *event, enum delivery_outcome outcome)
{
    struct delivery *delivery = event->delivery;
    event->outcome = outcome;
    atomic_fetch_add_explicit(&delivery->outcomes[outcome], 1, memory_order_relaxed);
    /* Release: whoever sees 0 sees all outcomes; acquire: the last one sees the others'. */
    return atomic_fetch_sub_explicit(&delivery->waiting, 1, memory_order_acq_rel) == 1;
}

void delivery_free(struct delivery *delivery)
{
    if (delivery)
        oh_arena_free(delivery->arena); /* the delivery itself lives in there */
}
