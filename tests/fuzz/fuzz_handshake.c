/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any request as a handshake of any provider. An answer fits into HTTP, its JSON is
 * JSON, and no text is signed that could be a delivery with events. Input: fuzz_support.h. */
#include "fuzz_support.h"

#include "body/scan.h"
#include "body/text.h"
#include "oncehook/handshake.h"

#include <stdio.h>
#include <openssl/err.h>

enum { EVENTS_MAX = 8 };

static bool fits_a_line(struct oh_slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.data[i] < ' ' && text.data[i] != '\t')
            return false;
    return true;
}

/* A request that a handshake's answer may have signed is no delivery with events. */
static void demand_no_events(const struct input *in, const struct oh_request *request,
                             const struct oh_keyring *ring, struct oh_arena *arena)
{
    const int64_t now_ms = INT64_C(1766000000000);
    struct oh_mapping *mapping;
    struct oh_extraction out;
    struct oh_error err;
    if (oh_verify(in->recipe, ring, request, now_ms, -1, arena, NULL) != OH_ACCEPTED)
        return;
    demand(oh_mapping_new(in->recipe, NULL, &mapping, &err) == OH_OK, err.text);
    enum oh_status status =
        oh_extract(in->recipe, mapping, request, now_ms, EVENTS_MAX, arena, &out, &err);
    demand(status != OH_OK || out.count == 0, "a handshake that signs events");
    oh_mapping_free(mapping);
}

/* What the caller gave as a body, with what was answered as its signature, is no event. */
static void demand_no_oracle(const struct input *in, struct oh_slice challenge,
                             struct oh_slice digest, const struct oh_keyring *ring,
                             struct oh_arena *arena)
{
    static const char *const names[] = {"x-hub-signature-256", "x-twitter-webhooks-signature",
                                        "x-zm-signature", "x-hook-signature"};
    static const char *const prefixes[] = {"", "sha256=", "v0=", "sha1="};
    struct oh_header headers[6] = {
        {SLICE_LITERAL("x-zm-request-timestamp"), SLICE_LITERAL("1766000000")},
        [5] = {SLICE_LITERAL("content-type"), SLICE_LITERAL("application/x-www-form-urlencoded")}};
    struct oh_request request = {.method = SLICE_LITERAL("POST"),
                                 .url = in->request.url,
                                 .headers = headers,
                                 .header_count = 5,
                                 .body = challenge};
    for (size_t p = 0; p < 5; p++) {
        size_t max = digest.len + challenge.len + 64;
        char *value = oh_arena_alloc(arena, max);
        demand(value != NULL, "memory");
        if (p == 4) { /* Braintree: both stand in a form */
            int n = snprintf(value, max, "bt_signature=k|%.*s&bt_payload=%.*s", (int)digest.len,
                             digest.data, (int)challenge.len, challenge.data);
            request.body = slice_of(value, (size_t)n);
            request.header_count = 6;
            demand_no_events(in, &request, ring, arena);
            continue;
        }
        int n = snprintf(value, max, "%s%.*s", prefixes[p], (int)digest.len, digest.data);
        for (size_t i = 0; i < 4; i++)
            headers[i + 1] =
                (struct oh_header){slice_of_text(names[i]), slice_of(value, (size_t)n)};
        demand_no_events(in, &request, ring, arena);
    }
}

/* The longest run of letters of hex or base64 in an answer: its digest. */
static struct oh_slice find_digest(struct oh_slice body)
{
    struct oh_slice found = slice_of("", 0);
    for (size_t at = 0, from = 0; at <= body.len; at++) {
        char c = at < body.len ? body.data[at] : '"';
        if (c != '"' && c != '|' && c != '=' ? true : c == '=' && at + 1 == body.len)
            continue;
        size_t end = at + (c == '=' && at + 1 < body.len && body.data[at + 1] == '"');
        if (end - from >= 40 && end - from > found.len)
            found = slice_of(body.data + from, end - from);
        from = at + 1;
    }
    return found;
}

static void check_answer(const struct input *in, const struct oh_handshake_answer *answer,
                         struct oh_arena *arena)
{
    static const struct scan_plan nothing;
    struct scan_result found;
    int s = answer->status;
    demand(s == 200 || s == 204 || s == 400 || s == 401 || s == 403, "status");
    demand(answer->header_count <= 2, "headers");
    demand(!answer->learned.data || (in->armed && answer->learned.len > 0), "learned unarmed");
    for (size_t i = 0; i < answer->header_count; i++)
        demand(fits_a_line(answer->headers[i].value), "a header of more than a line");
    if (s != 200 || answer->body.len == 0)
        return;
    demand(answer->header_count > 0, "a body without a type");
    if (slice_equals(answer->headers[0].value, SLICE_LITERAL("application/json")) &&
        text_is_utf8(answer->body))
        demand(scan_body(&nothing, answer->body, 1, arena, &found, NULL) == OH_OK, "no JSON");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in;
    struct oh_handshake_answer answer;
    char provider[64];
    struct oh_arena *arena = oh_arena_new(4096, (size_t)64 << 20);
    demand(arena && input_read(data, size, arena, &in), "memory");
    snprintf(provider, sizeof(provider), "%.*s", (int)in.provider.len, in.provider.data);
    struct oh_handshake_options options = {.secret = in.keys[0],
                                           .verify_token = in.token,
                                           .public_key = SLICE_LITERAL("integration_public_key"),
                                           .endpoint = SLICE_LITERAL("https://example.com/in/x"),
                                           .armed = in.armed};
    bool asked = oh_handshake(provider, &in.request, &options, arena, &answer);
    demand(!asked || oh_handshake_takes(provider, in.request.method), "a method nobody asks with");
    if (asked)
        check_answer(&in, &answer, arena);
    struct oh_keyring *ring = oh_keyring_new(in.recipe);
    demand(ring != NULL, "memory");
    if (asked && answer.status == 200 && !answer.verify_first && in.key_count > 0 &&
        oh_keyring_add(ring, in.keys[0], NULL) == OH_OK) {
        struct oh_slice query = in.request.url, digest = find_digest(answer.body);
        const char *equals = query.len ? memchr(query.data, '=', query.len) : NULL;
        if (equals && digest.len > 0)
            demand_no_oracle(&in,
                             slice_of(equals + 1, query.len - (size_t)(equals + 1 - query.data)),
                             digest, ring, arena);
        if (digest.len > 0)
            demand_no_oracle(&in, in.request.body, digest, ring, arena);
    }
    demand(ERR_peek_error() == 0, "OpenSSL's queue of errors is not empty");
    oh_keyring_free(ring);
    oh_arena_free(arena);
    return 0;
}
