/* SPDX-License-Identifier: Apache-2.0 */
/* JSON pointers (recipe/pointer.h): RFC 6901 section 3 (syntax) and section 4 (array indices). */
#include "recipe/pointer.h"

#include "base/slice.h"

/* `0`, or digits without a leading zero; anything else names no array element. */
static uint32_t token_index(struct oh_slice name)
{
    if (name.len == 0 || name.len > 9 || (name.data[0] == '0' && name.len > 1))
        return POINTER_NO_INDEX;
    uint32_t index = 0;
    for (size_t i = 0; i < name.len; i++) {
        if (name.data[i] < '0' || name.data[i] > '9')
            return POINTER_NO_INDEX;
        index = index * 10 + (uint32_t)(name.data[i] - '0');
    }
    return index;
}

/* Unescapes text[from..to) into `out`; returns the length, or SIZE_MAX for a bad escape. */
static size_t token_unescape(struct oh_slice text, size_t from, size_t to, char *out)
{
    size_t n = 0;
    for (size_t i = from; i < to; i++) {
        char c = text.data[i];
        if (c == '~') {
            i++;
            if (i == to || (text.data[i] != '0' && text.data[i] != '1'))
                return SIZE_MAX;
            c = text.data[i] == '0' ? '~' : '/';
        }
        out[n++] = c;
    }
    return n;
}

static enum oh_status check_text(struct oh_slice text, size_t *count, struct oh_error *err)
{
    if (text.len > 0 && text.data[0] != '/')
        return oh_fail(err, OH_INVALID, "a JSON pointer starts with '/'");
    if (text.len > POINTER_BYTES_MAX)
        return oh_fail(err, OH_INVALID, "a JSON pointer of more than %d bytes", POINTER_BYTES_MAX);
    *count = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] == '\0')
            return oh_fail(err, OH_INVALID, "a JSON pointer with a NUL");
        *count += text.data[i] == '/';
    }
    if (*count > POINTER_TOKENS_MAX)
        return oh_fail(err, OH_INVALID, "a JSON pointer of more than %d steps", POINTER_TOKENS_MAX);
    return OH_OK;
}

enum oh_status pointer_parse(struct oh_slice text, unsigned flags, struct oh_arena *arena,
                             struct pointer *out, struct oh_error *err)
{
    size_t count = 0;
    enum oh_status status = check_text(text, &count, err);
    if (status)
        return status;
    struct pointer_token *tokens = oh_arena_alloc(arena, count * sizeof(*tokens));
    char *names = oh_arena_alloc(arena, text.len);
    if (!tokens || !names)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        size_t from = at + 1, to = from; /* text.data[at] is the slash before the token */
        while (to < text.len && text.data[to] != '/')
            to++;
        size_t len = token_unescape(text, from, to, names);
        if (len == SIZE_MAX)
            return oh_fail(err, OH_INVALID, "a JSON pointer with '~' that is not ~0 or ~1");
        tokens[i].name = slice_of(names, len);
        tokens[i].index = token_index(tokens[i].name);
        tokens[i].each = (flags & POINTER_EACH) && slice_equals(tokens[i].name, SLICE_LITERAL("*"));
        names += len;
        at = to;
    }
    *out = (struct pointer){tokens, count};
    return OH_OK;
}

bool pointer_equals(const struct pointer *a, const struct pointer *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (!slice_equals(a->tokens[i].name, b->tokens[i].name))
            return false;
    return true;
}
