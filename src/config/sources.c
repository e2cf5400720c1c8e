/* SPDX-License-Identifier: Apache-2.0 */
/* Sources: what stands in the file + the catalog -> struct config_source, ready for the hot path.
 *
 * Every rule about one source is here; each mistake points at the option it is about, or at the
 * source's first line. */
#include "config/loader.h"

#include "base/slice.h"
#include "oncehook/handshake.h"
#include "recipe/load.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

/* ---- further recipes ------------------------------------------------------------------------ */

/* Variables have no place in a recipe. */
static bool holds_variable(struct fy_node *node)
{
    char *text = fy_emit_node_to_string(node, FYECF_MODE_FLOW_ONELINE | FYECF_WIDTH_INF);
    bool holds = text && loader_is_masked((struct oh_slice){text, strlen(text)});
    free(text);
    return holds;
}

void sources_add_recipes(struct loader *loader)
{
    int count = loader->recipes ? fy_node_sequence_item_count(loader->recipes) : 0;
    for (int i = 0; i < count; i++) {
        struct oh_error err = {.line = 0};
        struct fy_node *recipe = fy_node_sequence_get_by_index(loader->recipes, i);
        int line = yaml_line(recipe, option_line(loader->lines, "providers", 1));
        enum oh_status status = catalog_add_node(loader->config->catalog, recipe, &err);
        loader_failed(loader, status, err.line ? err.line : line, "", &err);
        if (holds_variable(recipe))
            loader_mistake(loader, line, "providers: `${NAME}` has no place in a recipe");
    }
}

/* True if a recipe of `provider` stands under `providers`; one that is not in the catalog all the
 * same has a mistake, which is told already. */
static bool is_written(const struct loader *loader, const char *provider)
{
    struct fy_node *recipe;
    struct fy_node_pair *name;
    void *at = NULL;
    while (loader->recipes && (recipe = fy_node_sequence_iterate(loader->recipes, &at)))
        if (fy_node_is_mapping(recipe) && (name = yaml_find(recipe, SLICE_LITERAL("provider"))) &&
            slice_equals(yaml_text(fy_node_pair_value(name)), slice_of_text(provider)))
            return true;
    return false;
}

/* ---- the recipe of a source ------------------------------------------------------------------ */

/* Where an option stands, or the source when it does not. */
static int line_of(const struct source_form *form, const char *option)
{
    return option_line(form->lines, option, form->source.line);
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
        if (option_line(form->lines, hmac_only[i], 0))
            loader_mistake(loader, line_of(form, hmac_only[i]), "%s is for provider hmac only",
                           hmac_only[i]);
    const struct oh_catalog *catalog = loader->config->catalog;
    const char *provider = form->source.provider;
    const struct oh_recipe *recipe = NULL;
    size_t count;
    char *schemes = list_schemes(loader, provider, &count);
    if (!schemes)
        return NULL;
    if (count == 0 && !is_written(loader, provider))
        loader_mistake(loader, line_of(form, "sources[].provider"),
                       "no such provider; `oncehook providers` lists them");
    else if (!form->scheme && count > 1 && !oh_catalog_find(catalog, provider, provider))
        loader_mistake(loader, line_of(form, "sources[].provider"),
                       "sources[].scheme is missing: this provider has several (%s)", schemes);
    else
        recipe = oh_catalog_find(catalog, provider,
                                 form->scheme ? form->scheme
                                 : count > 1  ? provider
                                              : NULL);
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
        .algorithm = form->algorithm,
        .encoding = form->encoding,
        .prefix = form->prefix,
        .event_id = form->event_id,
        .event_type = form->event_type,
        .occurred_at = form->occurred_at,
        .events = form->events,
    };
    struct oh_error err = {.text = ""};
    const struct oh_recipe *recipe = NULL;
    enum oh_status status = oh_catalog_add_hmac(loader->config->catalog, &hmac, &recipe, &err);
    return loader_failed(loader, status, form->source.line, "", &err) ? NULL : recipe;
}

/* ---- parts of a source ----------------------------------------------------------------------- */

static void build_keyring(struct loader *loader, struct source_form *form, bool are_public_keys)
{
    struct config_source *source = &form->source;
    source->keyring = oh_keyring_new(source->recipe);
    if (!source->keyring)
        loader->no_memory = true;
    for (size_t i = 0; source->keyring && i < source->secret_count; i++) {
        const struct secret_origin *origin = &form->secret_origins[i];
        struct oh_error err = {.line = 0};
        char what[64];
        snprintf(what, sizeof(what), "sources[].secrets: secret %zu: ", i + 1);
        if (!source->secrets[i].bytes.data)
            continue; /* told already */
        enum oh_status status = oh_keyring_add(source->keyring, source->secrets[i].bytes, &err);
        if (status == OH_OK)
            oh_keyring_limit(source->keyring, source->terms[i].not_before_ms,
                             source->terms[i].not_after_ms);
        if (!loader_failed(loader, status, origin->line, what, &err) && origin->file &&
            !are_public_keys)
            loader_note_file(loader, CONFIG_FILE_SECRET, origin->file, origin->line);
    }
}

static void build_mapping(struct loader *loader, struct source_form *form)
{
    struct config_source *source = &form->source;
    struct oh_error err = {.line = 0};
    const struct oh_map map = {source->map_enrollment, source->map_instance, source->map_reference,
                               source->scope_id};
    if (!source->scope_id)
        return; /* no memory, told already */
    enum oh_status status = oh_mapping_new(source->recipe, &map, &source->mapping, &err);
    int line = option_line(form->lines, "sources[].map.enrollment_id",
                           line_of(form, "sources[].map.instance_id"));
    line = option_line(form->lines, "sources[].map.reference", line);
    loader_failed(loader, status, line, "sources[].map: ", &err);
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
static void build_scopes(struct loader *loader, struct source_form *form,
                         const struct oh_recipe_info *info)
{
    struct config_source *source = &form->source;
    const char *word = form->dedup_scope;
    if (!word)
        word = info->id_scope == OH_SCOPE_PROVIDER ? "provider" : "source";
    else if (strcmp(source->provider, "hmac") == 0 && strcmp(word, "provider") == 0)
        loader_mistake(
            loader, line_of(form, "sources[].dedup_scope"),
            "sources[].dedup_scope: senders under provider hmac share no ids; give a name");
    bool by_provider = strcmp(word, "provider") == 0;
    bool by_name = !by_provider && strcmp(word, "source") != 0;
    source->scope_other =
        make_scope(loader, by_name ? "name" : "source", by_name ? word : source->name);
    source->scope_id = by_provider ? make_scope(loader, "provider", source->provider)
                                   : make_scope(loader, by_name ? "name" : "source",
                                                by_name ? word : source->name);
}

static void build_times(struct loader *loader, struct source_form *form,
                        const struct oh_recipe_info *info)
{
    const struct config *config = loader->config;
    struct config_source *source = &form->source;
    int line = option_line(form->lines, "sources[].tolerance", 0);
    if (line && info->serve_tolerance_s < 0)
        loader_mistake(loader, line, "sources[].tolerance: this scheme signs no time");
    if (!line)
        source->tolerance_s = info->serve_tolerance_s;
    source->ack_deadline_ms = config->ack_deadline_ms;
    if (info->ack_budget_ms > 0 && info->ack_budget_ms * 8 / 10 < source->ack_deadline_ms)
        source->ack_deadline_ms = info->ack_budget_ms * 8 / 10;
    /* What the ledger has forgotten would be counted again. */
    bool retries = config->retention.ledger_s < info->retry_horizon_s;
    int64_t longest = retries ? info->retry_horizon_s : source->tolerance_s;
    if (config->retention.ledger_s < longest)
        loader_mistake(loader, retries || !line ? source->line : line,
                       "retention.ledger is shorter than this source%s (%lld h)",
                       retries ? "'s provider goes on trying" : " accepts a signature",
                       (long long)(longest + 3599) / 3600);
}

/* A handshake that brings a secret is the only reason to have none at first. */
static void check_handshake(struct loader *loader, const struct source_form *form)
{
    bool brings = form->source.provider && oh_handshake_learns(form->source.provider);
    int line = option_line(form->lines, "sources[].handshake.arm_until", 0);
    if (line && !brings)
        loader_mistake(loader, line,
                       "sources[].handshake.arm_until: this provider's handshake brings no secret");
    if (!brings && !option_line(form->lines, "sources[].secrets", 0))
        loader_mistake(loader, form->source.line, "sources[].secrets is missing");
}

/* ---- one source ------------------------------------------------------------------------------ */

static void build_source(struct loader *loader, struct source_form *form)
{
    const struct config *config = loader->config;
    struct config_source *source = &form->source;
    struct oh_recipe_info info;
    check_handshake(loader, form);
    if (source->provider)
        source->recipe = strcmp(source->provider, "hmac") == 0 ? make_hmac_recipe(loader, form)
                                                               : find_catalog_recipe(loader, form);
    if (source->rate_burst && !option_line(form->lines, "sources[].rate_limit.per_second", 0))
        loader_mistake(loader, line_of(form, "sources[].rate_limit.burst"),
                       "sources[].rate_limit.per_second is missing beside burst");
    if (!source->rate_burst)
        source->rate_burst = source->rate_per_second;
    if (config->listen.http.host && source->allow.count && !config->listen.trusted_proxies.count)
        loader_mistake(loader, line_of(form, "sources[].allow"),
                       "sources[].allow with plain listen.http needs listen.trusted_proxies");
    if (!source->provider || !source->recipe || !source->name)
        return; /* told already */
    oh_recipe_describe(source->recipe, &info);
    build_keyring(loader, form, info.has_private_key);
    build_scopes(loader, form, &info);
    build_mapping(loader, form);
    build_times(loader, form, &info);
    source->is_asked = oh_handshake_takes(source->provider, slice_of_text("POST"));
    source->answer_status = (int)info.answer_status;
    source->answer_body = info.answer_body;
    if (info.needs_public_url && !config->listen.public_url)
        loader_mistake(loader, source->line,
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
    free(source->terms);
    free(source->written);
    oh_mapping_free(source->mapping);
    free(source->map_enrollment);
    free(source->map_reference);
    free(source->map_instance);
    free(source->scope_id);
    free(source->scope_other);
    free(source->allow.items);
    free(source->verify_token);
    free(source->public_key);
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* An id means something else at another provider: one scope for both would lose events. */
static void check_shared_scopes(struct loader *loader)
{
    const struct config *config = loader->config;
    for (size_t i = 0; i < config->source_count; i++) {
        const struct config_source *a = &config->sources[i], *b = config->sources;
        if (!a->scope_id || strncmp(a->scope_id, "name:", 5) != 0)
            continue;
        while (b < a && (!b->scope_id || strcmp(a->scope_id, b->scope_id) != 0 ||
                         strcmp(a->provider, b->provider) == 0))
            b++;
        if (b < a)
            loader_mistake(loader, line_of(&loader->forms[i], "sources[].dedup_scope"),
                           "sources[].dedup_scope: the source on line %d shares it, but has "
                           "another provider",
                           b->line);
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
        struct source_form *form = &loader->forms[i];
        build_source(loader, form);
        config->sources[i] = form->source;
        config->sources[i].number = (uint32_t)i;
        form->source = (struct config_source){.line = form->source.line};
    }
    index_sources(loader);
    check_shared_scopes(loader);
}
