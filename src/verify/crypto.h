/* SPDX-License-Identifier: Apache-2.0 */
/* The cryptography under verify and sign: keys parsed once, MACs, digests and signatures.
 * Every function leaves OpenSSL's error queue empty, since TLS of the same thread reads it. */
#ifndef VERIFY_CRYPTO_H
#define VERIFY_CRYPTO_H

#include "oncehook/verify.h"
#include "recipe/recipe.h"
#include "verify/message.h"

#include <openssl/evp.h>

#define CRYPTO_MAC_BYTES_MAX       64  /* SHA-512 */
#define CRYPTO_SIGNATURE_BYTES_MAX 512 /* RSA of 4096 bits */

/* A key made ready: whichever members the recipe's algorithm needs; the others are NULL. A key is
 * only read when it is used: each use works on a copy of the prepared context, which costs neither
 * a fetch nor the key schedule (600 bytes of HMAC-SHA256: 0.9 µs, against 2.3 µs with HMAC()). */
struct crypto_key {
    EVP_MAC_CTX *mac;       /* HMAC */
    EVP_PKEY *pkey;         /* public or private half */
    EVP_MD_CTX *prepared;   /* ECDSA and RSA: to verify with, or to sign with a private half */
    struct oh_slice secret; /* its bytes where the algorithm needs them: owned, wiped */
    struct oh_slice id;     /* of a JWK or a certificate: `kid`, URL; owned */
};

/* Parses a secret or public key in the recipe's form. Errors: OH_INVALID (never repeats the key),
 * OH_NO_MEMORY, OH_SYSTEM. crypto_key_clear() wipes and frees. */
enum oh_status crypto_key_parse(const struct oh_recipe *recipe, struct oh_slice secret,
                                struct crypto_key *out, struct oh_error *err) OH_MUST_CHECK;
/* Likewise for signing: the secret, or a PEM private key without a pass phrase. */
enum oh_status crypto_key_parse_private(const struct oh_recipe *recipe, struct oh_slice secret,
                                        struct crypto_key *out, struct oh_error *err) OH_MUST_CHECK;
/* A PEM certificate with an RSA key, known by `url`. */
enum oh_status crypto_key_parse_certificate(struct oh_slice url, struct oh_slice pem,
                                            struct crypto_key *out,
                                            struct oh_error *err) OH_MUST_CHECK;
void crypto_key_clear(struct crypto_key *key);

/* A fresh key pair of the recipe's kind; NULL when it takes none or OpenSSL refuses. */
EVP_PKEY *crypto_make_pair(const struct oh_recipe *recipe);

/* A digest of OpenSSL's, "SHA256" say, looked up once: at every use it takes 0.3 µs and a lock.
 * NULL when OpenSSL does not give it. Thread: any. */
const EVP_MD *crypto_find_digest(const char *name);

/* The MAC of `message` to out[], *len its bytes. False when OpenSSL refuses. Thread: any. */
bool crypto_mac(const struct crypto_key *key, const struct message *message,
                uint8_t out[CRYPTO_MAC_BYTES_MAX], size_t *len) OH_MUST_CHECK;

/* Likewise HMAC with a digest ("SHA256") and secret of the moment, and the plain digest. */
bool crypto_mac_once(const char *digest, struct oh_slice secret, struct oh_slice message,
                     uint8_t out[CRYPTO_MAC_BYTES_MAX], size_t *len) OH_MUST_CHECK;
bool crypto_digest(const struct oh_recipe *recipe, const struct message *message,
                   uint8_t out[CRYPTO_MAC_BYTES_MAX], size_t *len) OH_MUST_CHECK;

/* True when `signature` is right for `message`. `arena` takes a message that has to be in one piece
 * (Ed25519). Thread: any. */
bool crypto_verify(const struct crypto_key *key, const struct message *message,
                   const uint8_t *signature, size_t len, struct oh_arena *arena) OH_MUST_CHECK;

/* Likewise with a key of the moment, RSA or EC on P-256, and this digest. */
bool crypto_verify_once(EVP_PKEY *pkey, const char *digest, const struct message *message,
                        const uint8_t *signature, size_t len) OH_MUST_CHECK;

/* Signs `message` to out[], *len its bytes. False when OpenSSL refuses. Thread: any. */
bool crypto_sign(const struct crypto_key *key, const struct message *message,
                 struct oh_arena *arena, uint8_t out[CRYPTO_SIGNATURE_BYTES_MAX],
                 size_t *len) OH_MUST_CHECK;

#endif
