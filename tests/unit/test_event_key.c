/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of the key ladder (oncehook/event.h): equal keys mean the same event, and what is
 * missing is equal to nothing. */
#include "event_support.h"

#include "base/encode.h"

#include <openssl/evp.h>

/* prefix + hex SHA-256, computed here and not by the code under test. */
static const char *digest_key(const char *prefix, struct oh_slice bytes)
{
    unsigned char digest[32];
    assert_int_equal(EVP_Digest(bytes.data, bytes.len, digest, NULL, EVP_sha256(), NULL), 1);
    char hex[HEX_BYTES(sizeof(digest))];
    hex_encode(digest, sizeof(digest), hex);
    return format("%s%.*s", prefix, (int)sizeof(hex), hex);
}

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
        char *body = format("{\"id\":\"%0*d\"}", (int)rows[i].len, 7);
        struct oh_event e = extract_one("", body);
        assert_int_equal(e.raw.len, strlen(body));
        assert_int_equal(e.grade, rows[i].usable ? OH_GRADE_ID : OH_GRADE_HASH);
        assert_int_equal(e.key.len, rows[i].usable ? rows[i].len : strlen("sha256:") + 64);
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
    /* The same pointer into the event and into what stands around it. */
    {"{split: /e, composite: [/id, 'body:/id']}", "{\"id\":\"B\",\"e\":[{\"id\":\"E\"}]}",
     "1:E,1:B,"},
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
        char *body = format("{\"a\":\"x\",\"b\":\"%0*d\"}", rows[i].len, 7);
        assert_int_equal(extract_one("", body).grade, rows[i].grade);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        EVENT_TEST(key_is_the_first_usable_id),
        EVENT_TEST(key_of_255_bytes_is_the_longest_id),
        EVENT_TEST(key_of_a_delivery_is_no_key_of_its_events),
        EVENT_TEST(composite_needs_all_its_fields),
        EVENT_TEST(composite_is_bounded),
        EVENT_TEST(composite_stands_beside_an_id),
        EVENT_TEST(hash_is_of_the_events_exact_bytes),
    };
    return cmocka_run_group_tests_name("event_key", tests, NULL, NULL);
}
