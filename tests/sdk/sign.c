/* SPDX-License-Identifier: Apache-2.0 */
/* Signs requests as liboncehook does, for tests/sdk/run: an array of {provider, scheme, key,
 * method, url, headers, body, now} on standard input, the same with what has to be sent on standard
 * output. */
#include "base/slice.h"
#include "oncehook/sign.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADERS_MAX = 16 };

static struct oh_slice text_of(const json_t *item, const char *name)
{
    const json_t *text = json_object_get(item, name);
    return slice_of(json_string_value(text), json_string_length(text));
}

static void set_text(json_t *item, const char *name, struct oh_slice text)
{
    json_object_set_new(item, name, json_stringn(text.data, text.len));
}

/* Signs one in place; false with the reason on stderr. */
static bool sign_one(const struct oh_catalog *catalog, json_t *item)
{
    struct oh_header headers[HEADERS_MAX];
    struct oh_signer *signer = NULL;
    struct oh_signed done;
    struct oh_error err = {.text = "no recipe, or too many headers"};
    json_t *given = json_object_get(item, "headers"), *value;
    const char *name;
    struct oh_arena *arena = oh_arena_new(4096, 16 << 20);
    struct oh_request request = {.method = text_of(item, "method"),
                                 .url = text_of(item, "url"),
                                 .headers = headers,
                                 .body = text_of(item, "body")};
    const struct oh_recipe *recipe =
        oh_catalog_find(catalog, text_of(item, "provider").data, text_of(item, "scheme").data);
    bool ok = recipe && arena && json_object_size(given) <= HEADERS_MAX - OH_SIGN_HEADERS_MAX;
    json_object_foreach(given, name, value) if (ok) headers[request.header_count++] =
        (struct oh_header){slice_of_text(name),
                           slice_of(json_string_value(value), json_string_length(value))};
    ok =
        ok && oh_signer_new(recipe, text_of(item, "key"), &signer, &err) == OH_OK &&
        oh_sign(signer, &request, (int64_t)(json_number_value(json_object_get(item, "now")) * 1000),
                arena, &done, &err) == OH_OK;
    for (size_t i = 0; ok && i < done.count; i++)
        json_object_setn_new(given, done.headers[i].name.data, done.headers[i].name.len,
                             json_stringn(done.headers[i].value.data, done.headers[i].value.len));
    if (ok) {
        json_t *url = json_stringn(done.url.data, done.url.len);
        set_text(item, "body", done.body);
        json_object_set_new(item, "url", url);
    } else {
        fprintf(stderr, "sign: %s: %s\n", text_of(item, "scheme").data, err.text);
    }
    oh_signer_free(signer);
    oh_arena_free(arena);
    return ok;
}

int main(void)
{
    struct oh_catalog *catalog;
    struct oh_error err;
    json_error_t where;
    json_t *list = json_loadf(stdin, JSON_ALLOW_NUL, &where), *item;
    size_t i;
    if (!json_is_array(list) || oh_catalog_new(&catalog, &err) != OH_OK) {
        fprintf(stderr, "sign: no array on standard input\n");
        return 2;
    }
    bool ok = true;
    json_array_foreach(list, i, item) ok = sign_one(catalog, item) && ok;
    json_dumpf(list, stdout, JSON_COMPACT);
    json_decref(list);
    oh_catalog_free(catalog);
    return !ok;
}
