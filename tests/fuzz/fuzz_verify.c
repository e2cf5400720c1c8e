/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any request to any recipe of the catalog: headers, signatures, times, URLs, secrets,
 * public keys and certificates. What is explained is what was decided; nobody without the key is
 * let in; what is accepted is read as events. Input: fuzz_support.h. */
#include "fuzz_support.h"

#include "oncehook/sign.h"

#include <openssl/err.h>

enum { RECIPES_MAX = 256, EVENTS_MAX = 64 };

/* The key of an input that brings none: one that no input can know. */
static struct oh_slice secret_key(const struct oh_recipe *recipe)
{
    static const struct oh_recipe *recipes[RECIPES_MAX];
    static struct oh_made_key keys[RECIPES_MAX];
    size_t i = 0;
    struct oh_error err;
    while (i < RECIPES_MAX && recipes[i] && recipes[i] != recipe)
        i++;
    demand(i < RECIPES_MAX, "more recipes than this target has room for");
    if (!recipes[i])
        demand(oh_key_make(recipe, &keys[i], &err) == OH_OK, "a key that is made");
    recipes[i] = recipe;
    return slice_of_text(keys[i].shown);
}

static void add_keys(const struct input *in, struct oh_keyring *ring)
{
    struct oh_error err = {.text = ""};
    for (size_t i = 0; i < in->key_count; i++)
        if (oh_keyring_add(ring, in->keys[i], &err))
            demand(err.text[0] != 0, "a refused key without words");
    if (in->key_count == 0)
        demand(oh_keyring_add(ring, secret_key(in->recipe), &err) == OH_OK, err.text);
    for (size_t i = 0; i < in->certificate_count; i++)
        if (oh_keyring_add_certificate(ring, in->urls[i], in->certificates[i], &err))
            demand(err.text[0] != 0, "a refused certificate without words");
}

static void read_events(const struct input *in, struct oh_arena *arena)
{
    struct oh_mapping *mapping;
    struct oh_extraction out;
    struct oh_error err;
    int64_t now_us = in->now_s * 1000000;
    demand(oh_mapping_new(in->recipe, NULL, &mapping, &err) == OH_OK, err.text);
    if (oh_extract(in->recipe, mapping, &in->request, now_us, EVENTS_MAX, arena, &out, &err) ==
        OH_OK)
        for (uint32_t i = 0; i < out.count; i++)
            check_event(&out.events[i], now_us);
    oh_mapping_free(mapping);
}

static void verify(const struct input *in, const struct oh_keyring *ring, struct oh_arena *arena)
{
    struct oh_verify_result result;
    struct oh_explanation why;
    int64_t now_ms = in->now_s * 1000;
    enum oh_verdict verdict = oh_verify(in->recipe, ring, &in->request, now_ms, -1, arena, &result);
    bool proved = verdict == OH_ACCEPTED || verdict == OH_STALE;
    demand(result.because != NULL, "a verdict without words");
    demand(!proved ||
               (result.secret_index >= 0 && (size_t)result.secret_index < oh_keyring_count(ring)),
           "a secret that is not there");
    demand(!proved || in->key_count > 0, "a forgery");
    demand(verdict == oh_explain(in->recipe, ring, &in->request, now_ms, -1, arena, &why),
           "what is explained is not what was decided");
    demand(why.message_count <= OH_SPELLINGS_MAX, "spellings");
    if (verdict == OH_ACCEPTED)
        read_events(in, arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in;
    struct oh_arena *arena = oh_arena_new(4096, (size_t)64 << 20);
    demand(arena && input_read(data, size, arena, &in), "memory");
    struct oh_keyring *ring = oh_keyring_new(in.recipe);
    demand(ring != NULL, "memory");
    add_keys(&in, ring);
    verify(&in, ring, arena);
    demand(ERR_peek_error() == 0, "OpenSSL's queue of errors is not empty");
    oh_keyring_free(ring);
    oh_arena_free(arena);
    return 0;
}
