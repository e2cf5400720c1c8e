/* SPDX-License-Identifier: Apache-2.0 */
/* Reading YAML by tables of keys: mappings, lists and scalars, for recipe/load.c. Every reader has
 * the same shape, so that a row of a table can name it; errors carry their line. */
#ifndef RECIPE_READ_H
#define RECIPE_READ_H

#include "recipe/recipe.h"
#include "recipe/yaml.h"

enum {
    LIST_MAX = 32,   /* longest list of values */
    WORDS_MAX = 512, /* longest map of type words */
    TEXT_MAX = 1024, /* longest text, bytes */
    DAY_S = 86400,
};

/* Reads one scheme of a file into a recipe. */
struct load {
    struct oh_recipe *recipe;
    struct oh_error *err;
    const struct key *key; /* that is being read */
    int line;              /* where things without a place of their own are reported */
    struct fy_node *schemes;
};

/* One key of a mapping. A table ends with a row without a name. */
struct key {
    const char *name;
    bool required;
    /* Sets the key's member at `out` to what `node` says. */
    enum oh_status (*read)(struct load *load, struct fy_node *node, void *out);
    size_t offset;    /* of the member, in what the mapping's reader was given */
    const void *more; /* what `read` has to know: words, a table of keys, a struct list */
};

/* A sequence, or a scalar standing for a list of one. It is kept as a pointer with its count behind
 * it, as in struct recipe_values. */
struct list {
    struct key item; /* how one is read */
    size_t item_bytes;
};

_Static_assert(offsetof(struct recipe_events, type_count) ==
                       offsetof(struct recipe_events, type) + sizeof(void *) &&
                   offsetof(struct recipe_events, occurred_at_count) ==
                       offsetof(struct recipe_events, occurred_at) + sizeof(void *),
               "counts stand behind their pointers");

/* Notes an error about `node` and returns OH_INVALID. */
enum oh_status OH_PRINTF(3, 4)
    read_fail(struct load *load, struct fy_node *node, const char *format, ...);
/* Puts the line of `node` to an error that a callee has filled. */
enum oh_status read_place(struct load *load, struct fy_node *node, enum oh_status status);
/* Zeroed memory of the recipe's arena; NULL with the error noted. */
void *read_alloc(struct load *load, size_t bytes);
/* Reads `node` as `key` says. */
enum oh_status read_as(struct load *load, const struct key *key, struct fy_node *node, void *out);
/* `node` is a mapping of the keys in the table `keys`, each once; `keys` NULL: of any. */
enum oh_status read_check_keys(struct load *load, struct fy_node *node, const struct key *keys);

/* Readers: of what each key's `more` says, see read.c. */
enum oh_status read_mapping(struct load *load, struct fy_node *node, void *out);
/* The number of items, 1 for a scalar; none or more than `max` is an error. */
enum oh_status read_count(struct load *load, struct fy_node *node, int max, size_t *count);
struct fy_node *read_item(struct fy_node *node, size_t index);
enum oh_status read_list(struct load *load, struct fy_node *node, void *out);
enum oh_status read_slice(struct load *load, struct fy_node *node, void *out);
enum oh_status read_text(struct load *load, struct fy_node *node, void *out);
enum oh_status read_any_text(struct load *load, struct fy_node *node, void *out);
enum oh_status read_provider(struct load *load, struct fy_node *node, void *out);
enum oh_status read_word(struct load *load, struct fy_node *node, void *out);
enum oh_status read_word_text(struct load *load, struct fy_node *node, void *out);
enum oh_status read_bool(struct load *load, struct fy_node *node, void *out);
enum oh_status read_algorithm(struct load *load, struct fy_node *node, void *out);
enum oh_status read_time(struct load *load, struct fy_node *node, void *out);
enum oh_status read_budget(struct load *load, struct fy_node *node, void *out);

#endif
