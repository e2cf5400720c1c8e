/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <stdio.h>

int cli_providers(int argc, char **argv)
{
    (void)argc;
    fprintf(stderr, "oncehook: %s is being built\n", argv[0]);
    return CLI_USAGE;
}
