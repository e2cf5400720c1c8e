/* SPDX-License-Identifier: Apache-2.0 */
/* event_support.h: one arena and one recipe at a time. */
#include "event_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Everything before `events:` of a recipe; none of it matters here. */
#define RECIPE_HEAD                                                                 \
    "provider: test\n"                                                              \
    "title: Test\n"                                                                 \
    "confidence: high\n"                                                            \
    "proof: unconfirmed\n"                                                          \
    "id_scope: source\n"                                                            \
    "ack_budget: unknown\n"                                                         \
    "retries: {schedule: unknown, horizon: unknown}\n"                              \
    "schemes:\n"                                                                    \
    "  - id: test\n"                                                                \
    "    algorithm: hmac-sha256\n"                                                  \
    "    key: utf8\n"                                                               \
    "    signature: {in: header, name: x-signature, parse: plain, encoding: hex}\n" \
    "    message: [body]\n"

struct oh_arena *arena;
const struct oh_recipe *recipe;
struct oh_mapping *mapping;
struct oh_error failure;
static struct oh_catalog *catalog;

int event_setup(void **state)
{
    (void)state;
    arena = oh_arena_new(4096, (size_t)64 << 20);
    return arena ? 0 : -1;
}

static void recipe_free(void)
{
    oh_mapping_free(mapping);
    oh_catalog_free(catalog);
    mapping = NULL;
    catalog = NULL;
    recipe = NULL;
}

int event_teardown(void **state)
{
    (void)state;
    recipe_free();
    oh_arena_free(arena);
    return 0;
}

void seed_random(void)
{
    const char *given = getenv("ONCEHOOK_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
    printf("ONCEHOOK_SEED=%u\n", seed);
    srandom(seed);
}

size_t random_below(size_t bound)
{
    return (size_t)random() % bound;
}

char *exact_copy(const char *data, size_t len)
{
    char *copy = malloc(len > 0 ? len : 1);
    assert_non_null(copy);
    if (len > 0)
        memcpy(copy, data, len);
    return copy;
}

const char *text_of(struct oh_slice s)
{
    return format("%.*s", (int)s.len, s.data ? s.data : "");
}

char *format(const char *form, ...)
{
    va_list args;
    va_start(args, form);
    int len = vsnprintf(NULL, 0, form, args);
    va_end(args);
    char *text = len < 0 ? NULL : oh_arena_alloc(arena, (size_t)len + 1);
    assert_non_null(text);
    va_start(args, form);
    vsnprintf(text, (size_t)len + 1, form, args);
    va_end(args);
    return text;
}

static struct pointer pointer_of(const char *text)
{
    struct pointer pointer;
    struct oh_error err;
    assert_int_equal(pointer_parse(slice_of_text(text), POINTER_EACH, arena, &pointer, &err),
                     OH_OK);
    return pointer;
}

struct scan_plan plan_of(const char *split, const char *const wants[])
{
    struct scan_plan plan = {.has_split = split != NULL};
    if (split)
        plan.split = pointer_of(split);
    for (size_t i = 0; wants && wants[i]; i++) {
        bool in_body = strncmp(wants[i], "body:", 5) == 0;
        plan.wants[plan.want_count++] =
            (struct scan_want){pointer_of(wants[i] + (in_body ? 5 : 0)), in_body};
        plan.event_want_count += !in_body;
    }
    return plan;
}

static void use(const char *provider)
{
    struct oh_error err;
    recipe = oh_catalog_find(catalog, provider, NULL);
    assert_non_null(recipe);
    if (oh_mapping_new(recipe, NULL, &mapping, &err) != OH_OK)
        fail_msg("%s: %s", provider, err.text);
}

void use_recipe(const char *events)
{
    struct oh_error err = {.line = 0};
    const char *text = format("%sevents: %s\n", RECIPE_HEAD, events);
    recipe_free();
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    if (oh_catalog_add(catalog, "test.yaml", text, strlen(text), &err) != OH_OK)
        fail_msg("%s, line %d: %s", events, err.line, err.text);
    use("test");
}

void use_builtin(const char *provider)
{
    struct oh_error err;
    recipe_free();
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    use(provider);
}

size_t parse_headers(const char *lines, struct oh_header *headers, size_t max)
{
    size_t count = 0;
    for (; *lines && count < max; count++) {
        const char *colon = strstr(lines, ": "), *end = strchr(lines, '\n');
        assert_true(colon && end && colon < end);
        headers[count] = (struct oh_header){slice_of(lines, (size_t)(colon - lines)),
                                            slice_of(colon + 2, (size_t)(end - colon - 2))};
        lines = end + 1;
    }
    return count;
}

enum oh_status extract_bytes(const char *header_lines, struct oh_slice body,
                             struct oh_extraction *out)
{
    struct oh_header headers[8];
    struct oh_request request = {
        .method = SLICE_LITERAL("POST"),
        .url = SLICE_LITERAL("https://hooks.example.com/in/test"),
        .headers = headers,
        .header_count = parse_headers(header_lines, headers, LENGTH(headers)),
        .body = body,
    };
    failure.text[0] = '\0';
    return oh_extract(recipe, mapping, &request, NOW_US, EVENTS_MAX, arena, out, &failure);
}

struct oh_extraction extract(const char *header_lines, const char *body)
{
    struct oh_extraction out;
    if (extract_bytes(header_lines, slice_of_text(body), &out) != OH_OK)
        fail_msg("%s: %s", body, failure.text);
    return out;
}

struct oh_event extract_one(const char *header_lines, const char *body)
{
    struct oh_extraction out = extract(header_lines, body);
    assert_int_equal(out.count, 1);
    return out.events[0];
}
