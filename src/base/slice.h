/* SPDX-License-Identifier: Apache-2.0 */
/* Helpers on struct oh_slice that every room needs. */
#ifndef BASE_SLICE_H
#define BASE_SLICE_H

#include "oncehook/types.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

#define SLICE_LITERAL(text) ((struct oh_slice){(text), sizeof(text) - 1})

static inline struct oh_slice slice_of(const char *data, size_t len)
{
    return (struct oh_slice){data, len};
}

static inline struct oh_slice slice_of_text(const char *text)
{
    return (struct oh_slice){text, text ? strlen(text) : 0};
}

/* Equal bytes; not for secrets (use CRYPTO_memcmp). */
static inline bool slice_equals(struct oh_slice a, struct oh_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* Equal without regard to ASCII case: header names. */
static inline bool slice_equals_nocase(struct oh_slice a, struct oh_slice b)
{
    return a.len == b.len && (a.len == 0 || strncasecmp(a.data, b.data, a.len) == 0);
}

static inline bool slice_has_prefix(struct oh_slice s, struct oh_slice prefix)
{
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.data, prefix.data, prefix.len) == 0);
}

/* Without the spaces and tabs at both ends: what HTTP calls optional white space. */
static inline struct oh_slice slice_trim(struct oh_slice s)
{
    while (s.len > 0 && (s.data[0] == ' ' || s.data[0] == '\t'))
        s.data++, s.len--;
    while (s.len > 0 && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t'))
        s.len--;
    return s;
}

#endif
