/* SPDX-License-Identifier: Apache-2.0 */
/* What a statement locks and how long it works under it, from its parse tree: the tables of the
 * manual (Explicit Locking, ALTER TABLE) as far as migrations need them. */
#include "schema/statement.h"

#include <pg_query.h>
#include <stdio.h>
#include <stdlib.h>

const char *lock_mode_name(enum lock_mode mode)
{
    static const char *const names[] = {
        "none",  "ACCESS SHARE",        "ROW SHARE", "ROW EXCLUSIVE",   "SHARE UPDATE EXCLUSIVE",
        "SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"};
    return names[mode];
}

/* ---- parsing --------------------------------------------------------------------------------- */

enum oh_status statements_parse(struct oh_slice text, struct statements *out, struct oh_error *err)
{
    char *copy = strndup(text.data, text.len);
    *out = (struct statements){NULL, 0};
    if (!copy)
        return oh_fail(err, OH_NO_MEMORY, "no memory");

    PgQueryParseResult parsed = pg_query_parse(copy);
    json_t *tree = parsed.error ? NULL : json_loads(parsed.parse_tree, 0, NULL);
    enum oh_status status = OH_OK;
    if (tree) {
        out->list = json_incref(json_object_get(tree, "stmts"));
        out->count = json_array_size(out->list);
    } else {
        status = oh_fail(err, OH_INVALID, "%s",
                         parsed.error ? parsed.error->message : "the parse tree is unreadable");
        int line = 1;
        for (int i = 0; parsed.error && i < parsed.error->cursorpos - 1 && copy[i]; i++)
            line += copy[i] == '\n';
        if (err)
            err->line = line;
    }
    json_decref(tree);
    pg_query_free_parse_result(parsed);
    free(copy);
    return status;
}

void statements_free(struct statements *statements)
{
    json_decref(statements->list);
    *statements = (struct statements){NULL, 0};
}

const char *statement_type(const struct statements *statements, size_t i, json_t **members)
{
    json_t *stmt = json_object_get(json_array_get(statements->list, i), "stmt");
    void *only = json_object_iter(stmt);
    *members = json_object_iter_value(only);
    return only ? json_object_iter_key(only) : "";
}

struct oh_slice statement_text(const struct statements *statements, size_t i, struct oh_slice text)
{
    json_t *item = json_array_get(statements->list, i);
    size_t begin = (size_t)json_integer_value(json_object_get(item, "stmt_location"));
    size_t len = (size_t)json_integer_value(json_object_get(item, "stmt_len"));
    return slice_of(text.data + begin, len ? len : text.len - begin);
}

/* ---- looking into a tree --------------------------------------------------------------------- */

json_t *tree_node(json_t *node, const char *path)
{
    while (node && *path) {
        char key[64];
        size_t len = strcspn(path, ".");
        snprintf(key, sizeof(key), "%.*s", (int)len, path);
        node = json_is_array(node) ? json_array_get(node, (size_t)strtoul(key, NULL, 10))
                                   : json_object_get(node, key);
        path += len + (path[len] == '.');
    }
    return node;
}

const char *tree_text(json_t *node, const char *path)
{
    const char *text = json_string_value(tree_node(node, path));
    return text ? text : "";
}

bool tree_flag(json_t *node, const char *path)
{
    return json_is_true(tree_node(node, path));
}

bool tree_contains(json_t *node, const char *type)
{
    const char *key;
    json_t *value;
    size_t i;

    if (json_is_object(node) && json_object_get(node, type))
        return true;
    json_object_foreach(node, key, value) if (tree_contains(value, type)) return true;
    json_array_foreach(node, i, value) if (tree_contains(value, type)) return true;
    return false;
}

/* ---- effects --------------------------------------------------------------------------------- */

struct effects {
    struct effect *items;
    size_t count;
};

static void add(struct effects *to, const char *table, enum lock_mode lock, enum work work)
{
    if (to->count == EFFECTS_MAX || !*table)
        return;
    struct effect *effect = &to->items[to->count++];
    *effect = (struct effect){.lock = lock, .work = work};
    snprintf(effect->table, sizeof(effect->table), "%s", table);
}

/* The forms of ALTER TABLE; what is not here is ACCESS EXCLUSIVE, for a moment. */
static const struct {
    const char *subtype;
    enum lock_mode lock;
    enum work work;
} alters[] = {
    {"AT_ValidateConstraint", LOCK_SHARE_UPDATE_EXCLUSIVE, WORK_SCAN},
    {"AT_SetNotNull", LOCK_ACCESS_EXCLUSIVE, WORK_SCAN},
    {"AT_AlterColumnType", LOCK_ACCESS_EXCLUSIVE, WORK_REWRITE},
    {"AT_SetStatistics", LOCK_SHARE_UPDATE_EXCLUSIVE, WORK_CATALOG},
    {"AT_SetRelOptions", LOCK_SHARE_UPDATE_EXCLUSIVE, WORK_CATALOG},
    {"AT_ResetRelOptions", LOCK_SHARE_UPDATE_EXCLUSIVE, WORK_CATALOG},
    {"AT_EnableTrig", LOCK_SHARE_ROW_EXCLUSIVE, WORK_CATALOG},
    {"AT_DisableTrig", LOCK_SHARE_ROW_EXCLUSIVE, WORK_CATALOG},
    {"AT_SetTableSpace", LOCK_ACCESS_EXCLUSIVE, WORK_REWRITE},
    {"AT_SetLogged", LOCK_ACCESS_EXCLUSIVE, WORK_REWRITE},
    {"AT_SetUnLogged", LOCK_ACCESS_EXCLUSIVE, WORK_REWRITE},
    {"AT_SetAccessMethod", LOCK_ACCESS_EXCLUSIVE, WORK_REWRITE},
};

static void add_constraint(struct effects *to, const char *table, json_t *constraint)
{
    const char *kind = tree_text(constraint, "contype");
    bool is_unproven = tree_flag(constraint, "skip_validation");
    if (strcmp(kind, "CONSTR_FOREIGN") == 0) {
        add(to, table, LOCK_SHARE_ROW_EXCLUSIVE, is_unproven ? WORK_CATALOG : WORK_SCAN);
        add(to, tree_text(constraint, "pktable.relname"), LOCK_SHARE_ROW_EXCLUSIVE,
            is_unproven ? WORK_CATALOG : WORK_SCAN);
    } else if (strcmp(kind, "CONSTR_CHECK") == 0)
        add(to, table, LOCK_ACCESS_EXCLUSIVE, is_unproven ? WORK_CATALOG : WORK_SCAN);
    else
        add(to, table, LOCK_ACCESS_EXCLUSIVE,
            *tree_text(constraint, "indexname") ? WORK_CATALOG : WORK_INDEX);
}

static void add_alter(struct effects *to, const char *table, json_t *command)
{
    const char *subtype = tree_text(command, "subtype");
    enum lock_mode lock = LOCK_ACCESS_EXCLUSIVE;
    enum work work = WORK_CATALOG;
    json_t *constraint;
    size_t i;

    if (strcmp(subtype, "AT_AddConstraint") == 0) {
        add_constraint(to, table, tree_node(command, "def.Constraint"));
        return;
    }
    if (strcmp(subtype, "AT_AttachPartition") == 0) {
        add(to, table, LOCK_SHARE_UPDATE_EXCLUSIVE, WORK_CATALOG);
        add(to, tree_text(command, "def.PartitionCmd.name.relname"), LOCK_ACCESS_EXCLUSIVE,
            WORK_SCAN);
        return;
    }
    if (strcmp(subtype, "AT_DetachPartition") == 0) {
        bool is_concurrent = tree_flag(command, "def.PartitionCmd.concurrent");
        lock = is_concurrent ? LOCK_SHARE_UPDATE_EXCLUSIVE : LOCK_ACCESS_EXCLUSIVE;
        add(to, tree_text(command, "def.PartitionCmd.name.relname"), lock, WORK_CATALOG);
    }
    for (i = 0; i < sizeof(alters) / sizeof(alters[0]); i++)
        if (strcmp(alters[i].subtype, subtype) == 0)
            lock = alters[i].lock, work = alters[i].work;
    add(to, table, lock, work);
    json_array_foreach(tree_node(command, "def.ColumnDef.constraints"), i, constraint)
    {
        json_t *c = tree_node(constraint, "Constraint");
        const char *kind = tree_text(c, "contype");
        if (strcmp(kind, "CONSTR_NOTNULL") != 0 && strcmp(kind, "CONSTR_NULL") != 0 &&
            strcmp(kind, "CONSTR_DEFAULT") != 0 && strncmp(kind, "CONSTR_ATTR", 11) != 0)
            add_constraint(to, table, c);
    }
}

/* The last name of DROP's list: "schema.table" or "table". */
static const char *dropped_name(json_t *object)
{
    json_t *names = tree_node(object, "List.items");
    return tree_text(json_array_get(names, json_array_size(names) - 1), "String.sval");
}

static void add_drop(struct effects *to, json_t *drop)
{
    bool is_index = strcmp(tree_text(drop, "removeType"), "OBJECT_INDEX") == 0;
    json_t *object;
    size_t i;
    if (!is_index && strcmp(tree_text(drop, "removeType"), "OBJECT_TABLE") != 0)
        return;
    json_array_foreach(tree_node(drop, "objects"), i, object)
    {
        add(to, dropped_name(object),
            tree_flag(drop, "concurrent") ? LOCK_SHARE_UPDATE_EXCLUSIVE : LOCK_ACCESS_EXCLUSIVE,
            WORK_CATALOG);
        if (to->count > 0)
            to->items[to->count - 1].is_index = is_index;
    }
}

/* CREATE TABLE: what it makes is nobody's yet; what it refers to is. */
static void add_create(struct effects *to, json_t *create)
{
    json_t *element, *constraint;
    size_t i, k;
    if (tree_node(create, "partbound"))
        add(to, tree_text(create, "inhRelations.0.RangeVar.relname"), LOCK_ACCESS_EXCLUSIVE,
            WORK_CATALOG);
    json_array_foreach(tree_node(create, "tableElts"), i, element)
    {
        add(to, tree_text(element, "Constraint.pktable.relname"), LOCK_SHARE_ROW_EXCLUSIVE,
            WORK_CATALOG);
        json_array_foreach(tree_node(element, "ColumnDef.constraints"), k, constraint)
            add(to, tree_text(constraint, "Constraint.pktable.relname"), LOCK_SHARE_ROW_EXCLUSIVE,
                WORK_CATALOG);
    }
}

static bool has_option(json_t *options, const char *name)
{
    json_t *option;
    size_t i;
    json_array_foreach(options, i, option) if (strcmp(tree_text(option, "DefElem.defname"), name) ==
                                               0) return true;
    return false;
}

static void add_relations(struct effects *to, json_t *list, const char *path, enum lock_mode lock,
                          enum work work)
{
    json_t *item;
    size_t i;
    json_array_foreach(list, i, item) add(to, tree_text(item, path), lock, work);
}

static void add_statement(struct effects *to, const char *type, json_t *m)
{
    const char *table = tree_text(m, "relation.relname");
    json_t *command;
    size_t i;

    if (strcmp(type, "IndexStmt") == 0) {
        bool is_parent_alone = !tree_flag(m, "relation.inh");
        add(to, table, tree_flag(m, "concurrent") ? LOCK_SHARE_UPDATE_EXCLUSIVE : LOCK_SHARE,
            is_parent_alone ? WORK_CATALOG : WORK_INDEX);
    } else if (strcmp(type, "AlterTableStmt") == 0 &&
               strcmp(tree_text(m, "objtype"), "OBJECT_TABLE") == 0) {
        json_array_foreach(tree_node(m, "cmds"), i, command)
            add_alter(to, table, tree_node(command, "AlterTableCmd"));
    } else if (strcmp(type, "RenameStmt") == 0 &&
               strcmp(tree_text(m, "renameType"), "OBJECT_INDEX") != 0)
        add(to, table, LOCK_ACCESS_EXCLUSIVE, WORK_CATALOG);
    else if (strcmp(type, "DropStmt") == 0)
        add_drop(to, m);
    else if (strcmp(type, "CreateStmt") == 0)
        add_create(to, m);
    else if (strcmp(type, "CreateTrigStmt") == 0)
        add(to, table, LOCK_SHARE_ROW_EXCLUSIVE, WORK_CATALOG);
    else if (strcmp(type, "UpdateStmt") == 0 || strcmp(type, "DeleteStmt") == 0 ||
             strcmp(type, "InsertStmt") == 0)
        add(to, table, LOCK_ROW_EXCLUSIVE, WORK_ROWS);
    else if (strcmp(type, "TruncateStmt") == 0)
        add_relations(to, tree_node(m, "relations"), "RangeVar.relname", LOCK_ACCESS_EXCLUSIVE,
                      WORK_CATALOG);
    else if (strcmp(type, "LockStmt") == 0)
        add_relations(to, tree_node(m, "relations"), "RangeVar.relname",
                      (enum lock_mode)json_integer_value(tree_node(m, "mode")), WORK_CATALOG);
    else if (strcmp(type, "ClusterStmt") == 0)
        add(to, table, LOCK_ACCESS_EXCLUSIVE, WORK_REWRITE);
    else if (strcmp(type, "ReindexStmt") == 0)
        add(to, *table ? table : tree_text(m, "name"), /* of SCHEMA, DATABASE, SYSTEM */
            has_option(tree_node(m, "params"), "concurrently") ? LOCK_SHARE_UPDATE_EXCLUSIVE
                                                               : LOCK_SHARE,
            WORK_INDEX);
    else if (strcmp(type, "VacuumStmt") == 0) {
        bool is_full = has_option(tree_node(m, "options"), "full");
        add_relations(to, tree_node(m, "rels"), "VacuumRelation.relation.relname",
                      is_full ? LOCK_ACCESS_EXCLUSIVE : LOCK_SHARE_UPDATE_EXCLUSIVE,
                      is_full ? WORK_REWRITE : WORK_SCAN);
    }
}

size_t statement_effects(const char *type, json_t *members, struct effect effects[EFFECTS_MAX])
{
    struct effects to = {effects, 0};
    add_statement(&to, type, members);
    return to.count;
}
