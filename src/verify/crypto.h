/* SPDX-License-Identifier: Apache-2.0 */
/* The cryptography under verify and sign: keys parsed once, messages of parts, MACs and signatures.
 * Every function leaves OpenSSL's error queue empty, since TLS of the same thread reads it. */
#ifndef VERIFY_CRYPTO_H
#define VERIFY_CRYPTO_H

#include "oncehook/verify.h"
#include "recipe/recipe.h"

#include <openssl/evp.h>

/* What is signed, in order; the bytes belong to the request and the recipe. */
struct message {
    struct oh_slice parts[RECIPE_PARTS_MAX];
    size_t count;
};

/* The message of `recipe` for this timestamp text and body. */
void message_build(const struct oh_recipe *recipe, struct oh_slice ts, struct oh_slice body,
                   struct message *out);

#define CRYPTO_MAC_BYTES_MAX       64 /* SHA-512 */
#define CRYPTO_SIGNATURE_BYTES_MAX 80 /* a DER signature on P-256 takes at most 72 */

/* A key made ready: whichever member the recipe's algorithm needs; the others are NULL. A key is
 * only read when it is used: each use works on a copy of the prepared context, which costs neither
 * a fetch nor the key schedule (600 bytes of HMAC-SHA256: 0.9 µs, against 2.3 µs with HMAC()). */
struct crypto_key {
    EVP_MAC_CTX *mac;     /* HMAC */
    EVP_MD_CTX *verifier; /* ECDSA, public half */
    EVP_MD_CTX *signer;   /* ECDSA, private half */
};

/* Parses a secret or public key in the recipe's form. Errors: OH_INVALID (never repeats the key),
 * OH_NO_MEMORY, OH_SYSTEM. crypto_key_clear() wipes and frees. */
enum oh_status crypto_key_parse(const struct oh_recipe *recipe, struct oh_slice secret,
                                struct crypto_key *out, struct oh_error *err) OH_MUST_CHECK;
/* Likewise for signing: the secret, or a PEM private key without a pass phrase. */
enum oh_status crypto_key_parse_private(const struct oh_recipe *recipe, struct oh_slice secret,
                                        struct crypto_key *out, struct oh_error *err) OH_MUST_CHECK;
void crypto_key_clear(struct crypto_key *key);

/* The MAC of `message` to out[], *len its bytes. False when OpenSSL refuses. Thread: any. */
bool crypto_mac(const struct crypto_key *key, const struct message *message,
                uint8_t out[CRYPTO_MAC_BYTES_MAX], size_t *len) OH_MUST_CHECK;

/* True when `signature` (DER) is right for `message`. Thread: any. */
bool crypto_verify(const struct crypto_key *key, const struct message *message,
                   const uint8_t *signature, size_t len) OH_MUST_CHECK;

/* Signs `message` to out[], *len its bytes. False when OpenSSL refuses. Thread: any. */
bool crypto_sign(const struct crypto_key *key, const struct message *message,
                 uint8_t out[CRYPTO_SIGNATURE_BYTES_MAX], size_t *len) OH_MUST_CHECK;

#endif
