/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook send: signs as the provider would, and sends to the gateway of a configuration, or
 * prints the curl command that would. The room promises exit 0 only when every answer was the one
 * that a delivery of this kind must get. */
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/post.h"

#include "base/clock.h"
#include "base/slice.h"

#include <inttypes.h>
#include <libgen.h>
#include <stdlib.h>

enum {
    COUNT_MAX = 10 * 1000 * 1000,
    LINES_MAX = 20, /* more answers than that are summed up */
    EVENT_BYTES_MAX = 64 * 1024 * 1024,
    STATUSES = 600,
};

struct run {
    const char *event, *key, *base_url, *ca; /* as given */
    bool duplicate, tamper, stale, print_curl;
    uint64_t count;  /* of different deliveries */
    uint64_t copies; /* of each */
    struct config *config;
    struct post_door door;
    char *event_text; /* --event, or NULL */
    struct oh_slice body;
    /* What came back. */
    uint64_t statuses[STATUSES]; /* 0: no answer */
    uint64_t unread;
    uint64_t sums[POST_OUTCOMES];
};

/* "https://localhost:8443" of `listen`; HTTPS unless there is only HTTP. */
static enum oh_status find_base_url(const struct config *config, char *out, size_t size,
                                    struct oh_error *err)
{
    bool tls = config->listen.https.host;
    const struct config_address *address = tls ? &config->listen.https : &config->listen.http;
    const char *host = address->host;
    if (!host || address->port == 0)
        return oh_fail(err, OH_INVALID, "the configuration names no port to send to: give --url");
    if (strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0 || strcmp(host, "*") == 0)
        host = "localhost";
    bool v6 = strchr(host, ':');
    snprintf(out, size, "%s://%s%s%s:%u", tls ? "https" : "http", v6 ? "[" : "", host,
             v6 ? "]" : "", address->port);
    return OH_OK;
}

static enum oh_status prepare(struct run *run, const char *source_name, struct oh_error *err)
{
    const struct config_source *source =
        config_find_source(run->config, slice_of_text(source_name));
    const char *environment = getenv("ONCEHOOK_CA");
    char base_url[512];
    enum oh_status status = OH_OK;
    if (!source)
        return oh_fail(err, OH_INVALID, "%s: no source '%s'", run->config->path, source_name);
    if (run->stale && !post_can_be_stale(source))
        return oh_fail(err, OH_INVALID, "--stale: the scheme of %s signs no time", source_name);
    if (run->tamper && !post_can_be_tampered(source))
        return oh_fail(err, OH_INVALID, "--tamper: the scheme of %s does not sign the body",
                       source_name);
    if (!run->ca)
        run->ca = environment && *environment ? environment : run->config->listen.certificate;
    if (!run->base_url)
        status = find_base_url(run->config, base_url, sizeof(base_url), err);
    char *path = strdup(run->config->path);
    if (status == OH_OK && !path)
        status = oh_fail(err, OH_NO_MEMORY, "out of memory");
    if (status == OH_OK)
        status = post_open(&run->door, run->config, source,
                           run->base_url ? run->base_url : base_url, run->key, dirname(path), err);
    free(path);
    if (status != OH_OK || !run->event)
        return status;
    if (*run->event != '@') {
        run->body = slice_of_text(run->event);
        return OH_OK;
    }
    status = cli_read_file(run->event + 1, EVENT_BYTES_MAX, &run->body, err);
    run->event_text = (char *)run->body.data;
    return status;
}

static uint64_t deliveries(const struct run *run)
{
    return run->count * run->copies;
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
    run->statuses[answer->status > 0 && answer->status < STATUSES ? answer->status : 0]++;
    bool is_own = answer->status && answer->status == run->door.source->answer_status;
    if ((answer->status == 200 || answer->status == 202 || is_own) &&
        !post_add_outcome(answer->body, run->sums))
        run->unread++;
    if (deliveries(run) <= LINES_MAX)
        print_answer(answer);
    else if (answer->failure && run->statuses[0] == 1)
        fprintf(stderr, "oncehook: no answer: %s\n", answer->failure);
}

/* Makes, and sends or prints, every delivery. `client` NULL: prints. */
static enum oh_status run_deliveries(struct run *run, struct client *client, struct oh_error *err)
{
    const struct sample_event fresh = {NULL, NULL, NULL, NULL};
    unsigned flags = (run->tamper ? POST_TAMPERED : 0U) | (run->stale ? POST_STALE : 0U);
    enum oh_status status = OH_OK;
    for (uint64_t i = 0; status == OH_OK && i < run->count; i++) {
        struct oh_arena *arena = oh_arena_new(16 * 1024, EVENT_BYTES_MAX * 2UL);
        struct sample_delivery delivery = {.header_count = 0};
        status = arena ? post_make(&run->door, &fresh, 1, clock_wall_us(), run->body, flags, arena,
                                   &delivery, err)
                       : oh_fail(err, OH_NO_MEMORY, "out of memory");
        char *url = NULL;
        if (status == OH_OK && asprintf(&url, "%s%.*s", run->door.url, (int)delivery.query.len,
                                        delivery.query.data ? delivery.query.data : "") < 0)
            status = oh_fail(err, OH_NO_MEMORY, "out of memory");
        for (uint64_t copy = 0; status == OH_OK && copy < run->copies; copy++)
            status = client ? client_post(client, url, &delivery, false, NULL, err)
                            : post_print_curl(&run->door, run->ca, &delivery, err);
        free(url);
        oh_arena_free(arena);
    }
    return status == OH_OK && client ? client_finish(client, err) : status;
}

static void print_summary(const struct run *run, int64_t elapsed_us)
{
    double seconds = (double)elapsed_us / 1e6;
    printf("%" PRIu64 " deliveries in %.2f s (%.0f/s):", deliveries(run), seconds,
           (double)deliveries(run) / (seconds > 0 ? seconds : 1e-6));
    for (int status = 1; status < STATUSES; status++)
        if (run->statuses[status])
            printf(" %d x %" PRIu64, status, run->statuses[status]);
    if (run->statuses[0])
        printf(" no answer x %" PRIu64, run->statuses[0]);
    for (int i = 0; i < POST_OUTCOMES; i++)
        printf("%s%s %" PRIu64, i ? ", " : "\n", post_outcome_names[i], run->sums[i]);
    putchar('\n');
}

/* Says what was not as it must be; true if nothing. */
static bool judge(const struct run *run)
{
    bool spoilt = run->tamper || run->stale;
    uint64_t all = deliveries(run), copies = all - run->count;
    int own = run->door.source->answer_status; /* what this provider demands */
    uint64_t good = spoilt ? run->statuses[401] : run->statuses[200] + run->statuses[202];
    if (!spoilt && own > 0 && own < STATUSES && own != 200 && own != 202)
        good += run->statuses[own];
    if (good != all) {
        fprintf(stderr, "oncehook: %" PRIu64 " of %" PRIu64 " %s\n", all - good, all,
                spoilt ? "spoilt deliveries were not refused with 401"
                       : "deliveries were not accepted");
        return false;
    }
    /* Fresh samples of one event each: each must be captured once, and its copies be duplicates. */
    bool countable = !spoilt && !run->event && run->unread == 0 && run->statuses[202] == 0;
    if (!countable ||
        (run->sums[POST_CAPTURED] == run->count && run->sums[POST_DUPLICATES] == copies))
        return true;
    fprintf(stderr,
            "oncehook: %" PRIu64 " fresh events must give captured %" PRIu64
            " and duplicates %" PRIu64 "\n",
            run->count, run->count, copies);
    return false;
}

static int send_all(struct run *run, struct oh_error *err)
{
    if (run->print_curl)
        return run_deliveries(run, NULL, err) == OH_OK ? CLI_OK : CLI_USAGE;
    bool in_order = deliveries(run) <= LINES_MAX;
    struct client *client;
    if (client_new(run->ca, in_order ? 1 : CLIENT_CONNECTIONS_MAX, on_answer, run, &client, err))
        return CLI_USAGE;
    int64_t start_us = clock_mono_us();
    enum oh_status status = run_deliveries(run, client, err);
    client_free(client);
    if (status != OH_OK)
        return CLI_USAGE;
    if (!in_order)
        print_summary(run, clock_mono_us() - start_us);
    fflush(stdout);
    return judge(run) ? CLI_OK : CLI_NO;
}

int cli_send(int argc, char **argv)
{
    struct run run = {.copies = 1};
    const char *config = NULL, *source = NULL, *count = "1";
    const struct cli_option options[] = {
        {"config", 'c', true, "FILE", "the gateway's configuration: source, secret, address",
         &config, NULL},
        {"source", 0, true, "NAME", "the source to send to", &source, NULL},
        {"event", 0, false, "JSON|@FILE",
         "this body; default: a sample of the provider with a fresh id", &run.event, NULL},
        {"count", 0, false, "N", "how many deliveries (default 1)", &count, NULL},
        {"duplicate", 0, false, NULL, "send each twice", NULL, &run.duplicate},
        {"tamper", 0, false, NULL, "change a byte of the body after signing", NULL, &run.tamper},
        {"stale", 0, false, NULL, "sign with a time that is too old", NULL, &run.stale},
        {"key", 0, false, "FILE",
         "private key for schemes that need one (default: keys/NAME.pem beside the configuration)",
         &run.key, NULL},
        {"print-curl", 0, false, NULL, "print a curl command that sends the same, and send nothing",
         NULL, &run.print_curl},
        {"url", 0, false, "URL", "base URL of the gateway, instead of the configuration's `listen`",
         &run.base_url, NULL},
        {"ca", 0, false, "FILE",
         "what the gateway's certificate is checked against (default: $ONCEHOOK_CA, else the "
         "certificate of the configuration)",
         &run.ca, NULL},
        {0},
    };
    struct oh_error err = {.text = ""};
    char *end;
    int code = CLI_USAGE;
    cli_read_options(options,
                     "Signs deliveries as the provider of a source would, and sends them to the "
                     "gateway.\vExit: 0 every answer was as it must be (with --tamper or --stale: "
                     "401), 1 one was not, 2 usage or configuration.",
                     argc, argv);
    run.count = strtoull(count, &end, 10);
    if (*count < '0' || *count > '9' || *end || run.count < 1 || run.count > COUNT_MAX) {
        fprintf(stderr, "oncehook: --count must be 1 to %d\n", COUNT_MAX);
        return CLI_USAGE;
    }
    run.copies = run.duplicate ? 2 : 1;
    if (!(run.config = cli_load_config(config, CONFIG_SECRETS)))
        return CLI_USAGE;
    if (prepare(&run, source, &err) == OH_OK)
        code = send_all(&run, &err);
    if (err.text[0])
        fprintf(stderr, "oncehook: %s\n", err.text);
    post_close(&run.door);
    free(run.event_text);
    config_free(run.config);
    return code;
}
