/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook/handshake.h: one table, a row for each question of a provider. Places are written as in
 * recipes ("/pointer", "header:NAME", "query:NAME"; "form:NAME" is the only field of a form);
 * "!PLACE" is a place where nothing stands. */
#include "oncehook/handshake.h"

#include "base/encode.h"
#include "base/slice.h"
#include "body/form.h"
#include "verify/crypto.h"

#include <openssl/crypto.h>

enum letters {
    ANY,
    TOKEN, /* letters, digits, . _ ~ + / = - : none that JSON needs */
    PLAIN, /* letters, digits, _ and - */
    HEX    /* 20 to 32 of 0-9 and a-f */
};

enum digest { NO_DIGEST, HMAC_HEX, HMAC_BASE64, HMAC_SHA1_OF_SHA1, SHA256_OF_ALL };

enum { VERIFIED = 1, LEARNS = 2, NOSNIFF = 4, BASIC = 8 };

#define TEXT "text/plain"
#define JSON "application/json"

static const struct row {
    const char *provider, *method;
    const char *conditions[2]; /* "PLACE=TEXT", "!PLACE" */
    const char *challenge;     /* place; NULL = none */
    enum letters letters;
    enum digest digest;
    unsigned flags;
    int status;              /* 0 = 200 */
    const char *type, *body; /* %c challenge, %d digest, %k public key */
    const char *token;       /* place of the token that the source knows */
    const char *echo;        /* header that carries the challenge back */
    const char *visit;       /* place of a URL that is to be asked for */
} rows[] = {
    {.provider = "adobe_sign",
     .method = "GET",
     .challenge = "header:x-adobesign-clientid",
     .letters = TOKEN,
     .echo = "X-AdobeSign-ClientId"},
    {.provider = "asana",
     .method = "POST",
     .challenge = "header:x-hook-secret",
     .letters = PLAIN,
     .flags = LEARNS,
     .echo = "X-Hook-Secret"},
    {.provider = "aws_sns",
     .method = "POST",
     .conditions = {"header:x-amz-sns-message-type=SubscriptionConfirmation"},
     .flags = VERIFIED,
     .visit = "/SubscribeURL"},
    {.provider = "aws_sns",
     .method = "POST",
     .conditions = {"!header:x-amz-sns-message-type", "!header:authorization"},
     .flags = BASIC,
     .status = 401},
    {.provider = "braintree",
     .method = "GET",
     .challenge = "query:bt_challenge",
     .letters = HEX,
     .digest = HMAC_SHA1_OF_SHA1,
     .type = TEXT,
     .body = "%k|%d"},
    {.provider = "discord",
     .method = "POST",
     .conditions = {"/type=1"},
     .flags = VERIFIED,
     .type = JSON,
     .body = "{\"type\":1}"},
    {.provider = "discord",
     .method = "POST",
     .conditions = {"/type=0"},
     .flags = VERIFIED,
     .status = 204},
    {.provider = "dropbox",
     .method = "GET",
     .challenge = "query:challenge",
     .letters = TOKEN,
     .flags = NOSNIFF,
     .type = TEXT,
     .body = "%c"},
    {.provider = "ebay",
     .method = "GET",
     .challenge = "query:challenge_code",
     .letters = TOKEN,
     .digest = SHA256_OF_ALL,
     .type = JSON,
     .body = "{\"challengeResponse\":\"%d\"}"},
    {.provider = "front",
     .method = "POST",
     .challenge = "header:x-front-challenge",
     .letters = ANY,
     .flags = VERIFIED,
     .type = JSON,
     .body = "{\"challenge\":\"%c\"}"},
    {.provider = "heygen", .method = "OPTIONS"},
    {.provider = "intercom", .method = "HEAD"},
    {.provider = "mandrill", .method = "HEAD"},
    {.provider = "meta",
     .method = "GET",
     .conditions = {"query:hub.mode=subscribe"},
     .challenge = "query:hub.challenge",
     .letters = TOKEN,
     .type = TEXT,
     .body = "%c",
     .token = "query:hub.verify_token"},
    {.provider = "microsoft_graph",
     .method = "POST",
     .challenge = "query:validationToken",
     .letters = ANY,
     .flags = NOSNIFF,
     .type = TEXT,
     .body = "%c"},
    {.provider = "monday",
     .method = "POST",
     .conditions = {"!/event"},
     .challenge = "/challenge",
     .letters = ANY,
     .type = JSON,
     .body = "{\"challenge\":\"%c\"}"},
    {.provider = "notion",
     .method = "POST",
     .conditions = {"!/type"},
     .challenge = "/verification_token",
     .letters = PLAIN,
     .flags = LEARNS},
    {.provider = "okta",
     .method = "GET",
     .challenge = "header:x-okta-verification-challenge",
     .letters = ANY,
     .type = JSON,
     .body = "{\"verification\":\"%c\"}"},
    {.provider = "slack",
     .method = "POST",
     .conditions = {"/type=url_verification"},
     .challenge = "/challenge",
     .letters = ANY,
     .flags = VERIFIED,
     .type = TEXT,
     .body = "%c"},
    {.provider = "sparkpost", .method = "POST", .conditions = {"!/0/msys/*", "!/1"}},
    {.provider = "trello", .method = "HEAD"},
    {.provider = "twitch",
     .method = "POST",
     .conditions = {"header:twitch-eventsub-message-type=webhook_callback_verification"},
     .challenge = "/challenge",
     .letters = ANY,
     .flags = VERIFIED,
     .type = TEXT,
     .body = "%c"},
    {.provider = "unisender_go", .method = "GET"},
    {.provider = "woocommerce",
     .method = "POST",
     .conditions = {"!header:x-wc-webhook-signature"},
     .challenge = "form:webhook_id"},
    {.provider = "x_twitter",
     .method = "GET",
     .challenge = "query:crc_token",
     .letters = TOKEN,
     .digest = HMAC_BASE64,
     .type = JSON,
     .body = "{\"response_token\":\"sha256=%d\"}"},
    {.provider = "xero", .method = "POST", .conditions = {"!/events/0"}, .flags = VERIFIED},
    {.provider = "zoom",
     .method = "POST",
     .conditions = {"/event=endpoint.url_validation"},
     .challenge = "/payload/plainToken",
     .letters = PLAIN,
     .digest = HMAC_HEX,
     .type = JSON,
     .body = "{\"plainToken\":\"%c\",\"encryptedToken\":\"%d\"}"},
};

/* ---- places ---------------------------------------------------------------------------------- */

static bool find_json(struct oh_slice body, struct oh_slice place, struct oh_arena *arena,
                      struct oh_slice *out)
{
    struct scan_plan *plan = oh_arena_alloc(arena, sizeof(*plan));
    struct scan_result *found = oh_arena_alloc(arena, sizeof(*found));
    if (!plan || !found)
        return false;
    *plan = (struct scan_plan){.want_count = 1};
    plan->wants[0].in_body = true;
    if (pointer_parse(place, POINTER_EACH, arena, &plan->wants[0].pointer, NULL) != OH_OK ||
        scan_body(plan, body, 1000, arena, found, NULL) != OH_OK)
        return false;
    const struct scan_value *value = &found->body_values[0];
    *out = value->data ? slice_of(value->data, value->len) : slice_of("", 0);
    return value->kind != SCAN_ABSENT;
}

/* True when something stands at `place`. */
static bool find_place(const struct oh_request *request, struct oh_slice place,
                       struct oh_arena *arena, struct oh_slice *out)
{
    const struct oh_slice header = SLICE_LITERAL("header:"), query = SLICE_LITERAL("query:"),
                          form = SLICE_LITERAL("form:");
    if (slice_has_prefix(place, header)) {
        struct oh_slice name = slice_of(place.data + header.len, place.len - header.len);
        const struct recipe_names names = {&name, 1};
        return find_header(request, &names, out) == FOUND_ONE;
    }
    if (slice_has_prefix(place, query)) {
        struct oh_slice name = slice_of(place.data + query.len, place.len - query.len);
        return form_field(form_query(request->url), name, arena, out, NULL) == OH_OK;
    }
    if (slice_has_prefix(place, form)) {
        struct oh_slice name = slice_of(place.data + form.len, place.len - form.len);
        return request->body.len > 0 && !memchr(request->body.data, '&', request->body.len) &&
               form_field(request->body, name, arena, out, NULL) == OH_OK;
    }
    return find_json(request->body, place, arena, out);
}

static bool condition_holds(const struct oh_request *request, const char *condition,
                            struct oh_arena *arena)
{
    struct oh_slice value;
    if (condition[0] == '!')
        return !find_place(request, slice_of_text(condition + 1), arena, &value);
    size_t len = strcspn(condition, "=");
    return find_place(request, slice_of(condition, len), arena, &value) &&
           slice_equals(value, slice_of_text(condition + len + 1));
}

static bool letters_are(enum letters letters, struct oh_slice text)
{
    static const char more[][12] = {[TOKEN] = "._~+/=-", [PLAIN] = "_-"};
    if (text.len == 0 || text.len > 1024)
        return false;
    if (letters == HEX && (text.len < 20 || text.len > 32))
        return false;
    for (size_t i = 0; letters != ANY && i < text.len; i++) {
        char c = text.data[i], small = (char)(c | 0x20);
        bool digit = c >= '0' && c <= '9';
        bool good = letters == HEX ? digit || (c >= 'a' && c <= 'f')
                                   : digit || (small >= 'a' && small <= 'z') ||
                                         (c && strchr(more[letters], c));
        if (!good)
            return false;
    }
    return true;
}

/* ---- answers --------------------------------------------------------------------------------- */

static bool make_digest(enum digest kind, struct oh_slice challenge,
                        const struct oh_handshake_options *options, struct oh_arena *arena,
                        struct oh_slice *out)
{
    uint8_t bytes[CRYPTO_MAC_BYTES_MAX], key[20];
    size_t len = 32;
    struct oh_slice whole, secret = options->secret;
    char *text = oh_arena_alloc(arena, HEX_BYTES(sizeof(bytes)));
    bool done = text != NULL;
    if (kind == SHA256_OF_ALL) {
        done =
            done &&
            message_join(arena,
                         (struct oh_slice[]){challenge, options->verify_token, options->endpoint},
                         3, &whole) &&
            EVP_Digest(whole.data, whole.len, bytes, NULL, crypto_find_digest("SHA256"), NULL) == 1;
    } else {
        if (kind == HMAC_SHA1_OF_SHA1) {
            done = done && EVP_Digest(secret.data, secret.len, key, NULL,
                                      crypto_find_digest("SHA1"), NULL) == 1;
            secret = slice_of((char *)key, options->secret.len ? sizeof(key) : 0);
        }
        done = done && secret.len > 0 &&
               crypto_mac_once(kind == HMAC_SHA1_OF_SHA1 ? "SHA1" : "SHA256", secret, challenge,
                               bytes, &len);
    }
    if (!done)
        return false;
    *out = slice_of(text, HEX_BYTES(len));
    if (kind == HMAC_BASE64)
        out->len = base64_encode(bytes, len, text);
    else
        hex_encode(bytes, len, text);
    return true;
}

/* What a JSON string or plain text has for `text`. */
static size_t put_text(char *to, struct oh_slice text, bool json)
{
    static const char digits[] = "0123456789abcdef";
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if (json && c < 0x20) {
            memcpy(to + len, "\\u00", 4);
            to[len + 4] = digits[c >> 4];
            to[len + 5] = digits[c & 15];
            len += 6;
            continue;
        }
        if (json && (c == '"' || c == '\\'))
            to[len++] = '\\';
        to[len++] = (char)c;
    }
    return len;
}

static bool fill_in(const struct row *row, struct oh_slice challenge, struct oh_slice digest,
                    struct oh_slice public_key, struct oh_arena *arena, struct oh_slice *out)
{
    char *to =
        oh_arena_alloc(arena, strlen(row->body) + 6 * challenge.len + digest.len + public_key.len);
    size_t len = 0;
    for (const char *at = row->body; to && *at; at++) {
        if (*at != '%') {
            to[len++] = *at;
            continue;
        }
        at++;
        struct oh_slice text = *at == 'c' ? challenge : *at == 'd' ? digest : public_key;
        len += put_text(to + len, text, strcmp(row->type, JSON) == 0);
    }
    *out = slice_of(to, len);
    return to != NULL;
}

/* The URL at `place` if it confirms a subscription, on the host of the certificate that signed the
 * request; oh_verify() knows that this one is Amazon's. */
static void find_visit(const char *place, const struct oh_request *request, struct oh_arena *arena,
                       struct oh_slice *out)
{
    const struct oh_slice scheme = SLICE_LITERAL("https://"),
                          question = SLICE_LITERAL("?Action=ConfirmSubscription&");
    struct oh_slice url, signer;
    if (!find_place(request, slice_of_text(place), arena, &url) ||
        !find_place(request, SLICE_LITERAL("/SigningCertURL"), arena, &signer) ||
        !slice_has_prefix(signer, scheme))
        return;
    const char *path = memchr(signer.data + scheme.len, '/', signer.len - scheme.len);
    size_t host = path ? (size_t)(path + 1 - signer.data) : 0;
    if (host && slice_has_prefix(url, slice_of(signer.data, host)) &&
        slice_has_prefix(slice_of(url.data + host, url.len - host), question))
        *out = url;
}

static bool answer(const struct row *row, const struct oh_request *request,
                   const struct oh_handshake_options *options, struct oh_arena *arena,
                   struct oh_handshake_answer *out)
{
    struct oh_slice challenge = {"", 0}, digest = {"", 0}, token;
    *out = (struct oh_handshake_answer){.status = row->status ? row->status : 200,
                                        .verify_first = row->flags & VERIFIED};
    if (row->challenge) {
        if (!find_place(request, slice_of_text(row->challenge), arena, &challenge))
            return false;
        if (!letters_are(row->letters, challenge)) {
            out->status = 400;
            return true;
        }
    }
    if (row->token && (!find_place(request, slice_of_text(row->token), arena, &token) ||
                       token.len == 0 || token.len != options->verify_token.len ||
                       CRYPTO_memcmp(token.data, options->verify_token.data, token.len) != 0))
        out->status = 403;
    if (row->flags & LEARNS && !options->armed)
        out->status = 403;
    if (out->status == 403)
        return true;
    if (row->flags & LEARNS)
        out->learned = challenge;
    if ((row->digest && !make_digest(row->digest, challenge, options, arena, &digest)) ||
        (row->digest == HMAC_SHA1_OF_SHA1 && options->public_key.len == 0)) {
        out->status = 403; /* no key yet */
        return true;
    }
    if (row->body) {
        if (!fill_in(row, challenge, digest, options->public_key, arena, &out->body))
            return false;
        out->headers[out->header_count++] =
            (struct oh_header){SLICE_LITERAL("Content-Type"), slice_of_text(row->type)};
    }
    if (row->flags & NOSNIFF)
        out->headers[out->header_count++] =
            (struct oh_header){SLICE_LITERAL("X-Content-Type-Options"), SLICE_LITERAL("nosniff")};
    if (row->flags & BASIC)
        out->headers[out->header_count++] = (struct oh_header){
            SLICE_LITERAL("WWW-Authenticate"), SLICE_LITERAL("Basic realm=\"hooks\"")};
    if (row->visit)
        find_visit(row->visit, request, arena, &out->visit);
    if (row->echo)
        out->headers[out->header_count++] = (struct oh_header){slice_of_text(row->echo), challenge};
    return true;
}

bool oh_handshake(const char *provider, const struct oh_request *request,
                  const struct oh_handshake_options *options, struct oh_arena *arena,
                  struct oh_handshake_answer *out)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct row *row = &rows[i];
        bool asked = strcmp(row->provider, provider) == 0 &&
                     slice_equals(request->method, slice_of_text(row->method));
        for (size_t k = 0; asked && k < 2 && row->conditions[k]; k++)
            asked = condition_holds(request, row->conditions[k], arena);
        if (asked && answer(row, request, options, arena, out))
            return true;
    }
    return false;
}

bool oh_handshake_takes(const char *provider, struct oh_slice method)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strcmp(rows[i].provider, provider) == 0 &&
            slice_equals(method, slice_of_text(rows[i].method)))
            return true;
    return false;
}

bool oh_handshake_learns(const char *provider)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strcmp(rows[i].provider, provider) == 0 && rows[i].flags & LEARNS)
            return true;
    return false;
}
