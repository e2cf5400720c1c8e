/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook verify FILE.json: recorded requests through the gateway's own engine, with the scheme's
 * own window and the clock of the recording. The file's form is the contract's "Recorded request".
 *
 * A request whose provider or scheme has no recipe cannot be judged: it stands as `reject`, `-` and
 * MISMATCH whatever was expected, so that a missing recipe is never counted as a success. */
#include "cli/cli.h"

#include "base/encode.h"
#include "base/slice.h"
#include "oncehook/verify.h"

#include <jansson.h>
#include <stdlib.h>

enum { HEADER_LINES_MAX = 256, RECIPE_FILE_MAX = 1 << 20 };
#define NOW_MAX 253402300799 /* end of the year 9999 */

/* A request as the engine takes it; everything lives in `arena` or in the JSON. */
struct record {
    struct oh_arena *arena;
    struct oh_request request;
    struct oh_header headers[HEADER_LINES_MAX];
    const char *id, *provider, *scheme, *expect; /* scheme may be NULL */
    double now_s;
};

static struct oh_slice json_slice(const json_t *text)
{
    return slice_of(json_string_value(text), json_string_length(text));
}

static bool add_header(struct record *record, const char *name, const json_t *value)
{
    struct oh_request *request = &record->request;
    if (!json_is_string(value) || request->header_count == HEADER_LINES_MAX)
        return false;
    record->headers[request->header_count++] =
        (struct oh_header){slice_of_text(name), slice_trim(json_slice(value))};
    return true;
}

static bool read_headers(struct record *record, json_t *headers)
{
    const char *name;
    json_t *value, *line;
    size_t i;
    record->request.headers = record->headers;
    json_object_foreach(headers, name, value)
    {
        if (!json_is_array(value) && !add_header(record, name, value))
            return false;
        json_array_foreach(value, i, line) if (!add_header(record, name, line)) return false;
    }
    return json_is_object(headers);
}

static bool read_body(struct record *record, struct oh_slice text, struct oh_slice base64)
{
    size_t len;
    record->request.body = text;
    if (!text.data == !base64.data)
        return false;
    if (text.data)
        return true;
    uint8_t *bytes = oh_arena_alloc(record->arena, base64.len);
    if (!bytes || !base64_decode(base64, 0, bytes, base64.len, &len))
        return false;
    record->request.body = slice_of((const char *)bytes, len);
    return true;
}

/* Why the record cannot be read; NULL = it can. */
static const char *read_record(struct record *record, json_t *item, json_error_t *where)
{
    struct oh_slice text = {NULL, 0}, base64 = {NULL, 0};
    struct oh_request *request = &record->request;
    json_t *headers;
    if (json_unpack_ex(item, where, 0, "{s:s, s:s, s?s, s:s%, s:s%, s:o, s?s%, s?s%, s:F, s:s}",
                       "id", &record->id, "provider", &record->provider, "scheme", &record->scheme,
                       "method", &request->method.data, &request->method.len, "url",
                       &request->url.data, &request->url.len, "headers", &headers, "body",
                       &text.data, &text.len, "body_base64", &base64.data, &base64.len, "now",
                       &record->now_s, "expect", &record->expect))
        return where->text;
    if (strpbrk(record->id, "\t\r\n"))
        return "`id` has to be a text without tabs";
    if (!(record->now_s >= 0 && record->now_s <= NOW_MAX))
        return "`now` has to be unix seconds";
    if (strcmp(record->expect, "accept") != 0 && strcmp(record->expect, "reject") != 0)
        return "`expect` has to be accept or reject";
    if (!read_headers(record, headers))
        return "`headers` has to be an object of texts or arrays of texts";
    return read_body(record, text, base64) ? NULL : "either `body` or `body_base64` is needed";
}

/* A secret that does not parse is no secret: it accepts nothing. */
static void add_secret(struct oh_keyring *ring, const json_t *secret)
{
    if (json_is_string(secret) && oh_keyring_add(ring, json_slice(secret), NULL) != OH_OK)
        return;
}

static struct oh_keyring *read_secrets(const struct oh_recipe *recipe, const json_t *item)
{
    struct oh_keyring *ring = oh_keyring_new(recipe);
    const json_t *secret;
    json_t *key;
    const char *name;
    size_t i;
    if (!ring)
        return NULL;
    add_secret(ring, json_object_get(item, "secret"));
    add_secret(ring, json_object_get(item, "public_key"));
    json_array_foreach(json_object_get(item, "secrets"), i, secret) add_secret(ring, secret);
    json_object_foreach(json_object_get(item, "keys"), name, key)
    {
        char *text = json_dumps(key, JSON_COMPACT);
        if (text && oh_keyring_add(ring, slice_of_text(text), NULL) != OH_OK)
            fprintf(stderr, "oncehook: the key %s is none of the scheme's\n", name);
        free(text);
    }
    json_object_foreach(json_object_get(item, "certs"), name,
                        key) if (oh_keyring_add_certificate(ring, slice_of_text(name),
                                                            json_slice(key), NULL) != OH_OK)
        fprintf(stderr, "oncehook: the certificate %s cannot be read\n", name);
    return ring;
}

/* `provider: hmac` has its recipe in the source; a record says it in the object `hmac`, with the
 * same options, and without one the signature is hex SHA-256 in X-Signature. */
static const struct oh_recipe *find_recipe(struct oh_catalog *catalog, const struct record *record,
                                           json_t *item)
{
    const struct oh_recipe *recipe = oh_catalog_find(catalog, record->provider, record->scheme);
    if (recipe || strcmp(record->provider, "hmac") != 0)
        return recipe;
    struct oh_hmac_options options = {.header = "X-Signature"};
    json_t *own = json_object_get(item, "hmac");
    if (own &&
        json_unpack(own, "{s?s, s?s, s?s, s?s !}", "header", &options.header, "algorithm",
                    &options.algorithm, "encoding", &options.encoding, "prefix", &options.prefix))
        return NULL;
    return oh_catalog_add_hmac(catalog, &options, &recipe, NULL) == OH_OK ? recipe : NULL;
}

/* Judges one and prints its line; false on a mismatch. */
static bool verify_one(struct oh_catalog *catalog, const struct record *record, json_t *item,
                       bool explain)
{
    struct oh_verify_result result = {.because = "no recipe for this provider and scheme"};
    enum oh_verdict verdict = OH_ACCEPTED;
    const struct oh_recipe *recipe = find_recipe(catalog, record, item);
    struct oh_keyring *ring = recipe ? read_secrets(recipe, item) : NULL;
    if (ring)
        verdict = oh_verify(recipe, ring, &record->request, (int64_t)record->now_s * 1000,
                            OH_TOLERANCE_OF_SCHEME, record->arena, &result);
    const char *decided = ring && verdict == OH_ACCEPTED ? "accept" : "reject";
    bool ok = ring && strcmp(decided, record->expect) == 0;
    printf("%s\t%s\t%s\t%s\n", record->id, decided, ring ? oh_verdict_name(verdict) : "-",
           ok ? "ok" : "MISMATCH");
    if (!ring || (explain && verdict != OH_ACCEPTED))
        fprintf(stderr, "%s: %s\n", record->id, result.because);
    oh_keyring_free(ring);
    return ok;
}

static int verify_all(struct oh_catalog *catalog, const char *file, json_t *list, bool explain)
{
    static struct record record;
    json_error_t where;
    json_t *item;
    size_t i, mismatches = 0;
    json_array_foreach(list, i, item)
    {
        memset(&record, 0, sizeof(record));
        record.arena = oh_arena_new(4096, SIZE_MAX);
        const char *wrong = record.arena ? read_record(&record, item, &where) : "out of memory";
        if (wrong)
            fprintf(stderr, "oncehook: %s: request %zu: %s\n", file, i + 1, wrong);
        else
            mismatches += !verify_one(catalog, &record, item, explain);
        oh_arena_free(record.arena);
        if (wrong)
            return CLI_USAGE;
    }
    printf("%zu requests, %zu mismatches\n", json_array_size(list), mismatches);
    return mismatches ? CLI_NO : CLI_OK;
}

int cli_verify(int argc, char **argv)
{
    const char *file = NULL, *recipe = NULL;
    bool explain = false;
    const struct cli_option options[] = {
        {"recipe", 'r', .argument = "FILE.yaml", .value = &recipe,
         .words = "A further recipe, before it stands in a configuration"},
        {"explain", 'e', .flag = &explain,
         .words = "Say why on stderr, a line for each refused request"},
        {.argument = "FILE.json", .value = &file, .needed = true},
        {0},
    };
    struct oh_catalog *catalog = NULL;
    struct oh_error err = {0};
    struct oh_slice text = {NULL, 0};
    json_error_t where;
    json_t *list = NULL;
    int code = CLI_USAGE;
    cli_read_options(options,
                     "Run recorded requests through the gateway's own engine. A line for each: ID, "
                     "accept or reject, the reason or -, ok or MISMATCH, with tabs between; then "
                     "the numbers. Exit 1 on a mismatch. A request whose provider has no recipe is "
                     "a MISMATCH with the reason -.",
                     argc, argv);
    if (oh_catalog_new(&catalog, &err) ||
        (recipe && (cli_read_file(recipe, RECIPE_FILE_MAX, &text, &err) ||
                    oh_catalog_add(catalog, recipe, text.data, text.len, &err)))) {
        fprintf(stderr, "%s\n", err.text);
        goto out;
    }
    list = json_load_file(file, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &where);
    if (!list)
        fprintf(stderr, "oncehook: %s:%d: %s\n", file, where.line, where.text);
    else if (!json_is_array(list))
        fprintf(stderr, "oncehook: %s: not an array of recorded requests\n", file);
    else
        code = verify_all(catalog, file, list, explain);
out:
    json_decref(list);
    free((char *)text.data);
    oh_catalog_free(catalog);
    return code;
}
