/* SPDX-License-Identifier: Apache-2.0 */
/* Verification (oncehook/verify.h): find the signature's header, take it apart, find the
 * timestamp's text, compare with what each live secret gives, and only then look at the clock.
 *
 * What is ambiguous is refused: a repeated header, a key twice, a pair without '='. */
#include "oncehook/verify.h"

#include "base/encode.h"
#include "base/slice.h"
#include "verify/crypto.h"

#include <stdlib.h>

#include <openssl/crypto.h>

/* Signatures in one header. Stripe sends one for each secret while a secret is rolled. */
enum { CANDIDATES_MAX = 16, SECRETS_MAX = 64 };

/* ---- the ring ----------------------------------------------------------------------------------
 */

struct oh_keyring {
    const struct oh_recipe *recipe;
    size_t count;
    struct crypto_key keys[SECRETS_MAX];
};

struct oh_keyring *oh_keyring_new(const struct oh_recipe *recipe)
{
    struct oh_keyring *ring = calloc(1, sizeof(*ring));
    if (ring)
        ring->recipe = recipe;
    return ring;
}

enum oh_status oh_keyring_add(struct oh_keyring *ring, struct oh_slice secret, struct oh_error *err)
{
    if (ring->count == SECRETS_MAX)
        return oh_fail(err, OH_INVALID, "more than %d secrets", SECRETS_MAX);
    enum oh_status status = crypto_key_parse(ring->recipe, secret, &ring->keys[ring->count], err);
    if (!status)
        ring->count++;
    return status;
}

size_t oh_keyring_count(const struct oh_keyring *ring)
{
    return ring->count;
}

void oh_keyring_free(struct oh_keyring *ring)
{
    if (!ring)
        return;
    for (size_t i = 0; i < ring->count; i++)
        crypto_key_clear(&ring->keys[i]);
    free(ring);
}

const char *oh_verdict_name(enum oh_verdict verdict)
{
    switch (verdict) {
    case OH_ACCEPTED:
        return "-";
    case OH_SIGNATURE_MISSING:
        return "signature_missing";
    case OH_STALE:
        return "stale";
    case OH_SIGNATURE_WRONG:
        break;
    }
    return "signature_wrong";
}

/* ---- taking the headers apart ------------------------------------------------------------------
 */

/* What a request brings, before any secret is asked. Slices point into the request. */
struct claim {
    struct oh_slice candidates[CANDIDATES_MAX]; /* encoded signatures */
    size_t count;
    struct oh_slice ts; /* the text that is signed; data == NULL: none */
    int64_t ts_value;   /* in the scheme's unit, not negative */
    const char *because;
};

enum found { FOUND_NONE, FOUND_ONE, FOUND_SEVERAL };

/* The value of the first of `names` that the request has. */
static enum found find_header(const struct oh_request *request, const struct recipe_names *names,
                              struct oh_slice *value)
{
    for (size_t n = 0; n < names->count; n++) {
        size_t lines = 0;
        for (size_t i = 0; i < request->header_count; i++)
            if (slice_equals_nocase(request->headers[i].name, names->items[n])) {
                *value = request->headers[i].value;
                lines++;
            }
        if (lines > 0)
            return lines == 1 ? FOUND_ONE : FOUND_SEVERAL;
    }
    return FOUND_NONE;
}

static bool refuse(struct claim *claim, const char *because)
{
    claim->because = because;
    return false;
}

/* One "key=value" of the header. */
static bool take_pair(const struct oh_recipe *recipe, struct oh_slice pair, struct claim *claim)
{
    const char *equals = pair.len > 0 ? memchr(pair.data, '=', pair.len) : NULL;
    if (!equals)
        return refuse(claim, "signature header malformed");
    struct oh_slice key = slice_of(pair.data, (size_t)(equals - pair.data));
    struct oh_slice value = slice_of(equals + 1, pair.len - key.len - 1);
    if (slice_equals(key, recipe->signature.key)) {
        if (claim->count == CANDIDATES_MAX)
            return refuse(claim, "too many signatures");
        claim->candidates[claim->count++] = value;
    }
    if (recipe->timestamp.in == RECIPE_TS_SIGFIELD && slice_equals(key, recipe->timestamp.key)) {
        if (claim->ts.data)
            return refuse(claim, "timestamp repeated");
        claim->ts = value;
    }
    return true;
}

static bool take_pairs(const struct oh_recipe *recipe, struct oh_slice header, struct claim *claim)
{
    for (size_t from = 0; from <= header.len;) {
        const char *end =
            memchr(header.data + from, recipe->signature.separator, header.len - from);
        size_t to = end ? (size_t)(end - header.data) : header.len;
        struct oh_slice pair = slice_trim(slice_of(header.data + from, to - from));
        if (!take_pair(recipe, pair, claim))
            return false;
        from = to + 1;
    }
    return claim->count > 0 || refuse(claim, "no signature of the expected version");
}

static bool take_signature(const struct oh_recipe *recipe, const struct oh_request *request,
                           struct claim *claim)
{
    struct oh_slice header = slice_of(NULL, 0);
    enum found found = find_header(request, &recipe->signature.names, &header);
    if (found == FOUND_NONE || (found == FOUND_ONE && header.len == 0))
        return refuse(claim, "no signature header");
    if (found == FOUND_SEVERAL)
        return refuse(claim, "signature header repeated");
    if (recipe->signature.parse == RECIPE_PARSE_KV)
        return take_pairs(recipe, header, claim);
    struct oh_slice prefix = recipe->signature.prefix;
    if (!slice_has_prefix(header, prefix))
        return refuse(claim, "signature without its prefix");
    claim->candidates[0] = slice_of(header.data + prefix.len, header.len - prefix.len);
    claim->count = 1;
    return true;
}

/* Digits only: no sign, no blank, no fraction, nothing beyond 63 bits. */
static bool parse_digits(struct oh_slice text, int64_t *value)
{
    int64_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, text.data[i] - '0', &n))
            return false;
    }
    *value = n;
    return text.len > 0;
}

static bool take_timestamp(const struct oh_recipe *recipe, const struct oh_request *request,
                           struct claim *claim)
{
    if (recipe->timestamp.in == RECIPE_TS_NONE)
        return true;
    if (recipe->timestamp.in == RECIPE_TS_HEADER &&
        find_header(request, &recipe->timestamp.names, &claim->ts) == FOUND_SEVERAL)
        return refuse(claim, "timestamp header repeated");
    if (!claim->ts.data || claim->ts.len == 0)
        return refuse(claim, "no timestamp");
    if (!parse_digits(claim->ts, &claim->ts_value))
        return refuse(claim, "timestamp malformed");
    return true;
}

/* ---- comparing ---------------------------------------------------------------------------------
 */

/* The bytes of an encoded signature; false when it is not written in the one way allowed. */
static bool decode_signature(const struct oh_recipe *recipe, struct oh_slice text, uint8_t *out,
                             size_t out_size, size_t *len)
{
    if (recipe->signature.encoding == RECIPE_HEX)
        return hex_decode(text, false, out, out_size, len);
    return base64_decode(text, 0, out, out_size, len);
}

static bool mac_matches(const struct oh_recipe *recipe, const struct crypto_key *key,
                        const struct message *message, const struct claim *claim)
{
    uint8_t mac[CRYPTO_MAC_BYTES_MAX], given[CRYPTO_MAC_BYTES_MAX];
    size_t mac_len, given_len;
    bool matches = false;
    if (!crypto_mac(key, message, mac, &mac_len))
        return false;
    for (size_t i = 0; i < claim->count; i++)
        if (decode_signature(recipe, claim->candidates[i], given, sizeof(given), &given_len) &&
            given_len == mac_len && CRYPTO_memcmp(given, mac, mac_len) == 0)
            matches = true;
    OPENSSL_cleanse(mac, sizeof(mac));
    return matches;
}

static bool signature_matches(const struct oh_recipe *recipe, const struct crypto_key *key,
                              const struct message *message, const struct claim *claim)
{
    uint8_t given[CRYPTO_SIGNATURE_BYTES_MAX];
    size_t len;
    for (size_t i = 0; i < claim->count; i++)
        if (decode_signature(recipe, claim->candidates[i], given, sizeof(given), &len) &&
            crypto_verify(key, message, given, len))
            return true;
    return false;
}

/* Which secret signed the request, from 0; -1 = none. */
static int find_secret(const struct oh_recipe *recipe, const struct oh_keyring *ring,
                       const struct message *message, const struct claim *claim)
{
    for (size_t i = 0; i < ring->count; i++) {
        const struct crypto_key *key = &ring->keys[i];
        if (key->mac ? mac_matches(recipe, key, message, claim)
                     : signature_matches(recipe, key, message, claim))
            return (int)i;
    }
    return -1;
}

/* True when `age` (in units of 1/per_s seconds) is more than limit_s. */
static bool exceeds(int64_t age, int64_t per_s, int64_t limit_s)
{
    return age / per_s > limit_s || (age / per_s == limit_s && age % per_s > 0);
}

/* Compared in the timestamp's own unit: what is exactly as old as allowed is accepted. */
static bool is_stale(const struct oh_recipe *recipe, const struct claim *claim, int64_t now_ms,
                     int64_t past_tolerance_s)
{
    const struct recipe_timestamp *ts = &recipe->timestamp;
    int64_t past_s = past_tolerance_s < 0 ? ts->past_s : past_tolerance_s;
    int64_t per_s = ts->unit == RECIPE_UNIT_MS ? 1000 : 1;
    int64_t now = per_s == 1000 ? now_ms : now_ms / 1000;
    int64_t age;
    if (ts->in == RECIPE_TS_NONE)
        return false;
    if (__builtin_sub_overflow(now, claim->ts_value, &age) || age == INT64_MIN)
        return true;
    if (age >= 0)
        return past_s >= 0 && exceeds(age, per_s, past_s);
    return ts->future_s >= 0 && exceeds(-age, per_s, ts->future_s);
}

enum oh_verdict oh_verify(const struct oh_recipe *recipe, const struct oh_keyring *ring,
                          const struct oh_request *request, int64_t now_ms,
                          int64_t past_tolerance_s, struct oh_arena *arena,
                          struct oh_verify_result *result)
{
    (void)arena; /* for schemes whose message has to be put together */
    struct oh_verify_result unused;
    struct claim claim = {.count = 0};
    struct message message;
    result = result ? result : &unused;
    result->secret_index = -1;
    result->because = "";
    if (!take_signature(recipe, request, &claim) || !take_timestamp(recipe, request, &claim)) {
        result->because = claim.because;
        return OH_SIGNATURE_MISSING;
    }
    message_build(recipe, claim.ts, request->body, &message);
    result->secret_index = find_secret(recipe, ring, &message, &claim);
    if (result->secret_index < 0) {
        result->because = ring->count ? "no secret gives this signature" : "no secret";
        return OH_SIGNATURE_WRONG;
    }
    if (is_stale(recipe, &claim, now_ms, past_tolerance_s)) {
        result->because = "timestamp outside the window";
        return OH_STALE;
    }
    return OH_ACCEPTED;
}
