/* SPDX-License-Identifier: Apache-2.0 */
/* Promise: the text that comes out says what the file said, but for what was asked to change. */
#include "config/edit.h"

#include "config/loader.h"

#include "base/slice.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

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

/* The value under `key`; NULL for anything that is no mapping. */
static struct fy_node *child(struct fy_node *node, const char *key)
{
    struct fy_node_pair *pair =
        node && fy_node_is_mapping(node) ? yaml_find(node, slice_of_text(key)) : NULL;
    return pair ? fy_node_pair_value(pair) : NULL;
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
    if (!node || !fy_node_is_scalar(node) ||
        slice_equals(yaml_text(node), slice_of_text(setting->value)))
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
    struct fy_node_pair *pair = yaml_find(mapping, slice_of_text(key));
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
    struct fy_node *inner = child(mapping, key);
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

/* Makes the `file` of every source's secrets absolute. */
static bool resolve_secrets(struct loader *loader)
{
    char directory[PATH_MAX];
    struct fy_document *document = loader->yaml.document;
    struct fy_node *sources = child(loader->yaml.root, "sources"), *source, *secret;
    void *at = NULL;
    bool fine = realpath(loader->directory[0] ? loader->directory : ".", directory) != NULL;
    while (fine && sources && (source = fy_node_sequence_iterate(sources, &at))) {
        struct fy_node *secrets = child(source, "secrets");
        void *at_secret = NULL;
        while (fine && secrets && (secret = fy_node_sequence_iterate(secrets, &at_secret))) {
            struct oh_slice file = yaml_text(child(secret, "file"));
            char *absolute = NULL;
            if (file.len == 0 || file.data[0] == '/')
                continue;
            fine = asprintf(&absolute, "%s/%.*s", directory, (int)file.len, file.data) >= 0;
            if (fine)
                fine = set_value(document, secret, "file", make_node(document, absolute, false));
            free(absolute);
        }
    }
    return fine;
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
        struct fy_node_pair *pair = yaml_find(root, slice_of_text(*dropped));
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
