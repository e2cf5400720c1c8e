/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any verified body. The first byte chooses the recipe (these, then the catalog's), the
 * second the headers and the arena's bound, the rest is the body. */
#include "fuzz_support.h"

#define HEAD                                                                               \
    "provider: fuzz\ntitle: Fuzz\nconfidence: low\nproof: unconfirmed\nid_scope: source\n" \
    "ack_budget: unknown\nretries: {schedule: unknown, horizon: unknown}\nschemes:\n"      \
    "  - id: fuzz\n    algorithm: hmac-sha256\n    key: utf8\n"                            \
    "    signature: {in: header, name: x-signature, parse: plain, encoding: hex}\n"        \
    "    message: [body]\n"

static const char *const recipes[] = {
    HEAD "events: {}\n",
    HEAD "events: {id: /id, composite: [/a, /b], composite_optional: [/c/0], type: [[/t, /u], /t],"
         " pings: ping, occurred_at: {from: /at, unit: auto},"
         " map: {enrollment_id: /e, instance_id: /i}}\n",
    HEAD "events: {split: /events, id: [/id, 'body:/id', 'header:x-id'], composite: [/a, /a/b],"
         " occurred_at: [{from: /s, unit: s}, {from: /iso, unit: iso}]}\n",
    HEAD
    "events: {split: /e/*/c, id: /id, type: 'header:x-id', occurred_at: {from: /ms, unit: ms}}\n",
    HEAD "events: {form_json_field: payload, id: /id, type: /t}\n",
    HEAD "events: {split: '/*/*', composite: ['body:/0/0/id', /0, /1/id]}\n",
};

enum {
    RECIPES = sizeof(recipes) / sizeof(recipes[0]),
    ALL_MAX = 250, /* what one byte chooses among */
    EVENTS_MAX = 64
};

static struct oh_catalog *catalogs[RECIPES];
static const struct oh_recipe *loaded[ALL_MAX];
static struct oh_mapping *mappings[ALL_MAX];
static size_t count;

static void add(const struct oh_recipe *recipe, const struct oh_map *map)
{
    struct oh_error err = {.text = ""};
    demand(count < ALL_MAX, "more recipes than one byte can choose");
    loaded[count] = recipe;
    demand(!oh_mapping_new(recipe, map, &mappings[count++], &err), err.text);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const struct oh_map referring = {
        .enrollment_id = "/e", .reference = "/a\n/b/c", .reference_scope = "source:fuzz"};
    (void)argc, (void)argv;
    for (size_t i = 0; i < RECIPES; i++) {
        struct oh_error err = {.line = 0};
        demand(!oh_catalog_new(&catalogs[i], &err), err.text);
        demand(!oh_catalog_add(catalogs[i], "fuzz.yaml", recipes[i], strlen(recipes[i]), &err),
               err.text);
        add(oh_catalog_find(catalogs[i], "fuzz", NULL), i == 2 ? &referring : NULL);
    }
    for (size_t i = 0; i < oh_catalog_count(input_catalog()); i++)
        add(oh_catalog_at(input_catalog(), i), NULL);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    size_t which = data[0] % count;
    const int64_t now_us = INT64_C(1700000000) * 1000000;
    const struct oh_header headers[] = {
        {SLICE_LITERAL("content-type"), SLICE_LITERAL("application/x-www-form-urlencoded")},
        {SLICE_LITERAL("x-id"), slice_of((const char *)data, size > 40 ? 40 : size)},
    };
    struct oh_request request = {
        .headers = headers,
        .header_count = data[1] % 3,
        .body = slice_of((const char *)data + 2, size - 2),
    };
    /* The bound runs from far too little to what the header asks for and beyond. */
    size_t bound = data[1] < 128 ? (size_t)4 << 20 : (size_t)(data[1] - 127) * 256;
    struct oh_arena *arena = oh_arena_new(64, bound);
    struct oh_extraction out;
    struct oh_error err;
    enum oh_status status =
        oh_extract(loaded[which], mappings[which], &request, now_us, EVENTS_MAX, arena, &out, &err);
    demand(status == OH_OK || status == OH_UNREADABLE || status == OH_TOO_MANY ||
               status == OH_NO_MEMORY,
           "status");
    if (status == OH_OK) {
        demand(out.count <= EVENTS_MAX, "count");
        for (uint32_t i = 0; i < out.count; i++)
            check_event(&out.events[i], now_us);
    }
    oh_arena_free(arena);
    return 0;
}
