/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any recipe file. What loads has to be usable: it is described and asked to verify.
 * Run: build/fuzz/tests/fuzz/fuzz_recipe CORPUS_DIRECTORY src/catalog */
#include "base/slice.h"
#include "oncehook/verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "broken promise: %s\n", what);
        abort();
    }
}

static void use_recipe(const struct oh_recipe *recipe)
{
    struct oh_recipe_info info;
    const struct oh_header header = {SLICE_LITERAL("x-signature"), SLICE_LITERAL("t=1,v1=00")};
    struct oh_request request = {.headers = &header, .header_count = 1};
    struct oh_keyring *ring = oh_keyring_new(recipe);
    oh_recipe_describe(recipe, &info);
    demand(info.provider && info.scheme && info.title && info.algorithm && info.retries, "info");
    demand(info.serve_tolerance_s < 0 || info.serve_tolerance_s >= info.tolerance_past_s, "window");
    demand(!ring || oh_verify(recipe, ring, &request, 0, -1, NULL, NULL) != OH_ACCEPTED, "verdict");
    oh_keyring_free(ring);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct oh_catalog *catalog;
    struct oh_error err = {.text = ""};
    if (oh_catalog_new(&catalog, &err))
        abort();
    if (oh_catalog_add(catalog, NULL, (const char *)data, size, &err))
        demand(err.text[0] != 0 && err.line >= 0, "an error without words");
    for (size_t i = 0; i < oh_catalog_count(catalog); i++)
        use_recipe(oh_catalog_at(catalog, i));
    oh_catalog_free(catalog);
    return 0;
}
