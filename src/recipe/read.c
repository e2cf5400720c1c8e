/* SPDX-License-Identifier: Apache-2.0 */
/* recipe/read.h: what is read goes straight to the member that the key's row names. */
#include "recipe/read.h"

#include "base/slice.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- errors and memory ----------------------------------------------------------------------- */

enum oh_status OH_PRINTF(3, 4)
    read_fail(struct load *load, struct fy_node *node, const char *format, ...)
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

/* Puts the line of `node` to an error that a callee has filled. */
enum oh_status read_place(struct load *load, struct fy_node *node, enum oh_status status)
{
    if (status && load->err)
        load->err->line = yaml_line(node, load->line);
    return status;
}

/* Zeroed memory of the recipe's arena. */
void *read_alloc(struct load *load, size_t bytes)
{
    void *p = oh_arena_alloc(load->recipe->arena, bytes);
    if (p)
        memset(p, 0, bytes);
    else
        oh_fail(load->err, OH_NO_MEMORY, "out of memory");
    return p;
}

/* ---- mappings and lists ---------------------------------------------------------------------- */

enum oh_status read_as(struct load *load, const struct key *key, struct fy_node *node, void *out)
{
    const struct key *outer = load->key;
    load->key = key;
    enum oh_status status = key->read(load, node, out);
    load->key = outer;
    return status;
}

/* `keys` NULL: any. */
enum oh_status read_check_keys(struct load *load, struct fy_node *node, const struct key *keys)
{
    void *at = NULL;
    struct fy_node_pair *pair;
    if (!node || !fy_node_is_mapping(node) || fy_node_mapping_item_count(node) > WORDS_MAX)
        return read_fail(load, node, "`%s` has to be a mapping of at most %d keys", load->key->name,
                         WORDS_MAX);
    while ((pair = fy_node_mapping_iterate(node, &at))) {
        struct fy_node *at_key = fy_node_pair_key(pair);
        struct oh_slice name = yaml_text(at_key);
        int shown = (int)(name.len > 64 ? 64 : name.len);
        const struct key *row = keys;
        while (row && row->name && !slice_equals(slice_of_text(row->name), name))
            row++;
        if (row && !row->name)
            return read_fail(load, at_key, "`%s` has no key '%.*s'", load->key->name, shown,
                             name.data);
        if (yaml_find(node, name) != pair)
            return read_fail(load, at_key, "the key '%.*s' is a duplicate", shown, name.data);
    }
    return OH_OK;
}

/* In the order of the table, whatever the order of the file. */
enum oh_status read_mapping(struct load *load, struct fy_node *node, void *out)
{
    int outer = load->line;
    enum oh_status status = read_check_keys(load, node, load->key->more);
    for (const struct key *row = load->key->more; !status && row->name; row++) {
        struct fy_node_pair *pair = yaml_find(node, slice_of_text(row->name));
        if (pair) {
            load->line = yaml_line(fy_node_pair_key(pair), outer);
            status = read_as(load, row, fy_node_pair_value(pair), (char *)out + row->offset);
            load->line = outer;
        } else if (row->required) {
            status = read_fail(load, node, "`%s` needs the key '%s'", load->key->name, row->name);
        }
    }
    return status;
}

/* The number of items, 1 for a scalar; none or more than `max` is an error. */
enum oh_status read_count(struct load *load, struct fy_node *node, int max, size_t *count)
{
    int n = !node ? 0 : fy_node_is_sequence(node) ? fy_node_sequence_item_count(node) : 1;
    *count = (size_t)n;
    if (n < 1 || n > max)
        return read_fail(load, node, "`%s` has to be a value or a list of 1 to %d", load->key->name,
                         max);
    return OH_OK;
}

struct fy_node *read_item(struct fy_node *node, size_t index)
{
    return fy_node_is_sequence(node) ? fy_node_sequence_get_by_index(node, (int)index) : node;
}

enum oh_status read_list(struct load *load, struct fy_node *node, void *out)
{
    const struct list *list = load->key->more;
    size_t count = 0;
    enum oh_status status = read_count(load, node, LIST_MAX, &count);
    if (status)
        return status;
    char *items = read_alloc(load, count * list->item_bytes);
    if (!items)
        return OH_NO_MEMORY;
    for (size_t i = 0; !status && i < count; i++)
        status = read_as(load, &list->item, read_item(node, i), items + i * list->item_bytes);
    memcpy(out, &items, sizeof(items));
    memcpy((char *)out + sizeof(items), &count, sizeof(count));
    return status;
}

/* ---- scalars --------------------------------------------------------------------------------- */

/* A text that is not empty, copied. */
enum oh_status read_slice(struct load *load, struct fy_node *node, void *out)
{
    struct oh_slice text = yaml_text(node);
    if (!text.data || text.len == 0)
        return read_fail(load, node, "`%s` has to be a text", load->key->name);
    if (text.len > TEXT_MAX)
        return read_fail(load, node, "`%s` is longer than %d bytes", load->key->name, TEXT_MAX);
    return read_place(load, node, recipe_copy(text, load->recipe->arena, out, load->err));
}

enum oh_status read_text(struct load *load, struct fy_node *node, void *out)
{
    struct oh_slice text = {NULL, 0};
    enum oh_status status = read_slice(load, node, &text);
    *(const char **)out = text.data;
    return status;
}

/* Likewise, but it may be empty. */
enum oh_status read_any_text(struct load *load, struct fy_node *node, void *out)
{
    struct oh_slice text = yaml_text(node), copy = {NULL, 0};
    if (!text.data || text.len > TEXT_MAX)
        return read_fail(load, node, "`%s` has to be a text", load->key->name);
    enum oh_status status = recipe_copy(text, load->recipe->arena, &copy, load->err);
    *(const char **)out = copy.data;
    return status;
}

enum oh_status read_provider(struct load *load, struct fy_node *node, void *out)
{
    static const char letters[] = "_-abcdefghijklmnopqrstuvwxyz0123456789";
    enum oh_status status = read_text(load, node, out);
    const char *name = *(const char **)out;
    if (!status && name &&
        (strspn(name, letters) != strlen(name) || strlen(name) > 63 ||
         strspn(name, letters + 2) == 0))
        status = read_fail(load, node, "`provider` has to be a name of a-z, 0-9, _ and -");
    return status;
}

/* A word of `more` as its number: an enum's, in the same order. */
enum oh_status read_word(struct load *load, struct fy_node *node, void *out)
{
    const char *words = load->key->more;
    int value = recipe_find_word(words, yaml_text(node));
    *(unsigned *)out = (unsigned)value;
    if (value < 0)
        return read_fail(load, node, "`%s` has to be one of: %s", load->key->name, words);
    return OH_OK;
}

/* A word that is kept as it is. */
enum oh_status read_word_text(struct load *load, struct fy_node *node, void *out)
{
    unsigned value = 0;
    enum oh_status status = read_word(load, node, &value);
    return status ? status : read_text(load, node, out);
}

enum oh_status read_bool(struct load *load, struct fy_node *node, void *out)
{
    unsigned value = 0;
    enum oh_status status = read_word(load, node, &value);
    *(bool *)out = value == 1;
    return status;
}

enum oh_status read_algorithm(struct load *load, struct fy_node *node, void *out)
{
    enum oh_status status = read_word(load, node, out);
    return status ? status : read_text(load, node, &load->recipe->info.algorithm);
}

/* "300s", "15m", "24h", "7d" -> seconds; or one of the words in `more`. */
enum oh_status read_time(struct load *load, struct fy_node *node, void *out)
{
    static const int64_t seconds[] = {1, 60, 3600, DAY_S};
    static const char units[] = "smhd";
    struct oh_slice text = yaml_text(node);
    int64_t n = 0;
    size_t digits = 0;
    *(int64_t *)out = slice_equals(text, SLICE_LITERAL("never")) ? 0 : -1;
    if (recipe_find_word(load->key->more, text) >= 0)
        return OH_OK;
    while (digits < text.len && digits < 9 && text.data[digits] >= '0' && text.data[digits] <= '9')
        n = n * 10 + (text.data[digits++] - '0');
    const char *unit = digits > 0 && digits + 1 == text.len
                           ? memchr(units, text.data[digits], sizeof(units) - 1)
                           : NULL;
    if (!unit)
        return read_fail(load, node, "`%s` has to be a time such as 300s, 15m, 24h or 7d, or: %s",
                         load->key->name, (const char *)load->key->more);
    *(int64_t *)out = n * seconds[unit - units];
    return OH_OK;
}

enum oh_status read_budget(struct load *load, struct fy_node *node, void *out)
{
    int64_t seconds = 0;
    enum oh_status status = read_time(load, node, &seconds);
    *(int64_t *)out = seconds < 0 ? 0 : seconds * 1000;
    return status;
}
