/* SPDX-License-Identifier: Apache-2.0 */
/* The loader's readers of small things: mappings by table, words, texts, durations, values. Every
 * error carries the line it is about. */
#include "recipe/load.h"

#include "base/slice.h"

#include <stdarg.h>
#include <stdio.h>

enum oh_status load_fail(struct load *load, struct fy_node *node, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (load->err) {
        vsnprintf(load->err->text, sizeof(load->err->text), format, args);
        load->err->line = yaml_line(node, load->line);
    }
    va_end(args);
    return OH_INVALID;
}

enum oh_status load_place(struct load *load, struct fy_node *node, enum oh_status status)
{
    if (status && load->err)
        load->err->line = yaml_line(node, load->line);
    return status;
}

void *load_alloc(struct load *load, size_t bytes)
{
    void *p = oh_arena_alloc(load->recipe->arena, bytes);
    if (p)
        memset(p, 0, bytes);
    else
        oh_fail(load->err, OH_NO_MEMORY, "out of memory");
    return p;
}

static const struct load_key *find_key(const struct load_key *keys, size_t count,
                                       struct oh_slice name)
{
    for (size_t i = 0; i < count; i++)
        if (slice_equals(slice_of_text(keys[i].name), name))
            return &keys[i];
    return NULL;
}

static struct fy_node_pair *find_pair(struct fy_node *mapping, const char *name)
{
    void *at = NULL;
    struct fy_node_pair *pair;
    while ((pair = fy_node_mapping_iterate(mapping, &at)))
        if (slice_equals(yaml_text(fy_node_pair_key(pair)), slice_of_text(name)))
            break;
    return pair;
}

static enum oh_status check_keys(struct load *load, struct fy_node *node, const char *what,
                                 const struct load_key *keys, size_t key_count)
{
    void *at = NULL;
    struct fy_node_pair *pair;
    if (!node || !fy_node_is_mapping(node))
        return load_fail(load, node, "%s has to be a mapping", what);
    while ((pair = fy_node_mapping_iterate(node, &at))) {
        struct oh_slice name = yaml_text(fy_node_pair_key(pair));
        if (!find_key(keys, key_count, name))
            return load_fail(load, fy_node_pair_key(pair), "%s has no key '%.*s'", what,
                             (int)(name.len > 64 ? 64 : name.len), name.data);
    }
    return OH_OK;
}

enum oh_status load_mapping(struct load *load, struct fy_node *node, const char *what,
                            const struct load_key *keys, size_t key_count, void *into)
{
    int outer = load->line;
    enum oh_status status = check_keys(load, node, what, keys, key_count);
    for (size_t i = 0; !status && i < key_count; i++) {
        struct fy_node_pair *pair = find_pair(node, keys[i].name);
        if (pair) {
            load->line = yaml_line(fy_node_pair_key(pair), outer);
            status = keys[i].read(load, fy_node_pair_value(pair), into);
            load->line = outer;
        } else if (keys[i].required) {
            status = load_fail(load, node, "%s needs the key '%s'", what, keys[i].name);
        }
    }
    return status;
}

enum oh_status load_word(struct load *load, struct fy_node *node, const char *what,
                         const struct load_word *words, size_t word_count, int *out)
{
    struct oh_slice text = yaml_text(node);
    char list[256] = "";
    size_t used = 0;
    for (size_t i = 0; i < word_count; i++) {
        if (text.data && slice_equals(slice_of_text(words[i].text), text)) {
            *out = words[i].value;
            if (words[i].value != LOAD_LATER)
                return OH_OK;
            return load_fail(load, node, "%s: '%s' is not built yet", what, words[i].text);
        }
        if (words[i].value != LOAD_LATER && used < sizeof(list))
            used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", used ? ", " : "",
                                     words[i].text);
    }
    return load_fail(load, node, "%s has to be one of: %s", what, list);
}

enum oh_status load_text(struct load *load, struct fy_node *node, const char *what,
                         struct oh_slice *out)
{
    struct oh_slice text = yaml_text(node);
    if (!text.data || text.len == 0)
        return load_fail(load, node, "%s has to be a text", what);
    if (text.len > RECIPE_TEXT_MAX)
        return load_fail(load, node, "%s is longer than %d bytes", what, RECIPE_TEXT_MAX);
    return load_place(load, node, recipe_copy(text, load->recipe->arena, out, load->err));
}

enum oh_status load_duration(struct load *load, struct fy_node *node, const char *what,
                             int64_t *seconds)
{
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    struct oh_slice text = yaml_text(node);
    int64_t n = 0;
    size_t digits = 0;
    while (digits < text.len && text.data[digits] >= '0' && text.data[digits] <= '9' && digits < 9)
        n = n * 10 + (text.data[digits++] - '0');
    for (size_t i = 0; i < LOAD_COUNT(units); i++)
        if (digits > 0 && digits + 1 == text.len && text.data[digits] == units[i].unit) {
            *seconds = n * units[i].seconds;
            return OH_OK;
        }
    return load_fail(load, node, "%s has to be a time such as 300s, 15m, 24h or 7d", what);
}

enum oh_status load_bool(struct load *load, struct fy_node *node, const char *what, bool *out)
{
    static const struct load_word words[] = {{"true", 1}, {"false", 0}};
    int value = 0;
    enum oh_status status = load_word(load, node, what, words, LOAD_COUNT(words), &value);
    *out = value == 1;
    return status;
}

size_t load_list_count(struct fy_node *node)
{
    if (node && fy_node_is_sequence(node))
        return (size_t)fy_node_sequence_item_count(node);
    return node ? 1 : 0;
}

struct fy_node *load_list_at(struct fy_node *node, size_t index)
{
    return fy_node_is_sequence(node) ? fy_node_sequence_get_by_index(node, (int)index) : node;
}

enum oh_status load_value(struct load *load, struct fy_node *node, bool literal_allowed,
                          struct recipe_value *out)
{
    struct oh_slice text = {0};
    enum oh_status status = load_text(load, node, "a value", &text);
    if (status)
        return status;
    status = recipe_value_parse(text, literal_allowed, load->recipe->arena, out, load->err);
    return load_place(load, node, status);
}

enum oh_status load_values(struct load *load, struct fy_node *node, const char *what,
                           bool literal_allowed, struct recipe_values *out)
{
    size_t count = load_list_count(node);
    if (count == 0 || count > RECIPE_LIST_MAX)
        return load_fail(load, node, "%s has to be a value or a list of 1 to %d", what,
                         RECIPE_LIST_MAX);
    struct recipe_value *items = load_alloc(load, count * sizeof(*items));
    if (!items)
        return OH_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        enum oh_status status = load_value(load, load_list_at(node, i), literal_allowed, &items[i]);
        if (status)
            return status;
    }
    *out = (struct recipe_values){items, count};
    return OH_OK;
}
