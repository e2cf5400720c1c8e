/* SPDX-License-Identifier: Apache-2.0 */
/* Walking the file: every key finds its row in the table of options, or is a mistake. */
#include "config/options.h"

#include <stdlib.h>
#include <string.h>

/* ---- lists ---- */

static void read_networks(struct loader *loader, const char *name, struct fy_node *node, int line,
                          struct config_networks *networks)
{
    int count = fy_node_sequence_item_count(node);
    if (count > CONFIG_NETWORKS_MAX) {
        loader_mistake(loader, line, "%s: more than %d networks", name, CONFIG_NETWORKS_MAX);
        return;
    }
    if (count == 0)
        loader_mistake(loader, line, "%s is empty; leave it out to allow all", name);
    networks->items = loader_alloc(loader, (size_t)count, sizeof(*networks->items));
    for (int i = 0; networks->items && i < count; i++) {
        struct value value;
        if (!value_read(loader, name, fy_node_sequence_get_by_index(node, i), line, &value))
            continue;
        const char *wrong = network_parse(value.text, &networks->items[networks->count]);
        if (wrong)
            loader_mistake(loader, value.line, "%s: entry %d %s", name, i + 1, wrong);
        else
            networks->count++;
        value_free(&value);
    }
}

/* The value under `file` of {file: PATH}, NULL for anything else. */
static struct fy_node *file_of_secret(struct fy_node *node)
{
    void *at = NULL;
    struct fy_node_pair *pair = fy_node_mapping_iterate(node, &at);
    struct oh_slice key = pair ? yaml_text(fy_node_pair_key(pair)) : (struct oh_slice){NULL, 0};
    bool is_file = key.len == 4 && memcmp(key.data, "file", 4) == 0;
    return is_file && fy_node_mapping_item_count(node) == 1 ? fy_node_pair_value(pair) : NULL;
}

/* One entry of `secrets`: a text, or {file: PATH}. */
static void read_one_secret(struct loader *loader, const char *name, struct fy_node *node,
                            struct secret *secret, struct secret_origin *origin)
{
    bool in_file = node && fy_node_is_mapping(node);
    struct fy_node *from = in_file ? file_of_secret(node) : node;
    if (in_file && !from) {
        loader_mistake(loader, origin->line, "%s: each is a text or {file: PATH}", name);
        return;
    }
    struct value value;
    if (!value_read(loader, name, from, origin->line, &value))
        return;
    const char *wrong = NULL;
    if (in_file) {
        origin->file = loader_resolve_path(loader, value.text);
        wrong = origin->file ? secret_read_file(loader, origin->file, secret) : "out of memory";
    } else if (value.len == 0) {
        wrong = "it is empty";
    } else if (value.len > CONFIG_SECRET_BYTES_MAX) {
        wrong = "it is too long";
    } else {
        secret->bytes = (struct oh_slice){loader_copy(loader, value.text, value.len), value.len};
        if (value.in_clear)
            origin->file = loader_copy(loader, loader->config->path, strlen(loader->config->path));
    }
    if (wrong)
        loader_mistake(loader, value.line, "%s: a %s cannot be taken: %s", name,
                       in_file ? "file" : "secret", wrong);
    value_free(&value);
}

static void read_secrets(struct loader *loader, const char *name, struct fy_node *node, int line,
                         struct source_form *form)
{
    int count = fy_node_sequence_item_count(node);
    if (count < 1 || count > CONFIG_SECRETS_MAX) {
        loader_mistake(loader, line, "%s: there must be 1 to %d", name, CONFIG_SECRETS_MAX);
        return;
    }
    form->secrets = loader_alloc(loader, (size_t)count, sizeof(*form->secrets));
    form->secret_origins = loader_alloc(loader, (size_t)count, sizeof(*form->secret_origins));
    if (!form->secrets || !form->secret_origins)
        return;
    form->secret_count = (size_t)count; /* those with a mistake stay empty */
    for (int i = 0; i < count; i++) {
        struct fy_node *item = fy_node_sequence_get_by_index(node, i);
        form->secret_origins[i].line = yaml_line(item, line);
        read_one_secret(loader, name, item, &form->secrets[i], &form->secret_origins[i]);
    }
}

static void read_sources(struct loader *loader, const char *name, struct fy_node *node, int line)
{
    int count = fy_node_sequence_item_count(node);
    if (count > CONFIG_SOURCES_MAX) {
        loader_mistake(loader, line, "%s: more than %d", name, CONFIG_SOURCES_MAX);
        return;
    }
    loader->forms = loader_alloc(loader, (size_t)count, sizeof(*loader->forms));
    for (int i = 0; loader->forms && i < count; i++) {
        struct fy_node *node_i = fy_node_sequence_get_by_index(node, i);
        struct source_form *form = &loader->forms[loader->form_count++];
        form->line = yaml_line(node_i, line);
        options_set_defaults(loader, IN_SOURCE, form);
        options_read(loader, IN_SOURCE, node_i, form->line, form, form->lines);
    }
}

/* An option that is no scalar: always a list. */
static void read_block(struct loader *loader, const struct option *option, struct fy_node *node,
                       int line, void *base)
{
    if (!node || !fy_node_is_sequence(node)) {
        loader_mistake(loader, line, "%s must be a list", option->name);
        return;
    }
    if (option->type == OPTION_NETWORKS)
        read_networks(loader, option->name, node, line, (void *)((char *)base + option->offset));
    else if (option->type == OPTION_SECRETS)
        read_secrets(loader, option->name, node, line, base);
    else if (option->type == OPTION_SOURCES)
        read_sources(loader, option->name, node, line);
    else
        loader->recipes = node;
}

/* ---- options and sections ---- */

static const struct option *option_find(enum option_place place, const char *name)
{
    for (size_t i = 0; i < config_option_count; i++)
        if (config_options[i].place == place && strcmp(config_options[i].name, name) == 0)
            return &config_options[i];
    return NULL;
}

static void tell_wrong_value(struct loader *loader, const struct option *option, int line,
                             const char *wrong)
{
    char *bounds = NULL;
    size_t len;
    FILE *to = open_memstream(&bounds, &len);
    if (!to) {
        loader->no_memory = true;
        return;
    }
    option_print_bounds(to, option);
    fclose(to);
    loader_mistake(loader, line, "%s %s%s%s%s", option->name, wrong, len ? " (" : "",
                   bounds + (len ? strspn(bounds, ", ") : 0), len ? ")" : "");
    free(bounds);
}

static void read_option(struct loader *loader, const struct option *option, struct fy_node *node,
                        int line, void *base)
{
    if (option_is_list(option)) {
        read_block(loader, option, node, line, base);
        return;
    }
    struct value value;
    if (!value_read(loader, option->name, node, line, &value))
        return;
    const char *wrong = option_parse(loader, option, value.text, (char *)base + option->offset);
    if (wrong)
        tell_wrong_value(loader, option, value.line, wrong);
    else if (option->type == OPTION_SECRET && value.in_clear)
        loader_note_file(loader, CONFIG_FILE_SECRET, loader->config->path, value.line);
    value_free(&value);
}

static bool is_section(enum option_place place, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < config_option_count; i++)
        if (config_options[i].place == place && strncmp(config_options[i].name, name, len) == 0 &&
            config_options[i].name[len] == '.')
            return true;
    return false;
}

/* A key that could be a misplaced secret is not repeated. */
static bool may_be_repeated(const char *key)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-.";
    size_t len = strlen(key);
    return len > 0 && len <= 40 && strspn(key, letters) == len;
}

static void tell_unknown_key(struct loader *loader, int line, const char *prefix, const char *key)
{
    if (may_be_repeated(key))
        loader_mistake(loader, line, "no option is called %s%s", prefix, key);
    else
        loader_mistake(loader, line, "a key that is no option, under \"%s\"", prefix);
}

/* The line on which `key` stood before `pair`, 0 = it did not. */
static int earlier_line(struct fy_node *node, const struct fy_node_pair *pair, const char *key)
{
    void *at = NULL;
    struct fy_node_pair *other;
    while ((other = fy_node_mapping_iterate(node, &at)) && other != pair) {
        const char *name = fy_node_get_scalar0(fy_node_pair_key(other));
        if (name && strcmp(name, key) == 0)
            return yaml_line(fy_node_pair_key(other), 1);
    }
    return 0;
}

/* The pairs of one mapping; `prefix` is "" or what stands before the key, with its dot. */
static void read_mapping(struct loader *loader, enum option_place place, const char *prefix,
                         struct fy_node *node, int line, void *base, int *lines)
{
    void *at = NULL;
    struct fy_node_pair *pair;
    while ((pair = fy_node_mapping_iterate(node, &at))) {
        char name[128];
        struct fy_node *under = fy_node_pair_value(pair);
        int key_line = yaml_line(fy_node_pair_key(pair), line);
        const char *key = fy_node_get_scalar0(fy_node_pair_key(pair));
        if (!key || (size_t)snprintf(name, sizeof(name), "%s%s", prefix, key) >= sizeof(name)) {
            tell_unknown_key(loader, key_line, prefix, "");
            continue;
        }
        int earlier = earlier_line(node, pair, key);
        const struct option *option = option_find(place, name);
        if (earlier && (option || is_section(place, name))) {
            loader_mistake(loader, key_line, "%s stands here again; first on line %d", name,
                           earlier);
        } else if (option) {
            lines[option - config_options] = key_line;
            read_option(loader, option, under, key_line, base);
        } else if (!is_section(place, name)) {
            tell_unknown_key(loader, key_line, prefix, key);
        } else if (under && fy_node_is_mapping(under)) {
            char section[sizeof(name) + 1];
            snprintf(section, sizeof(section), "%s.", name);
            read_mapping(loader, place, section, under, key_line, base, lines);
        } else if (under && !fy_node_is_null(under)) {
            loader_mistake(loader, yaml_line(under, key_line), "%s must be a block of options",
                           name);
        }
    }
}

void options_read(struct loader *loader, enum option_place place, struct fy_node *node, int line,
                  void *base, int *lines)
{
    bool in_source = place == IN_SOURCE;
    if (!node || !fy_node_is_mapping(node)) {
        loader_mistake(loader, line, "%s must be a block of options",
                       in_source ? "a source" : "the file");
        return;
    }
    read_mapping(loader, place, in_source ? "sources[]." : "", node, line, base, lines);
    for (size_t i = 0; i < config_option_count; i++)
        if (config_options[i].place == place && config_options[i].required && !lines[i])
            loader_mistake(loader, line, "%s is missing", config_options[i].name);
}
