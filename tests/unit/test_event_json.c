/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of event/scan.h about JSON: what is readable, what of it PostgreSQL's jsonb takes, and
 * that neither depth nor size nor a full arena does any harm. */
#include "event_support.h"

#include "body/text.h"

#include <stdlib.h>

#define BYTES(text) text, sizeof(text) - 1

enum judged { NOT_JSON, NOT_JSONB, JSONB };

/* `postgres`: what SELECT convert_from(BYTES, 'UTF8')::jsonb of PostgreSQL 15.20 (UTF-8 database)
 * said of the same bytes: true = a value, false = an error. */
static const struct {
    const char *body;
    size_t len;
    enum judged judged;
    bool postgres;
} documents[] = {
    {BYTES(""), NOT_JSON, false},
    {BYTES(" "), NOT_JSON, false},
    {BYTES("{}"), JSONB, true},
    {BYTES("[]"), JSONB, true},
    {BYTES(" [] "), JSONB, true},
    {BYTES("\t\n\r []"), JSONB, true},
    {BYTES("{\"a\":\0131}"), NOT_JSONB, false},
    {BYTES("{\"a\":1\014}"), NOT_JSONB, false},
    {BYTES("{\"a\"\014:1}"), NOT_JSONB, false},
    {BYTES("[]"), JSONB, true},
    {BYTES("12"), JSONB, true},
    {BYTES("-0"), JSONB, true},
    {BYTES("0"), JSONB, true},
    {BYTES("00"), NOT_JSON, false},
    {BYTES("01"), NOT_JSON, false},
    {BYTES("-01"), NOT_JSON, false},
    {BYTES("[1.]"), NOT_JSON, false},
    {BYTES("[.5]"), NOT_JSON, false},
    {BYTES("[-.5]"), NOT_JSON, false},
    {BYTES("[+1]"), NOT_JSON, false},
    {BYTES("[-]"), NOT_JSON, false},
    {BYTES("[1e]"), NOT_JSON, false},
    {BYTES("[1e+]"), NOT_JSON, false},
    {BYTES("[1e5]"), JSONB, true},
    {BYTES("[1E+05]"), JSONB, true},
    {BYTES("[1e-5]"), JSONB, true},
    {BYTES("[1.5e3]"), JSONB, true},
    {BYTES("[1.e3]"), NOT_JSON, false},
    {BYTES("[0e0]"), JSONB, true},
    {BYTES("[0x1]"), NOT_JSON, false},
    {BYTES("[1_0]"), NOT_JSON, false},
    {BYTES("[NaN]"), NOT_JSON, false},
    {BYTES("[Infinity]"), NOT_JSON, false},
    {BYTES("[-Infinity]"), NOT_JSON, false},
    {BYTES("[1 2]"), NOT_JSON, false},
    {BYTES("[1,]"), NOT_JSON, false},
    {BYTES("[,1]"), NOT_JSON, false},
    {BYTES("[1,,2]"), NOT_JSON, false},
    {BYTES("{\"a\":1,}"), NOT_JSON, false},
    {BYTES("{,}"), NOT_JSON, false},
    {BYTES("{\"a\"}"), NOT_JSON, false},
    {BYTES("{\"a\":}"), NOT_JSON, false},
    {BYTES("{\"a\" 1}"), NOT_JSON, false},
    {BYTES("{a:1}"), NOT_JSON, false},
    {BYTES("{'a':1}"), NOT_JSON, false},
    {BYTES("{1:2}"), NOT_JSON, false},
    {BYTES("{\"a\":1 \"b\":2}"), NOT_JSON, false},
    {BYTES("{null:1}"), NOT_JSON, false},
    {BYTES("[1\"a\"]"), NOT_JSON, false},
    {BYTES("[\"a\" \"b\"]"), NOT_JSON, false},
    {BYTES("[truefalse]"), NOT_JSON, false},
    {BYTES("[true]"), JSONB, true},
    {BYTES("[True]"), NOT_JSON, false},
    {BYTES("[tru]"), NOT_JSON, false},
    {BYTES("[nul"), NOT_JSON, false},
    {BYTES("nul"), NOT_JSON, false},
    {BYTES("truex"), NOT_JSON, false},
    {BYTES("[null,true,false]"), JSONB, true},
    {BYTES("[1] [2]"), NOT_JSON, false},
    {BYTES("\"\"\""), NOT_JSON, false},
    {BYTES("[1]\""), NOT_JSON, false},
    {BYTES("{} \"abc"), NOT_JSON, false},
    {BYTES("7 \"]"), NOT_JSON, false},
    {BYTES("null\"\\"), NOT_JSON, false},
    {BYTES("[1]tru"), NOT_JSON, false},
    {BYTES("[1]-"), NOT_JSON, false},
    {BYTES("[1]2"), NOT_JSON, false},
    {BYTES("1 2"), NOT_JSON, false},
    {BYTES("[]\"a\""), NOT_JSON, false},
    {BYTES("[1]x"), NOT_JSON, false},
    {BYTES("[]]"), NOT_JSON, false},
    {BYTES("{}}"), NOT_JSON, false},
    {BYTES("]"), NOT_JSON, false},
    {BYTES("}"), NOT_JSON, false},
    {BYTES("["), NOT_JSON, false},
    {BYTES("{"), NOT_JSON, false},
    {BYTES("[}"), NOT_JSON, false},
    {BYTES("{]"), NOT_JSON, false},
    {BYTES("{\"a\":1]"), NOT_JSON, false},
    {BYTES("[1}"), NOT_JSON, false},
    {BYTES("[:1]"), NOT_JSON, false},
    {BYTES("1,"), NOT_JSON, false},
    {BYTES("//c\n[]"), NOT_JSON, false},
    {BYTES("/*c*/[]"), NOT_JSON, false},
    {BYTES("[]#c"), NOT_JSON, false},
    {BYTES("[1;2]"), NOT_JSON, false},
    {BYTES("\"a\""), JSONB, true},
    {BYTES("\""), NOT_JSON, false},
    {BYTES("\"abc"), NOT_JSON, false},
    {BYTES("[\"\\"), NOT_JSON, false},
    {BYTES("[\"\\\""), NOT_JSON, false},
    {BYTES("[\"\\\"]"), NOT_JSON, false},
    {BYTES("[\"\\\\\"]"), JSONB, true},
    {BYTES("[\"\\/\\b\\f\\n\\r\\t\\\"\"]"), JSONB, true},
    {BYTES("[\"\\x41\"]"), NOT_JSON, false},
    {BYTES("[\"\\a\"]"), NOT_JSON, false},
    {BYTES("[\"\\'\"]"), NOT_JSON, false},
    {BYTES("[\"\\v\"]"), NOT_JSON, false},
    {BYTES("[\"\\0\"]"), NOT_JSON, false},
    {BYTES("[\"\\u\"]"), NOT_JSON, false},
    {BYTES("[\"\\u12\"]"), NOT_JSON, false},
    {BYTES("[\"\\u12G4\"]"), NOT_JSON, false},
    {BYTES("[\"\\U0041\"]"), NOT_JSON, false},
    {BYTES("[\"\\u0041\"]"), JSONB, true},
    {BYTES("[\"\\u00e9\"]"), JSONB, true},
    {BYTES("[\"\\uFFFF\"]"), JSONB, true},
    {BYTES("[\"\\u0000\"]"), NOT_JSONB, false},
    {BYTES("{\"\\u0000\":1}"), NOT_JSONB, false},
    {BYTES("[\"\\\\u0000\"]"), JSONB, true},
    {BYTES("[\"\\\\\\u0000\"]"), NOT_JSONB, false},
    {BYTES("[\"\\ud83d\\ude00\"]"), JSONB, true},
    {BYTES("[\"\\uD83D\\uDE00\"]"), JSONB, true},
    {BYTES("[\"\\ud83d\"]"), NOT_JSONB, false},
    {BYTES("[\"\\ude00\"]"), NOT_JSONB, false},
    {BYTES("[\"\\ude00\\ud83d\"]"), NOT_JSONB, false},
    {BYTES("[\"\\ud83d\\ud83d\"]"), NOT_JSONB, false},
    {BYTES("[\"\\ud83dx\"]"), NOT_JSONB, false},
    {BYTES("[\"\\ud83d\\n\"]"), NOT_JSONB, false},
    {BYTES("[\"\\ud83d\\u0041\"]"), NOT_JSONB, false},
    {BYTES("[\"\\ud83d\\\\ude00\"]"), NOT_JSONB, false},
    {BYTES("{\"\\ud83d\":1}"), NOT_JSONB, false},
    {BYTES("[\"\t\"]"), NOT_JSON, false},
    {BYTES("[\"\n\"]"), NOT_JSON, false},
    {BYTES("[\"\001\"]"), NOT_JSON, false},
    {BYTES("[\"\037\"]"), NOT_JSON, false},
    {BYTES("[\"\177\"]"), JSONB, true},
    {BYTES("[\"a\013b\"]"), NOT_JSON, false},
    {BYTES("[\"\303\251\"]"), JSONB, true},
    {BYTES("[\"\342\202\254\"]"), JSONB, true},
    {BYTES("[\"\360\237\230\200\"]"), JSONB, true},
    {BYTES("[\"\364\217\277\277\"]"), JSONB, true},
    {BYTES("[\"\364\220\200\200\"]"), NOT_JSONB, false},
    {BYTES("[\"\365\200\200\200\"]"), NOT_JSONB, false},
    {BYTES("[\"\300\200\"]"), NOT_JSONB, false},
    {BYTES("[\"\301\277\"]"), NOT_JSONB, false},
    {BYTES("[\"\302\"]"), NOT_JSONB, false},
    {BYTES("[\"\340\200\200\"]"), NOT_JSONB, false},
    {BYTES("[\"\340\240\200\"]"), JSONB, true},
    {BYTES("[\"\355\237\277\"]"), JSONB, true},
    {BYTES("[\"\355\240\200\"]"), NOT_JSONB, false},
    {BYTES("[\"\356\200\200\"]"), JSONB, true},
    {BYTES("[\"\360\200\200\200\"]"), NOT_JSONB, false},
    {BYTES("[\"\360\220\200\200\"]"), JSONB, true},
    {BYTES("[\"\200\"]"), NOT_JSONB, false},
    {BYTES("[\"\377\"]"), NOT_JSONB, false},
    {BYTES("[\"\342\202\"]"), NOT_JSONB, false},
    {BYTES("[\"\342\202x\"]"), NOT_JSONB, false},
    {BYTES("{\"\377\":1}"), NOT_JSONB, false},
    {BYTES("\377"), NOT_JSON, false},
    {BYTES("\302\240[]"), NOT_JSON, false},
    {BYTES("[]\302\240"), NOT_JSON, false},
    {BYTES("[\342\200\2501]"), NOT_JSON, false},
    {BYTES("[\"\342\200\250\"]"), JSONB, true},
    {BYTES("[1]\377"), NOT_JSON, false},
    {BYTES("{\"a\":1,\"a\":2}"), JSONB, true},
    {BYTES("{\"\":1}"), JSONB, true},
    {BYTES("[\"\"]"), JSONB, true},
    {BYTES("[[[]]]"), JSONB, true},
    {BYTES("[1e400]"), JSONB, true},
    {BYTES("[1e-400]"), JSONB, true},
    {BYTES("[1e401]"), NOT_JSONB, true},
    {BYTES("[1e131071]"), NOT_JSONB, true},
    {BYTES("[1e131072]"), NOT_JSONB, false},
    {BYTES("[1e-16383]"), NOT_JSONB, true},
    {BYTES("[1e-16384]"), NOT_JSONB, false},
    {BYTES("[1e99999999999]"), NOT_JSONB, false},
    {BYTES("[1e+0000000000000000001]"), JSONB, true},
    {BYTES("[12345678901234567890123]"), JSONB, true},
    {BYTES("[1.7976931348623157e308]"), JSONB, true},
    {BYTES("[5e-324]"), JSONB, true},
    {BYTES("[\"\\ud83d\\uDE0\"]"), NOT_JSON, false},
    {BYTES("[\"\\ud83d\\u\"]"), NOT_JSON, false},
    {BYTES("[\"\\u D83\"]"), NOT_JSON, false},
    {BYTES("\"\\ud83d"), NOT_JSON, false},
    {BYTES("[1]\r\n"), JSONB, true},
    {BYTES("[1]\000"), NOT_JSON, false},
    {BYTES("\000"), NOT_JSON, false},
    {BYTES("[\"\000\"]"), NOT_JSON, false},
    {BYTES("[\000]"), NOT_JSON, false},
};

static void scan_calls_jsonb_only_what_postgresql_takes(void **state)
{
    (void)state;
    const struct scan_plan plan = plan_of(NO_SPLIT, NULL);
    for (size_t i = 0; i < LENGTH(documents); i++) {
        char *body = exact_copy(documents[i].body, documents[i].len);
        struct scan_result result;
        enum judged judged = NOT_JSON;
        if (scan_body(&plan, slice_of(body, documents[i].len), EVENTS_MAX, arena, &result, NULL) ==
            OH_OK) {
            judged = JSONB;
            for (const struct scan_event *e = result.first; e; e = e->next)
                if (!e->jsonb)
                    judged = NOT_JSONB;
        }
        free(body);
        if (judged != documents[i].judged)
            fail_msg("row %zu, %s: %d", i, documents[i].body, judged);
        if (judged == JSONB)
            assert_true(documents[i].postgres);
    }
}

static void scan_bounds_the_numbers_of_jsonb(void **state)
{
    (void)state;
    char digits[600];
    memset(digits, '9', sizeof(digits));
    assert_true(text_jsonb_takes_number(slice_of(digits, TEXT_NUMBER_DIGITS_MAX)));
    assert_false(text_jsonb_takes_number(slice_of(digits, TEXT_NUMBER_DIGITS_MAX + 1)));
    static const struct {
        const char *text;
        bool taken;
    } rows[] = {
        {"0", true},
        {"-0.0", true},
        {"1e400", true},
        {"1E+400", true},
        {"1e-400", true},
        {"1e401", false},
        {"1e-401", false},
        {"0e99999", false},
        {"1e0000000000400", true},
        {"1.5e308", true},
        {"12345678901234567890123", true},
        {"1e99999999999999999999999", false},
    };
    for (size_t i = 0; i < LENGTH(rows); i++)
        assert_int_equal(text_jsonb_takes_number(slice_of_text(rows[i].text)), rows[i].taken);
}

/* Nested arrays and objects, `levels` deep. */
static struct oh_slice nested(size_t levels, const char *open, const char *inside,
                              const char *close)
{
    size_t o = strlen(open), m = strlen(inside), c = strlen(close);
    char *text = oh_arena_alloc(arena, levels * (o + c) + m);
    assert_non_null(text);
    for (size_t i = 0; i < levels; i++) {
        memcpy(text + i * o, open, o);
        memcpy(text + levels * o + m + i * c, close, c);
    }
    memcpy(text + levels * o, inside, m);
    return slice_of(text, levels * (o + c) + m);
}

static void scan_survives_any_nesting(void **state)
{
    (void)state;
    static const struct {
        size_t levels;
        const char *open, *inside, *close;
        bool jsonb;
    } rows[] = {
        {OH_JSON_DEPTH_MAX, "{\"a\":", "1", "}", true},
        {OH_JSON_DEPTH_MAX + 1, "{\"a\":", "1", "}", false},
        {1, "{\"a\":", "{\"b\":[{}]}", "}", true},
        {OH_JSON_DEPTH_MAX + 1, "[", "", "]", true}, /* the outer one is no part of the event */
        {OH_JSON_DEPTH_MAX + 2, "[", "", "]", false},
        {100000, "[", "", "]", false},
        {100000, "{\"a\":", "null", "}", false},
        {100000, "[{\"a\":", "\"\\n\"", "}]", false},
        {2000000, "[", "", "]", false},
    };
    static const char *const wants[] = {"/a/a/a/a", "/0/0/0", "body:/a/a", NULL};
    const struct scan_plan plan = plan_of(NO_SPLIT, wants);
    for (size_t i = 0; i < LENGTH(rows); i++) {
        struct oh_slice body = nested(rows[i].levels, rows[i].open, rows[i].inside, rows[i].close);
        /* Memory is linear: yajl's stack is a byte a level. */
        struct oh_arena *small = oh_arena_new(1024, 16384 + 8 * rows[i].levels);
        struct scan_result result;
        assert_int_equal(scan_body(&plan, body, EVENTS_MAX, small, &result, NULL), OH_OK);
        assert_int_equal(result.count, 1);
        assert_int_equal(result.first->jsonb, rows[i].jsonb);
        oh_arena_free(small);
        /* One bracket short is no JSON. */
        body.len--;
        assert_int_equal(scan_body(&plan, body, EVENTS_MAX, arena, &result, NULL), OH_UNREADABLE);
    }
}

/* ---- bounded memory ----------------------------------------------------------------------------
 */

/* Whatever the arena's bound, the scan ends in one of two ways, and the sanitizers see no leak and
 * no write through a block that was refused. */
static void scan_ends_cleanly_wherever_memory_ends(void **state)
{
    (void)state;
    static const char *const wants[] = {"/id", "/t", "body:/0/id", NULL};
    const struct scan_plan plan = plan_of(NO_SPLIT, wants);
    const struct oh_slice body =
        SLICE_LITERAL("[{\"id\":\"\\u0061bc\",\"t\":[[[[[{\"x\":\"\\n\"}]]]]]},{\"id\":\"\\t\"}]");
    bool refused = false, done = false;
    for (size_t bytes = 16; bytes < 20000; bytes += 16) {
        struct oh_arena *small = oh_arena_new(16, bytes);
        assert_non_null(small);
        struct scan_result result;
        struct oh_error err;
        enum oh_status status = scan_body(&plan, body, EVENTS_MAX, small, &result, &err);
        assert_true(status == OH_OK || status == OH_NO_MEMORY);
        refused |= status == OH_NO_MEMORY;
        done |= status == OH_OK;
        oh_arena_free(small);
    }
    assert_true(refused && done);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EVENT_TEST(scan_calls_jsonb_only_what_postgresql_takes),
        EVENT_TEST(scan_bounds_the_numbers_of_jsonb),
        EVENT_TEST(scan_survives_any_nesting),
        EVENT_TEST(scan_ends_cleanly_wherever_memory_ends),
    };
    return cmocka_run_group_tests_name("event_json", tests, NULL, NULL);
}
