/* SPDX-License-Identifier: Apache-2.0 */
/* Walking the file: every key finds its row in the table of options, or is a mistake. */
#include "config/loader.h"

#include "base/slice.h"

#include <stdlib.h>

#include <xxhash.h>

/* ---- lists ----------------------------------------------------------------------------------- */

static void read_networks(struct loader *loader, const char *name, struct fy_node *node, int line,
                          struct config_networks *networks)
{
    int count = fy_node_sequence_item_count(node);
    if (count < 1 || count > CONFIG_NETWORKS_MAX) {
        loader_mistake(loader, line, "%s is empty (leave it out to allow all) or longer than %d",
                       name, CONFIG_NETWORKS_MAX);
        return;
    }
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
    }
}

/* One pointer, or a list of them; *lines gets one a line. */
static void read_pointers(struct loader *loader, const struct option *option, struct fy_node *node,
                          int line, char **lines)
{
    bool is_list = node && fy_node_is_sequence(node);
    int count = is_list ? fy_node_sequence_item_count(node) : 1;
    char joined[1024 + 1];
    size_t len = 0;
    for (int i = 0; i < count; i++) {
        struct value value;
        struct fy_node *item = is_list ? fy_node_sequence_get_by_index(node, i) : node;
        if (!value_read(loader, option->name, item, line, &value))
            return;
        size_t more = strlen(value.text);
        if (more == 0 || strchr(value.text, '\n') || len + more + 1 > (size_t)option->max) {
            loader_mistake(loader, value.line, "%s: entry %d is empty, or all are too long",
                           option->name, i + 1);
            return;
        }
        if (i > 0)
            joined[len++] = '\n';
        memcpy(joined + len, value.text, more);
        len += more;
    }
    if (count == 0)
        loader_mistake(loader, line, "%s is empty", option->name);
    else
        *lines = loader_copy(loader, joined, len);
}

/* The file of a systemd credential, malloc'ed; NULL: *wrong says why. */
static char *find_credential(struct loader *loader, const char *name, const char **wrong)
{
    const char *directory = getenv("CREDENTIALS_DIRECTORY");
    char *path = NULL;
    if (strchr(name, '/') || name[0] == '.' || name[0] == 0)
        *wrong = "it is no name of a credential";
    else if (!directory)
        *wrong = "CREDENTIALS_DIRECTORY is not set: it comes with systemd's LoadCredential=";
    else if (asprintf(&path, "%s/%s", directory, name) < 0)
        loader->no_memory = true;
    return *wrong ? NULL : path;
}

/* The secret itself, from wherever its value stands. */
static void take_secret(struct loader *loader, const char *name, const struct value *value,
                        struct config_terms *terms, struct secret *secret,
                        struct secret_origin *origin)
{
    const char *wrong = NULL;
    if (terms->origin == CONFIG_FROM_FILE)
        origin->file = loader_resolve_path(loader, value->text);
    else if (terms->origin == CONFIG_FROM_CREDENTIAL)
        origin->file = find_credential(loader, value->text, &wrong);
    else if (value->in_clear)
        origin->file = loader_copy(loader, loader->config->path, strlen(loader->config->path));
    else
        terms->origin = CONFIG_FROM_ENVIRONMENT;
    size_t len = strlen(value->text);
    if (terms->origin >= CONFIG_FROM_FILE)
        wrong = wrong          ? wrong
                : origin->file ? secret_read_file(loader, origin->file, secret)
                               : NULL;
    else if (len == 0)
        wrong = "it is empty";
    else
        secret->bytes = slice_of(loader_copy(loader, value->text, len), len);
    if (wrong)
        loader_mistake(
            loader, value->line, "%s: a %s cannot be taken: %s", name,
            terms->origin < CONFIG_FROM_FILE ? "secret" : config_origin_word(terms->origin), wrong);
}

/* name, not_before or not_after. Returns NULL, or what is wrong. */
static const char *take_term(struct config_terms *terms, const char *key, const char *text)
{
    const char *wrong = NULL;
    if (strcmp(key, "not_before") == 0)
        return moment_parse(text, &terms->not_before_ms);
    if (strcmp(key, "not_after") == 0)
        return moment_parse(text, &terms->not_after_ms);
    wrong = name_check(text);
    if (!wrong && strncmp(text, "learned", 7) == 0)
        wrong = "may not begin with \"learned\": handshakes' secrets are called so";
    if (!wrong)
        snprintf(terms->name, sizeof(terms->name), "%s", text);
    return wrong;
}

/* One entry of `secrets`: a text, or a block of it and its terms. */
static void read_one_secret(struct loader *loader, const char *name, struct fy_node *node,
                            struct secret *secret, struct config_terms *terms,
                            struct secret_origin *origin)
{
    static const char *const places[] = {[CONFIG_FROM_TEXT] = "value",
                                         [CONFIG_FROM_FILE] = "file",
                                         [CONFIG_FROM_CREDENTIAL] = "credential"};
    static const char *const more[] = {"name", "not_before", "not_after"};
    struct value value;
    int found = 0, known = 0;
    struct fy_node *from = node;
    for (size_t i = 0; node && fy_node_is_mapping(node) && i < 4; i++) {
        struct fy_node_pair *pair = places[i] ? yaml_find(node, slice_of_text(places[i])) : NULL;
        if (!pair)
            continue;
        from = fy_node_pair_value(pair);
        terms->origin = (enum config_origin)i;
        found++;
    }
    for (size_t i = 0; found && i < 3; i++) {
        struct fy_node_pair *pair = yaml_find(node, slice_of_text(more[i]));
        if (!pair)
            continue;
        known++;
        if (!value_read(loader, name, fy_node_pair_value(pair), origin->line, &value))
            continue;
        const char *wrong = take_term(terms, more[i], value.text);
        if (wrong)
            loader_mistake(loader, value.line, "%s: %s %s", name, more[i], wrong);
    }
    if (node && fy_node_is_mapping(node) &&
        (found != 1 || fy_node_mapping_item_count(node) != 1 + known)) {
        loader_mistake(loader, origin->line,
                       "%s: each is a text or {file: PATH}, or another block of a `value`, `file` "
                       "or `credential` with its `name`, `not_before`, `not_after`",
                       name);
        return;
    }
    if (terms->not_before_ms > terms->not_after_ms)
        loader_mistake(loader, origin->line, "%s: not_after comes before not_before", name);
    if (value_read(loader, name, from, origin->line, &value))
        take_secret(loader, name, &value, terms, secret, origin);
}

/* Evidence goes by name. */
static void check_secret_names(struct loader *loader, const char *name,
                               const struct source_form *form)
{
    const struct config_terms *terms = form->source.terms;
    for (size_t i = 1; i < form->secret_count; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(terms[i].name, terms[k].name) == 0)
                loader_mistake(loader, form->secret_origins[i].line,
                               "%s: secret %zu has the name of secret %zu", name, i + 1, k + 1);
}

static void read_secrets(struct loader *loader, const char *name, struct fy_node *node, int line,
                         struct source_form *form)
{
    int count = fy_node_sequence_item_count(node);
    if (count < 1 || count > CONFIG_SECRETS_MAX) {
        loader_mistake(loader, line, "%s: there must be 1 to %d", name, CONFIG_SECRETS_MAX);
        return;
    }
    form->secret_origins = loader_alloc(loader, (size_t)count, sizeof(*form->secret_origins));
    form->source.secrets = loader_alloc(loader, (size_t)count, sizeof(*form->source.secrets));
    form->source.terms = loader_alloc(loader, (size_t)count, sizeof(*form->source.terms));
    if (!form->source.secrets || !form->source.terms || !form->secret_origins)
        return;
    form->source.secret_count = form->secret_count =
        (size_t)count; /* those with a mistake stay empty */
    for (int i = 0; i < count; i++) {
        struct fy_node *item = fy_node_sequence_get_by_index(node, i);
        struct config_terms *terms = &form->source.terms[i];
        *terms = (struct config_terms){.not_before_ms = INT64_MIN, .not_after_ms = INT64_MAX};
        snprintf(terms->name, sizeof(terms->name), "%d", i + 1);
        form->secret_origins[i].line = yaml_line(item, line);
        read_one_secret(loader, name, item, &form->source.secrets[i], terms,
                        &form->secret_origins[i]);
    }
    check_secret_names(loader, name, form);
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
        struct fy_node *item = fy_node_sequence_get_by_index(node, i);
        struct source_form *form = &loader->forms[loader->form_count++];
        form->source.line = yaml_line(item, line);
        options_set_defaults(loader, IN_SOURCE, form);
        options_read(loader, IN_SOURCE, item, form->source.line, form, form->lines);
    }
}

/* ---- options and sections -------------------------------------------------------------------- */

static void read_scalar(struct loader *loader, const struct option *option, struct fy_node *node,
                        int line, void *into)
{
    struct value value;
    if (!value_read(loader, option->name, node, line, &value))
        return;
    const char *wrong = option_parse(loader, option, value.text, into);
    if (!wrong && option->type == OPTION_SECRET && value.in_clear)
        loader_note_file(loader, CONFIG_FILE_SECRET, loader->config->path, value.line);
    if (!wrong)
        return;
    char bounds[128] = "";
    FILE *to = fmemopen(bounds, sizeof(bounds), "w");
    if (to) {
        option_print_bounds(to, option);
        fclose(to);
    }
    loader_mistake(loader, value.line, bounds[0] ? "%s %s (%s)" : "%s %s", option->name, wrong,
                   bounds);
}

/* For config_changes(): what was written, `${VAR}` as it stands there. Sources have their own. */
static void note_written(struct loader *loader, const struct option *option, struct fy_node *node,
                         void *base)
{
    uint64_t **written = option->place == IN_CONFIG ? &((struct config *)base)->written
                                                    : &((struct source_form *)base)->source.written;
    if (option->type == OPTION_SOURCES)
        return;
    if (!*written)
        *written = loader_alloc(loader, CONFIG_OPTIONS_MAX, sizeof(**written));
    char *text = fy_emit_node_to_string(node, FYECF_MODE_FLOW_ONELINE | FYECF_WIDTH_INF);
    if (*written && text)
        (*written)[option - config_options] = XXH3_64bits(text, strlen(text)) | 1;
    text_free_wiped(text);
}

static void read_option(struct loader *loader, const struct option *option, struct fy_node *node,
                        int line, void *base)
{
    void *into = (char *)base + option->offset;
    note_written(loader, option, node, base);
    if (option->part & ~loader->parts)
        return;
    if (option->type == OPTION_POINTERS)
        read_pointers(loader, option, node, line, into);
    else if (option->type < OPTION_NETWORKS)
        read_scalar(loader, option, node, line, into);
    else if (!node || !fy_node_is_sequence(node))
        loader_mistake(loader, line, "%s must be a list", option->name);
    else if (option->type == OPTION_NETWORKS)
        read_networks(loader, option->name, node, line, into);
    else if (option->type == OPTION_SECRETS)
        read_secrets(loader, option->name, node, line, base);
    else if (option->type == OPTION_SOURCES)
        read_sources(loader, option->name, node, line);
    else
        loader->recipes = node;
}

/* The option of that name; *is_section: options stand below it. */
static const struct option *find_option(enum option_place place, const char *name, bool *is_section)
{
    size_t len = strlen(name);
    *is_section = false;
    for (size_t i = 0; i < config_option_count; i++) {
        const struct option *option = &config_options[i];
        if (option->place != place || strncmp(option->name, name, len) != 0)
            continue;
        if (option->name[len] == 0)
            return option;
        *is_section |= option->name[len] == '.';
    }
    return NULL;
}

/* A key that could be a misplaced secret is not repeated. */
static void tell_unknown_key(struct loader *loader, int line, const char *prefix, const char *key)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-.";
    size_t len = strlen(key);
    if (len > 0 && len <= 40 && strspn(key, letters) == len)
        loader_mistake(loader, line, "no option is called %s%s", prefix, key);
    else
        loader_mistake(loader, line, "a key that is no option, under \"%s\"", prefix);
}

/* The pairs of one mapping; `prefix` is "" or what stands before the key, with its dot. */
static void read_mapping(struct loader *loader, enum option_place place, const char *prefix,
                         struct fy_node *node, int line, void *base, int *lines)
{
    void *at = NULL;
    struct fy_node_pair *pair;
    while ((pair = fy_node_mapping_iterate(node, &at))) {
        char name[128];
        bool is_section;
        struct fy_node *under = fy_node_pair_value(pair);
        struct oh_slice key = yaml_text(fy_node_pair_key(pair));
        int key_line = yaml_line(fy_node_pair_key(pair), line);
        size_t prefix_len = strlen(prefix);
        size_t len = (size_t)snprintf(name, sizeof(name), "%s%.*s", prefix, (int)key.len, key.data);
        const struct option *option = find_option(place, name, &is_section);
        struct fy_node_pair *first = yaml_find(node, key);
        if (len >= sizeof(name) - 1 || (!option && !is_section)) {
            tell_unknown_key(loader, key_line, prefix, name + prefix_len);
        } else if (first != pair) {
            loader_mistake(loader, key_line, "%s stands here again; first on line %d", name,
                           yaml_line(fy_node_pair_key(first), 1));
        } else if (option) {
            lines[option - config_options] = key_line;
            read_option(loader, option, under, key_line, base);
        } else if (under && fy_node_is_mapping(under)) {
            memcpy(name + len, ".", 2);
            read_mapping(loader, place, name, under, key_line, base, lines);
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
        if (config_options[i].place == place && config_options[i].by_default == option_required &&
            config_options[i].type != OPTION_SECRETS && !lines[i])
            loader_mistake(loader, line, "%s is missing", config_options[i].name);
}
