/* SPDX-License-Identifier: Apache-2.0 */
/* One pass over a JSON body: where its events begin and end, and the values a recipe asks for.
 * Nothing is built, nothing recurses; what has to be kept lives in the request's arena. */
#ifndef BODY_SCAN_H
#define BODY_SCAN_H

#include "oncehook/types.h"
#include "recipe/pointer.h"

#include <stdbool.h>

#define SCAN_WANTS_MAX 48 /* different pointers of one source */

/* A place whose value is wanted: relative to each event, or to the whole body. */
struct scan_want {
    struct pointer pointer;
    bool in_body;
};

/* What to look for. Immutable while scans use it. */
struct scan_plan {
    struct scan_want wants[SCAN_WANTS_MAX]; /* in events first, then those in the body */
    size_t want_count, event_want_count;
    bool has_split; /* as in struct recipe_events */
    struct pointer split;
};

enum scan_kind {
    SCAN_ABSENT,
    SCAN_STRING, /* decoded: UTF-8 without NUL */
    SCAN_NUMBER, /* its exact text */
    SCAN_BOOL,   /* "true", "false" */
    SCAN_NULL,
    SCAN_CONTAINER, /* an object or array; no text */
    SCAN_BAD_TEXT,  /* a string that is not Unicode text (bad UTF-8, half a surrogate pair) or has a
                       NUL; no text */
};

struct scan_value {
    const char *data; /* in the body or the arena; NULL where the kind has no text */
    uint32_t len;
    enum scan_kind kind;
};

struct scan_event {
    struct scan_event *next;
    struct oh_slice raw;        /* its bytes in the body, without the white space around it */
    bool jsonb;                 /* PostgreSQL's jsonb can hold it */
    struct scan_value values[]; /* by the plan's event wants */
};

struct scan_result {
    struct scan_event *first; /* in the order of the body */
    uint32_t count;
    struct scan_value body_values[SCAN_WANTS_MAX]; /* by want; those in events stay absent */
};

/* Scans `body`. Of an object's repeated key the last counts, as in jsonb; an event under a repeated
 * key is an event all the same. All of *out lives in `arena` or points into `body`.
 * Errors: OH_UNREADABLE (not one JSON value; no value where the plan's split says the events are),
 * OH_TOO_MANY (more than events_max events), OH_NO_MEMORY (the arena's bound too). */
enum oh_status scan_body(const struct scan_plan *plan, struct oh_slice body, uint32_t events_max,
                         struct oh_arena *arena, struct scan_result *out,
                         struct oh_error *err) OH_MUST_CHECK;

/* The text of a string or number, data NULL for anything else and for no value (NULL). */
static inline struct oh_slice scan_value_text(const struct scan_value *value)
{
    bool has_text = value && (value->kind == SCAN_STRING || value->kind == SCAN_NUMBER);
    return (struct oh_slice){has_text ? value->data : NULL, has_text ? value->len : 0};
}

#endif
