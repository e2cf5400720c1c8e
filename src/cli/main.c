/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook COMMAND [options]: finds the command's row and runs it. */
#include "cli/cli.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
};

/* The list of commands: `--help` prints it, tests hold the docs against it. */
static const struct command commands[] = {
    {"serve", cli_serve, "run the gateway"},
    {"dev", cli_dev, "private PostgreSQL, certificate, configuration, then the gateway"},
    {"check", cli_check, "say every mistake of a configuration at once"},
    {"migrate", cli_migrate, "bring the database's schema up or down"},
    {"providers", cli_providers, "list the providers it knows"},
    {"verify", cli_verify, "run recorded requests through the gateway's own engine"},
    {"send", cli_send, "sign as a provider would, and send"},
    {"audit", cli_audit, "recompute every counter from its events"},
    {"retention", cli_retention, "let go of what is older than its policy says"},
    {"tail", cli_tail, "print events as they are captured"},
    {"spool", cli_spool, "what waits on this node's disk for PostgreSQL"},
    {"doctor", cli_doctor, "what needs a person: database, gateway, disks"},
    {"forget", cli_forget, "make a person leave the database, and keep every count"},
};

enum { COMMAND_COUNT = sizeof(commands) / sizeof(commands[0]) };

static void print_help(FILE *to)
{
    fprintf(to, "Usage: oncehook COMMAND [options]\n"
                "Signed provider webhooks into rows and counters in PostgreSQL, each event exactly "
                "once.\n\nCommands:\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(to, "\n`oncehook COMMAND --help` tells a command's options.\n"
                "Exit: 0 fine, 1 the answer is no, 2 usage or configuration.\n");
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        print_help(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return CLI_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("oncehook %s\n", ONCEHOOK_VERSION);
        return CLI_OK;
    }
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "oncehook: no command '%s'; `oncehook --help` lists them\n", argv[1]);
    return CLI_USAGE;
}
