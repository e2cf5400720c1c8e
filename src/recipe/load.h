/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the loader share: the cursor over one recipe file, tables of keys and words,
 * and the readers of small things. load.c reads the file and its schemes, load_events.c `events`.
 */
#ifndef RECIPE_LOAD_H
#define RECIPE_LOAD_H

#include "recipe/recipe.h"
#include "recipe/yaml.h"

#define RECIPE_LIST_MAX   32   /* longest list of values */
#define RECIPE_WORDS_MAX  2048 /* longest map of type words */
#define RECIPE_TEXT_MAX   1024 /* longest text, bytes */
#define RECIPE_SCHEME_MAX 16   /* schemes of one provider */

/* Reads one file into one recipe. */
struct load {
    struct oh_recipe *recipe;
    struct oh_error *err;
    int line;                /* where things without a place of their own are reported */
    struct fy_node *schemes; /* the list under `schemes` */
};

/* Sets the line of `node` and the text; always OH_INVALID. */
enum oh_status load_fail(struct load *load, struct fy_node *node, const char *format, ...)
    OH_PRINTF(3, 4);

/* Puts the line of `node` to an error that a callee has filled. */
enum oh_status load_place(struct load *load, struct fy_node *node, enum oh_status status);

/* Zeroed memory of the recipe's arena; NULL fills *load->err. */
void *load_alloc(struct load *load, size_t bytes);

/* One key of a mapping. */
struct load_key {
    const char *name;
    bool required;
    enum oh_status (*read)(struct load *load, struct fy_node *node, void *into);
};

/* Reads the mapping `node` by its table: an unknown key and a missing one are errors. `what` names
 * the mapping in them. */
enum oh_status load_mapping(struct load *load, struct fy_node *node, const char *what,
                            const struct load_key *keys, size_t key_count, void *into);

/* One word of a list of words; LOAD_LATER = the form has it, this program does not do it yet. */
struct load_word {
    const char *text;
    int value;
};
enum { LOAD_LATER = -1 };

enum oh_status load_word(struct load *load, struct fy_node *node, const char *what,
                         const struct load_word *words, size_t word_count, int *out);

/* A scalar that is not empty, copied. */
enum oh_status load_text(struct load *load, struct fy_node *node, const char *what,
                         struct oh_slice *out);

/* "300s", "15m", "24h", "7d" -> seconds. */
enum oh_status load_duration(struct load *load, struct fy_node *node, const char *what,
                             int64_t *seconds);

enum oh_status load_bool(struct load *load, struct fy_node *node, const char *what, bool *out);

/* A sequence, or a scalar standing for a list of one. */
size_t load_list_count(struct fy_node *node);
struct fy_node *load_list_at(struct fy_node *node, size_t index);

/* One value, or a list of them. */
enum oh_status load_value(struct load *load, struct fy_node *node, bool literal_allowed,
                          struct recipe_value *out);
enum oh_status load_values(struct load *load, struct fy_node *node, const char *what,
                           bool literal_allowed, struct recipe_values *out);

/* `events:` into *into (struct recipe_events). */
enum oh_status load_events(struct load *load, struct fy_node *node, void *into);

/* The number of schemes in the file at `root`, at least 1. */
enum oh_status load_scheme_count(struct fy_node *root, size_t *count, struct oh_error *err);

/* Reads scheme `index` of the file at `root` into a recipe of its own; *out: recipe_free(). */
enum oh_status load_recipe(struct fy_node *root, size_t index, struct oh_recipe **out,
                           struct oh_error *err);

/* An empty recipe in an arena of its own; NULL when memory is gone. */
struct oh_recipe *recipe_new(void);
void recipe_free(struct oh_recipe *recipe);

/* Sets what follows from the rest: serve window, key grade, whether signing takes a private half.
 */
void recipe_finish(struct oh_recipe *recipe);

#define LOAD_COUNT(table) (sizeof(table) / sizeof((table)[0]))

#endif
