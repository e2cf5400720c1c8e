/* SPDX-License-Identifier: Apache-2.0 */
/* Recipe files (docs/providers.md has their form) -> recipes, one a scheme. */
#ifndef RECIPE_LOAD_H
#define RECIPE_LOAD_H

#include "recipe/recipe.h"
#include "recipe/yaml.h"

#define RECIPE_SCHEME_MAX 16 /* schemes of one provider */

/* Reads the file at `root`; duplicate keys are found here. made[0..*count) get its recipes, each
 * for recipe_free(), or none on an error. Errors: OH_INVALID with err->line set, OH_NO_MEMORY. */
enum oh_status load_recipes(struct fy_node *root, struct oh_recipe *made[RECIPE_SCHEME_MAX],
                            size_t *count, struct oh_error *err) OH_MUST_CHECK;

/* The same, and puts them into the catalog: for a recipe inside another YAML file. */
enum oh_status catalog_add_node(struct oh_catalog *catalog, struct fy_node *root,
                                struct oh_error *err) OH_MUST_CHECK;

/* An empty recipe in an arena of its own; NULL when memory is gone. */
struct oh_recipe *recipe_new(void);
void recipe_free(struct oh_recipe *recipe);

/* Sets what follows from the rest: serve window, key grade, what `info` repeats. */
void recipe_finish(struct oh_recipe *recipe);

#endif
