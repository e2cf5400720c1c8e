/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook verify FILE.json: recorded requests through the gateway's own engine, with the scheme's
 * own window and the clock of the recording. The file's form is the contract's "Recorded request".
 *
 * A request whose provider or scheme has no recipe cannot be judged: it stands as `reject`, `-` and
 * MISMATCH whatever was expected, so that a missing recipe is never counted as a success. */
#include "cli/cli.h"
#include "cli/explain.h"

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

/* What all requests are judged with. */
struct run {
    struct oh_catalog *catalog;
    bool explain;
    const struct config_source *source; /* NULL: each request says provider and secrets itself */
    char *source_secrets;               /* their names */
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
static const char *read_record(const struct run *run, struct record *record, json_t *item,
                               json_error_t *where)
{
    struct oh_slice text = {NULL, 0}, base64 = {NULL, 0};
    struct oh_request *request = &record->request;
    json_t *headers;
    if (json_unpack_ex(item, where, 0, "{s:s, s?s, s?s, s:s%, s:s%, s:o, s?s%, s?s%, s:F, s:s}",
                       "id", &record->id, "provider", &record->provider, "scheme", &record->scheme,
                       "method", &request->method.data, &request->method.len, "url",
                       &request->url.data, &request->url.len, "headers", &headers, "body",
                       &text.data, &text.len, "body_base64", &base64.data, &base64.len, "now",
                       &record->now_s, "expect", &record->expect))
        return where->text;
    if (!record->provider && !run->source)
        return "`provider` is missing";
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

/* A secret that does not parse is no secret: it accepts nothing. `names` is told either way. */
static void add_secret(struct oh_keyring *ring, const char *name, struct oh_slice secret,
                       FILE *names)
{
    struct oh_error err = {.text = ""};
    bool added = oh_keyring_add(ring, secret, &err) == OH_OK;
    fprintf(names, "%s%s%s%s%s", ftell(names) > 0 ? ", " : "", name,
            added ? "" : " (unusable: ", added ? "" : err.text, added ? "" : ")");
}

static void add_secrets(struct oh_keyring *ring, const json_t *item, FILE *names)
{
    static const char *const members[] = {"secret", "public_key"};
    const json_t *secret;
    json_t *key;
    const char *name;
    char number[32];
    size_t i;
    for (i = 0; i < sizeof(members) / sizeof(members[0]); i++)
        if (json_is_string(secret = json_object_get(item, members[i])))
            add_secret(ring, members[i], json_slice(secret), names);
    json_array_foreach(json_object_get(item, "secrets"), i, secret)
    {
        snprintf(number, sizeof(number), "secret %zu", i + 1);
        if (json_is_string(secret))
            add_secret(ring, number, json_slice(secret), names);
    }
    json_object_foreach(json_object_get(item, "keys"), name, key)
    {
        char *text = json_dumps(key, JSON_COMPACT);
        if (text)
            add_secret(ring, name, slice_of_text(text), names);
        free(text);
    }
    json_object_foreach(json_object_get(item, "certs"), name,
                        key) if (oh_keyring_add_certificate(ring, slice_of_text(name),
                                                            json_slice(key), NULL) != OH_OK)
        fprintf(stderr, "oncehook: the certificate %s cannot be read\n", name);
}

/* The ring of the record's own secrets; *names, for people, is the caller's to free. */
static struct oh_keyring *read_secrets(const struct oh_recipe *recipe, const json_t *item,
                                       char **names)
{
    struct oh_keyring *ring = oh_keyring_new(recipe);
    size_t len;
    FILE *to = ring ? open_memstream(names, &len) : NULL;
    if (to) {
        add_secrets(ring, item, to);
        fclose(to);
    }
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
static bool verify_one(const struct run *run, const struct record *record, json_t *item)
{
    struct oh_explanation told = {.result.because = "no recipe for this provider and scheme"};
    enum oh_verdict verdict = OH_ACCEPTED;
    char *names = NULL;
    const struct config_source *source = run->source;
    const struct oh_recipe *recipe =
        source ? source->recipe : find_recipe(run->catalog, record, item);
    struct oh_keyring *own = recipe && !source ? read_secrets(recipe, item, &names) : NULL;
    const struct oh_keyring *ring = source ? source->keyring : own;
    int64_t now_ms = (int64_t)record->now_s * 1000;
    int64_t past_s = source ? source->tolerance_s : OH_TOLERANCE_OF_SCHEME;
    if (ring)
        verdict = run->explain ? oh_explain(recipe, ring, &record->request, now_ms, past_s,
                                            record->arena, &told)
                               : oh_verify(recipe, ring, &record->request, now_ms, past_s,
                                           record->arena, &told.result);
    const char *decided = ring && verdict == OH_ACCEPTED ? "accept" : "reject";
    bool ok = ring && strcmp(decided, record->expect) == 0;
    printf("%s\t%s\t%s\t%s\n", record->id, decided, ring ? oh_verdict_name(verdict) : "-",
           ok ? "ok" : "MISMATCH");
    if (!ring || (run->explain && verdict != OH_ACCEPTED)) {
        fflush(stdout); /* each explanation under its line, where both are one terminal */
        fprintf(stderr, "%s: %s\n", record->id, told.result.because);
    }
    if (ring && run->explain && verdict != OH_ACCEPTED)
        explain_print(stderr, verdict, &told, now_ms, source ? run->source_secrets : names);
    oh_keyring_free(own);
    free(names);
    return ok;
}

static int verify_all(const struct run *run, const char *file, json_t *list)
{
    static struct record record;
    json_error_t where;
    json_t *item;
    size_t i, mismatches = 0;
    json_array_foreach(list, i, item)
    {
        memset(&record, 0, sizeof(record));
        record.arena = oh_arena_new(4096, SIZE_MAX);
        const char *wrong =
            record.arena ? read_record(run, &record, item, &where) : "out of memory";
        if (wrong)
            fprintf(stderr, "oncehook: %s: request %zu: %s\n", file, i + 1, wrong);
        else
            mismatches += !verify_one(run, &record, item);
        oh_arena_free(record.arena);
        if (wrong)
            return CLI_USAGE;
    }
    printf("%zu requests, %zu mismatches\n", json_array_size(list), mismatches);
    return mismatches ? CLI_NO : CLI_OK;
}

/* --source: its recipe, secrets and window instead of what the requests say. */
static bool find_source(struct run *run, const struct config *config, const char *name)
{
    size_t len;
    FILE *to = open_memstream(&run->source_secrets, &len);
    run->source = to ? config_find_source(config, slice_of_text(name)) : NULL;
    for (size_t i = 0; run->source && i < run->source->secret_count; i++)
        fprintf(to, "%s%s", i ? ", " : "", run->source->terms[i].name);
    if (to)
        fclose(to);
    if (!run->source)
        fprintf(stderr, "oncehook: %s: no source '%s'\n", config->path, name);
    return run->source;
}

/* What the requests are judged with; false after the mistake was told. */
static bool prepare(struct run *run, const char *recipe, const struct config *config,
                    const char *source)
{
    struct oh_error err = {.text = ""};
    struct oh_slice text = {NULL, 0};
    bool ready =
        oh_catalog_new(&run->catalog, &err) == OH_OK &&
        (!recipe || (cli_read_file(recipe, RECIPE_FILE_MAX, &text, &err) == OH_OK &&
                     oh_catalog_add(run->catalog, recipe, text.data, text.len, &err) == OH_OK));
    free((char *)text.data);
    if (!ready)
        fprintf(stderr, "%s\n", err.text);
    return ready && (!source || find_source(run, config, source));
}

int cli_verify(int argc, char **argv)
{
    const char *file = NULL, *recipe = NULL, *config_path = NULL, *source = NULL;
    struct run run = {.explain = false};
    const struct cli_option options[] = {
        {"recipe", 'r', .argument = "FILE.yaml", .value = &recipe,
         .words = "A further recipe, before it stands in a configuration"},
        {"config", 'c', .argument = "FILE", .value = &config_path,
         .words = "with --source: the gateway's configuration"},
        {"source", 's', .argument = "NAME", .value = &source,
         .words = "Judge by this source's recipe, secrets and window, whatever the requests say"},
        {"explain", 'e', .flag = &run.explain,
         .words =
             "Say why on stderr of each refused request: what is missing, how old it is, which "
             "secrets were tried, and on a terminal the bytes that are signed"},
        {.argument = "FILE.json", .value = &file, .needed = true},
        {0},
    };
    struct config *config = NULL;
    json_error_t where;
    json_t *list = NULL;
    int code = CLI_USAGE;
    cli_read_options(options,
                     "Run recorded requests through the gateway's own engine. A line for each: ID, "
                     "accept or reject, the reason or -, ok or MISMATCH, with tabs between; then "
                     "the numbers. Exit 1 on a mismatch. A request whose provider has no recipe is "
                     "a MISMATCH with the reason -.",
                     argc, argv);
    if (!config_path != !source) {
        fprintf(stderr, "oncehook: --config and --source go together\n");
        return CLI_USAGE;
    }
    if (config_path && !(config = cli_load_config(config_path, CONFIG_SECRETS)))
        return CLI_USAGE;
    if (!prepare(&run, recipe, config, source))
        goto out;
    list = json_load_file(file, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &where);
    if (!list)
        fprintf(stderr, "oncehook: %s:%d: %s\n", file, where.line, where.text);
    else if (!json_is_array(list))
        fprintf(stderr, "oncehook: %s: not an array of recorded requests\n", file);
    else
        code = verify_all(&run, file, list);
out:
    json_decref(list);
    free(run.source_secrets);
    oh_catalog_free(run.catalog);
    config_free(config);
    return code;
}
