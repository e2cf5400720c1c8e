/* SPDX-License-Identifier: Apache-2.0 */
/* bench/load: loads a gateway that already runs with fresh, signed events, and says what it
 * measured: rate, latency, and what gateway, PostgreSQL and this client each spent on an event. */
#include "base/clock.h"
#include "client.h"
#include "config/config.h"
#include "measure.h"
#include "number.h"

#include <argp.h>
#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { EXIT_FINE = 0, EXIT_NO = 1, EXIT_USAGE = 2 };
enum { PAIRS_MAX = 100000, KEY_FILE_MAX = 65536, START_DELAY_US = 20000 };

/* ---- options -------------------------------------------------------------------------------- */

struct options {
    const char *url, *ca, *config, *source, *key, *json, *name;
    double rate, seconds, warmup, duplicates_percent, timeout;
    uint32_t connections, threads, events_per_delivery, instances;
    bool max, idle, new_connections, own_host, no_database;
    struct measure measure;
};

struct option_row {
    const char *name, *argument; /* argument NULL: a flag */
    enum { KIND_FLAG, KIND_TEXT, KIND_REAL, KIND_COUNT, KIND_WATCH } kind;
    size_t offset; /* in struct options */
    double least, most;
    const char *help;
};

#define AT(field) offsetof(struct options, field)
static const struct option_row option_rows[] = {
    {"url", "U", KIND_TEXT, AT(url), 0, 0,
     "the gateway, for instance https://127.0.0.1:8443; /in/SOURCE is added when it has no path"},
    {"ca", "FILE", KIND_TEXT, AT(ca), 0, 0, "PEM certificates to trust (default: the system's)"},
    {"config", "FILE", KIND_TEXT, AT(config), 0, 0,
     "the gateway's configuration: secrets, and the database to read enrollments from"},
    {"source", "S", KIND_TEXT, AT(source), 0, 0, "the source to be"},
    {"key", "FILE", KIND_TEXT, AT(key), 0, 0,
     "PEM private key, where the scheme needs one (default: keys/SOURCE.pem beside the "
     "configuration)"},
    {"rate", "N", KIND_REAL, AT(rate), 0.1, 1e7,
     "open loop: N deliveries a second, whatever the server does"},
    {"max", NULL, KIND_FLAG, AT(max), 0, 0,
     "closed loop: each connection sends when it has its answer"},
    {"idle", NULL, KIND_FLAG, AT(idle), 0, 0,
     "send nothing: open all connections and hold them, for the server's memory"},
    {"seconds", "T", KIND_REAL, AT(seconds), 0.1, 86400, "how long to measure"},
    {"warmup", "T", KIND_REAL, AT(warmup), 0, 3600,
     "how long to send before measuring (default 1)"},
    {"connections", "C", KIND_COUNT, AT(connections), 1, 60000, "how many (default 64)"},
    {"threads", "N", KIND_COUNT, AT(threads), 1, 64, "of this client (default 1)"},
    {"events-per-delivery", "E", KIND_COUNT, AT(events_per_delivery), 1, MAKER_EVENTS_MAX,
     "events of a delivery, an array when more than 1 (default 1)"},
    {"new-connections", NULL, KIND_FLAG, AT(new_connections), 0, 0,
     "a new connection for each delivery"},
    {"duplicates", "P", KIND_REAL, AT(duplicates_percent), 0, 100,
     "this many percent of the deliveries after the warm-up repeat an earlier one"},
    {"instances", "N", KIND_COUNT, AT(instances), 1, 1000,
     "only enrollments of N instances (1: a hot one; default: of all)"},
    {"timeout", "T", KIND_REAL, AT(timeout), 0.1, 600,
     "seconds to wait for a connection or an answer (default 10)"},
    {"json", "F", KIND_TEXT, AT(json), 0, 0, "write the result to F (-: stdout)"},
    {"name", "NAME", KIND_TEXT, AT(name), 0, 0, "name of the result (default load)"},
    {"watch", "WHO=PID", KIND_WATCH, AT(measure), 0, 0,
     "gateway=PID or postgres=PID (the postmaster): measure its CPU time too"},
    {"no-database", NULL, KIND_FLAG, AT(no_database), 0, 0,
     "invent enrollments instead of reading them: every event is an orphan"},
    {"i-own-this-host", NULL, KIND_FLAG, AT(own_host), 0, 0,
     "allow a target that is not this machine"},
};
#undef AT

enum { OPTION_COUNT = sizeof(option_rows) / sizeof(option_rows[0]), OPTION_KEY = 1000 };

static void take_option(struct options *options, const struct option_row *row, const char *text,
                        struct argp_state *state)
{
    void *at = (char *)options + row->offset;
    switch (row->kind) {
    case KIND_FLAG:
        *(bool *)at = true;
        break;
    case KIND_TEXT:
        *(const char **)at = text;
        break;
    case KIND_REAL:
        *(double *)at = number_or_usage(state, row->name, text, row->least, row->most);
        break;
    case KIND_COUNT:
        *(uint32_t *)at = (uint32_t)count_or_usage(state, row->name, text, row->least, row->most);
        break;
    case KIND_WATCH:
        if (!measure_watch(at, text))
            argp_error(state, "--%s: gateway=PID or postgres=PID", row->name);
    }
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    if (key == 'c') {
        options->config = text;
    } else if (key >= OPTION_KEY && key < OPTION_KEY + OPTION_COUNT) {
        take_option(options, &option_rows[key - OPTION_KEY], text, state);
    } else if (key == ARGP_KEY_END) {
        if (!options->url || !options->config || !options->source || options->seconds <= 0)
            argp_error(state, "--url, -c, --source and --seconds are needed");
        if (options->max + options->idle + (options->rate > 0) != 1)
            argp_error(state, "either --rate N or --max or --idle");
        if (options->threads > options->connections)
            argp_error(state, "fewer connections than threads");
    } else {
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static void read_options(struct options *options, int argc, char **argv)
{
    struct argp_option rows[OPTION_COUNT + 1] = {0};
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        bool is_config = strcmp(option_rows[i].name, "config") == 0;
        rows[i] = (struct argp_option){.name = option_rows[i].name,
                                       .key = is_config ? 'c' : OPTION_KEY + (int)i,
                                       .arg = option_rows[i].argument,
                                       .doc = option_rows[i].help};
    }
    const struct argp argp = {
        .options = rows,
        .parser = parse_option,
        .doc = "Loads a gateway that already runs with fresh, signed events.\v"
               "Latencies of the open loop count from the moment a request was due. Exit: 0 events "
               "were acknowledged (with --idle: all connections stood), 1 not so, 2 usage or "
               "configuration."};
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, options);
}

/* ---- the target ----------------------------------------------------------------------------- */

struct target {
    char *scheme, *host, *port, *path; /* of libcurl */
    char url[1024], authority[300];
    struct sockaddr_storage address;
    socklen_t address_len;
};

static void target_free(struct target *target)
{
    curl_free(target->scheme);
    curl_free(target->host);
    curl_free(target->port);
    curl_free(target->path);
}

static bool target_parse(struct target *target, const struct options *options)
{
    CURLU *url = curl_url();
    bool good = url && curl_url_set(url, CURLUPART_URL, options->url, 0) == CURLUE_OK &&
                curl_url_get(url, CURLUPART_SCHEME, &target->scheme, 0) == CURLUE_OK &&
                curl_url_get(url, CURLUPART_HOST, &target->host, 0) == CURLUE_OK &&
                curl_url_get(url, CURLUPART_PORT, &target->port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
                curl_url_get(url, CURLUPART_PATH, &target->path, 0) == CURLUE_OK &&
                (strcmp(target->scheme, "http") == 0 || strcmp(target->scheme, "https") == 0);
    curl_url_cleanup(url);
    if (!good)
        return false;
    char path[600];
    if (strcmp(target->path, "/") == 0)
        snprintf(path, sizeof(path), "/in/%s", options->source);
    else
        snprintf(path, sizeof(path), "%s", target->path);
    snprintf(target->authority, sizeof(target->authority), "%.250s:%.8s", target->host,
             target->port);
    snprintf(target->url, sizeof(target->url), "%s://%s%s", target->scheme, target->authority,
             path);
    return true;
}

static bool is_loopback(const struct sockaddr_storage *address)
{
    const struct sockaddr_in *four = (const void *)address;
    const struct sockaddr_in6 *six = (const void *)address;
    if (address->ss_family == AF_INET)
        return ntohl(four->sin_addr.s_addr) >> 24 == 127;
    return address->ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&six->sin6_addr);
}

/* host without the brackets of an IPv6 address */
static void bare_host(const struct target *target, char out[256])
{
    size_t len = strlen(target->host);
    bool bracketed = target->host[0] == '[' && len > 2;
    snprintf(out, 256, "%.*s", (int)(bracketed ? len - 2 : len), target->host + bracketed);
}

static bool target_resolve(struct target *target, const struct options *options)
{
    char host[256];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    bare_host(target, host);
    int failed = getaddrinfo(host, target->port, &hints, &found);
    if (failed) {
        fprintf(stderr, "bench/load: %s: %s\n", host, gai_strerror(failed));
        return false;
    }
    memcpy(&target->address, found->ai_addr, found->ai_addrlen);
    target->address_len = found->ai_addrlen;
    freeaddrinfo(found);
    if (is_loopback(&target->address) || options->own_host)
        return true;
    fprintf(stderr,
            "bench/load: %s is not this machine; --i-own-this-host if it is yours to load\n", host);
    return false;
}

/* ---- what to send --------------------------------------------------------------------------- */

/* The private key's text, or the source's first secret. *text is malloc'ed where it was read. */
static enum oh_status find_key(const struct options *options, const struct config *config,
                               const struct config_source *source, char **text,
                               struct oh_slice *key, struct oh_error *err)
{
    struct oh_recipe_info info;
    oh_recipe_describe(source->recipe, &info);
    if (!info.has_private_key) {
        if (source->secret_count == 0)
            return oh_fail(err, OH_INVALID, "source %s has no secret to sign with", source->name);
        *key = source->secrets[0].bytes;
        return OH_OK;
    }
    char path[4096];
    const char *slash = strrchr(config->path, '/');
    if (options->key)
        snprintf(path, sizeof(path), "%s", options->key);
    else
        snprintf(path, sizeof(path), "%.*skeys/%s.pem", slash ? (int)(slash - config->path + 1) : 0,
                 config->path, source->name);
    FILE *file = fopen(path, "re");
    *text = malloc(KEY_FILE_MAX);
    size_t len = file && *text ? fread(*text, 1, KEY_FILE_MAX, file) : 0;
    if (file)
        fclose(file);
    *key = (struct oh_slice){*text, len};
    return len > 0 ? OH_OK : oh_fail(err, OH_INVALID, "cannot read the private key %s", path);
}

static enum oh_status choose_pairs(const struct options *options, const struct config *config,
                                   struct pairs *pairs, struct oh_error *err)
{
    if (!options->no_database) {
        struct oh_error why = {0};
        if (pairs_read(config->database.url, config->database.schema, PAIRS_MAX, pairs, &why) ==
            OH_OK) {
            if (options->instances)
                pairs_keep_instances(pairs, options->instances);
            return OH_OK;
        }
        fprintf(stderr, "bench/load: every event will be an orphan: %s\n", why.text);
    }
    return pairs_invent(PAIRS_MAX, pairs, err);
}

/* ---- the run -------------------------------------------------------------------------------- */

static void sleep_until(int64_t mono_us)
{
    struct timespec until = {.tv_sec = mono_us / 1000000, .tv_nsec = mono_us % 1000000 * 1000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

/* Watches the window from its start to its end. Returns the deliveries acknowledged in it. */
static uint64_t watch_window(struct options *options, const struct client *client, int64_t from_us,
                             int64_t until_us)
{
    bool terminal = isatty(STDERR_FILENO);
    sleep_until(from_us);
    measure_begin(&options->measure);
    uint64_t before = client_acknowledged(client), last = before;
    for (int64_t at_us = from_us + 1000000;; at_us += 1000000) {
        sleep_until(at_us < until_us ? at_us : until_us);
        if (at_us >= until_us)
            break;
        measure_look(&options->measure);
        uint64_t now = client_acknowledged(client);
        if (terminal)
            fprintf(stderr,
                    "\r%4.0f s  %8" PRIu64 " events/s  %" PRIu64 " acknowledged  %" PRIu64
                    " failed ",
                    (double)(at_us - from_us) / 1e6, (now - last) * options->events_per_delivery,
                    (now - before) * options->events_per_delivery, client_failed(client));
        last = now;
    }
    uint64_t acknowledged = client_acknowledged(client) - before;
    measure_end(&options->measure);
    if (terminal)
        fprintf(stderr, "\r%78s\r", "");
    return acknowledged;
}

static json_t *totals_to_json(const struct client_totals *totals)
{
    json_t *statuses = json_object();
    char text[16];
    for (int i = 0; i < ANSWER_STATUS_MAX; i++) {
        snprintf(text, sizeof(text), "%d", i);
        if (totals->statuses[i])
            json_object_set_new(statuses, text, json_integer((json_int_t)totals->statuses[i]));
    }
#define N(field) #field, (json_int_t)totals->field
    return json_pack("{s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "statuses",
                     statuses, N(sent), N(timeouts), N(broken), N(refused), N(connected), N(unsent),
                     N(captured), N(duplicates), N(orphans), N(quarantined), N(spooled));
#undef N
}

static json_t *quantiles_to_json(const struct histogram *histogram)
{
    return json_pack("{s:f, s:f, s:f}", "p50_ms", (double)histogram_at(histogram, 0.5) / 1e3,
                     "p99_ms", (double)histogram_at(histogram, 0.99) / 1e3, "max_ms",
                     (double)histogram_at(histogram, 1) / 1e3);
}

static void print_totals(const struct client_totals *totals, const struct oh_error *problem)
{
    printf("%-22s answers:", "");
    for (int i = 0; i < ANSWER_STATUS_MAX; i++)
        if (totals->statuses[i])
            printf("  %d: %" PRIu64, i, totals->statuses[i]);
    printf("   no answer: %" PRIu64 "  never sent: %" PRIu64 "\n",
           totals->timeouts + totals->broken + totals->refused, totals->unsent);
    printf("%-22s events in answers: captured %" PRIu64 "  duplicates %" PRIu64 "  orphans %" PRIu64
           "  quarantined %" PRIu64 "  spooled %" PRIu64 "\n",
           "", totals->captured, totals->duplicates, totals->orphans, totals->quarantined,
           totals->spooled);
    if (problem->text[0])
        printf("%-22s first problem: %s\n", "", problem->text);
}

static int tell(const struct options *options, uint64_t acknowledged,
                const struct client_totals *totals, const struct client_latencies *latencies,
                const struct oh_error *problem)
{
    uint64_t events = acknowledged * options->events_per_delivery;
    double seconds = (double)(options->measure.until_us - options->measure.from_us) / 1e6;
    struct measure_result result = {options->name, (double)events / seconds, events,
                                    &latencies->all};
    if (!options->json || strcmp(options->json, "-") != 0) {
        measure_print(&options->measure, &result);
        print_totals(totals, problem);
    }
    if (options->json) {
        json_t *json = measure_to_json(&options->measure, &result);
        json_object_set_new(json, "connections", json_integer(options->connections));
        json_object_set_new(json, "offered_per_second",
                            options->rate > 0
                                ? json_real(options->rate * options->events_per_delivery)
                                : json_null());
        json_object_set_new(json, "events_per_delivery",
                            json_integer(options->events_per_delivery));
        json_object_set_new(json, "totals", totals_to_json(totals));
        json_object_set_new(json, "accepted", quantiles_to_json(&latencies->accepted));
        json_object_set_new(json, "accepted_sent", quantiles_to_json(&latencies->accepted_sent));
        if (!measure_write(options->json, json)) {
            fprintf(stderr, "bench/load: cannot write %s\n", options->json);
            return EXIT_USAGE;
        }
    }
    return events > 0 || options->idle ? EXIT_FINE : EXIT_NO;
}

static int run(struct options *options, const struct client_options *client_options)
{
    static struct client_totals totals;
    static struct client_latencies latencies;
    struct oh_error err = {0};
    struct client *client;
    if (client_start(client_options, &client, &err) != OH_OK ||
        client_wait_connected(client, &err) != OH_OK) {
        fprintf(stderr, "bench/load: %s\n", err.text);
        client_free(client);
        return EXIT_NO;
    }
    int64_t start_us = clock_mono_us() + START_DELAY_US;
    int64_t from_us = start_us + (int64_t)(options->warmup * 1e6);
    int64_t until_us = from_us + (int64_t)(options->seconds * 1e6);
    if (!options->idle)
        client_begin(client, start_us, from_us, until_us);
    uint64_t acknowledged = watch_window(options, client, from_us, until_us);
    if (options->idle)
        client_begin(client, 1, 1, 1); /* over before it began */
    client_finish(client, &totals, &latencies, &err);
    client_free(client);
    return tell(options, acknowledged, &totals, &latencies, &err);
}

/* Builds signer, plan and TLS for the source, and runs. */
static int prepare(struct options *options, const struct config *config, struct target *target)
{
    char *key_text = NULL, host[256];
    struct oh_slice key = {NULL, 0};
    struct oh_error err = {0};
    struct oh_signer *signer = NULL;
    struct maker_plan *plan = NULL;
    struct pairs pairs = {0};
    SSL_CTX *tls = NULL;
    int result = EXIT_USAGE;
    const struct config_source *source =
        config_find_source(config, (struct oh_slice){options->source, strlen(options->source)});
    if (!source) {
        fprintf(stderr, "bench/load: %s has no source '%s'\n", options->config, options->source);
        return EXIT_USAGE;
    }
    bare_host(target, host);
    if (find_key(options, config, source, &key_text, &key, &err) != OH_OK ||
        oh_signer_new(source->recipe, key, &signer, &err) != OH_OK ||
        choose_pairs(options, config, &pairs, &err) != OH_OK)
        goto out;
    struct maker_options maker = {.provider = source->provider,
                                  .signer = signer,
                                  .pairs = &pairs,
                                  .url = target->url,
                                  .host = target->authority,
                                  .path = strchr(target->url + strlen(target->scheme) + 3, '/'),
                                  .events_per_delivery = options->events_per_delivery,
                                  .close_after = options->new_connections,
                                  .now_us = clock_wall_us()};
    if (maker_plan_new(&maker, &plan, &err) != OH_OK)
        goto out;
    if (strcmp(target->scheme, "https") == 0 && !(tls = wire_tls_new(options->ca, &err)))
        goto out;
    struct client_options client = {.address = target->address,
                                    .address_len = target->address_len,
                                    .tls = tls,
                                    .tls_name = host,
                                    .plan = plan,
                                    .threads = options->threads,
                                    .connections = options->connections,
                                    .rate = options->rate,
                                    .new_connections = options->new_connections,
                                    .duplicates = options->duplicates_percent / 100,
                                    .timeout_us = (int64_t)(options->timeout * 1e6)};
    result = run(options, &client);
out:
    if (err.text[0])
        fprintf(stderr, "bench/load: %s\n", err.text);
    SSL_CTX_free(tls);
    maker_plan_free(plan);
    pairs_free(&pairs);
    oh_signer_free(signer);
    free(key_text);
    return result;
}

int main(int argc, char **argv)
{
    struct options options = {.connections = 64,
                              .threads = 1,
                              .events_per_delivery = 1,
                              .warmup = 1,
                              .timeout = 10,
                              .name = "load"};
    struct config *config = NULL;
    struct config_mistakes mistakes = {0};
    struct target target = {0};
    int result = EXIT_USAGE;
    read_options(&options, argc, argv);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    unsigned parts = CONFIG_SECRETS | (options.no_database ? 0 : CONFIG_URL);
    if (config_load(options.config, parts, &config, &mistakes) != OH_OK) {
        config_mistakes_print(options.config, &mistakes);
    } else if (!target_parse(&target, &options)) {
        fprintf(stderr, "bench/load: --url: http://HOST[:PORT] or https://HOST[:PORT]\n");
    } else if (target_resolve(&target, &options)) {
        result = prepare(&options, config, &target);
    }
    target_free(&target);
    config_mistakes_free(&mistakes);
    config_free(config);
    return result;
}
