/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook send: signs as the provider would, and sends to the gateway of a configuration, or
 * prints the curl command that would. The room promises exit 0 only when every answer was the one
 * that a delivery of this kind must get. */
#include "cli/cli.h"
#include "cli/post.h"

#include "base/clock.h"
#include "base/slice.h"

#include <argp.h>
#include <libgen.h>
#include <stdlib.h>

enum {
    COUNT_MAX = 10 * 1000 * 1000,
    CONNECTIONS = 32,
    TIMEOUT_MS = 30 * 1000,
    LINES_MAX = 20, /* more answers than that are summed up */
    EVENT_BYTES_MAX = 64 * 1024 * 1024,
    STATUSES = 600,
};

enum option_key {
    KEY_SOURCE = 256,
    KEY_EVENT,
    KEY_COUNT,
    KEY_DUPLICATE,
    KEY_TAMPER,
    KEY_STALE,
    KEY_KEY,
    KEY_PRINT_CURL,
    KEY_URL,
    KEY_CA
};

struct options {
    const char *config, *source, *event, *key, *url, *ca;
    uint64_t count;
    bool duplicate, tamper, stale, print_curl;
};

static const struct argp_option option_rows[] = {
    {NULL, 'c', "FILE", 0, "the gateway's configuration: source, secret, address", 0},
    {"source", KEY_SOURCE, "NAME", 0, "the source to send to", 0},
    {"event", KEY_EVENT, "JSON|@FILE", 0,
     "this body; default: a sample of the provider with a fresh id", 0},
    {"count", KEY_COUNT, "N", 0, "how many deliveries (default 1)", 0},
    {"duplicate", KEY_DUPLICATE, NULL, 0, "send each twice", 0},
    {"tamper", KEY_TAMPER, NULL, 0, "change a byte of the body after signing", 0},
    {"stale", KEY_STALE, NULL, 0, "sign with a time that is too old", 0},
    {"key", KEY_KEY, "FILE", 0,
     "private key for schemes that need one (default: keys/NAME.pem beside the configuration)", 0},
    {"print-curl", KEY_PRINT_CURL, NULL, 0,
     "print a curl command that sends the same, and send nothing", 0},
    {"url", KEY_URL, "URL", 0, "base URL of the gateway, instead of the configuration's `listen`",
     0},
    {"ca", KEY_CA, "FILE", 0,
     "what the gateway's certificate is checked against (default: $ONCEHOOK_CA, else the "
     "certificate of the configuration)",
     0},
    {0},
};

static bool parse_count(const char *text, uint64_t *out)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || value < 1 || value > COUNT_MAX)
        return false;
    *out = value;
    return true;
}

static error_t on_option(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case 'c':
        o->config = arg;
        break;
    case KEY_SOURCE:
        o->source = arg;
        break;
    case KEY_EVENT:
        o->event = arg;
        break;
    case KEY_COUNT:
        if (!parse_count(arg, &o->count))
            argp_error(state, "--count must be 1 to %d", COUNT_MAX);
        break;
    case KEY_DUPLICATE:
        o->duplicate = true;
        break;
    case KEY_TAMPER:
        o->tamper = true;
        break;
    case KEY_STALE:
        o->stale = true;
        break;
    case KEY_KEY:
        o->key = arg;
        break;
    case KEY_PRINT_CURL:
        o->print_curl = true;
        break;
    case KEY_URL:
        o->url = arg;
        break;
    case KEY_CA:
        o->ca = arg;
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "no argument is expected: '%s'", arg);
        break;
    case ARGP_KEY_END:
        if (!o->config || !o->source)
            argp_error(state, "-c FILE and --source NAME are needed");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp parser = {
    option_rows,
    on_option,
    NULL,
    "Signs deliveries as the provider of a source would, and sends them to the gateway.\v"
    "Exit: 0 every answer was as it must be (with --tamper or --stale: 401), 1 one was not, 2 "
    "usage "
    "or configuration.",
    NULL,
    NULL,
    NULL};

/* ---- one run --------------------------------------------------------------------------------- */

struct run {
    const struct options *options;
    struct config *config;
    const struct config_source *source;
    struct oh_signer *signer;
    const char *ca;
    char *url;        /* where it is sent */
    char *signed_url; /* what the provider was given */
    char *event;      /* --event, or NULL */
    size_t event_len;
    int64_t age_s; /* how old the signed time is */
    /* What came back. */
    uint64_t statuses[STATUSES];
    uint64_t unanswered, unread;
    struct post_outcome sum;
};

/* "https://localhost:8443" of `listen`; HTTPS unless there is only HTTP. *out: free(). */
static enum oh_status base_url(const struct config *config, char **out, struct oh_error *err)
{
    bool tls = config->listen.https.host;
    const struct config_address *address = tls ? &config->listen.https : &config->listen.http;
    const char *host = address->host;
    if (!host || address->port == 0)
        return oh_fail(err, OH_INVALID, "the configuration names no port to send to: give --url");
    if (strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0 || strcmp(host, "*") == 0)
        host = "localhost";
    bool v6 = strchr(host, ':');
    int len = asprintf(out, "%s://%s%s%s:%u", tls ? "https" : "http", v6 ? "[" : "", host,
                       v6 ? "]" : "", address->port);
    return len < 0 ? oh_fail(err, OH_NO_MEMORY, "out of memory") : OH_OK;
}

static enum oh_status make_urls(struct run *run, struct oh_error *err)
{
    char *base = NULL;
    enum oh_status status = OH_OK;
    if (run->options->url)
        base = strdup(run->options->url);
    else
        status = base_url(run->config, &base, err);
    if (status != OH_OK)
        return status;
    size_t len = base ? strlen(base) : 0;
    while (len && base[len - 1] == '/')
        base[--len] = '\0';
    const char *public_url = run->config->listen.public_url ? run->config->listen.public_url : base;
    if (!base || asprintf(&run->url, "%s/in/%s", base, run->source->name) < 0) {
        run->url = NULL;
        status = oh_fail(err, OH_NO_MEMORY, "out of memory");
    } else if (asprintf(&run->signed_url, "%s/in/%s", public_url, run->source->name) < 0) {
        run->signed_url = NULL;
        status = oh_fail(err, OH_NO_MEMORY, "out of memory");
    }
    free(base);
    return status;
}

static const char *choose_ca(const struct run *run)
{
    const char *environment = getenv("ONCEHOOK_CA");
    if (run->options->ca)
        return run->options->ca;
    if (environment && *environment)
        return environment;
    return run->config->listen.certificate;
}

static enum oh_status open_signer(struct run *run, struct oh_error *err)
{
    char *copy = strdup(run->options->config);
    if (!copy)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    enum oh_status status =
        post_open_signer(run->source, run->options->key, dirname(copy), &run->signer, err);
    free(copy);
    return status;
}

/* --event JSON or @FILE. */
static enum oh_status read_event(struct run *run, struct oh_error *err)
{
    const char *event = run->options->event;
    if (!event)
        return OH_OK;
    if (*event == '@')
        return post_read_file(event + 1, EVENT_BYTES_MAX, &run->event, &run->event_len, err);
    run->event = strdup(event);
    run->event_len = strlen(event);
    return run->event ? OH_OK : oh_fail(err, OH_NO_MEMORY, "out of memory");
}

static enum oh_status prepare(struct run *run, struct oh_error *err)
{
    const struct options *options = run->options;
    run->source = config_find_source(run->config, slice_of_text(options->source));
    if (!run->source)
        return oh_fail(err, OH_INVALID, "%s: no source '%s'", options->config, options->source);
    if (options->stale && (run->age_s = post_stale_s(run->source)) < 0)
        return oh_fail(err, OH_INVALID, "--stale: the scheme of %s signs no time", options->source);
    run->ca = choose_ca(run);
    enum oh_status status = make_urls(run, err);
    if (status == OH_OK)
        status = open_signer(run, err);
    if (status == OH_OK)
        status = read_event(run, err);
    return status;
}

/* A delivery, signed, and spoilt as the options say. */
static enum oh_status make_delivery(const struct run *run, struct oh_arena *arena,
                                    struct sample_delivery *delivery, struct oh_error *err)
{
    int64_t now_us = clock_wall_us();
    enum oh_status status;
    if (run->event) {
        status = sample_headers(run->source->recipe, now_us, arena, delivery, err);
        delivery->body = slice_of(run->event, run->event_len);
    } else {
        const struct sample_event fresh = {NULL, NULL, NULL, NULL};
        status = sample_make(run->source, &fresh, 1, now_us, arena, delivery, err);
    }
    if (status == OH_OK)
        status = post_sign(run->signer, run->signed_url, now_us / 1000 - run->age_s * 1000, arena,
                           delivery, err);
    if (status == OH_OK && run->options->tamper)
        status = post_tamper(arena, delivery, err);
    return status;
}

static uint64_t deliveries(const struct run *run)
{
    return run->options->count * (run->options->duplicate ? 2 : 1);
}

/* Bytes from outside on a terminal: control characters would steer it. */
static void print_answer(const struct client_answer *answer)
{
    if (!answer->status) {
        printf("no answer: %s\n", answer->failure);
        return;
    }
    printf("%d ", answer->status);
    size_t len = answer->body.len;
    while (len && answer->body.data[len - 1] == '\n')
        len--;
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)answer->body.data[i];
        putchar(byte < 0x20 || byte == 0x7f ? '?' : byte);
    }
    printf(" %.1f ms\n", (double)answer->latency_us / 1000);
}

static void on_answer(void *context, const struct client_answer *answer)
{
    struct run *run = context;
    struct post_outcome outcome;
    if (answer->status <= 0 || answer->status >= STATUSES)
        run->unanswered++;
    else
        run->statuses[answer->status]++;
    if (answer->status == 200 || answer->status == 202) {
        if (post_read_outcome(answer->body, &outcome)) {
            run->sum.captured += outcome.captured;
            run->sum.duplicates += outcome.duplicates;
            run->sum.orphans += outcome.orphans;
            run->sum.quarantined += outcome.quarantined;
            run->sum.spooled += outcome.spooled;
        } else {
            run->unread++;
        }
    }
    if (deliveries(run) <= LINES_MAX)
        print_answer(answer);
    else if (answer->failure && run->unanswered == 1)
        fprintf(stderr, "oncehook: no answer: %s\n", answer->failure);
}

/* Makes, and sends or prints, every delivery. `client` NULL: prints. */
static enum oh_status run_deliveries(struct run *run, struct client *client, struct oh_error *err)
{
    enum oh_status status = OH_OK;
    for (uint64_t i = 0; status == OH_OK && i < run->options->count; i++) {
        struct oh_arena *arena = oh_arena_new(16 * 1024, EVENT_BYTES_MAX * 2UL);
        struct sample_delivery delivery = {.header_count = 0};
        status = arena ? make_delivery(run, arena, &delivery, err)
                       : oh_fail(err, OH_NO_MEMORY, "out of memory");
        for (int copy = 0; status == OH_OK && copy < (run->options->duplicate ? 2 : 1); copy++)
            if (client)
                status = client_post(client,
                                     &(struct client_request){.url = run->url,
                                                              .headers = delivery.headers,
                                                              .header_count = delivery.header_count,
                                                              .body = delivery.body},
                                     err);
            else
                post_print_curl(stdout, run->ca, run->url, &delivery);
        oh_arena_free(arena);
    }
    if (status == OH_OK && client)
        status = client_finish(client, err);
    return status;
}

static void print_summary(const struct run *run, int64_t elapsed_us)
{
    double seconds = (double)elapsed_us / 1e6;
    printf("%llu deliveries in %.2f s (%.0f/s):", (unsigned long long)deliveries(run), seconds,
           (double)deliveries(run) / (seconds > 0 ? seconds : 1e-6));
    for (int status = 0; status < STATUSES; status++)
        if (run->statuses[status])
            printf(" %d x %llu", status, (unsigned long long)run->statuses[status]);
    if (run->unanswered)
        printf(" no answer x %llu", (unsigned long long)run->unanswered);
    printf("\ncaptured %llu, duplicates %llu, orphans %llu, quarantined %llu, spooled %llu\n",
           (unsigned long long)run->sum.captured, (unsigned long long)run->sum.duplicates,
           (unsigned long long)run->sum.orphans, (unsigned long long)run->sum.quarantined,
           (unsigned long long)run->sum.spooled);
}

/* Says what was not as it must be; true if nothing. */
static bool judge(const struct run *run)
{
    const struct options *options = run->options;
    uint64_t all = deliveries(run);
    if (options->tamper || options->stale) {
        if (run->statuses[401] == all)
            return true;
        fprintf(stderr, "oncehook: %llu of %llu spoilt deliveries were not refused with 401\n",
                (unsigned long long)(all - run->statuses[401]), (unsigned long long)all);
        return false;
    }
    uint64_t good = run->statuses[200] + run->statuses[202];
    if (good != all) {
        fprintf(stderr, "oncehook: %llu of %llu deliveries were not accepted\n",
                (unsigned long long)(all - good), (unsigned long long)all);
        return false;
    }
    /* Fresh samples of one event each: each must be captured once, and its copies be duplicates. */
    bool countable = !run->event && run->unread == 0 && run->statuses[202] == 0;
    if (countable &&
        (run->sum.captured != options->count || run->sum.duplicates != all - options->count)) {
        fprintf(stderr, "oncehook: %llu fresh events must give captured %llu and duplicates %llu\n",
                (unsigned long long)options->count, (unsigned long long)options->count,
                (unsigned long long)(all - options->count));
        return false;
    }
    return true;
}

static int send_all(struct run *run, struct oh_error *err)
{
    if (run->options->print_curl)
        return run_deliveries(run, NULL, err) == OH_OK ? CLI_OK : CLI_USAGE;
    bool in_order = deliveries(run) <= LINES_MAX;
    struct client *client;
    const struct client_options options = {
        .ca = run->ca, .connections = in_order ? 1 : CONNECTIONS, .timeout_ms = TIMEOUT_MS};
    if (client_new(&options, on_answer, run, &client, err) != OH_OK)
        return CLI_USAGE;
    int64_t start_us = clock_mono_us();
    enum oh_status status = run_deliveries(run, client, err);
    if (status == OH_OK && !in_order)
        print_summary(run, clock_mono_us() - start_us);
    client_free(client);
    if (status != OH_OK)
        return CLI_USAGE;
    fflush(stdout);
    return judge(run) ? CLI_OK : CLI_NO;
}

int cli_send(int argc, char **argv)
{
    static char name[] = "oncehook send";
    struct options options = {.count = 1};
    argv[0] = name;
    argp_err_exit_status = CLI_USAGE;
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    struct run run = {.options = &options};
    struct config_mistakes mistakes = {NULL, 0};
    struct oh_error err = {.text = ""};
    int code = CLI_USAGE;
    if (config_load(options.config, &run.config, &mistakes) != OH_OK) {
        config_mistakes_print(options.config, &mistakes);
        goto out;
    }
    if (prepare(&run, &err) == OH_OK)
        code = send_all(&run, &err);
    if (err.text[0])
        fprintf(stderr, "oncehook: %s\n", err.text);
out:
    config_mistakes_free(&mistakes);
    oh_signer_free(run.signer);
    free(run.event);
    free(run.url);
    free(run.signed_url);
    config_free(run.config);
    return code;
}
