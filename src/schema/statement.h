/* SPDX-License-Identifier: Apache-2.0 */
/* SQL as PostgreSQL 15's own grammar reads it (libpg_query), and what each statement does to tables
 * that others use: the lock it takes, and for how long it works under it. Pure. */
#ifndef SCHEMA_STATEMENT_H
#define SCHEMA_STATEMENT_H

#include "base/slice.h"

#include <jansson.h>

/* Table locks, weakest first; the order is PostgreSQL's own numbering. */
enum lock_mode {
    LOCK_NONE,
    LOCK_ACCESS_SHARE,
    LOCK_ROW_SHARE,
    LOCK_ROW_EXCLUSIVE,
    LOCK_SHARE_UPDATE_EXCLUSIVE, /* the strongest that readers and writers do not feel */
    LOCK_SHARE,                  /* from here on writers wait */
    LOCK_SHARE_ROW_EXCLUSIVE,
    LOCK_EXCLUSIVE,
    LOCK_ACCESS_EXCLUSIVE, /* readers wait too */
};
const char *lock_mode_name(enum lock_mode mode); /* "ACCESS EXCLUSIVE" */

/* How long a statement holds its lock, at least. */
enum work {
    WORK_CATALOG, /* a moment: the catalog is changed */
    WORK_SCAN,    /* reads the table */
    WORK_INDEX,   /* builds an index */
    WORK_REWRITE, /* writes the table anew */
    WORK_ROWS,    /* writes rows, locking each */
};

struct effect {
    char table[64]; /* a table, or for DROP INDEX … the index */
    bool is_index;
    enum lock_mode lock;
    enum work work;
};
enum { EFFECTS_MAX = 16 };

/* The statements of one text. */
struct statements {
    json_t *list; /* of {"stmt": {TYPE: {…}}, "stmt_location": N, "stmt_len": N} */
    size_t count;
};

/* Parses. Errors: OH_INVALID: err->text is the grammar's complaint, err->line the line in `text`.
 * On OH_OK the caller ends it with statements_free(). */
enum oh_status statements_parse(struct oh_slice text, struct statements *out,
                                struct oh_error *err) OH_MUST_CHECK;
void statements_free(struct statements *statements);

/* The type ("AlterTableStmt") and the members of statement i. */
const char *statement_type(const struct statements *statements, size_t i, json_t **members);

/* Its bytes in `text`, with the comments before it. */
struct oh_slice statement_text(const struct statements *statements, size_t i, struct oh_slice text);

/* What it does to tables, at most EFFECTS_MAX; returns how many. A table that a CREATE makes is not
 * among them. What functions and DO blocks do, it cannot see. */
size_t statement_effects(const char *type, json_t *members, struct effect effects[EFFECTS_MAX]);

/* Looks into a tree: a path such as "relation.relname". "" where there is no such text. */
const char *tree_text(json_t *node, const char *path);
json_t *tree_node(json_t *node, const char *path);
bool tree_flag(json_t *node, const char *path);

/* True if a node of that type stands anywhere in the tree. */
bool tree_contains(json_t *node, const char *type);

#endif
