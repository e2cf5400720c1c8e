/* SPDX-License-Identifier: Apache-2.0 */
/* JSON pointers (RFC 6901), parsed once: unescaped tokens to walk a document with. */
#ifndef RECIPE_POINTER_H
#define RECIPE_POINTER_H

#include "oncehook/types.h"

#include <stdbool.h>

#define POINTER_BYTES_MAX  1024 /* longest text of a pointer */
#define POINTER_TOKENS_MAX 32   /* deepest pointer */
#define POINTER_NO_INDEX   UINT32_MAX

struct pointer_token {
    struct oh_slice name; /* unescaped: compares with an object's decoded key; data never NULL */
    uint32_t index;       /* the same token against an array, or POINTER_NO_INDEX */
    bool each;            /* `*` where POINTER_EACH allows it: every element of an array */
};

/* count == 0 names the whole document. Immutable; the tokens live in the arena it was parsed into.
 */
struct pointer {
    const struct pointer_token *tokens;
    size_t count;
};

enum pointer_flags {
    POINTER_EACH =
        1, /* a token that is just `*` means every element; else it is a key like any other */
};

/* Parses `text` ("" or "/…") into *out. Errors: OH_INVALID (does not start with '/', `~` without 0
 * or 1, NUL, a bound passed), OH_NO_MEMORY. */
enum oh_status pointer_parse(struct oh_slice text, unsigned flags, struct oh_arena *arena,
                             struct pointer *out, struct oh_error *err) OH_MUST_CHECK;

bool pointer_equals(const struct pointer *a, const struct pointer *b);

#endif
