/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/vector_support.h: recorded JSON as the engine takes it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "vector_support.h"

#include "base/encode.h"
#include "base/slice.h"

#include <stdlib.h>

json_t *vectors_load(void)
{
    json_t *list = json_load_file(VECTORS, JSON_ALLOW_NUL, NULL);
    assert_true(json_array_size(list) > 900);
    return list;
}

static struct oh_slice text_of(const json_t *text)
{
    return slice_of(json_string_value(text), json_string_length(text));
}

static void add_header(struct vector *vector, const char *name, const json_t *value)
{
    assert_true(vector->request.header_count < VECTOR_HEADERS_MAX);
    vector->headers[vector->request.header_count++] =
        (struct oh_header){slice_of_text(name), slice_trim(text_of(value))};
}

static void add_secret(struct vector *vector, struct oh_slice secret)
{
    assert_true(vector->secret_count < VECTOR_SECRETS_MAX);
    vector->secrets[vector->secret_count++] = secret;
}

static void read_secrets(const json_t *item, struct oh_arena *arena, struct vector *out)
{
    static const char *const members[] = {"secret", "public_key"};
    const json_t *value;
    json_t *key;
    const char *name;
    size_t i;
    for (i = 0; i < 2; i++)
        if (json_is_string(value = json_object_get(item, members[i])))
            add_secret(out, text_of(value));
    json_array_foreach(json_object_get(item, "secrets"), i, value) add_secret(out, text_of(value));
    json_object_foreach(json_object_get(item, "keys"), name, key)
    {
        char *text = json_dumps(key, JSON_COMPACT);
        size_t len = strlen(text);
        char *copy = oh_arena_alloc(arena, len + 1);
        assert_non_null(copy);
        memcpy(copy, text, len + 1);
        free(text);
        add_secret(out, slice_of(copy, len));
    }
}

void vector_read(const struct oh_catalog *catalog, const json_t *item, struct oh_arena *arena,
                 struct vector *out)
{
    const json_t *base64 = json_object_get(item, "body_base64"), *value, *line;
    const char *name;
    size_t i;
    *out = (struct vector){.id = json_string_value(json_object_get(item, "id"))};
    out->recipe = oh_catalog_find(catalog, json_string_value(json_object_get(item, "provider")),
                                  json_string_value(json_object_get(item, "scheme")));
    assert_non_null(out->recipe);
    out->request = (struct oh_request){.method = text_of(json_object_get(item, "method")),
                                       .url = text_of(json_object_get(item, "url")),
                                       .headers = out->headers,
                                       .body = text_of(json_object_get(item, "body"))};
    json_object_foreach((json_t *)json_object_get(item, "headers"), name, value)
    {
        if (!json_is_array(value))
            add_header(out, name, value);
        json_array_foreach(value, i, line) add_header(out, name, line);
    }
    if (base64) {
        size_t len = 0, room = json_string_length(base64);
        uint8_t *bytes = oh_arena_alloc(arena, room + 1);
        assert_true(bytes && base64_decode(text_of(base64), 0, bytes, room, &len));
        out->request.body = slice_of((char *)bytes, len);
    }
    out->body = out->request.body;
    read_secrets(item, arena, out);
    out->certs = json_object_get(item, "certs");
    out->now_s = (int64_t)json_number_value(json_object_get(item, "now"));
    out->is_accepted = strcmp(json_string_value(json_object_get(item, "expect")), "accept") == 0;
}

struct oh_keyring *vector_ring(const struct vector *vector, const struct oh_slice *secrets)
{
    struct oh_keyring *ring = oh_keyring_new(vector->recipe);
    const char *url;
    json_t *pem;
    assert_non_null(ring);
    for (size_t i = 0; i < vector->secret_count; i++)
        if (oh_keyring_add(ring, secrets[i], NULL) != OH_OK)
            continue;
    json_object_foreach((json_t *)vector->certs, url, pem) assert_int_equal(
        oh_keyring_add_certificate(ring, slice_of_text(url), text_of(pem), NULL), OH_OK);
    return ring;
}
