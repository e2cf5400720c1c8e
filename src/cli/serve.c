/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook serve: the gateway in the foreground. */
#include "app/app.h"
#include "cli/cli.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static error_t parse(int key, char *value, struct argp_state *state)
{
    const char **path = state->input;
    if (key == 'c')
        *path = value;
    else if (key == ARGP_KEY_ARG)
        argp_usage(state);
    else if (key == ARGP_KEY_END && !*path)
        argp_error(state, "-c FILE is needed");
    else if (key != ARGP_KEY_END)
        return ARGP_ERR_UNKNOWN;
    return 0;
}

int cli_serve(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"config", 'c', "FILE", 0, "the configuration (docs/configuration.md)", 0},
        {0},
    };
    static const struct argp argp = {options,
                                     parse,
                                     NULL,
                                     "Takes webhooks until SIGTERM or SIGINT, then answers what is "
                                     "in flight and leaves within 10 seconds.",
                                     NULL,
                                     NULL,
                                     NULL};
    const char *path = NULL;
    struct config *config = NULL;
    struct config_mistakes mistakes = {0};
    struct oh_error err = {.line = 0};

    argp_err_exit_status = CLI_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &path);
    if (config_load(path, &config, &mistakes) != OH_OK) {
        config_mistakes_print(path, &mistakes);
        config_mistakes_free(&mistakes);
        return CLI_USAGE;
    }
    if (app_run(config, &err) != OH_OK) {
        fprintf(stderr, "oncehook: %s\n", err.text);
        _exit(CLI_USAGE); /* threads may run already: nothing of theirs is torn down under them */
    }
    config_free(config);
    return CLI_OK;
}
