/* SPDX-License-Identifier: Apache-2.0 */
/* event/shape.h. What is written here is only read by the scan and kept as payload; keys of the
 * hash rung come from the bytes as they were sent. */
#include "event/shape.h"

#include "base/encode.h"
#include "base/slice.h"
#include "body/form.h"

enum { FORM_FIELDS_MAX = 1000, XML_TEXT_MAX = 1024 };

static enum oh_status no_memory(struct oh_error *err)
{
    return oh_fail(err, OH_NO_MEMORY, "out of memory for one delivery");
}

/* JSON text that grows up to a bound known before. */
struct writer {
    char *data;
    size_t len;
};

static void put(struct writer *to, struct oh_slice text)
{
    if (text.len > 0)
        memcpy(to->data + to->len, text.data, text.len);
    to->len += text.len;
}

/* A JSON string of `text`: at most six bytes for each of its own, and two quotes. Bytes that are no
 * UTF-8 stay, and the scan finds them. */
static void put_string(struct writer *to, struct oh_slice text)
{
    static const char digits[] = "0123456789abcdef";
    put(to, SLICE_LITERAL("\""));
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        char escape[] = {'\\', 'u', '0', '0', digits[c >> 4], digits[c & 15]};
        if (c < 0x20) {
            put(to, slice_of(escape, sizeof(escape)));
            continue;
        }
        if (c == '"' || c == '\\')
            put(to, SLICE_LITERAL("\\"));
        put(to, slice_of(text.data + i, 1));
    }
    put(to, SLICE_LITERAL("\""));
}

#define STRING_BYTES(len) (6 * (len) + 2)

/* ---- forms ----------------------------------------------------------------------------------- */

struct field {
    struct oh_slice name, value;
    bool is_written;
};

/* One member; the fields of one name are an array. */
static void put_member(struct writer *to, struct field *fields, size_t count, size_t first)
{
    size_t same = 0, written = 0;
    for (size_t i = first; i < count; i++)
        same += slice_equals(fields[i].name, fields[first].name);
    put_string(to, fields[first].name);
    put(to, slice_of(":[", same > 1 ? 2 : 1));
    for (size_t i = first; i < count; i++) {
        if (!slice_equals(fields[i].name, fields[first].name))
            continue;
        put(to, slice_of(",", written++ > 0));
        put_string(to, fields[i].value);
        fields[i].is_written = true;
    }
    put(to, slice_of("]", same > 1));
}

/* An object of the form's fields, in the order of their names' first appearance. */
static enum oh_status form_object(struct oh_slice body, struct oh_arena *arena,
                                  struct oh_slice *json, struct oh_error *err)
{
    struct field *fields = oh_arena_alloc(arena, FORM_FIELDS_MAX * sizeof(*fields));
    struct oh_slice rest = body, name, value;
    size_t count = 0, bytes = 2;
    while (fields && form_next(&rest, &name, &value)) {
        if (count == FORM_FIELDS_MAX)
            return oh_fail(err, OH_UNREADABLE, "more than %d fields in one form", FORM_FIELDS_MAX);
        fields[count] = (struct field){.is_written = false};
        if (!form_decode(name, arena, &fields[count].name) ||
            !form_decode(value, arena, &fields[count].value))
            return no_memory(err);
        bytes += STRING_BYTES(fields[count].name.len) + STRING_BYTES(fields[count].value.len) + 4;
        count++;
    }
    struct writer to = {fields ? oh_arena_alloc(arena, bytes) : NULL, 0};
    if (!to.data)
        return no_memory(err);
    put(&to, SLICE_LITERAL("{"));
    for (size_t i = 0; i < count; i++) {
        if (fields[i].is_written)
            continue;
        put(&to, slice_of(",", i > 0));
        put_member(&to, fields, count, i);
    }
    put(&to, SLICE_LITERAL("}"));
    *json = slice_of(to.data, to.len);
    return OH_OK;
}

static bool has_field(struct oh_slice body, const char *wanted)
{
    struct oh_slice name, value;
    while (form_next(&body, &name, &value))
        if (form_name_is(name, slice_of_text(wanted)))
            return true;
    return false;
}

/* ---- XML ------------------------------------------------------------------------------------- */

/* The text of the first element `name` without attributes but its type; data NULL = there is none.
 */
static struct oh_slice xml_text(struct oh_slice xml, struct oh_slice name)
{
    for (size_t at = 0; at + name.len + 2 < xml.len; at++) {
        if (xml.data[at] != '<' || memcmp(xml.data + at + 1, name.data, name.len) != 0)
            continue;
        char behind = xml.data[at + 1 + name.len];
        if (behind != '>' && behind != ' ')
            continue;
        const char *end = xml.data + xml.len;
        const char *from = memchr(xml.data + at, '>', xml.len - at);
        const char *to = from ? memchr(from, '<', (size_t)(end - from)) : NULL;
        return to ? slice_of(from + 1, (size_t)(to - from - 1)) : slice_of(NULL, 0);
    }
    return slice_of(NULL, 0);
}

/* Base64 in lines, as MIME has it. */
static enum oh_status decode_lines(struct oh_slice text, struct oh_arena *arena,
                                   struct oh_slice *out, struct oh_error *err)
{
    char *symbols = oh_arena_alloc(arena, text.len);
    uint8_t *bytes = oh_arena_alloc(arena, text.len);
    size_t count = 0, len;
    if (!symbols || !bytes)
        return no_memory(err);
    for (size_t i = 0; i < text.len; i++)
        if (text.data[i] != '\n' && text.data[i] != '\r')
            symbols[count++] = text.data[i];
    if (!base64_decode(slice_of(symbols, count), BASE64_PADDING_OPTIONAL, bytes, text.len, &len) ||
        len == 0)
        return oh_fail(err, OH_UNREADABLE, "the form's field holds nothing in base64");
    *out = slice_of((char *)bytes, len);
    return OH_OK;
}

/* An object of the elements that the mapping wants. */
static enum oh_status xml_object(const struct scan_plan *plan, struct oh_slice xml,
                                 struct oh_arena *arena, struct oh_slice *json,
                                 struct oh_error *err)
{
    size_t bytes = 2, members = 0;
    for (size_t i = 0; i < plan->want_count; i++)
        bytes += STRING_BYTES(POINTER_BYTES_MAX) + STRING_BYTES(XML_TEXT_MAX) + 2;
    struct writer to = {oh_arena_alloc(arena, bytes), 0};
    if (!to.data)
        return no_memory(err);
    put(&to, SLICE_LITERAL("{"));
    for (size_t i = 0; i < plan->want_count; i++) {
        const struct pointer *pointer = &plan->wants[i].pointer;
        struct oh_slice text = {NULL, 0};
        if (pointer->count == 1)
            text = xml_text(xml, pointer->tokens[0].name);
        if (!text.data || text.len > XML_TEXT_MAX)
            continue;
        put(&to, slice_of(",", members++ > 0));
        put_string(&to, pointer->tokens[0].name);
        put(&to, SLICE_LITERAL(":"));
        put_string(&to, text);
    }
    put(&to, SLICE_LITERAL("}"));
    *json = slice_of(to.data, to.len);
    return OH_OK;
}

/* ---- choosing -------------------------------------------------------------------------------- */

/* The claims of a verified token that is the body. */
static enum oh_status token_claims(struct oh_slice token, struct oh_arena *arena,
                                   struct oh_slice *json, struct oh_error *err)
{
    const char *first = token.len ? memchr(token.data, '.', token.len) : NULL;
    const char *second =
        first ? memchr(first + 1, '.', token.len - (size_t)(first + 1 - token.data)) : NULL;
    uint8_t *bytes = oh_arena_alloc(arena, token.len);
    size_t len;
    if (!bytes)
        return no_memory(err);
    if (!second || !base64_decode(slice_of(first + 1, (size_t)(second - first - 1)),
                                  BASE64_URL | BASE64_PADDING_OPTIONAL, bytes, token.len, &len))
        return oh_fail(err, OH_UNREADABLE, "the body is no token");
    *json = slice_of((char *)bytes, len);
    return OH_OK;
}

/* Some senders of JSON leave the Content-Type at a form's. */
static bool looks_like_json(struct oh_slice body)
{
    body = slice_trim(body);
    return body.len > 0 && (body.data[0] == '{' || body.data[0] == '[');
}

enum oh_status shape_body(const struct oh_recipe *recipe, const struct oh_mapping *mapping,
                          const struct oh_request *request, struct oh_arena *arena,
                          struct shape *out, struct oh_error *err)
{
    const struct recipe_events *events = &recipe->events;
    struct oh_slice body = request->body, text;
    *out = (struct shape){body, {NULL, 0}, true};
    if (recipe->algorithm == RECIPE_JWT && recipe->signature.in == RECIPE_IN_BODY)
        return token_claims(body, arena, &out->json, err);
    if (body.len == 0 || !form_is_form(request) || looks_like_json(body))
        return OH_OK;
    if (events->form_json_field && has_field(body, events->form_json_field))
        return form_field(body, slice_of_text(events->form_json_field), arena, &out->json, err);
    out->raw = body;
    if (!events->form_xml_field)
        return form_object(body, arena, &out->json, err);
    enum oh_status status =
        form_field(body, slice_of_text(events->form_xml_field), arena, &text, err);
    if (!status)
        status = decode_lines(text, arena, &out->raw, err);
    out->has_payload = false;
    return status ? status : xml_object(&mapping->scan, out->raw, arena, &out->json, err);
}
