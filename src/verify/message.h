/* SPDX-License-Identifier: Apache-2.0 */
/* What is signed: the parts of a recipe's `message`, put together for one request. Each kind of
 * part is a small function in one table. */
#ifndef VERIFY_MESSAGE_H
#define VERIFY_MESSAGE_H

#include "body/scan.h"
#include "oncehook/verify.h"
#include "recipe/recipe.h"

/* What is signed, in order; the bytes belong to the request, the recipe or the arena. */
struct message {
    struct oh_slice parts[RECIPE_PARTS_MAX];
    size_t count;
};

/* What a message is made of. */
struct message_source {
    const struct oh_recipe *recipe;
    const struct oh_request *request;
    struct oh_arena *arena;        /* NULL: parts that have to be put together cannot be made */
    const struct scan_value *json; /* by index into recipe->json; NULL: no JSON body */
    struct oh_slice ts, secret;
    struct oh_slice signature; /* as it came, encoded: for BODY_SECRET */
    unsigned variant;
};

/* How many spellings of the message there may be: a URL with and without its port and the like. */
unsigned message_variants(const struct oh_recipe *recipe);

/* Builds variant from->variant. False when a part is missing, memory is gone, or there is no such
 * variant for this request. */
bool message_build(const struct message_source *from, struct message *out) OH_MUST_CHECK;

/* Puts pieces one after the other into the arena; false when memory is gone. */
bool message_join(struct oh_arena *arena, const struct oh_slice *pieces, size_t count,
                  struct oh_slice *out) OH_MUST_CHECK;

enum found { FOUND_NONE, FOUND_ONE, FOUND_SEVERAL };

/* The value of the first of `names` that the request has. */
enum found find_header(const struct oh_request *request, const struct recipe_names *names,
                       struct oh_slice *value);

#endif
