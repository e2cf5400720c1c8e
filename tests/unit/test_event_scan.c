/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of event/scan.h: the exact bytes of every event, the last value at every pointer, and
 * for jsonb only what PostgreSQL takes, from any bytes, in bounded memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/slice.h"
#include "event/scan.h"
#include "event/text.h"
#include "oncehook/event.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BYTES(text)   text, sizeof(text) - 1
#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define NO_SPLIT      NULL
#define EVENTS_MAX    1000
#define ARENA_MAX     ((size_t)64 << 20)

static struct oh_arena *arena;

static int arena_setup(void **state)
{
    (void)state;
    arena = oh_arena_new(1024, ARENA_MAX);
    return arena ? 0 : -1;
}

static int arena_teardown(void **state)
{
    (void)state;
    oh_arena_free(arena);
    return 0;
}

static struct pointer pointer_of(const char *text)
{
    struct pointer pointer;
    struct oh_error err;
    assert_int_equal(pointer_parse(slice_of_text(text), POINTER_EACH, arena, &pointer, &err),
                     OH_OK);
    return pointer;
}

/* A plan of the split and up to eight wants, those in events before those in the body ("body:/…"),
 * NULL at the end. */
static struct scan_plan plan_of(const char *split, const char *const wants[])
{
    struct scan_plan plan = {.has_split = split != NULL};
    if (split)
        plan.split = pointer_of(split);
    for (size_t i = 0; wants && wants[i]; i++) {
        bool in_body = strncmp(wants[i], "body:", 5) == 0;
        plan.wants[plan.want_count++] =
            (struct scan_want){pointer_of(wants[i] + (in_body ? 5 : 0)), in_body};
        plan.event_want_count += !in_body;
    }
    return plan;
}

/* A copy that ends where the heap block ends, so that ASan sees one byte read too far. */
static char *exact_copy(const char *data, size_t len)
{
    char *copy = malloc(len > 0 ? len : 1);
    assert_non_null(copy);
    if (len > 0)
        memcpy(copy, data, len);
    return copy;
}

/* ---- what is JSON, and what jsonb takes --------------------------------------------------------
 */

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

/* ---- where events are --------------------------------------------------------------------------
 */

/* `events`: their raw bytes, each followed by '|'; NULL = unreadable. */
static const struct {
    const char *split, *body, *events;
} splits[] = {
    {NO_SPLIT, "{\"a\":1}", "{\"a\":1}|"},
    {NO_SPLIT, " \r\n{\"a\":1} \r\n", "{\"a\":1}|"},
    {NO_SPLIT, "[]", ""},
    {NO_SPLIT, " [ ] ", ""},
    {NO_SPLIT, "{}", "{}|"},
    {NO_SPLIT, "12", "12|"},
    {NO_SPLIT, " 12 ", "12|"},
    {NO_SPLIT, " -1.5e3\n", "-1.5e3|"},
    {NO_SPLIT, " \"a\\n\" ", "\"a\\n\"|"},
    {NO_SPLIT, "true", "true|"},
    {NO_SPLIT, " null ", "null|"},
    {NO_SPLIT, "[1 , \"a\\u0041\",true,null,{ } ,[ 2 ], -0.5 ]",
     "1|\"a\\u0041\"|true|null|{ }|[ 2 ]|-0.5|"},
    {NO_SPLIT, "[{\"a\":[{}]},\n\t{\"b\":\"]\"}]", "{\"a\":[{}]}|{\"b\":\"]\"}|"},
    {NO_SPLIT, "\xef\xbb\xbf [ 1 ]", "1|"},
    {NO_SPLIT, "\xef\xbb\xbf{}", "{}|"},
    {NO_SPLIT, "\xef\xbb\xbf", NULL},
    {NO_SPLIT, "", NULL},
    {NO_SPLIT, "\xef\xbb", NULL},
    {NO_SPLIT, " \n", NULL},
    {NO_SPLIT, "[1] trailing", NULL},
    {NO_SPLIT, "[1,2", NULL},
    {"/events", "{\"events\":[1,{\"a\":2}],\"x\":[3]}", "1|{\"a\":2}|"},
    {"/events", "{\"x\":{\"events\":[9]},\"events\":[ 1 ]}", "1|"},
    {"/events", "{\"events\":[]}", ""},
    {"/events", "{\"events\":{\"a\":[1]}}", "{\"a\":[1]}|"},
    {"/events", "{\"events\":5}", NULL},
    {"/events", "{\"events\":null}", NULL},
    {"/events", "{\"event\":[1]}", NULL},
    {"/events", "{}", NULL},
    {"/events", "[]", NULL},
    {"/events", "[1,2]", NULL},
    {"/events", "\"events\"", NULL},
    {"/events", "{\"\\u0065vents\":[1]}", "1|"},
    {"/events", "{\"events\":[1],\"events\":[2]}", "1|2|"}, /* nothing is lost */
    {"/events/*", "{\"events\":[1,2]}", "1|2|"},
    {"/events/*", "{\"events\":[[1,2],[]]}", "[1,2]|[]|"},
    {"/events/*", "{\"events\":{\"*\":1}}", NULL},
    {"/data/events", "{\"data\":{\"events\":[{}]}}", "{}|"},
    {"/data/events", "{\"data\":[{\"events\":[{}]}]}", NULL},
    {"/0/events", "[{\"events\":[7]},{\"events\":[8]}]", "7|"},
    {"/a~1b/~0c", "{\"a/b\":{\"~c\":[7]}}", "7|"},
    {"", "[1,2]", "1|2|"},
    {"", "{\"a\":1}", "{\"a\":1}|"},
    {"/*", "[1,{}]", "1|{}|"},
    {"/*", "{\"*\":1}", NULL},
    {"/entry/*/changes", "{\"entry\":[{\"changes\":[1,2]},{\"changes\":[]},{\"changes\":[3]}]}",
     "1|2|3|"},
    {"/entry/*/changes/*", "{\"entry\":[{\"changes\":[1]},{\"changes\":{\"a\":1}}]}",
     "1|{\"changes\":{\"a\":1}}|"},
    /* An element in which no event is found is kept whole. */
    {"/entry/*/changes", "{\"entry\":[ {\"changes\":[1]}, {\"messaging\":[2]}, 5, [ ], {}]}",
     "1|{\"messaging\":[2]}|5|[ ]|{}|"},
    {"/entry/*/changes", "{\"entry\":[]}", ""},
    {"/entry/*/changes", "{\"entry\":{\"changes\":[1]}}", NULL},
    {"/*/*", "[[1,2],[],[[3]]]", "1|2|[3]|"},
    {"/*/e", "[{\"e\":{\"a\":1}},{\"e\":[2,3]},{\"f\":0}]", "{\"a\":1}|2|3|{\"f\":0}|"},
};

static void scan_finds_the_exact_bytes_of_each_event(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(splits); i++) {
        const struct scan_plan plan = plan_of(splits[i].split, NULL);
        size_t len = strlen(splits[i].body);
        char *body = exact_copy(splits[i].body, len);
        struct scan_result result;
        struct oh_error err = {.line = 0};
        enum oh_status status =
            scan_body(&plan, slice_of(body, len), EVENTS_MAX, arena, &result, &err);
        char found[200] = "";
        size_t at = 0, count = 0;
        if (status == OH_OK)
            for (const struct scan_event *e = result.first; e; e = e->next, count++)
                at += (size_t)snprintf(found + at, sizeof(found) - at, "%.*s|", (int)e->raw.len,
                                       e->raw.data);
        free(body);
        const char *expected = splits[i].events;
        if (status != (expected ? OH_OK : OH_UNREADABLE) || (expected && strcmp(found, expected)) ||
            (expected && count != result.count))
            fail_msg("row %zu: %s gives status %d, %s", i, splits[i].body, status, found);
        if (!expected)
            assert_int_not_equal(err.text[0], '\0');
    }
}

static void scan_stops_at_the_bound_of_events(void **state)
{
    (void)state;
    const struct scan_plan plan = plan_of(NO_SPLIT, NULL);
    const struct scan_plan nested_plan = plan_of("/*/x", NULL);
    struct scan_result result;
    const struct oh_slice three = SLICE_LITERAL("[1,{},[2]]");
    assert_int_equal(scan_body(&plan, three, 3, arena, &result, NULL), OH_OK);
    assert_int_equal(scan_body(&plan, three, 2, arena, &result, NULL), OH_TOO_MANY);
    assert_int_equal(scan_body(&plan, SLICE_LITERAL("[]"), 0, arena, &result, NULL), OH_OK);
    assert_int_equal(scan_body(&plan, SLICE_LITERAL("{}"), 0, arena, &result, NULL), OH_TOO_MANY);
    assert_int_equal(scan_body(&nested_plan, three, 3, arena, &result, NULL), OH_OK);
    assert_int_equal(scan_body(&nested_plan, three, 2, arena, &result, NULL), OH_TOO_MANY);
}

/* ---- values at pointers ------------------------------------------------------------------------
 */

static const char *const kind_words[] = {
    [SCAN_ABSENT] = "absent", [SCAN_STRING] = "string", [SCAN_NUMBER] = "number",
    [SCAN_BOOL] = "bool",     [SCAN_NULL] = "null",     [SCAN_CONTAINER] = "container",
    [SCAN_BAD_TEXT] = "bad",
};

/* The value that one pointer finds, as "kind" or "kind:text", for each event. */
static const struct {
    const char *split, *want, *body, *values;
} captures[] = {
    {NO_SPLIT, "/id", "{\"id\":\"a\"}", "string:a|"},
    {NO_SPLIT, "/id", "{\"id\":\"\"}", "string:|"},
    {NO_SPLIT, "/id", "{\"id\":12345678901234567890123}", "number:12345678901234567890123|"},
    {NO_SPLIT, "/id", "{\"id\":1.10E+2}", "number:1.10E+2|"},
    {NO_SPLIT, "/id", "{\"id\" : -0 }", "number:-0|"},
    {NO_SPLIT, "/id", "{\"id\":true}", "bool:true|"},
    {NO_SPLIT, "/id", "{\"id\":false}", "bool:false|"},
    {NO_SPLIT, "/id", "{\"id\":null}", "null|"},
    {NO_SPLIT, "/id", "{\"id\":{\"id\":1}}", "container|"},
    {NO_SPLIT, "/id", "{\"id\":[1]}", "container|"},
    {NO_SPLIT, "/id", "{\"ID\":1,\"i\":2,\"idd\":3}", "absent|"},
    {NO_SPLIT, "/id", "{\"x\":{\"id\":1}}", "absent|"},
    {NO_SPLIT, "/id", "[{\"id\":1},{\"x\":2},3,{\"id\":4}]", "number:1|absent|absent|number:4|"},
    {NO_SPLIT, "/id", "{\"id\":\"a\\u0041\\n\\/\\ud83d\\ude00\"}", "string:aA\n/\xf0\x9f\x98\x80|"},
    {NO_SPLIT, "/id", "{\"id\":\"\\u0061\",\"x\":\"\\u0062\\u0062\"}", "string:a|"},
    {NO_SPLIT, "/id", "{\"\\u0069d\":1}", "number:1|"},
    {NO_SPLIT, "/id", "{\"id\":\"a\\u0000b\"}", "bad|"},
    {NO_SPLIT, "/id", "{\"id\":\"\\ud83d\"}", "bad|"},
    {NO_SPLIT, "/id", "{\"id\":\"\\ud83d\\u0041\"}", "bad|"},
    {NO_SPLIT, "/id", "{\"id\":\"\xff\"}", "bad|"},
    {NO_SPLIT, "/id", "{\"id\":\"\\n\xc3\"}", "bad|"},
    {NO_SPLIT, "/id\xff", "{\"id\xff\":1}", "absent|"},
    {NO_SPLIT, "/", "{\"\":7}", "number:7|"},
    {NO_SPLIT, "/a~1b", "{\"a/b\":7}", "number:7|"},
    {NO_SPLIT, "/a~0b", "{\"a~b\":7}", "number:7|"},
    {NO_SPLIT, "/a/b/c", "{\"a\":{\"b\":{\"c\":7,\"d\":8},\"c\":9}}", "number:7|"},
    {NO_SPLIT, "/a/b/c", "{\"b\":{\"c\":1},\"a\":{\"c\":2}}", "absent|"},
    {NO_SPLIT, "/a/1/b", "{\"a\":[{\"b\":0},{\"b\":1},{\"b\":2}]}", "number:1|"},
    {NO_SPLIT, "/a/1", "{\"a\":{\"0\":0,\"1\":1}}", "number:1|"},
    {NO_SPLIT, "/a/01", "{\"a\":[0,1]}", "absent|"},
    {NO_SPLIT, "/a/-", "{\"a\":[0,1]}", "absent|"},
    {NO_SPLIT, "/a/*", "{\"a\":{\"*\":3}}", "number:3|"},
    {NO_SPLIT, "/0", "[[5,6],[7]]", "number:5|number:7|"},
    /* Of a repeated key the last counts, with all below it. */
    {NO_SPLIT, "/id", "{\"id\":1,\"id\":2}", "number:2|"},
    {NO_SPLIT, "/id", "{\"id\":1,\"id\":null}", "null|"},
    {NO_SPLIT, "/id", "{\"id\":1,\"\\u0069d\":2}", "number:2|"},
    {NO_SPLIT, "/a/b", "{\"a\":{\"b\":1},\"a\":{\"c\":2}}", "absent|"},
    {NO_SPLIT, "/a/b", "{\"a\":{\"b\":1},\"a\":3}", "absent|"},
    {NO_SPLIT, "/a/b", "{\"a\":3,\"a\":{\"b\":1}}", "number:1|"},
    {NO_SPLIT, "/a/0/b", "{\"a\":[{\"b\":1}],\"a\":[]}", "absent|"},
    /* Events below an envelope. */
    {"/events", "/id", "{\"id\":9,\"events\":[{\"id\":1},{},{\"id\":2}],\"id\":8}",
     "number:1|absent|number:2|"},
    {"/events", "body:/id", "{\"id\":9,\"events\":[{\"id\":1},{\"id\":2}]}", "number:9|number:9|"},
    {"/events", "body:/id", "{\"events\":[{\"id\":1},{\"id\":2}],\"id\":9}", "number:9|number:9|"},
    {"/events", "body:/meta/id", "{\"events\":[{}],\"meta\":{\"id\":9}}", "number:9|"},
    {"/events", "body:/events/1/id", "{\"events\":[{\"id\":1},{\"id\":2}]}", "number:2|number:2|"},
    {NO_SPLIT, "body:/id", "{\"id\":9}", "number:9|"},
    {NO_SPLIT, "body:/1/id", "[{\"id\":8},{\"id\":9}]", "number:9|number:9|"},
    {NO_SPLIT, "body:/id", "[{\"id\":8}]", "absent|"},
    {"/e/*/c", "/id", "{\"e\":[{\"id\":0,\"c\":[{\"id\":1}]},{\"id\":7}]}", "number:1|absent|"},
};

static void scan_keeps_the_last_value_at_a_pointer(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(captures); i++) {
        const char *wants[] = {captures[i].want, NULL};
        const struct scan_plan plan = plan_of(captures[i].split, wants);
        size_t len = strlen(captures[i].body);
        char *body = exact_copy(captures[i].body, len);
        struct scan_result result;
        enum oh_status status =
            scan_body(&plan, slice_of(body, len), EVENTS_MAX, arena, &result, NULL);
        char found[300] = "";
        size_t at = 0;
        if (status == OH_OK)
            for (const struct scan_event *e = result.first; e; e = e->next) {
                const struct scan_value *v =
                    plan.event_want_count ? &e->values[0] : &result.body_values[0];
                at += (size_t)snprintf(found + at, sizeof(found) - at, "%s%s%.*s|",
                                       kind_words[v->kind], v->data ? ":" : "", (int)v->len,
                                       v->data ? v->data : "");
            }
        free(body);
        if (status != OH_OK || strcmp(found, captures[i].values) != 0)
            fail_msg("row %zu: %s at %s gives status %d, %s", i, captures[i].want, captures[i].body,
                     status, found);
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

/* ---- properties --------------------------------------------------------------------------------
 */

/* A text that grows; long enough for every document here. */
struct text {
    char bytes[65536];
    size_t len;
};

static void put(struct text *t, const char *bytes)
{
    size_t len = strlen(bytes);
    assert_true(t->len + len < sizeof(t->bytes));
    memcpy(t->bytes + t->len, bytes, len);
    t->len += len;
}

static size_t below(size_t bound)
{
    return (size_t)random() % bound;
}

static void put_space(struct text *t)
{
    static const char *const spaces[] = {"", "", "", " ", "\n", "\t \r\n"};
    put(t, spaces[below(LENGTH(spaces))]);
}

static void put_string(struct text *t)
{
    static const char *const pieces[] = {"a",
                                         "id",
                                         "]",
                                         "}",
                                         "{[",
                                         ",",
                                         ":",
                                         "\\\"",
                                         "\\\\",
                                         "\\u00e9",
                                         "\xe2\x82\xac",
                                         " ",
                                         "\\ud83d\\ude00",
                                         "\\n"};
    put(t, "\"");
    for (size_t i = below(5); i > 0; i--)
        put(t, pieces[below(LENGTH(pieces))]);
    put(t, "\"");
}

static void put_value(struct text *t, int depth)
{
    static const char *const scalars[] = {"0",    "-1.5e10", "12345678901234567890123",
                                          "true", "false",   "null"};
    size_t what = below(depth > 0 ? 5 : 2);
    if (what == 0) {
        put_string(t);
    } else if (what <= 2) {
        put(t, scalars[below(LENGTH(scalars))]);
    } else {
        bool array = what == 3;
        put(t, array ? "[" : "{");
        for (size_t i = below(4); i > 0; i--) {
            put_space(t);
            if (!array) {
                put_string(t);
                put_space(t);
                put(t, ":");
                put_space(t);
            }
            put_value(t, depth - 1);
            put_space(t);
            if (i > 1)
                put(t, ",");
        }
        put_space(t);
        put(t, array ? "]" : "}");
    }
}

static unsigned start_random(void)
{
    const char *given = getenv("ONCEHOOK_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
    printf("ONCEHOOK_SEED=%u\n", seed);
    srandom(seed);
    return seed;
}

/* Values written one after the other into an array come back byte for byte, whatever stands in and
 * between them. */
static void scan_gives_back_what_was_written(void **state)
{
    (void)state;
    start_random();
    const struct scan_plan plan = plan_of("/e v", NULL);
    struct text *t = malloc(sizeof(*t));
    assert_non_null(t);
    for (int round = 0; round < 3000; round++) {
        struct {
            size_t start, end;
        } written[8];
        size_t count = below(8);
        t->len = 0;
        put(t, "{\"x\":[");
        put_value(t, 3);
        put(t, "],\"e v\":[");
        for (size_t i = 0; i < count; i++) {
            put_space(t);
            written[i].start = t->len;
            put_value(t, 4);
            written[i].end = t->len;
            put_space(t);
            if (i + 1 < count)
                put(t, ",");
        }
        put(t, "] ,\"y\":");
        put_value(t, 3);
        put(t, "}\n");
        struct oh_arena *own = oh_arena_new(4096, ARENA_MAX);
        struct scan_result result;
        assert_int_equal(
            scan_body(&plan, slice_of(t->bytes, t->len), EVENTS_MAX, own, &result, NULL), OH_OK);
        assert_int_equal(result.count, count);
        const struct scan_event *e = result.first;
        for (size_t i = 0; i < count; i++, e = e->next) {
            assert_ptr_equal(e->raw.data, t->bytes + written[i].start);
            assert_int_equal(e->raw.len, written[i].end - written[i].start);
            assert_true(e->jsonb);
        }
        oh_arena_free(own);
    }
    free(t);
}

/* What must hold for any bytes: events lie in the body, in order and apart, and each is a JSON
 * value by itself, of the same worth to jsonb. */
static void check_scan(const struct scan_plan *plan, struct oh_slice body)
{
    struct oh_arena *own = oh_arena_new(4096, ARENA_MAX);
    struct scan_result result, again;
    enum oh_status status = scan_body(plan, body, EVENTS_MAX, own, &result, NULL);
    assert_true(status == OH_OK || status == OH_UNREADABLE);
    const char *behind = body.data;
    uint32_t count = 0;
    if (status != OH_OK)
        result.first = NULL;
    for (const struct scan_event *e = result.first; e; e = e->next, count++) {
        assert_true(e->raw.data >= behind && e->raw.len > 0);
        behind = e->raw.data + e->raw.len;
        assert_true(behind <= body.data + body.len);
        const struct scan_plan whole = {.has_split = false};
        assert_int_equal(scan_body(&whole, e->raw, UINT32_MAX, own, &again, NULL), OH_OK);
        bool jsonb = true;
        for (const struct scan_event *part = again.first; part; part = part->next)
            jsonb = jsonb && part->jsonb;
        if (e->jsonb)
            assert_true(jsonb);
    }
    if (status == OH_OK)
        assert_int_equal(count, result.count);
    oh_arena_free(own);
}

static void scan_holds_its_promises_for_mutated_bodies(void **state)
{
    (void)state;
    start_random();
    static const char *const wants[] = {"/id", "/a/0/id", "body:/id", "body:/events/0/id", NULL};
    static const char *const pieces[] = {"{\"id\":", "\"events\":", "[",   "]",  "{",
                                         "}",        ",",           "\"",  "\\", "\\u0000",
                                         "\\ud800",  "\xff",        "1e9", "\v", "//"};
    const struct scan_plan plans[] = {plan_of(NO_SPLIT, wants), plan_of("/events", wants),
                                      plan_of("/*/events/*", wants), plan_of("", wants)};
    struct text *t = malloc(sizeof(*t));
    assert_non_null(t);
    for (int round = 0; round < 20000; round++) {
        t->len = 0;
        if (below(2))
            put(t, "{\"id\":7,\"events\":");
        put_value(t, 4);
        if (t->bytes[0] == '{' && t->bytes[t->len - 1] != '}')
            put(t, "}");
        for (size_t changes = below(6); changes > 0 && t->len > 0; changes--) {
            size_t at = below(t->len);
            const char *piece = pieces[below(LENGTH(pieces))];
            size_t len = strlen(piece);
            if (len > t->len - at)
                len = t->len - at;
            switch (below(4)) {
            case 0:
                t->bytes[at] = (char)random();
                break;
            case 1:
                memmove(t->bytes + at, t->bytes + at + 1, t->len - at - 1);
                t->len--;
                break;
            case 2:
                memcpy(t->bytes + at, piece, len);
                break;
            default:
                t->len = at;
            }
        }
        char *body = exact_copy(t->bytes, t->len);
        check_scan(&plans[below(LENGTH(plans))], slice_of(body, t->len));
        free(body);
    }
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROW(test) cmocka_unit_test_setup_teardown(test, arena_setup, arena_teardown)
        ROW(scan_calls_jsonb_only_what_postgresql_takes),
        ROW(scan_bounds_the_numbers_of_jsonb),
        ROW(scan_survives_any_nesting),
        ROW(scan_finds_the_exact_bytes_of_each_event),
        ROW(scan_stops_at_the_bound_of_events),
        ROW(scan_keeps_the_last_value_at_a_pointer),
        ROW(scan_ends_cleanly_wherever_memory_ends),
        ROW(scan_gives_back_what_was_written),
        ROW(scan_holds_its_promises_for_mutated_bodies),
#undef ROW
    };
    return cmocka_run_group_tests_name("event_scan", tests, NULL, NULL);
}
