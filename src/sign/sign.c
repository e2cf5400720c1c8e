/* SPDX-License-Identifier: Apache-2.0 */
/* Signing as the provider would (oncehook/sign.h): the way of verify.c, backwards. What a request
 * lacks is put into it first, then its message is built by the code that verify uses, and the
 * signature goes where claim.c looks for it. */
#include "oncehook/sign.h"

#include "base/encode.h"
#include "base/slice.h"
#include "body/form.h"
#include "body/time.h"
#include "sign/edit.h"
#include "verify/crypto.h"
#include "verify/jwt.h"
#include "verify/message.h"

#include <stdio.h>
#include <stdlib.h>

#include <openssl/crypto.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>

enum { REQUEST_HEADERS_MAX = 64, ITEMS_MAX = 1000 };

struct oh_signer {
    const struct oh_recipe *recipe;
    struct crypto_key key;
};

/* A request that is being signed. */
struct job {
    const struct oh_signer *signer;
    struct oh_arena *arena;
    struct oh_request request; /* as it will be sent; its headers are `lines` */
    struct oh_header lines[REQUEST_HEADERS_MAX];
    size_t own; /* lines that the caller gave */
    struct oh_slice ts;
    char nonce[HEX_BYTES(32)];
    const struct scan_value *json;
    struct oh_error *err;
};

enum oh_status oh_signer_new(const struct oh_recipe *recipe, struct oh_slice key,
                             struct oh_signer **out, struct oh_error *err)
{
    struct oh_signer *signer = calloc(1, sizeof(*signer));
    if (!signer)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    signer->recipe = recipe;
    enum oh_status status = crypto_key_parse_private(recipe, key, &signer->key, err);
    if (status) {
        free(signer);
        return status;
    }
    *out = signer;
    return OH_OK;
}

void oh_signer_free(struct oh_signer *signer)
{
    if (!signer)
        return;
    crypto_key_clear(&signer->key);
    free(signer);
}

static enum oh_status no_memory(struct job *job)
{
    return oh_fail(job->err, OH_NO_MEMORY, "out of memory");
}

static enum oh_status join(struct job *job, const struct oh_slice *pieces, size_t count,
                           struct oh_slice *out)
{
    return message_join(job->arena, pieces, count, out) ? OH_OK : no_memory(job);
}

/* ---- what a request lacks -------------------------------------------------------------------- */

static bool has_header(const struct job *job, struct oh_slice name)
{
    for (size_t i = 0; i < job->request.header_count; i++)
        if (slice_equals_nocase(job->lines[i].name, name))
            return true;
    return false;
}

static enum oh_status add_header(struct job *job, struct oh_slice name, struct oh_slice value)
{
    if (job->request.header_count == REQUEST_HEADERS_MAX ||
        job->request.header_count - job->own == OH_SIGN_HEADERS_MAX)
        return oh_fail(job->err, OH_INVALID, "more headers than can be signed");
    job->lines[job->request.header_count++] = (struct oh_header){name, value};
    return OH_OK;
}

/* Reads the places of the JSON body anew, after it was changed; a body that is none has none. */
static enum oh_status read_json(struct job *job)
{
    const struct oh_recipe *recipe = job->signer->recipe;
    struct scan_plan *plan = oh_arena_alloc(job->arena, sizeof(*plan));
    struct scan_result *found = oh_arena_alloc(job->arena, sizeof(*found));
    if (!plan || !found)
        return no_memory(job);
    *plan = (struct scan_plan){.want_count = recipe->json_count};
    for (size_t i = 0; i < recipe->json_count; i++)
        plan->wants[i] = (struct scan_want){recipe->json[i], true};
    bool read = scan_body(plan, job->request.body, 1, job->arena, found, NULL) == OH_OK;
    job->json = read ? found->body_values : NULL;
    return OH_OK;
}

static enum oh_status set_json(struct job *job, size_t place, struct oh_slice text, bool quoted)
{
    struct oh_slice quote = slice_of("\"", quoted), value;
    enum oh_status status = join(job, (struct oh_slice[]){quote, text, quote}, 3, &value);
    if (!status)
        status = edit_json(job->request.body, &job->signer->recipe->json[place], value, job->arena,
                           &job->request.body, job->err);
    return status ? status : read_json(job);
}

static bool lacks_json(const struct job *job, size_t place)
{
    return !job->json || job->json[place].kind == SCAN_ABSENT;
}

/* The timestamp's text in the scheme's unit. */
static enum oh_status make_ts(struct job *job, int64_t now_ms)
{
    const struct recipe_timestamp *ts = &job->signer->recipe->timestamp;
    char *text = oh_arena_alloc(job->arena, TIME_ISO_BYTES);
    if (!text)
        return no_memory(job);
    job->ts = slice_of(text, TIME_ISO_BYTES);
    bool date =
        ts->unit == RECIPE_UNIT_ISO || (ts->unit == RECIPE_UNIT_AUTO && ts->in == RECIPE_TS_HEADER);
    if (date)
        time_format(now_ms, text);
    else
        job->ts.len =
            (size_t)snprintf(text, TIME_ISO_BYTES, "%lld",
                             (long long)(ts->unit == RECIPE_UNIT_S ? now_ms / 1000 : now_ms));
    if (ts->in == RECIPE_TS_HEADER)
        return add_header(job, ts->names.items[0], job->ts);
    if (ts->in == RECIPE_TS_JSON)
        return set_json(job, ts->json, job->ts, ts->unit != RECIPE_UNIT_MS);
    return OH_OK;
}

/* Headers that the scheme demands, and Contentful's list of those that are signed. */
static enum oh_status add_demanded(struct job *job)
{
    const struct oh_recipe *recipe = job->signer->recipe;
    enum oh_status status = OH_OK;
    for (size_t i = 0; !status && i < recipe->required_count; i++) {
        const struct recipe_required *row = &recipe->required[i];
        struct oh_slice value = row->value;
        if (row->is_json && job->json)
            value = scan_value_text(&job->json[row->json]);
        if (value.data && !has_header(job, row->name))
            status = add_header(job, row->name, value);
    }
    for (size_t i = 0; !status && i < recipe->part_count; i++) {
        const struct recipe_part *part = &recipe->parts[i];
        struct oh_slice nonce = slice_of(job->nonce, sizeof(job->nonce));
        if (part->kind == RECIPE_PART_HEADER && !has_header(job, part->names.items[0]))
            status = add_header(job, part->names.items[0], nonce);
        else if (part->kind == RECIPE_PART_JSON && lacks_json(job, part->json))
            status = set_json(job, part->json, nonce, true);
        else if (part->kind == RECIPE_PART_CONTENTFUL)
            status =
                add_header(job, SLICE_LITERAL("x-contentful-signed-headers"),
                           SLICE_LITERAL("x-contentful-signed-headers,x-contentful-timestamp"));
    }
    return status;
}

/* The URL under which the provider's certificate could be. */
static enum oh_status name_certificate(struct job *job)
{
    const struct recipe_certificate *named = &job->signer->recipe->certificate;
    struct oh_slice prefix, url;
    if (named->prefixes.count == 0)
        return OH_OK;
    prefix = named->prefixes.items[0];
    const char *star = memchr(prefix.data, '*', prefix.len);
    struct oh_slice before =
        slice_of(prefix.data, star ? (size_t)(star - prefix.data) : prefix.len);
    struct oh_slice behind =
        star ? slice_of(star + 1, prefix.len - before.len - 1) : slice_of("", 0);
    struct oh_slice region = star ? SLICE_LITERAL("us-east-1") : slice_of("", 0);
    enum oh_status status = join(
        job, (struct oh_slice[]){before, region, behind, SLICE_LITERAL("oncehook"), named->suffix},
        5, &url);
    if (status || (named->in_json ? !lacks_json(job, named->json) : has_header(job, named->header)))
        return status;
    if (!named->in_json)
        return add_header(job, named->header, url);
    status = set_json(job, named->json, url, true);
    if (!status && named->has_pin && lacks_json(job, named->pin) && job->signer->key.secret.len)
        status = set_json(job, named->pin, job->signer->key.secret, true);
    if (!status && lacks_json(job, named->version))
        status = set_json(job, named->version, SLICE_LITERAL("2"), true);
    return status;
}

/* ---- the signature --------------------------------------------------------------------------- */

static enum oh_status encode(struct job *job, const uint8_t *bytes, size_t len,
                             struct oh_slice *out)
{
    char *text = oh_arena_alloc(job->arena, HEX_BYTES(len) + 4);
    if (!text)
        return no_memory(job);
    *out = slice_of(text, HEX_BYTES(len));
    switch (job->signer->recipe->signature.encoding) {
    case RECIPE_BASE64:
        out->len = base64_encode(bytes, len, text);
        break;
    case RECIPE_BASE64URL:
        out->len = base64url_encode(bytes, len, text);
        break;
    default:
        hex_encode(bytes, len, text);
    }
    return OH_OK;
}

static enum oh_status sign_message(struct job *job, struct oh_slice *out)
{
    const struct oh_signer *signer = job->signer;
    const struct oh_recipe *recipe = signer->recipe;
    struct message_source from = {
        .recipe = recipe,
        .request = &job->request,
        .arena = job->arena,
        .json = job->json,
        .ts = job->ts,
        .secret = signer->key.secret,
        .signature = slice_of(job->nonce, sizeof(job->nonce)),
    };
    uint8_t bytes[CRYPTO_SIGNATURE_BYTES_MAX];
    struct message message;
    size_t len = 0;
    if (!message_build(&from, &message))
        return oh_fail(job->err, OH_INVALID, "the request lacks what the scheme signs");
    bool done = signer->key.mac    ? crypto_mac(&signer->key, &message, bytes, &len)
                : signer->key.pkey ? crypto_sign(&signer->key, &message, job->arena, bytes, &len)
                                   : crypto_digest(recipe, &message, bytes, &len);
    if (!done)
        return oh_fail(job->err, OH_SYSTEM, "OpenSSL does not sign");
    return encode(job, bytes, len, out);
}

/* The claims that the recipe asks for, at this moment. */
static enum oh_status make_claims(struct job *job, int64_t now_ms, struct oh_slice *claims)
{
    const struct recipe_jwt *jwt = &job->signer->recipe->jwt;
    struct oh_slice body = job->request.body, url = job->request.url;
    uint8_t digest[32];
    char body_text[HEX_BYTES(32) + 1], url_text[HEX_BYTES(32) + 1], *text;
    size_t max = url.len + jwt->issuer.len + jwt->body_claim.len + jwt->url_claim.len + 512,
           len = 0;
    long long now_s = (long long)(now_ms / 1000);
    if (!(text = oh_arena_alloc(job->arena, max)))
        return no_memory(job);
    len += (size_t)snprintf(text, max, "{\"iat\":%lld,\"nbf\":%lld,\"exp\":%lld,\"jti\":\"%.32s\"",
                            now_s, now_s, now_s + 300, job->nonce);
    if (jwt->issuer.len > 0)
        len += (size_t)snprintf(text + len, max - len, ",\"iss\":\"%s\"", jwt->issuer.data);
    if (jwt->body_claim.len > 0 && (body.len > 0 || jwt->body_rule != RECIPE_JWT_BODY_IFF)) {
        EVP_Digest(body.data, body.len, digest, NULL, crypto_find_digest("SHA256"), NULL);
        size_t n = HEX_BYTES(sizeof(digest));
        if (jwt->body_encoding == RECIPE_BASE64)
            n = base64_encode(digest, sizeof(digest), body_text);
        else
            hex_encode(digest, sizeof(digest), body_text);
        len += (size_t)snprintf(text + len, max - len, ",\"%s\":\"%.*s\"", jwt->body_claim.data,
                                (int)n, body_text);
    }
    if (jwt->url_claim.len > 0 && jwt->url_is_hashed) {
        EVP_Digest(url.data, url.len, digest, NULL, crypto_find_digest("SHA256"), NULL);
        hex_encode(digest, sizeof(digest), url_text);
        url = slice_of(url_text, HEX_BYTES(sizeof(digest)));
    }
    if (jwt->url_claim.len > 0)
        len += (size_t)snprintf(text + len, max - len, ",\"%s\":\"%.*s\"", jwt->url_claim.data,
                                (int)url.len, url.data);
    len += (size_t)snprintf(text + len, max - len, "}");
    *claims = slice_of(text, len);
    return OH_OK;
}

/* The signature, before it is written down. */
static enum oh_status make_signature(struct job *job, int64_t now_ms, struct oh_slice *out)
{
    const struct oh_recipe *recipe = job->signer->recipe;
    struct oh_slice secret = job->signer->key.secret, claims = job->request.body, text;
    enum oh_status status = OH_OK;
    switch (recipe->algorithm) {
    case RECIPE_TOKEN:
        *out = secret;
        return OH_OK;
    case RECIPE_BASIC:
        text.data = oh_arena_alloc(job->arena, BASE64_BYTES(secret.len));
        if (!text.data)
            return no_memory(job);
        text.len = base64_encode(secret.data, secret.len, (char *)text.data);
        return join(job, (struct oh_slice[]){SLICE_LITERAL("Basic "), text}, 2, out);
    case RECIPE_JWT:
        if (recipe->signature.in != RECIPE_IN_BODY)
            status = make_claims(job, now_ms, &claims);
        if (status)
            return status;
        return jwt_make(recipe, &job->signer->key, claims, job->arena, out)
                   ? OH_OK
                   : oh_fail(job->err, OH_SYSTEM, "the token cannot be made");
    default:
        return sign_message(job, out);
    }
}

/* ---- where it goes --------------------------------------------------------------------------- */

/* As claim.c takes it apart. */
static enum oh_status write_down(struct job *job, struct oh_slice signature, struct oh_slice *out)
{
    const struct oh_recipe *recipe = job->signer->recipe;
    const struct recipe_signature *form = &recipe->signature;
    struct oh_slice equals = SLICE_LITERAL("="), separator = slice_of(&form->separator, 1);
    bool with_ts = recipe->timestamp.in == RECIPE_TS_SIGFIELD;
    switch (form->parse) {
    case RECIPE_PARSE_KV: {
        struct oh_slice pieces[] = {
            recipe->timestamp.key, equals, job->ts, separator, form->key, equals, signature};
        return join(job, with_ts ? pieces : pieces + 4, with_ts ? 7 : 3, out);
    }
    case RECIPE_PARSE_TAGGED:
        return join(job, (struct oh_slice[]){form->key, SLICE_LITERAL(","), signature}, 3, out);
    case RECIPE_PARSE_POSITIONAL:
        return with_ts ? join(job, (struct oh_slice[]){job->ts, separator, signature}, 3, out)
                       : join(job, &signature, 1, out);
    case RECIPE_PARSE_PIPEPAIRS:
        return join(job, (struct oh_slice[]){SLICE_LITERAL("oncehook|"), signature}, 2, out);
    case RECIPE_PARSE_PLAIN:
    case RECIPE_PARSE_NUMBERED:
        break;
    }
    return join(job, (struct oh_slice[]){form->prefix, signature}, 2, out);
}

static enum oh_status put_signature(struct job *job, struct oh_slice text)
{
    const struct recipe_signature *form = &job->signer->recipe->signature;
    struct oh_slice name, url = job->request.url, query;
    enum oh_status status = OH_OK;
    switch (form->in) {
    case RECIPE_IN_HEADER:
        name = form->names.items[0];
        if (form->parse == RECIPE_PARSE_NUMBERED)
            status = join(job, (struct oh_slice[]){name, SLICE_LITERAL("1")}, 2, &name);
        return status ? status : add_header(job, name, text);
    case RECIPE_IN_JSON:
        return set_json(job, form->json, text, true);
    case RECIPE_IN_FORM:
        return edit_form(job->request.body, form->name, text, job->arena, &job->request.body,
                         job->err);
    case RECIPE_IN_QUERY:
        status = edit_form(form_query(url), form->name, text, job->arena, &query, job->err);
        url.len =
            url.data ? strcspn(url.data, "?#") < url.len ? strcspn(url.data, "?#") : url.len : 0;
        return status ? status
                      : join(job, (struct oh_slice[]){url, SLICE_LITERAL("?"), query}, 3,
                             &job->request.url);
    case RECIPE_IN_BODY:
        job->request.body = text;
    }
    return OH_OK;
}

/* Items that are signed each for itself are changed from the last to the first, so that the places
 * of those before stay what they were. */
static enum oh_status sign_items(struct job *job)
{
    const struct oh_recipe *recipe = job->signer->recipe;
    const struct recipe_events *events = &recipe->events;
    struct scan_plan plan = {.want_count = recipe->json_count,
                             .event_want_count = recipe->json_count,
                             .has_split = events->has_split,
                             .split = events->split};
    struct scan_result found;
    struct oh_slice rest = job->request.body, text, changed, whole = slice_of("", 0);
    for (size_t i = 0; i < recipe->json_count; i++)
        plan.wants[i] = (struct scan_want){recipe->json[i], false};
    enum oh_status status =
        scan_body(&plan, job->request.body, ITEMS_MAX, job->arena, &found, job->err);
    for (const struct scan_event *item = found.first; !status && item; item = item->next) {
        struct oh_slice before = slice_of(rest.data, (size_t)(item->raw.data - rest.data));
        job->json = item->values;
        status = sign_message(job, &text);
        if (!status)
            status = join(job, (struct oh_slice[]){SLICE_LITERAL("\""), text, SLICE_LITERAL("\"")},
                          3, &text);
        if (!status)
            status = edit_json(item->raw, &recipe->json[recipe->signature.json], text, job->arena,
                               &changed, job->err);
        if (!status)
            status = join(job, (struct oh_slice[]){whole, before, changed}, 3, &whole);
        rest.data = item->raw.data + item->raw.len;
    }
    if (status)
        return status;
    rest.len = (size_t)(job->request.body.data + job->request.body.len - rest.data);
    return join(job, (struct oh_slice[]){whole, rest}, 2, &job->request.body);
}

static enum oh_status sign_one(struct job *job, int64_t now_ms)
{
    const struct oh_recipe *recipe = job->signer->recipe;
    struct oh_slice signature, text, nonce = slice_of(job->nonce, sizeof(job->nonce));
    enum oh_status status = recipe->json_count ? read_json(job) : OH_OK;
    if (!status)
        status = make_ts(job, now_ms);
    if (!status)
        status = name_certificate(job);
    if (!status)
        status = add_demanded(job);
    /* A signature inside of what is signed has a mark in its place until it is known. */
    for (size_t i = 0; !status && i < recipe->part_count; i++)
        if (recipe->parts[i].kind == RECIPE_PART_BODY_SECRET)
            status = set_json(job, recipe->signature.json, nonce, true);
    if (!status)
        status = make_signature(job, now_ms, &signature);
    if (!status)
        status = write_down(job, signature, &text);
    return status ? status : put_signature(job, text);
}

/* A text that is the same for the same request, and no secret: ids and nonces. */
static void make_nonce(const struct oh_request *request, int64_t now_ms, char out[HEX_BYTES(32)])
{
    uint8_t digest[32] = {0};
    EVP_Digest(request->body.data, request->body.len, digest, NULL, crypto_find_digest("SHA256"),
               NULL);
    for (size_t i = 0; i < sizeof(now_ms); i++)
        digest[i] ^= (uint8_t)(now_ms >> (8 * i));
    hex_encode(digest, sizeof(digest), out);
}

enum oh_status oh_sign(const struct oh_signer *signer, const struct oh_request *request,
                       int64_t now_ms, struct oh_arena *arena, struct oh_signed *out,
                       struct oh_error *err)
{
    struct job job = {.signer = signer, .arena = arena, .request = *request, .err = err};
    if (request->header_count > REQUEST_HEADERS_MAX - OH_SIGN_HEADERS_MAX)
        return oh_fail(err, OH_INVALID, "more headers than can be signed");
    if (request->header_count > 0)
        memcpy(job.lines, request->headers, request->header_count * sizeof(job.lines[0]));
    job.own = request->header_count;
    job.request.headers = job.lines;
    make_nonce(request, now_ms, job.nonce);
    enum oh_status status = signer->recipe->each_item ? sign_items(&job) : sign_one(&job, now_ms);
    if (status)
        return status;
    out->count = job.request.header_count - job.own;
    memcpy(out->headers, job.lines + job.own, out->count * sizeof(job.lines[0]));
    for (size_t i = 0; i < out->count; i++) { /* values made here must outlive this call */
        struct oh_slice *value = &out->headers[i].value;
        if (value->data == job.nonce && !message_join(arena, value, 1, value))
            return no_memory(&job);
    }
    out->url = job.request.url;
    out->body = job.request.body;
    return OH_OK;
}

/* ---- fresh keys ------------------------------------------------------------------------------ */

/* The public half as the provider shows it. */
static bool show_pair(const struct oh_recipe *recipe, EVP_PKEY *pair, struct oh_made_key *out)
{
    uint8_t point[65];
    unsigned char *spki = NULL;
    char x[44] = "", y[44] = "";
    size_t len = sizeof(point);
    enum recipe_key_form form = recipe->key_form;
    if (form >= RECIPE_KEY_RAW_B64 && form <= RECIPE_KEY_WHPK) {
        if (EVP_PKEY_get_raw_public_key(pair, point, &len) != 1)
            return false;
        char *to = out->shown;
        if (form == RECIPE_KEY_WHPK)
            to += snprintf(to, 8, "whpk_");
        if (form == RECIPE_KEY_RAW_HEX)
            hex_encode(point, len, to);
        else
            base64_encode(point, len, to);
        return true;
    }
    if (form == RECIPE_KEY_JWK) {
        if (EVP_PKEY_get_octet_string_param(pair, "pub", point, sizeof(point), &len) != 1 ||
            len != 65)
            return false;
        base64url_encode(point + 1, 32, x);
        base64url_encode(point + 33, 32, y);
        snprintf(out->shown, sizeof(out->shown),
                 "{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"dev\",\"x\":\"%s\",\"y\":\"%s\"}", x,
                 y);
        return true;
    }
    int spki_len = i2d_PUBKEY(pair, &spki);
    bool fits = spki_len > 0 && BASE64_BYTES((size_t)spki_len) < sizeof(out->shown);
    if (fits)
        base64_encode(spki, (size_t)spki_len, out->shown);
    OPENSSL_free(spki);
    return fits;
}

static bool make_pair(const struct oh_recipe *recipe, struct oh_made_key *out)
{
    EVP_PKEY *pair = crypto_make_pair(recipe);
    BIO *memory = BIO_new(BIO_s_mem());
    bool certified = recipe->key_form == RECIPE_KEY_CERT_URL;
    const char *id = certified ? out->shown : recipe->key_form == RECIPE_KEY_JWK ? "dev" : "";
    int head = snprintf(out->private_half, sizeof(out->private_half), "%s%s", id, *id ? "\n" : "");
    size_t room = sizeof(out->private_half) - (size_t)head - 1;
    if (!certified)
        memset(out->shown, 0, sizeof(out->shown));
    bool made = pair && memory && (certified || show_pair(recipe, pair, out)) &&
                PEM_write_bio_PrivateKey(memory, pair, NULL, NULL, 0, NULL, NULL) == 1 &&
                BIO_pending(memory) <= (int)room &&
                BIO_read(memory, out->private_half + head, (int)room) > 0;
    BIO_free(memory);
    EVP_PKEY_free(pair);
    return made;
}

enum oh_status oh_key_make(const struct oh_recipe *recipe, struct oh_made_key *out,
                           struct oh_error *err)
{
    uint8_t random[24];
    char hex[HEX_BYTES(sizeof(random)) + 1] = "";
    *out = (struct oh_made_key){.shown = ""};
    bool made = RAND_bytes(random, sizeof(random)) == 1;
    hex_encode(random, sizeof(random), hex);
    switch (recipe->key_form) {
    case RECIPE_KEY_WHSEC:
        snprintf(out->shown, sizeof(out->shown), "whsec_");
        base64_encode(random, sizeof(random), out->shown + 6);
        break;
    case RECIPE_KEY_BASE64:
        base64_encode(random, sizeof(random), out->shown);
        break;
    case RECIPE_KEY_CERT_URL:
        snprintf(out->shown, sizeof(out->shown),
                 recipe->certificate.has_pin ? "arn:aws:sns:us-east-1:123456789012:%.16s" : "%.24s",
                 hex);
        break;
    default:
        snprintf(out->shown, sizeof(out->shown),
                 recipe->algorithm == RECIPE_BASIC ? "oncehook:%s" : "%s", hex);
    }
    if (recipe->key_form >= RECIPE_KEY_SPKI_B64)
        made = made && make_pair(recipe, out);
    OPENSSL_cleanse(random, sizeof(random));
    return made ? OH_OK : oh_fail(err, OH_SYSTEM, "OpenSSL makes no key");
}
