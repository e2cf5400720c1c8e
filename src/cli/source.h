/* SPDX-License-Identifier: Apache-2.0 */
/* One source of the configuration as `providers --source` shows it. */
#ifndef CLI_SOURCE_H
#define CLI_SOURCE_H

#include "cli/cli.h"

struct source_options {
    const char *source, *config;
    const char *admin; /* NULL: admin.listen of the configuration */
    bool json, reveal; /* reveal: the secrets that handshakes brought */
};

/* Prints it: of secrets their names, where they come from, their time, and what the running gateway
 * says of when each last matched. Returns the exit code. */
int cli_show_source(const struct source_options *options);

#endif
