/* SPDX-License-Identifier: Apache-2.0 */
/* JSON Web Tokens in JWS compact serialisation (RFC 7515, RFC 7519): only the algorithms that the
 * recipe pins, whatever the token says of itself. */
#ifndef VERIFY_JWT_H
#define VERIFY_JWT_H

#include "verify/crypto.h"

struct jwt {
    struct oh_slice signed_part; /* header and claims as they came, with the dot between */
    struct oh_slice claims;      /* decoded JSON */
    unsigned algorithm;          /* a word of RECIPE_JWT_ALGORITHMS, by its number */
    struct oh_slice kid;         /* len 0 = none */
    uint8_t signature[CRYPTO_SIGNATURE_BYTES_MAX];
    size_t signature_len;
};

/* Takes a token apart. False when it is none or its algorithm is not one of the recipe's. */
bool jwt_read(const struct oh_recipe *recipe, struct oh_slice token, struct oh_arena *arena,
              struct jwt *out) OH_MUST_CHECK;

/* True when `key` has signed the token. */
bool jwt_is_signed_by(const struct oh_recipe *recipe, const struct jwt *jwt,
                      const struct crypto_key *key) OH_MUST_CHECK;

/* What the claims say. */
struct jwt_claims {
    const char *because;   /* NULL: they bind this request */
    struct oh_slice ts;    /* text of the claim that recipe->timestamp names; data NULL = none */
    int64_t expires_us;    /* INT64_MAX = never */
    int64_t not_before_us; /* INT64_MIN = always */
};
void jwt_read_claims(const struct message_source *from, const struct jwt *jwt,
                     struct jwt_claims *out);

/* Makes a token of `claims` (JSON), as `key` signs it. False when OpenSSL or memory refuses. */
bool jwt_make(const struct oh_recipe *recipe, const struct crypto_key *key, struct oh_slice claims,
              struct oh_arena *arena, struct oh_slice *token) OH_MUST_CHECK;

#endif
