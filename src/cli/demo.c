/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/demo.h"

#include "cli/cli.h"

#include <stdio.h>

int demo_run(const struct demo_options *options)
{
    fprintf(stderr, "oncehook: the demo of %s is being built\n", options->directory);
    return CLI_USAGE;
}
