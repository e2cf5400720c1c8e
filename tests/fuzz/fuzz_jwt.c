/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any token, and any claims in a token that is signed. Byte 0 chooses the recipe, byte 1
 * what the rest is; a line feed parts header, claims and body. Nothing but what was signed here may
 * be accepted, and no algorithm that the recipe does not pin. */
#include "fuzz_support.h"

#include "oncehook/sign.h"
#include "verify/jwt.h"

#include <stdio.h>
#include <openssl/err.h>

#define HEAD                                                                               \
    "provider: fuzz\ntitle: Fuzz\nconfidence: low\nproof: unconfirmed\nid_scope: source\n" \
    "ack_budget: unknown\nretries: {schedule: unknown, horizon: unknown}\nschemes:\n"      \
    "  - id: fuzz\n    algorithm: jwt\n"
#define TAIL "events: {id: /id}\n"

static const char *const recipes[] = {
    HEAD "    key: utf8\n    signature: {in: header, name: authorization, prefix: \"Bearer \"}\n"
         "    jwt: {algorithms: [HS256], body_claim: hash, body_encoding: hex, body_rule: optional,"
         " require: [jti]}\n"
         "    timestamp: {in: jwt, name: iat, unit: s, past: 300s, future: 300s}\n" TAIL,
    HEAD "    key: utf8\n    signature: {in: header, name: authorization}\n"
         "    jwt: {algorithms: [HS256, HS384, HS512], issuer: them, body_claim: hash,"
         " body_encoding: base64, body_rule: iff, url_claim: url}\n" TAIL,
    HEAD "    key: utf8\n    signature: {in: body}\n    jwt: {algorithms: [HS512]}\n" TAIL,
    HEAD "    key: jwk-by-kid\n    signature: {in: header, name: authorization}\n"
         "    jwt: {algorithms: [ES256], body_claim: hash, body_encoding: hex}\n"
         "    timestamp: {in: jwt, name: iat, unit: s, past: 300s, future: none}\n" TAIL,
    HEAD "    key: pem\n    signature: {in: header, name: authorization}\n"
         "    jwt: {algorithms: [RS256], body_claim: hash, body_encoding: base64url}\n" TAIL,
};
enum { RECIPES = sizeof(recipes) / sizeof(recipes[0]) };

static struct oh_catalog *catalogs[RECIPES];
static const struct oh_recipe *loaded[RECIPES];
static struct oh_keyring *rings[RECIPES];
static struct crypto_key keys[RECIPES];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    for (size_t i = 0; i < RECIPES; i++) {
        struct oh_made_key made;
        struct oh_error err = {.text = ""};
        demand(!oh_catalog_new(&catalogs[i], &err), err.text);
        demand(!oh_catalog_add(catalogs[i], "fuzz.yaml", recipes[i], strlen(recipes[i]), &err),
               err.text);
        loaded[i] = oh_catalog_find(catalogs[i], "fuzz", NULL);
        demand(!oh_key_make(loaded[i], &made, &err), err.text);
        struct oh_slice half = slice_of_text(made.private_half[0] ? made.private_half : made.shown);
        rings[i] = oh_keyring_new(loaded[i]);
        demand(rings[i] && !oh_keyring_add(rings[i], slice_of_text(made.shown), &err), err.text);
        demand(!crypto_key_parse_private(loaded[i], half, &keys[i], &err), err.text);
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    size_t which = data[0] % RECIPES;
    const struct oh_recipe *recipe = loaded[which];
    bool is_signed = data[1] & 1;
    struct oh_slice token = slice_of((const char *)data + 2, size - 2), body = slice_of("", 0);
    const char *feed = token.len > 0 ? memchr(token.data, '\n', token.len) : NULL;
    if (feed) {
        body = slice_of(feed + 1, token.len - (size_t)(feed + 1 - token.data));
        token.len = (size_t)(feed - token.data);
    }
    struct oh_arena *arena = oh_arena_new(4096, (size_t)64 << 20);
    demand(arena != NULL, "memory");
    if (is_signed)
        demand(jwt_make(recipe, &keys[which], token, arena, &token), "a token that is made");
    char *value = oh_arena_alloc(arena, token.len + 7);
    demand(value != NULL, "memory");
    memcpy(value, "Bearer ", 7);
    if (token.len > 0)
        memcpy(value + 7, token.data, token.len);
    const struct oh_header header = {SLICE_LITERAL("authorization"),
                                     which == 0 ? slice_of(value, token.len + 7)
                                                : slice_of(value + 7, token.len)};
    struct oh_request request = {.method = SLICE_LITERAL("POST"),
                                 .url = SLICE_LITERAL("https://a.example/in/x?y=1"),
                                 .headers = &header,
                                 .header_count = 1,
                                 .body = which == 2 ? token : body};
    struct oh_verify_result result;
    enum oh_verdict verdict =
        oh_verify(recipe, rings[which], &request, INT64_C(1766000000000), -1, arena, &result);
    demand(result.because != NULL, "a verdict without words");
    demand(is_signed || (verdict != OH_ACCEPTED && verdict != OH_STALE), "a forgery");
    demand(ERR_peek_error() == 0, "OpenSSL's queue of errors is not empty");
    oh_arena_free(arena);
    return 0;
}
