/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any verified body. The first byte chooses the recipe, the second one header and the
 * arena's bound, the rest is the body. Run: build/fuzz/tests/fuzz/fuzz_extract CORPUS_DIRECTORY */
#include "base/slice.h"
#include "oncehook/event.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

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

enum { RECIPES = sizeof(recipes) / sizeof(recipes[0]), EVENTS_MAX = 64 };

static struct oh_catalog *catalogs[RECIPES];
static const struct oh_recipe *loaded[RECIPES];
static struct oh_mapping *mappings[RECIPES];

static void demand(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    for (size_t i = 0; i < RECIPES; i++) {
        struct oh_error err = {.line = 0};
        enum oh_status status = oh_catalog_new(&catalogs[i], &err);
        if (!status)
            status = oh_catalog_add(catalogs[i], "fuzz.yaml", recipes[i], strlen(recipes[i]), &err);
        demand(!status, err.text);
        loaded[i] = oh_catalog_find(catalogs[i], "fuzz", NULL);
        demand(!oh_mapping_new(loaded[i], NULL, &mappings[i], &err), err.text);
    }
    return 0;
}

/* What every decided event promises. */
static void check_event(const struct oh_event *e, int64_t now_us)
{
    demand(e->key.data && e->key.len > 0 && e->key.len <= OH_KEY_BYTES_MAX, "key length");
    demand(!memchr(e->key.data, 0, e->key.len), "NUL in key");
    demand(e->provider_type.len <= OH_EVENT_TYPE_MAX, "type length");
    demand(e->type < OH_EVENT_TYPE_COUNT, "type");
    demand(e->occurred_at_us >= INT64_C(946684800000000) &&
               e->occurred_at_us <= now_us + INT64_C(86400000000),
           "time");
    demand(e->raw.data && e->raw.len > 0, "raw");
    demand(!e->payload.data || slice_equals(e->payload, e->raw), "payload");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    size_t which = data[0] % RECIPES;
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
