/* SPDX-License-Identifier: Apache-2.0 */
/* event/form.h: names are compared and the one value is decoded in place of its copy; a '%' without
 * two hex digits stands for itself, as the standard has it. */
#include "event/form.h"

#include "base/slice.h"

bool form_is_form(const struct oh_request *request)
{
    const struct oh_slice wanted = SLICE_LITERAL("application/x-www-form-urlencoded");
    const struct oh_header *found = NULL;
    for (size_t i = 0; i < request->header_count; i++) {
        if (!slice_equals_nocase(request->headers[i].name, SLICE_LITERAL("content-type")))
            continue;
        if (found)
            return false;
        found = &request->headers[i];
    }
    if (!found || found->value.len < wanted.len ||
        !slice_equals_nocase(slice_of(found->value.data, wanted.len), wanted))
        return false;
    char behind = found->value.len > wanted.len ? found->value.data[wanted.len] : ';';
    return behind == ';' || behind == ' ' || behind == '\t';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The next decoded byte at *at, which moves behind it. */
static char decode_next(struct oh_slice text, size_t *at)
{
    char c = text.data[(*at)++];
    if (c == '+')
        return ' ';
    if (c != '%' || text.len - *at < 2)
        return c;
    int high = hex_value(text.data[*at]), low = hex_value(text.data[*at + 1]);
    if (high < 0 || low < 0)
        return c;
    *at += 2;
    return (char)(high << 4 | low);
}

static bool decoded_equals(struct oh_slice text, const char *name)
{
    size_t at = 0;
    while (at < text.len)
        if (*name == '\0' || decode_next(text, &at) != *name++)
            return false;
    return *name == '\0';
}

/* Takes everything before `separator` (or all) off the front of *rest. */
static struct oh_slice take_until(struct oh_slice *rest, char separator)
{
    const char *end = rest->len > 0 ? memchr(rest->data, separator, rest->len) : NULL;
    struct oh_slice taken = slice_of(rest->data, end ? (size_t)(end - rest->data) : rest->len);
    size_t gone = taken.len + (end != NULL);
    *rest = slice_of(rest->data + gone, rest->len - gone);
    return taken;
}

enum oh_status form_field(struct oh_slice body, const char *name, struct oh_arena *arena,
                          struct oh_slice *out, struct oh_error *err)
{
    struct oh_slice found = {NULL, 0};
    while (body.len > 0) {
        struct oh_slice value = take_until(&body, '&');
        struct oh_slice field = take_until(&value, '=');
        if (!decoded_equals(field, name))
            continue;
        if (found.data)
            return oh_fail(err, OH_UNREADABLE, "the form's JSON field stands more than once");
        found = value;
    }
    if (!found.data)
        return oh_fail(err, OH_UNREADABLE, "the form has no JSON field");
    char *decoded = oh_arena_alloc(arena, found.len);
    if (!decoded)
        return oh_fail(err, OH_NO_MEMORY, "out of memory for one delivery");
    size_t len = 0;
    for (size_t at = 0; at < found.len;)
        decoded[len++] = decode_next(found, &at);
    *out = slice_of(decoded, len);
    return OH_OK;
}
