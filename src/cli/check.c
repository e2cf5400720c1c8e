/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook check: every mistake of a configuration at once, before anything is started with it. */
#include "cli/cli.h"
#include "config/config.h"

#include <argp.h>

struct check_arguments {
    const char *path;
    bool print_options;
};

static error_t parse(int key, char *value, struct argp_state *state)
{
    struct check_arguments *arguments = state->input;
    switch (key) {
    case 'c':
        arguments->path = value;
        return 0;
    case 'o':
        arguments->print_options = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "no argument is expected");
        return 0;
    case ARGP_KEY_END:
        if (!arguments->path && !arguments->print_options)
            argp_error(state, "-c FILE is needed");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void print_listener(const char *name, const struct config_address *address)
{
    if (address->host)
        printf(", %s on %s:%u", name, address->host, address->port);
}

static void print_fine(const char *path, const struct config *config)
{
    printf("%s: fine: %zu source%s", path, config->source_count,
           config->source_count == 1 ? "" : "s");
    print_listener("https", &config->listen.https);
    print_listener("http", &config->listen.http);
    print_listener("admin", &config->admin.listen);
    printf(", %u lane%s\n", config->database.lanes, config->database.lanes == 1 ? "" : "s");
}

static int check_file(const char *path)
{
    struct config *config = NULL;
    struct config_mistakes mistakes = {NULL, 0}, warnings = {NULL, 0};
    enum oh_status status = config_load(path, &config, &mistakes);
    if (status == OH_OK)
        status = config_inspect(config, &mistakes, &warnings);
    for (size_t i = 0; i < warnings.count; i++)
        fprintf(stderr, "%s:%d: warning: %s\n", path, warnings.items[i].line,
                warnings.items[i].text);
    bool fine = status == OH_OK && mistakes.count == 0;
    if (fine)
        print_fine(path, config);
    else
        config_mistakes_print(path, &mistakes);
    config_mistakes_free(&warnings);
    config_mistakes_free(&mistakes);
    config_free(config);
    return fine ? CLI_OK : CLI_USAGE;
}

int cli_check(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"config", 'c', "FILE", 0, "the configuration (docs/configuration.md)", 0},
        {"options", 'o', NULL, 0, "print the table of all options, as Markdown", 0},
        {0},
    };
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .doc = "Says every mistake of a configuration at once, as FILE:LINE: WHAT, and tries what "
               "only costs a look: certificate and key, files with secrets. Nothing is started, "
               "nothing is connected to.\vExit: 0 fine, 2 mistakes.",
    };
    struct check_arguments arguments = {.path = NULL};
    char name[] = "oncehook check";

    argv[0] = name;
    argp_err_exit_status = CLI_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &arguments);
    if (arguments.print_options)
        config_options_print(stdout);
    return arguments.path ? check_file(arguments.path) : CLI_OK;
}
