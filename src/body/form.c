/* SPDX-License-Identifier: Apache-2.0 */
/* body/form.h: one way to take fields off, one way to decode. */
#include "body/form.h"

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

bool form_name_is(struct oh_slice text, struct oh_slice name)
{
    size_t at = 0, n = 0;
    while (at < text.len)
        if (n == name.len || decode_next(text, &at) != name.data[n++])
            return false;
    return n == name.len;
}

/* Takes everything before `separator` (or all) off the front of *rest. */
static struct oh_slice take_until(struct oh_slice *rest, char separator)
{
    if (rest->len == 0) /* and perhaps without data, to which nothing may be added */
        return *rest;
    const char *end = memchr(rest->data, separator, rest->len);
    struct oh_slice taken = slice_of(rest->data, end ? (size_t)(end - rest->data) : rest->len);
    size_t gone = taken.len + (end != NULL);
    *rest = slice_of(rest->data + gone, rest->len - gone);
    return taken;
}

struct oh_slice form_query(struct oh_slice url)
{
    url = take_until(&url, '#');
    take_until(&url, '?');
    return url;
}

bool form_next(struct oh_slice *rest, struct oh_slice *name, struct oh_slice *value)
{
    while (rest->len > 0) {
        *value = take_until(rest, '&');
        *name = take_until(value, '=');
        if (name->len > 0 || value->len > 0)
            return true;
    }
    return false;
}

bool form_decode(struct oh_slice text, struct oh_arena *arena, struct oh_slice *out)
{
    char *decoded = oh_arena_alloc(arena, text.len);
    size_t len = 0;
    for (size_t at = 0; decoded && at < text.len;)
        decoded[len++] = decode_next(text, &at);
    *out = slice_of(decoded, len);
    return decoded != NULL;
}

enum oh_status form_field(struct oh_slice form, struct oh_slice name, struct oh_arena *arena,
                          struct oh_slice *out, struct oh_error *err)
{
    struct oh_slice own, value, found = {NULL, 0};
    while (form_next(&form, &own, &value)) {
        if (!form_name_is(own, name))
            continue;
        if (found.data)
            return oh_fail(err, OH_UNREADABLE, "the form's field stands more than once");
        found = slice_of(value.data ? value.data : "", value.len);
    }
    if (!found.data)
        return oh_fail(err, OH_UNREADABLE, "the form has no such field");
    return form_decode(found, arena, out)
               ? OH_OK
               : oh_fail(err, OH_NO_MEMORY, "out of memory for one delivery");
}
