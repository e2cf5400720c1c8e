/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook migrate up | down [N] | status: the schema, as the owner's role. */
#include "cli/cli.h"

#include "cli/database.h"
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

/* Up, down and status are told by their first letters from here on; 0 = none of them. */
static char read_action(const char *action, const char *steps_text, int *steps)
{
    char *end = NULL;
    bool is_down = strcmp(action, "down") == 0;
    long count = steps_text ? strtol(steps_text, &end, 10) : 1;
    if (!is_down && strcmp(action, "up") != 0 && strcmp(action, "status") != 0)
        fprintf(stderr, "oncehook migrate: up, down or status, not '%s'\n", action);
    else if (steps_text && (!is_down || *end || count < 1 || count > STEPS_MAX))
        fprintf(stderr, "oncehook migrate: '%s': only down takes a number, from 1\n", steps_text);
    else
        return *steps = (int)count, action[0];
    return 0;
}

int cli_migrate(int argc, char **argv)
{
    struct cli_database_options from = {.url = NULL};
    const char *action = NULL, *steps_text = NULL;
    bool dry_run = false, force = false;
    const struct cli_option options[] = {
        {"config", 'c', .argument = "FILE", .value = &from.config,
         .words = "Take database.owner_url and database.schema from FILE"},
        {"database", .argument = "URL", .value = &from.url,
         .words = "The owner's login, a libpq URI or conninfo"},
        {"schema", .argument = "NAME", .value = &from.schema,
         .words = "The schema (default: the configured one, else public)"},
        {"dry-run", .words = "Say what it would do, change nothing", .flag = &dry_run},
        {"force", .words = "down: even over rows, which are then lost", .flag = &force},
        {.argument = "up|down|status", .needed = true, .value = &action},
        {.argument = "[N]", .value = &steps_text},
        {0},
    };
    struct cli_database database;
    struct schema_report report = {print_line, NULL};
    struct oh_error err = {0};
    enum oh_status status;
    int steps;
    cli_read_options(options,
                     "Bring the database's schema up, or down by N migrations (default 1), or say "
                     "where it is. One at a time: others wait. up and status exit 0 when all is "
                     "well; 1 when a migration was changed, a table is not oncehook's, or down "
                     "would destroy rows; 2 for anything else.",
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
