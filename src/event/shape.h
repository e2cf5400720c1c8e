/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies that are no JSON, brought into JSON that a scan can read: forms, tokens, XML in a form. */
#ifndef EVENT_SHAPE_H
#define EVENT_SHAPE_H

#include "event/plan.h"

struct shape {
    struct oh_slice json; /* what is scanned */
    struct oh_slice raw;  /* data not NULL: the one event's exact bytes, which are not `json` */
    bool has_payload;     /* `json` is what the event's payload shall be */
};

/* Chooses by the recipe and the Content-Type. Errors: OH_UNREADABLE, OH_NO_MEMORY. */
enum oh_status shape_body(const struct oh_recipe *recipe, const struct oh_mapping *mapping,
                          const struct oh_request *request, struct oh_arena *arena,
                          struct shape *out, struct oh_error *err) OH_MUST_CHECK;

#endif
