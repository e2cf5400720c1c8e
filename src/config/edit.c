/* SPDX-License-Identifier: Apache-2.0 */
/* Promise: the text that comes out says what the file said, but for what was asked to change. */
#include "config/edit.h"

#include "config/loader.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- helpers --------------------------------------------------------------------------------- */

static char *quote(const char *value)
{
    char *quoted = malloc(strlen(value) * 2 + 3), *to = quoted;
    if (!quoted)
        return NULL;
    *to++ = '"';
    for (; *value; value++) {
        if (*value == '"' || *value == '\\')
            *to++ = '\\';
        *to++ = *value;
    }
    *to++ = '"';
    *to = '\0';
    return quoted;
}

static bool says(struct fy_node *node, const char *value)
{
    size_t len = 0;
    const char *text = node && fy_node_is_scalar(node) ? fy_node_get_scalar(node, &len) : NULL;
    return text && len == strlen(value) && memcmp(text, value, len) == 0;
}

/* Opens the file; its root is a mapping, or *mistakes says what is wrong. */
static enum oh_status open_mapping(struct loader *loader, const char *path,
                                   struct config_mistakes *mistakes)
{
    *loader = (struct loader){.mistakes = mistakes};
    bool open = loader_open(loader, path);
    if (open && mistakes->count == 0 && !fy_node_is_mapping(loader->yaml.root))
        loader_mistake(loader, 1, "the file must be a mapping (`name: value`)");
    if (loader->no_memory)
        return OH_NO_MEMORY;
    return open && mistakes->count == 0 ? OH_OK : OH_INVALID;
}

/* ---- one scalar in place --------------------------------------------------------------------- */

enum oh_status config_replace(const char *path, const struct config_setting *setting, char **out,
                              struct config_mistakes *mistakes)
{
    struct loader loader;
    enum oh_status status = open_mapping(&loader, path, mistakes);
    *out = NULL;
    if (status != OH_OK)
        goto out;
    struct fy_node *node =
        fy_node_by_path(loader.yaml.root, setting->path, FY_NT, FYNWF_DONT_FOLLOW);
    if (!node || !fy_node_is_scalar(node) || says(node, setting->value))
        goto out;
    struct fy_token *token = fy_node_get_scalar_token(node);
    const struct fy_mark *from = token ? fy_token_start_mark(token) : NULL;
    const struct fy_mark *to = token ? fy_token_end_mark(token) : NULL;
    if (!from || !to)
        goto out;
    size_t start = from->input_pos, end = to->input_pos;
    char before = start > 0 ? loader.text[start - 1] : 0; /* the marks stand inside the quotes */
    if ((before == '"' || before == '\'') && end < loader.len && loader.text[end] == before) {
        start--;
        end++;
    }
    char *quoted = quote(setting->value);
    int len = quoted ? asprintf(out, "%.*s%s%.*s", (int)start, loader.text, quoted,
                                (int)(loader.len - end), loader.text + end)
                     : -1;
    free(quoted);
    if (len < 0) {
        *out = NULL;
        status = OH_NO_MEMORY;
        goto out;
    }
    loader_unmask(*out);
out:
    loader_close(&loader);
    return status;
}

/* ---- a derived file -------------------------------------------------------------------------- */

/* Sets the value of `key`; takes `value`, which may be NULL. */
static bool set_value(struct fy_document *document, struct fy_node *mapping, const char *key,
                      struct fy_node *value)
{
    struct fy_node_pair *pair = fy_node_mapping_lookup_pair_by_string(mapping, key, FY_NT);
    if (!value)
        return false;
    if (pair)
        return fy_node_pair_set_value(pair, value) == 0;
    return fy_node_mapping_append(mapping, fy_node_create_scalar_copy(document, key, FY_NT),
                                  value) == 0;
}

static struct fy_node *make_node(struct fy_document *document, const char *value, bool is_yaml)
{
    char *quoted = is_yaml ? strdup(value) : quote(value);
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the document owns the string from here on */
    return quoted ? fy_node_build_from_malloc_string(document, quoted, FY_NT) : NULL;
}

/* The mapping under `key`, made where nothing, or nothing useful, stands. */
static struct fy_node *enter(struct fy_document *document, struct fy_node *mapping, const char *key)
{
    struct fy_node *inner = fy_node_mapping_lookup_by_string(mapping, key, FY_NT);
    if (inner && fy_node_is_mapping(inner))
        return inner;
    inner = fy_node_create_mapping(document);
    return set_value(document, mapping, key, inner) ? inner : NULL;
}

static bool set(struct fy_document *document, const struct config_setting *setting)
{
    char keys[256];
    struct fy_node *at = fy_document_root(document);
    snprintf(keys, sizeof(keys), "%s", setting->path);
    char *key = keys;
    for (char *slash; at && (slash = strchr(key, '/')) != NULL; key = slash + 1) {
        *slash = '\0';
        at = enter(document, at, key);
    }
    return at &&
           set_value(document, at, key, make_node(document, setting->value, setting->is_yaml));
}

static bool resolve_secret(struct loader *loader, const char *directory, struct fy_node *secret)
{
    struct fy_node *file = secret && fy_node_is_mapping(secret)
                               ? fy_node_mapping_lookup_by_string(secret, "file", FY_NT)
                               : NULL;
    size_t len = 0;
    const char *path = file && fy_node_is_scalar(file) ? fy_node_get_scalar(file, &len) : NULL;
    if (!path || len == 0 || path[0] == '/')
        return true;
    char *absolute = NULL;
    if (asprintf(&absolute, "%s/%.*s", directory, (int)len, path) < 0)
        return false;
    bool ok = set_value(loader->yaml.document, secret, "file",
                        make_node(loader->yaml.document, absolute, false));
    free(absolute);
    return ok;
}

static bool resolve_secrets(struct loader *loader)
{
    char directory[PATH_MAX];
    if (!realpath(loader->directory[0] ? loader->directory : ".", directory))
        return false;
    struct fy_node *sources = fy_node_mapping_lookup_by_string(loader->yaml.root, "sources", FY_NT);
    int count = sources && fy_node_is_sequence(sources) ? fy_node_sequence_item_count(sources) : 0;
    for (int i = 0; i < count; i++) {
        struct fy_node *source = fy_node_sequence_get_by_index(sources, i);
        struct fy_node *secrets = fy_node_is_mapping(source)
                                      ? fy_node_mapping_lookup_by_string(source, "secrets", FY_NT)
                                      : NULL;
        int inner =
            secrets && fy_node_is_sequence(secrets) ? fy_node_sequence_item_count(secrets) : 0;
        for (int j = 0; j < inner; j++)
            if (!resolve_secret(loader, directory, fy_node_sequence_get_by_index(secrets, j)))
                return false;
    }
    return true;
}

enum oh_status config_derive(const char *path, const char *const dropped[],
                             const struct config_setting *settings, char **out,
                             struct config_mistakes *mistakes)
{
    struct loader loader;
    enum oh_status status = open_mapping(&loader, path, mistakes);
    *out = NULL;
    if (status != OH_OK)
        goto out;
    status = OH_NO_MEMORY;
    struct fy_node *root = loader.yaml.root;
    for (; *dropped; dropped++) {
        struct fy_node_pair *pair = fy_node_mapping_lookup_pair_by_string(root, *dropped, FY_NT);
        if (pair)
            fy_node_free(fy_node_mapping_remove_by_key(root, fy_node_pair_key(pair)));
    }
    if (!resolve_secrets(&loader))
        goto out;
    for (; settings->path; settings++)
        if (!set(loader.yaml.document, settings))
            goto out;
    *out = fy_emit_document_to_string(loader.yaml.document, FYECF_MODE_ORIGINAL | FYECF_WIDTH_INF);
    if (!*out)
        goto out;
    loader_unmask(*out);
    status = OH_OK;
out:
    loader_close(&loader);
    return status;
}
