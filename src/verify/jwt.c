/* SPDX-License-Identifier: Apache-2.0 */
/* verify/jwt.h. The token's own `alg` only chooses among the recipe's algorithms, and the kind of
 * key has to be the one of the algorithm, so a public key never serves as the secret of an HMAC. */
#include "verify/jwt.h"

#include "base/encode.h"
#include "base/slice.h"
#include "body/time.h"

#include <stdio.h>

#include <openssl/crypto.h>
#include <openssl/ecdsa.h>

enum { ES256_HALF = 32, CLAIMS_MAX = 16 };

static const struct {
    const char *digest;
    char kind; /* H: HMAC, R: RSA, E: ECDSA */
} algorithms[] = {
    {"SHA256", 'H'}, {"SHA384", 'H'}, {"SHA512", 'H'}, {"SHA256", 'R'}, {"SHA256", 'E'}};

/* Members of one JSON object, by name, to found->body_values. */
static bool read_members(struct oh_slice json, const struct oh_slice *names, size_t count,
                         struct oh_arena *arena, struct scan_result *found)
{
    struct scan_plan *plan = oh_arena_alloc(arena, sizeof(*plan));
    struct pointer_token *tokens = oh_arena_alloc(arena, count * sizeof(*tokens));
    if (!plan || !tokens || json.len == 0 || json.data[0] != '{')
        return false;
    *plan = (struct scan_plan){.want_count = count};
    for (size_t i = 0; i < count; i++) {
        tokens[i] = (struct pointer_token){names[i], POINTER_NO_INDEX, false};
        plan->wants[i] = (struct scan_want){{&tokens[i], 1}, true};
    }
    return scan_body(plan, json, 1, arena, found, NULL) == OH_OK;
}

static bool decode_part(struct oh_slice text, struct oh_arena *arena, struct oh_slice *out)
{
    uint8_t *bytes = oh_arena_alloc(arena, text.len);
    size_t len;
    if (!bytes || !base64_decode(text, BASE64_URL | BASE64_PADDING_OPTIONAL, bytes, text.len, &len))
        return false;
    *out = slice_of((char *)bytes, len);
    return true;
}

bool jwt_read(const struct oh_recipe *recipe, struct oh_slice token, struct oh_arena *arena,
              struct jwt *out)
{
    static const struct oh_slice names[] = {{"alg", 3}, {"kid", 3}};
    struct scan_result found;
    struct oh_slice header;
    if (!arena || token.len == 0)
        return false;
    const char *end = token.data + token.len;
    const char *first = memchr(token.data, '.', token.len);
    const char *second = first ? memchr(first + 1, '.', (size_t)(end - first - 1)) : NULL;
    if (!second || memchr(second + 1, '.', (size_t)(end - second - 1)))
        return false;
    if (!decode_part(slice_of(token.data, (size_t)(first - token.data)), arena, &header) ||
        !decode_part(slice_of(first + 1, (size_t)(second - first - 1)), arena, &out->claims) ||
        !read_members(header, names, 2, arena, &found))
        return false;
    int algorithm = recipe_find_word(RECIPE_JWT_ALGORITHMS, scan_value_text(&found.body_values[0]));
    if (algorithm < 0 || !(recipe->jwt.algorithms >> algorithm & 1))
        return false;
    out->algorithm = (unsigned)algorithm;
    out->kid = scan_value_text(&found.body_values[1]);
    out->signed_part = slice_of(token.data, (size_t)(second - token.data));
    return base64_decode(slice_of(second + 1, (size_t)(end - second - 1)),
                         BASE64_URL | BASE64_PADDING_OPTIONAL, out->signature,
                         sizeof(out->signature), &out->signature_len);
}

/* The two halves of RFC 7518 section 3.4 as the DER that OpenSSL takes. */
static bool es256_is_right(const struct jwt *jwt, EVP_PKEY *pkey, const struct message *message)
{
    if (jwt->signature_len != 2 * ES256_HALF)
        return false;
    ECDSA_SIG *halves = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(jwt->signature, ES256_HALF, NULL);
    BIGNUM *s = BN_bin2bn(jwt->signature + ES256_HALF, ES256_HALF, NULL);
    unsigned char *der = NULL;
    bool right = false;
    if (halves && r && s && ECDSA_SIG_set0(halves, r, s) == 1) {
        r = s = NULL;
        int len = i2d_ECDSA_SIG(halves, &der);
        right = len > 0 && crypto_verify_once(pkey, "SHA256", message, der, (size_t)len);
    }
    OPENSSL_free(der);
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(halves);
    return right;
}

bool jwt_is_signed_by(const struct oh_recipe *recipe, const struct jwt *jwt,
                      const struct crypto_key *key)
{
    uint8_t mac[CRYPTO_MAC_BYTES_MAX];
    size_t len;
    const struct message message = {{jwt->signed_part}, 1};
    const char *digest = algorithms[jwt->algorithm].digest;
    if (recipe->key_form == RECIPE_KEY_JWK && !slice_equals(key->id, jwt->kid))
        return false;
    switch (algorithms[jwt->algorithm].kind) {
    case 'H':
        return key->secret.len > 0 &&
               crypto_mac_once(digest, key->secret, jwt->signed_part, mac, &len) &&
               len == jwt->signature_len && CRYPTO_memcmp(mac, jwt->signature, len) == 0;
    case 'R':
        return key->pkey && EVP_PKEY_is_a(key->pkey, "RSA") &&
               crypto_verify_once(key->pkey, digest, &message, jwt->signature, jwt->signature_len);
    default:
        return key->pkey && EVP_PKEY_is_a(key->pkey, "EC") &&
               es256_is_right(jwt, key->pkey, &message);
    }
}

/* ---- claims ---------------------------------------------------------------------------------- */

enum { EXP, NBF, ISS, BODY, URL, TS, REQUIRED };

/* SHA-256 of `bytes` in the encoding of the recipe. */
static struct oh_slice digest_text(struct oh_slice bytes, enum recipe_encoding encoding,
                                   char out[HEX_BYTES(32)])
{
    uint8_t digest[32];
    if (EVP_Digest(bytes.data, bytes.len, digest, NULL, crypto_find_digest("SHA256"), NULL) != 1)
        return slice_of(NULL, 0);
    if (encoding == RECIPE_BASE64)
        return slice_of(out, base64_encode(digest, sizeof(digest), out));
    if (encoding == RECIPE_BASE64URL)
        return slice_of(out, base64url_encode(digest, sizeof(digest), out));
    hex_encode(digest, sizeof(digest), out);
    return slice_of(out, HEX_BYTES(sizeof(digest)));
}

/* Why the claims do not bind this request; NULL = they do. */
static const char *find_flaw(const struct message_source *from, const struct scan_value *values)
{
    const struct recipe_jwt *jwt = &from->recipe->jwt;
    char text[HEX_BYTES(32)];
    struct oh_slice body = from->request->body, url = from->request->url;
    struct oh_slice body_claim = scan_value_text(&values[BODY]);
    for (size_t i = 0; i < jwt->require.count; i++)
        if (values[REQUIRED + i].kind == SCAN_ABSENT)
            return "the token lacks a claim";
    if (jwt->issuer.len > 0 && !slice_equals(scan_value_text(&values[ISS]), jwt->issuer))
        return "the token is of another issuer";
    if (jwt->url_claim.len > 0) {
        if (jwt->url_is_hashed)
            url = digest_text(url, RECIPE_HEX, text);
        if (!url.data || !slice_equals(scan_value_text(&values[URL]), url))
            return "the token is for another URL";
    }
    if (jwt->body_claim.len == 0)
        return NULL;
    if (!body_claim.data)
        return body.len > 0 || jwt->body_rule == RECIPE_JWT_BODY_REQUIRED
                   ? "the token does not bind the body"
                   : NULL;
    if (body.len == 0 && jwt->body_rule == RECIPE_JWT_BODY_IFF)
        return "the token is for a body that is not there";
    return slice_equals(body_claim, digest_text(body, jwt->body_encoding, text))
               ? NULL
               : "the token is for another body";
}

static int64_t read_time(const struct scan_value *value, int64_t otherwise, const char **because)
{
    int64_t us = otherwise;
    if (value->kind != SCAN_ABSENT &&
        (value->kind != SCAN_NUMBER || !time_parse(scan_value_text(value), RECIPE_UNIT_S, &us)))
        *because = "a time of the token is malformed";
    return us;
}

void jwt_read_claims(const struct message_source *from, const struct jwt *jwt,
                     struct jwt_claims *out)
{
    const struct oh_recipe *recipe = from->recipe;
    struct oh_slice names[CLAIMS_MAX] = {
        [EXP] = {"exp", 3},
        [NBF] = {"nbf", 3},
        [ISS] = {"iss", 3},
        [BODY] = recipe->jwt.body_claim,
        [URL] = recipe->jwt.url_claim,
        [TS] = recipe->timestamp.key,
    };
    struct scan_result found;
    size_t count = REQUIRED;
    for (size_t i = 0; i < recipe->jwt.require.count && count < CLAIMS_MAX; i++)
        names[count++] = recipe->jwt.require.items[i];
    *out =
        (struct jwt_claims){"the token's claims cannot be read", {NULL, 0}, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < count; i++)
        if (!names[i].data)
            names[i] = slice_of("", 0); /* a member that nobody asks for */
    if (!read_members(jwt->claims, names, count, from->arena, &found))
        return;
    out->because = find_flaw(from, found.body_values);
    out->expires_us = read_time(&found.body_values[EXP], INT64_MAX, &out->because);
    out->not_before_us = read_time(&found.body_values[NBF], INT64_MIN, &out->because);
    if (recipe->timestamp.in == RECIPE_TS_JWT)
        out->ts = scan_value_text(&found.body_values[TS]);
}

/* ---- making one ------------------------------------------------------------------------------ */

/* The DER of an ECDSA signature as the two halves of RFC 7518 section 3.4. */
static bool es256_halves(const uint8_t *der, size_t len, uint8_t out[2 * ES256_HALF])
{
    ECDSA_SIG *halves = d2i_ECDSA_SIG(NULL, &der, (long)len);
    bool done = halves && BN_bn2binpad(ECDSA_SIG_get0_r(halves), out, ES256_HALF) == ES256_HALF &&
                BN_bn2binpad(ECDSA_SIG_get0_s(halves), out + ES256_HALF, ES256_HALF) == ES256_HALF;
    ECDSA_SIG_free(halves);
    return done;
}

static struct oh_slice encode_part(struct oh_slice text, struct oh_arena *arena)
{
    char *out = oh_arena_alloc(arena, BASE64_BYTES(text.len));
    return slice_of(out, out ? base64url_encode(text.data, text.len, out) : 0);
}

bool jwt_make(const struct oh_recipe *recipe, const struct crypto_key *key, struct oh_slice claims,
              struct oh_arena *arena, struct oh_slice *token)
{
    static const char *const names[] = {"HS256", "HS384", "HS512", "RS256", "ES256"};
    unsigned algorithm = (unsigned)__builtin_ctz(recipe->jwt.algorithms);
    uint8_t signature[CRYPTO_SIGNATURE_BYTES_MAX], halves[2 * ES256_HALF];
    char text[512];
    size_t len;
    int n = snprintf(text, sizeof(text), "{\"alg\":\"%s\",\"typ\":\"JWT\"%s%.*s%s}",
                     names[algorithm], key->id.len ? ",\"kid\":\"" : "", (int)key->id.len,
                     key->id.data, key->id.len ? "\"" : "");
    if (n < 0 || n >= (int)sizeof(text))
        return false;
    struct oh_slice dot = SLICE_LITERAL("."), whole;
    struct oh_slice head = encode_part(slice_of(text, (size_t)n), arena);
    struct oh_slice body = encode_part(claims, arena);
    if (!head.data || !body.data ||
        !message_join(arena, (struct oh_slice[]){head, dot, body}, 3, &whole))
        return false;
    const struct message message = {{whole}, 1};
    struct oh_slice bytes = {(char *)signature, 0};
    if (algorithms[algorithm].kind == 'H'
            ? !crypto_mac_once(algorithms[algorithm].digest, key->secret, whole, signature, &len)
            : !crypto_sign(key, &message, arena, signature, &len))
        return false;
    bytes.len = len;
    if (algorithms[algorithm].kind == 'E') {
        if (!es256_halves(signature, len, halves))
            return false;
        bytes = slice_of((char *)halves, sizeof(halves));
    }
    struct oh_slice tail = encode_part(bytes, arena);
    return tail.data && message_join(arena, (struct oh_slice[]){whole, dot, tail}, 3, token);
}
