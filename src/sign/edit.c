/* SPDX-License-Identifier: Apache-2.0 */
/* sign/edit.h. The bytes around what is set stay as they are. */
#include "sign/edit.h"

#include "base/slice.h"
#include "body/form.h"

#include <stdio.h>

static enum oh_status no_memory(struct oh_error *err)
{
    return oh_fail(err, OH_NO_MEMORY, "out of memory");
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static const char *skip_space(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
        at++;
    return at;
}

/* Behind the string that begins at `at`. */
static const char *skip_string(const char *at, const char *end)
{
    for (at++; at < end && *at != '"'; at++)
        at += *at == '\\' && at + 1 < end;
    return at < end ? at + 1 : end;
}

/* Behind the value that begins at `at`. */
static const char *skip_value(const char *at, const char *end)
{
    size_t depth = 0;
    while (at < end) {
        if (*at == '"') {
            at = skip_string(at, end);
        } else {
            if (depth == 0 && strchr(",]} \t\r\n", *at))
                return at;
            depth += *at == '{' || *at == '[';
            depth -= *at == '}' || *at == ']';
            at++;
        }
        if (depth == 0 && (at[-1] == '"' || at[-1] == '}' || at[-1] == ']'))
            return at;
    }
    return end;
}

/* The value of member `name` of the object that begins at `object`; NULL where there is none. */
static const char *find_member(const char *object, const char *end, struct oh_slice name)
{
    const char *at = skip_space(object + 1, end);
    while (at < end && *at == '"') {
        const char *behind = skip_string(at, end);
        bool same = slice_equals(slice_of(at + 1, (size_t)(behind - at - 2)), name);
        at = skip_space(behind, end);
        at = at < end && *at == ':' ? skip_space(at + 1, end) : end;
        if (same)
            return at;
        at = skip_space(skip_value(at, end), end);
        at = at < end && *at == ',' ? skip_space(at + 1, end) : end;
    }
    return NULL;
}

enum oh_status edit_json(struct oh_slice body, const struct pointer *pointer, struct oh_slice value,
                         struct oh_arena *arena, struct oh_slice *out, struct oh_error *err)
{
    const char *end = body.data + body.len, *at = skip_space(body.data, end);
    const char *behind = NULL; /* of what gives way to the value */
    size_t depth = 0;
    for (; depth < pointer->count; depth++) {
        if (at >= end || *at != '{')
            return oh_fail(err, OH_INVALID, "the body has no place for the signature");
        const char *member = find_member(at, end, pointer->tokens[depth].name);
        if (!member)
            break;
        at = member;
    }
    size_t max = body.len + value.len + 4;
    for (size_t i = depth; i < pointer->count; i++)
        max += pointer->tokens[i].name.len + 8;
    char *to = oh_arena_alloc(arena, max);
    if (!to)
        return no_memory(err);
    bool makes = depth < pointer->count;
    bool first = makes && *skip_space(at + 1, end) == '}';
    behind = makes ? at + 1 : skip_value(at, end);
    const char *until = makes ? at + 1 : at;
    size_t len = (size_t)(until - body.data);
    memcpy(to, body.data, len);
    for (size_t i = depth; i < pointer->count; i++)
        len += (size_t)snprintf(to + len, max - len, "%s\"%.*s\":", i > depth ? "{" : "",
                                (int)pointer->tokens[i].name.len, pointer->tokens[i].name.data);
    memcpy(to + len, value.data, value.len);
    len += value.len;
    for (size_t i = depth + 1; i < pointer->count; i++)
        to[len++] = '}';
    if (makes && !first)
        to[len++] = ',';
    memcpy(to + len, behind, (size_t)(end - behind));
    *out = slice_of(to, len + (size_t)(end - behind));
    return OH_OK;
}

/* ---- forms ----------------------------------------------------------------------------------- */

enum oh_status edit_form(struct oh_slice form, struct oh_slice name, struct oh_slice value,
                         struct oh_arena *arena, struct oh_slice *out, struct oh_error *err)
{
    struct oh_slice field, text;
    char *to = oh_arena_alloc(arena, form.len + name.len + 3 * value.len + 3);
    size_t len = 0;
    if (!to)
        return no_memory(err);
    for (struct oh_slice rest = form; form_next(&rest, &field, &text);) {
        if (slice_equals(field, name))
            continue;
        size_t whole = field.len + (text.data > field.data + field.len ? 1 + text.len : 0);
        memcpy(to + len, field.data, whole);
        len += whole;
        to[len++] = '&';
    }
    memcpy(to + len, name.data, name.len);
    len += name.len;
    to[len++] = '=';
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.data[i], letter = c | 0x20;
        if ((c >= '0' && c <= '9') || (letter >= 'a' && letter <= 'z') || c == '-' || c == '_') {
            to[len++] = (char)c;
            continue;
        }
        to[len++] = '%';
        to[len++] = "0123456789ABCDEF"[c >> 4];
        to[len++] = "0123456789ABCDEF"[c & 15];
    }
    *out = slice_of(to, len);
    return OH_OK;
}
