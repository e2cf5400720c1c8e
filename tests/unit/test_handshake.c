/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of handshakes: every recorded exchange gets the recorded answer, and none of them signs
 * what could be an event. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/slice.h"
#include "oncehook/event.h"
#include "oncehook/handshake.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct oh_slice text_of(const json_t *object, const char *name)
{
    const json_t *text = json_object_get(object, name);
    return slice_of(json_string_value(text), json_string_length(text));
}

/* Recorded JSON bodies are compared as values. */
static void check_body(const char *id, const json_t *response, struct oh_slice body)
{
    const json_t *wanted = json_object_get(response, "body_json");
    struct oh_slice text = text_of(response, "body");
    if (wanted) {
        json_t *given = json_loadb(body.data, body.len, 0, NULL);
        if (!given || !json_equal(given, wanted))
            fail_msg("%s: %.*s", id, (int)body.len, body.data);
        json_decref(given);
    } else if (text.data && !slice_equals(text, body)) {
        fail_msg("%s: %.*s", id, (int)body.len, body.data);
    }
}

/* Xero's wrong signatures are recorded too: verification comes before the answer. */
static int status_of(const char *provider, struct oh_request *request, struct oh_slice secret,
                     const struct oh_handshake_answer *answer, struct oh_arena *arena)
{
    struct oh_catalog *catalog;
    struct oh_error err;
    if (!answer->verify_first || strcmp(provider, "xero") != 0)
        return answer->status;
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    const struct oh_recipe *recipe = oh_catalog_find(catalog, provider, NULL);
    struct oh_keyring *ring = oh_keyring_new(recipe);
    assert_int_equal(oh_keyring_add(ring, secret, &err), OH_OK);
    int status =
        oh_verify(recipe, ring, request, 0, -1, arena, NULL) == OH_ACCEPTED ? answer->status : 401;
    oh_keyring_free(ring);
    oh_catalog_free(catalog);
    return status;
}

static void every_recorded_exchange_gets_its_answer(void **state)
{
    (void)state;
    json_t *list = json_load_file(HANDSHAKES, 0, NULL), *item, *value;
    const char *name;
    size_t i;
    assert_int_equal(json_array_size(list), 30);
    json_array_foreach(list, i, item)
    {
        const json_t *from = json_object_get(item, "request"),
                     *to = json_object_get(item, "response");
        const char *id = json_string_value(json_object_get(item, "id"));
        const char *provider = json_string_value(json_object_get(item, "provider"));
        struct oh_arena *arena = oh_arena_new(4096, 1 << 20);
        struct oh_header headers[8];
        struct oh_handshake_answer answer;
        char url[512];
        struct oh_slice query = text_of(from, "query");
        snprintf(url, sizeof(url), "https://hooks.example.com/in/a?%.*s", (int)query.len,
                 query.data ? query.data : "");
        struct oh_request request = {.method = text_of(from, "method"),
                                     .url = slice_of_text(url),
                                     .headers = headers,
                                     .body = text_of(from, "body")};
        json_object_foreach(json_object_get(from, "headers"), name, value)
            headers[request.header_count++] =
                (struct oh_header){slice_of_text(name), slice_of_text(json_string_value(value))};
        const struct oh_handshake_options options = {
            text_of(from, "secret"), text_of(from, "verify_token"), text_of(from, "public_key"),
            text_of(from, "endpoint"), true};
        if (!oh_handshake(provider, &request, &options, arena, &answer))
            fail_msg("%s: no handshake", id);
        int status = status_of(provider, &request, options.secret, &answer, arena);
        if (status != json_integer_value(json_object_get(to, "status")))
            fail_msg("%s: status %d", id, status);
        check_body(id, to, answer.body);
        json_object_foreach(json_object_get(to, "headers"), name, value)
        {
            bool found = false;
            for (size_t k = 0; k < answer.header_count; k++)
                found |=
                    slice_equals_nocase(answer.headers[k].name, slice_of_text(name)) &&
                    slice_equals(answer.headers[k].value, slice_of_text(json_string_value(value)));
            if (!found)
                fail_msg("%s: no %s", id, name);
        }
        oh_arena_free(arena);
    }
    json_decref(list);
}

/* Whatever has a letter of a signed message is refused, and a secret is learned only while armed.
 */
static void handshakes_are_no_signing_oracles(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"x_twitter", "GET", "crc_token=%7B%7D"},
        {"x_twitter", "GET", "crc_token=a:b"},
        {"x_twitter", "GET", "crc_token=%22"},
        {"braintree", "GET", "bt_challenge=PGE%2B"},
        {"braintree", "GET", "bt_challenge=20f9f8ed05f77439fe955c977e4c8a530"},
        {"braintree", "GET", "bt_challenge=20F9F8ED05F77439FE955C977E4C8A53"},
    };
    const struct oh_handshake_options options = {.secret = SLICE_LITERAL("s")};
    struct oh_arena *arena = oh_arena_new(4096, 1 << 20);
    struct oh_handshake_answer answer;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char url[256];
        snprintf(url, sizeof(url), "/in/a?%s", rows[i][2]);
        struct oh_request request = {.method = slice_of_text(rows[i][1]),
                                     .url = slice_of_text(url),
                                     .body = SLICE_LITERAL("")};
        assert_true(oh_handshake(rows[i][0], &request, &options, arena, &answer));
        assert_int_equal(answer.status, 400);
        assert_int_equal(answer.body.len, 0);
    }
    struct oh_header line = {SLICE_LITERAL("x-hook-secret"), SLICE_LITERAL("abc")};
    struct oh_request request = {.method = SLICE_LITERAL("POST"),
                                 .url = SLICE_LITERAL("/in/a"),
                                 .headers = &line,
                                 .header_count = 1,
                                 .body = SLICE_LITERAL("")};
    assert_true(oh_handshake("asana", &request, &options, arena, &answer));
    assert_int_equal(answer.status, 403);
    assert_null(answer.learned.data);
    /* Without the public key Braintree would refuse the answer, so nothing is signed. */
    request = (struct oh_request){
        .method = SLICE_LITERAL("GET"),
        .url = SLICE_LITERAL("/in/a?bt_challenge=20f9f8ed05f77439fe955c977e4c8a53")};
    assert_true(oh_handshake("braintree", &request, &options, arena, &answer));
    assert_int_equal(answer.status, 403);
    assert_int_equal(answer.body.len, 0);
    /* A ping of WooCommerce is no delivery, and a delivery no ping. */
    line = (struct oh_header){SLICE_LITERAL("X-WC-Webhook-Signature"), SLICE_LITERAL("abc")};
    request = (struct oh_request){.method = SLICE_LITERAL("POST"),
                                  .url = SLICE_LITERAL("/in/a"),
                                  .headers = &line,
                                  .header_count = 1,
                                  .body = SLICE_LITERAL("webhook_id=7")};
    assert_false(oh_handshake("woocommerce", &request, &options, arena, &answer));
    request.header_count = 0;
    assert_true(oh_handshake("woocommerce", &request, &options, arena, &answer));
    request.body = SLICE_LITERAL("webhook_id=7&order=1");
    assert_false(oh_handshake("woocommerce", &request, &options, arena, &answer));
    request.body = SLICE_LITERAL("{\"id\":7}");
    assert_false(oh_handshake("woocommerce", &request, &options, arena, &answer));
    /* Events are no handshakes. */
    request = (struct oh_request){.method = SLICE_LITERAL("POST"),
                                  .url = SLICE_LITERAL("/in/a"),
                                  .body = SLICE_LITERAL("{\"events\":[{\"a\":1}]}")};
    assert_false(oh_handshake("xero", &request, &options, arena, &answer));
    request.body = SLICE_LITERAL("[{\"msys\":{}},{\"msys\":{\"message_event\":{}}}]");
    assert_false(oh_handshake("sparkpost", &request, &options, arena, &answer));
    oh_arena_free(arena);
}

/* X asks for the HMAC of a token under the key that signs its deliveries, and a number is such a
 * token and JSON: signed as a body it must not be an event. */
static void a_token_that_is_json_is_no_event(void **state)
{
    (void)state;
    static const char *const tokens[] = {"12345", "-1.5e+3", "true", "null"};
    struct oh_catalog *catalog;
    struct oh_mapping *mapping;
    struct oh_extraction out;
    struct oh_error err;
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    const struct oh_recipe *recipe = oh_catalog_find(catalog, "x_twitter", NULL);
    assert_int_equal(oh_mapping_new(recipe, NULL, &mapping, &err), OH_OK);
    struct oh_arena *arena = oh_arena_new(4096, 1 << 20);
    for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++) {
        struct oh_request request = {.method = SLICE_LITERAL("POST"),
                                     .body = slice_of_text(tokens[i])};
        assert_int_equal(oh_extract(recipe, mapping, &request, 0, 10, arena, &out, &err), OH_OK);
        assert_int_equal(out.count, 0);
    }
    struct oh_request request = {.body = SLICE_LITERAL("{\"for_user_id\":\"1\"}")};
    assert_int_equal(oh_extract(recipe, mapping, &request, 0, 10, arena, &out, &err), OH_OK);
    assert_int_equal(out.count, 1);
    oh_arena_free(arena);
    oh_mapping_free(mapping);
    oh_catalog_free(catalog);
}

/* Anybody gets Braintree's HMAC of a challenge, so a payload that could be one proves nothing. */
static void a_challenge_is_no_payload_of_braintree(void **state)
{
    (void)state;
    static const char *const challenges[] = {"20f9f8ed05f77439fe955c977e4c8a53",
                                             "20f9f8ed05f77439fe95"};
    const struct oh_handshake_options options = {.secret = SLICE_LITERAL("s"),
                                                 .public_key = SLICE_LITERAL("k")};
    struct oh_catalog *catalog;
    struct oh_error err;
    struct oh_arena *arena = oh_arena_new(4096, 1 << 20);
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    const struct oh_recipe *recipe = oh_catalog_find(catalog, "braintree", NULL);
    struct oh_keyring *ring = oh_keyring_new(recipe);
    assert_int_equal(oh_keyring_add(ring, options.secret, &err), OH_OK);
    for (size_t i = 0; i < sizeof(challenges) / sizeof(challenges[0]); i++) {
        struct oh_handshake_answer answer;
        char url[128], body[256];
        snprintf(url, sizeof(url), "/in/a?bt_challenge=%s", challenges[i]);
        struct oh_request request = {.method = SLICE_LITERAL("GET"), .url = slice_of_text(url)};
        assert_true(oh_handshake("braintree", &request, &options, arena, &answer));
        assert_int_equal(answer.status, 200);
        struct oh_header type = {SLICE_LITERAL("content-type"),
                                 SLICE_LITERAL("application/x-www-form-urlencoded")};
        snprintf(body, sizeof(body), "bt_signature=%.*s&bt_payload=%s", (int)answer.body.len,
                 answer.body.data, challenges[i]);
        request = (struct oh_request){.method = SLICE_LITERAL("POST"),
                                      .headers = &type,
                                      .header_count = 1,
                                      .body = slice_of_text(body)};
        assert_int_not_equal(oh_verify(recipe, ring, &request, 0, -1, arena, NULL), OH_ACCEPTED);
    }
    oh_keyring_free(ring);
    oh_arena_free(arena);
    oh_catalog_free(catalog);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_challenge_is_no_payload_of_braintree),
        cmocka_unit_test(every_recorded_exchange_gets_its_answer),
        cmocka_unit_test(handshakes_are_no_signing_oracles),
        cmocka_unit_test(a_token_that_is_json_is_no_event),
    };
    return cmocka_run_group_tests_name("handshake", tests, NULL, NULL);
}
