/* SPDX-License-Identifier: Apache-2.0 */
/* The door of the event room (oncehook/event.h): a verified body becomes decided events. One scan
 * finds them and the values they need (scan.c); here each gets key, type, time and owner. */
#include "oncehook/event.h"

#include "base/encode.h"
#include "base/slice.h"
#include "event/key.h"
#include "event/plan.h"
#include "event/shape.h"
#include "body/text.h"
#include "body/time.h"

#include <openssl/evp.h>

static enum oh_status no_memory(struct oh_error *err)
{
    return oh_fail(err, OH_NO_MEMORY, "out of memory for one delivery");
}

/* The longest type word that is looked at; what is kept of it is OH_EVENT_TYPE_MAX. */
enum { TYPE_WORD_MAX = 1024 };

/* Joins the parts; false when one is missing, or nothing remains. */
static bool join_type(const struct plan_event *of, const struct plan_values *parts, char *word,
                      size_t *len)
{
    *len = 0;
    for (size_t i = 0; i < parts->count; i++) {
        struct scan_value part = plan_read(of, &parts->items[i]);
        if (part.kind != SCAN_STRING && part.kind != SCAN_NUMBER && part.kind != SCAN_BOOL)
            return false;
        struct oh_slice text = text_cut(slice_of(part.data, part.len), TYPE_WORD_MAX - *len);
        memcpy(word + *len, text.data, text.len);
        *len += text.len;
    }
    return *len > 0;
}

/* The first alternative whose parts are all there; empty when none is. Every part is UTF-8 without
 * NUL already (scan.h, plan.h). */
static enum oh_status decide_type(const struct plan_event *of, struct oh_arena *arena,
                                  struct oh_event *out, struct oh_error *err)
{
    const struct recipe_events *events = of->mapping->events;
    char word[TYPE_WORD_MAX];
    size_t len = 0;
    for (size_t i = 0; i < events->type_count; i++)
        if (join_type(of, &of->mapping->types[i], word, &len))
            break;
        else
            len = 0;
    struct oh_slice kept = text_cut(slice_of(word, len), OH_EVENT_TYPE_MAX);
    char *copy = oh_arena_alloc(arena, kept.len);
    if (!copy)
        return no_memory(err);
    memcpy(copy, word, kept.len);
    out->provider_type = slice_of(copy, kept.len);
    out->type = recipe_find_type(events, out->provider_type);
    out->channel = recipe_find_channel(events, out->provider_type);
    return OH_OK;
}

/* The first time that can be read decides, even when it is outside the window. */
static int64_t decide_time(const struct plan_event *of, int64_t now_us)
{
    for (size_t i = 0; i < of->mapping->events->occurred_at_count; i++) {
        const struct plan_time *time = &of->mapping->times[i];
        struct scan_value value = plan_read(of, &time->from);
        struct oh_slice text = scan_value_text(&value);
        int64_t unix_us;
        if (text.data && time_parse(text, time->unit, &unix_us))
            return time_within_window(unix_us, now_us);
    }
    return now_us;
}

static bool decide_uuid(const struct plan_event *of, bool wanted, const struct plan_value *from,
                        uint8_t uuid[16])
{
    if (!wanted)
        return false;
    struct scan_value value = plan_read(of, from);
    return uuid_parse(scan_value_text(&value), uuid);
}

static enum oh_status decide_event(const struct plan_event *of, int64_t now_us, EVP_MD_CTX *sha256,
                                   struct oh_arena *arena, struct oh_event *out,
                                   struct oh_error *err)
{
    const struct oh_mapping *m = of->mapping;
    *out = (struct oh_event){.raw = of->raw.data ? of->raw : of->event->raw};
    if (of->event->jsonb && of->has_payload)
        out->payload = of->event->raw;
    enum oh_status status = decide_type(of, arena, out, err);
    if (status)
        return status;
    out->occurred_at_us = decide_time(of, now_us);
    out->has_enrollment = decide_uuid(of, m->has_enrollment, &m->enrollment, out->enrollment_id);
    out->has_instance = decide_uuid(of, m->has_instance, &m->instance, out->instance_id);
    if (!out->has_enrollment && m->reference.count > 0)
        out->has_enrollment = key_reference(of, sha256, out->enrollment_id);
    return key_decide(of, sha256, arena, out, err);
}

/* Reads the JSON that a text of the event is; what cannot be read has nothing inside. */
static void look_inside(struct plan_event *of, struct oh_arena *arena)
{
    struct scan_value text = plan_read(of, &of->mapping->inner_at);
    struct scan_result *found = oh_arena_alloc(arena, sizeof(*found));
    if (found && text.kind == SCAN_STRING &&
        scan_body(&of->mapping->inner, slice_of(text.data, text.len), 1, arena, found, NULL) ==
            OH_OK)
        of->inner = found->body_values;
}

/* False for what is no event: pings, and what lacks the value that makes one. */
static bool is_event(const struct plan_event *of, const struct oh_event *decided)
{
    const struct recipe_events *events = of->mapping->events;
    return !recipe_is_ping(events, decided->provider_type) &&
           (!events->has_present || plan_read(of, &of->mapping->present).kind != SCAN_ABSENT);
}

static enum oh_status decide_all(const struct oh_mapping *mapping, const struct oh_request *request,
                                 const struct shape *shape, const struct scan_result *delivery,
                                 int64_t now_us, struct oh_arena *arena, struct oh_extraction *out,
                                 struct oh_error *err)
{
    enum oh_status status = OH_OK;
    EVP_MD_CTX *sha256 = EVP_MD_CTX_new();
    out->events = oh_arena_alloc(arena, delivery->count * sizeof(*out->events));
    if (!sha256 || !out->events) {
        status = no_memory(err);
        goto out;
    }
    const struct scan_event *event = delivery->first;
    for (; event; event = event->next) {
        struct plan_event of = {mapping, request,    delivery,          event,
                                NULL,    shape->raw, shape->has_payload};
        if (mapping->events->has_inner)
            look_inside(&of, arena);
        struct oh_event *decided = &out->events[out->count];
        status = decide_event(&of, now_us, sha256, arena, decided, err);
        if (status)
            goto out;
        if (is_event(&of, decided))
            out->count++;
    }
out:
    EVP_MD_CTX_free(sha256);
    return status;
}

enum oh_status oh_extract(const struct oh_recipe *recipe, const struct oh_mapping *mapping,
                          const struct oh_request *request, int64_t now_us, uint32_t events_max,
                          struct oh_arena *arena, struct oh_extraction *out, struct oh_error *err)
{
    *out = (struct oh_extraction){NULL, 0};
    struct shape shape;
    enum oh_status status = shape_body(recipe, mapping, request, arena, &shape, err);
    if (status)
        return status;
    struct scan_result delivery;
    status = scan_body(&mapping->scan, shape.json, events_max, arena, &delivery, err);
    if (status)
        return status;
    return decide_all(mapping, request, &shape, &delivery, now_us, arena, out, err);
}
