/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any recipe file. What loads has to be usable: it is described, signs, verifies and
 * reads events. */
#include "fuzz_support.h"

#include "oncehook/sign.h"
#include "recipe/load.h"

/* libfyaml 0.7 loses a buffer of its own over a text with a dozen quotes in it: some KiB, once a
 * file. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libfyaml";
}

static const char body[] =
    "{\"id\":\"1\",\"type\":\"a\",\"events\":[{\"id\":2}],\"time\":1766000000}";

/* Signs as the recipe says, where no key pair has to be made for it, and reads events. */
static void sign_and_read(const struct oh_recipe *recipe, struct oh_request *request)
{
    struct oh_arena *arena = oh_arena_new(4096, (size_t)64 << 20);
    struct oh_keyring *ring = oh_keyring_new(recipe);
    struct oh_signer *signer = NULL;
    struct oh_mapping *mapping = NULL;
    struct oh_signed made;
    struct oh_made_key key;
    struct oh_extraction out;
    struct oh_error err;
    demand(arena && ring, "memory");
    if (recipe->key_form < RECIPE_KEY_SPKI_B64) {
        demand(!oh_key_make(recipe, &key, &err), "a key that is made");
        demand(!oh_keyring_add(ring, slice_of_text(key.shown), &err), "a key that is taken");
        demand(!oh_signer_new(recipe, slice_of_text(key.shown), &signer, &err), "a signer");
    }
    if (signer && !oh_sign(signer, request, INT64_C(1766000000000), arena, &made, &err)) {
        struct oh_request sent = {.method = request->method,
                                  .url = made.url,
                                  .headers = made.headers,
                                  .header_count = made.count,
                                  .body = made.body};
        struct oh_verify_result result;
        oh_verify(recipe, ring, &sent, INT64_C(1766000000000), -1, arena, &result);
        demand(result.because != NULL, "a verdict without words");
    }
    demand(!oh_mapping_new(recipe, NULL, &mapping, &err), "a mapping");
    if (!oh_extract(recipe, mapping, request, INT64_C(1766000000000000), 64, arena, &out, &err))
        for (uint32_t i = 0; i < out.count; i++)
            check_event(&out.events[i], INT64_C(1766000000000000));
    oh_mapping_free(mapping);
    oh_signer_free(signer);
    oh_keyring_free(ring);
    oh_arena_free(arena);
}

static void use_recipe(const struct oh_recipe *recipe)
{
    struct oh_recipe_info info;
    const struct oh_header header = {SLICE_LITERAL("x-signature"), SLICE_LITERAL("t=1,v1=00")};
    struct oh_request request = {.method = SLICE_LITERAL("POST"),
                                 .url = SLICE_LITERAL("https://a.example/in/x"),
                                 .headers = &header,
                                 .header_count = 1,
                                 .body = SLICE_LITERAL(body)};
    struct oh_keyring *ring = oh_keyring_new(recipe);
    oh_recipe_describe(recipe, &info);
    demand(info.provider && info.scheme && info.title && info.algorithm && info.retries, "info");
    demand(info.serve_tolerance_s < 0 || info.serve_tolerance_s >= info.tolerance_past_s, "window");
    demand(!ring || oh_verify(recipe, ring, &request, 0, -1, NULL, NULL) != OH_ACCEPTED, "verdict");
    oh_keyring_free(ring);
    sign_and_read(recipe, &request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct yaml yaml;
    struct oh_recipe *made[RECIPE_SCHEME_MAX];
    size_t count = 0;
    struct oh_error err = {.text = ""};
    /* What oh_catalog_add() does, without a catalog: the built-in recipes take longer. */
    enum oh_status status = yaml_open(&yaml, (const char *)data, size, &err);
    if (!status)
        status = load_recipes(yaml.root, made, &count, &err);
    demand(!status || (err.text[0] != 0 && err.line >= 0), "an error without words");
    for (size_t i = 0; i < count; i++) {
        if (!status)
            use_recipe(made[i]);
        recipe_free(made[i]);
    }
    yaml_close(&yaml);
    return 0;
}
