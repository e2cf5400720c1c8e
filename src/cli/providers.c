/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook providers [NAME] [--json|--markdown]: what the catalog knows of each provider. The table
 * and the full text are views of the JSON. --source NAME: a source and its secrets (source.c). */
#include "cli/source.h"

#include <jansson.h>
#include <string.h>

/* The table: heading, member of the JSON, width. */
static const struct {
    const char *heading, *member;
    int width;
} columns[] = {
    {"PROVIDER", "provider", 20}, {"SCHEME", "scheme", 20},       {"ALGORITHM", "algorithm", 18},
    {"ID SCOPE", "id_scope", 9},  {"KEY GRADE", "key_grade", 10}, {"CONFIDENCE", "confidence", 11},
    {"PROOF", "proof", 11},       {"HANDSHAKE", "handshake", 28}, {"RETRIES", "retries", 0},
};

enum { COLUMN_COUNT = sizeof(columns) / sizeof(columns[0]) };

/* An integer, or null where it is `none`. */
static json_t *integer_or_null(int64_t value, int64_t none)
{
    return value == none ? json_null() : json_integer(value);
}

static json_t *info_as_json(const struct oh_recipe_info *info)
{
    return json_pack(
        "{s:s, s:s, s:s, s:s?, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:b, s:o, s:o, "
        "s:o, s:b, "
        "s:b, s:s?, s:s?}",
        "provider", info->provider, "scheme", info->scheme, "title", info->title, "setup",
        info->setup, "secret_form", info->secret_form, "algorithm", info->algorithm, "id_scope",
        info->id_scope == OH_SCOPE_PROVIDER ? "provider" : "source", "key_grade", info->key_grade,
        "confidence", info->confidence, "proof", info->proof, "handshake", info->handshake,
        "retries", info->retries, "retry_horizon_s", integer_or_null(info->retry_horizon_s, -1),
        "ack_budget_ms", integer_or_null(info->ack_budget_ms, 0), "retries_signed_anew",
        info->retries_signed_anew, "tolerance_past_s", integer_or_null(info->tolerance_past_s, -1),
        "tolerance_future_s", integer_or_null(info->tolerance_future_s, -1), "serve_tolerance_s",
        integer_or_null(info->serve_tolerance_s, -1), "needs_public_url", info->needs_public_url,
        "has_private_key", info->has_private_key, "map_enrollment", info->map_enrollment,
        "map_instance", info->map_instance);
}

static void print_table(const json_t *list)
{
    const json_t *entry;
    size_t i;
    for (int column = 0; column < COLUMN_COUNT; column++)
        printf("%-*s%s", columns[column].width, columns[column].heading,
               column + 1 < COLUMN_COUNT ? " " : "\n");
    json_array_foreach(list, i, entry) for (int column = 0; column < COLUMN_COUNT; column++)
        printf("%-*s%s", columns[column].width,
               json_string_value(json_object_get(entry, columns[column].member)),
               column + 1 < COLUMN_COUNT ? " " : "\n");
}

/* docs/provider-catalog.md, which a test holds against this. */
static void print_markdown(const json_t *list)
{
    static const char *const members[] = {"title",     "provider",  "scheme",     "algorithm",
                                          "id_scope",  "key_grade", "confidence", "proof",
                                          "handshake", "retries"};
    const json_t *entry;
    size_t i;
    puts("# The provider catalog\n\nMade by `oncehook providers --markdown`. `proof` says what a "
         "recipe was checked against: signatures that the provider published, its own SDK, or "
         "neither (`unconfirmed`).\n\n| title | provider | scheme | algorithm | id scope | key "
         "grade | confidence | proof | handshake | retries |\n|---|---|---|---|---|---|---|---|---|"
         "---|");
    json_array_foreach(list, i, entry)
    {
        for (size_t m = 0; m < sizeof(members) / sizeof(members[0]); m++)
            printf("| %s ", json_string_value(json_object_get(entry, members[m])));
        puts("|");
    }
}

static void print_in_full(json_t *list)
{
    const char *member;
    json_t *entry, *value;
    size_t i;
    json_array_foreach(list, i, entry) json_object_foreach(entry, member, value)
    {
        printf("%-20s ", member);
        if (json_is_string(value))
            fputs(json_string_value(value), stdout);
        else
            json_dumpf(value, stdout, JSON_ENCODE_ANY);
        putchar('\n');
    }
}

int cli_providers(int argc, char **argv)
{
    const char *name = NULL;
    struct source_options of_source = {.source = NULL};
    bool json = false, markdown = false;
    const struct cli_option options[] = {
        {"json", 'j', .words = "An array of objects instead of text", .flag = &json},
        {"markdown", 'm', .words = "The page of the documentation", .flag = &markdown},
        {"source", 's', .argument = "NAME", .value = &of_source.source,
         .words = "A source of the configuration instead: its secrets, and when each last matched"},
        {"config", 'c', .argument = "FILE", .value = &of_source.config,
         .words = "with --source: the configuration"},
        {"admin", 'a', .argument = "URL", .value = &of_source.admin,
         .words = "with --source: where the running gateway's /metrics is (default: http:// and "
                  "admin.listen)"},
        {"reveal", 'r', .flag = &of_source.reveal,
         .words = "with --source: also show the secrets that handshakes brought (Notion wants its "
                  "token typed in)"},
        {.argument = "[NAME]", .value = &name},
        {0},
    };
    struct oh_catalog *catalog;
    struct oh_error err = {0};
    cli_read_options(options,
                     "List the providers it knows, or all that is known of NAME. The recipe of "
                     "`provider: hmac` stands in the source; it is shown as it usually is.",
                     argc, argv);
    if (of_source.source) {
        of_source.json = json;
        return cli_show_source(&of_source);
    }
    if (oh_catalog_new(&catalog, &err)) {
        fprintf(stderr, "oncehook: %s\n", err.text);
        return CLI_USAGE;
    }
    const struct oh_hmac_options usual = {.header = "X-Signature", .event_id = "/id"};
    const struct oh_recipe *hmac;
    struct oh_recipe_info info;
    json_t *list = json_array();
    for (size_t i = 0; i < oh_catalog_count(catalog); i++) {
        oh_recipe_describe(oh_catalog_at(catalog, i), &info);
        if (!name || strcmp(name, info.provider) == 0)
            json_array_append_new(list, info_as_json(&info));
    }
    if ((!name || strcmp(name, "hmac") == 0) &&
        oh_catalog_add_hmac(catalog, &usual, &hmac, &err) == OH_OK) {
        oh_recipe_describe(hmac, &info);
        json_array_append_new(list, info_as_json(&info));
    }
    bool found = json_array_size(list) > 0;
    if (!found)
        fprintf(stderr, "oncehook: no provider '%s'; `oncehook providers` lists them\n", name);
    else if (json)
        json_dumpf(list, stdout, JSON_INDENT(2)), putchar('\n');
    else if (markdown)
        print_markdown(list);
    else if (name)
        print_in_full(list);
    else
        print_table(list);
    json_decref(list);
    oh_catalog_free(catalog);
    return found ? CLI_OK : CLI_NO;
}
