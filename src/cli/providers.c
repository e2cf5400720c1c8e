/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook providers [NAME] [--json]: what the catalog knows of each provider. */
#include "cli/cli.h"

#include "oncehook/recipe.h"

#include <argp.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

static const struct argp_option options[] = {
    {"json", 'j', NULL, 0, "An array of objects instead of a table", 0},
    {0},
};

struct providers_options {
    const char *name;
    bool json;
};

static error_t read_option(int key, char *arg, struct argp_state *state)
{
    struct providers_options *wanted = state->input;
    switch (key) {
    case 'j':
        wanted->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (wanted->name)
            argp_error(state, "one NAME at most");
        wanted->name = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    options,
    read_option,
    "[NAME]",
    "List the providers it knows, or all that is known of NAME. `provider: hmac` needs no entry "
    "here: "
    "its recipe stands in the source.",
    NULL,
    NULL,
    NULL,
};

static const char *scope_word(const struct oh_recipe_info *info)
{
    return info->id_scope == OH_SCOPE_PROVIDER ? "provider" : "source";
}

/* ---- as JSON -----------------------------------------------------------------------------------
 */

/* An integer, or null where it is `none`. */
static json_t *integer_or_null(int64_t value, int64_t none)
{
    return value == none ? json_null() : json_integer(value);
}

static json_t *text_or_null(const char *text)
{
    return text ? json_string(text) : json_null();
}

static json_t *info_as_json(const struct oh_recipe_info *info)
{
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:b, s:o, s:o, s:o, s:b, "
        "s:b, "
        "s:o, s:o}",
        "provider", info->provider, "scheme", info->scheme, "title", info->title, "algorithm",
        info->algorithm, "id_scope", scope_word(info), "key_grade", info->key_grade, "confidence",
        info->confidence, "proof", info->proof, "handshake", info->handshake, "retries",
        info->retries, "retry_horizon_s", integer_or_null(info->retry_horizon_s, -1),
        "ack_budget_ms", integer_or_null(info->ack_budget_ms, 0), "retries_signed_anew",
        info->retries_signed_anew, "tolerance_past_s", integer_or_null(info->tolerance_past_s, -1),
        "tolerance_future_s", integer_or_null(info->tolerance_future_s, -1), "serve_tolerance_s",
        integer_or_null(info->serve_tolerance_s, -1), "needs_public_url", info->needs_public_url,
        "has_private_key", info->has_private_key, "map_enrollment",
        text_or_null(info->map_enrollment), "map_instance", text_or_null(info->map_instance));
}

/* ---- as text -----------------------------------------------------------------------------------
 */

static void print_row(const struct oh_recipe_info *info)
{
    printf("%-20s %-20s %-18s %-9s %-10s %-11s %-28s %s\n", info->provider, info->scheme,
           info->algorithm, scope_word(info), info->key_grade, info->confidence, info->handshake,
           info->retries);
}

static void print_seconds(const char *what, int64_t seconds, const char *none)
{
    if (seconds < 0)
        printf("  %-22s %s\n", what, none);
    else
        printf("  %-22s %" PRId64 " s\n", what, seconds);
}

static void print_all(const struct oh_recipe_info *info)
{
    printf("%s, scheme %s: %s\n", info->provider, info->scheme, info->title);
    printf("  %-22s %s\n", "algorithm", info->algorithm);
    printf("  %-22s %s\n", "ids are unique for the", scope_word(info));
    printf("  %-22s %s\n", "best key", info->key_grade);
    printf("  %-22s %s, %s\n", "confidence", info->confidence, info->proof);
    printf("  %-22s %s\n", "handshake", info->handshake);
    printf("  %-22s %s\n", "retries", info->retries);
    print_seconds("retry horizon", info->retry_horizon_s, "not known");
    print_seconds("waits for an answer", info->ack_budget_ms > 0 ? info->ack_budget_ms / 1000 : -1,
                  "not known");
    print_seconds("window of the scheme", info->tolerance_past_s, "none");
    print_seconds("window of serve", info->serve_tolerance_s, "none");
    printf("  %-22s %s\n", "enrollment id", info->map_enrollment ? info->map_enrollment : "-");
    printf("  %-22s %s\n", "instance id", info->map_instance ? info->map_instance : "-");
}

static void print_entry(const struct providers_options *wanted, const struct oh_recipe_info *info,
                        json_t *list)
{
    if (list)
        json_array_append_new(list, info_as_json(info));
    else if (wanted->name)
        print_all(info);
    else
        print_row(info);
}

int cli_providers(int argc, char **argv)
{
    static char name[] = "oncehook providers";
    struct providers_options wanted = {0};
    struct oh_catalog *catalog;
    struct oh_error err = {0};
    size_t shown = 0;
    argv[0] = name;
    argp_err_exit_status = CLI_USAGE;
    if (argp_parse(&parser, argc, argv, 0, NULL, &wanted) != 0)
        return CLI_USAGE;
    if (oh_catalog_new(&catalog, &err)) {
        fprintf(stderr, "oncehook: %s\n", err.text);
        return CLI_USAGE;
    }
    json_t *list = wanted.json ? json_array() : NULL;
    if (!wanted.json && !wanted.name)
        printf("%-20s %-20s %-18s %-9s %-10s %-11s %-28s %s\n", "PROVIDER", "SCHEME", "ALGORITHM",
               "ID SCOPE", "KEY GRADE", "CONFIDENCE", "HANDSHAKE", "RETRIES");
    for (size_t i = 0; i < oh_catalog_count(catalog); i++) {
        struct oh_recipe_info info;
        oh_recipe_describe(oh_catalog_at(catalog, i), &info);
        if (wanted.name && strcmp(wanted.name, info.provider) != 0)
            continue;
        print_entry(&wanted, &info, list);
        shown++;
    }
    if (list && shown > 0 && json_dumpf(list, stdout, JSON_INDENT(2)) == 0)
        putchar('\n');
    json_decref(list);
    oh_catalog_free(catalog);
    if (wanted.name && shown == 0) {
        fprintf(stderr, "oncehook: no provider '%s'; `oncehook providers` lists them\n",
                wanted.name);
        return CLI_NO;
    }
    return CLI_OK;
}
