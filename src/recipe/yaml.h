/* SPDX-License-Identifier: Apache-2.0 */
/* One small YAML document with positions, read the strict way: one document, no anchors, aliases
 * or tags, nothing but text in it. Keys that stand twice are left to the caller, who knows which.
 */
#ifndef RECIPE_YAML_H
#define RECIPE_YAML_H

#include "oncehook/types.h"

#include <libfyaml.h>

#define YAML_BYTES_MAX (1 << 20)

struct yaml {
    struct fy_diag *diag;
    struct fy_parser *parser;
    struct fy_document *document;
    struct fy_node *root; /* NULL until it is open */
};

/* Parses text[0..len), which must outlive *yaml. Always followed by yaml_close(). Errors:
 * OH_INVALID with err->line set, OH_NO_MEMORY. */
enum oh_status yaml_open(struct yaml *yaml, const char *text, size_t len,
                         struct oh_error *err) OH_MUST_CHECK;
void yaml_close(struct yaml *yaml);

/* The line of `node`, from 1: that of the first scalar in it; `otherwise` where there is none. */
int yaml_line(struct fy_node *node, int otherwise);

/* A scalar's text; data == NULL for anything else, and for a value that was left out. */
struct oh_slice yaml_text(struct fy_node *node);

/* The first pair of a mapping with that key, or NULL. */
struct fy_node_pair *yaml_find(struct fy_node *mapping, struct oh_slice key);

#endif
