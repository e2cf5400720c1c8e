/* SPDX-License-Identifier: Apache-2.0 */
/* Sources: what stands in the file + the catalog -> struct config_source, ready for the hot path.
 *
 * Every rule about one source is here; each mistake points at the option it is about, or at the
 * source's first line. */
#include "config/loader.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

enum { HOUR_S = 3600, DAY_S = 24 * HOUR_S };

/* ---- further recipes ------------------------------------------------------------------------ */

void sources_add_recipes(struct loader *loader)
{
    int count = loader->recipes ? fy_node_sequence_item_count(loader->recipes) : 0;
    for (int i = 0; i < count; i++) {
        struct oh_error err = {.text = ""};
        size_t len;
        char *text = loader_recipe_text(loader, i, &len);
        if (!text) {
            loader->no_memory = true;
            return;
        }
        enum oh_status status = oh_catalog_add(loader->config->catalog, NULL, text, len, &err);
        if (status == OH_NO_MEMORY)
            loader->no_memory = true;
        else if (status != OH_OK)
            loader_mistake(loader,
                           err.line ? err.line
                                    : yaml_line(fy_node_sequence_get_by_index(loader->recipes, i),
                                                loader->lines[option_index("providers")]),
                           "%s", err.text);
        free(text);
    }
}

/* ---- the recipe of a source ------------------------------------------------------------------ */

/* Where an option stands, or the source when it does not. */
static int line_of(const struct source_form *form, const char *option)
{
    int line = form->lines[option_index(option)];
    return line ? line : form->line;
}

/* "a, b, c": the schemes of `provider`, each once; *count = how many. malloc'd. */
static char *list_schemes(struct loader *loader, const char *provider, size_t *count)
{
    const struct oh_catalog *catalog = loader->config->catalog;
    char *text = NULL;
    size_t len;
    FILE *to = open_memstream(&text, &len);
    *count = 0;
    if (!to) {
        loader->no_memory = true;
        return NULL;
    }
    for (size_t i = 0; i < oh_catalog_count(catalog); i++) {
        struct oh_recipe_info info;
        const struct oh_recipe *recipe = oh_catalog_at(catalog, i);
        oh_recipe_describe(recipe, &info);
        if (strcmp(info.provider, provider) != 0 ||
            oh_catalog_find(catalog, provider, info.scheme) != recipe) /* one that was replaced */
            continue;
        fprintf(to, "%s%s", *count ? ", " : "", info.scheme);
        ++*count;
    }
    fclose(to);
    return text;
}

static const struct oh_recipe *find_catalog_recipe(struct loader *loader,
                                                   const struct source_form *form)
{
    static const char *const hmac_only[] = {
        "sources[].header",   "sources[].algorithm",  "sources[].encoding",    "sources[].prefix",
        "sources[].event_id", "sources[].event_type", "sources[].occurred_at", "sources[].events"};
    for (size_t i = 0; i < sizeof(hmac_only) / sizeof(hmac_only[0]); i++)
        if (form->lines[option_index(hmac_only[i])])
            loader_mistake(loader, line_of(form, hmac_only[i]), "%s is for provider hmac only",
                           hmac_only[i]);
    const struct oh_recipe *recipe = NULL;
    size_t count;
    char *schemes = list_schemes(loader, form->provider, &count);
    if (!schemes)
        return NULL;
    if (count == 0)
        loader_mistake(loader, line_of(form, "sources[].provider"),
                       "no such provider; `oncehook providers` lists them");
    else if (!form->scheme && count > 1)
        loader_mistake(loader, line_of(form, "sources[].provider"),
                       "sources[].scheme is missing: this provider has several (%s)", schemes);
    else
        recipe = oh_catalog_find(loader->config->catalog, form->provider, form->scheme);
    if (count > 0 && form->scheme && !recipe)
        loader_mistake(loader, line_of(form, "sources[].scheme"),
                       "no such scheme; this provider has %s", schemes);
    free(schemes);
    return recipe;
}

static const struct oh_recipe *make_hmac_recipe(struct loader *loader,
                                                const struct source_form *form)
{
    if (form->scheme)
        loader_mistake(loader, line_of(form, "sources[].scheme"), "provider hmac has no schemes");
    if (!form->header) {
        loader_mistake(loader, line_of(form, "sources[].provider"),
                       "sources[].header is missing: provider hmac needs the name of the header "
                       "with the signature");
        return NULL;
    }
    const struct oh_hmac_options hmac = {
        .header = form->header,
        .algorithm = option_choices("sources[].algorithm")[form->algorithm],
        .encoding = option_choices("sources[].encoding")[form->encoding],
        .prefix = form->prefix,
        .event_id = form->event_id,
        .event_type = form->event_type,
        .occurred_at = form->occurred_at,
        .events = form->events,
    };
    struct oh_error err = {.text = ""};
    const struct oh_recipe *recipe = NULL;
    enum oh_status status = oh_catalog_add_hmac(loader->config->catalog, &hmac, &recipe, &err);
    if (status == OH_NO_MEMORY)
        loader->no_memory = true;
    else if (status != OH_OK)
        loader_mistake(loader, form->line, "%s", err.text);
    return status == OH_OK ? recipe : NULL;
}

/* ---- parts of a source ----------------------------------------------------------------------- */

static void build_keyring(struct loader *loader, const struct source_form *form,
                          bool are_public_keys, struct config_source *source)
{
    source->keyring = oh_keyring_new(source->recipe);
    if (!source->keyring)
        loader->no_memory = true;
    for (size_t i = 0; source->keyring && i < source->secret_count; i++) {
        const struct secret_origin *origin = &form->secret_origins[i];
        struct oh_error err = {.text = ""};
        if (!source->secrets[i].bytes.data)
            continue; /* told already */
        enum oh_status status = oh_keyring_add(source->keyring, source->secrets[i].bytes, &err);
        if (status == OH_NO_MEMORY)
            loader->no_memory = true;
        else if (status != OH_OK)
            loader_mistake(loader, origin->line, "sources[].secrets: secret %zu: %s", i + 1,
                           err.text);
        else if (origin->file && !are_public_keys)
            loader_note_file(loader, CONFIG_FILE_SECRET, origin->file, origin->line);
    }
}

static void build_mapping(struct loader *loader, const struct source_form *form,
                          struct config_source *source)
{
    struct oh_error err = {.text = ""};
    enum oh_status status = oh_mapping_new(source->recipe, source->map_enrollment,
                                           source->map_instance, &source->mapping, &err);
    int line = form->lines[option_index("sources[].map.enrollment_id")];
    if (status == OH_NO_MEMORY)
        loader->no_memory = true;
    else if (status != OH_OK)
        loader_mistake(loader, line ? line : line_of(form, "sources[].map.instance_id"),
                       "sources[].map: %s", err.text);
}

static char *make_scope(struct loader *loader, const char *kind, const char *name)
{
    char *scope = NULL;
    if (asprintf(&scope, "%s:%s", kind, name) < 0) {
        loader->no_memory = true;
        return NULL;
    }
    return scope;
}

/* CONTRACT, key_scope: a provider's scope holds for the id rung only. */
static void build_scopes(struct loader *loader, const struct source_form *form, bool is_hmac,
                         enum oh_id_scope by_recipe, struct config_source *source)
{
    const char *word = form->dedup_scope;
    if (!word)
        word = by_recipe == OH_SCOPE_PROVIDER ? "provider" : "source";
    else if (is_hmac && strcmp(word, "provider") == 0)
        loader_mistake(
            loader, line_of(form, "sources[].dedup_scope"),
            "sources[].dedup_scope: senders under provider hmac share no ids; give a name");
    bool by_source = strcmp(word, "source") == 0, by_provider = strcmp(word, "provider") == 0;
    if (by_provider)
        source->scope_id = make_scope(loader, "provider", source->provider);
    else
        source->scope_id =
            make_scope(loader, by_source ? "source" : "name", by_source ? source->name : word);
    source->scope_other = by_source || by_provider ? make_scope(loader, "source", source->name)
                                                   : make_scope(loader, "name", word);
}

static void build_times(struct loader *loader, const struct source_form *form,
                        const struct oh_recipe_info *info, struct config_source *source)
{
    const struct config *config = loader->config;
    int line = form->lines[option_index("sources[].tolerance")];
    source->tolerance_s = info->serve_tolerance_s;
    if (line && info->serve_tolerance_s < 0)
        loader_mistake(loader, line, "sources[].tolerance: this scheme signs no time");
    else if (line)
        source->tolerance_s = form->tolerance_s;
    source->ack_deadline_ms = config->ack_deadline_ms;
    if (info->ack_budget_ms > 0 && info->ack_budget_ms * 8 / 10 < source->ack_deadline_ms)
        source->ack_deadline_ms = info->ack_budget_ms * 8 / 10;
    /* What the ledger has forgotten would be counted again. */
    if (config->retention.ledger_s < info->retry_horizon_s)
        loader_mistake(loader, form->line,
                       "retention.ledger is shorter than this source's provider goes on trying "
                       "(%lld h)",
                       (long long)(info->retry_horizon_s + HOUR_S - 1) / HOUR_S);
    else if (config->retention.ledger_s < source->tolerance_s)
        loader_mistake(loader, line ? line : form->line,
                       "retention.ledger is shorter than this source accepts a signature (%lld h)",
                       (long long)(source->tolerance_s + HOUR_S - 1) / HOUR_S);
}

static void build_rate(struct loader *loader, const struct source_form *form,
                       struct config_source *source)
{
    source->rate_per_second = form->rate_per_second;
    source->rate_burst = form->rate_burst ? form->rate_burst : form->rate_per_second;
    if (form->rate_burst && !form->lines[option_index("sources[].rate_limit.per_second")])
        loader_mistake(loader, line_of(form, "sources[].rate_limit.burst"),
                       "sources[].rate_limit.per_second is missing beside burst");
}

/* ---- one source ------------------------------------------------------------------------------ */

/* Takes what the form owns and the source keeps. */
static void take_from_form(struct source_form *form, struct config_source *source)
{
    source->line = form->line;
    source->name = form->name;
    source->provider = form->provider;
    source->secrets = form->secrets;
    source->secret_count = form->secret_count;
    source->allow = form->allow;
    source->map_enrollment = form->map_enrollment;
    source->map_instance = form->map_instance;
    form->name = form->provider = form->map_enrollment = form->map_instance = NULL;
    form->secrets = NULL;
    form->allow = (struct config_networks){NULL, 0};
}

static void build_source(struct loader *loader, struct source_form *form,
                         struct config_source *source)
{
    const struct config *config = loader->config;
    bool is_hmac = form->provider && strcmp(form->provider, "hmac") == 0;
    const struct oh_recipe *recipe = NULL;
    if (form->provider)
        recipe = is_hmac ? make_hmac_recipe(loader, form) : find_catalog_recipe(loader, form);
    take_from_form(form, source);
    build_rate(loader, form, source);
    if (config->listen.http.host && source->allow.count && !config->listen.trusted_proxies.count)
        loader_mistake(loader, line_of(form, "sources[].allow"),
                       "sources[].allow with plain listen.http needs listen.trusted_proxies");
    if (!recipe || !source->name)
        return; /* told already */
    struct oh_recipe_info info;
    oh_recipe_describe(recipe, &info);
    source->recipe = recipe;
    build_keyring(loader, form, info.has_private_key, source);
    build_mapping(loader, form, source);
    build_scopes(loader, form, is_hmac, info.id_scope, source);
    build_times(loader, form, &info, source);
    if (info.needs_public_url && !config->listen.public_url)
        loader_mistake(loader, form->line,
                       "this source's scheme signs the URL: listen.public_url is missing");
}

void source_free(struct config_source *source)
{
    free(source->name);
    free(source->provider);
    oh_keyring_free(source->keyring);
    for (size_t i = 0; i < source->secret_count; i++)
        secret_free(&source->secrets[i]);
    free(source->secrets);
    oh_mapping_free(source->mapping);
    free(source->map_enrollment);
    free(source->map_instance);
    free(source->scope_id);
    free(source->scope_other);
    free(source->allow.items);
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* An id means something else at another provider: one scope for both would lose events. */
static void check_shared_scopes(struct loader *loader)
{
    const struct config *config = loader->config;
    for (size_t i = 0; i < config->source_count; i++) {
        const struct config_source *a = &config->sources[i];
        if (!a->scope_id || strncmp(a->scope_id, "name:", 5) != 0)
            continue;
        for (size_t j = 0; j < i; j++) {
            const struct config_source *b = &config->sources[j];
            if (!b->scope_id || strcmp(a->scope_id, b->scope_id) != 0 ||
                strcmp(a->provider, b->provider) == 0)
                continue;
            loader_mistake(
                loader, line_of(&loader->forms[i], "sources[].dedup_scope"),
                "sources[].dedup_scope: the source on line %d shares it, but has another "
                "provider",
                b->line);
            break;
        }
    }
}

/* The slot of that name: taken by it, or free. */
static size_t find_slot(const struct config *config, struct oh_slice name)
{
    size_t slot = XXH3_64bits(name.data, name.len) & config->source_slot_mask;
    for (;; slot = (slot + 1) & config->source_slot_mask) {
        uint32_t taken = config->source_slots[slot];
        if (taken == 0)
            return slot;
        const char *there = config->sources[taken - 1].name;
        if (strncmp(there, name.data, name.len) == 0 && there[name.len] == 0)
            return slot;
    }
}

const struct config_source *config_find_source(const struct config *config, struct oh_slice name)
{
    if (name.len == 0 || name.len > CONFIG_NAME_BYTES_MAX || memchr(name.data, 0, name.len))
        return NULL;
    uint32_t taken = config->source_slots[find_slot(config, name)];
    return taken ? &config->sources[taken - 1] : NULL;
}

/* At most half of the slots are taken, so a name that is not there is found missing at once. */
static void index_sources(struct loader *loader)
{
    struct config *config = loader->config;
    size_t slots = 2;
    while (slots < config->source_count * 2)
        slots *= 2;
    config->source_slots = loader_alloc(loader, slots, sizeof(*config->source_slots));
    config->source_slot_mask = slots - 1;
    for (size_t i = 0; config->source_slots && i < config->source_count; i++) {
        const struct config_source *source = &config->sources[i];
        if (!source->name)
            continue;
        struct oh_slice name = {source->name, strlen(source->name)};
        uint32_t *slot = &config->source_slots[find_slot(config, name)];
        if (*slot)
            loader_mistake(loader, line_of(&loader->forms[i], "sources[].name"),
                           "sources[].name: the source on line %d has this name already",
                           config->sources[*slot - 1].line);
        else
            *slot = (uint32_t)i + 1;
    }
}

void sources_build(struct loader *loader)
{
    struct config *config = loader->config;
    config->sources = loader_alloc(loader, loader->form_count, sizeof(*config->sources));
    if (!config->sources)
        return;
    config->source_count = loader->form_count;
    for (size_t i = 0; i < loader->form_count; i++) {
        config->sources[i].number = (uint32_t)i;
        build_source(loader, &loader->forms[i], &config->sources[i]);
    }
    index_sources(loader);
    check_shared_scopes(loader);
}
