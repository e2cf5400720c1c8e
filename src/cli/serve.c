/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook serve: the gateway in the foreground. */
#include "app/app.h"
#include "cli/cli.h"
#include "log/log.h"

#include <unistd.h>

int cli_serve(int argc, char **argv)
{
    const char *path = NULL;
    const struct cli_option options[] = {
        {"config", 'c', true, "FILE", "the configuration (docs/configuration.md)", &path, NULL},
        {0},
    };
    struct oh_error err = {.line = 0};
    cli_read_options(options,
                     "Takes webhooks until SIGTERM or SIGINT, then answers what is in flight and "
                     "leaves within 10 seconds.",
                     argc, argv);
    struct config *config = cli_load_config(path, CONFIG_ALL);
    if (!config)
        return CLI_USAGE;
    if (app_run(config, &err) != OH_OK) {
        LOG_LINE(LOG_ERROR, "app", "the gateway could not be started",
                 log_text("reason", err.text));
        _exit(CLI_USAGE); /* threads may run already: nothing of theirs is torn down under them */
    }
    config_free(config);
    return CLI_OK;
}
