/* SPDX-License-Identifier: Apache-2.0 */
/* A source's recipe and mapping, compiled: every value that events need has a number, under which
 * the scan delivers it. This is struct oh_mapping of oncehook/event.h. */
#ifndef EVENT_PLAN_H
#define EVENT_PLAN_H

#include "body/scan.h"
#include "recipe/recipe.h"

struct plan_value {
    enum recipe_from from;
    size_t want;          /* EVENT, PRESENT, BODY: into scan.wants; INNER: into inner.wants */
    struct oh_slice text; /* HEADER, LITERAL: as in struct recipe_value */
};

struct plan_values {
    struct plan_value *items;
    size_t count;
};

struct plan_time {
    struct plan_value from;
    enum recipe_time_unit unit;
};

struct oh_mapping {
    struct oh_arena *arena; /* holds all of this */
    const struct recipe_events *events;
    struct scan_plan scan, inner; /* inner: all its wants are in_body */
    struct plan_values id, composite, composite_optional;
    struct plan_values reference; /* count 0 = none */
    const char *reference_scope;
    struct plan_values *types; /* events->type_count */
    struct plan_time *times;   /* events->occurred_at_count */
    bool has_enrollment, has_instance;
    struct plan_value enrollment, instance, inner_at, present;
};

/* One event among those of its delivery. */
struct plan_event {
    const struct oh_mapping *mapping;
    const struct oh_request *request;
    const struct scan_result *delivery;
    const struct scan_event *event;
    const struct scan_value *inner; /* by the inner plan's wants; NULL = nothing inside */
    struct oh_slice raw;            /* data not NULL: the event's bytes instead of event->raw */
    bool has_payload;
};

/* What `value` is for this event. A header line that is repeated names nothing. Never NULL data
 * where the kind has text; text lives in the body, the request, the recipe or the arena. */
struct scan_value plan_read(const struct plan_event *of, const struct plan_value *value);

#endif
