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

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

enum { RECIPES_MAX = 64, HEADER_LINES_MAX = 256, RECIPE_FILE_MAX = 1 << 20 };
#define NOW_MAX 253402300799 /* end of the year 9999 */

static const struct argp_option options[] = {
    {"recipe", 'r', "FILE.yaml", 0, "A further recipe, before it stands in a configuration", 0},
    {"explain", 'e', NULL, 0, "Say why on stderr, a line for each refused request", 0},
    {0},
};

struct verify_options {
    const char *file;
    const char *recipes[RECIPES_MAX];
    size_t recipe_count;
    bool explain;
};

static error_t read_option(int key, char *arg, struct argp_state *state)
{
    struct verify_options *wanted = state->input;
    switch (key) {
    case 'r':
        if (wanted->recipe_count == RECIPES_MAX)
            argp_error(state, "more than %d recipes", RECIPES_MAX);
        wanted->recipes[wanted->recipe_count++] = arg;
        return 0;
    case 'e':
        wanted->explain = true;
        return 0;
    case ARGP_KEY_ARG:
        if (wanted->file)
            argp_error(state, "one FILE.json");
        wanted->file = arg;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "FILE.json is needed");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    options,
    read_option,
    "FILE.json",
    "Run recorded requests through the gateway's own engine. A line for each: ID, accept or "
    "reject, "
    "the reason or -, ok or MISMATCH, with tabs between; then the numbers. Exit 1 on a mismatch. A "
    "request whose provider has no recipe is a MISMATCH with the reason -.",
    NULL,
    NULL,
    NULL,
};

/* ---- one recorded request ----------------------------------------------------------------------
 */

/* A request as the engine takes it; everything lives in `arena` or in the JSON. */
struct record {
    struct oh_arena *arena;
    struct oh_request request;
    struct oh_header headers[HEADER_LINES_MAX];
    const char *id, *provider, *scheme; /* scheme may be NULL */
    int64_t now_s;
    bool expect_accept;
    const char *wrong; /* why the record itself cannot be read; NULL = it can */
};

static struct oh_slice json_slice(const json_t *text)
{
    return slice_of(json_string_value(text), json_string_length(text));
}

/* As the HTTP room hands values on. */
static struct oh_slice trim_blanks(struct oh_slice s)
{
    while (s.len > 0 && (s.data[0] == ' ' || s.data[0] == '\t'))
        s.data++, s.len--;
    while (s.len > 0 && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t'))
        s.len--;
    return s;
}

static bool add_header(struct record *record, const char *name, const json_t *value)
{
    struct oh_request *request = &record->request;
    if (!json_is_string(value) || request->header_count == HEADER_LINES_MAX)
        return false;
    record->headers[request->header_count++] =
        (struct oh_header){slice_of_text(name), trim_blanks(json_slice(value))};
    return true;
}

static bool read_headers(struct record *record, json_t *headers)
{
    const char *name;
    json_t *value, *line;
    size_t i;
    record->request.headers = record->headers;
    if (!json_is_object(headers))
        return false;
    json_object_foreach(headers, name, value)
    {
        if (!json_is_array(value) && !add_header(record, name, value))
            return false;
        json_array_foreach(value, i, line) if (!add_header(record, name, line)) return false;
    }
    return true;
}

static bool read_body(struct record *record, const json_t *text, const json_t *base64)
{
    if (json_is_string(text) == json_is_string(base64))
        return false;
    if (json_is_string(text)) {
        record->request.body = json_slice(text);
        return true;
    }
    size_t len;
    uint8_t *bytes = oh_arena_alloc(record->arena, json_string_length(base64));
    if (!bytes || !base64_decode(json_slice(base64), 0, bytes, json_string_length(base64), &len))
        return false;
    record->request.body = slice_of((const char *)bytes, len);
    return true;
}

static void read_record(struct record *record, json_t *item)
{
    const json_t *expect = json_object_get(item, "expect");
    const json_t *now = json_object_get(item, "now");
    const char *expected = json_is_string(expect) ? json_string_value(expect) : "";
    double now_s = json_number_value(now);
    record->id = json_string_value(json_object_get(item, "id"));
    record->provider = json_string_value(json_object_get(item, "provider"));
    record->scheme = json_string_value(json_object_get(item, "scheme"));
    record->request.method = json_slice(json_object_get(item, "method"));
    record->request.url = json_slice(json_object_get(item, "url"));
    record->expect_accept = strcmp(expected, "accept") == 0;
    if (!record->id || strpbrk(record->id, "\t\r\n"))
        record->wrong = "`id` has to be a text without tabs";
    else if (!record->provider)
        record->wrong = "`provider` has to be a text";
    else if (!json_is_number(now) || !(now_s >= 0 && now_s <= NOW_MAX))
        record->wrong = "`now` has to be unix seconds";
    else if (!record->expect_accept && strcmp(expected, "reject") != 0)
        record->wrong = "`expect` has to be accept or reject";
    else if (!read_headers(record, json_object_get(item, "headers")))
        record->wrong = "`headers` has to be an object of texts or arrays of texts";
    else if (!read_body(record, json_object_get(item, "body"),
                        json_object_get(item, "body_base64")))
        record->wrong = "either `body` or `body_base64` is needed";
    else
        record->now_s = (int64_t)now_s;
}

/* ---- judging -----------------------------------------------------------------------------------
 */

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
    size_t i;
    if (!ring)
        return NULL;
    add_secret(ring, json_object_get(item, "secret"));
    add_secret(ring, json_object_get(item, "public_key"));
    json_array_foreach(json_object_get(item, "secrets"), i, secret) add_secret(ring, secret);
    return ring;
}

struct judgement {
    bool accepted, judged;
    const char *reason, *because;
};

static struct judgement judge(const struct oh_catalog *catalog, const struct record *record,
                              const json_t *item)
{
    struct oh_verify_result result;
    const struct oh_recipe *recipe = oh_catalog_find(catalog, record->provider, record->scheme);
    struct oh_keyring *ring = recipe ? read_secrets(recipe, item) : NULL;
    if (!ring)
        return (struct judgement){false, false, "-", recipe ? "out of memory" : "no recipe"};
    enum oh_verdict verdict = oh_verify(recipe, ring, &record->request, record->now_s * 1000,
                                        OH_TOLERANCE_OF_SCHEME, record->arena, &result);
    oh_keyring_free(ring);
    return (struct judgement){verdict == OH_ACCEPTED, true, oh_verdict_name(verdict),
                              result.because};
}

/* Prints one line; false on a mismatch. */
static bool verify_one(const struct verify_options *wanted, const struct oh_catalog *catalog,
                       const struct record *record, const json_t *item)
{
    struct judgement judgement = judge(catalog, record, item);
    bool ok = judgement.judged && judgement.accepted == record->expect_accept;
    printf("%s\t%s\t%s\t%s\n", record->id, judgement.accepted ? "accept" : "reject",
           judgement.reason, ok ? "ok" : "MISMATCH");
    if (!judgement.judged || (wanted->explain && !judgement.accepted))
        fprintf(stderr, "%s: %s%s%s%s%s\n", record->id, judgement.because,
                judgement.judged ? "" : " for ", judgement.judged ? "" : record->provider,
                judgement.judged || !record->scheme ? "" : ", scheme ",
                judgement.judged || !record->scheme ? "" : record->scheme);
    return ok;
}

static int verify_all(const struct verify_options *wanted, const struct oh_catalog *catalog,
                      json_t *list)
{
    static struct record record;
    json_t *item;
    size_t i, mismatches = 0;
    json_array_foreach(list, i, item)
    {
        memset(&record, 0, sizeof(record));
        record.arena = oh_arena_new(4096, SIZE_MAX);
        if (!record.arena) {
            fprintf(stderr, "oncehook: out of memory\n");
            return CLI_USAGE;
        }
        read_record(&record, item);
        if (record.wrong)
            fprintf(stderr, "oncehook: %s: request %zu: %s\n", wanted->file, i + 1, record.wrong);
        else if (!verify_one(wanted, catalog, &record, item))
            mismatches++;
        oh_arena_free(record.arena);
        if (record.wrong)
            return CLI_USAGE;
    }
    printf("%zu requests, %zu mismatches\n", json_array_size(list), mismatches);
    return mismatches ? CLI_NO : CLI_OK;
}

/* ---- files -------------------------------------------------------------------------------------
 */

static bool add_recipe_file(struct oh_catalog *catalog, const char *path)
{
    struct oh_error err = {0};
    bool added = false;
    FILE *file = fopen(path, "rb");
    char *text = malloc(RECIPE_FILE_MAX);
    if (!file || !text) {
        fprintf(stderr, "oncehook: %s: %s\n", path, strerror(errno));
        goto out;
    }
    size_t len = fread(text, 1, RECIPE_FILE_MAX, file);
    if (ferror(file))
        fprintf(stderr, "oncehook: %s: cannot be read\n", path);
    else if (oh_catalog_add(catalog, path, text, len, &err))
        fprintf(stderr, "%s\n", err.text);
    else
        added = true;
out:
    free(text);
    if (file)
        fclose(file);
    return added;
}

int cli_verify(int argc, char **argv)
{
    static char name[] = "oncehook verify";
    struct verify_options wanted = {0};
    struct oh_catalog *catalog = NULL;
    struct oh_error err = {0};
    json_error_t where;
    json_t *list = NULL;
    int code = CLI_USAGE;
    argv[0] = name;
    argp_err_exit_status = CLI_USAGE;
    if (argp_parse(&parser, argc, argv, 0, NULL, &wanted) != 0)
        return CLI_USAGE;
    if (oh_catalog_new(&catalog, &err)) {
        fprintf(stderr, "oncehook: %s\n", err.text);
        goto out;
    }
    for (size_t i = 0; i < wanted.recipe_count; i++)
        if (!add_recipe_file(catalog, wanted.recipes[i]))
            goto out;
    list = json_load_file(wanted.file, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &where);
    if (!list)
        fprintf(stderr, "oncehook: %s:%d: %s\n", wanted.file, where.line, where.text);
    else if (!json_is_array(list))
        fprintf(stderr, "oncehook: %s: not an array of recorded requests\n", wanted.file);
    else
        code = verify_all(&wanted, catalog, list);
out:
    json_decref(list);
    oh_catalog_free(catalog);
    return code;
}
