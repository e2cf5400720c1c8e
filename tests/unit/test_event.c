/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of oncehook/event.h beside its keys: what becomes of a type, a time, an owner and a
 * payload, whatever the provider or an attacker with a good signature sends. */
#include "event_support.h"

#include "base/encode.h"

#include <openssl/sha.h>

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
        const char *body =
            format("{\"t\":\"%0*d\",\"u\":\"%s\"}", (int)rows[i].ascii, 0, rows[i].tail);
        struct oh_event e = extract_one("", body);
        assert_int_equal(e.provider_type.len, rows[i].kept);
    }
}

static void type_of_the_contract_passes_where_the_recipe_says_so(void **state)
{
    (void)state;
    use_recipe("{type: /t, canonical_types: true}");
    for (int type = 0; type < OH_EVENT_TYPE_COUNT; type++) {
        const char *body = format("{\"t\":\"%s\"}", oh_event_type_name((enum oh_event_type)type));
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
    assert_int_equal(oh_mapping_new(recipe,
                                    &(struct oh_map){"/x/y", "header:x-instance", NULL, NULL},
                                    &mapping, &err),
                     OH_OK);
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
        assert_int_equal(
            oh_mapping_new(recipe, &(struct oh_map){.enrollment_id = malformed[i]}, &none, &err),
            OH_INVALID);
        assert_null(none);
        assert_int_not_equal(err.text[0], '\0');
        assert_int_equal(
            oh_mapping_new(recipe, &(struct oh_map){.instance_id = malformed[i]}, &none, &err),
            OH_INVALID);
        assert_int_equal(
            oh_mapping_new(recipe,
                           &(struct oh_map){.reference = malformed[i], .reference_scope = "s"},
                           &none, &err),
            OH_INVALID);
    }
    oh_mapping_free(NULL);
}

/* The id of a reference as anybody can compute it: SHA-256, the version, the variant. */
static void expect_reference(const char *body, const char *text)
{
    static const char scope[] = "source:s";
    uint8_t hashed[sizeof(scope) + 256], wanted[32];
    memcpy(hashed, scope, sizeof(scope)); /* with its NUL */
    memcpy(hashed + sizeof(scope), text, strlen(text));
    assert_non_null(SHA256(hashed, sizeof(scope) + strlen(text), wanted));
    wanted[6] = (uint8_t)((wanted[6] & 0x0f) | 0x80);
    wanted[8] = (uint8_t)((wanted[8] & 0x3f) | 0x80);
    struct oh_event e = extract_one("", body);
    assert_true(e.has_enrollment);
    assert_memory_equal(e.enrollment_id, wanted, 16);
}

static void map_to(const char *enrollment, const char *reference)
{
    struct oh_error err;
    const struct oh_map map = {enrollment, NULL, reference, "source:s"};
    use_recipe("{}");
    oh_mapping_free(mapping);
    assert_int_equal(oh_mapping_new(recipe, &map, &mapping, &err), OH_OK);
}

static void a_reference_stands_for_the_enrollment_that_is_not_named(void **state)
{
    (void)state;
    map_to("/e", "/sid");
    expect_reference("{\"sid\":\"SM1\"}", "SM1");
    expect_reference("{\"sid\":12345678901234567890,\"e\":\"no uuid\"}", "12345678901234567890");
    struct oh_event e = extract_one("", "{\"sid\":\"SM1\",\"e\":\"" UUID_A "\"}");
    uint8_t uuid[16];
    assert_true(e.has_enrollment && uuid_parse(SLICE_LITERAL(UUID_A), uuid));
    assert_memory_equal(e.enrollment_id, uuid, 16);
    static const char *const without[] = {"{}",
                                          "{\"sid\":\"\"}",
                                          "{\"sid\":null}",
                                          "{\"sid\":[1]}",
                                          "{\"sid\":true}",
                                          "{\"sid\":\"a\\u0000b\"}"};
    for (size_t i = 0; i < LENGTH(without); i++)
        assert_false(extract_one("", without[i]).has_enrollment);
    char longest[256];
    memset(longest, 'x', 255);
    longest[255] = '\0';
    expect_reference(format("{\"sid\":\"%s\"}", longest), longest);
    assert_false(extract_one("", format("{\"sid\":\"%sx\"}", longest)).has_enrollment);
}

static void a_reference_of_parts_is_never_that_of_others(void **state)
{
    (void)state;
    map_to(NULL, "/lead\n/campaign");
    expect_reference("{\"lead\":\"a\",\"campaign\":\"b\"}", "a:b");
    expect_reference("{\"lead\":\"a\",\"campaign\":\"b:c\"}", "a:b:c");
    static const char *const without[] = {"{\"lead\":\"a:b\",\"campaign\":\"c\"}",
                                          "{\"lead\":\"a\"}", "{\"campaign\":\"a\"}",
                                          "{\"lead\":\"a\",\"campaign\":\"\"}"};
    for (size_t i = 0; i < LENGTH(without); i++)
        assert_false(extract_one("", without[i]).has_enrollment);
    const struct oh_map five = {NULL, NULL, "/a\n/b\n/c\n/d\n/e", "source:s"};
    struct oh_mapping *none = mapping;
    struct oh_error err;
    assert_int_equal(oh_mapping_new(recipe, &five, &none, &err), OH_INVALID);
    assert_null(none);
}

static void mapping_refuses_more_pointers_than_a_scan_follows(void **state)
{
    (void)state;
    static const char *const lists[] = {"id", "composite", "composite_optional", "type"};
    char *events = format("{");
    int pointers = 0;
    for (size_t list = 0; list < LENGTH(lists); list++) {
        events = format("%s%s%s: [", events, list ? ", " : "", lists[list]);
        for (int i = 0; i < 12; i++)
            events = format("%s%s/p%d", events, i ? ", " : "", pointers++);
        events = format("%s]", events);
    }
    assert_int_equal(pointers, SCAN_WANTS_MAX);
    use_recipe(format("%s}", events));
    assert_int_equal(extract_one("", "{\"p47\":\"last\"}").provider_type.len, strlen("last"));
    struct oh_mapping *one_more = mapping;
    struct oh_error err = {.line = 0};
    assert_int_equal(
        oh_mapping_new(recipe, &(struct oh_map){.enrollment_id = "/q"}, &one_more, &err),
        OH_INVALID);
    assert_null(one_more);
    assert_non_null(strstr(err.text, "48"));
    oh_mapping_free(mapping);
    mapping = NULL;
    /* One that is there already costs nothing. */
    assert_int_equal(
        oh_mapping_new(recipe, &(struct oh_map){.enrollment_id = "/p0"}, &mapping, &err), OH_OK);
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
    {FORM_TYPE, "payload=7&payload=7", NULL},
    {FORM_TYPE, "{\"id\":1}", "{\"id\":1}"}, /* JSON under a form's Content-Type */
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

/* A form without such a field is an object of its fields; its own bytes are the event's. */
static void form_without_json_is_an_object(void **state)
{
    (void)state;
    static const char body[] = "MessageSid=SM1&a=1&b=x%22%0A&a=%C3%A9";
    struct oh_extraction out;
    use_recipe("{id: /MessageSid, form_json_field: payload}");
    assert_int_equal(extract_bytes(FORM_TYPE, slice_of_text(body), &out), OH_OK);
    assert_int_equal(out.count, 1);
    assert_string_equal(text_of(out.events[0].key), "SM1");
    assert_string_equal(text_of(out.events[0].raw), body);
    assert_string_equal(
        text_of(out.events[0].payload),
        "{\"MessageSid\":\"SM1\",\"a\":[\"1\",\"\xc3\xa9\"],\"b\":\"x\\\"\\u000a\"}");
    assert_int_equal(extract_bytes(FORM_TYPE, SLICE_LITERAL("a=%00&b=%FF"), &out), OH_OK);
    assert_null(out.events[0].payload.data); /* jsonb cannot hold it: the bytes are kept */
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
    struct oh_extraction out;
    const char *body = "[1]";
    for (int i = 1; i < EVENTS_MAX; i++)
        body = format("%.*s,1]", (int)strlen(body) - 1, body);
    assert_int_equal(extract_bytes("", slice_of_text(body), &out), OH_OK);
    assert_int_equal(out.count, EVENTS_MAX);
    body = format("%.*s,1]", (int)strlen(body) - 1, body);
    assert_int_equal(extract_bytes("", slice_of_text(body), &out), OH_TOO_MANY);
    assert_int_equal(extract_bytes("", SLICE_LITERAL("[]"), &out), OH_OK);
    assert_int_equal(out.count, 0);
}

static void extract_ends_cleanly_wherever_memory_ends(void **state)
{
    (void)state;
    use_recipe("{id: /id, composite: [/a, /b], type: [[/t, 'lit:-', /t]], form_json_field: p,"
               " occurred_at: {from: /at, unit: auto}}");
    struct oh_header headers[1];
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
    const struct CMUnitTest tests[] = {
        EVENT_TEST(names_are_the_contracts),
        EVENT_TEST(type_is_the_first_complete_alternative),
        EVENT_TEST(type_is_cut_between_characters),
        EVENT_TEST(type_of_the_contract_passes_where_the_recipe_says_so),
        EVENT_TEST(pings_are_no_events),
        EVENT_TEST(time_is_the_first_readable_within_the_window),
        EVENT_TEST(owner_that_is_no_uuid_names_nothing),
        EVENT_TEST(mapping_of_the_source_stands_before_the_recipes),
        EVENT_TEST(a_reference_stands_for_the_enrollment_that_is_not_named),
        EVENT_TEST(a_reference_of_parts_is_never_that_of_others),
        EVENT_TEST(mapping_refuses_more_pointers_than_a_scan_follows),
        EVENT_TEST(payload_is_the_exact_bytes_that_jsonb_can_hold),
        EVENT_TEST(form_gives_the_json_of_its_field),
        EVENT_TEST(form_without_json_is_an_object),
        EVENT_TEST(extract_says_why_a_body_is_unreadable),
        EVENT_TEST(extract_takes_no_more_than_the_bound),
        EVENT_TEST(extract_ends_cleanly_wherever_memory_ends),
        EVENT_TEST(builtin_github_reads_headers_and_forms),
        EVENT_TEST(builtin_sendgrid_falls_from_id_to_composite_to_hash),
        EVENT_TEST(builtin_stripe_reads_seconds_and_iso),
    };
    return cmocka_run_group_tests_name("event", tests, NULL, NULL);
}
