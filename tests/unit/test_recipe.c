/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of recipe: the built-in files load and say what they should, every mistake of a file is
 * an error with its line, and no file however broken does harm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/embedded.h"
#include "base/slice.h"
#include "recipe/recipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A recipe file in which every line can be changed; lines are numbered from 1. */
static const char *const whole[] = {
    "provider: acme",                          /*  1 */
    "title: Acme",                             /*  2 */
    "confidence: low",                         /*  3 */
    "proof: unconfirmed",                      /*  4 */
    "id_scope: source",                        /*  5 */
    "ack_budget: 5s",                          /*  6 */
    "retries: {schedule: twice, horizon: 2d}", /*  7 */
    "schemes:",                                /*  8 */
    "  - id: acme",                            /*  9 */
    "    algorithm: hmac-sha512",              /* 10 */
    "    key: utf8",                           /* 11 */
    ("    signature: {in: header, name: [X-Acme, Y-Acme], parse: kv, separator: ';', key: h1, "
     "encoding: base64}"),                                                       /* 12 */
    "    message: [ts, 'lit::', body]",                                          /* 13 */
    "    timestamp: {in: sigfield, name: ts, unit: ms, past: 5m, future: none}", /* 14 */
    "events:",                                                                   /* 15 */
    "  id: [/id, body:/id, header:X-Id]",                                        /* 16 */
    "  composite: [/a, /b]",                                                     /* 17 */
    "  type: [[/kind, 'lit:.', /verb], /type]",                                  /* 18 */
    "  type_map: {z: clicked, a: opened, m: sent}",                              /* 19 */
    "  pings: [hello]",                                                          /* 20 */
    "  channel: sms",                                                            /* 21 */
    "  channel_map: {a: email}",                                                 /* 22 */
    "  occurred_at: {from: /at, unit: iso}",                                     /* 23 */
    "  split: /entry/*/changes",                                                 /* 24 */
    "  map: {enrollment_id: /e, instance_id: header:X-I}",                       /* 25 */
};
enum { LINES = sizeof(whole) / sizeof(whole[0]) };

/* The file with line `number` replaced (0 = none); freed by the caller. */
static char *file_with(int number, const char *instead)
{
    char *text = NULL;
    size_t len = 0;
    FILE *file = open_memstream(&text, &len);
    assert_non_null(file);
    for (int i = 1; i <= LINES; i++)
        fprintf(file, "%s\n", i == number ? instead : whole[i - 1]);
    assert_int_equal(fclose(file), 0);
    return text;
}

static enum oh_status load(const char *text, size_t len, struct oh_catalog **catalog,
                           struct oh_error *err)
{
    assert_int_equal(oh_catalog_new(catalog, err), OH_OK);
    return oh_catalog_add(*catalog, NULL, text, len, err);
}

/* Likewise into one catalog for many files, since a new one reads all built-in files again. */
static struct oh_catalog *shared;

static enum oh_status load_shared(const char *text, size_t len, struct oh_catalog **catalog,
                                  struct oh_error *err)
{
    if (!shared)
        assert_int_equal(oh_catalog_new(&shared, err), OH_OK);
    *catalog = shared;
    return oh_catalog_add(shared, NULL, text, len, err);
}

static int free_shared(void **state)
{
    (void)state;
    oh_catalog_free(shared);
    return 0;
}

static void builtin_recipes_load(void **state)
{
    (void)state;
    struct oh_catalog *catalog;
    struct oh_error err = {.text = ""};
    struct oh_recipe_info info;
    if (oh_catalog_new(&catalog, &err))
        fail_msg("%s", err.text);
    assert_in_range(oh_catalog_count(catalog), 100, 1000);
    static const char *const names[] = {"github", "sendgrid", "stripe"};
    for (size_t i = 0; i < 3; i++) {
        oh_recipe_describe(oh_catalog_find(catalog, names[i], NULL), &info);
        assert_string_equal(info.provider, names[i]);
        assert_string_equal(info.scheme, names[i]);
        assert_string_equal(info.confidence, "high");
        assert_string_equal(info.key_grade, "id");
        assert_int_equal(info.id_scope, OH_SCOPE_PROVIDER);
        assert_false(info.needs_public_url);
        assert_ptr_equal(oh_catalog_find(catalog, names[i], NULL),
                         oh_catalog_find(catalog, names[i], names[i]));
    }
    assert_null(oh_catalog_find(catalog, "stripe", "v2"));
    assert_null(oh_catalog_find(catalog, "hmac", NULL));

    oh_recipe_describe(oh_catalog_find(catalog, "stripe", NULL), &info);
    assert_int_equal(info.tolerance_past_s, 300);
    assert_int_equal(info.tolerance_future_s, 300);
    assert_int_equal(info.serve_tolerance_s, 300); /* each retry is signed anew */
    assert_int_equal(info.retry_horizon_s, 3 * 86400);
    assert_true(info.retries_signed_anew);
    assert_string_equal(info.map_enrollment, "/data/object/metadata/enrollment_id");

    oh_recipe_describe(oh_catalog_find(catalog, "sendgrid", NULL), &info);
    assert_int_equal(info.tolerance_past_s, -1);
    assert_int_equal(info.serve_tolerance_s, 7 * 86400);
    assert_true(info.has_private_key);
    assert_string_equal(info.algorithm, "ecdsa-p256-sha256");
    assert_string_equal(info.map_instance, "/instance_id");

    oh_recipe_describe(oh_catalog_find(catalog, "github", NULL), &info);
    assert_int_equal(info.serve_tolerance_s, -1);
    assert_int_equal(info.retry_horizon_s, 0);
    assert_int_equal(info.ack_budget_ms, 10000);
    assert_null(info.map_enrollment);
    oh_catalog_free(catalog);
}

static void sendgrid_words_map_to_the_contract(void **state)
{
    (void)state;
    struct oh_catalog *catalog;
    struct oh_error err;
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    const struct recipe_events *events = &oh_catalog_find(catalog, "sendgrid", NULL)->events;
    static const struct {
        const char *word;
        enum oh_event_type type;
    } rows[] = {
        {"processed", OH_EVENT_SENT},
        {"delivered", OH_EVENT_DELIVERED},
        {"open", OH_EVENT_OPENED},
        {"click", OH_EVENT_CLICKED},
        {"bounce", OH_EVENT_BOUNCED},
        {"dropped", OH_EVENT_FAILED},
        {"deferred", OH_EVENT_OTHER},
        {"spamreport", OH_EVENT_COMPLAINED},
        {"unsubscribe", OH_EVENT_UNSUBSCRIBED},
        {"group_unsubscribe", OH_EVENT_UNSUBSCRIBED},
        {"group_resubscribe", OH_EVENT_OTHER},
        {"opened", OH_EVENT_OTHER},
        {"ope", OH_EVENT_OTHER},
        {"", OH_EVENT_OTHER},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(recipe_find_type(events, slice_of_text(rows[i].word)), rows[i].type);
    assert_int_equal(recipe_find_type(events, slice_of(NULL, 0)), OH_EVENT_OTHER);
    assert_int_equal(recipe_find_channel(events, SLICE_LITERAL("open")), OH_CHANNEL_EMAIL);
    const struct recipe_events *github = &oh_catalog_find(catalog, "github", NULL)->events;
    assert_true(recipe_is_ping(github, SLICE_LITERAL("ping")));
    assert_false(recipe_is_ping(github, SLICE_LITERAL("push")));
    assert_string_equal(github->form_json_field, "payload");
    oh_catalog_free(catalog);
}

static void file_gives_what_it_says(void **state)
{
    (void)state;
    struct oh_catalog *catalog;
    struct oh_error err = {.text = ""};
    char *text = file_with(0, NULL);
    if (load(text, strlen(text), &catalog, &err))
        fail_msg("line %d: %s", err.line, err.text);
    free(text); /* a recipe keeps nothing of its file */
    const struct oh_recipe *recipe = oh_catalog_find(catalog, "acme", "acme");
    assert_non_null(recipe);
    assert_int_equal(recipe->algorithm, RECIPE_HMAC_SHA512);
    assert_int_equal(recipe->signature.names.count, 2);
    assert_string_equal(recipe->signature.names.items[1].data, "y-acme");
    assert_int_equal(recipe->signature.separator, ';');
    assert_string_equal(recipe->signature.key.data, "h1");
    assert_int_equal(recipe->part_count, 3);
    assert_int_equal(recipe->parts[1].kind, RECIPE_PART_LITERAL);
    assert_string_equal(recipe->parts[1].text.data, ":");
    assert_int_equal(recipe->timestamp.in, RECIPE_TS_SIGFIELD);
    assert_int_equal(recipe->timestamp.unit, RECIPE_UNIT_MS);
    assert_int_equal(recipe->timestamp.past_s, 300);
    assert_int_equal(recipe->timestamp.future_s, -1);
    assert_int_equal(recipe->timestamp.serve_past_s, 2 * 86400); /* the retries' horizon */
    const struct recipe_events *events = &recipe->events;
    assert_int_equal(events->id.count, 3);
    assert_int_equal(events->id.items[0].from, RECIPE_FROM_EVENT);
    assert_int_equal(events->id.items[1].from, RECIPE_FROM_BODY);
    assert_int_equal(events->id.items[2].from, RECIPE_FROM_HEADER);
    assert_string_equal(events->id.items[2].text.data, "x-id");
    assert_int_equal(events->type_count, 2);
    assert_int_equal(events->type[0].count, 3);
    assert_int_equal(events->type[0].items[1].from, RECIPE_FROM_LITERAL);
    assert_int_equal(recipe_find_type(events, SLICE_LITERAL("m")), OH_EVENT_SENT);
    assert_int_equal(recipe_find_channel(events, SLICE_LITERAL("a")), OH_CHANNEL_EMAIL);
    assert_int_equal(recipe_find_channel(events, SLICE_LITERAL("b")), OH_CHANNEL_SMS);
    assert_int_equal(events->split.count, 3);
    assert_true(events->split.tokens[1].each);
    assert_int_equal(events->map_instance.from, RECIPE_FROM_HEADER);
    assert_string_equal(recipe->info.map_instance, "header:X-I");
    oh_catalog_free(catalog);
}

/* Each row replaces one line of the file and has to fail at that line (or the one given). */
static void every_mistake_is_an_error_with_its_line(void **state)
{
    (void)state;
    static const struct {
        int line;
        const char *instead, *says;
        int at; /* 0 = the same line */
    } rows[] = {
        {1, "provider: Acme Inc", "provider", 0},
        {1, "provider: ''", "provider", 0},
        {1, "provider:", "provider", 0},
        {1, "provider: [a]", "provider", 0},
        {1, "", "needs the key 'provider'", 2},
        {2, "titel: Acme", "has no key 'titel'", 0},
        {2, "title: Acme\ntitle: Acme", "duplicate", 3},
        {3, "confidence: huge", "one of: low, medium, high", 0},
        {4, "proof: &p sdk", "anchors", 1},
        {4, "proof: *p", "aliases", 0},
        {4, "proof: !!str sdk", "tags", 0},
        {4, "proof: \"sdk\\0\"", "NUL", 0},
        {4, "proof: sdk\x01", "no text", 0},
        {4, "proof: \xff", "no text", 0},
        {5, "id_scope: world", "source, provider", 0},
        {6, "ack_budget: 5", "300s", 0},
        {6, "ack_budget: -5s", "ack_budget", 0},
        {6, "ack_budget: 99999999999d", "ack_budget", 0},
        {7, "retries: {schedule: twice}", "needs the key 'horizon'", 0},
        {7, "retries: twice", "mapping", 0},
        {7, "retries: {schedule: a, horizon: 1d, signed_anew: perhaps}", "false, true", 0},
        {9, "  - nothing: acme", "has no key 'nothing'", 0},
        {10, "    algorithm: jwt", "`message` goes with", 9},
        {10, "    algorithm: hmac-md5", "one of: hmac-sha1", 0},
        {10, "    algorithm: ecdsa-p256-sha256", "does not fit", 9},
        {11, "    key: whpk", "does not fit", 9},
        {11, "    key: spki-b64", "does not fit", 9},
        {12, "    signature: {in: cookie, name: s, parse: plain, encoding: hex}", "one of: header",
         0},
        {12, "    signature: {in: header, name: s, parse: tagged, encoding: hex}", "needs `key`",
         0},
        {12, "    signature: {in: header, name: s, parse: positional, encoding: hex}",
         "needs `separator`", 0},
        {12, "    signature: {in: header, name: s, parse: numbered, encoding: hex}", "needs `max`",
         0},
        {12, "    signature: {in: json, name: s, parse: plain, encoding: hex}", "starts with", 0},
        {12, "    signature: {in: header, parse: plain, encoding: hex}", "needs the key 'name'", 0},
        {12, "    signature: {in: form, parse: plain, encoding: hex}", "needs the key 'name'", 0},
        {12, "    signature: {in: header, name: s, parse: plain, encoding: utf7}", "one of: hex",
         0},
        {12, "    signature: {in: header, name: s, parse: plain, encoding: hex, tag: v1}",
         "no key 'tag'", 0},
        {12, "    signature: {in: header, name: 'a b', parse: plain, encoding: hex}",
         "name of a header", 0},
        {12, "    signature: {in: header, name: [], parse: plain, encoding: hex}", "name", 0},
        {12, "    signature: {in: header, name: s, parse: kv, encoding: hex}", "needs `separator`",
         0},
        {12, "    signature: {in: header, name: s, parse: plain, key: v1, encoding: hex}",
         "`key` does not go with", 0},
        {12, "    signature: {in: header, name: s, parse: plain, encoding: hex}",
         "`in` does not fit", 9},
        {12,
         "    signature: {in: header, name: s, parse: kv, separator: '=', key: a, encoding: hex}",
         "separator", 0},
        {13, "    message: []", "message", 0},
        {13, "    message: [body]", "without it", 9},
        {13, "    message: [ts, 'json:x', body]", "starts with", 0},
        {13, "    message: [ts, 'header:a b', body]", "name of a header", 0},
        {13, "    message: [ts, bdoy]", "one of: body, ts", 0},
        {13, "    message: [ts, 'lit:', body]", "behind the colon", 0},
        {14, "    timestamp: {in: sigfield, name: t, unit: h, past: 5m, future: none}",
         "one of: s, ms", 0},
        {14, "    timestamp: {in: json, name: t, unit: s, past: 5m, future: none}", "starts with",
         0},
        {14, "    timestamp: {in: jwt, name: iat, unit: s, past: 5m, future: none}",
         "`in` does not fit", 9},
        {14, "    timestamp: {in: sigfield, name: t, unit: s, past: soon, future: none}", "past",
         0},
        {14, "    timestamp: {in: sigfield, name: t, unit: s, past: 5m}", "needs the key 'future'",
         0},
        {14, "    timestamp: {in: header, name: 'b d', unit: s, past: 5m, future: 5m}",
         "name of a header", 0},
        {14, "", "needs `timestamp`", 9},
        {14, "    serve_tolerance: 5m", "needs `timestamp`", 9},
        {14,
         "    timestamp: {in: sigfield, name: t, unit: s, past: 5m, future: 5m}\n    "
         "serve_tolerance: 1d",
         "shorter", 9},
        {16, "  id: id", "/POINTER", 0},
        {16, "  id: /a~2", "~0 or ~1", 0},
        {16, "  id: lit:same", "no place here", 0},
        {16, "  id: form:MessageSid", "a value is", 0},
        {16, "  id: {a: b}", "value", 0},
        {17, "  composite_optional: [/a]", "needs `composite`", 16},
        {18, "  typ: /type", "has no key 'typ'", 0},
        {18, "", "need `type`", 16},
        {19, "  type_map: {open: openned}", "one of: sent", 0},
        {19, "  type_map: [open]", "mapping", 0},
        {19, "  type_map: {open: opened, open: sent}", "duplicate", 0},
        {19, "  type_map: {[a]: opened}", "key has to be text", 0},
        {21, "  channel: fax", "one of: none, email", 0},
        {23, "  occurred_at: /at", "mapping", 0},
        {23, "  occurred_at: {from: /at, unit: days}", "one of: s, ms", 0},
        {24, "  split: entry", "starts with '/'", 0},
        {25, "  map: {enrolment_id: /e}", "has no key 'enrolment_id'", 0},
        {25, "  map: {enrollment_id: e}", "/POINTER", 0},
        {25, "  map: {enrollment_id: /e}\n---\nprovider: other", "second document", 27},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct oh_catalog *catalog;
        struct oh_error err = {.text = ""};
        char *text = file_with(rows[i].line, rows[i].instead);
        if (load_shared(text, strlen(text), &catalog, &err) != OH_INVALID)
            fail_msg("'%s' was taken", rows[i].instead);
        int at = rows[i].at ? rows[i].at : rows[i].line;
        if (err.line != at || !strstr(err.text, rows[i].says))
            fail_msg("'%s': expected line %d and '%s', got line %d: %s", rows[i].instead, at,
                     rows[i].says, err.line, err.text);
        assert_null(oh_catalog_find(catalog, "acme", NULL));
        free(text);
    }
}

static void broken_files_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"",     "\n",  "# nothing",  "a",           "[]",
                                        "{}",   "- a", "schemes: x", "schemes: []", "a: [",
                                        "a: {", "\t",  "%",          "---",         "..."};
    struct oh_catalog *catalog;
    struct oh_error err;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_int_equal(load_shared(texts[i], strlen(texts[i]), &catalog, &err), OH_INVALID);
        assert_true(err.text[0] != 0);
    }
    size_t len = 300 << 10;
    char *large = malloc(len);
    assert_non_null(large);
    memset(large, '[', len);
    assert_int_equal(load_shared(large, len, &catalog, &err), OH_INVALID);    /* too large */
    assert_int_equal(load_shared(large, 100000, &catalog, &err), OH_INVALID); /* too deep */
    free(large);
}

/* Every built-in file, cut at every byte and with every byte changed: refused or taken, never harm.
 * The sanitizers are the judge; the text has no byte behind its end. */
static void no_file_does_harm(void **state)
{
    (void)state;
    static const char bytes[] = {' ', '\n', ':', '*', '&', '[', '"', '\0', (char)0xff};
    struct oh_error err;
    /* Every 17th byte, another one in each file: the forms repeat in a hundred files, and replaced
     * recipes are kept. */
    enum { STEP = 17 };
    size_t first = 0;
    for (const struct embedded_file *file = embedded_catalog; file->name; file++) {
        first = (first + 1) % STEP;
        for (size_t at = first; at < file->len; at += STEP) {
            struct oh_catalog *catalog;
            char *text = malloc(file->len);
            assert_non_null(text);
            memcpy(text, file->text, file->len);
            text[at] = bytes[at % sizeof(bytes)];
            if (load_shared(text, file->len, &catalog, &err))
                assert_true(err.text[0] != 0);
            text = realloc(text, at + 1);
            assert_non_null(text);
            if (load_shared(text, at, &catalog, &err))
                assert_true(err.text[0] != 0);
            free(text);
        }
    }
}

static void names_stand_before_errors(void **state)
{
    (void)state;
    struct oh_catalog *catalog;
    struct oh_error err;
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    char *text = file_with(3, "confidence: huge");
    assert_int_equal(oh_catalog_add(catalog, "acme.yaml", text, strlen(text), &err), OH_INVALID);
    assert_int_equal(err.line, 3);
    assert_int_equal(strncmp(err.text, "acme.yaml:3: `confidence`", 25), 0);
    assert_int_equal(oh_catalog_add(catalog, "a.yaml", text, strlen(text), NULL), OH_INVALID);
    oh_catalog_free(catalog);
    free(text);
}

static void own_recipe_replaces_a_builtin_one(void **state)
{
    (void)state;
    struct oh_catalog *catalog;
    struct oh_error err;
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    size_t count = oh_catalog_count(catalog);
    const struct oh_recipe *before = oh_catalog_find(catalog, "stripe", "stripe");
    char *text = file_with(1, "provider: stripe");
    char *id = strstr(text, "id: acme");
    assert_non_null(id);
    assert_int_equal(oh_catalog_add(catalog, NULL, text, strlen(text), &err), OH_OK);
    assert_int_equal(oh_catalog_count(catalog), count + 1); /* a further scheme */
    assert_ptr_equal(oh_catalog_find(catalog, "stripe", NULL), before);
    assert_non_null(oh_catalog_find(catalog, "stripe", "acme"));
    assert_int_equal(oh_catalog_add(catalog, NULL, text, strlen(text), &err), OH_OK);
    assert_int_equal(oh_catalog_count(catalog), count + 1); /* replaced */
    assert_string_equal(before->info.title, "Stripe");
    oh_catalog_free(catalog);
    free(text);
}

static void hmac_options_make_a_recipe(void **state)
{
    (void)state;
    struct oh_catalog *catalog;
    struct oh_error err;
    const struct oh_recipe *recipe;
    struct oh_recipe_info info;
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    size_t count = oh_catalog_count(catalog);
    struct oh_hmac_options options = {.header = "X-Sig"};
    assert_int_equal(oh_catalog_add_hmac(catalog, &options, &recipe, &err), OH_OK);
    oh_recipe_describe(recipe, &info);
    assert_string_equal(info.algorithm, "hmac-sha256");
    assert_string_equal(info.key_grade, "hash");
    assert_int_equal(info.serve_tolerance_s, -1);
    assert_int_equal(recipe->signature.encoding, RECIPE_HEX);
    options = (struct oh_hmac_options){
        "X-Sig", "sha1", "base64", "sha1=", "/id", "header:X-Type", "/at", "/list/*"};
    assert_int_equal(oh_catalog_add_hmac(catalog, &options, &recipe, &err), OH_OK);
    assert_int_equal(recipe->algorithm, RECIPE_HMAC_SHA1);
    assert_int_equal(recipe->events.type[0].items[0].from, RECIPE_FROM_HEADER);
    assert_int_equal(recipe->events.occurred_at[0].unit, RECIPE_UNIT_AUTO);
    assert_false(recipe->events.split.tokens[1].each); /* a plain JSON pointer */
    assert_int_equal(recipe_find_type(&recipe->events, SLICE_LITERAL("viewed")), OH_EVENT_VIEWED);
    assert_int_equal(recipe_find_type(&recipe->events, SLICE_LITERAL("Viewed")), OH_EVENT_OTHER);
    assert_int_equal(oh_catalog_count(catalog), count);

    static const struct oh_hmac_options bad[] = {
        {.header = NULL},
        {.header = ""},
        {.header = "X Sig"},
        {.header = "X-Sig", .algorithm = "md5"},
        {.header = "X-Sig", .encoding = "HEX"},
        {.header = "X-Sig", .event_id = "id"},
        {.header = "X-Sig", .event_type = "lit:sent"},
        {.header = "X-Sig", .occurred_at = ""},
        {.header = "X-Sig", .events = "list"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(oh_catalog_add_hmac(catalog, &bad[i], &recipe, &err), OH_INVALID);
    oh_catalog_free(catalog);
    oh_catalog_free(NULL);
}

static void pointer_is_unescaped_and_bounded(void **state)
{
    (void)state;
    struct oh_arena *arena = oh_arena_new(1024, 1 << 20);
    struct pointer p;
    assert_int_equal(pointer_parse(SLICE_LITERAL(""), 0, arena, &p, NULL), OH_OK);
    assert_int_equal(p.count, 0);
    assert_int_equal(pointer_parse(slice_of(NULL, 0), 0, arena, &p, NULL), OH_OK);
    assert_int_equal(
        pointer_parse(SLICE_LITERAL("/a~1b/m~0n//0/01/12/*"), POINTER_EACH, arena, &p, NULL),
        OH_OK);
    assert_int_equal(p.count, 7);
    assert_true(slice_equals(p.tokens[0].name, SLICE_LITERAL("a/b")));
    assert_true(slice_equals(p.tokens[1].name, SLICE_LITERAL("m~n")));
    assert_int_equal(p.tokens[2].name.len, 0);
    assert_non_null(p.tokens[2].name.data);
    assert_int_equal(p.tokens[3].index, 0);
    assert_int_equal(p.tokens[4].index, POINTER_NO_INDEX);
    assert_int_equal(p.tokens[5].index, 12);
    assert_true(p.tokens[6].each);
    assert_int_equal(pointer_parse(SLICE_LITERAL("/*"), 0, arena, &p, NULL), OH_OK);
    assert_false(p.tokens[0].each);
    assert_int_equal(pointer_parse(SLICE_LITERAL("/~01"), 0, arena, &p, NULL), OH_OK);
    assert_true(slice_equals(p.tokens[0].name, SLICE_LITERAL("~1")));
    static const char *const bad[] = {"a", "/~", "/~2", "/a~/b", "#/a"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(pointer_parse(slice_of_text(bad[i]), 0, arena, &p, NULL), OH_INVALID);
    assert_int_equal(pointer_parse(slice_of("/a\0b", 4), 0, arena, &p, NULL), OH_INVALID);
    char many[POINTER_BYTES_MAX + 2];
    memset(many, '/', sizeof(many));
    assert_int_equal(pointer_parse(slice_of(many, POINTER_TOKENS_MAX), 0, arena, &p, NULL), OH_OK);
    assert_int_equal(pointer_parse(slice_of(many, POINTER_TOKENS_MAX + 1), 0, arena, &p, NULL),
                     OH_INVALID);
    memset(many + 1, 'x', sizeof(many) - 1);
    assert_int_equal(pointer_parse(slice_of(many, POINTER_BYTES_MAX), 0, arena, &p, NULL), OH_OK);
    assert_int_equal(pointer_parse(slice_of(many, POINTER_BYTES_MAX + 1), 0, arena, &p, NULL),
                     OH_INVALID);
    oh_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(builtin_recipes_load),
        cmocka_unit_test(sendgrid_words_map_to_the_contract),
        cmocka_unit_test(file_gives_what_it_says),
        cmocka_unit_test(every_mistake_is_an_error_with_its_line),
        cmocka_unit_test(broken_files_are_refused),
        cmocka_unit_test(no_file_does_harm),
        cmocka_unit_test(names_stand_before_errors),
        cmocka_unit_test(own_recipe_replaces_a_builtin_one),
        cmocka_unit_test(hmac_options_make_a_recipe),
        cmocka_unit_test(pointer_is_unescaped_and_bounded),
    };
    return cmocka_run_group_tests_name("recipe", tests, NULL, free_shared);
}
