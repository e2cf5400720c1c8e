/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of sign: what it signs, verify accepts, for every recipe of the catalog; keys that do
 * not fit are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/slice.h"
#include "oncehook/sign.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#define NOW_MS INT64_C(1766000000999)

struct pair {
    char private_half[512], public_half[512]; /* PEM */
};

/* A fresh key pair on `curve`. */
static void make_pair(const char *curve, struct pair *pair)
{
    memset(pair, 0, sizeof(*pair));
    EVP_PKEY *key = EVP_EC_gen(curve);
    assert_non_null(key);
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_true(BIO_read(bio, pair->private_half, sizeof(pair->private_half) - 1) > 0);
    assert_int_equal(PEM_write_bio_PUBKEY(bio, key), 1);
    assert_true(BIO_read(bio, pair->public_half, sizeof(pair->public_half) - 1) > 0);
    BIO_free(bio);
    EVP_PKEY_free(key);
}

/* A self-signed certificate of the private half `pem`, for the URL that sign names. */
static void add_certificate(struct oh_keyring *ring, const char *url, const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1), *out = BIO_new(BIO_s_mem());
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    X509 *certificate = X509_new();
    char text[4096] = "";
    struct oh_error err;
    assert_non_null(key);
    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    assert_int_equal(X509_set_pubkey(certificate, key), 1);
    assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
    assert_int_equal(PEM_write_bio_X509(out, certificate), 1);
    assert_true(BIO_read(out, text, sizeof(text) - 1) > 0);
    assert_int_equal(
        oh_keyring_add_certificate(ring, slice_of_text(url), slice_of_text(text), &err), OH_OK);
    X509_free(certificate);
    EVP_PKEY_free(key);
    BIO_free(bio);
    BIO_free(out);
}

#define SNS_URL    "https://sns.us-east-1.amazonaws.com/oncehook.pem"
#define PAYPAL_URL "https://api.paypal.com/v1/notifications/certs/oncehook"

/* What each provider's body has to be for there to be something to sign. */
static struct oh_slice body_for(const struct oh_recipe_info *info)
{
    if (strcmp(info->scheme, "adyen") == 0)
        return SLICE_LITERAL(
            "{\"notificationItems\":[{\"NotificationRequestItem\":{\"pspReference\":\"1\","
            "\"amount\":{\"value\":5}}},{\"NotificationRequestItem\":{\"pspReference\":\"2\"}}]}");
    if (strcmp(info->scheme, "braintree") == 0)
        return SLICE_LITERAL("bt_payload=PGE%2BPC9hPg%3D%3D");
    if (strcmp(info->scheme, "mailgun_legacy_form") == 0)
        return SLICE_LITERAL("timestamp=1766000000&token=x");
    return SLICE_LITERAL("{\"a\":1,\"Type\":\"Notification\"}");
}

/* Schemes that do not bind the body: a changed one is as good (providers/README: unsigned data). */
static bool binds_body(const struct oh_recipe *recipe, const struct oh_recipe_info *info)
{
    static const char *const not_bound[] = {"mailgun", "mailgun_legacy_form", "monday", "plivo_v2",
                                            "adyen",   "braintree",           "aws_sns"};
    (void)recipe;
    for (size_t i = 0; i < sizeof(not_bound) / sizeof(not_bound[0]); i++)
        if (strcmp(info->scheme, not_bound[i]) == 0)
            return false;
    return strcmp(info->algorithm, "token") != 0 && strcmp(info->algorithm, "basic") != 0;
}

static void check_round_trip(const struct oh_recipe *recipe, const struct oh_made_key *key,
                             struct oh_slice body)
{
    struct oh_error err = {.text = ""};
    struct oh_signer *signer;
    struct oh_signed done;
    struct oh_recipe_info info;
    struct oh_verify_result result;
    const char *private_half = key->private_half[0] ? key->private_half : key->shown;
    struct oh_arena *arena = oh_arena_new(256, 1 << 20);
    struct oh_keyring *ring = oh_keyring_new(recipe);
    struct oh_header lines[OH_SIGN_HEADERS_MAX + 1] = {
        {SLICE_LITERAL("Content-Type"), body.len > 0 && body.data[0] == '{'
                                            ? SLICE_LITERAL("application/json")
                                            : SLICE_LITERAL("application/x-www-form-urlencoded")}};
    struct oh_request request = {.method = SLICE_LITERAL("POST"),
                                 .url = SLICE_LITERAL("https://hooks.example.com/in/a?b=1"),
                                 .headers = lines,
                                 .header_count = 1,
                                 .body = body};
    oh_recipe_describe(recipe, &info);
    if (strstr("twilio mandrill", info.scheme) && body.len > 0) {
        body = request.body = SLICE_LITERAL("a=1&B=2");
        lines[0].value = SLICE_LITERAL("application/x-www-form-urlencoded");
    }
    assert_non_null(ring);
    if (oh_signer_new(recipe, slice_of_text(private_half), &signer, &err) ||
        oh_keyring_add(ring, slice_of_text(key->shown), &err) ||
        oh_sign(signer, &request, NOW_MS, arena, &done, &err))
        fail_msg("%s: %s", info.scheme, err.text);
    if (strstr("aws_sns paypal", info.scheme))
        add_certificate(ring, info.scheme[0] == 'a' ? SNS_URL : PAYPAL_URL, private_half);
    memcpy(lines + 1, done.headers, done.count * sizeof(lines[0]));
    request.header_count = 1 + done.count;
    request.url = done.url;
    request.body = done.body;
    if (oh_verify(recipe, ring, &request, NOW_MS, -1, arena, &result) != OH_ACCEPTED)
        fail_msg("%s: %s", info.scheme, result.because);
    if (binds_body(recipe, &info)) {
        char *changed = malloc(request.body.len + 1);
        assert_non_null(changed);
        memcpy(changed, request.body.data, request.body.len);
        changed[request.body.len] = 'x';
        request.body = slice_of(changed, request.body.len + 1);
        if (oh_verify(recipe, ring, &request, NOW_MS, -1, arena, NULL) == OH_ACCEPTED)
            fail_msg("%s does not bind the body", info.scheme);
        free(changed);
    }
    oh_keyring_free(ring);
    oh_signer_free(signer);
    oh_arena_free(arena);
}

static void verify_accepts_what_sign_signs(void **state)
{
    (void)state;
    struct oh_catalog *catalog;
    struct oh_error err;
    struct oh_recipe_info info;
    struct oh_made_key key;
    const struct oh_recipe *recipe;
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    for (size_t i = 0; i < oh_catalog_count(catalog); i++) {
        recipe = oh_catalog_at(catalog, i);
        oh_recipe_describe(recipe, &info);
        assert_int_equal(oh_key_make(recipe, &key, &err), OH_OK);
        check_round_trip(recipe, &key, body_for(&info));
    }
    static const char *const algorithms[] = {"sha1", "sha256", "sha512"};
    static const char *const encodings[] = {"hex", "base64"};
    for (size_t i = 0; i < 6; i++) {
        struct oh_hmac_options options = {.header = "X-Sig",
                                          .algorithm = algorithms[i / 2],
                                          .encoding = encodings[i % 2],
                                          .prefix = i & 1 ? "v=" : NULL};
        assert_int_equal(oh_catalog_add_hmac(catalog, &options, &recipe, &err), OH_OK);
        assert_int_equal(oh_key_make(recipe, &key, &err), OH_OK);
        check_round_trip(recipe, &key, SLICE_LITERAL("[{\"a\":1}]\r\n"));
        check_round_trip(recipe, &key, slice_of("\0\xff", 2));
        check_round_trip(recipe, &key, slice_of("", 0));
    }
    oh_catalog_free(catalog);
}

static void keys_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct oh_catalog *catalog;
    struct oh_error err;
    struct oh_signer *signer;
    struct pair pair, other;
    make_pair("P-256", &pair);
    make_pair("P-384", &other);
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    const struct oh_recipe *sendgrid = oh_catalog_find(catalog, "sendgrid", NULL);
    const char *const bad[] = {"", "secret", pair.public_half, other.private_half};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(oh_signer_new(sendgrid, slice_of_text(bad[i]), &signer, &err), OH_INVALID);
        assert_int_equal(ERR_peek_error(), 0);
    }
    assert_int_equal(
        oh_signer_new(oh_catalog_find(catalog, "stripe", NULL), slice_of("", 0), &signer, &err),
        OH_INVALID);
    struct oh_keyring *ring = oh_keyring_new(sendgrid);
    assert_int_equal(oh_keyring_add(ring, slice_of_text(pair.private_half), &err), OH_INVALID);
    assert_int_equal(oh_keyring_add(ring, slice_of_text(other.public_half), &err), OH_INVALID);
    assert_int_equal(ERR_peek_error(), 0);
    oh_keyring_free(ring);
    oh_signer_free(NULL);
    oh_catalog_free(catalog);
}

static void headers_look_as_the_provider_writes_them(void **state)
{
    (void)state;
    struct oh_catalog *catalog;
    struct oh_error err;
    struct oh_signer *signer;
    struct oh_signed done;
    struct pair pair;
    struct oh_arena *arena = oh_arena_new(256, 65536);
    struct oh_request request = {.body = SLICE_LITERAL("x")};
    make_pair("P-256", &pair);
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    assert_int_equal(
        oh_signer_new(oh_catalog_find(catalog, "stripe", NULL), SLICE_LITERAL("k"), &signer, &err),
        OH_OK);
    assert_int_equal(oh_sign(signer, &request, NOW_MS, arena, &done, &err), OH_OK);
    assert_int_equal(done.count, 1);
    assert_true(slice_equals(done.headers[0].name, SLICE_LITERAL("stripe-signature")));
    assert_true(slice_has_prefix(done.headers[0].value, SLICE_LITERAL("t=1766000000,v1=")));
    assert_int_equal(done.headers[0].value.len, 16 + 64);
    oh_signer_free(signer);
    assert_int_equal(oh_signer_new(oh_catalog_find(catalog, "sendgrid", NULL),
                                   slice_of_text(pair.private_half), &signer, &err),
                     OH_OK);
    assert_int_equal(oh_sign(signer, &request, NOW_MS, arena, &done, &err), OH_OK);
    assert_int_equal(done.count, 2);
    assert_true(slice_equals(done.headers[0].value, SLICE_LITERAL("1766000000")));
    assert_int_equal(done.headers[1].value.len % 4, 0);
    oh_signer_free(signer);
    struct oh_arena *tiny = oh_arena_new(0, 0);
    assert_int_equal(
        oh_signer_new(oh_catalog_find(catalog, "github", NULL), SLICE_LITERAL("k"), &signer, &err),
        OH_OK);
    assert_int_equal(oh_sign(signer, &request, NOW_MS, tiny, &done, &err), OH_NO_MEMORY);
    oh_signer_free(signer);
    oh_arena_free(tiny);
    oh_arena_free(arena);
    oh_catalog_free(catalog);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verify_accepts_what_sign_signs),
        cmocka_unit_test(keys_that_do_not_fit_are_refused),
        cmocka_unit_test(headers_look_as_the_provider_writes_them),
    };
    return cmocka_run_group_tests_name("sign", tests, NULL, NULL);
}
