/* SPDX-License-Identifier: Apache-2.0 */
/* Verification (oncehook/verify.h): take signature and timestamp out of the request, compare with
 * what each live secret gives, and only then look at the clock. How signatures are written down is
 * claim.c, what is signed is message.c, the cryptography crypto.c and jwt.c. */
#include "oncehook/verify.h"

#include "base/encode.h"
#include "base/slice.h"
#include "verify/claim.h"
#include "verify/crypto.h"
#include "verify/explain.h"
#include "verify/jwt.h"

#include <stdlib.h>

#include <openssl/crypto.h>

enum { SECRETS_MAX = 64, ITEMS_MAX = 1000 };

/* ---- the ring -------------------------------------------------------------------------------- */

struct oh_keyring {
    const struct oh_recipe *recipe;
    size_t count, certificate_count;
    int64_t not_before_ms[SECRETS_MAX], not_after_ms[SECRETS_MAX]; /* of each key */
    struct crypto_key keys[SECRETS_MAX];
    struct crypto_key certificates[SECRETS_MAX];
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
    if (status)
        return status;
    ring->count++;
    oh_keyring_limit(ring, INT64_MIN, INT64_MAX);
    return OH_OK;
}

void oh_keyring_limit(struct oh_keyring *ring, int64_t not_before_ms, int64_t not_after_ms)
{
    if (ring->count == 0)
        return;
    ring->not_before_ms[ring->count - 1] = not_before_ms;
    ring->not_after_ms[ring->count - 1] = not_after_ms;
}

enum oh_status oh_keyring_add_certificate(struct oh_keyring *ring, struct oh_slice url,
                                          struct oh_slice pem, struct oh_error *err)
{
    if (ring->certificate_count == SECRETS_MAX)
        return oh_fail(err, OH_INVALID, "more than %d certificates", SECRETS_MAX);
    enum oh_status status =
        crypto_key_parse_certificate(url, pem, &ring->certificates[ring->certificate_count], err);
    if (!status)
        ring->certificate_count++;
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
    for (size_t i = 0; i < ring->certificate_count; i++)
        crypto_key_clear(&ring->certificates[i]);
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

/* ---- comparing ------------------------------------------------------------------------------- */

/* One request on its way through. */
struct check {
    struct message_source from;
    const struct oh_keyring *ring;
    struct claim claim;
    int64_t now_ms, past_tolerance_s;
    bool expired; /* a token's own times say so */
    struct oh_verify_result *result;
    struct oh_explanation *explanation; /* NULL: nobody asks */
};

/* The bytes of an encoded signature; false when it is not written in the one way allowed. */
static bool decode_signature(const struct oh_recipe *recipe, struct oh_slice text, uint8_t *out,
                             size_t out_size, size_t *len)
{
    switch (recipe->signature.encoding) {
    case RECIPE_HEX:
        return hex_decode(text, false, out, out_size, len);
    case RECIPE_HEX_ANY:
        return hex_decode(text, true, out, out_size, len);
    case RECIPE_BASE64:
        return base64_decode(text, 0, out, out_size, len);
    case RECIPE_BASE64URL:
        return base64_decode(text, BASE64_URL | BASE64_PADDING_OPTIONAL, out, out_size, len);
    case RECIPE_RAW:
        break;
    }
    return false;
}

static bool bytes_match(const struct check *check, const uint8_t *right, size_t right_len)
{
    uint8_t given[CRYPTO_MAC_BYTES_MAX];
    size_t len;
    bool matches = false;
    for (size_t i = 0; i < check->claim.count; i++)
        if (decode_signature(check->from.recipe, check->claim.candidates[i], given, sizeof(given),
                             &len) &&
            len == right_len && CRYPTO_memcmp(given, right, len) == 0)
            matches = true;
    return matches;
}

/* Compares without regard to where two texts differ; their lengths are no secret. */
static bool texts_match(struct oh_slice a, struct oh_slice b)
{
    return a.len == b.len && a.len > 0 && CRYPTO_memcmp(a.data, b.data, a.len) == 0;
}

/* Each of these says whether `key` proves the claim; `message` is built already. */

static bool mac_matches(struct check *check, const struct crypto_key *key,
                        const struct message *message)
{
    uint8_t mac[CRYPTO_MAC_BYTES_MAX];
    size_t len;
    bool matches = crypto_mac(key, message, mac, &len) && bytes_match(check, mac, len);
    OPENSSL_cleanse(mac, sizeof(mac));
    return matches;
}

static bool digest_matches(struct check *check, const struct crypto_key *key,
                           const struct message *message)
{
    uint8_t digest[CRYPTO_MAC_BYTES_MAX];
    size_t len;
    (void)key; /* a part of the message */
    return crypto_digest(check->from.recipe, message, digest, &len) &&
           bytes_match(check, digest, len);
}

static bool signature_matches(struct check *check, const struct crypto_key *key,
                              const struct message *message)
{
    uint8_t given[CRYPTO_SIGNATURE_BYTES_MAX];
    size_t len;
    for (size_t i = 0; i < check->claim.count; i++)
        if (decode_signature(check->from.recipe, check->claim.candidates[i], given, sizeof(given),
                             &len) &&
            crypto_verify(key, message, given, len, check->from.arena))
            return true;
    return false;
}

static bool token_matches(struct check *check, const struct crypto_key *key,
                          const struct message *message)
{
    const struct oh_slice body = check->from.request->body;
    (void)message;
    for (size_t i = 0; i < check->claim.count; i++) {
        struct oh_slice text = check->claim.candidates[i];
        if (!texts_match(text, key->secret))
            continue;
        if (text.data >= body.data && text.data < body.data + body.len)
            check->result->shown_secret = text;
        return true;
    }
    return false;
}

/* RFC 7617: the word Basic in any case, base64 of user:password. */
static bool basic_matches(struct check *check, const struct crypto_key *key,
                          const struct message *message)
{
    (void)message;
    const struct oh_slice word = SLICE_LITERAL("Basic ");
    struct oh_slice text = check->claim.candidates[0];
    uint8_t plain[1024];
    size_t len;
    if (text.len <= word.len || !slice_equals_nocase(slice_of(text.data, word.len), word))
        return false;
    text = slice_trim(slice_of(text.data + word.len, text.len - word.len));
    return base64_decode(text, 0, plain, sizeof(plain), &len) &&
           texts_match(slice_of((char *)plain, len), key->secret);
}

/* ---- certificates ---------------------------------------------------------------------------- */

/* `*` in a prefix stands for three or more letters, digits and hyphens: a region of AWS. */
static bool url_has_prefix(struct oh_slice url, struct oh_slice prefix)
{
    size_t u = 0, run = 0;
    for (size_t p = 0; p < prefix.len; p++) {
        if (prefix.data[p] != '*') {
            if (u == url.len || url.data[u++] != prefix.data[p])
                return false;
            continue;
        }
        for (run = 0; u < url.len; u++, run++) {
            char c = url.data[u], letter = (char)(c | 0x20);
            if (!((c >= '0' && c <= '9') || (letter >= 'a' && letter <= 'z') || c == '-'))
                break;
        }
        if (run < 3)
            return false;
    }
    return true;
}

static bool url_is_allowed(const struct recipe_certificate *allowed, struct oh_slice url)
{
    if (url.len < allowed->suffix.len ||
        !slice_equals(slice_of(url.data + url.len - allowed->suffix.len, allowed->suffix.len),
                      allowed->suffix))
        return false;
    for (size_t i = 0; i < allowed->prefixes.count; i++)
        if (url_has_prefix(url, allowed->prefixes.items[i]))
            return true;
    return false;
}

/* The certificate that the request names, if it may name it and the ring has it. */
static const struct crypto_key *find_certificate(struct check *check)
{
    const struct recipe_certificate *named = &check->from.recipe->certificate;
    const struct recipe_names header = {&named->header, 1};
    struct oh_slice url = {NULL, 0};
    if (named->in_json)
        url = check->from.json ? scan_value_text(&check->from.json[named->json]) : url;
    else if (find_header(check->from.request, &header, &url) != FOUND_ONE)
        url = slice_of(NULL, 0);
    if (!url.data || !url_is_allowed(named, url)) {
        check->claim.because = "the certificate's URL is not the provider's";
        return NULL;
    }
    for (size_t i = 0; i < check->ring->certificate_count; i++)
        if (slice_equals(check->ring->certificates[i].id, url))
            return &check->ring->certificates[i];
    check->claim.because = "the certificate is not known yet";
    check->result->certificate_url = url;
    return NULL;
}

/* RSA with a certificate: the secret is no key but what the message or the body has to name. */
static bool certified_matches(struct check *check, const struct crypto_key *key,
                              const struct message *message)
{
    const struct oh_recipe *recipe = check->from.recipe;
    const struct recipe_certificate *named = &recipe->certificate;
    const struct scan_value *json = check->from.json;
    static const char wrong[] = "the certificate does not confirm this signature";
    uint8_t given[CRYPTO_SIGNATURE_BYTES_MAX];
    const char *digest = "SHA256";
    size_t len;
    if (named->has_pin && !(json && texts_match(scan_value_text(&json[named->pin]), key->secret))) {
        if (check->claim.because != wrong)
            check->claim.because = "the topic that the body names is none of the secrets";
        return false;
    }
    if (recipe->algorithm == RECIPE_RSA_SNS) {
        struct oh_slice version = scan_value_text(&json[named->version]);
        if (slice_equals(version, SLICE_LITERAL("1")))
            digest = "SHA1";
        else if (!slice_equals(version, SLICE_LITERAL("2")))
            return false;
    }
    /* Last, so that nobody who does not know the topic makes anybody fetch. */
    const struct crypto_key *certificate = find_certificate(check);
    if (!certificate)
        return false;
    check->claim.because = wrong;
    return decode_signature(recipe, check->claim.candidates[0], given, sizeof(given), &len) &&
           crypto_verify_once(certificate->pkey, digest, message, given, len);
}

/* ---- which secret ---------------------------------------------------------------------------- */

static bool (*const matchers[])(struct check *, const struct crypto_key *,
                                const struct message *) = {
    [RECIPE_HMAC_SHA1] = mac_matches,
    [RECIPE_HMAC_SHA256] = mac_matches,
    [RECIPE_HMAC_SHA512] = mac_matches,
    [RECIPE_SHA1] = digest_matches,
    [RECIPE_SHA256] = digest_matches,
    [RECIPE_MD5] = digest_matches,
    [RECIPE_ECDSA_P256_SHA256] = signature_matches,
    [RECIPE_ED25519] = signature_matches,
    [RECIPE_RSA_SHA1] = signature_matches,
    [RECIPE_RSA_SHA256] = signature_matches,
    [RECIPE_RSA_SNS] = certified_matches,
    [RECIPE_JWT] = NULL, /* find_token_secret() */
    [RECIPE_TOKEN] = token_matches,
    [RECIPE_BASIC] = basic_matches,
};

/* True if key `i` is taken now; what it signed before or after its time is told apart for people.
 */
static bool is_live(struct check *check, size_t i)
{
    if (check->now_ms >= check->ring->not_before_ms[i] &&
        check->now_ms <= check->ring->not_after_ms[i])
        return true;
    check->claim.because =
        "only a secret outside its not_before and not_after gives this signature";
    return false;
}

/* For people, who see `****` for the secret. */
static void note_message(struct check *check, bool with_secret)
{
    struct message message;
    enum recipe_algorithm algorithm = check->from.recipe->algorithm;
    if (!check->explanation || algorithm == RECIPE_TOKEN || algorithm == RECIPE_BASIC)
        return;
    if (with_secret)
        check->from.secret = SLICE_LITERAL("****");
    if (message_build(&check->from, &message))
        explain_add_message(check->explanation, message.parts, message.count, check->from.arena);
}

/* Which secret signed the request, from 0; -1 = none. A message that has the secret in it is built
 * for each. */
static int find_secret(struct check *check)
{
    const struct oh_recipe *recipe = check->from.recipe;
    bool (*matches)(struct check *, const struct crypto_key *, const struct message *) =
        recipe->key_form == RECIPE_KEY_CERT_URL ? certified_matches : matchers[recipe->algorithm];
    bool with_secret = recipe->algorithm >= RECIPE_SHA1 && recipe->algorithm <= RECIPE_MD5;
    with_secret |= recipe->key_form == RECIPE_KEY_CERT_URL;
    unsigned variants = message_variants(recipe);
    bool has_message = false;
    for (unsigned variant = 0; variant < variants; variant++) {
        struct message message;
        check->from.variant = variant;
        check->from.ts = check->claim.ts;
        check->from.signature = check->claim.candidates[0];
        note_message(check, with_secret);
        bool built = !with_secret && message_build(&check->from, &message);
        has_message |= built;
        for (size_t i = 0; (built || with_secret) && i < check->ring->count; i++) {
            check->from.secret = check->ring->keys[i].secret;
            if (with_secret && !message_build(&check->from, &message))
                break;
            has_message = true;
            if (matches(check, &check->ring->keys[i], &message) && is_live(check, i))
                return (int)i;
        }
    }
    if (!has_message && check->ring->count > 0)
        check->claim.because =
            "a part of what the scheme signs is missing, or does not fit the body";
    return -1;
}

/* Likewise for tokens, whose claims have to bind the request. */
static int find_token_secret(struct check *check)
{
    const struct oh_recipe *recipe = check->from.recipe;
    struct jwt jwt;
    struct jwt_claims claims;
    size_t i = 0;
    if (!jwt_read(recipe, check->claim.candidates[0], check->from.arena, &jwt)) {
        check->claim.because = "not a token of the algorithms that are allowed";
        return -1;
    }
    if (check->explanation)
        explain_add_message(check->explanation, &jwt.signed_part, 1, check->from.arena);
    while (i < check->ring->count &&
           !(jwt_is_signed_by(recipe, &jwt, &check->ring->keys[i]) && is_live(check, i)))
        i++;
    if (i == check->ring->count)
        return -1;
    jwt_read_claims(&check->from, &jwt, &claims);
    check->claim.ts = claims.ts;
    check->claim.because = claims.because;
    if (claims.because ||
        (recipe->timestamp.in == RECIPE_TS_JWT && !claim_read_ts(&check->from, &check->claim)))
        return -1;
    int64_t now_us = check->now_ms * 1000, leeway_us = recipe->jwt.leeway_s * 1000000;
    int64_t late_us = check->past_tolerance_s < 0 ? leeway_us : check->past_tolerance_s * 1000000;
    check->expired = (claims.expires_us != INT64_MAX && now_us - late_us > claims.expires_us) ||
                     now_us + leeway_us < claims.not_before_us;
    return (int)i;
}

/* ---- time ------------------------------------------------------------------------------------ */

/* True when `age` (in units of 1/per_s seconds) is more than limit_s. */
static bool exceeds(int64_t age, int64_t per_s, int64_t limit_s)
{
    return age / per_s > limit_s || (age / per_s == limit_s && age % per_s > 0);
}

/* Compared in the timestamp's own unit: what is exactly as old as allowed is accepted. */
static bool is_stale(const struct check *check)
{
    const struct recipe_timestamp *ts = &check->from.recipe->timestamp;
    int64_t past_s = check->past_tolerance_s < 0 ? ts->past_s : check->past_tolerance_s;
    int64_t per_s = claim_ts_per_s(check->from.recipe);
    int64_t now = per_s == 1000 ? check->now_ms : check->now_ms / 1000;
    int64_t age;
    if (ts->in == RECIPE_TS_NONE)
        return check->expired;
    if (check->expired || __builtin_sub_overflow(now, check->claim.ts_value, &age) ||
        age == INT64_MIN)
        return true;
    if (age >= 0)
        return past_s >= 0 && exceeds(age, per_s, past_s);
    return ts->future_s >= 0 && exceeds(-age, per_s, ts->future_s);
}

/* ---- a request ------------------------------------------------------------------------------- */

/* Headers that have to have one value, or the body's. */
static bool has_required(const struct message_source *from)
{
    for (size_t i = 0; i < from->recipe->required_count; i++) {
        const struct recipe_required *row = &from->recipe->required[i];
        struct oh_slice value = {NULL, 0}, wanted = row->value;
        enum found found =
            find_header(from->request, &(struct recipe_names){&row->name, 1}, &value);
        if (row->is_json && found == FOUND_NONE)
            continue;
        if (row->is_json)
            wanted = from->json ? scan_value_text(&from->json[row->json]) : slice_of(NULL, 0);
        if (found != FOUND_ONE || !wanted.data || !slice_equals(value, wanted))
            return false;
    }
    return true;
}

/* After the claim was read and judged, or could not be. */
static void note_claim(struct check *check)
{
    struct oh_explanation *to = check->explanation;
    if (!to)
        return;
    const struct recipe_timestamp *ts = &check->from.recipe->timestamp;
    explain_find_missing(&check->from, &to->missing);
    to->has_time = ts->in != RECIPE_TS_NONE && check->claim.ts.data && check->claim.ts_value >= 0;
    to->time_ms = check->claim.ts_value;
    if (claim_ts_per_s(check->from.recipe) == 1 &&
        __builtin_mul_overflow(to->time_ms, 1000, &to->time_ms))
        to->has_time = false;
}

static enum oh_verdict judge(struct check *check)
{
    bool jwt = check->from.recipe->algorithm == RECIPE_JWT;
    struct oh_verify_result *result = check->result;
    bool read = has_required(&check->from);
    check->claim.because = "a header that the scheme demands is missing or different";
    if (!read || !claim_read(&check->from, &check->claim)) {
        result->because = check->claim.because;
        return OH_SIGNATURE_MISSING;
    }
    do {
        check->claim.because = check->ring->count ? "no secret gives this signature" : "no secret";
        result->secret_index = jwt ? find_token_secret(check) : find_secret(check);
    } while (result->secret_index < 0 && claim_next_group(&check->from, &check->claim));
    if (result->secret_index < 0) {
        result->because = check->claim.because;
        return OH_SIGNATURE_WRONG;
    }
    if (is_stale(check)) {
        result->because = check->expired ? "the token has expired, or is not valid yet"
                                         : "timestamp outside the window";
        return OH_STALE;
    }
    result->because = "";
    return OH_ACCEPTED;
}

static enum oh_verdict verify_one(struct check *check)
{
    check->claim.ts_value = -1;
    if (check->explanation)
        check->explanation->message_count = 0;
    enum oh_verdict verdict = judge(check);
    note_claim(check);
    return verdict;
}

/* Every item of the body has a signature of its own, and each of them has to be right. */
static enum oh_verdict verify_items(struct check *check, const struct scan_result *found)
{
    enum oh_verdict verdict = OH_SIGNATURE_MISSING;
    check->result->because = "the body has no items";
    for (const struct scan_event *item = found->first; item; item = item->next) {
        check->from.json = item->values;
        verdict = verify_one(check);
        if (verdict != OH_ACCEPTED)
            break;
    }
    return verdict;
}

/* The places of a JSON body that the scheme reads. False when the body is no JSON. */
static bool read_json(const struct message_source *from, struct scan_result *found)
{
    const struct oh_recipe *recipe = from->recipe;
    struct scan_plan *plan = from->arena ? oh_arena_alloc(from->arena, sizeof(*plan)) : NULL;
    if (!plan)
        return false;
    *plan = (struct scan_plan){.want_count = recipe->json_count};
    for (size_t i = 0; i < recipe->json_count; i++)
        plan->wants[i] = (struct scan_want){recipe->json[i], !recipe->each_item};
    if (recipe->each_item) {
        plan->event_want_count = recipe->json_count;
        plan->has_split = recipe->events.has_split;
        plan->split = recipe->events.split;
    }
    enum oh_status status =
        scan_body(plan, from->request->body, ITEMS_MAX, from->arena, found, NULL);
    if (status && recipe->each_item) { /* not in the envelope: one item by itself */
        plan->has_split = false;
        plan->split = (struct pointer){NULL, 0};
        status = scan_body(plan, from->request->body, ITEMS_MAX, from->arena, found, NULL);
    }
    return status == OH_OK;
}

static enum oh_verdict verify_request(struct check *check)
{
    const struct oh_recipe *recipe = check->from.recipe;
    struct oh_arena *arena = check->from.arena;
    *check->result = (struct oh_verify_result){.secret_index = -1, .because = ""};
    if (recipe->json_count == 0)
        return verify_one(check);
    struct scan_result *found = arena ? oh_arena_alloc(arena, sizeof(*found)) : NULL;
    bool read = found && read_json(&check->from, found);
    if (recipe->each_item && read)
        return verify_items(check, found);
    check->from.json = read ? found->body_values : NULL;
    return verify_one(check);
}

enum oh_verdict oh_verify(const struct oh_recipe *recipe, const struct oh_keyring *ring,
                          const struct oh_request *request, int64_t now_ms,
                          int64_t past_tolerance_s, struct oh_arena *arena,
                          struct oh_verify_result *result)
{
    struct oh_verify_result unused;
    struct check check = {
        .from = {.recipe = recipe, .request = request, .arena = arena},
        .ring = ring,
        .now_ms = now_ms,
        .past_tolerance_s = past_tolerance_s,
        .result = result ? result : &unused,
    };
    return verify_request(&check);
}

enum oh_verdict oh_explain(const struct oh_recipe *recipe, const struct oh_keyring *ring,
                           const struct oh_request *request, int64_t now_ms,
                           int64_t past_tolerance_s, struct oh_arena *arena,
                           struct oh_explanation *out)
{
    *out = (struct oh_explanation){
        .past_s = past_tolerance_s < 0 ? recipe->timestamp.past_s : past_tolerance_s,
        .future_s = recipe->timestamp.future_s,
    };
    struct check check = {
        .from = {.recipe = recipe, .request = request, .arena = arena},
        .ring = ring,
        .now_ms = now_ms,
        .past_tolerance_s = past_tolerance_s,
        .result = &out->result,
        .explanation = out,
    };
    return verify_request(&check);
}
