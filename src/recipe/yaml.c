/* SPDX-License-Identifier: Apache-2.0 */
/* Strict YAML on top of libfyaml (recipe/yaml.h). libfyaml keeps positions and bounds nesting (64
 * levels); what it lets through and a recipe must not hold is refused here. */
#include "recipe/yaml.h"

#include "base/slice.h"
#include "base/utf8.h"

static enum oh_status fail_at(struct oh_error *err, int line, const char *what)
{
    if (err)
        err->line = line;
    return oh_fail(err, OH_INVALID, "%s", what);
}

/* libfyaml takes NUL and bytes that are not UTF-8 for the end of the text, without an error. */
static enum oh_status check_text(const char *text, size_t len, struct oh_error *err)
{
    int line = 1;
    if (len > YAML_BYTES_MAX)
        return fail_at(err, 0, "the file is larger than any such file should be");
    for (size_t i = 0; i < len;) {
        unsigned char c = (unsigned char)text[i];
        size_t n = utf8_length(text + i, len - i);
        if (n == 0 || c == 0x7f || (c < 0x20 && c != '\n' && c != '\r' && c != '\t'))
            return fail_at(err, line, "a byte that is no text (UTF-8 without control characters)");
        line += c == '\n';
        i += n;
    }
    return OH_OK;
}

/* The first error that the parser has noted. */
static enum oh_status fail_as_parser(struct yaml *yaml, struct oh_error *err)
{
    void *at = NULL;
    struct fy_diag_error *first = fy_diag_errors_iterate(yaml->diag, &at);
    if (!first || !first->msg)
        return fail_at(err, 0, "the file cannot be read as YAML");
    return fail_at(err, first->line, first->msg);
}

int yaml_line(struct fy_node *node, int otherwise)
{
    void *at = NULL;
    if (!node)
        return otherwise;
    if (fy_node_is_mapping(node)) {
        struct fy_node_pair *pair = fy_node_mapping_iterate(node, &at);
        return pair ? yaml_line(fy_node_pair_key(pair), otherwise) : otherwise;
    }
    if (fy_node_is_sequence(node))
        return yaml_line(fy_node_sequence_iterate(node, &at), otherwise);
    struct fy_token *token = fy_node_get_scalar_token(node);
    const struct fy_mark *mark = token ? fy_token_start_mark(token) : NULL;
    return mark ? mark->line + 1 : otherwise;
}

struct oh_slice yaml_text(struct fy_node *node)
{
    size_t len = 0;
    if (!node || !fy_node_is_scalar(node) || fy_node_is_alias(node))
        return slice_of(NULL, 0);
    const char *text = fy_node_get_scalar(node, &len);
    if (len == 0 && fy_node_get_style(node) == FYNS_PLAIN)
        return slice_of(NULL, 0);
    return slice_of(text ? text : "", len);
}

struct fy_node_pair *yaml_find(struct fy_node *mapping, struct oh_slice key)
{
    void *at = NULL;
    struct fy_node_pair *pair;
    while ((pair = fy_node_mapping_iterate(mapping, &at)))
        if (slice_equals(yaml_text(fy_node_pair_key(pair)), key))
            break;
    return pair;
}

/* Refuses what recipes have no use for; recursion ends at libfyaml's own depth limit. */
static enum oh_status check_node(struct fy_node *node, int line, struct oh_error *err)
{
    enum oh_status status = OH_OK;
    size_t tag_len;
    void *at = NULL;
    if (!node)
        return OH_OK;
    line = yaml_line(node, line);
    if (fy_node_get_tag(node, &tag_len))
        return fail_at(err, line, "YAML tags have no meaning here");
    if (fy_node_is_alias(node))
        return fail_at(err, line, "YAML aliases are not taken; write the value out");
    if (fy_node_is_mapping(node)) {
        struct fy_node_pair *pair;
        while (!status && (pair = fy_node_mapping_iterate(node, &at))) {
            struct fy_node *key = fy_node_pair_key(pair);
            if (!yaml_text(key).data)
                return fail_at(err, yaml_line(key, line), "a key has to be text");
            status = check_node(key, line, err);
            if (!status)
                status = check_node(fy_node_pair_value(pair), yaml_line(key, line), err);
        }
    } else if (fy_node_is_sequence(node)) {
        struct fy_node *item;
        while (!status && (item = fy_node_sequence_iterate(node, &at)))
            status = check_node(item, line, err);
    } else {
        struct oh_slice text = yaml_text(node);
        if (text.len > 0 && memchr(text.data, '\0', text.len))
            return fail_at(err, line, "a NUL in a value");
    }
    return status;
}

/* libfyaml prints its errors unless it is given somewhere else to put them. */
static void swallow(struct fy_diag *diag, void *user, const char *text, size_t len)
{
    (void)diag, (void)user, (void)text, (void)len;
}

static enum oh_status parse(struct yaml *yaml, const char *text, size_t len, struct oh_error *err)
{
    struct fy_diag_cfg diag_config;
    fy_diag_cfg_default(&diag_config);
    diag_config.fp = NULL;
    diag_config.output_fn = swallow;
    yaml->diag = fy_diag_create(&diag_config);
    if (!yaml->diag)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    fy_diag_set_collect_errors(yaml->diag, true);
    struct fy_parse_cfg config = {.flags = FYPCF_QUIET | FYPCF_COLLECT_DIAG | FYPCF_JSON_NONE |
                                           FYPCF_ALLOW_DUPLICATE_KEYS,
                                  .diag = yaml->diag};
    yaml->parser = fy_parser_create(&config);
    if (!yaml->parser || fy_parser_set_string(yaml->parser, text, len) != 0)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    yaml->document = fy_parse_load_document(yaml->parser);
    if (fy_parser_get_stream_error(yaml->parser))
        return fail_as_parser(yaml, err);
    if (!yaml->document || !fy_document_root(yaml->document))
        return fail_at(err, 1, "the file is empty");
    return OH_OK;
}

static enum oh_status check_document(struct yaml *yaml, struct oh_error *err)
{
    void *at = NULL;
    struct fy_node *root = fy_document_root(yaml->document);
    if (fy_document_anchor_iterate(yaml->document, &at))
        return fail_at(err, yaml_line(root, 1), "YAML anchors are not taken; write the value out");
    enum oh_status status = check_node(root, 1, err);
    if (status)
        return status;
    struct fy_document *second = fy_parse_load_document(yaml->parser);
    if (second) {
        int line = yaml_line(fy_document_root(second), 0);
        fy_parse_document_destroy(yaml->parser, second);
        return fail_at(err, line, "a second document in one file");
    }
    return fy_parser_get_stream_error(yaml->parser) ? fail_as_parser(yaml, err) : OH_OK;
}

enum oh_status yaml_open(struct yaml *yaml, const char *text, size_t len, struct oh_error *err)
{
    *yaml = (struct yaml){0};
    enum oh_status status = check_text(text, len, err);
    if (!status)
        status = parse(yaml, text, len, err);
    if (!status)
        status = check_document(yaml, err);
    if (!status)
        yaml->root = fy_document_root(yaml->document);
    return status;
}

void yaml_close(struct yaml *yaml)
{
    if (yaml->document)
        fy_parse_document_destroy(yaml->parser, yaml->document);
    if (yaml->parser)
        fy_parser_destroy(yaml->parser);
    if (yaml->diag)
        fy_diag_destroy(yaml->diag);
    *yaml = (struct yaml){0};
}
