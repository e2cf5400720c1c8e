/* SPDX-License-Identifier: Apache-2.0 */
/* --database URL or -c FILE, for the commands that need a database and no gateway. */
#include "cli/database.h"

#include <stdio.h>

bool cli_database_find(const struct cli_database_options *options, bool owner,
                       struct cli_database *out)
{
    *out = (struct cli_database){.url = options->url, .schema = options->schema};
    if (!options->config && !options->url) {
        fprintf(stderr, "oncehook: which database? --database URL or -c FILE\n");
        return false;
    }
    if (options->config) {
        struct config_mistakes mistakes;
        if (config_load(options->config, &out->config, &mistakes) != OH_OK) {
            config_mistakes_print(options->config, &mistakes);
            config_mistakes_free(&mistakes);
            return false;
        }
        if (!out->url)
            out->url = owner ? out->config->database.owner_url : out->config->database.url;
        if (!out->schema)
            out->schema = out->config->database.schema;
    }
    if (!out->url) {
        fprintf(stderr, "oncehook: %s has no database.%s; it or --database URL is needed\n",
                options->config, owner ? "owner_url" : "url");
        cli_database_release(out);
        return false;
    }
    if (!out->schema)
        out->schema = "public";
    return true;
}

void cli_database_release(struct cli_database *database)
{
    config_free(database->config);
    *database = (struct cli_database){0};
}
