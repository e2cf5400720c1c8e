/* SPDX-License-Identifier: Apache-2.0 */
/* The catalog: built-in recipes, then a user's own; and the recipe that `provider: hmac` makes of a
 * source's options. Public API: oncehook/recipe.h. */
#include "recipe/load.h"

#include "base/embedded.h"
#include "base/slice.h"

#include <stdio.h>
#include <stdlib.h>

struct recipe_list {
    struct oh_recipe **items;
    size_t count;
};

struct oh_catalog {
    struct recipe_list found; /* in the order of their names; what find and at give */
    struct recipe_list
        hidden; /* replaced ones and those of `provider: hmac`: kept for their users */
};

static enum oh_status list_insert(struct recipe_list *list, size_t at, struct oh_recipe *recipe,
                                  struct oh_error *err)
{
    struct oh_recipe **items = realloc(list->items, (list->count + 1) * sizeof(*items));
    if (!items)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    list->items = items;
    memmove(items + at + 1, items + at, (list->count - at) * sizeof(*items));
    items[at] = recipe;
    list->count++;
    return OH_OK;
}

static void list_free(struct recipe_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        recipe_free(list->items[i]);
    free(list->items);
}

/* Puts `recipe` in its place; the catalog owns it, also when this fails. */
static enum oh_status catalog_put(struct oh_catalog *catalog, struct oh_recipe *recipe,
                                  struct oh_error *err)
{
    enum oh_status status;
    size_t at = 0;
    for (; at < catalog->found.count; at++) {
        struct oh_recipe *other = catalog->found.items[at];
        int order = strcmp(other->info.provider, recipe->info.provider);
        if (order > 0)
            break;
        if (order == 0 && strcmp(other->info.scheme, recipe->info.scheme) == 0) {
            status = list_insert(&catalog->hidden, catalog->hidden.count, other, err);
            if (status)
                recipe_free(recipe);
            else
                catalog->found.items[at] = recipe;
            return status;
        }
    }
    status = list_insert(&catalog->found, at, recipe, err);
    if (status)
        recipe_free(recipe);
    return status;
}

/* Puts "NAME:LINE: " before the text of an error. */
static void name_error(struct oh_error *err, const char *name)
{
    if (!err || !name)
        return;
    struct oh_error plain = *err;
    if (plain.line > 0)
        oh_fail(err, OH_INVALID, "%s:%d: %s", name, plain.line, plain.text);
    else
        oh_fail(err, OH_INVALID, "%s: %s", name, plain.text);
}

enum oh_status oh_catalog_add(struct oh_catalog *catalog, const char *name, const char *text,
                              size_t len, struct oh_error *err)
{
    struct oh_recipe *made[RECIPE_SCHEME_MAX] = {NULL};
    struct yaml yaml;
    size_t count = 0, loaded = 0;
    if (err)
        err->line = 0;
    enum oh_status status = yaml_open(&yaml, text, len, err);
    if (!status)
        status = load_scheme_count(yaml.root, &count, err);
    for (; !status && loaded < count; loaded++)
        status = load_recipe(yaml.root, loaded, &made[loaded], err);
    yaml_close(&yaml);
    for (size_t i = 0; i < count; i++) { /* all of a file or nothing */
        if (!made[i])
            continue;
        if (status)
            recipe_free(made[i]);
        else
            status = catalog_put(catalog, made[i], err);
    }
    if (status)
        name_error(err, name);
    return status;
}

enum oh_status oh_catalog_new(struct oh_catalog **out, struct oh_error *err)
{
    struct oh_catalog *catalog = calloc(1, sizeof(*catalog));
    if (!catalog)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    for (const struct embedded_file *file = embedded_catalog; file->name; file++) {
        enum oh_status status = oh_catalog_add(catalog, file->name, file->text, file->len, err);
        if (status) {
            oh_catalog_free(catalog);
            return status;
        }
    }
    *out = catalog;
    return OH_OK;
}

void oh_catalog_free(struct oh_catalog *catalog)
{
    if (!catalog)
        return;
    list_free(&catalog->found);
    list_free(&catalog->hidden);
    free(catalog);
}

const struct oh_recipe *oh_catalog_find(const struct oh_catalog *catalog, const char *provider,
                                        const char *scheme)
{
    for (size_t i = 0; i < catalog->found.count; i++) {
        const struct oh_recipe *recipe = catalog->found.items[i];
        if (strcmp(recipe->info.provider, provider) == 0 &&
            (!scheme || strcmp(recipe->info.scheme, scheme) == 0))
            return recipe;
    }
    return NULL;
}

size_t oh_catalog_count(const struct oh_catalog *catalog)
{
    return catalog->found.count;
}

const struct oh_recipe *oh_catalog_at(const struct oh_catalog *catalog, size_t index)
{
    return catalog->found.items[index];
}

void oh_recipe_describe(const struct oh_recipe *recipe, struct oh_recipe_info *info)
{
    *info = recipe->info;
}

/* ---- provider: hmac ---------------------------------------------------------------------------
 */

static enum oh_status hmac_algorithm(struct oh_recipe *recipe, const char *word,
                                     struct oh_error *err)
{
    static const struct {
        const char *word, *name;
        enum recipe_algorithm algorithm;
    } rows[] = {{"sha256", "hmac-sha256", RECIPE_HMAC_SHA256},
                {"sha1", "hmac-sha1", RECIPE_HMAC_SHA1},
                {"sha512", "hmac-sha512", RECIPE_HMAC_SHA512}};
    for (size_t i = 0; i < LOAD_COUNT(rows); i++)
        if (strcmp(rows[i].word, word ? word : "sha256") == 0) {
            recipe->algorithm = rows[i].algorithm;
            recipe->info.algorithm = rows[i].name;
            return OH_OK;
        }
    return oh_fail(err, OH_INVALID, "algorithm has to be one of: sha1, sha256, sha512");
}

static enum oh_status hmac_signature(struct oh_recipe *recipe,
                                     const struct oh_hmac_options *options, struct oh_error *err)
{
    const char *encoding = options->encoding ? options->encoding : "hex";
    struct oh_slice *name = oh_arena_alloc(recipe->arena, sizeof(*name));
    if (!name)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    if (!options->header)
        return oh_fail(err, OH_INVALID, "header is needed: the one that carries the signature");
    if (strcmp(encoding, "hex") != 0 && strcmp(encoding, "base64") != 0)
        return oh_fail(err, OH_INVALID, "encoding has to be one of: hex, base64");
    enum oh_status status =
        recipe_header_name(slice_of_text(options->header), recipe->arena, name, err);
    if (!status && options->prefix)
        status = recipe_copy(slice_of_text(options->prefix), recipe->arena,
                             &recipe->signature.prefix, err);
    recipe->signature.names = (struct recipe_names){name, 1};
    recipe->signature.encoding = strcmp(encoding, "hex") == 0 ? RECIPE_HEX : RECIPE_BASE64;
    recipe->parts[0].kind = RECIPE_PART_BODY;
    recipe->part_count = 1;
    return status;
}

/* Parses one option into a value of the arena; absent: *out is NULL. `option` names it in errors.
 */
static enum oh_status hmac_value(struct oh_recipe *recipe, const char *option, const char *text,
                                 struct recipe_value **out, struct oh_error *err)
{
    *out = NULL;
    if (!text)
        return OH_OK;
    struct recipe_value *value = oh_arena_alloc(recipe->arena, sizeof(*value));
    if (!value)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    struct oh_error why = {.line = 0};
    enum oh_status status =
        recipe_value_parse(slice_of_text(text), false, recipe->arena, value, &why);
    if (status)
        return oh_fail(err, status, "%s: %s", option, why.text);
    *out = value;
    return OH_OK;
}

static enum oh_status hmac_events(struct oh_recipe *recipe, const struct oh_hmac_options *options,
                                  struct oh_error *err)
{
    struct recipe_events *events = &recipe->events;
    struct recipe_value *id, *type, *at;
    enum oh_status status = hmac_value(recipe, "event_id", options->event_id, &id, err);
    if (!status)
        status = hmac_value(recipe, "event_type", options->event_type, &type, err);
    if (!status)
        status = hmac_value(recipe, "occurred_at", options->occurred_at, &at, err);
    if (!status && options->events) {
        events->has_split = true;
        status =
            pointer_parse(slice_of_text(options->events), 0, recipe->arena, &events->split, err);
    }
    struct recipe_values *types = oh_arena_alloc(recipe->arena, sizeof(*types));
    struct recipe_time *time = oh_arena_alloc(recipe->arena, sizeof(*time));
    if (!types || !time)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    if (status)
        return status;
    events->canonical_types = true;
    if (id)
        events->id = (struct recipe_values){id, 1};
    if (type) {
        *types = (struct recipe_values){type, 1};
        events->type = types;
        events->type_count = 1;
    }
    if (at) {
        *time = (struct recipe_time){*at, RECIPE_UNIT_AUTO};
        events->occurred_at = time;
        events->occurred_at_count = 1;
    }
    return OH_OK;
}

enum oh_status oh_catalog_add_hmac(struct oh_catalog *catalog,
                                   const struct oh_hmac_options *options,
                                   const struct oh_recipe **out, struct oh_error *err)
{
    struct oh_recipe *recipe = recipe_new();
    if (!recipe)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    if (err)
        err->line = 0;
    recipe->info.provider = recipe->info.scheme = "hmac";
    recipe->info.title = "HMAC of the body";
    recipe->info.confidence = "high";
    recipe->info.proof = "unconfirmed";
    recipe->info.retries = "as the sender does";
    recipe->info.retry_horizon_s = -1;
    enum oh_status status = hmac_algorithm(recipe, options->algorithm, err);
    if (!status)
        status = hmac_signature(recipe, options, err);
    if (!status)
        status = hmac_events(recipe, options, err);
    if (!status)
        status = list_insert(&catalog->hidden, catalog->hidden.count, recipe, err);
    if (status) {
        recipe_free(recipe);
        return status;
    }
    recipe_finish(recipe);
    *out = recipe;
    return OH_OK;
}

/* ---- what event asks of a recipe --------------------------------------------------------------
 */

enum oh_event_type recipe_find_type(const struct recipe_events *events, struct oh_slice word)
{
    static const struct {
        const char *word;
        enum oh_event_type type;
    } canonical[] = {
#define X(name, text) {text, OH_EVENT_##name},
        OH_EVENT_TYPES(X)
#undef X
    };
    size_t low = 0, high = events->type_word_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        struct oh_slice at = events->type_words[middle].word;
        size_t common = at.len < word.len ? at.len : word.len;
        int order = common ? memcmp(at.data, word.data, common) : 0;
        if (order == 0)
            order = (at.len > word.len) - (at.len < word.len);
        if (order == 0)
            return events->type_words[middle].type;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (size_t i = 0; events->canonical_types && i < LOAD_COUNT(canonical); i++)
        if (slice_equals(slice_of_text(canonical[i].word), word))
            return canonical[i].type;
    return OH_EVENT_OTHER;
}

enum oh_channel recipe_find_channel(const struct recipe_events *events, struct oh_slice word)
{
    for (size_t i = 0; i < events->channel_word_count; i++)
        if (slice_equals(events->channel_words[i].word, word))
            return events->channel_words[i].channel;
    return events->channel;
}

bool recipe_is_ping(const struct recipe_events *events, struct oh_slice word)
{
    for (size_t i = 0; i < events->ping_count; i++)
        if (slice_equals(events->pings[i], word))
            return true;
    return false;
}
