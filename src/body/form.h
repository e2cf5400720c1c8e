/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of type application/x-www-form-urlencoded and queries (WHATWG URL, section 5). */
#ifndef BODY_FORM_H
#define BODY_FORM_H

#include "oncehook/verify.h"

/* The request has one Content-Type and it is application/x-www-form-urlencoded. */
bool form_is_form(const struct oh_request *request);

/* What stands between '?' and '#' of `url`; empty where there is none. */
struct oh_slice form_query(struct oh_slice url);

/* Takes the next field off the front of *rest, undecoded; fields without a name and a value are
 * passed over. False at the end. */
bool form_next(struct oh_slice *rest, struct oh_slice *name, struct oh_slice *value);

/* Whether the undecoded `text` is `name`. */
bool form_name_is(struct oh_slice text, struct oh_slice name);

/* Decodes `text` into the arena; a '%' without two hex digits stands for itself, as the standard
 * has it. False when memory is gone. */
bool form_decode(struct oh_slice text, struct oh_arena *arena, struct oh_slice *out) OH_MUST_CHECK;

/* Decodes the one field `name` of the form `form` into the arena. Errors: OH_UNREADABLE when the
 * field is missing or stands more than once, OH_NO_MEMORY. */
enum oh_status form_field(struct oh_slice form, struct oh_slice name, struct oh_arena *arena,
                          struct oh_slice *out, struct oh_error *err) OH_MUST_CHECK;

#endif
