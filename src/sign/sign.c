/* SPDX-License-Identifier: Apache-2.0 */
/* Signing as the provider would (oncehook/sign.h): the way of verify.c, backwards. */
#include "oncehook/sign.h"

#include "base/encode.h"
#include "base/slice.h"
#include "verify/crypto.h"

#include <stdio.h>
#include <stdlib.h>

struct oh_signer {
    const struct oh_recipe *recipe;
    struct crypto_key key;
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

/* The timestamp's text in the scheme's unit. */
static struct oh_slice timestamp_text(const struct oh_recipe *recipe, int64_t now_ms, char out[24])
{
    int64_t value = recipe->timestamp.unit == RECIPE_UNIT_MS ? now_ms : now_ms / 1000;
    int len = snprintf(out, 24, "%lld", (long long)value);
    return slice_of(out, (size_t)len);
}

/* The encoded signature to out[]; its length, 0 when OpenSSL refuses. */
static size_t sign_message(const struct oh_signer *signer, const struct message *message,
                           char out[HEX_BYTES(CRYPTO_SIGNATURE_BYTES_MAX)])
{
    uint8_t bytes[CRYPTO_SIGNATURE_BYTES_MAX];
    _Static_assert(sizeof(bytes) >= CRYPTO_MAC_BYTES_MAX, "room for a MAC too");
    size_t len;
    bool done = signer->key.mac ? crypto_mac(&signer->key, message, bytes, &len)
                                : crypto_sign(&signer->key, message, bytes, &len);
    if (!done)
        return 0;
    if (signer->recipe->signature.encoding == RECIPE_BASE64)
        return base64_encode(bytes, len, out);
    hex_encode(bytes, len, out);
    return HEX_BYTES(len);
}

/* Puts pieces one after the other into the arena. */
static bool join(struct oh_arena *arena, const struct oh_slice *pieces, size_t count,
                 struct oh_slice *out)
{
    size_t len = 0;
    for (size_t i = 0; i < count; i++)
        len += pieces[i].len;
    char *to = oh_arena_alloc(arena, len);
    if (!to)
        return false;
    *out = slice_of(to, len);
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].len > 0)
            memcpy(to, pieces[i].data, pieces[i].len);
        to += pieces[i].len;
    }
    return true;
}

static bool signature_value(const struct oh_recipe *recipe, struct oh_slice ts,
                            struct oh_slice signature, struct oh_arena *arena, struct oh_slice *out)
{
    const struct recipe_signature *form = &recipe->signature;
    if (form->parse == RECIPE_PARSE_PLAIN)
        return join(arena, (struct oh_slice[]){form->prefix, signature}, 2, out);
    struct oh_slice equals = SLICE_LITERAL("="), separator = slice_of(&form->separator, 1);
    struct oh_slice pieces[] = {
        recipe->timestamp.key, equals, ts, separator, form->key, equals, signature};
    bool with_ts = recipe->timestamp.in == RECIPE_TS_SIGFIELD;
    return join(arena, with_ts ? pieces : pieces + 4, with_ts ? 7 : 3, out);
}

enum oh_status oh_sign(const struct oh_signer *signer, const struct oh_request *request,
                       int64_t now_ms, struct oh_arena *arena,
                       struct oh_header headers[OH_SIGN_HEADERS_MAX], size_t *count,
                       struct oh_error *err)
{
    const struct oh_recipe *recipe = signer->recipe;
    char ts_text[24], encoded[HEX_BYTES(CRYPTO_SIGNATURE_BYTES_MAX)];
    struct oh_slice ts = timestamp_text(recipe, now_ms, ts_text);
    struct message message;
    message_build(recipe, ts, request->body, &message);
    size_t len = sign_message(signer, &message, encoded);
    if (len == 0)
        return oh_fail(err, OH_SYSTEM, "OpenSSL does not sign");
    *count = 0;
    if (recipe->timestamp.in == RECIPE_TS_HEADER) {
        headers[*count].name = recipe->timestamp.names.items[0];
        if (!join(arena, &ts, 1, &headers[(*count)++].value))
            return oh_fail(err, OH_NO_MEMORY, "out of memory");
    }
    headers[*count].name = recipe->signature.names.items[0];
    if (!signature_value(recipe, ts, slice_of(encoded, len), arena, &headers[(*count)++].value))
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    return OH_OK;
}
