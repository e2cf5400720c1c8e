/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook migrate up | down [N] | status | lint | adopt: the schema, as the owner's role. */
#include "cli/cli.h"

#include "cli/adopt.h"
#include "cli/database.h"
#include "schema/lint.h"
#include "schema/migration.h"
#include "schema/schema.h"

#include <stdlib.h>
#include <string.h>

enum { STEPS_MAX = 9999 };

static void print_line(void *context, const char *text)
{
    (void)context;
    puts(text);
    fflush(stdout);
}

/* Up, down and status are told by their first letters from here on; 0 = a mistake. */
static char read_action(const char *action, const char *steps_text, int *steps)
{
    char *end = NULL;
    bool is_down = strcmp(action, "down") == 0;
    long count = steps_text ? strtol(steps_text, &end, 10) : 1;
    if (strcmp(action, "lint") == 0 || strcmp(action, "adopt") == 0)
        fprintf(stderr, "oncehook migrate: '%s' has to be the first word\n", action);
    else if (steps_text && (!is_down || *end || count < 1 || count > STEPS_MAX))
        fprintf(stderr, "oncehook migrate: '%s': only down takes a number, from 1\n", steps_text);
    else
        return *steps = (int)count, action[0];
    return 0;
}

/* ---- lint ----------------------------------------------------------------------------------- */

enum { FILE_BYTES_MAX = 4 << 20 };

static void print_finding(void *context, const char *file, int line, const struct lint_rule *rule)
{
    printf("%s:%d: %s: %s (%s)\n", file, line, rule->name, rule->instead, rule->why);
    ++*(size_t *)context;
}

static void print_rules(void)
{
    for (const struct lint_rule *rule = lint_rules; rule->name; rule++)
        printf("%s\n  finds    %s\n  why      %s\n  instead  %s\n", rule->name, rule->finds,
               rule->why, rule->instead);
}

static void lint_own(struct lint *lint, bool is_down, lint_sink *sink, size_t *findings)
{
    struct migrations migrations;
    if (migrations_read(embedded_sql, &migrations, NULL) != OH_OK)
        return;
    for (size_t i = 0; i < migrations.count; i++)
        lint_read(lint, is_down ? migrations.items[i].down : migrations.items[i].up, sink,
                  findings);
    migrations_free(&migrations);
}

/* migrate lint [FILE…]: the migrations of this binary, or files that would follow them. */
static int run_lint(int count, char **files)
{
    struct lint *lint = lint_new();
    struct oh_error err = {0};
    size_t findings = 0;
    bool ok = lint != NULL;

    if (ok)
        lint_own(lint, false, count ? NULL : print_finding, &findings);
    if (ok && count == 0)
        lint_own(lint, true, print_finding, &findings);
    for (int i = 0; i < count && ok; i++) {
        struct oh_slice text;
        ok = cli_read_file(files[i], FILE_BYTES_MAX, &text, &err) == OH_OK;
        if (!ok) {
            fprintf(stderr, "oncehook migrate: %s\n", err.text);
            break;
        }
        const struct embedded_file file = {files[i], text.data, text.len};
        lint_read(lint, &file, print_finding, &findings);
        free((void *)text.data);
    }
    lint_free(lint);
    if (ok)
        printf("%zu findings\n", findings);
    return !ok || fflush(stdout) != 0 ? CLI_USAGE : findings == 0 ? CLI_OK : CLI_NO;
}

/* ---- the command ----------------------------------------------------------------------------- */

/* lint takes any number of files, and no database. */
static bool is_lint(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "lint") != 0)
        return false;
    for (int i = 2; i < argc; i++)
        if (argv[i][0] == '-' && strcmp(argv[i], "--rules") != 0)
            return false;
    return true;
}

int cli_migrate(int argc, char **argv)
{
    if (is_lint(argc, argv) && argc == 3 && strcmp(argv[2], "--rules") == 0) {
        print_rules();
        return CLI_OK;
    }
    if (is_lint(argc, argv))
        return run_lint(argc - 2, argv + 2);
    if (argc >= 2 && strcmp(argv[1], "adopt") == 0)
        return cli_adopt(argc - 1, argv + 1);
    struct cli_database_options from = {.url = NULL};
    const char *action = NULL, *steps_text = NULL;
    bool dry_run = false, force = false;
    const struct cli_option options[] = {
        CLI_DATABASE_OPTIONS(from, "owner", "database.owner_url and database.schema", "The schema"),
        {"dry-run", .words = "Say what it would do, change nothing", .flag = &dry_run},
        {"force", .words = "down: even over rows, which are then lost", .flag = &force},
        {.argument = "up|down|status|lint|adopt", .needed = true, .value = &action},
        {.argument = "[N|FILE…]", .value = &steps_text},
        {0},
    };
    struct cli_database database;
    struct schema_report report = {print_line, NULL};
    struct oh_error err = {0};
    enum oh_status status;
    int steps;
    cli_read_options(
        options,
        "Bring the database's schema up, or down by N migrations (default 1), or say "
        "where it is. One at a time: others wait. `lint [FILE…]` looks through the "
        "migrations of this binary, or through files that would follow them, for what "
        "stops a running gateway; `lint --rules` says what it looks for. `adopt` takes over the "
        "tables of another application: see `adopt --help`. Exit 0 when "
        "all is well; 1 when a migration was changed, a table is not oncehook's, down "
        "would destroy rows, or lint finds something; 2 for anything else.",
        argc, argv);
    char what = read_action(action, steps_text, &steps);
    if (!what || !cli_database_find(&from, true, &database))
        return CLI_USAGE;
    if (what == 'u')
        status = schema_up(database.url, database.schema, dry_run, &report, &err);
    else if (what == 'd')
        status = schema_down(database.url, database.schema, steps, force, dry_run, &report, &err);
    else
        status = schema_status(database.url, database.schema, &report, &err);
    cli_database_release(&database);
    if (status == OH_OK)
        return CLI_OK;
    fprintf(stderr, "oncehook migrate: %s\n", err.text);
    return status == OH_INVALID ? CLI_NO : CLI_USAGE;
}
