/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of event/scan.h about places: the exact bytes of every event and the last value at every
 * pointer, for written tables and for random documents. */
#include "event_support.h"

#include <stdio.h>
#include <stdlib.h>

#define ARENA_MAX ((size_t)64 << 20)

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

static void put_space(struct text *t)
{
    static const char *const spaces[] = {"", "", "", " ", "\n", "\t \r\n"};
    put(t, spaces[random_below(LENGTH(spaces))]);
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
    for (size_t i = random_below(5); i > 0; i--)
        put(t, pieces[random_below(LENGTH(pieces))]);
    put(t, "\"");
}

static void put_value(struct text *t, int depth)
{
    static const char *const scalars[] = {"0",    "-1.5e10", "12345678901234567890123",
                                          "true", "false",   "null"};
    size_t what = random_below(depth > 0 ? 5 : 2);
    if (what == 0) {
        put_string(t);
    } else if (what <= 2) {
        put(t, scalars[random_below(LENGTH(scalars))]);
    } else {
        bool array = what == 3;
        put(t, array ? "[" : "{");
        for (size_t i = random_below(4); i > 0; i--) {
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

/* Values written one after the other into an array come back byte for byte, whatever stands in and
 * between them. */
static void scan_gives_back_what_was_written(void **state)
{
    (void)state;
    seed_random();
    const struct scan_plan plan = plan_of("/e v", NULL);
    struct text *t = malloc(sizeof(*t));
    assert_non_null(t);
    for (int round = 0; round < 3000; round++) {
        struct {
            size_t start, end;
        } written[8];
        size_t count = random_below(8);
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
    seed_random();
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
        if (random_below(2))
            put(t, "{\"id\":7,\"events\":");
        put_value(t, 4);
        if (t->bytes[0] == '{' && t->bytes[t->len - 1] != '}')
            put(t, "}");
        for (size_t changes = random_below(6); changes > 0 && t->len > 0; changes--) {
            size_t at = random_below(t->len);
            const char *piece = pieces[random_below(LENGTH(pieces))];
            size_t len = strlen(piece);
            if (len > t->len - at)
                len = t->len - at;
            switch (random_below(4)) {
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
        check_scan(&plans[random_below(LENGTH(plans))], slice_of(body, t->len));
        free(body);
    }
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EVENT_TEST(scan_finds_the_exact_bytes_of_each_event),
        EVENT_TEST(scan_stops_at_the_bound_of_events),
        EVENT_TEST(scan_keeps_the_last_value_at_a_pointer),
        EVENT_TEST(scan_gives_back_what_was_written),
        EVENT_TEST(scan_holds_its_promises_for_mutated_bodies),
    };
    return cmocka_run_group_tests_name("event_scan", tests, NULL, NULL);
}
