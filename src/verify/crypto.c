/* SPDX-License-Identifier: Apache-2.0 */
/* Keys, MACs and signatures on OpenSSL 3 (verify/crypto.h). */
#include "verify/crypto.h"

#include "base/encode.h"
#include "base/slice.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

enum { SECRET_BYTES_MAX = 64 << 10, SPKI_BYTES_MAX = 512 };

void message_build(const struct oh_recipe *recipe, struct oh_slice ts, struct oh_slice body,
                   struct message *out)
{
    out->count = recipe->part_count;
    for (size_t i = 0; i < recipe->part_count; i++) {
        switch (recipe->parts[i].kind) {
        case RECIPE_PART_TS:
            out->parts[i] = ts;
            break;
        case RECIPE_PART_BODY:
            out->parts[i] = body;
            break;
        case RECIPE_PART_LITERAL:
            out->parts[i] = recipe->parts[i].literal;
            break;
        }
    }
}

/* ---- keys --------------------------------------------------------------------------------------
 */

static const char *digest_name(enum recipe_algorithm algorithm)
{
    switch (algorithm) {
    case RECIPE_HMAC_SHA1:
        return "SHA1";
    case RECIPE_HMAC_SHA512:
        return "SHA512";
    case RECIPE_HMAC_SHA256:
    case RECIPE_ECDSA_P256_SHA256:
        break;
    }
    return "SHA256";
}

static enum oh_status prepare_mac(const struct oh_recipe *recipe, struct oh_slice secret,
                                  struct crypto_key *out, struct oh_error *err)
{
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    /* The parameter's type wants char *, but the text is only read. */
    char *digest = (char *)digest_name(recipe->algorithm);
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    out->mac = mac ? EVP_MAC_CTX_new(mac) : NULL;
    EVP_MAC_free(mac);
    if (out->mac &&
        EVP_MAC_init(out->mac, (const unsigned char *)secret.data, secret.len, params) == 1)
        return OH_OK;
    return oh_fail(err, OH_SYSTEM, "OpenSSL gives no HMAC-%s", digest);
}

static struct oh_slice trim_blanks(struct oh_slice s)
{
    while (s.len > 0 && (unsigned char)s.data[s.len - 1] <= ' ')
        s.len--;
    while (s.len > 0 && (unsigned char)s.data[0] <= ' ')
        s.data++, s.len--;
    return s;
}

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

static bool is_p256(const EVP_PKEY *key)
{
    char group[32];
    size_t len;
    return EVP_PKEY_is_a(key, "EC") &&
           EVP_PKEY_get_group_name(key, group, sizeof(group), &len) == 1 &&
           strcmp(group, "prime256v1") == 0;
}

static enum oh_status prepare_ecdsa(struct oh_slice secret, bool private_half,
                                    struct crypto_key *out, struct oh_error *err)
{
    struct oh_slice text = trim_blanks(secret);
    bool pem = slice_has_prefix(text, SLICE_LITERAL("-----BEGIN "));
    EVP_PKEY *key = pem ? read_pem(text, private_half) : private_half ? NULL : read_spki(text);
    enum oh_status status = OH_OK;
    if (!key || !is_p256(key)) {
        status = oh_fail(err, OH_INVALID, "not a %s on P-256",
                         private_half ? "PEM private key" : "public key (base64 or PEM)");
        goto out;
    }
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (private_half)
        out->signer = context;
    else
        out->verifier = context;
    int made = 0;
    if (context && private_half)
        made = EVP_DigestSignInit_ex(context, NULL, "SHA256", NULL, NULL, key, NULL);
    else if (context)
        made = EVP_DigestVerifyInit_ex(context, NULL, "SHA256", NULL, NULL, key, NULL);
    if (made != 1)
        status = oh_fail(err, OH_SYSTEM, "OpenSSL gives no ECDSA with SHA256");
out:
    EVP_PKEY_free(key);
    return status;
}

static enum oh_status parse_key(const struct oh_recipe *recipe, struct oh_slice secret,
                                bool private_half, struct crypto_key *out, struct oh_error *err)
{
    *out = (struct crypto_key){.mac = NULL};
    if (secret.len == 0)
        return oh_fail(err, OH_INVALID, "the secret is empty");
    if (secret.len > SECRET_BYTES_MAX)
        return oh_fail(err, OH_INVALID, "the secret is longer than %d bytes", SECRET_BYTES_MAX);
    enum oh_status status = recipe->key_form == RECIPE_KEY_SPKI_B64
                                ? prepare_ecdsa(secret, private_half, out, err)
                                : prepare_mac(recipe, secret, out, err);
    if (status) {
        crypto_key_clear(out);
        ERR_clear_error();
    }
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

void crypto_key_clear(struct crypto_key *key)
{
    EVP_MAC_CTX_free(key->mac); /* wipes the key schedule */
    EVP_MD_CTX_free(key->verifier);
    EVP_MD_CTX_free(key->signer);
    *key = (struct crypto_key){.mac = NULL};
}

/* ---- MACs and signatures -----------------------------------------------------------------------
 */

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

static EVP_MD_CTX *copy_context(const EVP_MD_CTX *prepared)
{
    EVP_MD_CTX *context = prepared ? EVP_MD_CTX_new() : NULL;
    if (context && EVP_MD_CTX_copy_ex(context, prepared) != 1) {
        EVP_MD_CTX_free(context);
        context = NULL;
    }
    return context;
}

bool crypto_verify(const struct crypto_key *key, const struct message *message,
                   const uint8_t *signature, size_t len)
{
    EVP_MD_CTX *context = copy_context(key->verifier);
    bool right = context != NULL;
    for (size_t i = 0; right && i < message->count; i++)
        right = EVP_DigestVerifyUpdate(context, message->parts[i].data, message->parts[i].len) == 1;
    right = right && EVP_DigestVerifyFinal(context, signature, len) == 1;
    EVP_MD_CTX_free(context);
    if (!right)
        ERR_clear_error();
    return right;
}

bool crypto_sign(const struct crypto_key *key, const struct message *message,
                 uint8_t out[CRYPTO_SIGNATURE_BYTES_MAX], size_t *len)
{
    EVP_MD_CTX *context = copy_context(key->signer);
    bool done = context != NULL;
    *len = CRYPTO_SIGNATURE_BYTES_MAX;
    for (size_t i = 0; done && i < message->count; i++)
        done = EVP_DigestSignUpdate(context, message->parts[i].data, message->parts[i].len) == 1;
    done = done && EVP_DigestSignFinal(context, out, len) == 1;
    EVP_MD_CTX_free(context);
    if (!done)
        ERR_clear_error();
    return done;
}
