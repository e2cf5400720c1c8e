/* SPDX-License-Identifier: Apache-2.0 */
/* The subcommands: one file each, one row each in the table of cli/main.c. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

/* Exit codes of every command. */
enum { CLI_OK = 0, CLI_NO = 1, CLI_USAGE = 2 };

/* argv[0] is the command's name; options are read with argp(3). Returns the exit code. */
int cli_serve(int argc, char **argv);
int cli_dev(int argc, char **argv);
int cli_check(int argc, char **argv);
int cli_migrate(int argc, char **argv);
int cli_providers(int argc, char **argv);
int cli_verify(int argc, char **argv);
int cli_send(int argc, char **argv);
int cli_audit(int argc, char **argv);

#endif
