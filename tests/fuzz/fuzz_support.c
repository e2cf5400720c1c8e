/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_support.h: reads inputs as tests/fuzz/seeds writes them. */
#include "fuzz_support.h"

#include <stdio.h>
#include <stdlib.h>

void demand(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "broken promise: %s\n", what);
        abort();
    }
}

const struct oh_catalog *input_catalog(void)
{
    static struct oh_catalog *catalog;
    struct oh_error err = {.text = ""};
    if (!catalog)
        demand(oh_catalog_new(&catalog, &err) == OH_OK, err.text);
    return catalog;
}

static struct oh_slice take(struct oh_slice *rest, char separator)
{
    const char *end = rest->len > 0 ? memchr(rest->data, separator, rest->len) : NULL;
    size_t len = end ? (size_t)(end - rest->data) : rest->len, gone = len + (end != NULL);
    struct oh_slice taken = slice_of(rest->data, len);
    *rest = slice_of(rest->data + gone, rest->len - gone);
    return taken;
}

static const struct oh_recipe *choose(struct oh_slice provider, struct oh_slice scheme)
{
    char names[2][64];
    const struct oh_catalog *catalog = input_catalog();
    snprintf(names[0], sizeof(names[0]), "%.*s", (int)provider.len, provider.data);
    snprintf(names[1], sizeof(names[1]), "%.*s", (int)scheme.len, scheme.data);
    const struct oh_recipe *found = oh_catalog_find(catalog, names[0], names[1]);
    size_t hash = 0;
    for (size_t i = 0; i < provider.len; i++)
        hash = hash * 31 + (unsigned char)provider.data[i];
    return found ? found : oh_catalog_at(catalog, hash % oh_catalog_count(catalog));
}

static bool take_word(struct oh_slice *line, const char *word)
{
    struct oh_slice prefix = slice_of_text(word);
    if (!slice_has_prefix(*line, prefix))
        return false;
    *line = slice_of(line->data + prefix.len, line->len - prefix.len);
    return true;
}

static struct oh_slice with_feeds(struct oh_slice text, struct oh_arena *arena)
{
    char *copy = oh_arena_alloc(arena, text.len);
    for (size_t i = 0; copy && i < text.len; i++)
        copy[i] = (char)(text.data[i] == 0x1f ? '\n' : text.data[i]);
    return slice_of(copy, copy ? text.len : 0);
}

static void read_line(struct oh_slice line, struct oh_arena *arena, struct input *out)
{
    if (take_word(&line, "key ")) {
        if (out->key_count < INPUT_KEYS_MAX)
            out->keys[out->key_count++] = with_feeds(line, arena);
    } else if (take_word(&line, "cert ")) {
        if (out->certificate_count == INPUT_KEYS_MAX)
            return;
        out->urls[out->certificate_count] = take(&line, ' ');
        out->certificates[out->certificate_count++] = with_feeds(line, arena);
    } else if (take_word(&line, "token ")) {
        out->token = line;
    } else if (slice_equals(line, SLICE_LITERAL("armed"))) {
        out->armed = true;
    } else if (line.len > 0 && line.data[0] >= 'A' && line.data[0] <= 'Z' &&
               !out->request.url.data) {
        out->request.method = take(&line, ' ');
        out->request.url = line;
    } else if (out->request.header_count < INPUT_HEADERS_MAX) {
        struct oh_slice name = take(&line, ':');
        out->headers[out->request.header_count++] = (struct oh_header){name, slice_trim(line)};
    }
}

bool input_read(const uint8_t *data, size_t size, struct oh_arena *arena, struct input *out)
{
    struct oh_slice rest = slice_of((const char *)data, size), line = take(&rest, '\n');
    *out = (struct input){.provider = take(&line, ' ')};
    out->recipe = choose(out->provider, take(&line, ' '));
    for (size_t i = 0; i < line.len && i < 12 && line.data[i] >= '0' && line.data[i] <= '9'; i++)
        out->now_s = out->now_s * 10 + line.data[i] - '0';
    while (rest.len > 0 && (line = take(&rest, '\n')).len > 0)
        read_line(line, arena, out);
    out->request.headers = out->headers;
    out->request.body = slice_of(rest.data ? rest.data : "", rest.len);
    return oh_arena_bytes(arena) > 0;
}

void check_event(const struct oh_event *e, int64_t now_us)
{
    demand(e->key.data && e->key.len > 0 && e->key.len <= OH_KEY_BYTES_MAX, "key length");
    demand(!memchr(e->key.data, 0, e->key.len), "NUL in key");
    demand(e->provider_type.len <= OH_EVENT_TYPE_MAX, "type length");
    demand(e->type < OH_EVENT_TYPE_COUNT, "type");
    demand(e->occurred_at_us == now_us || (e->occurred_at_us >= INT64_C(946684800000000) &&
                                           e->occurred_at_us <= now_us + INT64_C(86400000000)),
           "time");
    demand(e->raw.data && e->raw.len > 0, "raw");
    demand(!e->payload.data || slice_equals(e->payload, e->raw) || e->payload.len > 0, "payload");
}
