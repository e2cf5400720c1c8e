/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of type application/x-www-form-urlencoded (WHATWG URL, section 5). */
#ifndef EVENT_FORM_H
#define EVENT_FORM_H

#include "oncehook/verify.h"

/* The request has one Content-Type and it is application/x-www-form-urlencoded. */
bool form_is_form(const struct oh_request *request);

/* Decodes the one field `name` of the form `body` into the arena. Errors: OH_UNREADABLE when the
 * field is missing or stands more than once, OH_NO_MEMORY. */
enum oh_status form_field(struct oh_slice body, const char *name, struct oh_arena *arena,
                          struct oh_slice *out, struct oh_error *err) OH_MUST_CHECK;

#endif
