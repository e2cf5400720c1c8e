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

enum oh_status catalog_add_node(struct oh_catalog *catalog, struct fy_node *root,
                                struct oh_error *err)
{
    struct oh_recipe *made[RECIPE_SCHEME_MAX];
    size_t count;
    enum oh_status status = load_recipes(root, made, &count, err);
    for (size_t i = 0; i < count; i++)
        if (status)
            recipe_free(made[i]);
        else
            status = catalog_put(catalog, made[i], err);
    return status;
}

enum oh_status oh_catalog_add(struct oh_catalog *catalog, const char *name, const char *text,
                              size_t len, struct oh_error *err)
{
    struct yaml yaml;
    if (err)
        err->line = 0;
    enum oh_status status = yaml_open(&yaml, text, len, err);
    if (!status)
        status = catalog_add_node(catalog, yaml.root, err);
    yaml_close(&yaml);
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

/* ---- provider: hmac --------------------------------------------------- */

static enum oh_status hmac_signature(struct oh_recipe *recipe, const struct oh_hmac_options *from,
                                     struct oh_slice *header, struct oh_error *err)
{
    static const char *const names[] = {"hmac-sha1", "hmac-sha256", "hmac-sha512"};
    const char *algorithm = from->algorithm ? from->algorithm : "sha256";
    const char *encoding = from->encoding ? from->encoding : "hex";
    int a = recipe_find_word("sha1, sha256, sha512", slice_of_text(algorithm));
    int e = recipe_find_word(RECIPE_ENCODINGS, slice_of_text(encoding));
    if (a < 0)
        return oh_fail(err, OH_INVALID, "algorithm has to be one of: sha1, sha256, sha512");
    if (e < 0)
        return oh_fail(err, OH_INVALID, "encoding has to be one of: " RECIPE_ENCODINGS);
    if (!from->header)
        return oh_fail(err, OH_INVALID, "header is needed: the one that carries the signature");
    recipe->info.algorithm = names[a];
    recipe->algorithm = (enum recipe_algorithm)a;
    recipe->signature.encoding = (enum recipe_encoding)e;
    recipe->signature.names = (struct recipe_names){header, 1};
    recipe->parts[0].kind = RECIPE_PART_BODY;
    recipe->part_count = 1;
    enum oh_status status =
        recipe_header_name(slice_of_text(from->header), recipe->arena, header, err);
    if (status || !from->prefix)
        return status;
    return recipe_copy(slice_of_text(from->prefix), recipe->arena, &recipe->signature.prefix, err);
}

/* What the events of such a recipe point to; lives in its arena. */
struct hmac_parts {
    struct oh_slice header;
    struct recipe_value id, type;
    struct recipe_values types;
    struct recipe_time time;
};

static enum oh_status hmac_events(struct oh_recipe *recipe, const struct oh_hmac_options *from,
                                  struct hmac_parts *parts, struct oh_error *err)
{
    struct recipe_events *events = &recipe->events;
    const struct {
        const char *name, *text;
        struct recipe_value *value;
    } options[] = {{"event_id", from->event_id, &parts->id},
                   {"event_type", from->event_type, &parts->type},
                   {"occurred_at", from->occurred_at, &parts->time.from}};
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        struct oh_error why = {.line = 0};
        struct oh_slice text = slice_of_text(options[i].text);
        enum oh_status status =
            text.data ? recipe_value_parse(text, false, recipe->arena, options[i].value, &why)
                      : OH_OK;
        if (status)
            return oh_fail(err, status, "%s: %s", options[i].name, why.text);
    }
    parts->types = (struct recipe_values){&parts->type, 1};
    parts->time.unit = RECIPE_UNIT_AUTO;
    events->canonical_types = true;
    events->id = (struct recipe_values){&parts->id, from->event_id ? 1 : 0};
    events->type = &parts->types;
    events->type_count = from->event_type ? 1 : 0;
    events->occurred_at = &parts->time;
    events->occurred_at_count = from->occurred_at ? 1 : 0;
    events->has_split = from->events != NULL;
    if (!events->has_split)
        return OH_OK;
    return pointer_parse(slice_of_text(from->events), 0, recipe->arena, &events->split, err);
}

enum oh_status oh_catalog_add_hmac(struct oh_catalog *catalog,
                                   const struct oh_hmac_options *options,
                                   const struct oh_recipe **out, struct oh_error *err)
{
    struct oh_recipe *recipe = recipe_new();
    struct hmac_parts *parts = recipe ? oh_arena_alloc(recipe->arena, sizeof(*parts)) : NULL;
    if (!parts) {
        recipe_free(recipe);
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    }
    if (err)
        err->line = 0;
    recipe->info = (struct oh_recipe_info){
        .provider = "hmac",
        .scheme = "hmac",
        .title = "HMAC of the body",
        .confidence = "high",
        .proof = "unconfirmed",
        .handshake = "none",
        .retries = "as the sender does",
        .retry_horizon_s = -1,
    };
    enum oh_status status = hmac_signature(recipe, options, &parts->header, err);
    if (!status)
        status = hmac_events(recipe, options, parts, err);
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

/* ---- what event asks of a recipe ------------------------------------------------------------- */

/* What the word is mapped to, -1 = nothing. */
static int find_in_map(const struct recipe_word_map *map, struct oh_slice word)
{
    for (size_t i = 0; i < map->count; i++)
        if (slice_equals(map->items[i].word, word))
            return (int)map->items[i].value;
    return -1;
}

enum oh_event_type recipe_find_type(const struct recipe_events *events, struct oh_slice word)
{
    int type = find_in_map(&events->types, word);
    if (type < 0 && events->canonical_types)
        type = recipe_find_word(RECIPE_TYPES, word);
    return type < 0 ? OH_EVENT_OTHER : (enum oh_event_type)type;
}

enum oh_channel recipe_find_channel(const struct recipe_events *events, struct oh_slice word)
{
    int channel = find_in_map(&events->channels, word);
    return channel < 0 ? events->channel : (enum oh_channel)channel;
}

bool recipe_is_ping(const struct recipe_events *events, struct oh_slice word)
{
    for (size_t i = 0; i < events->pings.count; i++)
        if (slice_equals(events->pings.items[i], word))
            return true;
    return false;
}
