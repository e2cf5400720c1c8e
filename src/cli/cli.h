/* SPDX-License-Identifier: Apache-2.0 */
/* The subcommands: one file each, one row each in the table of cli/main.c; and what all of them
 * begin with. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "config/config.h"

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
int cli_tail(int argc, char **argv);
int cli_retention(int argc, char **argv);
int cli_spool(int argc, char **argv);
int cli_doctor(int argc, char **argv);
int cli_forget(int argc, char **argv);

/* One option of a command; a list ends with a row of zeros. */
struct cli_option {
    const char *name;     /* of --NAME; NULL: a plain argument */
    char letter;          /* of -X; 0 = none */
    bool needed;          /* a value */
    const char *argument; /* "FILE", as --help shows it; NULL = a flag; plain "a|b": one of these */
    const char *words;    /* for --help; of a plain argument NULL */
    const char **value;   /* where the argument goes; it must hold NULL or the default before */
    bool *flag;           /* where the flag goes */
};

/* Reads the command line into the rows. Mistakes and --help end the process. `doc`: what --help
 * says, see argp(3). */
void cli_read_options(const struct cli_option *rows, const char *doc, int argc, char **argv);

/* The configuration with the parts that the command uses (CONFIG_SECRETS …), or NULL after its
 * mistakes went to stderr (exit code 2). The caller ends it with config_free(). */
struct config *cli_load_config(const char *path, unsigned parts) OH_MUST_CHECK;

/* A file of at most max_bytes; out->data belongs to the caller: free(). A NUL follows the bytes.
 * Errors: OH_SYSTEM, OH_TOO_MANY, OH_NO_MEMORY. */
enum oh_status cli_read_file(const char *path, size_t max_bytes, struct oh_slice *out,
                             struct oh_error *err) OH_MUST_CHECK;

/* Draws `done` of `all` as a bar on stderr, over the one before it, with words behind it; for a
 * terminal only. */
void cli_draw_bar(long long done, long long all, const char *format, ...) OH_PRINTF(3, 4);
/* Takes the bar away. */
void cli_clear_bar(void);

/* Prints one word for a POSIX shell, in single quotes where the shell would see more in it; and
 * what stands between such quotes, in which nothing is special but the quote itself. */
void cli_print_word(FILE *to, const char *text);
void cli_print_quoted(FILE *to, struct oh_slice text);

#endif
