/* SPDX-License-Identifier: Apache-2.0 */
/* verify/message.h. Bytes are signed as they came: nothing is parsed and written anew but where the
 * provider itself does so, and then both ways are tried. */
#include "verify/message.h"

#include "base/encode.h"
#include "base/slice.h"
#include "body/form.h"
#include "body/text.h"
#include "verify/crypto.h"

#include <stdio.h>
#include <stdlib.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

enum { FIELDS_MAX = 256 }; /* of a form or a query that is signed in sorted order */

enum found find_header(const struct oh_request *request, const struct recipe_names *names,
                       struct oh_slice *value)
{
    for (size_t n = 0; n < names->count; n++) {
        size_t lines = 0;
        for (size_t i = 0; i < request->header_count; i++)
            if (slice_equals_nocase(request->headers[i].name, names->items[n])) {
                *value = request->headers[i].value;
                lines++;
            }
        if (lines > 0)
            return lines == 1 ? FOUND_ONE : FOUND_SEVERAL;
    }
    return FOUND_NONE;
}

/* ---- texts in the arena ---------------------------------------------------------------------- */

/* A text that grows up to a bound known before. */
struct text {
    char *data; /* NULL: memory is gone */
    size_t len;
};

static struct text text_new(const struct message_source *from, size_t max)
{
    return (struct text){from->arena ? oh_arena_alloc(from->arena, max) : NULL, 0};
}

static void put(struct text *text, struct oh_slice piece)
{
    if (text->data && piece.len > 0)
        memcpy(text->data + text->len, piece.data, piece.len);
    text->len += piece.len;
}

static bool finish(const struct text *text, struct oh_slice *out)
{
    *out = slice_of(text->data, text->len);
    return text->data != NULL;
}

bool message_join(struct oh_arena *arena, const struct oh_slice *pieces, size_t count,
                  struct oh_slice *out)
{
    size_t len = 0;
    for (size_t i = 0; i < count; i++)
        len += pieces[i].len;
    struct text text = {arena ? oh_arena_alloc(arena, len) : NULL, 0};
    for (size_t i = 0; i < count; i++)
        put(&text, pieces[i]);
    return finish(&text, out);
}

/* Percent-encodes all but letters, digits and `kept`; `space` is what a space becomes. Takes up to
 * three times the bytes. */
static void put_encoded(struct text *text, struct oh_slice from, const char *kept,
                        const char *space)
{
    for (size_t i = 0; i < from.len; i++) {
        unsigned char c = (unsigned char)from.data[i], letter = c | 0x20;
        char escape[4];
        if ((c >= '0' && c <= '9') || (letter >= 'a' && letter <= 'z') ||
            (c != 0 && strchr(kept, c))) {
            put(text, slice_of(from.data + i, 1));
        } else if (c == ' ') {
            put(text, slice_of_text(space));
        } else {
            snprintf(escape, sizeof(escape), "%%%02X", c);
            put(text, slice_of(escape, 3));
        }
    }
}

#define URI_KEPT  NODE_KEPT ";,/?:@&=+$#" /* and encodeURI */
#define NODE_KEPT "-_.!~*'()" /* what encodeURIComponent of JavaScript leaves as it is */

/* ---- parts that stand in the request --------------------------------------------------------- */

static bool part_body(const struct message_source *from, const struct recipe_part *part,
                      struct oh_slice *out)
{
    (void)part;
    *out = from->request->body;
    return true;
}

static bool part_ts(const struct message_source *from, const struct recipe_part *part,
                    struct oh_slice *out)
{
    (void)part;
    *out = from->ts;
    return from->ts.data != NULL;
}

static bool part_secret(const struct message_source *from, const struct recipe_part *part,
                        struct oh_slice *out)
{
    (void)part;
    *out = from->secret;
    return from->secret.len > 0;
}

static bool part_method(const struct message_source *from, const struct recipe_part *part,
                        struct oh_slice *out)
{
    (void)part;
    *out = from->request->method;
    return true;
}

static bool part_url(const struct message_source *from, const struct recipe_part *part,
                     struct oh_slice *out)
{
    (void)part;
    *out = from->request->url;
    return out->len > 0;
}

static bool part_literal(const struct message_source *from, const struct recipe_part *part,
                         struct oh_slice *out)
{
    (void)from;
    *out = part->text;
    return true;
}

static bool part_header(const struct message_source *from, const struct recipe_part *part,
                        struct oh_slice *out)
{
    return find_header(from->request, &part->names, out) == FOUND_ONE && out->len > 0;
}

static bool part_json(const struct message_source *from, const struct recipe_part *part,
                      struct oh_slice *out)
{
    if (!from->json)
        return false;
    const struct scan_value *value = &from->json[part->json];
    bool has_text =
        value->kind == SCAN_STRING || value->kind == SCAN_NUMBER || value->kind == SCAN_BOOL;
    *out = slice_of(value->data, value->len);
    return has_text;
}

static bool part_json_optional(const struct message_source *from, const struct recipe_part *part,
                               struct oh_slice *out)
{
    if (part_json(from, part, out))
        return true;
    *out = slice_of("", 0);
    return from->json &&
           (from->json[part->json].kind == SCAN_ABSENT || from->json[part->json].kind == SCAN_NULL);
}

static bool part_line(const struct message_source *from, const struct recipe_part *part,
                      struct oh_slice *out)
{
    struct oh_slice value, lf = SLICE_LITERAL("\n");
    const struct pointer *pointer = &from->recipe->json[part->json];
    if (!part_json_optional(from, part, &value))
        return false;
    *out = slice_of("", 0);
    if (from->json[part->json].kind == SCAN_ABSENT)
        return true;
    struct oh_slice name = pointer->tokens[pointer->count - 1].name;
    return message_join(from->arena, (struct oh_slice[]){name, lf, value, lf}, 4, out);
}

static bool part_form(const struct message_source *from, const struct recipe_part *part,
                      struct oh_slice *out)
{
    return from->arena &&
           form_field(from->request->body, part->text, from->arena, out, NULL) == OH_OK;
}

/* Braintree: the payload as it came, then with a line feed. One that could be the challenge of a
 * handshake (handshake.c) is none: anybody is given the HMAC of that. */
static bool part_braintree(const struct message_source *from, const struct recipe_part *part,
                           struct oh_slice *out)
{
    static const struct recipe_part payload = {.text = SLICE_LITERAL("bt_payload")};
    size_t hex = 0;
    (void)part;
    if (!part_form(from, &payload, out))
        return false;
    while (hex < out->len && strchr("0123456789abcdef", out->data[hex]) && out->data[hex])
        hex++;
    if (hex == out->len && hex >= 20 && hex <= 32)
        return false;
    return from->variant == 0 ||
           message_join(from->arena, (struct oh_slice[]){*out, SLICE_LITERAL("\n")}, 2, out);
}

/* ---- parts that are made --------------------------------------------------------------------- */

static bool part_sha256_body(const struct message_source *from, const struct recipe_part *part,
                             struct oh_slice *out)
{
    (void)part;
    struct text text = text_new(from, 32);
    text.len = 32;
    return finish(&text, out) &&
           EVP_Digest(from->request->body.data, from->request->body.len, (unsigned char *)text.data,
                      NULL, crypto_find_digest("SHA256"), NULL) == 1;
}

/* CRC-32 of ISO 3309 (the one of zip), in decimal: PayPal. */
static bool part_crc32_body(const struct message_source *from, const struct recipe_part *part,
                            struct oh_slice *out)
{
    (void)part;
    static const uint32_t nibbles[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac,
                                         0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
                                         0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                         0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    struct oh_slice body = from->request->body;
    uint32_t crc = ~0u;
    for (size_t i = 0; i < body.len; i++) {
        crc ^= (unsigned char)body.data[i];
        crc = crc >> 4 ^ nibbles[crc & 15];
        crc = crc >> 4 ^ nibbles[crc & 15];
    }
    struct text text = text_new(from, 12);
    if (text.data)
        text.len = (size_t)snprintf(text.data, 12, "%u", ~crc);
    return finish(&text, out);
}

/* Unisender: the signature, which has to stand in the body once, gives way to the secret. */
static bool part_body_secret(const struct message_source *from, const struct recipe_part *part,
                             struct oh_slice *out)
{
    (void)part;
    struct oh_slice body = from->request->body, mark = from->signature;
    const char *at = mark.len ? memmem(body.data, body.len, mark.data, mark.len) : NULL;
    if (!at)
        return false;
    struct oh_slice before = slice_of(body.data, (size_t)(at - body.data));
    struct oh_slice behind = slice_of(at + mark.len, body.len - before.len - mark.len);
    return !memmem(behind.data, behind.len, mark.data, mark.len) &&
           message_join(from->arena, (struct oh_slice[]){before, from->secret, behind}, 3, out);
}

/* Box: as it came, then with all that is not ASCII as \uXXXX (UTF-16, lower case). */
static bool part_body_escaped(const struct message_source *from, const struct recipe_part *part,
                              struct oh_slice *out)
{
    struct oh_slice body = from->request->body;
    size_t others = 0;
    if (from->variant == 0)
        return part_body(from, part, out);
    for (size_t i = 0; i < body.len; i++)
        others += (unsigned char)body.data[i] >= 0x80;
    if (others == 0 || !text_is_utf8(body))
        return false;
    struct text text = text_new(from, body.len + others * 6);
    for (size_t i = 0; text.data && i < body.len;) {
        unsigned char c = (unsigned char)body.data[i];
        size_t len = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
        uint32_t point = len == 1 ? c : c & (0x7fu >> len);
        for (size_t k = 1; k < len; k++)
            point = point << 6 | ((unsigned char)body.data[i + k] & 0x3f);
        char escape[13] = {(char)c};
        size_t n = 1;
        if (point >= 0x10000)
            n = (size_t)snprintf(escape, sizeof(escape), "\\u%04x\\u%04x", 0xd7c0u + (point >> 10),
                                 0xdc00u | (point & 0x3ff));
        else if (point >= 0x80)
            n = (size_t)snprintf(escape, sizeof(escape), "\\u%04x", point);
        put(&text, slice_of(escape, n));
        i += len;
    }
    return finish(&text, out);
}

/* ---- URLs ------------------------------------------------------------------------------------ */

/* A URL in pieces; each but scheme and host may be empty. */
struct url {
    struct oh_slice scheme, host, port, path; /* port with its ':' */
    struct oh_slice query;                    /* without '?' */
    bool has_query;
};

static bool url_split(struct oh_slice text, struct url *url)
{
    *url = (struct url){.query = form_query(text)};
    const char *colon = text.len > 3 ? memmem(text.data, text.len, "://", 3) : NULL;
    if (!colon)
        return false;
    const char *end = text.data + text.len;
    const char *host = colon + 3, *path = host;
    while (path < end && !strchr("/?#", *path))
        path++;
    for (const char *at = host; at < path; at++)
        if (*at == '@')
            host = at + 1; /* userinfo is never signed */
    const char *port = path;
    while (port > host && port[-1] >= '0' && port[-1] <= '9')
        port--;
    port = port > host && port[-1] == ':' ? port - 1 : path;
    const char *behind = path;
    while (behind < end && *behind != '?' && *behind != '#')
        behind++;
    url->scheme = slice_of(text.data, (size_t)(colon - text.data));
    url->host = slice_of(host, (size_t)(port - host));
    url->port = slice_of(port, (size_t)(path - port));
    url->path = slice_of(path, (size_t)(behind - path));
    url->has_query = behind < end && *behind == '?';
    return true;
}

static bool part_url_no_query(const struct message_source *from, const struct recipe_part *part,
                              struct oh_slice *out)
{
    (void)part;
    size_t len = 0;
    struct oh_slice url = from->request->url;
    while (len < url.len && url.data[len] != '?' && url.data[len] != '#')
        len++;
    *out = slice_of(url.data, len);
    return len > 0;
}

/* HubSpot's page on validating requests decodes these before it signs; its SDKs do not. */
static bool part_url_hubspot(const struct message_source *from, const struct recipe_part *part,
                             struct oh_slice *out)
{
    static const char decoded[] = ":/?@!$'()*,;";
    struct oh_slice url = from->request->url;
    if (from->variant == 0)
        return part_url(from, part, out);
    struct text text = text_new(from, url.len);
    for (size_t i = 0; i < url.len; i++) {
        uint8_t byte = 0;
        size_t n;
        bool escape = url.data[i] == '%' && url.len - i > 2 &&
                      hex_decode(slice_of(url.data + i + 1, 2), true, &byte, 1, &n) && byte &&
                      strchr(decoded, byte);
        char c = escape ? (char)byte : url.data[i];
        put(&text, slice_of(&c, 1));
        i += escape ? 2 : 0;
    }
    return text.len < url.len && finish(&text, out);
}

/* The query as querystring.parse and stringify of Node leave it, which old signatures of Twilio's
 * have: decoded, and encoded again the one way. */
static void put_legacy_query(const struct message_source *from, struct text *text,
                             struct oh_slice query)
{
    struct oh_slice name, value;
    for (bool first = true; form_next(&query, &name, &value); first = false) {
        if (!form_decode(name, from->arena, &name) || !form_decode(value, from->arena, &value))
            return;
        put(text, slice_of("&", !first));
        put_encoded(text, name, NODE_KEPT, "%20");
        put(text, SLICE_LITERAL("="));
        put_encoded(text, value, NODE_KEPT, "%20");
    }
}

/* Variants: bit 0 = with a port, bit 1 = the legacy query. */
static bool part_url_twilio(const struct message_source *from, const struct recipe_part *part,
                            struct oh_slice *out)
{
    (void)part;
    struct url url;
    if (!url_split(from->request->url, &url) || (from->variant & 2 && !url.has_query))
        return false;
    struct oh_slice standard = slice_equals(url.scheme, SLICE_LITERAL("https"))
                                   ? SLICE_LITERAL(":443")
                                   : SLICE_LITERAL(":80");
    struct text text = text_new(from, 3 * from->request->url.len + 8);
    put(&text, url.scheme);
    put(&text, SLICE_LITERAL("://"));
    put(&text, url.host);
    if (from->variant & 1)
        put(&text, url.port.len > 0 ? url.port : standard);
    put(&text, url.path);
    put(&text, slice_of("?", url.has_query));
    if (from->variant & 2)
        put_legacy_query(from, &text, url.query);
    else
        put(&text, url.query);
    return finish(&text, out);
}

/* ---- sorted fields --------------------------------------------------------------------------- */

struct field {
    struct oh_slice name, value; /* decoded */
};

static int slice_order(struct oh_slice a, struct oh_slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len ? memcmp(a.data, b.data, len) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int field_order(const void *left, const void *right)
{
    const struct field *a = left, *b = right;
    int order = slice_order(a->name, b->name);
    return order ? order : slice_order(a->value, b->value);
}

/* The fields of `form`, decoded, sorted by name and value; *bytes is the sum of their lengths.
 * False when they are too many or memory is gone. */
static bool sorted_fields(const struct message_source *from, struct oh_slice form,
                          struct field **fields, size_t *count, size_t *bytes)
{
    struct oh_slice name, value;
    *count = *bytes = 0;
    *fields = from->arena ? oh_arena_alloc(from->arena, FIELDS_MAX * sizeof(**fields)) : NULL;
    while (*fields && form_next(&form, &name, &value)) {
        struct field *field = &(*fields)[*count];
        if (++*count == FIELDS_MAX || !form_decode(name, from->arena, &field->name) ||
            !form_decode(value, from->arena, &field->value))
            return false;
        *bytes += field->name.len + field->value.len;
    }
    if (*fields)
        qsort(*fields, *count, sizeof(**fields), field_order);
    return *fields != NULL;
}

/* True when the body is the one that `bodySHA256` of the URL names; *named: whether it names one.
 */
static bool is_body_of_url(const struct message_source *from, bool *named)
{
    struct oh_slice hex, body = from->request->body;
    uint8_t given[32], digest[32];
    size_t len;
    *named = from->arena && form_field(form_query(from->request->url), SLICE_LITERAL("bodySHA256"),
                                       from->arena, &hex, NULL) == OH_OK;
    return *named && hex_decode(hex, true, given, sizeof(given), &len) && len == sizeof(given) &&
           EVP_Digest(body.data, body.len, digest, NULL, crypto_find_digest("SHA256"), NULL) == 1 &&
           CRYPTO_memcmp(given, digest, sizeof(digest)) == 0;
}

/* Twilio and Mandrill: names and values without anything between; equal fields count once. A body
 * that is no form is bound by `bodySHA256` of the URL, else it has to be empty; a URL that has it
 * goes with no other body, none at all among them. */
static bool part_form_sorted(const struct message_source *from, const struct recipe_part *part,
                             struct oh_slice *out)
{
    (void)part;
    const struct oh_request *request = from->request;
    struct field *fields;
    size_t count, bytes;
    *out = slice_of("", 0);
    bool named, is_named = is_body_of_url(from, &named);
    if (named && !is_named)
        return false;
    if (!form_is_form(request))
        return is_named || request->body.len == 0;
    if (!sorted_fields(from, request->body, &fields, &count, &bytes))
        return false;
    struct text text = text_new(from, bytes);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && field_order(&fields[i - 1], &fields[i]) == 0)
            continue;
        put(&text, fields[i].name);
        put(&text, fields[i].value);
    }
    return finish(&text, out);
}

/* MessageBird: the query's fields sorted and encoded the way of urllib and url.Values. */
static bool part_query_sorted(const struct message_source *from, const struct recipe_part *part,
                              struct oh_slice *out)
{
    (void)part;
    struct field *fields;
    size_t count, bytes;
    if (!sorted_fields(from, form_query(from->request->url), &fields, &count, &bytes))
        return false;
    struct text text = text_new(from, 3 * bytes + 2 * count);
    for (size_t i = 0; i < count; i++) {
        put(&text, slice_of("&", i > 0));
        put_encoded(&text, fields[i].name, "-_.~", "+");
        put(&text, SLICE_LITERAL("="));
        put_encoded(&text, fields[i].value, "-_.~", "+");
    }
    return finish(&text, out);
}

/* Plivo v3, as its SDKs have it: the URL without query, '?' and the sorted query, '.' and the
 * sorted form; what stands between depends on which of them there are. */
static bool part_plivo(const struct message_source *from, const struct recipe_part *part,
                       struct oh_slice *out)
{
    struct field *query, *form;
    size_t query_count, form_count, query_bytes, form_bytes;
    struct oh_slice base;
    bool post = slice_equals(from->request->method, SLICE_LITERAL("POST"));
    struct oh_slice body = post ? from->request->body : slice_of("", 0);
    if (!part_url_no_query(from, part, &base) ||
        !sorted_fields(from, form_query(from->request->url), &query, &query_count, &query_bytes) ||
        !sorted_fields(from, body, &form, &form_count, &form_bytes))
        return false;
    struct text text = text_new(from, base.len + query_bytes + 2 * query_count + form_bytes + 2);
    put(&text, base);
    put(&text, slice_of("?", query_count > 0 || form_count > 0));
    for (size_t i = 0; i < query_count; i++) {
        put(&text, slice_of("&", i > 0));
        put(&text, query[i].name);
        put(&text, SLICE_LITERAL("="));
        put(&text, query[i].value);
    }
    put(&text, slice_of(".", query_count > 0 && form_count > 0));
    for (size_t i = 0; i < form_count; i++) {
        put(&text, form[i].name);
        put(&text, form[i].value);
    }
    return finish(&text, out);
}

/* Contentful's canonical request: METHOD, path with encoded query, the signed headers as
 * "name:value" joined by ';' in order of their names, body; a line each. */
static bool part_contentful(const struct message_source *from, const struct recipe_part *part,
                            struct oh_slice *out)
{
    (void)part;
    enum { HEADERS_MAX = 64 };
    const struct oh_slice list_name = SLICE_LITERAL("x-contentful-signed-headers");
    const struct recipe_names list = {&list_name, 1};
    const struct oh_request *request = from->request;
    struct oh_slice rest, lf = SLICE_LITERAL("\n");
    struct field headers[HEADERS_MAX];
    size_t count = 0, bytes = 0;
    struct url url;
    bool has_list = false, has_ts = false;
    if (find_header(request, &list, &rest) != FOUND_ONE || !url_split(request->url, &url))
        return false;
    while (rest.len > 0 && count < HEADERS_MAX) {
        const char *comma = memchr(rest.data, ',', rest.len);
        size_t len = comma ? (size_t)(comma - rest.data) : rest.len;
        struct oh_slice name = slice_trim(slice_of(rest.data, len));
        const struct recipe_names one = {&name, 1};
        headers[count].name = name;
        if (find_header(request, &one, &headers[count].value) != FOUND_ONE)
            return false;
        has_list |= slice_equals(name, list_name);
        has_ts |= slice_equals(name, from->recipe->timestamp.names.items[0]);
        bytes += name.len + headers[count++].value.len + 2;
        len += comma != NULL;
        rest = slice_of(rest.data + len, rest.len - len);
    }
    /* What decides about the signature has to be signed itself. */
    if (rest.len > 0 || !has_list || !has_ts)
        return false;
    qsort(headers, count, sizeof(headers[0]), field_order);
    struct text text =
        text_new(from, request->method.len + 9 * request->url.len + bytes + request->body.len + 4);
    put(&text, request->method);
    put(&text, lf);
    /* encodeURI of a path whose query is encoded already: its '%' become "%25". */
    struct text query = text_new(from, 3 * url.query.len);
    if (!query.data)
        return false;
    put_encoded(&query, url.query, NODE_KEPT, "%20");
    put_encoded(&text, url.path.len > 0 ? url.path : SLICE_LITERAL("/"), URI_KEPT, "%20");
    put(&text, slice_of("?", url.has_query));
    put_encoded(&text, slice_of(query.data, query.len), URI_KEPT, "%20");
    put(&text, lf);
    for (size_t i = 0; i < count; i++) {
        put(&text, slice_of(";", i > 0));
        put(&text, headers[i].name);
        put(&text, SLICE_LITERAL(":"));
        put(&text, headers[i].value);
    }
    put(&text, lf);
    put(&text, request->body);
    return finish(&text, out);
}

/* ---- the table ------------------------------------------------------------------------------- */

static const struct {
    bool (*make)(const struct message_source *from, const struct recipe_part *part,
                 struct oh_slice *out);
    unsigned variants;
} parts[] = {
    [RECIPE_PART_BODY] = {part_body, 1},
    [RECIPE_PART_TS] = {part_ts, 1},
    [RECIPE_PART_SECRET] = {part_secret, 1},
    [RECIPE_PART_METHOD] = {part_method, 1},
    [RECIPE_PART_URL] = {part_url, 1},
    [RECIPE_PART_URL_NO_QUERY] = {part_url_no_query, 1},
    [RECIPE_PART_URL_HUBSPOT] = {part_url_hubspot, 2},
    [RECIPE_PART_URL_TWILIO] = {part_url_twilio, 4},
    [RECIPE_PART_FORM_SORTED] = {part_form_sorted, 1},
    [RECIPE_PART_QUERY_SORTED] = {part_query_sorted, 1},
    [RECIPE_PART_BODY_ESCAPED] = {part_body_escaped, 2},
    [RECIPE_PART_BODY_SECRET] = {part_body_secret, 1},
    [RECIPE_PART_BRAINTREE] = {part_braintree, 2},
    [RECIPE_PART_PLIVO] = {part_plivo, 1},
    [RECIPE_PART_CONTENTFUL] = {part_contentful, 1},
    [RECIPE_PART_SHA256_BODY] = {part_sha256_body, 1},
    [RECIPE_PART_CRC32_BODY] = {part_crc32_body, 1},
    [RECIPE_PART_LITERAL] = {part_literal, 1},
    [RECIPE_PART_HEADER] = {part_header, 1},
    [RECIPE_PART_JSON] = {part_json, 1},
    [RECIPE_PART_JSON_OPTIONAL] = {part_json_optional, 1},
    [RECIPE_PART_LINE] = {part_line, 1},
    [RECIPE_PART_FORM] = {part_form, 1},
};

unsigned message_variants(const struct oh_recipe *recipe)
{
    unsigned most = 1;
    for (size_t i = 0; i < recipe->part_count; i++)
        if (parts[recipe->parts[i].kind].variants > most)
            most = parts[recipe->parts[i].kind].variants;
    return most;
}

bool message_build(const struct message_source *from, struct message *out)
{
    out->count = from->recipe->part_count;
    for (size_t i = 0; i < out->count; i++) {
        const struct recipe_part *part = &from->recipe->parts[i];
        if (!parts[part->kind].make(from, part, &out->parts[i]))
            return false;
    }
    return true;
}
