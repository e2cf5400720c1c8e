/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook check: every mistake of a configuration at once, before anything is started with it. */
#include "cli/cli.h"

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
    enum oh_status status = config_check(path, &config, &mistakes, &warnings);
    for (size_t i = 0; status == OH_OK && i < warnings.count; i++)
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
    const char *path = NULL;
    bool print_options = false;
    const struct cli_option options[] = {
        {"config", 'c', false, "FILE", "the configuration (docs/configuration.md)", &path, NULL},
        {"options", 'o', false, NULL, "print the table of all options, as Markdown", NULL,
         &print_options},
        {0},
    };
    cli_read_options(options,
                     "Says every mistake of a configuration at once, as FILE:LINE: WHAT, and tries "
                     "what only costs a look: certificate and key, the spool's place, files with "
                     "secrets. Nothing is "
                     "started, nothing is connected to.\vExit: 0 fine, 2 mistakes.",
                     argc, argv);
    if (print_options)
        config_options_print(stdout);
    else if (!path)
        fprintf(stderr, "oncehook check: -c FILE is needed\n");
    if (!path)
        return print_options ? CLI_OK : CLI_USAGE;
    return check_file(path);
}
