/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook providers --source NAME: the secrets of one source and the evidence for each. What is
 * configured comes from the file, what handshakes brought from the database, when a secret last
 * matched from the running gateway's metrics. The text is a view of the JSON. */
#include "cli/source.h"

#include "base/clock.h"
#include "base/embedded.h"
#include "base/slice.h"
#include "body/time.h"
#include "cli/client.h"
#include "cli/database.h"
#include "oncehook/handshake.h"

#include <jansson.h>
#include <stdlib.h>

#define LAST_MATCH "oncehook_secret_last_match_timestamp_seconds"
#define LOADED     "oncehook_configuration_loaded_timestamp_seconds "

static json_t *moment(int64_t unix_ms)
{
    char text[TIME_ISO_BYTES];
    if (unix_ms == INT64_MIN || unix_ms == INT64_MAX)
        return json_null();
    time_format(unix_ms, text);
    return json_stringn(text, sizeof(text));
}

/* ---- what the gateway says ------------------------------------------------------------------- */

/* The number behind `series`, which stands at the start of a line; -1 = it is not there. */
static int64_t read_series(const char *page, const char *series)
{
    size_t len = strlen(series);
    for (const char *at = page; (at = strstr(at, series)); at++)
        if (at == page || at[-1] == '\n')
            return strtoll(at + len, NULL, 10);
    return -1;
}

/* Adds `loaded` and `last_matched_at`; null where no gateway could be asked. */
static void add_evidence(json_t *secret, const char *page, const char *source)
{
    char series[256];
    snprintf(series, sizeof(series), LAST_MATCH "{source=\"%s\",secret=\"%s\"} ", source,
             json_string_value(json_object_get(secret, "name")));
    int64_t matched_s = page ? read_series(page, series) : -1;
    json_object_set_new(secret, "loaded", page ? json_boolean(matched_s >= 0) : json_null());
    json_object_set_new(secret, "last_matched_at",
                        matched_s > 0 ? moment(matched_s * 1000) : json_null());
}

/* ---- secrets --------------------------------------------------------------------------------- */

static json_t *configured_secret(const struct config_terms *terms, int64_t now_ms)
{
    const char *state = now_ms < terms->not_before_ms  ? "waits"
                        : now_ms > terms->not_after_ms ? "ended"
                                                       : "live";
    return json_pack("{s:s, s:s, s:o, s:o, s:s}", "name", terms->name, "from",
                     config_origin_word(terms->origin), "not_before", moment(terms->not_before_ms),
                     "not_after", moment(terms->not_after_ms), "state", state);
}

/* False: the database could not be asked, and stderr says why. */
static bool add_learned(json_t *list, const struct source_options *options)
{
    const struct cli_database_options where = {.config = options->config};
    struct cli_database database;
    if (!cli_database_find(&where, false, &database))
        return false;
    PGconn *connection = cli_database_connect(&database, "oncehook providers");
    PGresult *rows =
        connection ? PQexec(connection, embedded_find(embedded_sql, "get_learned.sql")) : NULL;
    bool done = PQresultStatus(rows) == PGRES_TUPLES_OK;
    if (connection && !done)
        fprintf(stderr, "oncehook: %s", PQerrorMessage(connection));
    for (int i = 0; done && i < PQntuples(rows); i++) {
        char name[64];
        if (strcmp(PQgetvalue(rows, i, 1), options->source) != 0)
            continue;
        snprintf(name, sizeof(name), "learned-%s", PQgetvalue(rows, i, 0));
        json_t *secret = json_pack("{s:s, s:s, s:n, s:n, s:s, s:s}", "name", name, "from",
                                   "handshake", "not_before", "not_after", "state", "live",
                                   "learned_at", PQgetvalue(rows, i, 3));
        if (options->reveal)
            json_object_set_new(secret, "secret", json_string(PQgetvalue(rows, i, 2)));
        json_array_append_new(list, secret);
    }
    PQclear(rows);
    PQfinish(connection);
    cli_database_release(&database);
    return done;
}

/* ---- showing --------------------------------------------------------------------------------- */

static const char *text_of(const json_t *object, const char *member, const char *otherwise)
{
    const char *text = json_string_value(json_object_get(object, member));
    return text ? text : otherwise;
}

static void print_secret(const json_t *secret)
{
    const json_t *loaded = json_object_get(secret, "loaded");
    const char *matched = json_is_null(loaded)    ? "not known"
                          : json_is_false(loaded) ? "not loaded: reload the gateway"
                                                  : "not since the start";
    char from[64];
    snprintf(from, sizeof(from), "%s%s%s", text_of(secret, "from", ""),
             json_object_get(secret, "learned_at") ? " " : "", text_of(secret, "learned_at", ""));
    printf("%-16s %-30s %-24s %-24s %-5s  %s\n", text_of(secret, "name", ""), from,
           text_of(secret, "not_before", "-"), text_of(secret, "not_after", "-"),
           text_of(secret, "state", ""), text_of(secret, "last_matched_at", matched));
    if (json_object_get(secret, "secret"))
        printf("%-16s %s\n", "", text_of(secret, "secret", ""));
}

static void print_text(const json_t *shown)
{
    const json_t *secret, *secrets = json_object_get(shown, "secrets");
    size_t i;
    printf("source     %s, POST %s\n", text_of(shown, "source", ""), text_of(shown, "url", ""));
    printf("provider   %s, scheme %s\n", text_of(shown, "provider", ""),
           text_of(shown, "scheme", ""));
    if (json_is_true(json_object_get(shown, "handshake_brings_secret")))
        printf("handshake  brings a secret; %s%s\n",
               json_is_true(json_object_get(shown, "is_armed")) ? "armed until "
                                                                : "refused: not armed",
               json_is_true(json_object_get(shown, "is_armed")) ? text_of(shown, "armed_until", "")
                                                                : "");
    const char *loaded = text_of(shown, "loaded_at", NULL);
    printf("gateway    %s%s\n\n", loaded ? "loaded its secrets at " : "not asked",
           loaded ? loaded : "");
    printf("%-16s %-30s %-24s %-24s %-5s  %s\n", "SECRET", "FROM", "NOT BEFORE", "NOT AFTER",
           "STATE", "LAST MATCHED");
    json_array_foreach(secrets, i, secret) print_secret(secret);
    if (json_array_size(secrets) == 0)
        puts("none");
}

/* All that is known. NULL: stderr says why not. */
static json_t *describe(const struct config *config, const struct config_source *source,
                        const struct source_options *options)
{
    char url[300], why[200] = "";
    int64_t now_ms = clock_wall_us() / 1000;
    bool brings = oh_handshake_learns(source->provider);
    struct oh_recipe_info info;
    json_t *secrets = json_array(), *secret;
    size_t i;
    oh_recipe_describe(source->recipe, &info);
    for (i = 0; i < source->secret_count; i++)
        json_array_append_new(secrets, configured_secret(&source->terms[i], now_ms));
    if (brings && !add_learned(secrets, options)) {
        json_decref(secrets);
        return NULL;
    }
    char *page = client_admin_url(config, options->admin, "/metrics", url, sizeof(url))
                     ? client_get(url, why, sizeof(why))
                     : NULL;
    if (!page)
        fprintf(stderr, "oncehook: when secrets last matched is not known: %s\n",
                why[0] ? why : "no address of a gateway: admin.listen, or --admin URL");
    json_array_foreach(secrets, i, secret) add_evidence(secret, page, source->name);
    int64_t loaded_s = page ? read_series(page, LOADED) : -1;
    free(page);
    int64_t arm_ms = source->arm_until_ms ? source->arm_until_ms : INT64_MAX;
    snprintf(url, sizeof(url), "%s/in/%s",
             config->listen.public_url ? config->listen.public_url : "", source->name);
    return json_pack("{s:s, s:s, s:s, s:s, s:b, s:o, s:b, s:o, s:o}", "source", source->name, "url",
                     url, "provider", source->provider, "scheme", info.scheme,
                     "handshake_brings_secret", brings, "armed_until", moment(arm_ms), "is_armed",
                     source->arm_until_ms >= now_ms, "loaded_at",
                     loaded_s > 0 ? moment(loaded_s * 1000) : json_null(), "secrets", secrets);
}

int cli_show_source(const struct source_options *options)
{
    if (!options->config) {
        fprintf(stderr, "oncehook providers: --source needs -c FILE\n");
        return CLI_USAGE;
    }
    struct config *config = cli_load_config(options->config, CONFIG_SECRETS);
    if (!config)
        return CLI_USAGE;
    const struct config_source *source = config_find_source(config, slice_of_text(options->source));
    json_t *shown = source ? describe(config, source, options) : NULL;
    if (!source)
        fprintf(stderr, "oncehook: the configuration has no source '%s'\n", options->source);
    else if (shown && options->json)
        json_dumpf(shown, stdout, JSON_INDENT(2)), putchar('\n');
    else if (shown)
        print_text(shown);
    int code = shown ? CLI_OK : source ? CLI_USAGE : CLI_NO;
    json_decref(shown);
    config_free(config);
    return code;
}
