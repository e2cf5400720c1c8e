/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of verify: what was signed with a live secret is accepted, anything else is refused with
 * the right reason, and no header however made does harm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/slice.h"
#include "oncehook/sign.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>

/* Published: docs.github.com, "Validating webhook deliveries". */
#define GITHUB_SECRET    "It's a Secret to Everybody"
#define GITHUB_SIGNATURE "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
/* Published: sendgrid-python, test/unit/test_eventwebhook.py. */
#define SENDGRID_KEY                                                                               \
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+" \
    "2fNNRaINXvVpiglSI8eNEc6wEA3F+g=="
#define SENDGRID_SIGNATURE                                                                         \
    "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtE" \
    "ZtM="
#define SENDGRID_BODY                                                                             \
    "[{\"email\":\"hello@world.com\",\"event\":\"dropped\",\"reason\":\"Bounced "                 \
    "Address\",\"sg_event_id\":\"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA\","          \
    "\"sg_message_id\":\"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-" \
    "9."                                                                                          \
    "0\",\"smtp-id\":\"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>\",\"timestamp\":"   \
    "1600112492}]\r\n"
#define NOW_S  1766000000
#define SECRET "test_secret_Zt8%q"

static struct oh_catalog *catalog;

static int set_up(void **state)
{
    struct oh_error err;
    (void)state;
    return oh_catalog_new(&catalog, &err) ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    oh_catalog_free(catalog);
    return 0;
}

static struct oh_keyring *ring_of(const struct oh_recipe *recipe, const char *a, const char *b)
{
    struct oh_error err = {.text = ""};
    struct oh_keyring *ring = oh_keyring_new(recipe);
    assert_non_null(ring);
    if (a && oh_keyring_add(ring, slice_of_text(a), &err))
        fail_msg("%s", err.text);
    if (b && oh_keyring_add(ring, slice_of_text(b), &err))
        fail_msg("%s", err.text);
    return ring;
}

/* One delivery with up to two headers, as `serve` would look at it. */
struct
try {
    const char *provider, *secret, *body;
    const char *name1, *value1, *name2, *value2;
    int64_t now_s, tolerance_s;
    struct oh_verify_result result;
};

static enum oh_verdict verdict_of(struct try *t)
{
    const struct oh_recipe *recipe = oh_catalog_find(catalog, t->provider, NULL);
    struct oh_header headers[] = {
        {SLICE_LITERAL("Content-Type"), SLICE_LITERAL("application/json")},
        {slice_of(NULL, 0), SLICE_LITERAL("what h2o makes of an obs-fold")},
        {slice_of_text(t->name1), slice_of_text(t->value1)},
        {slice_of_text(t->name2), slice_of_text(t->value2)},
    };
    struct oh_request request = {
        .method = SLICE_LITERAL("POST"),
        .url = SLICE_LITERAL("https://hooks.example.com/in/x"),
        .headers = headers,
        .header_count = t->name2   ? 4
                        : t->name1 ? 3
                                   : 2,
        .body = slice_of_text(t->body),
    };
    struct oh_arena *arena = oh_arena_new(256, 65536);
    struct oh_keyring *ring = ring_of(recipe, t->secret, NULL);
    ERR_clear_error();
    enum oh_verdict verdict =
        oh_verify(recipe, ring, &request, t->now_s * 1000, t->tolerance_s, arena, &t->result);
    assert_int_equal(ERR_peek_error(), 0); /* TLS of the same thread would trip over it */
    assert_non_null(t->result.because);
    assert_int_equal(verdict == OH_ACCEPTED || verdict == OH_STALE, t->result.secret_index == 0);
    assert_int_equal(
        verdict, oh_verify(recipe, ring, &request, t->now_s * 1000, t->tolerance_s, arena, NULL));
    oh_keyring_free(ring);
    oh_arena_free(arena);
    return verdict;
}

static enum oh_verdict github(const char *value, const char *body)
{
    struct try t = {.provider = "github",
                    .secret = GITHUB_SECRET,
                    .body = body,
                    .name1 = value ? "X-Hub-Signature-256" : NULL,
                    .value1 = value,
                    .now_s = NOW_S,
                    .tolerance_s = OH_TOLERANCE_OF_SCHEME};
    return verdict_of(&t);
}

static void published_signatures_are_accepted(void **state)
{
    (void)state;
    assert_int_equal(github(GITHUB_SIGNATURE, "Hello, World!"), OH_ACCEPTED);
    struct try t = {.provider = "sendgrid",
                    .secret = SENDGRID_KEY,
                    .body = SENDGRID_BODY,
                    .name1 = "X-Twilio-Email-Event-Webhook-Signature",
                    .value1 = SENDGRID_SIGNATURE,
                    .name2 = "X-Twilio-Email-Event-Webhook-Timestamp",
                    .value2 = "1600112502",
                    .now_s = NOW_S,
                    .tolerance_s = OH_TOLERANCE_OF_SCHEME};
    assert_int_equal(verdict_of(&t), OH_ACCEPTED); /* the scheme itself sets no window */
    t.tolerance_s = 7 * 86400;
    assert_int_equal(verdict_of(&t), OH_STALE);
    t.value2 = "1600112503";
    assert_int_equal(verdict_of(&t), OH_SIGNATURE_WRONG); /* not stale: it was never signed */
    t.value2 = "";
    assert_int_equal(verdict_of(&t), OH_SIGNATURE_MISSING);
    t.value2 = "x600112502";
    assert_int_equal(verdict_of(&t), OH_SIGNATURE_MISSING);
    t.name2 = "Date";
    assert_int_equal(verdict_of(&t), OH_SIGNATURE_MISSING);
}

static void github_refuses_every_other_form(void **state)
{
    (void)state;
    assert_int_equal(github(GITHUB_SIGNATURE, "Hello, World?"), OH_SIGNATURE_WRONG);
    assert_int_equal(github(GITHUB_SIGNATURE, ""), OH_SIGNATURE_WRONG);
    assert_int_equal(github(NULL, "Hello, World!"), OH_SIGNATURE_MISSING);
    static const struct {
        const char *value;
        enum oh_verdict verdict;
    } rows[] = {
        {"", OH_SIGNATURE_MISSING},
        {"foo", OH_SIGNATURE_MISSING},
        {"sha256", OH_SIGNATURE_MISSING},
        {"sha256=", OH_SIGNATURE_WRONG},
        {"757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17", OH_SIGNATURE_MISSING},
        {"SHA256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
         OH_SIGNATURE_MISSING},
        {"sha256=757107EA0EB2509FC211221CCE984B8A37570B6D7586C22C46F4379C8B043E17",
         OH_SIGNATURE_WRONG},
        {"sha256= 757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
         OH_SIGNATURE_WRONG},
        {"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e1",
         OH_SIGNATURE_WRONG},
        {"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e",
         OH_SIGNATURE_WRONG},
        {"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e1700",
         OH_SIGNATURE_WRONG},
        {"sha256=dXEH6g6yUJ/CESEizphLijdXC211hsIsRvQ3nIsEPhc=", OH_SIGNATURE_WRONG},
        {GITHUB_SIGNATURE "," GITHUB_SIGNATURE, OH_SIGNATURE_WRONG},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(github(rows[i].value, "Hello, World!"), rows[i].verdict);
}

static void repeated_header_is_refused(void **state)
{
    (void)state;
    struct try t = {.provider = "github",
                    .secret = GITHUB_SECRET,
                    .body = "Hello, World!",
                    .name1 = "x-hub-signature-256",
                    .value1 = GITHUB_SIGNATURE,
                    .name2 = "X-Hub-Signature-256",
                    .value2 = GITHUB_SIGNATURE,
                    .now_s = NOW_S,
                    .tolerance_s = OH_TOLERANCE_OF_SCHEME};
    assert_int_equal(verdict_of(&t), OH_SIGNATURE_MISSING);
    assert_string_equal(t.result.because, "signature header repeated");
}

/* Signs `body` as Stripe would at signed_s, and gives the header's value. */
static char *stripe_header(const char *secret, const char *body, int64_t signed_s)
{
    struct oh_error err;
    struct oh_signer *signer;
    struct oh_signed done;
    struct oh_arena *arena = oh_arena_new(256, 65536);
    struct oh_request request = {.body = slice_of_text(body)};
    assert_int_equal(oh_signer_new(oh_catalog_find(catalog, "stripe", NULL), slice_of_text(secret),
                                   &signer, &err),
                     OH_OK);
    assert_int_equal(oh_sign(signer, &request, signed_s * 1000, arena, &done, &err), OH_OK);
    assert_int_equal(done.count, 1);
    char *value = strndup(done.headers[0].value.data, done.headers[0].value.len);
    assert_non_null(value);
    oh_signer_free(signer);
    oh_arena_free(arena);
    return value;
}

static enum oh_verdict stripe(const char *value, int64_t now_s, int64_t tolerance_s)
{
    struct try t = {.provider = "stripe",
                    .secret = SECRET,
                    .body = "{\"id\":\"evt_1\"}",
                    .name1 = "Stripe-Signature",
                    .value1 = value,
                    .now_s = now_s,
                    .tolerance_s = tolerance_s};
    return verdict_of(&t);
}

static void window_is_inclusive_and_comes_after_the_signature(void **state)
{
    (void)state;
    char *value = stripe_header(SECRET, "{\"id\":\"evt_1\"}", NOW_S);
    static const struct {
        int64_t after_s, tolerance_s;
        enum oh_verdict verdict;
    } rows[] = {
        {0, OH_TOLERANCE_OF_SCHEME, OH_ACCEPTED},
        {300, OH_TOLERANCE_OF_SCHEME, OH_ACCEPTED},
        {301, OH_TOLERANCE_OF_SCHEME, OH_STALE},
        {-300, OH_TOLERANCE_OF_SCHEME, OH_ACCEPTED},
        {-301, OH_TOLERANCE_OF_SCHEME, OH_STALE},
        {0, 0, OH_ACCEPTED},
        {1, 0, OH_STALE},
        {604800, 604800, OH_ACCEPTED},
        {604801, 604800, OH_STALE},
        {-301, 604800, OH_STALE},
        {301, INT64_MAX, OH_ACCEPTED},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(stripe(value, NOW_S + rows[i].after_s, rows[i].tolerance_s),
                         rows[i].verdict);
    char *tampered = stripe_header(SECRET, "{\"id\":\"evt_2\"}", NOW_S - 100000);
    assert_int_equal(stripe(tampered, NOW_S, OH_TOLERANCE_OF_SCHEME), OH_SIGNATURE_WRONG);
    free(tampered);
    free(value);
}

static void kv_header_is_read_strictly(void **state)
{
    (void)state;
    char *value = stripe_header(SECRET, "{\"id\":\"evt_1\"}", NOW_S);
    const char *good = strstr(value, "v1="); /* "t=1766000000,v1=…" */
    assert_non_null(good);
#define ZEROS "v1=0000000000000000000000000000000000000000000000000000000000000000"
    static const struct {
        const char *format;
        enum oh_verdict verdict;
    } rows[] = {
        {"t=1766000000,%s", OH_ACCEPTED},
        {"%s,t=1766000000", OH_ACCEPTED},
        {"t=1766000000, %s", OH_ACCEPTED},
        {"t=1766000000," ZEROS ",%s", OH_ACCEPTED},
        {"t=1766000000,v0=abc,x=,%s,=", OH_ACCEPTED},
        {"t=01766000000,%s", OH_SIGNATURE_WRONG},
        {"t=1766000001,%s", OH_SIGNATURE_WRONG},
        {"t=1766000000,v0=%s", OH_SIGNATURE_MISSING},
        {"t=1766000000,t=1766000000,%s", OH_SIGNATURE_MISSING},
        {"%s", OH_SIGNATURE_MISSING},
        {"t=,%s", OH_SIGNATURE_MISSING},
        {"t=-1,%s", OH_SIGNATURE_MISSING},
        {"t=+1766000000,%s", OH_SIGNATURE_MISSING},
        {"t= 1766000000,%s", OH_SIGNATURE_MISSING},
        {"t=1766000000.0,%s", OH_SIGNATURE_MISSING},
        {"t=1e9,%s", OH_SIGNATURE_MISSING},
        {"t=9223372036854775807,%s", OH_SIGNATURE_WRONG},
        {"t=9223372036854775808,%s", OH_SIGNATURE_MISSING},
        {"t=999999999999999999999999999999,%s", OH_SIGNATURE_MISSING},
        {"t=1766000000,%s,", OH_SIGNATURE_MISSING},
        {",t=1766000000,%s", OH_SIGNATURE_MISSING},
        {"t=1766000000,,%s", OH_SIGNATURE_MISSING},
        {"t=1766000000,junk,%s", OH_SIGNATURE_MISSING},
        {"t=1766000000;%s", OH_SIGNATURE_MISSING},
        {"T=1766000000,%s", OH_SIGNATURE_MISSING},
        {"t=1766000000,V%s", OH_SIGNATURE_MISSING},
        {"t=1766000000," ZEROS "," ZEROS "," ZEROS "," ZEROS "," ZEROS "," ZEROS "," ZEROS "," ZEROS
         "," ZEROS "," ZEROS "," ZEROS "," ZEROS "," ZEROS "," ZEROS "," ZEROS "," ZEROS ",%s",
         OH_SIGNATURE_MISSING}, /* the 17th */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char header[2048];
        const char *at = strstr(rows[i].format, "%s");
        snprintf(header, sizeof(header), "%.*s%s%s", (int)(at - rows[i].format), rows[i].format,
                 good, at + 2);
        enum oh_verdict verdict = stripe(header, NOW_S, OH_TOLERANCE_OF_SCHEME);
        if (verdict != rows[i].verdict)
            fail_msg("'%s': %s", header, oh_verdict_name(verdict));
    }
    free(value);
}

static void any_live_secret_counts(void **state)
{
    (void)state;
    const struct oh_recipe *recipe = oh_catalog_find(catalog, "stripe", NULL);
    char *value = stripe_header(SECRET, "x", NOW_S);
    struct oh_header header = {SLICE_LITERAL("stripe-signature"), slice_of_text(value)};
    struct oh_request request = {.headers = &header, .header_count = 1, .body = SLICE_LITERAL("x")};
    struct oh_verify_result result;
    struct oh_keyring *ring = ring_of(recipe, "other_secret", SECRET);
    assert_int_equal(oh_keyring_count(ring), 2);
    assert_int_equal(oh_verify(recipe, ring, &request, NOW_S * INT64_C(1000), -1, NULL, &result),
                     OH_ACCEPTED);
    assert_int_equal(result.secret_index, 1);
    oh_keyring_free(ring);
    ring = ring_of(recipe, "other_secret", "third");
    assert_int_equal(oh_verify(recipe, ring, &request, NOW_S * INT64_C(1000), -1, NULL, &result),
                     OH_SIGNATURE_WRONG);
    oh_keyring_free(ring);
    ring = ring_of(recipe, NULL, NULL);
    assert_int_equal(oh_verify(recipe, ring, &request, NOW_S * INT64_C(1000), -1, NULL, &result),
                     OH_SIGNATURE_WRONG);
    assert_string_equal(result.because, "no secret");
    oh_keyring_free(ring);
    free(value);
}

static void bad_secrets_are_refused_and_never_repeated(void **state)
{
    (void)state;
    struct oh_error err;
    struct oh_keyring *ring = ring_of(oh_catalog_find(catalog, "stripe", NULL), NULL, NULL);
    assert_int_equal(oh_keyring_add(ring, slice_of("", 0), &err), OH_INVALID);
    assert_int_equal(oh_keyring_add(ring, slice_of(NULL, 0), &err), OH_INVALID);
    char *large = calloc(1, 70000);
    assert_non_null(large);
    assert_int_equal(oh_keyring_add(ring, slice_of(large, 70000), &err), OH_INVALID);
    free(large);
    assert_int_equal(oh_keyring_count(ring), 0);
    for (int i = 0; i < 64; i++)
        assert_int_equal(oh_keyring_add(ring, SLICE_LITERAL("s"), &err), OH_OK);
    assert_int_equal(oh_keyring_add(ring, SLICE_LITERAL("s"), &err), OH_INVALID);
    oh_keyring_free(ring);
    oh_keyring_free(NULL);

    static const char *const keys[] = {
        "hunter2",
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE",
        SENDGRID_KEY "=",
        "-----BEGIN PUBLIC KEY-----\nhunter2\n-----END PUBLIC KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n",
        /* the published key with a byte behind its end, and one on secp256k1 */
        ("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/"
         "7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw"
         "+2fNNRaINXvVpiglSI8eNEc6wEA3F+gA="),
        ("MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEeb5mfvncu6xVoGKVzocLBwKb/"
         "NstzijZWfKBWxb4F5hIOtp3JqPEZV2k+/wOEQio/Re0SKaFVBmcR9CP+xDUuA=="),
    };
    ring = ring_of(oh_catalog_find(catalog, "sendgrid", NULL), NULL, NULL);
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        assert_int_equal(oh_keyring_add(ring, slice_of_text(keys[i]), &err), OH_INVALID);
        assert_null(strstr(err.text, "hunter2"));
        assert_null(strstr(err.text, "MFkw"));
        assert_int_equal(ERR_peek_error(), 0);
    }
    assert_int_equal(oh_keyring_add(ring, SLICE_LITERAL("  " SENDGRID_KEY "\n"), &err), OH_OK);
    assert_int_equal(oh_keyring_add(ring,
                                    SLICE_LITERAL("-----BEGIN PUBLIC KEY-----\n" SENDGRID_KEY
                                                  "\n-----END PUBLIC KEY-----\n"),
                                    &err),
                     OH_OK);
    oh_keyring_free(ring);
}

/* Every byte of a right header changed to every other value, and the header cut at every byte: none
 * of them is accepted (the signature is the only one of its kind), and nothing is harmed. */
static void no_altered_header_is_accepted(void **state)
{
    (void)state;
    char *right = stripe_header(SECRET, "{\"id\":\"evt_1\"}", NOW_S);
    size_t len = strlen(right);
    const struct oh_recipe *recipe = oh_catalog_find(catalog, "stripe", NULL);
    struct oh_keyring *ring = ring_of(recipe, SECRET, NULL);
    for (size_t at = 0; at < len; at++) {
        for (int c = 0; c < 256; c++) {
            char *header = malloc(len); /* exactly: the sanitizer guards its end */
            assert_non_null(header);
            memcpy(header, right, len);
            header[at] = (char)c;
            struct oh_header line = {SLICE_LITERAL("stripe-signature"), slice_of(header, len)};
            struct oh_request request = {
                .headers = &line, .header_count = 1, .body = SLICE_LITERAL("{\"id\":\"evt_1\"}")};
            enum oh_verdict verdict =
                oh_verify(recipe, ring, &request, NOW_S * INT64_C(1000), -1, NULL, NULL);
            assert_int_equal(verdict == OH_ACCEPTED, (char)c == right[at]);
            line.value.len = at;
            assert_int_not_equal(
                oh_verify(recipe, ring, &request, NOW_S * INT64_C(1000), -1, NULL, NULL),
                OH_ACCEPTED);
            free(header);
        }
    }
    oh_keyring_free(ring);
    free(right);
}

static void hmac_of_the_source_verifies(void **state)
{
    (void)state;
    /* RFC 2202 case 2 (SHA-1) and RFC 4231 case 2: key "Jefe". */
    static const struct {
        struct oh_hmac_options options;
        const char *value;
    } rows[] = {
        {{.header = "X-Sig", .algorithm = "sha1"}, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"},
        {{.header = "X-Sig"}, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
        {{.header = "X-Sig", .encoding = "base64", .prefix = "v="},
         "v=W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM="},
        {{.header = "X-Sig", .algorithm = "sha512"},
         "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f"
         "8"
         "f0e6fdcaeab1a34d4a6b4b636e070a38bce737"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct oh_recipe *recipe;
        struct oh_error err;
        assert_int_equal(oh_catalog_add_hmac(catalog, &rows[i].options, &recipe, &err), OH_OK);
        struct oh_keyring *ring = ring_of(recipe, "Jefe", NULL);
        struct oh_header header = {SLICE_LITERAL("x-SIG"), slice_of_text(rows[i].value)};
        struct oh_request request = {.headers = &header,
                                     .header_count = 1,
                                     .body = SLICE_LITERAL("what do ya want for nothing?")};
        assert_int_equal(oh_verify(recipe, ring, &request, 0, 0, NULL, NULL), OH_ACCEPTED);
        request.body.len--;
        assert_int_equal(oh_verify(recipe, ring, &request, 0, 0, NULL, NULL), OH_SIGNATURE_WRONG);
        oh_keyring_free(ring);
    }
}

/* Sanity's published reject vector: the same bytes, another text. */
static void base64_twin_of_a_signature_is_refused(void **state)
{
    (void)state;
    const struct oh_recipe *recipe;
    struct oh_error err;
    struct oh_hmac_options options = {.header = "X-Sig", .encoding = "base64"};
    assert_int_equal(oh_catalog_add_hmac(catalog, &options, &recipe, &err), OH_OK);
    struct oh_keyring *ring = ring_of(recipe, "Jefe", NULL);
    static const struct {
        const char *value;
        bool accepted;
    } rows[] = {{"W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=", true},
                {"W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEN=", false},
                {"W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM", false},
                {"W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM==", false}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct oh_header header = {SLICE_LITERAL("X-Sig"), slice_of_text(rows[i].value)};
        struct oh_request request = {.headers = &header,
                                     .header_count = 1,
                                     .body = SLICE_LITERAL("what do ya want for nothing?")};
        enum oh_verdict verdict = oh_verify(recipe, ring, &request, 0, -1, NULL, NULL);
        assert_int_equal(verdict, rows[i].accepted ? OH_ACCEPTED : OH_SIGNATURE_WRONG);
    }
    oh_keyring_free(ring);
}

/* What is asked at a moment, of a ring whose first secret is limited: the verdict and which secret.
 */
static void check_at(const struct oh_recipe *recipe, const struct oh_keyring *ring,
                     const struct oh_request *request, int64_t now_ms, bool accepted)
{
    struct oh_arena *arena = oh_arena_new(4096, 1 << 16);
    struct oh_verify_result result;
    enum oh_verdict verdict = oh_verify(recipe, ring, request, now_ms, 1 << 30, arena, &result);
    if (verdict != (accepted ? OH_ACCEPTED : OH_SIGNATURE_WRONG))
        fail_msg("%s at %lld: %s (%s)", accepted ? "refused" : "accepted", (long long)now_ms,
                 oh_verdict_name(verdict), result.because);
    assert_int_equal(result.secret_index, accepted ? 1 : -1);
    if (!accepted)
        assert_non_null(strstr(result.because, "not_before"));
    oh_arena_free(arena);
}

/* Each way of finding the secret: HMAC, a digest with the secret in it, a public key, a token, a
 * JWT. */
static void a_secret_is_taken_from_not_before_to_not_after(void **state)
{
    (void)state;
    static const char *const rows[] = {"github", "hubspot", "discord", "gitlab", "monday"};
    const int64_t now_ms = INT64_C(1000) * NOW_S, day_ms = 86400000;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct oh_recipe *recipe = NULL;
        for (size_t k = 0; k < oh_catalog_count(catalog) && !recipe; k++) {
            struct oh_recipe_info info;
            oh_recipe_describe(oh_catalog_at(catalog, k), &info);
            if (strcmp(info.provider, rows[i]) == 0)
                recipe = oh_catalog_at(catalog, k);
        }
        assert_non_null(recipe);
        struct oh_error err = {.text = ""};
        struct oh_made_key key, other;
        struct oh_signer *signer = NULL;
        struct oh_signed made;
        if (oh_key_make(recipe, &key, &err) || oh_key_make(recipe, &other, &err) ||
            oh_signer_new(recipe, slice_of_text(key.private_half[0] ? key.private_half : key.shown),
                          &signer, &err))
            fail_msg("%s: %s", rows[i], err.text);
        struct oh_arena *arena = oh_arena_new(4096, 1 << 16);
        struct oh_request request = {.method = SLICE_LITERAL("POST"),
                                     .url = SLICE_LITERAL("https://hooks.example.com/in/x"),
                                     .body = SLICE_LITERAL("{\"id\":1}")};
        if (oh_sign(signer, &request, now_ms, arena, &made, &err))
            fail_msg("%s: %s", rows[i], err.text);
        request.url = made.url;
        request.body = made.body;
        request.headers = made.headers;
        request.header_count = made.count;
        struct oh_keyring *ring = ring_of(recipe, other.shown, key.shown);
        check_at(recipe, ring, &request, now_ms, true);
        oh_keyring_limit(ring, now_ms, now_ms + day_ms);
        check_at(recipe, ring, &request, now_ms, true);
        oh_keyring_limit(ring, now_ms + 1, INT64_MAX);
        check_at(recipe, ring, &request, now_ms, false);
        oh_keyring_limit(ring, now_ms - day_ms, now_ms);
        check_at(recipe, ring, &request, now_ms, true);
        oh_keyring_limit(ring, INT64_MIN, now_ms - 1);
        check_at(recipe, ring, &request, now_ms, false);
        oh_keyring_free(ring);
        oh_signer_free(signer);
        oh_arena_free(arena);
    }
}

/* What is told is what the engine worked with: the HMAC of the bytes is the signature. */
static void an_explanation_holds_the_bytes_that_are_signed(void **state)
{
    (void)state;
    const struct oh_recipe *recipe = oh_catalog_find(catalog, "github", NULL);
    struct oh_header header = {SLICE_LITERAL("X-Hub-Signature-256"),
                               SLICE_LITERAL(GITHUB_SIGNATURE)};
    struct oh_request request = {.method = SLICE_LITERAL("POST"),
                                 .url = SLICE_LITERAL("/"),
                                 .headers = &header,
                                 .header_count = 1,
                                 .body = SLICE_LITERAL("Hello, World!")};
    struct oh_arena *arena = oh_arena_new(4096, 65536);
    struct oh_keyring *ring = ring_of(recipe, "another", GITHUB_SECRET);
    struct oh_explanation told;
    assert_int_equal(
        oh_explain(recipe, ring, &request, NOW_S * 1000LL, OH_TOLERANCE_OF_SCHEME, arena, &told),
        OH_ACCEPTED);
    assert_int_equal(told.result.secret_index, 1);
    assert_int_equal(told.message_count, 1);
    assert_true(slice_equals(told.messages[0], request.body));
    assert_false(told.has_time);
    assert_int_equal(told.missing.len, 0);
    request.header_count = 0;
    assert_int_equal(
        oh_explain(recipe, ring, &request, NOW_S * 1000LL, OH_TOLERANCE_OF_SCHEME, arena, &told),
        OH_SIGNATURE_MISSING);
    assert_true(slice_equals(told.missing, SLICE_LITERAL("header x-hub-signature-256")));
    assert_int_equal(told.message_count, 0);
    oh_keyring_free(ring);
    oh_arena_free(arena);
}

static void words_are_those_of_the_metrics(void **state)
{
    (void)state;
    assert_string_equal(oh_verdict_name(OH_ACCEPTED), "-");
    assert_string_equal(oh_verdict_name(OH_SIGNATURE_MISSING), "signature_missing");
    assert_string_equal(oh_verdict_name(OH_SIGNATURE_WRONG), "signature_wrong");
    assert_string_equal(oh_verdict_name(OH_STALE), "stale");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_signatures_are_accepted),
        cmocka_unit_test(github_refuses_every_other_form),
        cmocka_unit_test(repeated_header_is_refused),
        cmocka_unit_test(window_is_inclusive_and_comes_after_the_signature),
        cmocka_unit_test(kv_header_is_read_strictly),
        cmocka_unit_test(any_live_secret_counts),
        cmocka_unit_test(bad_secrets_are_refused_and_never_repeated),
        cmocka_unit_test(no_altered_header_is_accepted),
        cmocka_unit_test(hmac_of_the_source_verifies),
        cmocka_unit_test(base64_twin_of_a_signature_is_refused),
        cmocka_unit_test(a_secret_is_taken_from_not_before_to_not_after),
        cmocka_unit_test(an_explanation_holds_the_bytes_that_are_signed),
        cmocka_unit_test(words_are_those_of_the_metrics),
    };
    return cmocka_run_group_tests_name("verify", tests, set_up, tear_down);
}
