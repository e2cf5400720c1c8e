/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of oncehook/event.h: what becomes of an id, a type, a time and an owner, whatever the
 * provider or an attacker with a good signature sends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/encode.h"
#include "base/slice.h"
#include "oncehook/event.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define NOW_US        (INT64_C(1700000000) * 1000000)
#define EVENTS_MAX    100
#define UUID_A        "5f0c2a9e-7f5e-4f0e-8d0a-0b6f6a1f3c11"
#define UUID_B        "00000000-0000-0000-0000-00000000000b"

/* Everything before `events:` of a recipe; none of it matters here. */
#define RECIPE_HEAD                                                                 \
    "provider: test\n"                                                              \
    "title: Test\n"                                                                 \
    "confidence: high\n"                                                            \
    "proof: unconfirmed\n"                                                          \
    "id_scope: source\n"                                                            \
    "ack_budget: unknown\n"                                                         \
    "retries: {schedule: unknown, horizon: unknown}\n"                              \
    "schemes:\n"                                                                    \
    "  - id: test\n"                                                                \
    "    algorithm: hmac-sha256\n"                                                  \
    "    key: utf8\n"                                                               \
    "    signature: {in: header, name: x-signature, parse: plain, encoding: hex}\n" \
    "    message: [body]\n"

static struct oh_catalog *catalog;
static struct oh_mapping *mapping;
static struct oh_arena *arena;
static const struct oh_recipe *recipe;

static int setup(void **state)
{
    (void)state;
    arena = oh_arena_new(4096, (size_t)16 << 20);
    return arena ? 0 : -1;
}

static void recipe_free(void)
{
    oh_mapping_free(mapping);
    oh_catalog_free(catalog);
    mapping = NULL;
    catalog = NULL;
}

static int teardown(void **state)
{
    (void)state;
    recipe_free();
    oh_arena_free(arena);
    return 0;
}

/* A recipe with this `events:` (a YAML flow mapping). */
static void use_recipe(const char *events)
{
    char text[8192];
    struct oh_error err = {.line = 0};
    recipe_free();
    int len = snprintf(text, sizeof(text), RECIPE_HEAD "events: %s\n", events);
    assert_true(len > 0 && (size_t)len < sizeof(text));
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    if (oh_catalog_add(catalog, "test.yaml", text, (size_t)len, &err) != OH_OK)
        fail_msg("%s, line %d: %s", events, err.line, err.text);
    recipe = oh_catalog_find(catalog, "test", NULL);
    assert_non_null(recipe);
    if (oh_mapping_new(recipe, NULL, NULL, &mapping, &err) != OH_OK)
        fail_msg("%s: %s", events, err.text);
}

/* Headers as "name: value" lines that end in a newline each. */
static size_t parse_headers(const char *lines, struct oh_header *headers, size_t max)
{
    size_t count = 0;
    while (lines && *lines && count < max) {
        const char *colon = strstr(lines, ": "), *end = strchr(lines, '\n');
        headers[count++] = (struct oh_header){slice_of(lines, (size_t)(colon - lines)),
                                              slice_of(colon + 2, (size_t)(end - colon - 2))};
        lines = end + 1;
    }
    return count;
}

static struct oh_header headers[8];
static struct oh_error failure;

static enum oh_status extract_bytes(const char *header_lines, struct oh_slice body,
                                    struct oh_extraction *out)
{
    struct oh_request request = {
        .method = SLICE_LITERAL("POST"),
        .url = SLICE_LITERAL("https://hooks.example.com/in/test"),
        .headers = headers,
        .header_count = parse_headers(header_lines, headers, LENGTH(headers)),
        .body = body,
    };
    failure.text[0] = '\0';
    return oh_extract(recipe, mapping, &request, NOW_US, EVENTS_MAX, arena, out, &failure);
}

static struct oh_extraction extract(const char *header_lines, const char *body)
{
    struct oh_extraction out;
    if (extract_bytes(header_lines, slice_of_text(body), &out) != OH_OK)
        fail_msg("%s: %s", body, failure.text);
    return out;
}

static struct oh_event extract_one(const char *header_lines, const char *body)
{
    struct oh_extraction out = extract(header_lines, body);
    assert_int_equal(out.count, 1);
    return out.events[0];
}

static const char *text_of(struct oh_slice s)
{
    char *text = oh_arena_alloc(arena, s.len + 1);
    assert_non_null(text);
    if (s.len > 0)
        memcpy(text, s.data, s.len);
    text[s.len] = '\0';
    return text;
}

/* prefix + hex SHA-256, computed here and not by the code under test. */
static const char *digest_key(const char *prefix, struct oh_slice bytes)
{
    unsigned char digest[32];
    assert_int_equal(EVP_Digest(bytes.data, bytes.len, digest, NULL, EVP_sha256(), NULL), 1);
    char hex[64];
    hex_encode(digest, sizeof(digest), hex);
    char *text = oh_arena_alloc(arena, strlen(prefix) + sizeof(hex) + 1);
    assert_non_null(text);
    sprintf(text, "%s%.64s", prefix, hex);
    return text;
}

/* ---- names -------------------------------------------------------------------------------------
 */

static void names_are_the_contracts(void **state)
{
    (void)state;
    assert_string_equal(oh_event_type_name(OH_EVENT_SENT), "sent");
    assert_string_equal(oh_event_type_name(OH_EVENT_UNSUBSCRIBED), "unsubscribed");
    assert_string_equal(oh_event_type_name(OH_EVENT_OTHER), "other");
    assert_int_equal(OH_EVENT_TYPE_COUNT, 13);
    assert_null(oh_channel_name(OH_CHANNEL_NONE));
    assert_string_equal(oh_channel_name(OH_CHANNEL_EMAIL), "email");
    assert_string_equal(oh_channel_name(OH_CHANNEL_LINKEDIN), "linkedin");
    assert_string_equal(oh_channel_name(OH_CHANNEL_VIDEO), "video");
    assert_string_equal(oh_channel_name(OH_CHANNEL_SMS), "sms");
    assert_string_equal(oh_channel_name(OH_CHANNEL_PHONE), "phone");
    assert_string_equal(oh_key_grade_name(OH_GRADE_ID), "id");
    assert_string_equal(oh_key_grade_name(OH_GRADE_COMPOSITE), "composite");
    assert_string_equal(oh_key_grade_name(OH_GRADE_HASH), "hash");
}

/* ---- the key ladder ----------------------------------------------------------------------------
 */

/* key NULL: the hash of the event's bytes. */
static const struct {
    const char *events, *headers, *body, *key;
} ids[] = {
    {"{id: /id}", "", "{\"id\":\"a\"}", "a"},
    {"{id: /id}", "", "{\"id\":\" a \"}", " a "},
    {"{id: /id}", "", "{\"id\":12345678901234567890123}", "12345678901234567890123"},
    {"{id: /id}", "", "{\"id\":12345678901234567890124}", "12345678901234567890124"},
    {"{id: /id}", "", "{\"id\":9007199254740993}", "9007199254740993"},
    {"{id: /id}", "", "{\"id\":1e400}", "1e400"},
    {"{id: /id}", "", "{\"id\":1.0}", "1.0"},
    {"{id: /id}", "", "{\"id\":0}", "0"},
    {"{id: /id}", "", "{\"id\":\"\\u00e9\\n\"}", "\xc3\xa9\n"},
    {"{id: /id}", "", "{\"id\":\"\xe2\x82\xac\"}", "\xe2\x82\xac"},
    {"{id: /id}", "", "{\"id\":\"\\ud83d\\ude00\"}", "\xf0\x9f\x98\x80"},
    {"{id: /id}", "", "{}", NULL},
    {"{id: /id}", "", "{\"id\":\"\"}", NULL},
    {"{id: /id}", "", "{\"id\":null}", NULL},
    {"{id: /id}", "", "{\"id\":true}", NULL},
    {"{id: /id}", "", "{\"id\":{}}", NULL},
    {"{id: /id}", "", "{\"id\":[\"a\"]}", NULL},
    {"{id: /id}", "", "{\"id\":\"a\\u0000b\"}", NULL},
    {"{id: /id}", "", "{\"id\":\"\\ud83d\"}", NULL},
    {"{id: /id}", "", "{\"id\":\"\\ude00\"}", NULL},
    {"{id: /id}", "", "{\"id\":\"\\ud83d\\u0041\"}", NULL},
    {"{id: /id}", "", "{\"id\":\"\xff\"}", NULL},
    {"{id: /id}", "", "{\"id\":\"\xed\xa0\x80\"}", NULL},
    {"{id: /id}", "", "{\"id\":\"a\",\"id\":\"b\"}", "b"},
    {"{id: /id}", "", "{\"id\":\"a\",\"id\":null}", NULL},
    {"{id: /id}", "", "3", NULL},
    /* Several places: the first that can be used. */
    {"{id: [/a, /b]}", "", "{\"a\":\"1\",\"b\":\"2\"}", "1"},
    {"{id: [/a, /b]}", "", "{\"b\":\"2\"}", "2"},
    {"{id: [/a, /b]}", "", "{\"a\":\"\",\"b\":\"2\"}", "2"},
    {"{id: [/a, /b]}", "", "{\"a\":\"\\u0000\",\"b\":\"2\"}", "2"},
    /* Headers. */
    {"{id: 'header:X-Id'}", "x-id: h1\n", "{}", "h1"},
    {"{id: 'header:X-Id'}", "X-ID: h1\n", "[{}]", "h1"},
    {"{id: 'header:X-Id'}", "", "{}", NULL},
    {"{id: 'header:X-Id'}", "x-id: \n", "{}", NULL},
    {"{id: 'header:X-Id'}", "x-id: \xff\n", "{}", NULL},
    {"{id: 'header:X-Id'}", "x-id: a\nx-id: a\n", "{}", NULL},
    {"{id: ['header:X-Id', /id]}", "", "{\"id\":5}", "5"},
    /* The body around one event. */
    {"{split: /e, id: 'body:/id'}", "", "{\"id\":\"d\",\"e\":[{}]}", "d"},
};

static void key_is_the_first_usable_id(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(ids); i++) {
        use_recipe(ids[i].events);
        struct oh_event e = extract_one(ids[i].headers, ids[i].body);
        const char *expected = ids[i].key ? ids[i].key : digest_key("sha256:", e.raw);
        if (strcmp(text_of(e.key), expected) != 0)
            fail_msg("row %zu: %s gives key %s", i, ids[i].body, text_of(e.key));
        assert_int_equal(e.grade, ids[i].key ? OH_GRADE_ID : OH_GRADE_HASH);
        assert_false(e.has_composite);
    }
}

static void key_of_255_bytes_is_the_longest_id(void **state)
{
    (void)state;
    static const struct {
        size_t len;
        bool usable;
    } rows[] = {{1, true}, {254, true}, {255, true}, {256, false}, {10000, false}};
    use_recipe("{id: /id}");
    for (size_t i = 0; i < LENGTH(rows); i++) {
        char *body = malloc(rows[i].len + 32);
        assert_non_null(body);
        int len = sprintf(body, "{\"id\":\"%0*d\"}", (int)rows[i].len, 7);
        struct oh_event e = extract_one("", body);
        assert_int_equal(e.raw.len, len);
        assert_int_equal(e.grade, rows[i].usable ? OH_GRADE_ID : OH_GRADE_HASH);
        assert_int_equal(e.key.len, rows[i].usable ? rows[i].len : strlen("sha256:") + 64);
        free(body);
    }
}

/* A header or a field of the envelope is the id of a delivery; with several events in it, it would
 * make them all equal. */
static void key_of_a_delivery_is_no_key_of_its_events(void **state)
{
    (void)state;
    static const struct {
        const char *events, *body;
    } rows[] = {
        {"{id: 'header:x-id'}", "[{\"a\":1},{\"a\":2}]"},
        {"{split: /e, id: 'body:/id'}", "{\"id\":\"x\",\"e\":[{\"a\":1},{\"a\":2}]}"},
        {"{id: 'header:x-id', composite: ['header:x-id']}", "[{\"a\":1},{\"a\":2}]"},
        {"{split: /e, composite: ['body:/id', 'header:x-id']}",
         "{\"id\":\"x\",\"e\":[{\"a\":1},{\"a\":2}]}"},
        {"{composite: ['header:x-id'], composite_optional: [/b]}", "[{\"a\":1},{\"a\":2}]"},
    };
    for (size_t i = 0; i < LENGTH(rows); i++) {
        use_recipe(rows[i].events);
        struct oh_extraction out = extract("x-id: delivery-1\n", rows[i].body);
        assert_int_equal(out.count, 2);
        assert_int_equal(out.events[0].grade, OH_GRADE_HASH);
        assert_int_equal(out.events[1].grade, OH_GRADE_HASH);
        assert_false(slice_equals(out.events[0].key, out.events[1].key));
        assert_false(out.events[0].has_composite);
    }
    /* Beside a field of the event it may help. */
    use_recipe("{composite: ['header:x-id', /a]}");
    struct oh_extraction out = extract("x-id: delivery-1\n", "[{\"a\":1},{\"a\":2}]");
    assert_int_equal(out.events[0].grade, OH_GRADE_COMPOSITE);
    assert_false(slice_equals(out.events[0].key, out.events[1].key));
}

/* text NULL: no composite, the hash decides. */
static const struct {
    const char *events, *body, *text;
} composites[] = {
    {"{composite: [/a, /b]}", "{\"a\":\"x\",\"b\":\"yz\"}", "1:x,2:yz,"},
    {"{composite: [/b, /a]}", "{\"a\":\"x\",\"b\":\"yz\"}", "2:yz,1:x,"},
    {"{composite: [/a, /b]}", "{\"a\":\"xy\",\"b\":\"z\"}", "2:xy,1:z,"},
    {"{composite: [/a, /b]}", "{\"a\":1.50,\"b\":true}", "4:1.50,4:true,"},
    {"{composite: [/a]}", "{\"a\":\"\\u00e9,1:x\"}", "6:\xc3\xa9,1:x,"},
    {"{composite: [/a, /b]}", "{\"a\":\"x\"}", NULL},
    {"{composite: [/a, /b]}", "{\"a\":\"x\",\"b\":null}", NULL},
    {"{composite: [/a, /b]}", "{\"a\":\"x\",\"b\":\"\"}", NULL},
    {"{composite: [/a, /b]}", "{\"a\":\"x\",\"b\":{}}", NULL},
    {"{composite: [/a, /b]}", "{\"a\":\"x\",\"b\":[1]}", NULL},
    {"{composite: [/a, /b]}", "{\"a\":\"x\",\"b\":\"\\ud800\"}", NULL},
    {"{composite: [/a, /b]}", "{\"a\":\"x\",\"b\":\"\\u0000\"}", NULL},
    {"{composite: [/a, /b]}", "{\"a\":\"x\",\"b\":\"\xff\"}", NULL},
    {"{composite: [/a], composite_optional: [/b, /c]}", "{\"a\":\"x\"}", "1:x,-,-,"},
    {"{composite: [/a], composite_optional: [/b, /c]}", "{\"a\":\"x\",\"b\":\"y\"}", "1:x,1:y,-,"},
    {"{composite: [/a], composite_optional: [/b, /c]}", "{\"a\":\"x\",\"c\":\"y\"}", "1:x,-,1:y,"},
    {"{composite: [/a], composite_optional: [/b, /c]}", "{\"a\":\"x\",\"b\":null,\"c\":\"\"}",
     "1:x,-,0:,"},
    {"{composite: [/a], composite_optional: [/b]}", "{\"a\":\"x\",\"b\":\"-\"}", "1:x,1:-,"},
    {"{composite: [/a], composite_optional: [/b]}", "{\"a\":\"x\",\"b\":{}}", NULL},
    {"{composite: [/a], composite_optional: [/b]}", "{\"a\":\"x\",\"b\":\"\\udc00\"}", NULL},
    {"{composite: [/a], composite_optional: [/b]}", "{\"b\":\"x\"}", NULL},
};

static void composite_needs_all_its_fields(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(composites); i++) {
        use_recipe(composites[i].events);
        struct oh_event e = extract_one("", composites[i].body);
        const char *expected = composites[i].text
                                   ? digest_key("composite:", slice_of_text(composites[i].text))
                                   : digest_key("sha256:", e.raw);
        if (strcmp(text_of(e.key), expected) != 0)
            fail_msg("row %zu: %s gives key %s", i, composites[i].body, text_of(e.key));
        assert_int_equal(e.grade, composites[i].text ? OH_GRADE_COMPOSITE : OH_GRADE_HASH);
        assert_int_equal(e.has_composite, composites[i].text != NULL);
    }
}

static void composite_is_bounded(void **state)
{
    (void)state;
    static const struct {
        int len;
        enum oh_key_grade grade;
    } rows[] = {{16000, OH_GRADE_COMPOSITE}, {16400, OH_GRADE_HASH}, {100000, OH_GRADE_HASH}};
    use_recipe("{composite: [/a, /b]}");
    for (size_t i = 0; i < LENGTH(rows); i++) {
        char *body = malloc((size_t)rows[i].len + 64);
        assert_non_null(body);
        sprintf(body, "{\"a\":\"x\",\"b\":\"%0*d\"}", rows[i].len, 7);
        assert_int_equal(extract_one("", body).grade, rows[i].grade);
        free(body);
    }
}

static void composite_stands_beside_an_id(void **state)
{
    (void)state;
    use_recipe("{id: /id, composite: [/a, /b]}");
    struct oh_event first = extract_one("", "{\"id\":\"1\",\"a\":1,\"b\":2}");
    struct oh_event same = extract_one("", "{\"id\":\"2\",\"a\":1,\"b\":2}");
    struct oh_event other = extract_one("", "{\"id\":\"1\",\"a\":12,\"b\":\"\"}");
    struct oh_event third = extract_one("", "{\"id\":\"3\",\"a\":1,\"b\":3}");
    assert_int_equal(first.grade, OH_GRADE_ID);
    assert_true(first.has_composite && same.has_composite && third.has_composite);
    assert_false(other.has_composite);
    assert_memory_equal(first.composite, same.composite, sizeof(first.composite));
    assert_memory_not_equal(first.composite, third.composite, sizeof(first.composite));
}

static void hash_is_of_the_events_exact_bytes(void **state)
{
    (void)state;
    use_recipe("{}");
    struct oh_extraction out = extract("", "[ {\"a\":1}, {\"a\": 1},{\"a\":1} ,5]");
    assert_int_equal(out.count, 4);
    assert_string_equal(text_of(out.events[0].key),
                        digest_key("sha256:", SLICE_LITERAL("{\"a\":1}")));
    assert_false(slice_equals(out.events[0].key, out.events[1].key));
    assert_true(slice_equals(out.events[0].key, out.events[2].key));
    assert_string_equal(text_of(out.events[3].key), digest_key("sha256:", SLICE_LITERAL("5")));
    /* The same event alone, with other white space around it, has the same key. */
    assert_true(slice_equals(extract_one("", "\r\n{\"a\":1}\n").key, out.events[0].key));
}

/* ---- type, channel, pings ----------------------------------------------------------------------
 */

#define TYPES                                                       \
    "{type: [[/t, 'lit:.', /u], /t, 'header:x-type'],"              \
    " type_map: {open: opened, click.twice: clicked, '5': failed}," \
    " channel: email, channel_map: {call: phone}, pings: [ping, noop]}"

static const struct {
    const char *headers, *body, *word;
    enum oh_event_type type;
    enum oh_channel channel;
} types[] = {
    {"", "{\"t\":\"open\"}", "open", OH_EVENT_OPENED, OH_CHANNEL_EMAIL},
    {"", "{\"t\":\"click\",\"u\":\"twice\"}", "click.twice", OH_EVENT_CLICKED, OH_CHANNEL_EMAIL},
    {"", "{\"t\":\"click\"}", "click", OH_EVENT_OTHER, OH_CHANNEL_EMAIL},
    {"", "{\"t\":\"Open\"}", "Open", OH_EVENT_OTHER, OH_CHANNEL_EMAIL},
    {"", "{\"t\":\"opened\"}", "opened", OH_EVENT_OTHER, OH_CHANNEL_EMAIL},
    {"", "{\"t\":\"call\"}", "call", OH_EVENT_OTHER, OH_CHANNEL_PHONE},
    {"", "{\"t\":5}", "5", OH_EVENT_FAILED, OH_CHANNEL_EMAIL},
    {"", "{\"t\":true}", "true", OH_EVENT_OTHER, OH_CHANNEL_EMAIL},
    {"x-type: open\n", "{}", "open", OH_EVENT_OPENED, OH_CHANNEL_EMAIL},
    {"x-type: open\n", "{\"t\":null}", "open", OH_EVENT_OPENED, OH_CHANNEL_EMAIL},
    {"x-type: open\n", "{\"t\":\"\\u0000\"}", "open", OH_EVENT_OPENED, OH_CHANNEL_EMAIL},
    {"x-type: open\n", "{\"t\":\"call\"}", "call", OH_EVENT_OTHER, OH_CHANNEL_PHONE},
    {"", "{}", "", OH_EVENT_OTHER, OH_CHANNEL_EMAIL},
    {"", "7", "", OH_EVENT_OTHER, OH_CHANNEL_EMAIL},
    {"", "{\"t\":{}}", "", OH_EVENT_OTHER, OH_CHANNEL_EMAIL},
    {"", "{\"t\":\"\"}", "", OH_EVENT_OTHER, OH_CHANNEL_EMAIL},
    {"", "{\"t\":\"\\ud800\"}", "", OH_EVENT_OTHER, OH_CHANNEL_EMAIL},
    {"", "{\"t\":\"\xff\"}", "", OH_EVENT_OTHER, OH_CHANNEL_EMAIL},
    {"x-type: \xff\n", "{}", "", OH_EVENT_OTHER, OH_CHANNEL_EMAIL},
};

static void type_is_the_first_complete_alternative(void **state)
{
    (void)state;
    use_recipe(TYPES);
    for (size_t i = 0; i < LENGTH(types); i++) {
        struct oh_event e = extract_one(types[i].headers, types[i].body);
        if (strcmp(text_of(e.provider_type), types[i].word) != 0 || e.type != types[i].type ||
            e.channel != types[i].channel)
            fail_msg("row %zu: %s gives %s, %s", i, types[i].body, text_of(e.provider_type),
                     oh_event_type_name(e.type));
    }
}

static void type_is_cut_between_characters(void **state)
{
    (void)state;
    use_recipe("{type: [[/t, /u]]}");
    static const struct {
        size_t ascii;
        const char *tail;
        size_t kept;
    } rows[] = {
        {255, "", 255},
        {256, "", 255},
        {253, "\xc3\xa9", 255},
        {254, "\xc3\xa9", 254},
        {252, "\xf0\x9f\x98\x80", 252},
        {251, "\xf0\x9f\x98\x80", 255},
        {1023, "\xc3\xa9", 255},
        {5000, "\xc3\xa9", 255},
    };
    for (size_t i = 0; i < LENGTH(rows); i++) {
        char *body = malloc(rows[i].ascii + 64);
        assert_non_null(body);
        sprintf(body, "{\"t\":\"%0*d\",\"u\":\"%s\"}", (int)rows[i].ascii, 0, rows[i].tail);
        if (rows[i].tail[0] == '\0')
            sprintf(body, "{\"t\":\"%0*d\",\"u\":\"\"}", (int)rows[i].ascii, 0);
        struct oh_event e = extract_one("", body);
        assert_int_equal(e.provider_type.len, rows[i].kept);
        free(body);
    }
}

static void type_of_the_contract_passes_where_the_recipe_says_so(void **state)
{
    (void)state;
    use_recipe("{type: /t, canonical_types: true}");
    for (int type = 0; type < OH_EVENT_TYPE_COUNT; type++) {
        char body[64];
        sprintf(body, "{\"t\":\"%s\"}", oh_event_type_name((enum oh_event_type)type));
        assert_int_equal(extract_one("", body).type, type);
    }
    assert_int_equal(extract_one("", "{\"t\":\"read\"}").type, OH_EVENT_OTHER);
}

static void pings_are_no_events(void **state)
{
    (void)state;
    use_recipe(TYPES);
    assert_int_equal(extract("", "{\"t\":\"ping\"}").count, 0);
    assert_int_equal(extract("x-type: noop\n", "{}").count, 0);
    assert_int_equal(extract("", "{\"t\":\"pings\"}").count, 1);
    struct oh_extraction out = extract("", "[{\"t\":\"ping\"},{\"t\":\"open\"},{\"t\":\"noop\"}]");
    assert_int_equal(out.count, 1);
    assert_int_equal(out.events[0].type, OH_EVENT_OPENED);
}

/* ---- time --------------------------------------------------------------------------------------
 */

#define TIMES "{occurred_at: [{from: /s, unit: s}, {from: /ms, unit: ms}, {from: /iso, unit: iso}]}"

static const struct {
    const char *body;
    int64_t us;
} times[] = {
    {"{\"s\":1600000000}", INT64_C(1600000000) * 1000000},
    {"{\"s\":\"1600000000.5\"}", INT64_C(1600000000) * 1000000 + 500000},
    {"{\"ms\":1600000000123}", INT64_C(1600000000) * 1000000 + 123000},
    {"{\"iso\":\"2020-09-13T12:26:40+00:00\"}", INT64_C(1600000000) * 1000000},
    {"{\"s\":\"soon\",\"ms\":1600000000000}", INT64_C(1600000000) * 1000000},
    {"{\"s\":null,\"iso\":\"2020-09-13T12:26:40\"}", INT64_C(1600000000) * 1000000},
    {"{\"s\":1e999,\"ms\":1600000000000}", INT64_C(1600000000) * 1000000},
    {"{\"s\":0,\"ms\":1600000000000}", NOW_US},
    {"{\"s\":-1600000000}", NOW_US},
    {"{\"s\":946684799.999999}", NOW_US},
    {"{\"s\":946684800}", INT64_C(946684800) * 1000000},
    {"{\"s\":1700086400}", NOW_US + INT64_C(86400) * 1000000},
    {"{\"s\":1700086400.000001}", NOW_US},
    {"{\"iso\":\"9999-12-31T23:59:59Z\"}", NOW_US},
    {"{\"iso\":\"0000-00-00\"}", NOW_US},
    {"{\"s\":true}", NOW_US},
    {"{\"s\":{}}", NOW_US},
    {"{\"s\":1e999}", NOW_US},
    {"{\"s\":-1e-999999999999}", NOW_US},
    {"{}", NOW_US},
    {"[1]", NOW_US},
};

static void time_is_the_first_readable_within_the_window(void **state)
{
    (void)state;
    use_recipe(TIMES);
    for (size_t i = 0; i < LENGTH(times); i++) {
        struct oh_event e = extract_one("", times[i].body);
        if (e.occurred_at_us != times[i].us)
            fail_msg("row %zu: %s gives %lld", i, times[i].body, (long long)e.occurred_at_us);
    }
}

/* ---- enrollment and instance -------------------------------------------------------------------
 */

static void owner_that_is_no_uuid_names_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        bool enrollment, instance;
    } rows[] = {
        {"{\"e\":\"" UUID_A "\",\"i\":\"" UUID_B "\"}", true, true},
        {"{\"e\":\"5F0C2A9E-7F5E-4F0E-8D0A-0B6F6A1F3C11\"}", true, false},
        {"{\"e\":\"\\u0035f0c2a9e-7f5e-4f0e-8d0a-0b6f6a1f3c11\"}", true, false},
        {"{\"i\":\"" UUID_A "\"}", false, true},
        {"{\"e\":\"" UUID_A " \"}", false, false},
        {"{\"e\":\"{" UUID_A "}\"}", false, false},
        {"{\"e\":\"5f0c2a9e7f5e4f0e8d0a0b6f6a1f3c11\"}", false, false},
        {"{\"e\":\"\",\"i\":null}", false, false},
        {"{\"e\":12345678901234567890123456789012}", false, false},
        {"{\"e\":[\"" UUID_A "\"]}", false, false},
        {"{\"e\":\"" UUID_A "\\u0000\"}", false, false},
        {"{}", false, false},
        {"1", false, false},
    };
    use_recipe("{map: {enrollment_id: /e, instance_id: /i}}");
    uint8_t a[16];
    assert_true(uuid_parse(SLICE_LITERAL(UUID_A), a));
    for (size_t i = 0; i < LENGTH(rows); i++) {
        struct oh_event e = extract_one("", rows[i].body);
        assert_int_equal(e.has_enrollment, rows[i].enrollment);
        assert_int_equal(e.has_instance, rows[i].instance);
        if (e.has_enrollment)
            assert_memory_equal(e.enrollment_id, a, 16);
    }
}

static void mapping_of_the_source_stands_before_the_recipes(void **state)
{
    (void)state;
    struct oh_error err;
    use_recipe("{map: {enrollment_id: /e, instance_id: /i}}");
    oh_mapping_free(mapping);
    assert_int_equal(oh_mapping_new(recipe, "/x/y", "header:x-instance", &mapping, &err), OH_OK);
    struct oh_event e = extract_one("x-instance: " UUID_B "\n",
                                    "{\"e\":\"" UUID_B "\",\"x\":{\"y\":\"" UUID_A "\"}}");
    uint8_t uuid[16];
    assert_true(e.has_enrollment && uuid_parse(SLICE_LITERAL(UUID_A), uuid));
    assert_memory_equal(e.enrollment_id, uuid, 16);
    assert_true(e.has_instance && uuid_parse(SLICE_LITERAL(UUID_B), uuid));
    assert_memory_equal(e.instance_id, uuid, 16);
    static const char *const malformed[] = {"x", "/~2", "/a~", "lit:a", "header:", "header:a b"};
    for (size_t i = 0; i < LENGTH(malformed); i++) {
        struct oh_mapping *none = mapping;
        err.text[0] = '\0';
        assert_int_equal(oh_mapping_new(recipe, malformed[i], NULL, &none, &err), OH_INVALID);
        assert_null(none);
        assert_int_not_equal(err.text[0], '\0');
        assert_int_equal(oh_mapping_new(recipe, NULL, malformed[i], &none, &err), OH_INVALID);
    }
    oh_mapping_free(NULL);
}

/* ---- payload -----------------------------------------------------------------------------------
 */

static void payload_is_the_exact_bytes_that_jsonb_can_hold(void **state)
{
    (void)state;
    use_recipe("{id: /id}");
    struct oh_extraction out = extract(
        "", "[{\"id\":1},{\"id\":\"\\u0000\"},{\"id\" : 3},{\"x\":\"\xff\"},{\"x\":1e999},{}]");
    static const bool held[] = {true, false, true, false, false, true};
    assert_int_equal(out.count, LENGTH(held));
    for (size_t i = 0; i < LENGTH(held); i++) {
        assert_non_null(out.events[i].raw.data);
        if (held[i])
            assert_true(out.events[i].payload.data == out.events[i].raw.data &&
                        out.events[i].payload.len == out.events[i].raw.len);
        else
            assert_null(out.events[i].payload.data);
    }
}

/* ---- forms -------------------------------------------------------------------------------------
 */

#define FORM_TYPE "content-type: application/x-www-form-urlencoded\n"

static const struct {
    const char *headers, *body, *raw; /* raw NULL: unreadable */
} forms[] = {
    {FORM_TYPE, "payload=%7B%22id%22%3A%22a+b%2Bc%22%7D", "{\"id\":\"a b+c\"}"},
    {FORM_TYPE, "payload={\"id\":\"1\"}", "{\"id\":\"1\"}"},
    {FORM_TYPE, "a=1&payload=%5b1%5D&b", "1"},
    {FORM_TYPE, "p%61yload=7", "7"},
    {FORM_TYPE, "payload=%225%zz%2%22", "\"5%zz%2\""},
    {"content-type: application/x-www-form-urlencoded; charset=utf-8\n", "payload=7", "7"},
    {"Content-Type: APPLICATION/X-WWW-FORM-URLENCODED\n", "payload=7", "7"},
    {FORM_TYPE, "payload=", NULL},
    {FORM_TYPE, "payload", NULL},
    {FORM_TYPE, "", NULL},
    {FORM_TYPE, "payloads=7", NULL},
    {FORM_TYPE, "payloa=7", NULL},
    {FORM_TYPE, "payload=7&payload=7", NULL},
    {FORM_TYPE, "{\"id\":1}", NULL},
    {FORM_TYPE, "payload=%7B", NULL},
    {"content-type: application/json\n", "{\"id\":1}", "{\"id\":1}"},
    {"content-type: application/json\n", "payload=7", NULL},
    {"content-type: application/x-www-form-urlencodedx\n", "{}", "{}"},
    {FORM_TYPE FORM_TYPE, "payload=7", NULL},
    {"", "{\"id\":1}", "{\"id\":1}"},
};

static void form_gives_the_json_of_its_field(void **state)
{
    (void)state;
    use_recipe("{id: /id, form_json_field: payload}");
    for (size_t i = 0; i < LENGTH(forms); i++) {
        struct oh_extraction out;
        enum oh_status status = extract_bytes(forms[i].headers, slice_of_text(forms[i].body), &out);
        if (status != (forms[i].raw ? OH_OK : OH_UNREADABLE))
            fail_msg("row %zu: %s: status %d, %s", i, forms[i].body, status, failure.text);
        if (!forms[i].raw)
            continue;
        assert_int_equal(out.count, 1);
        assert_string_equal(text_of(out.events[0].raw), forms[i].raw);
        assert_string_equal(text_of(out.events[0].payload), forms[i].raw);
    }
}

/* ---- the door ----------------------------------------------------------------------------------
 */

static void extract_says_why_a_body_is_unreadable(void **state)
{
    (void)state;
    use_recipe("{id: /id}");
    static const char *const bodies[] = {"",       " ",    "not json", "{\"id\":\"secret-1\"",
                                         "<xml/>", "[1]]", "a=b&c=d"};
    for (size_t i = 0; i < LENGTH(bodies); i++) {
        struct oh_extraction out = {NULL, 7};
        assert_int_equal(extract_bytes("", slice_of_text(bodies[i]), &out), OH_UNREADABLE);
        assert_int_equal(out.count, 0);
        assert_int_not_equal(failure.text[0], '\0');
        assert_null(strstr(failure.text, "secret-1"));
    }
    struct oh_extraction out;
    assert_int_equal(extract_bytes("", slice_of(NULL, 0), &out), OH_UNREADABLE);
}

static void extract_takes_no_more_than_the_bound(void **state)
{
    (void)state;
    use_recipe("{id: /id}");
    char body[4 * EVENTS_MAX] = "[";
    for (int i = 0; i < EVENTS_MAX - 1; i++)
        strcat(body, "1,");
    struct oh_extraction out;
    strcat(body, "1]");
    assert_int_equal(extract_bytes("", slice_of_text(body), &out), OH_OK);
    assert_int_equal(out.count, EVENTS_MAX);
    strcpy(strrchr(body, ']'), ",1]");
    assert_int_equal(extract_bytes("", slice_of_text(body), &out), OH_TOO_MANY);
    assert_int_equal(extract_bytes("", SLICE_LITERAL("[]"), &out), OH_OK);
    assert_int_equal(out.count, 0);
}

static void extract_ends_cleanly_wherever_memory_ends(void **state)
{
    (void)state;
    use_recipe("{id: /id, composite: [/a, /b], type: [[/t, 'lit:-', /t]], form_json_field: p,"
               " occurred_at: {from: /at, unit: auto}}");
    struct oh_request request = {
        .headers = headers,
        .header_count = parse_headers(FORM_TYPE, headers, LENGTH(headers)),
        .body = SLICE_LITERAL("p=[{\"id\":\"\\u0061\",\"t\":\"x\"},{\"a\":1,\"b\":\"\\n\"},{}]"),
    };
    bool refused = false, done = false;
    for (size_t bytes = 16; bytes < 20000; bytes += 16) {
        struct oh_arena *small = oh_arena_new(16, bytes);
        struct oh_extraction out;
        enum oh_status status =
            oh_extract(recipe, mapping, &request, NOW_US, EVENTS_MAX, small, &out, &failure);
        assert_true(status == OH_OK || status == OH_NO_MEMORY);
        refused |= status == OH_NO_MEMORY;
        done |= status == OH_OK && out.count == 3;
        oh_arena_free(small);
    }
    assert_true(refused && done);
}

/* ---- built-in recipes --------------------------------------------------------------------------
 */

static void use_builtin(const char *provider)
{
    recipe_free();
    struct oh_error err;
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    recipe = oh_catalog_find(catalog, provider, NULL);
    assert_non_null(recipe);
    assert_int_equal(oh_mapping_new(recipe, NULL, NULL, &mapping, &err), OH_OK);
}

static void builtin_github_reads_headers_and_forms(void **state)
{
    (void)state;
    use_builtin("github");
    static const char lines[] = "x-github-delivery: " UUID_A "\nx-github-event: issues\n" FORM_TYPE;
    struct oh_event e = extract_one(lines, "payload=%7B%22action%22%3A%22opened%22%7D");
    assert_string_equal(text_of(e.key), UUID_A);
    assert_string_equal(text_of(e.provider_type), "issues.opened");
    assert_string_equal(text_of(e.raw), "{\"action\":\"opened\"}");
    assert_int_equal(e.occurred_at_us, NOW_US);
    e = extract_one("x-github-event: push\n", "{}");
    assert_string_equal(text_of(e.provider_type), "push");
    assert_int_equal(e.grade, OH_GRADE_HASH);
    assert_int_equal(extract("x-github-event: ping\n", "{\"zen\":\"x\"}").count, 0);
}

static void builtin_sendgrid_falls_from_id_to_composite_to_hash(void **state)
{
    (void)state;
    use_builtin("sendgrid");
    struct oh_extraction out = extract(
        "", "[{\"sg_event_id\":\"e1\",\"sg_message_id\":\"m\",\"event\":\"open\",\"email\":\"a@b\","
            "\"timestamp\":1600000000,\"enrollment_id\":\"" UUID_A "\"},"
            "{\"sg_message_id\":\"m\",\"event\":\"unsubscribe\",\"email\":\"a@b\","
            "\"timestamp\":1600000000},"
            "{\"event\":\"bounce\",\"email\":\"a@b\",\"timestamp\":1600000000}]\r\n");
    assert_int_equal(out.count, 3);
    static const enum oh_key_grade grades[] = {OH_GRADE_ID, OH_GRADE_COMPOSITE, OH_GRADE_HASH};
    static const enum oh_event_type kinds[] = {OH_EVENT_OPENED, OH_EVENT_UNSUBSCRIBED,
                                               OH_EVENT_BOUNCED};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(out.events[i].grade, grades[i]);
        assert_int_equal(out.events[i].type, kinds[i]);
        assert_int_equal(out.events[i].channel, OH_CHANNEL_EMAIL);
        assert_int_equal(out.events[i].occurred_at_us, INT64_C(1600000000) * 1000000);
    }
    assert_true(out.events[0].has_enrollment && out.events[0].has_composite);
    assert_string_equal(text_of(out.events[0].key), "e1");
}

static void builtin_stripe_reads_seconds_and_iso(void **state)
{
    (void)state;
    use_builtin("stripe");
    struct oh_event e = extract_one(
        "", "{\"id\":\"evt_1\",\"type\":\"charge.refunded\",\"created\":1600000000,\"data\":"
            "{\"object\":{\"metadata\":{\"enrollment_id\":\"" UUID_A "\"}}}}");
    assert_string_equal(text_of(e.key), "evt_1");
    assert_string_equal(text_of(e.provider_type), "charge.refunded");
    assert_true(e.has_enrollment);
    assert_int_equal(e.occurred_at_us, INT64_C(1600000000) * 1000000);
    e = extract_one("", "{\"id\":\"evt_2\",\"created\":\"2020-09-13T12:26:40.5Z\"}");
    assert_int_equal(e.occurred_at_us, INT64_C(1600000000) * 1000000 + 500000);
}

int main(void)
{
#define ROW(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        ROW(names_are_the_contracts),
        ROW(key_is_the_first_usable_id),
        ROW(key_of_255_bytes_is_the_longest_id),
        ROW(key_of_a_delivery_is_no_key_of_its_events),
        ROW(composite_needs_all_its_fields),
        ROW(composite_is_bounded),
        ROW(composite_stands_beside_an_id),
        ROW(hash_is_of_the_events_exact_bytes),
        ROW(type_is_the_first_complete_alternative),
        ROW(type_is_cut_between_characters),
        ROW(type_of_the_contract_passes_where_the_recipe_says_so),
        ROW(pings_are_no_events),
        ROW(time_is_the_first_readable_within_the_window),
        ROW(owner_that_is_no_uuid_names_nothing),
        ROW(mapping_of_the_source_stands_before_the_recipes),
        ROW(payload_is_the_exact_bytes_that_jsonb_can_hold),
        ROW(form_gives_the_json_of_its_field),
        ROW(extract_says_why_a_body_is_unreadable),
        ROW(extract_takes_no_more_than_the_bound),
        ROW(extract_ends_cleanly_wherever_memory_ends),
        ROW(builtin_github_reads_headers_and_forms),
        ROW(builtin_sendgrid_falls_from_id_to_composite_to_hash),
        ROW(builtin_stripe_reads_seconds_and_iso),
    };
#undef ROW
    return cmocka_run_group_tests_name("event", tests, NULL, NULL);
}
