/* SPDX-License-Identifier: Apache-2.0 */
/* What cannot be captured is kept byte for byte: one call of quarantine_v1, and the months. Rare
 * work, so its parameters travel as text. */
#include "store/room.h"

#include "base/encode.h"
#include "base/slice.h"

#include <jansson.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>

/* Parts of header and query names whose values are credentials; they are stored as ****. */
static const char *const credential_words[] = {"auth",     "cookie", "token", "secret",
                                               "password", "passwd", "key",   "session"};

static bool contains_nocase(struct oh_slice text, const char *word)
{
    size_t len = strlen(word);
    for (size_t i = 0; i + len <= text.len; i++)
        if (strncasecmp(text.data + i, word, len) == 0)
            return true;
    return false;
}

bool store_names_credential(struct oh_slice name)
{
    for (size_t i = 0; i < sizeof(credential_words) / sizeof(credential_words[0]); i++)
        if (contains_nocase(name, credential_words[i]))
            return true;
    return false;
}

/* Bytes as a JSON string: latin-1 where they are not UTF-8, so that nothing is refused. */
static json_t *json_of_slice(struct oh_slice value)
{
    json_t *text = json_stringn(value.data ? value.data : "", value.len);
    if (text && !memchr(value.data ? value.data : "", '\0', value.len))
        return text;
    json_decref(text);
    char *wide = malloc(value.len * 2 + 1);
    if (!wide)
        return NULL;
    size_t n = 0;
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.data[i];
        if (c == 0)
            continue; /* jsonb has no NUL */
        if (c >= 0x80) {
            wide[n++] = (char)(0xc0 | (c >> 6));
            wide[n++] = (char)(0x80 | (c & 0x3f));
        } else {
            wide[n++] = (char)c;
        }
    }
    text = json_stringn(wide, n);
    free(wide);
    return text;
}

/* {"name": ["value", …], …}: repeated lines stay apart. malloc'ed, NULL when memory is gone. */
static char *format_headers(const struct oh_request *request)
{
    json_t *object = json_object();
    for (size_t i = 0; object && i < request->header_count; i++) {
        const struct oh_header *header = &request->headers[i];
        json_t *name = json_of_slice(header->name);
        if (!name)
            continue;
        json_t *values = json_object_get(object, json_string_value(name));
        if (!values) {
            values = json_array();
            json_object_set_new(object, json_string_value(name), values);
        }
        json_array_append_new(values, store_names_credential(header->name)
                                          ? json_string("****")
                                          : json_of_slice(header->value));
        json_decref(name);
    }
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return text;
}

static void put_printable(FILE *out, const char *from, const char *to)
{
    for (; from < to; from++)
        fputc(*from > 0x20 && *from < 0x7f ? *from : '?', out);
}

char *store_mask_url(struct oh_slice url)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    const char *at = url.data ? url.data : "", *end = at + url.len;
    const char *query = memchr(at, '?', url.len);
    const char *head_end = query ? query + 1 : end;
    const char *host = memmem(at, (size_t)(head_end - at), "://", 3);
    if (host) {
        host += 3;
        const char *path = memchr(host, '/', (size_t)(head_end - host));
        const char *user_end = memrchr(host, '@', (size_t)((path ? path : head_end) - host));
        if (user_end) {
            put_printable(out, at, host);
            fputs("****", out);
            at = user_end;
        }
    }
    put_printable(out, at, head_end);
    for (at = head_end; at < end;) {
        const char *amp = memchr(at, '&', (size_t)(end - at)), *stop = amp ? amp + 1 : end;
        const char *equals = memchr(at, '=', (size_t)(stop - at));
        if (equals && store_names_credential(slice_of(at, (size_t)(equals - at)))) {
            put_printable(out, at, equals + 1);
            fputs(amp ? "****&" : "****", out);
        } else {
            put_printable(out, at, stop);
        }
        at = stop;
    }
    return fclose(out) == 0 ? text : NULL;
}

/* "\x" and hex: bytea's text form. malloc'ed. */
static char *format_bytea(const void *bytes, size_t len)
{
    char *text = malloc(HEX_BYTES(len) + 3);
    if (!text)
        return NULL;
    memcpy(text, "\\x", 2);
    hex_encode(bytes, len, text + 2);
    text[HEX_BYTES(len) + 2] = '\0';
    return text;
}

enum store_action store_quarantine(struct store *store, const struct delivery *delivery,
                                   struct oh_slice raw, const char *reason,
                                   int64_t deadline_mono_us, struct store_error *error)
{
    const struct oh_request *request = &delivery->request;
    unsigned char digest[SHA256_DIGEST_LENGTH];
    SHA256((const unsigned char *)(raw.data ? raw.data : ""), raw.len, digest);
    char method[16];
    snprintf(method, sizeof(method), "%.*s", (int)request->method.len, request->method.data);
    char *url = store_mask_url(request->url), *headers = format_headers(request);
    char *body = format_bytea(raw.data, raw.len), *sha256 = format_bytea(digest, sizeof(digest));
    enum store_action action = STORE_STOP_INTAKE;
    if (!url || !headers || !body || !sha256) {
        store_set_error(error, "53200", "out of memory in the gateway");
        goto out;
    }
    const char *values[] = {delivery->source->name,
                            delivery->source->provider,
                            reason,
                            method,
                            url,
                            headers,
                            body,
                            sha256};
    action = store_query(store,
                         "/* quarantine_v1 */ SELECT quarantine_v1($1, $2, $3, $4, $5, $6::jsonb, "
                         "$7::bytea, $8::bytea)",
                         8, values, deadline_mono_us, NULL, error);
out:
    free(url);
    free(headers);
    free(body);
    free(sha256);
    return action;
}

enum store_action store_make_months(struct store *store, int ahead, int64_t deadline_mono_us,
                                    struct store_error *error)
{
    char number[16];
    snprintf(number, sizeof(number), "%d", ahead);
    const char *values[] = {number};
    enum store_action action =
        store_query(store, "/* oncehook_make_months */ SELECT oncehook_make_months($1::int)", 1,
                    values, deadline_mono_us, NULL, error);
    if (action != STORE_COMMITTED && action != STORE_RECONNECT)
        error->part = "database (no month for new events)";
    return action;
}
