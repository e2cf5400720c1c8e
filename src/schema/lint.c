/* SPDX-License-Identifier: Apache-2.0 */
/* The rules, and how each is found in a parse tree. A table that the same migration makes is
 * nobody's yet and exempt. A comment `-- lint: allow RULE because …` before or in a statement is a
 * person's word that it is meant. */
#include "schema/lint.h"

#include "schema/lint_rules.h"
#include "schema/statement.h"
#include "schema/step.h"

#include <stdio.h>
#include <stdlib.h>

struct lint {
    json_t *made;        /* name of a table, index, function -> number of the migration */
    json_t *partitioned; /* names of such tables */
    json_t *index_table; /* index -> its table */
    json_t *null_checks; /* "table.constraint" -> column of CHECK (column IS NOT NULL) */
    json_t *not_null;    /* "table.column": such a check is validated */

    /* of the file */
    const struct embedded_file *file;
    char number[64];
    bool is_down, has_steps;
    lint_sink *sink;
    void *context;

    /* of the step */
    const struct step *step;
    json_t *locked; /* tables that writers cannot reach -> number of the statement, from 1 */

    /* of the statement */
    int line;
    size_t statement; /* from 1 */
    const char *type;
    unsigned allowed, used, found; /* bits of rules */
};
_Static_assert(RULE_COUNT <= 32, "bits of an unsigned");

struct lint *lint_new(void)
{
    struct lint *lint = calloc(1, sizeof(*lint));
    if (lint)
        *lint = (struct lint){.made = json_object(),
                              .partitioned = json_object(),
                              .index_table = json_object(),
                              .null_checks = json_object(),
                              .not_null = json_object()};
    return lint;
}

void lint_free(struct lint *lint)
{
    if (!lint)
        return;
    json_decref(lint->made);
    json_decref(lint->partitioned);
    json_decref(lint->index_table);
    json_decref(lint->null_checks);
    json_decref(lint->not_null);
    free(lint);
}

static void report(struct lint *lint, int line, enum rule rule)
{
    if (lint->sink)
        lint->sink(lint->context, lint->file->name, line, &lint_rules[rule]);
}

static void find(struct lint *lint, enum rule rule)
{
    lint->used |= 1U << rule;
    if (!((lint->allowed | lint->found) & 1U << rule))
        report(lint, lint->line, rule);
    lint->found |= 1U << rule;
}

/* Made by this migration, so that nobody else knows it yet. */
static bool is_own(const struct lint *lint, const char *name)
{
    const char *number = json_string_value(json_object_get(lint->made, name));
    return number && strcmp(number, lint->number) == 0;
}

static void set_made(struct lint *lint, const char *name)
{
    if (*name && !lint->is_down)
        json_object_set_new(lint->made, name, json_string(lint->number));
}

/* ---- columns and constraints ----------------------------------------------------------------- */

/* Functions that are known to give one value for a whole statement. */
static bool is_steady(json_t *call)
{
    static const char *const steady[] = {
        "now",          "transaction_timestamp", "statement_timestamp", "pg_current_xact_id",
        "txid_current", "current_schema"};
    json_t *names = tree_node(call, "funcname");
    const char *name = tree_text(json_array_get(names, json_array_size(names) - 1), "String.sval");
    for (size_t i = 0; i < sizeof(steady) / sizeof(steady[0]); i++)
        if (strcmp(name, steady[i]) == 0)
            return true;
    return false;
}

static bool has_volatile_call(json_t *node)
{
    json_t *value, *call = json_object_get(node, "FuncCall");
    const char *key;
    size_t i;
    if (call && !is_steady(call))
        return true;
    json_object_foreach(node, key, value) if (has_volatile_call(value)) return true;
    json_array_foreach(node, i, value) if (has_volatile_call(value)) return true;
    return false;
}

static void check_constraint(struct lint *lint, const char *table, json_t *constraint)
{
    const char *kind = tree_text(constraint, "contype"), *name = tree_text(constraint, "conname");
    bool is_check = strcmp(kind, "CONSTR_CHECK") == 0;
    json_t *test = tree_node(constraint, "raw_expr.NullTest");

    if (is_check && strcmp(tree_text(test, "nulltesttype"), "IS_NOT_NULL") == 0 && *name) {
        char key[160];
        snprintf(key, sizeof(key), "%s.%s", table, name);
        json_object_set(lint->null_checks, key,
                        tree_node(test, "arg.ColumnRef.fields.0.String.sval"));
    }
    if (is_own(lint, table))
        return;
    if (is_check || strcmp(kind, "CONSTR_FOREIGN") == 0) {
        if (!tree_flag(constraint, "skip_validation"))
            find(lint, CONSTRAINT_NOT_VALID);
    } else if (strcmp(kind, "CONSTR_UNIQUE") == 0 || strcmp(kind, "CONSTR_PRIMARY") == 0 ||
               strcmp(kind, "CONSTR_EXCLUSION") == 0) {
        if (!*tree_text(constraint, "indexname"))
            find(lint, CONSTRAINT_BUILDS_INDEX);
    }
}

static void check_new_column(struct lint *lint, const char *table, json_t *column)
{
    json_t *names = tree_node(column, "typeName.names"), *constraint;
    const char *type = tree_text(json_array_get(names, json_array_size(names) - 1), "String.sval");
    size_t len = strlen(type), i;
    bool is_volatile = len >= 6 && strcmp(type + len - 6, "serial") == 0;
    bool has_default = is_volatile, is_not_null = false;

    if (is_own(lint, table))
        return;
    json_array_foreach(tree_node(column, "constraints"), i, constraint)
    {
        json_t *c = tree_node(constraint, "Constraint");
        const char *kind = tree_text(c, "contype");
        bool is_made =
            strcmp(kind, "CONSTR_IDENTITY") == 0 || strcmp(kind, "CONSTR_GENERATED") == 0;
        has_default = has_default || is_made || strcmp(kind, "CONSTR_DEFAULT") == 0;
        is_not_null = is_not_null || strcmp(kind, "CONSTR_NOTNULL") == 0;
        is_volatile =
            is_volatile || is_made || (strcmp(kind, "CONSTR_DEFAULT") == 0 && has_volatile_call(c));
        check_constraint(lint, table, c);
    }
    if (is_volatile)
        find(lint, COLUMN_VOLATILE_DEFAULT);
    if (is_not_null && !has_default)
        find(lint, COLUMN_NOT_NULL);
}

static void check_validate(struct lint *lint, const char *table, const char *constraint)
{
    char key[160];
    snprintf(key, sizeof(key), "%s.%s", table, constraint);
    const char *column = json_string_value(json_object_get(lint->null_checks, key));
    if (column) {
        snprintf(key, sizeof(key), "%s.%s", table, column);
        json_object_set_new(lint->not_null, key, json_true());
    }
    if (!is_own(lint, table) && json_object_get(lint->locked, table))
        find(lint, VALIDATE_UNDER_LOCK);
}

static void check_alter(struct lint *lint, const char *table, json_t *command)
{
    const char *subtype = tree_text(command, "subtype"), *name = tree_text(command, "name");
    const char *part = tree_text(command, "def.PartitionCmd.name.relname");
    char key[160];

    if (strcmp(subtype, "AT_AddColumn") == 0)
        check_new_column(lint, table, tree_node(command, "def.ColumnDef"));
    else if (strcmp(subtype, "AT_AddConstraint") == 0)
        check_constraint(lint, table, tree_node(command, "def.Constraint"));
    else if (strcmp(subtype, "AT_ValidateConstraint") == 0)
        check_validate(lint, table, name);
    if (is_own(lint, table))
        return;
    if (strcmp(subtype, "AT_SetNotNull") == 0) {
        snprintf(key, sizeof(key), "%s.%s", table, name);
        if (!json_object_get(lint->not_null, key))
            find(lint, SET_NOT_NULL_SCANS);
    } else if (strcmp(subtype, "AT_AlterColumnType") == 0)
        find(lint, TYPE_REWRITE);
    else if (strcmp(subtype, "AT_DropColumn") == 0 && !lint->is_down)
        find(lint, REMOVES);
    else if (strcmp(subtype, "AT_AttachPartition") == 0 && !is_own(lint, part))
        find(lint, ATTACH_SCANS);
    else if (strcmp(subtype, "AT_DetachPartition") == 0 &&
             !tree_flag(command, "def.PartitionCmd.concurrent"))
        find(lint, DETACH_LOCKS);
    else if (strcmp(subtype, "AT_SetTableSpace") == 0 || strcmp(subtype, "AT_SetLogged") == 0 ||
             strcmp(subtype, "AT_SetUnLogged") == 0 || strcmp(subtype, "AT_SetAccessMethod") == 0)
        find(lint, REWRITES_TABLE);
}

/* ---- the other statements -------------------------------------------------------------------- */

static void check_create_table(struct lint *lint, json_t *create)
{
    const char *table = tree_text(create, "relation.relname");
    if (!tree_flag(create, "if_not_exists") || !json_object_get(lint->made, table))
        set_made(lint, table); /* else it is somebody's already */
    if (tree_node(create, "partspec"))
        json_object_set_new(lint->partitioned, table, json_true());
    if (tree_node(create, "partbound") &&
        !is_own(lint, tree_text(create, "inhRelations.0.RangeVar.relname")))
        find(lint, PARTITION_OF_LOCKS);
}

static void check_index(struct lint *lint, json_t *index)
{
    const char *table = tree_text(index, "relation.relname"), *name = tree_text(index, "idxname");
    set_made(lint, name);
    json_object_set_new(lint->index_table, name, json_string(table));
    if (tree_flag(index, "if_not_exists"))
        find(lint, INDEX_IF_NOT_EXISTS);
    if (!is_own(lint, table) && !tree_flag(index, "concurrent") && tree_flag(index, "relation.inh"))
        find(lint, INDEX_LOCKS_WRITERS);
}

/* The last name of one object of a DROP. */
static const char *object_name(json_t *object)
{
    json_t *names = tree_node(object, "List.items");
    if (!names)
        names = tree_node(object, "ObjectWithArgs.objname");
    if (!names)
        return tree_text(object, "String.sval");
    return tree_text(json_array_get(names, json_array_size(names) - 1), "String.sval");
}

static void check_drop(struct lint *lint, json_t *drop)
{
    const char *kind = tree_text(drop, "removeType");
    bool is_index = strcmp(kind, "OBJECT_INDEX") == 0;
    json_t *object;
    size_t i;

    if (lint->is_down && lint->has_steps && !tree_flag(drop, "missing_ok"))
        find(lint, DOWN_ONCE);
    json_array_foreach(tree_node(drop, "objects"), i, object)
    {
        const char *name = object_name(object);
        const char *table = json_string_value(json_object_get(lint->index_table, name));
        if (is_index && !tree_flag(drop, "concurrent")) {
            if (!table || (!is_own(lint, table) && !json_object_get(lint->partitioned, table)))
                find(lint, DROP_INDEX_LOCKS);
        } else if ((strcmp(kind, "OBJECT_TABLE") == 0 || strcmp(kind, "OBJECT_FUNCTION") == 0 ||
                    strcmp(kind, "OBJECT_SCHEMA") == 0) &&
                   !lint->is_down && !is_own(lint, name))
            find(lint, REMOVES);
    }
}

/* RENAME, and SET SCHEMA. */
static void check_rename(struct lint *lint, json_t *rename)
{
    const char *kind = tree_text(rename, "renameType");
    const char *name = tree_text(rename, "relation.relname");
    if (!*kind)
        kind = tree_text(rename, "objectType");
    if (!*name)
        name = object_name(tree_node(rename, "object"));
    if (!lint->is_down && !is_own(lint, name) &&
        (strcmp(kind, "OBJECT_TABLE") == 0 || strcmp(kind, "OBJECT_COLUMN") == 0 ||
         strcmp(kind, "OBJECT_FUNCTION") == 0 || strcmp(kind, "OBJECT_SCHEMA") == 0))
        find(lint, RENAMES);
}

static void check_function(struct lint *lint, json_t *function)
{
    json_t *names = tree_node(function, "funcname");
    const char *name = tree_text(json_array_get(names, json_array_size(names) - 1), "String.sval");
    if (!tree_flag(function, "replace"))
        set_made(lint, name);
    else if (!lint->is_down && !is_own(lint, name))
        find(lint, REPLACES_FUNCTION);
}

/* Rows that are written anywhere in a statement: in WITH, in EXPLAIN ANALYZE, in PREPARE. What a
 * function or a rule will do when somebody calls it is not done now. */
static void check_writes(struct lint *lint, const char *type, json_t *node)
{
    json_t *value;
    const char *key;
    size_t i;
    if (lint->step->kind != STEP_TRANSACTION || strcmp(type, "CreateFunctionStmt") == 0 ||
        strcmp(type, "RuleStmt") == 0)
        return;
    bool is_write = strcmp(type, "UpdateStmt") == 0 || strcmp(type, "DeleteStmt") == 0 ||
                    strcmp(type, "MergeStmt") == 0;
    if (is_write && !is_own(lint, tree_text(node, "relation.relname")))
        find(lint, WHOLE_TABLE_WRITE);
    json_object_foreach(node, key, value) check_writes(lint, key, value);
    json_array_foreach(node, i, value) check_writes(lint, "", value);
}

static void check_drop_owned(struct lint *lint, json_t *members)
{
    (void)members;
    if (!lint->is_down)
        find(lint, REMOVES);
}

static void check_lock(struct lint *lint, json_t *lock)
{
    json_t *item;
    size_t i;
    if (json_integer_value(tree_node(lock, "mode")) < LOCK_SHARE)
        return;
    json_array_foreach(tree_node(lock, "relations"), i,
                       item) if (!is_own(lint, tree_text(item, "RangeVar.relname")))
        find(lint, LOCK_TABLE);
}

static void check_truncate(struct lint *lint, json_t *truncate)
{
    json_t *item;
    size_t i;
    json_array_foreach(tree_node(truncate, "relations"), i,
                       item) if (!is_own(lint, tree_text(item, "RangeVar.relname")))
        find(lint, REMOVES);
}

static void check_set(struct lint *lint, json_t *set)
{
    const char *kind = tree_text(set, "kind");
    if (strcmp(tree_text(set, "name"), "lock_timeout") == 0 || strcmp(kind, "VAR_RESET_ALL") == 0)
        find(lint, LOCK_TIMEOUT);
}

static void check_rewrite(struct lint *lint, json_t *members)
{
    struct effect effects[EFFECTS_MAX];
    size_t count = statement_effects(lint->type, members, effects);
    for (size_t i = 0; i < count; i++)
        if (effects[i].lock >= LOCK_SHARE && !is_own(lint, effects[i].table))
            find(lint, REWRITES_TABLE);
}

static void check_alter_table(struct lint *lint, json_t *alter)
{
    json_t *command, *commands = tree_node(alter, "cmds");
    size_t i, validated = 0;
    if (strcmp(tree_text(alter, "objtype"), "OBJECT_TABLE") != 0)
        return;
    /* The lock of one ALTER TABLE is the strongest of its parts, from its beginning. */
    json_array_foreach(commands, i, command) validated +=
        strcmp(tree_text(command, "AlterTableCmd.subtype"), "AT_ValidateConstraint") == 0;
    if (validated > 0 && validated < json_array_size(commands) &&
        !is_own(lint, tree_text(alter, "relation.relname")))
        find(lint, VALIDATE_UNDER_LOCK);
    json_array_foreach(commands, i, command) check_alter(lint, tree_text(alter, "relation.relname"),
                                                         tree_node(command, "AlterTableCmd"));
}

static void check_transaction(struct lint *lint, json_t *members)
{
    (void)members;
    find(lint, OWN_TRANSACTION);
}

static void check_do(struct lint *lint, json_t *members)
{
    (void)members;
    find(lint, UNSEEN);
}

static void check_refresh(struct lint *lint, json_t *refresh)
{
    if (!tree_flag(refresh, "concurrent"))
        find(lint, REWRITES_TABLE);
}

static const struct {
    const char *type;
    void (*check)(struct lint *lint, json_t *members);
} checks[] = {
    {"CreateStmt", check_create_table},
    {"IndexStmt", check_index},
    {"AlterTableStmt", check_alter_table},
    {"DropStmt", check_drop},
    {"RenameStmt", check_rename},
    {"AlterObjectSchemaStmt", check_rename},
    {"DropOwnedStmt", check_drop_owned},
    {"CreateFunctionStmt", check_function},
    {"LockStmt", check_lock},
    {"TruncateStmt", check_truncate},
    {"VariableSetStmt", check_set},
    {"ClusterStmt", check_rewrite},
    {"ReindexStmt", check_rewrite},
    {"VacuumStmt", check_rewrite},
    {"RefreshMatViewStmt", check_refresh},
    {"TransactionStmt", check_transaction},
    {"DoStmt", check_do},
};

/* ---- steps ----------------------------------------------------------------------------------- */

/* PostgreSQL refuses it inside a transaction. */
static bool is_outside(const char *type, json_t *m)
{
    struct effect effects[EFFECTS_MAX];
    if (strcmp(type, "VacuumStmt") == 0)
        return tree_flag(m, "is_vacuumcmd");
    if (strcmp(type, "AlterTableStmt") == 0)
        return tree_flag(m, "cmds.0.AlterTableCmd.def.PartitionCmd.concurrent");
    if (strcmp(type, "ReindexStmt") == 0)
        return !tree_node(m, "relation") || (statement_effects(type, m, effects) == 1 &&
                                             effects[0].lock == LOCK_SHARE_UPDATE_EXCLUSIVE);
    return (strcmp(type, "IndexStmt") == 0 || strcmp(type, "DropStmt") == 0) &&
           tree_flag(m, "concurrent");
}

static void check_place(struct lint *lint, const char *type, json_t *members, size_t count)
{
    bool is_row_write = strcmp(type, "UpdateStmt") == 0 || strcmp(type, "DeleteStmt") == 0 ||
                        strcmp(type, "InsertStmt") == 0;
    bool is_fitting = lint->step->kind == STEP_BATCHES ? is_row_write : is_outside(type, members);

    if (lint->step->kind == STEP_TRANSACTION) {
        if (is_outside(type, members))
            find(lint, CONCURRENTLY_IN_TRANSACTION);
        return;
    }
    if (count != 1 || !is_fitting)
        find(lint, STEP_SHAPE);
    else if (lint->step->kind == STEP_BATCHES && !tree_contains(members, "limitCount"))
        find(lint, BATCH_WITHOUT_LIMIT);
}

/* Notes what this statement keeps writers off, until the step ends. */
static void check_locked(struct lint *lint, const char *type, json_t *members)
{
    struct effect effects[EFFECTS_MAX];
    size_t count = statement_effects(type, members, effects);
    bool is_second = false;

    for (size_t i = 0; i < count; i++) {
        const char *table = effects[i].table, *other;
        json_t *since;
        if (effects[i].lock < LOCK_SHARE || effects[i].is_index || is_own(lint, table) ||
            strcmp(type, "DropStmt") == 0 || lint->step->kind != STEP_TRANSACTION)
            continue;
        json_object_foreach(lint->locked, other, since) is_second =
            is_second ||
            (strcmp(other, table) != 0 && (size_t)json_integer_value(since) != lint->statement);
        if (!json_object_get(lint->locked, table))
            json_object_set_new(lint->locked, table, json_integer((json_int_t)lint->statement));
        else
            is_second = false;
    }
    if (is_second)
        find(lint, SEVERAL_TABLES);
}

/* Reads the `-- lint: allow` lines of a statement's text; `line` is the text's first. */
static void read_allows(struct lint *lint, struct oh_slice text, int line)
{
    static const char marker[] = "-- lint: allow";
    const char *end = text.data + text.len, *counted = text.data;

    lint->allowed = lint->used = lint->found = 0;
    for (const char *at = text.data;
         (at = memmem(at, (size_t)(end - at), marker, sizeof(marker) - 1)) != NULL;) {
        for (; counted < at; counted++)
            line += *counted == '\n';
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *line_end = newline ? newline : end;
        struct oh_slice rest =
            slice_of(at + sizeof(marker) - 1, (size_t)(line_end - at) - (sizeof(marker) - 1));
        rest = slice_trim(rest);
        size_t len = 0, rule = 0;
        while (len < rest.len && rest.data[len] != ' ')
            len++;
        while (rule < RULE_COUNT &&
               !slice_equals(slice_of_text(lint_rules[rule].name), slice_of(rest.data, len)))
            rule++;
        if (rule == RULE_COUNT || rest.len < len + sizeof(" because ") ||
            memcmp(rest.data + len, " because ", sizeof(" because ") - 1) != 0)
            report(lint, line, ALLOW_UNCLEAR);
        else
            lint->allowed |= 1U << rule;
        at = line_end;
    }
}

static int count_lines(struct oh_slice text)
{
    int lines = 0;
    for (size_t i = 0; i < text.len; i++)
        lines += text.data[i] == '\n';
    return lines;
}

static void read_statement(struct lint *lint, const struct statements *statements, size_t i)
{
    struct oh_slice text = statement_text(statements, i, lint->step->text);
    int first =
        lint->step->line +
        count_lines(slice_of(lint->step->text.data, (size_t)(text.data - lint->step->text.data)));
    json_t *members;
    const char *type = lint->type = statement_type(statements, i, &members);

    read_allows(lint, text, first);
    lint->statement = i + 1;
    lint->line = first + count_lines(slice_of(text.data, step_skip_comments(text)));
    for (size_t c = 0; c < sizeof(checks) / sizeof(checks[0]); c++)
        if (strcmp(checks[c].type, type) == 0)
            checks[c].check(lint, members);
    check_writes(lint, type, members);
    check_place(lint, type, members, statements->count);
    check_locked(lint, type, members);
    if (lint->allowed & ~lint->used)
        report(lint, lint->line, ALLOW_UNUSED);
}

static void read_step(struct lint *lint, const struct step *step)
{
    struct statements statements;
    struct oh_error err = {0};

    lint->step = step;
    if (statements_parse(step->text, &statements, &err) != OH_OK) {
        report(lint, step->line + (err.line ? err.line - 1 : 0), DOES_NOT_PARSE);
        return;
    }
    lint->locked = json_object();
    for (size_t i = 0; i < statements.count; i++)
        read_statement(lint, &statements, i);
    if (statements.count == 0 && step->kind != STEP_TRANSACTION)
        report(lint, step->line, STEP_SHAPE);
    json_decref(lint->locked);
    statements_free(&statements);
}

void lint_read(struct lint *lint, const struct embedded_file *file, lint_sink *sink, void *context)
{
    struct steps steps;
    struct oh_error err = {0};
    size_t len = strlen(file->name);
    const char *slash = strrchr(file->name, '/');
    const char *base = slash ? slash + 1 : file->name;

    lint->file = file;
    lint->sink = sink;
    lint->context = context;
    lint->is_down = len > 9 && strcmp(file->name + len - 9, ".down.sql") == 0;
    snprintf(lint->number, sizeof(lint->number), "%.*s", (int)strcspn(base, "_"), base);
    if (steps_read(file, &steps, &err) != OH_OK) {
        report(lint, err.line, STEP_SHAPE);
        return;
    }
    lint->has_steps = steps.count > 1 || steps.items[0].kind != STEP_TRANSACTION;
    for (size_t i = 0; i < steps.count; i++)
        read_step(lint, &steps.items[i]);
}
