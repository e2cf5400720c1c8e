/* SPDX-License-Identifier: Apache-2.0 */
/* event/plan.h: compiled once per source, read by every delivery. */
#include "event/plan.h"

#include "base/slice.h"
#include "body/text.h"

enum { PLAN_BYTES = 4096, PLAN_BYTES_MAX = 1 << 20 };

static enum oh_status no_memory(struct oh_error *err)
{
    return oh_fail(err, OH_NO_MEMORY, "out of memory");
}

/* The number of a want, a new one where the pointer is not wanted yet. */
static enum oh_status add_want(struct scan_plan *plan, const struct pointer *pointer, bool in_body,
                               size_t *number, struct oh_error *err)
{
    for (size_t i = 0; i < plan->want_count; i++) {
        const struct scan_want *want = &plan->wants[i];
        if (want->in_body == in_body && pointer_equals(&want->pointer, pointer)) {
            *number = i;
            return OH_OK;
        }
    }
    if (plan->want_count == SCAN_WANTS_MAX)
        return oh_fail(err, OH_INVALID, "more than %d different JSON pointers", SCAN_WANTS_MAX);
    *number = plan->want_count++;
    plan->wants[*number] = (struct scan_want){*pointer, in_body};
    return OH_OK;
}

/* The two rounds of compiling: the scan wants the pointers into events before those into bodies. */
struct compiler {
    struct oh_mapping *mapping;
    enum recipe_from round; /* RECIPE_FROM_EVENT, then RECIPE_FROM_BODY */
    struct oh_error *err;
};

static enum oh_status compile_value(const struct compiler *c, const struct recipe_value *from,
                                    struct plan_value *to)
{
    to->from = from->from;
    to->text = from->text;
    bool in_event = from->from == RECIPE_FROM_EVENT || from->from == RECIPE_FROM_PRESENT;
    if (from->from == RECIPE_FROM_INNER && c->round == RECIPE_FROM_EVENT)
        return add_want(&c->mapping->inner, &from->pointer, true, &to->want, c->err);
    if (in_event ? c->round != RECIPE_FROM_EVENT : from->from != c->round)
        return OH_OK;
    return add_want(&c->mapping->scan, &from->pointer, !in_event, &to->want, c->err);
}

static enum oh_status compile_values(const struct compiler *c, const struct recipe_values *from,
                                     struct plan_values *to)
{
    if (!to->items)
        to->items = oh_arena_alloc(c->mapping->arena, from->count * sizeof(*to->items));
    if (!to->items)
        return no_memory(c->err);
    to->count = from->count;
    for (size_t i = 0; i < from->count; i++) {
        enum oh_status status = compile_value(c, &from->items[i], &to->items[i]);
        if (status)
            return status;
    }
    return OH_OK;
}

/* What an oh_map says, read; enrollment and instance NULL = nowhere. */
struct owner {
    const struct recipe_value *enrollment, *instance;
    struct recipe_values reference;
};

static enum oh_status compile_round(const struct compiler *c, const struct owner *owner)
{
    struct oh_mapping *m = c->mapping;
    const struct recipe_events *events = m->events;
    enum oh_status status = compile_values(c, &events->id, &m->id);
    if (!status)
        status = compile_values(c, &events->composite, &m->composite);
    if (!status)
        status = compile_values(c, &events->composite_optional, &m->composite_optional);
    for (size_t i = 0; !status && i < events->type_count; i++)
        status = compile_values(c, &events->type[i], &m->types[i]);
    for (size_t i = 0; !status && i < events->occurred_at_count; i++) {
        m->times[i].unit = events->occurred_at[i].unit;
        status = compile_value(c, &events->occurred_at[i].from, &m->times[i].from);
    }
    if (!status && events->has_inner)
        status = compile_value(c, &events->inner, &m->inner_at);
    if (!status && events->has_present)
        status = compile_value(c, &events->present, &m->present);
    if (!status && owner->enrollment)
        status = compile_value(c, owner->enrollment, &m->enrollment);
    if (!status && owner->instance)
        status = compile_value(c, owner->instance, &m->instance);
    if (!status)
        status = compile_values(c, &owner->reference, &m->reference);
    return status;
}

static enum oh_status compile(struct oh_mapping *m, const struct owner *owner, struct oh_error *err)
{
    const struct recipe_events *events = m->events;
    m->scan.has_split = events->has_split;
    if (events->has_split)
        m->scan.split = events->split;
    m->has_enrollment = owner->enrollment != NULL;
    m->has_instance = owner->instance != NULL;
    size_t types = events->type_count * sizeof(*m->types);
    size_t times = events->occurred_at_count * sizeof(*m->times);
    m->types = oh_arena_alloc(m->arena, types);
    m->times = oh_arena_alloc(m->arena, times);
    if (!m->types || !m->times)
        return no_memory(err);
    memset(m->types, 0, types);
    memset(m->times, 0, times);
    struct compiler c = {m, RECIPE_FROM_EVENT, err};
    enum oh_status status = compile_round(&c, owner);
    if (status)
        return status;
    m->scan.event_want_count = m->scan.want_count;
    c.round = RECIPE_FROM_BODY;
    return compile_round(&c, owner);
}

/* Where an id of `map:` stands: what the source says, else what the recipe says, else nowhere. */
static enum oh_status choose(const char *text, bool has_default,
                             const struct recipe_value *standard, struct oh_arena *arena,
                             struct recipe_value *own, const struct recipe_value **chosen,
                             struct oh_error *err)
{
    *chosen = has_default ? standard : NULL;
    if (!text)
        return OH_OK;
    *chosen = own;
    return recipe_value_parse(slice_of_text(text), false, arena, own, err);
}

static char *copy_text(struct oh_arena *arena, const char *text, size_t len)
{
    char *copy = oh_arena_alloc(arena, len + 1);
    if (!copy)
        return NULL;
    memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

/* The parts of a reference, one a line. */
static enum oh_status read_reference(const char *lines, struct oh_arena *arena,
                                     struct recipe_values *parts, struct oh_error *err)
{
    enum oh_status status = OH_OK;
    struct recipe_value *items = oh_arena_alloc(arena, OH_REFERENCE_PARTS_MAX * sizeof(*items));
    if (!items)
        return no_memory(err);
    *parts = (struct recipe_values){items, 0};
    while (!status && lines) {
        size_t len = strcspn(lines, "\n");
        char *copy = copy_text(arena, lines, len);
        if (parts->count == OH_REFERENCE_PARTS_MAX)
            return oh_fail(err, OH_INVALID, "a reference of more than %d parts",
                           OH_REFERENCE_PARTS_MAX);
        if (!copy)
            return no_memory(err);
        status = recipe_value_parse(slice_of(copy, len), false, arena, &items[parts->count++], err);
        lines = lines[len] ? lines + len + 1 : NULL;
    }
    return status;
}

enum oh_status oh_mapping_new(const struct oh_recipe *recipe, const struct oh_map *map,
                              struct oh_mapping **out, struct oh_error *err)
{
    static const struct oh_map defaults;
    *out = NULL;
    struct oh_arena *arena = oh_arena_new(PLAN_BYTES, PLAN_BYTES_MAX);
    struct oh_mapping *m = arena ? oh_arena_alloc(arena, sizeof(*m)) : NULL;
    if (!m) {
        oh_arena_free(arena);
        return no_memory(err);
    }
    const struct recipe_events *events = &recipe->events;
    *m = (struct oh_mapping){.arena = arena, .events = events};
    struct recipe_value own[2];
    struct owner owner = {.reference = {NULL, 0}};
    map = map ? map : &defaults;
    m->reference_scope =
        map->reference ? copy_text(arena, map->reference_scope, strlen(map->reference_scope)) : "";
    enum oh_status status = m->reference_scope ? OH_OK : no_memory(err);
    if (!status)
        status = choose(map->enrollment_id, events->has_map_enrollment, &events->map_enrollment,
                        arena, &own[0], &owner.enrollment, err);
    if (!status)
        status = choose(map->instance_id, events->has_map_instance, &events->map_instance, arena,
                        &own[1], &owner.instance, err);
    if (!status && map->reference)
        status = read_reference(map->reference, arena, &owner.reference, err);
    if (!status)
        status = compile(m, &owner, err);
    if (status) {
        oh_arena_free(arena);
        return status;
    }
    *out = m;
    return OH_OK;
}

void oh_mapping_free(struct oh_mapping *mapping)
{
    if (mapping)
        oh_arena_free(mapping->arena);
}

static struct scan_value text_value(struct oh_slice text)
{
    if (!text_is_storable(text) || text.len > UINT32_MAX)
        return (struct scan_value){.kind = SCAN_BAD_TEXT};
    return (struct scan_value){
        .data = text.data ? text.data : "",
        .len = (uint32_t)text.len,
        .kind = SCAN_STRING,
    };
}

static struct scan_value read_header(const struct oh_request *request, struct oh_slice name)
{
    const struct oh_header *found = NULL;
    for (size_t i = 0; i < request->header_count; i++) {
        if (!slice_equals_nocase(request->headers[i].name, name))
            continue;
        if (found)
            return (struct scan_value){.kind = SCAN_ABSENT};
        found = &request->headers[i];
    }
    return found ? text_value(found->value) : (struct scan_value){.kind = SCAN_ABSENT};
}

struct scan_value plan_read(const struct plan_event *of, const struct plan_value *value)
{
    switch (value->from) {
    case RECIPE_FROM_EVENT:
        return of->event->values[value->want];
    case RECIPE_FROM_INNER:
        return of->inner ? of->inner[value->want] : (struct scan_value){.kind = SCAN_ABSENT};
    case RECIPE_FROM_PRESENT:
        if (of->event->values[value->want].kind == SCAN_ABSENT)
            return (struct scan_value){.kind = SCAN_ABSENT};
        return text_value(slice_of("", 0));
    case RECIPE_FROM_BODY:
        return of->delivery->body_values[value->want];
    case RECIPE_FROM_HEADER:
        return read_header(of->request, value->text);
    case RECIPE_FROM_LITERAL:
        return text_value(value->text);
    }
    return (struct scan_value){.kind = SCAN_ABSENT};
}
