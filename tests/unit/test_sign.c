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

static void check_round_trip(const struct oh_recipe *recipe, const char *private_half,
                             const char *public_half, struct oh_slice body)
{
    struct oh_error err = {.text = ""};
    struct oh_signer *signer;
    struct oh_header headers[OH_SIGN_HEADERS_MAX];
    size_t count = 0;
    struct oh_arena *arena = oh_arena_new(256, 65536);
    struct oh_keyring *ring = oh_keyring_new(recipe);
    struct oh_request request = {.method = SLICE_LITERAL("POST"), .body = body};
    assert_non_null(ring);
    if (oh_signer_new(recipe, slice_of_text(private_half), &signer, &err) ||
        oh_keyring_add(ring, slice_of_text(public_half), &err))
        fail_msg("%s", err.text);
    assert_int_equal(oh_sign(signer, &request, NOW_MS, arena, headers, &count, &err), OH_OK);
    assert_in_range(count, 1, OH_SIGN_HEADERS_MAX);
    request.headers = headers;
    request.header_count = count;
    assert_int_equal(oh_verify(recipe, ring, &request, NOW_MS, -1, arena, NULL), OH_ACCEPTED);
    char *changed = malloc(body.len + 1);
    assert_non_null(changed);
    memcpy(changed, body.data, body.len);
    changed[body.len] = ' ';
    request.body = slice_of(changed, body.len + 1);
    assert_int_equal(oh_verify(recipe, ring, &request, NOW_MS, -1, arena, NULL),
                     OH_SIGNATURE_WRONG);
    free(changed);
    oh_keyring_free(ring);
    oh_signer_free(signer);
    oh_arena_free(arena);
}

static void verify_accepts_what_sign_signs(void **state)
{
    (void)state;
    struct oh_catalog *catalog;
    struct oh_error err;
    struct pair pair;
    make_pair("P-256", &pair);
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    static const char *const algorithms[] = {"sha1", "sha256", "sha512"};
    static const char *const encodings[] = {"hex", "base64"};
    const struct oh_recipe *recipes[9];
    size_t count = 0;
    for (; count < oh_catalog_count(catalog); count++)
        recipes[count] = oh_catalog_at(catalog, count);
    for (size_t i = 0; i < 6; i++) {
        struct oh_hmac_options options = {.header = "X-Sig",
                                          .algorithm = algorithms[i / 2],
                                          .encoding = encodings[i % 2],
                                          .prefix = i & 1 ? "v=" : NULL};
        assert_int_equal(oh_catalog_add_hmac(catalog, &options, &recipes[count++], &err), OH_OK);
    }
    assert_int_equal(count, 9);
    for (size_t i = 0; i < count; i++) {
        struct oh_recipe_info info;
        oh_recipe_describe(recipes[i], &info);
        const char *private_half = info.has_private_key ? pair.private_half : "whsec_test";
        const char *public_half = info.has_private_key ? pair.public_half : "whsec_test";
        check_round_trip(recipes[i], private_half, public_half, SLICE_LITERAL("[{\"a\":1}]\r\n"));
        check_round_trip(recipes[i], private_half, public_half, slice_of("\0\xff", 2));
        check_round_trip(recipes[i], private_half, public_half, slice_of("", 0));
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
    struct oh_header headers[OH_SIGN_HEADERS_MAX];
    size_t count;
    struct pair pair;
    struct oh_arena *arena = oh_arena_new(256, 65536);
    struct oh_request request = {.body = SLICE_LITERAL("x")};
    make_pair("P-256", &pair);
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    assert_int_equal(
        oh_signer_new(oh_catalog_find(catalog, "stripe", NULL), SLICE_LITERAL("k"), &signer, &err),
        OH_OK);
    assert_int_equal(oh_sign(signer, &request, NOW_MS, arena, headers, &count, &err), OH_OK);
    assert_int_equal(count, 1);
    assert_true(slice_equals(headers[0].name, SLICE_LITERAL("stripe-signature")));
    assert_true(slice_has_prefix(headers[0].value, SLICE_LITERAL("t=1766000000,v1=")));
    assert_int_equal(headers[0].value.len, 16 + 64);
    oh_signer_free(signer);
    assert_int_equal(oh_signer_new(oh_catalog_find(catalog, "sendgrid", NULL),
                                   slice_of_text(pair.private_half), &signer, &err),
                     OH_OK);
    assert_int_equal(oh_sign(signer, &request, NOW_MS, arena, headers, &count, &err), OH_OK);
    assert_int_equal(count, 2);
    assert_true(slice_equals(headers[0].value, SLICE_LITERAL("1766000000")));
    assert_int_equal(headers[1].value.len % 4, 0);
    oh_signer_free(signer);
    struct oh_arena *tiny = oh_arena_new(0, 0);
    assert_int_equal(
        oh_signer_new(oh_catalog_find(catalog, "github", NULL), SLICE_LITERAL("k"), &signer, &err),
        OH_OK);
    assert_int_equal(oh_sign(signer, &request, NOW_MS, tiny, headers, &count, &err), OH_NO_MEMORY);
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
