/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook migrate up | down [N] | status: the schema, as the owner's role. */
#include "cli/cli.h"

#include "cli/database.h"
#include "schema/schema.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_DRY_RUN = 0x100, KEY_FORCE, KEY_DATABASE, KEY_SCHEMA };

static const struct argp_option options[] = {
    {"config", 'c', "FILE", 0, "Take database.owner_url and database.schema from FILE", 0},
    {"database", KEY_DATABASE, "URL", 0, "The owner's login, a libpq URI or conninfo", 0},
    {"schema", KEY_SCHEMA, "NAME", 0, "The schema (default: the configured one, else public)", 0},
    {"dry-run", KEY_DRY_RUN, NULL, 0, "Say what it would do, change nothing", 0},
    {"force", KEY_FORCE, NULL, 0, "down: even over rows, which are then lost", 0},
    {0},
};

struct migrate_options {
    struct cli_database_options database;
    const char *action;
    int steps;
    bool dry_run, force;
};

static void read_argument(struct migrate_options *migrate, const char *arg,
                          struct argp_state *state)
{
    char *end;
    long steps;

    if (state->arg_num == 0) {
        if (strcmp(arg, "up") != 0 && strcmp(arg, "down") != 0 && strcmp(arg, "status") != 0)
            argp_error(state, "up, down or status, not '%s'", arg);
        migrate->action = arg;
        return;
    }
    steps = strtol(arg, &end, 10);
    if (state->arg_num > 1 || strcmp(migrate->action, "down") != 0 || *end || steps < 1 ||
        steps > 9999)
        argp_error(state, "'%s': only down takes a number, from 1", arg);
    migrate->steps = (int)steps;
}

static error_t read_option(int key, char *arg, struct argp_state *state)
{
    struct migrate_options *migrate = state->input;
    switch (key) {
    case 'c':
        migrate->database.config = arg;
        return 0;
    case KEY_DATABASE:
        migrate->database.url = arg;
        return 0;
    case KEY_SCHEMA:
        migrate->database.schema = arg;
        return 0;
    case KEY_DRY_RUN:
        migrate->dry_run = true;
        return 0;
    case KEY_FORCE:
        migrate->force = true;
        return 0;
    case ARGP_KEY_ARG:
        read_argument(migrate, arg, state);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "up, down or status?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    options,
    read_option,
    "up | down [N] | status",
    "Bring the database's schema up, or down by N migrations (default 1), or say where it is. "
    "One at a time: others wait. up and status exit 0 when all is well; 1 when a migration was "
    "changed, "
    "a table is not oncehook's, or down would destroy rows; 2 for anything else.",
    NULL,
    NULL,
    NULL,
};

static void print_line(void *context, const char *text)
{
    (void)context;
    puts(text);
    fflush(stdout);
}

int cli_migrate(int argc, char **argv)
{
    static char name[] = "oncehook migrate";
    struct migrate_options migrate = {.steps = 1};
    struct cli_database database;
    struct schema_report report = {print_line, NULL};
    struct oh_error err = {0};
    enum oh_status status;

    argv[0] = name;
    argp_err_exit_status = CLI_USAGE;
    if (argp_parse(&parser, argc, argv, 0, NULL, &migrate) != 0)
        return CLI_USAGE;
    if (!cli_database_find(&migrate.database, true, &database))
        return CLI_USAGE;

    if (strcmp(migrate.action, "up") == 0)
        status = schema_up(database.url, database.schema, migrate.dry_run, &report, &err);
    else if (strcmp(migrate.action, "down") == 0)
        status = schema_down(database.url, database.schema, migrate.steps, migrate.force,
                             migrate.dry_run, &report, &err);
    else
        status = schema_status(database.url, database.schema, &report, &err);

    cli_database_release(&database);
    if (status == OH_OK)
        return CLI_OK;
    fprintf(stderr, "oncehook migrate: %s\n", err.text);
    return status == OH_INVALID ? CLI_NO : CLI_USAGE;
}
