/* SPDX-License-Identifier: Apache-2.0 */
/* The traps of the providers, one test each: where a gateway that copies an SDK or a page word for
 * word accepts what it must not, or loses what it must keep. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/slice.h"
#include "oncehook/event.h"
#include "oncehook/sign.h"

#include <stdlib.h>
#include <string.h>

#define NOW_MS INT64_C(1766000000000)
#define URL    "https://hooks.example.com/in/a"

static struct oh_catalog *catalog;
static struct oh_arena *arena;

static int open_catalog(void **state)
{
    (void)state;
    struct oh_error err;
    arena = oh_arena_new(4096, 16 << 20);
    return arena && oh_catalog_new(&catalog, &err) == OH_OK ? 0 : -1;
}

static int close_catalog(void **state)
{
    (void)state;
    oh_catalog_free(catalog);
    oh_arena_free(arena);
    return 0;
}

/* A request with the headers that its signature needs. */
struct trial {
    const struct oh_recipe *recipe;
    struct oh_request request;
    struct oh_header headers[16];
};

static struct trial signed_by(const char *provider, const char *scheme, const char *key,
                              const char *url, const char *type, const char *body)
{
    struct trial t = {.recipe = oh_catalog_find(catalog, provider, scheme)};
    struct oh_signer *signer;
    struct oh_signed done;
    struct oh_error err;
    assert_non_null(t.recipe);
    t.headers[0] = (struct oh_header){SLICE_LITERAL("Content-Type"), slice_of_text(type)};
    t.request = (struct oh_request){.method = SLICE_LITERAL("POST"),
                                    .url = slice_of_text(url),
                                    .headers = t.headers,
                                    .header_count = 1,
                                    .body = slice_of_text(body)};
    if (oh_signer_new(t.recipe, slice_of_text(key), &signer, &err) ||
        oh_sign(signer, &t.request, NOW_MS, arena, &done, &err))
        fail_msg("%s: %s", provider, err.text);
    memcpy(t.headers + 1, done.headers, done.count * sizeof(t.headers[0]));
    t.request.header_count = 1 + done.count;
    t.request.body = done.body;
    t.request.url = done.url;
    oh_signer_free(signer);
    return t;
}

static enum oh_verdict verify(struct trial *t, const char *key)
{
    struct oh_error err;
    struct oh_keyring *ring = oh_keyring_new(t->recipe);
    t->request.headers = t->headers;
    assert_int_equal(oh_keyring_add(ring, slice_of_text(key), &err), OH_OK);
    enum oh_verdict verdict = oh_verify(t->recipe, ring, &t->request, NOW_MS, -1, arena, NULL);
    oh_keyring_free(ring);
    return verdict;
}

static struct oh_extraction extract(struct trial *t)
{
    struct oh_mapping *mapping;
    struct oh_extraction out;
    struct oh_error err;
    t->request.headers = t->headers;
    assert_int_equal(oh_mapping_new(t->recipe, NULL, &mapping, &err), OH_OK);
    if (oh_extract(t->recipe, mapping, &t->request, NOW_MS * 1000, 100, arena, &out, &err))
        fail_msg("%s", err.text);
    oh_mapping_free(mapping);
    return out;
}

static struct oh_slice replaced(struct oh_slice body, const char *from, const char *to)
{
    const char *at = memmem(body.data, body.len, from, strlen(from));
    assert_non_null(at);
    size_t before = (size_t)(at - body.data), len = body.len - strlen(from) + strlen(to);
    char *made = oh_arena_alloc(arena, len);
    memcpy(made, body.data, before);
    memcpy(made + before, to, strlen(to));
    memcpy(made + before + strlen(to), at + strlen(from), body.len - before - strlen(from));
    return slice_of(made, len);
}

static void base64_that_is_not_canonical_is_refused(void **state)
{
    (void)state;
    struct trial t = signed_by("sanity", NULL, "s", URL, "application/json", "{}");
    assert_int_equal(verify(&t, "s"), OH_ACCEPTED);
    struct oh_slice *value = &t.headers[t.request.header_count - 1].value;
    /* 32 bytes leave two bits of the last symbol unused: the next one decodes to the same bytes. */
    char *changed = oh_arena_alloc(arena, value->len);
    memcpy(changed, value->data, value->len);
    changed[value->len - 1]++;
    *value = slice_of(changed, value->len);
    assert_int_equal(verify(&t, "s"), OH_SIGNATURE_WRONG);
}

#define ADYEN_KEY "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"

static void adyen_later_items_are_verified_too(void **state)
{
    (void)state;
    struct trial t = signed_by(
        "adyen", "adyen", ADYEN_KEY, URL, "application/json",
        "{\"notificationItems\":[{\"NotificationRequestItem\":{\"pspReference\":\"p1\","
        "\"eventCode\":"
        "\"A\"}},{\"NotificationRequestItem\":{\"pspReference\":\"p2\",\"eventCode\":\"B\"}}]}");
    assert_int_equal(verify(&t, ADYEN_KEY), OH_ACCEPTED);
    assert_int_equal(extract(&t).count, 2);
    struct oh_slice good = t.request.body;
    t.request.body = replaced(good, "\"p2\"", "\"p3\"");
    assert_int_equal(verify(&t, ADYEN_KEY), OH_SIGNATURE_WRONG);
    t.request.body = replaced(good, "]}", ",{\"NotificationRequestItem\":{}}]}");
    assert_int_equal(verify(&t, ADYEN_KEY), OH_SIGNATURE_MISSING);
    t.request.body = SLICE_LITERAL("{\"notificationItems\":[]}");
    assert_int_equal(verify(&t, ADYEN_KEY), OH_SIGNATURE_MISSING);
}

static void hubspot_v3_is_taken_decoded_and_not(void **state)
{
    (void)state;
    const char *escaped = "https://h.example.com/in/t%3A1?e=a%40b.co",
               *plain = "https://h.example.com/in/t:1?e=a@b.co";
    struct trial t = signed_by("hubspot", "hubspot_v3", "s", escaped, "application/json", "[]");
    assert_int_equal(verify(&t, "s"), OH_ACCEPTED);
    t = signed_by("hubspot", "hubspot_v3", "s", plain, "application/json", "[]");
    t.request.url = slice_of_text(escaped); /* signed decoded, as the page says */
    assert_int_equal(verify(&t, "s"), OH_ACCEPTED);
    t.request.url = SLICE_LITERAL("https://h.example.com/in/t%3B1?e=a%40b.co");
    assert_int_equal(verify(&t, "s"), OH_SIGNATURE_WRONG);
}

static void mailgun_event_is_not_signed(void **state)
{
    (void)state;
    struct trial t = signed_by(
        "mailgun", "mailgun", "s", URL, "application/json",
        "{\"event-data\":{\"event\":\"opened\",\"id\":\"i\",\"timestamp\":1765999990.5}}");
    assert_int_equal(verify(&t, "s"), OH_ACCEPTED);
    struct oh_extraction first = extract(&t);
    assert_int_equal(first.events[0].type, OH_EVENT_OPENED);
    t.request.body = replaced(t.request.body, "opened", "failed");
    assert_int_equal(verify(&t, "s"), OH_ACCEPTED); /* the scheme cannot tell */
    /* But the token is the id: what was altered on the way is a duplicate of what was sent. */
    struct oh_extraction second = extract(&t);
    assert_true(slice_equals(first.events[0].key, second.events[0].key));
    assert_int_equal(second.events[0].grade, OH_GRADE_ID);
}

static void repeated_headers_are_refused_but_for_mollie(void **state)
{
    (void)state;
    struct trial t = signed_by("github", NULL, "s", URL, "application/json", "{}");
    t.headers[t.request.header_count] = t.headers[t.request.header_count - 1];
    t.request.header_count++;
    assert_int_equal(verify(&t, "s"), OH_SIGNATURE_MISSING);
    t = signed_by("mollie", NULL, "s", URL, "application/json", "{}");
    t.headers[t.request.header_count] = t.headers[t.request.header_count - 1];
    t.headers[t.request.header_count++].value =
        SLICE_LITERAL("sha256=0000000000000000000000000000000000000000000000000000000000000000");
    assert_int_equal(verify(&t, "s"), OH_ACCEPTED);
    /* A line in another form is no signature; the right one beside it still is, as for Mollie's
     * SDK. */
    t.headers[t.request.header_count - 1].value = SLICE_LITERAL("sha512=00");
    assert_int_equal(verify(&t, "s"), OH_ACCEPTED);
    t.headers[t.request.header_count - 2].value = SLICE_LITERAL("sha512=00");
    assert_int_equal(verify(&t, "s"), OH_SIGNATURE_MISSING);
}

/* An id of a call, a message or a deal is a field of the key, never the key. */
static void resource_ids_do_not_make_events_equal(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"aircall", "{\"event\":\"call.created\",\"timestamp\":1,\"data\":{\"id\":5}}",
         "{\"event\":\"call.ended\",\"timestamp\":1,\"data\":{\"id\":5}}"},
        {"retell", "{\"event\":\"call_started\",\"call\":{\"call_id\":\"c\"}}",
         "{\"event\":\"call_ended\",\"call\":{\"call_id\":\"c\"}}"},
        {"paystack", "{\"event\":\"a\",\"data\":{\"id\":1}}",
         "{\"event\":\"b\",\"data\":{\"id\":1}}"},
        {"gong", "{\"callData\":{\"metaData\":{\"id\":\"1\"}},\"n\":1}",
         "{\"callData\":{\"metaData\":{\"id\":\"1\"}},\"n\":2}"},
        {"unipile", "{\"event\":\"mail_opened\",\"email_id\":\"e\",\"n\":1}",
         "{\"event\":\"mail_opened\",\"email_id\":\"e\",\"n\":2}"},
        {"messagebird", "{\"type\":\"message.updated\",\"n\":1}",
         "{\"type\":\"message.updated\",\"n\":2}"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct trial t = {.recipe = oh_catalog_find(catalog, rows[i][0], NULL)};
        t.request.body = slice_of_text(rows[i][1]);
        struct oh_extraction a = extract(&t);
        t.request.body = slice_of_text(rows[i][2]);
        struct oh_extraction b = extract(&t);
        if (slice_equals(a.events[0].key, b.events[0].key))
            fail_msg("%s: two events are one", rows[i][0]);
    }
}

static void header_id_does_not_name_several_events(void **state)
{
    (void)state;
    struct trial t = {.recipe = oh_catalog_find(catalog, "svix", NULL)};
    t.headers[0] = (struct oh_header){SLICE_LITERAL("svix-id"), SLICE_LITERAL("msg_1")};
    t.request.header_count = 1;
    t.request.body = SLICE_LITERAL("{\"type\":\"a\"}");
    assert_true(slice_equals(extract(&t).events[0].key, SLICE_LITERAL("msg_1")));
    t.request.body = SLICE_LITERAL("[{\"type\":\"a\"},{\"type\":\"b\"}]");
    struct oh_extraction two = extract(&t);
    assert_int_equal(two.count, 2);
    assert_int_equal(two.events[0].grade, OH_GRADE_HASH);
    assert_false(slice_equals(two.events[0].key, two.events[1].key));
}

static void secrets_that_look_alike_are_not(void **state)
{
    (void)state;
    const char *key = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    struct trial t = signed_by("svix", NULL, key, URL, "application/json", "{}");
    assert_int_equal(verify(&t, key + 6), OH_ACCEPTED); /* base64 with or without its prefix */
    t = signed_by("stripe", NULL, key, URL, "application/json", "{}");
    assert_int_equal(verify(&t, key), OH_ACCEPTED);
    assert_int_equal(verify(&t, key + 6), OH_SIGNATURE_WRONG); /* the text itself */
}

static void sparkpost_empty_classes_are_no_events(void **state)
{
    (void)state;
    struct trial t = {.recipe = oh_catalog_find(catalog, "sparkpost", NULL)};
    t.request.body = SLICE_LITERAL("[{\"msys\":{}}]");
    assert_int_equal(extract(&t).count, 0);
    t.request.body = SLICE_LITERAL("[{\"msys\":{}},{\"msys\":{\"track_event\":{\"type\":\"click\","
                                   "\"event_id\":\"9\",\"timestamp\":\"1765999990\"}}}]");
    struct oh_extraction out = extract(&t);
    assert_int_equal(out.count, 1);
    assert_true(slice_equals(out.events[0].key, SLICE_LITERAL("9")));
    assert_int_equal(out.events[0].type, OH_EVENT_CLICKED);
}

/* SES speaks through SNS: JSON as a text inside JSON. */
static void sns_message_is_read_inside(void **state)
{
    (void)state;
    struct trial t = {.recipe = oh_catalog_find(catalog, "aws_sns", NULL)};
    t.request.body =
        SLICE_LITERAL("{\"Type\":\"Notification\",\"MessageId\":\"m1\",\"Message\":\"{"
                      "\\\"eventType\\\":\\\"Bounce\\\","
                      "\\\"bounce\\\":{\\\"timestamp\\\":\\\"2025-12-17T19:33:20Z\\\"}}\"}");
    struct oh_extraction out = extract(&t);
    assert_int_equal(out.events[0].type, OH_EVENT_BOUNCED);
    assert_int_equal(out.events[0].occurred_at_us, NOW_MS * 1000);
    assert_true(slice_equals(out.events[0].key, SLICE_LITERAL("m1")));
}

/* Braintree: base64 of XML in a form. */
static void braintree_xml_is_one_event_without_payload(void **state)
{
    (void)state;
    struct trial t = signed_by(
        "braintree", NULL, "s", URL, "application/x-www-form-urlencoded",
        "bt_payload=PG5vdGlmaWNhdGlvbj48a2luZD5kaXNwdXRlX29wZW5lZDwva2luZD48L25vdGlmaWNhdGlvbj4%3D%"
        "0A");
    assert_int_equal(verify(&t, "s"), OH_ACCEPTED);
    struct oh_extraction out = extract(&t);
    assert_int_equal(out.count, 1);
    assert_true(slice_equals(out.events[0].provider_type, SLICE_LITERAL("dispute_opened")));
    assert_null(out.events[0].payload.data);
    assert_true(slice_has_prefix(out.events[0].raw, SLICE_LITERAL("<notification>")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base64_that_is_not_canonical_is_refused),
        cmocka_unit_test(adyen_later_items_are_verified_too),
        cmocka_unit_test(hubspot_v3_is_taken_decoded_and_not),
        cmocka_unit_test(mailgun_event_is_not_signed),
        cmocka_unit_test(repeated_headers_are_refused_but_for_mollie),
        cmocka_unit_test(resource_ids_do_not_make_events_equal),
        cmocka_unit_test(header_id_does_not_name_several_events),
        cmocka_unit_test(secrets_that_look_alike_are_not),
        cmocka_unit_test(sparkpost_empty_classes_are_no_events),
        cmocka_unit_test(sns_message_is_read_inside),
        cmocka_unit_test(braintree_xml_is_one_event_without_payload),
    };
    return cmocka_run_group_tests_name("traps", tests, open_catalog, close_catalog);
}
