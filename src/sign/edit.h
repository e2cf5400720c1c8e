/* SPDX-License-Identifier: Apache-2.0 */
/* Putting a text into a body or a URL that is to be signed. */
#ifndef SIGN_EDIT_H
#define SIGN_EDIT_H

#include "oncehook/types.h"
#include "recipe/pointer.h"

/* Sets the member at `pointer` of the JSON object `body` to `value` (JSON text), making the objects
 * on the way. Errors: OH_INVALID (an array or a scalar stands in the way), OH_NO_MEMORY. */
enum oh_status edit_json(struct oh_slice body, const struct pointer *pointer, struct oh_slice value,
                         struct oh_arena *arena, struct oh_slice *out,
                         struct oh_error *err) OH_MUST_CHECK;

/* Sets the field `name` of a form (or query) to `value`, percent-encoded. Error: OH_NO_MEMORY. */
enum oh_status edit_form(struct oh_slice form, struct oh_slice name, struct oh_slice value,
                         struct oh_arena *arena, struct oh_slice *out,
                         struct oh_error *err) OH_MUST_CHECK;

#endif
