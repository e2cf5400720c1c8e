/* SPDX-License-Identifier: Apache-2.0 */
/* Keys, MACs and signatures on OpenSSL 3 (verify/crypto.h). */
#include "verify/crypto.h"

#include "base/encode.h"
#include "base/slice.h"

#include <stdlib.h>

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

enum { SECRET_BYTES_MAX = 64 << 10, SPKI_BYTES_MAX = 2048, RSA_BITS_MIN = 1024 };

/* What each algorithm works with: its digest, and the type of its keys where they are pairs. */
static const struct {
    const char *digest, *type;
} algorithms[] = {
    [RECIPE_HMAC_SHA1] = {"SHA1", NULL},
    [RECIPE_HMAC_SHA256] = {"SHA256", NULL},
    [RECIPE_HMAC_SHA512] = {"SHA512", NULL},
    [RECIPE_SHA1] = {"SHA1", NULL},
    [RECIPE_SHA256] = {"SHA256", NULL},
    [RECIPE_MD5] = {"MD5", NULL},
    [RECIPE_ECDSA_P256_SHA256] = {"SHA256", "EC"},
    [RECIPE_ED25519] = {NULL, "ED25519"},
    [RECIPE_RSA_SHA1] = {"SHA1", "RSA"},
    [RECIPE_RSA_SHA256] = {"SHA256", "RSA"},
    [RECIPE_RSA_SNS] = {"SHA256", "RSA"},
    [RECIPE_JWT] = {"SHA256", NULL},
    [RECIPE_TOKEN] = {NULL, NULL},
    [RECIPE_BASIC] = {NULL, NULL},
};

static const char *const digest_names[] = {"SHA256", "SHA1", "SHA384", "SHA512", "MD5"};
enum { DIGESTS = sizeof(digest_names) / sizeof(digest_names[0]) };
static EVP_MD *digests[DIGESTS];

static void fetch_digests(void)
{
    for (size_t i = 0; i < DIGESTS; i++)
        digests[i] = EVP_MD_fetch(NULL, digest_names[i], NULL);
    ERR_clear_error();
}

const EVP_MD *crypto_find_digest(const char *name)
{
    static CRYPTO_ONCE once = CRYPTO_ONCE_STATIC_INIT;
    size_t i = 0;
    while (i < DIGESTS && strcmp(digest_names[i], name) != 0)
        i++;
    return CRYPTO_THREAD_run_once(&once, fetch_digests) == 1 && i < DIGESTS ? digests[i] : NULL;
}

/* ---- secrets --------------------------------------------------------------------------------- */

static struct oh_slice trim_blanks(struct oh_slice s)
{
    while (s.len > 0 && (unsigned char)s.data[s.len - 1] <= ' ')
        s.len--;
    while (s.len > 0 && (unsigned char)s.data[0] <= ' ')
        s.data++, s.len--;
    return s;
}

static struct oh_slice without_prefix(struct oh_slice text, struct oh_slice prefix)
{
    size_t n = slice_has_prefix(text, prefix) ? prefix.len : 0;
    return slice_of(text.data + n, text.len - n);
}

/* A copy to be freed, every byte of it; data NULL when memory is gone. */
static struct oh_slice copy_of(struct oh_slice text)
{
    char *copy = malloc(text.len + 1);
    if (copy && text.len > 0)
        memcpy(copy, text.data, text.len);
    return slice_of(copy, copy ? text.len : 0);
}

/* The bytes that `text` shows, to out[] of at least text.len + 20. */
static bool decode_secret(enum recipe_key_form form, struct oh_slice text, uint8_t *out,
                          size_t *len)
{
    switch (form) {
    case RECIPE_KEY_WHSEC:
        text = without_prefix(trim_blanks(text), SLICE_LITERAL("whsec_"));
        return base64_decode(text, BASE64_PADDING_OPTIONAL, out, text.len, len);
    case RECIPE_KEY_BASE64:
    case RECIPE_KEY_RAW_B64:
        return base64_decode(trim_blanks(text), BASE64_PADDING_OPTIONAL, out, text.len, len);
    case RECIPE_KEY_WHPK:
        text = without_prefix(trim_blanks(text), SLICE_LITERAL("whpk_"));
        return base64_decode(text, BASE64_PADDING_OPTIONAL, out, text.len, len);
    case RECIPE_KEY_HEX:
    case RECIPE_KEY_RAW_HEX:
        return hex_decode(trim_blanks(text), true, out, text.len, len);
    case RECIPE_KEY_SHA1:
        *len = 20;
        return EVP_Digest(text.data, text.len, out, NULL, crypto_find_digest("SHA1"), NULL) == 1;
    default:
        memcpy(out, text.data, text.len);
        *len = text.len;
        return true;
    }
}

static enum oh_status prepare_mac(const char *digest, struct oh_slice secret,
                                  struct crypto_key *out, struct oh_error *err)
{
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    const OSSL_PARAM params[] = {
        /* The parameter's type wants char *, but the text is only read. */
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)digest, 0),
        OSSL_PARAM_construct_end(),
    };
    out->mac = mac ? EVP_MAC_CTX_new(mac) : NULL;
    EVP_MAC_free(mac);
    if (out->mac &&
        EVP_MAC_init(out->mac, (const unsigned char *)secret.data, secret.len, params) == 1)
        return OH_OK;
    return oh_fail(err, OH_SYSTEM, "OpenSSL gives no HMAC-%s", digest);
}

static enum oh_status prepare_secret(const struct oh_recipe *recipe, struct oh_slice text,
                                     struct crypto_key *out, struct oh_error *err)
{
    uint8_t *bytes = malloc(text.len + EVP_MAX_MD_SIZE);
    size_t len = 0;
    if (!bytes)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    out->secret = slice_of((char *)bytes, text.len + EVP_MAX_MD_SIZE);
    bool good = decode_secret(recipe->key_form, text, bytes, &len) && len > 0;
    out->secret.len = len;
    if (!good)
        return oh_fail(err, OH_INVALID, "the secret is not in the form that the provider shows");
    return recipe->algorithm <= RECIPE_HMAC_SHA512
               ? prepare_mac(algorithms[recipe->algorithm].digest, out->secret, out, err)
               : OH_OK;
}

/* ---- pairs ----------------------------------------------------------------------------------- */

/* Never asks a person, as OpenSSL would on the terminal. */
static int no_pass_phrase(char *buffer, int size, int writing, void *user)
{
    (void)buffer, (void)size, (void)writing, (void)user;
    return -1;
}

static EVP_PKEY *read_pem(struct oh_slice text, bool private_half)
{
    BIO *bio = BIO_new_mem_buf(text.data, (int)text.len);
    EVP_PKEY *key = NULL;
    if (bio)
        key = private_half ? PEM_read_bio_PrivateKey(bio, NULL, no_pass_phrase, NULL)
                           : PEM_read_bio_PUBKEY(bio, NULL, no_pass_phrase, NULL);
    BIO_free(bio);
    return key;
}

/* base64 of a SubjectPublicKeyInfo, RFC 5280 section 4.1. */
static EVP_PKEY *read_spki(struct oh_slice text)
{
    uint8_t der[SPKI_BYTES_MAX];
    size_t len;
    if (!base64_decode(text, 0, der, sizeof(der), &len))
        return NULL;
    const unsigned char *at = der;
    EVP_PKEY *key = d2i_PUBKEY(NULL, &at, (long)len);
    if (key && at != der + len) {
        EVP_PKEY_free(key);
        key = NULL;
    }
    return key;
}

static EVP_PKEY *read_raw(enum recipe_key_form form, struct oh_slice text)
{
    uint8_t bytes[160];
    size_t len;
    if (text.len > sizeof(bytes) || !decode_secret(form, text, bytes, &len) || len != 32)
        return NULL;
    return EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, bytes, len);
}

/* A P-256 key of its coordinates, RFC 7518 section 6.2. */
static EVP_PKEY *make_p256(const uint8_t point[65])
{
    EVP_PKEY *key = NULL;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)"prime256v1", 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)point, 65),
        OSSL_PARAM_construct_end(),
    };
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    if (!context || EVP_PKEY_fromdata_init(context) != 1 ||
        EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        key = NULL;
    EVP_PKEY_CTX_free(context);
    return key;
}

/* One JWK; its `kid` becomes the key's id. */
static EVP_PKEY *read_jwk(struct oh_slice text, struct crypto_key *out)
{
    static const struct pointer_token names[] = {
        {{"kty", 3}, POINTER_NO_INDEX, false}, {{"crv", 3}, POINTER_NO_INDEX, false},
        {{"x", 1}, POINTER_NO_INDEX, false},   {{"y", 1}, POINTER_NO_INDEX, false},
        {{"kid", 3}, POINTER_NO_INDEX, false},
    };
    enum { KTY, CRV, X, Y, KID, COUNT };
    struct scan_plan plan = {.want_count = COUNT};
    struct scan_result found;
    uint8_t point[65] = {4};
    EVP_PKEY *key = NULL;
    size_t x_len, y_len;
    struct oh_slice value[COUNT];
    struct oh_arena *arena = oh_arena_new(4096, 1 << 20);
    for (size_t i = 0; i < COUNT; i++)
        plan.wants[i] = (struct scan_want){{&names[i], 1}, true};
    if (!arena || scan_body(&plan, text, 1, arena, &found, NULL) != OH_OK)
        goto out;
    for (size_t i = 0; i < COUNT; i++)
        value[i] = scan_value_text(&found.body_values[i]);
    if (slice_equals(value[KTY], SLICE_LITERAL("EC")) &&
        slice_equals(value[CRV], SLICE_LITERAL("P-256")) && value[KID].len > 0 &&
        base64_decode(value[X], BASE64_URL | BASE64_PADDING_OPTIONAL, point + 1, 32, &x_len) &&
        base64_decode(value[Y], BASE64_URL | BASE64_PADDING_OPTIONAL, point + 33, 32, &y_len) &&
        x_len == 32 && y_len == 32) {
        out->id = copy_of(value[KID]);
        key = out->id.data ? make_p256(point) : NULL;
    }
out:
    oh_arena_free(arena);
    return key;
}

static bool is_p256(const EVP_PKEY *key)
{
    char group[32];
    size_t len;
    return EVP_PKEY_is_a(key, "EC") &&
           EVP_PKEY_get_group_name(key, group, sizeof(group), &len) == 1 &&
           strcmp(group, "prime256v1") == 0;
}

static bool is_rsa(const EVP_PKEY *key)
{
    return EVP_PKEY_is_a(key, "RSA") && EVP_PKEY_get_bits(key) >= RSA_BITS_MIN &&
           EVP_PKEY_get_size(key) <= CRYPTO_SIGNATURE_BYTES_MAX;
}

/* What a token may be signed with follows from the algorithms that the recipe pins. */
static bool pair_fits(const struct oh_recipe *recipe, const EVP_PKEY *key)
{
    if (recipe->algorithm == RECIPE_JWT)
        return is_p256(key) || is_rsa(key);
    const char *type = algorithms[recipe->algorithm].type;
    return type[1] == 'C' ? is_p256(key) : type[0] == 'R' ? is_rsa(key) : EVP_PKEY_is_a(key, type);
}

static enum oh_status prepare_pair(const struct oh_recipe *recipe, struct oh_slice secret,
                                   bool private_half, struct crypto_key *out, struct oh_error *err)
{
    enum recipe_key_form form = recipe->key_form;
    const char *digest = algorithms[recipe->algorithm].digest;
    struct oh_slice text = trim_blanks(secret);
    const char *pem = memmem(text.data, text.len, "-----BEGIN ", 11);
    if (private_half && pem && pem > text.data) { /* what a certificate's owner signs with it */
        struct oh_slice line = trim_blanks(slice_of(text.data, (size_t)(pem - text.data)));
        *(form == RECIPE_KEY_JWK ? &out->id : &out->secret) = copy_of(line);
        text = slice_of(pem, (size_t)(text.data + text.len - pem));
    }
    if (slice_has_prefix(text, SLICE_LITERAL("-----BEGIN ")))
        out->pkey = read_pem(text, private_half);
    else if (form == RECIPE_KEY_JWK)
        out->pkey = read_jwk(text, out);
    else if (!private_half)
        out->pkey = form >= RECIPE_KEY_RAW_B64 ? read_raw(form, text) : read_spki(text);
    if (!out->pkey || !pair_fits(recipe, out->pkey))
        return oh_fail(err, OH_INVALID, "not a %s that the scheme takes",
                       private_half ? "PEM private key" : "public key");
    if (recipe->algorithm == RECIPE_JWT || !digest)
        return OH_OK;
    out->prepared = EVP_MD_CTX_new();
    int made = 0;
    if (out->prepared && private_half)
        made = EVP_DigestSignInit_ex(out->prepared, NULL, digest, NULL, NULL, out->pkey, NULL);
    else if (out->prepared)
        made = EVP_DigestVerifyInit_ex(out->prepared, NULL, digest, NULL, NULL, out->pkey, NULL);
    return made == 1 ? OH_OK : oh_fail(err, OH_SYSTEM, "OpenSSL does not take the key");
}

static enum oh_status parse_key(const struct oh_recipe *recipe, struct oh_slice secret,
                                bool private_half, struct crypto_key *out, struct oh_error *err)
{
    *out = (struct crypto_key){.mac = NULL};
    if (secret.len == 0)
        return oh_fail(err, OH_INVALID, "the secret is empty");
    if (secret.len > SECRET_BYTES_MAX)
        return oh_fail(err, OH_INVALID, "the secret is longer than %d bytes", SECRET_BYTES_MAX);
    bool pair = recipe->key_form >= RECIPE_KEY_SPKI_B64 &&
                (private_half || recipe->key_form != RECIPE_KEY_CERT_URL);
    enum oh_status status = pair ? prepare_pair(recipe, secret, private_half, out, err)
                                 : prepare_secret(recipe, secret, out, err);
    if (status)
        crypto_key_clear(out);
    ERR_clear_error();
    return status;
}

enum oh_status crypto_key_parse(const struct oh_recipe *recipe, struct oh_slice secret,
                                struct crypto_key *out, struct oh_error *err)
{
    return parse_key(recipe, secret, false, out, err);
}

enum oh_status crypto_key_parse_private(const struct oh_recipe *recipe, struct oh_slice secret,
                                        struct crypto_key *out, struct oh_error *err)
{
    return parse_key(recipe, secret, true, out, err);
}

enum oh_status crypto_key_parse_certificate(struct oh_slice url, struct oh_slice pem,
                                            struct crypto_key *out, struct oh_error *err)
{
    *out = (struct crypto_key){.mac = NULL};
    BIO *bio = pem.len <= SECRET_BYTES_MAX ? BIO_new_mem_buf(pem.data, (int)pem.len) : NULL;
    X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, no_pass_phrase, NULL) : NULL;
    out->pkey = certificate ? X509_get_pubkey(certificate) : NULL;
    X509_free(certificate);
    BIO_free(bio);
    out->id = copy_of(url);
    enum oh_status status = OH_OK;
    if (!out->pkey || !is_rsa(out->pkey) || out->id.len == 0) {
        status = oh_fail(err, OH_INVALID, "not a PEM certificate with an RSA key");
        crypto_key_clear(out);
    }
    ERR_clear_error();
    return status;
}

void crypto_key_clear(struct crypto_key *key)
{
    EVP_MAC_CTX_free(key->mac); /* wipes the key schedule */
    EVP_MD_CTX_free(key->prepared);
    EVP_PKEY_free(key->pkey);
    if (key->secret.data)
        OPENSSL_cleanse((char *)key->secret.data, key->secret.len);
    free((char *)key->secret.data);
    free((char *)key->id.data);
    *key = (struct crypto_key){.mac = NULL};
}

EVP_PKEY *crypto_make_pair(const struct oh_recipe *recipe)
{
    const char *type = algorithms[recipe->algorithm].type;
    bool rsa = recipe->jwt.algorithms ? recipe->key_form == RECIPE_KEY_PEM : type && type[0] == 'R';
    EVP_PKEY *pair = recipe->key_form < RECIPE_KEY_SPKI_B64 ? NULL
                     : rsa                                  ? EVP_RSA_gen(2048)
                     : type && type[1] == 'D'               ? EVP_PKEY_Q_keygen(NULL, NULL, type)
                                                            : EVP_EC_gen("P-256");
    ERR_clear_error();
    return pair;
}

/* ---- MACs and signatures --------------------------------------------------------------------- */

bool crypto_mac(const struct crypto_key *key, const struct message *message,
                uint8_t out[CRYPTO_MAC_BYTES_MAX], size_t *len)
{
    EVP_MAC_CTX *context = key->mac ? EVP_MAC_CTX_dup(key->mac) : NULL;
    bool done = context != NULL;
    for (size_t i = 0; done && i < message->count; i++)
        done = EVP_MAC_update(context, (const unsigned char *)message->parts[i].data,
                              message->parts[i].len) == 1;
    done = done && EVP_MAC_final(context, out, len, CRYPTO_MAC_BYTES_MAX) == 1;
    EVP_MAC_CTX_free(context);
    if (!done)
        ERR_clear_error();
    return done;
}

bool crypto_mac_once(const char *digest, struct oh_slice secret, struct oh_slice message,
                     uint8_t out[CRYPTO_MAC_BYTES_MAX], size_t *len)
{
    unsigned n = 0;
    const EVP_MD *md = crypto_find_digest(digest);
    bool done = md && HMAC(md, secret.data, (int)secret.len, (const unsigned char *)message.data,
                           message.len, out, &n);
    *len = n;
    if (!done)
        ERR_clear_error();
    return done;
}

bool crypto_digest(const struct oh_recipe *recipe, const struct message *message,
                   uint8_t out[CRYPTO_MAC_BYTES_MAX], size_t *len)
{
    unsigned n = 0;
    const EVP_MD *md = crypto_find_digest(algorithms[recipe->algorithm].digest);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool done = md && context && EVP_DigestInit_ex(context, md, NULL) == 1;
    for (size_t i = 0; done && i < message->count; i++)
        done = EVP_DigestUpdate(context, message->parts[i].data, message->parts[i].len) == 1;
    done = done && EVP_DigestFinal_ex(context, out, &n) == 1;
    *len = n;
    EVP_MD_CTX_free(context);
    if (!done)
        ERR_clear_error();
    return done;
}

static EVP_MD_CTX *copy_context(const EVP_MD_CTX *prepared)
{
    EVP_MD_CTX *context = prepared ? EVP_MD_CTX_new() : NULL;
    if (context && EVP_MD_CTX_copy_ex(context, prepared) != 1) {
        EVP_MD_CTX_free(context);
        context = NULL;
    }
    return context;
}

static bool verify_parts(EVP_MD_CTX *context, const struct message *message,
                         const uint8_t *signature, size_t len)
{
    bool right = context != NULL;
    for (size_t i = 0; right && i < message->count; i++)
        right = EVP_DigestVerifyUpdate(context, message->parts[i].data, message->parts[i].len) == 1;
    right = right && EVP_DigestVerifyFinal(context, signature, len) == 1;
    EVP_MD_CTX_free(context);
    ERR_clear_error();
    return right;
}

/* Ed25519 hashes twice, so it wants the message in one piece. */
static bool verify_whole(EVP_PKEY *pkey, const struct message *message, const uint8_t *signature,
                         size_t len, struct oh_arena *arena)
{
    struct oh_slice whole;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool right = context && message_join(arena, message->parts, message->count, &whole) &&
                 EVP_DigestVerifyInit_ex(context, NULL, NULL, NULL, NULL, pkey, NULL) == 1 &&
                 EVP_DigestVerify(context, signature, len, (const unsigned char *)whole.data,
                                  whole.len) == 1;
    EVP_MD_CTX_free(context);
    ERR_clear_error();
    return right;
}

bool crypto_verify(const struct crypto_key *key, const struct message *message,
                   const uint8_t *signature, size_t len, struct oh_arena *arena)
{
    if (key->prepared)
        return verify_parts(copy_context(key->prepared), message, signature, len);
    return key->pkey && verify_whole(key->pkey, message, signature, len, arena);
}

bool crypto_verify_once(EVP_PKEY *pkey, const char *digest, const struct message *message,
                        const uint8_t *signature, size_t len)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (context && EVP_DigestVerifyInit_ex(context, NULL, digest, NULL, NULL, pkey, NULL) != 1) {
        EVP_MD_CTX_free(context);
        context = NULL;
    }
    return verify_parts(context, message, signature, len);
}

bool crypto_sign(const struct crypto_key *key, const struct message *message,
                 struct oh_arena *arena, uint8_t out[CRYPTO_SIGNATURE_BYTES_MAX], size_t *len)
{
    EVP_MD_CTX *context = key->prepared ? copy_context(key->prepared) : EVP_MD_CTX_new();
    struct oh_slice whole;
    bool done = context && message_join(arena, message->parts, message->count, &whole);
    if (done && !key->prepared)
        done = EVP_DigestSignInit_ex(context, NULL,
                                     EVP_PKEY_is_a(key->pkey, "ED25519") ? NULL : "SHA256", NULL,
                                     NULL, key->pkey, NULL) == 1;
    *len = CRYPTO_SIGNATURE_BYTES_MAX;
    done = done &&
           EVP_DigestSign(context, out, len, (const unsigned char *)whole.data, whole.len) == 1;
    EVP_MD_CTX_free(context);
    if (!done)
        ERR_clear_error();
    return done;
}
