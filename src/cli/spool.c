/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook spool: what lies in the spool of this node, out of it as JSON lines, or into PostgreSQL
 * without a gateway. */
#include "app/app.h"
#include "base/encode.h"
#include "base/slice.h"
#include "cli/cli.h"
#include "spool/spool.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK_EVENTS = 1000, CHUNK_BYTES = 8 * 1024 * 1024, WAIT_MS = 100, MIB = 1024 * 1024 };

/* What the actions share. */
struct look {
    struct config *config;
    struct spool *spool;
    pid_t owner; /* 0 = none */
    bool json;
};

/* ---- status ---------------------------------------------------------------------------------- */

static void print_loss(void *context, uint64_t first, uint64_t last, const char *words)
{
    (void)context;
    printf("  %" PRIu64 "..%" PRIu64 " %s\n", first, last, words);
}

static void add_loss(void *context, uint64_t first, uint64_t last, const char *words)
{
    json_array_append_new(context, json_pack("{s:I, s:I, s:s}", "first", (json_int_t)first, "last",
                                             (json_int_t)last, "what", words));
}

/* What is free for others than root on the spool's disk; 0 if that cannot be asked. */
static uint64_t disk_free_bytes(const struct config *config)
{
    struct statvfs disk;
    return statvfs(config->spool.directory, &disk) == 0 ? disk.f_bavail * disk.f_frsize : 0;
}

static void print_status_json(const struct config *config, struct spool *spool,
                              const struct spool_state *state, pid_t owner)
{
    json_t *losses = json_array();
    spool_each_loss(spool, add_loss, losses);
    json_t *all = json_pack(
        "{s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "directory",
        config->spool.directory, "owner", owner ? json_integer(owner) : json_null(), "waiting",
        (json_int_t)state->waiting, "bytes", (json_int_t)state->bytes, "limit_bytes",
        (json_int_t)config->spool.bytes, "disk_free_bytes", (json_int_t)disk_free_bytes(config),
        "segments", (json_int_t)state->segments, "oldest_seconds", (json_int_t)state->oldest_s,
        "last_acknowledged", (json_int_t)state->last_acknowledged, "lost", (json_int_t)state->lost,
        "losses", losses);
    json_dumpf(all, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(all);
}

static void print_status(const struct config *config, struct spool *spool,
                         const struct spool_state *state, pid_t owner)
{
    int64_t age_s = state->oldest_s;
    uint64_t disk_free = disk_free_bytes(config);
    printf("directory          %s\n", config->spool.directory);
    if (owner)
        printf("owner              process %d, which goes on meanwhile\n", (int)owner);
    else
        printf("owner              none\n");
    printf("waiting            %" PRIu64 " event%s\n", state->waiting,
           state->waiting == 1 ? "" : "s");
    printf("oldest             %" PRId64 " d %02d:%02d:%02d\n", age_s / 86400,
           (int)(age_s / 3600 % 24), (int)(age_s / 60 % 60), (int)(age_s % 60));
    printf("size               %.1f MiB of %.1f MiB, %" PRIu64
           " segment%s; %.1f MiB are free on the "
           "disk%s\n",
           (double)state->bytes / MIB, (double)config->spool.bytes / MIB, state->segments,
           state->segments == 1 ? "" : "s", (double)disk_free / MIB,
           state->bytes + disk_free < config->spool.bytes ? ", less than the limit" : "");
    printf("last acknowledged  %" PRIu64 "\n", state->last_acknowledged);
    printf("lost               %" PRIu64 "\n", state->lost);
    spool_each_loss(spool, print_loss, NULL);
}

static int status(struct look *look)
{
    struct spool_state state;
    spool_get_state(look->spool, &state);
    (look->json ? print_status_json : print_status)(look->config, look->spool, &state, look->owner);
    return CLI_OK;
}

/* ---- export ---------------------------------------------------------------------------------- */

static void set_text(json_t *object, const char *name, struct oh_slice text)
{
    if (text.data)
        json_object_set_new(object, name, json_stringn(text.data, text.len));
}

/* Bytes as text where they are text, else as base64 under NAME_base64. */
static void set_bytes(json_t *object, const char *name, struct oh_slice bytes)
{
    char base64_name[32];
    json_t *text = bytes.data ? json_stringn(bytes.data, bytes.len) : NULL;
    if (text || !bytes.data) {
        if (text)
            json_object_set_new(object, name, text);
        return;
    }
    char *base64 = malloc(BASE64_BYTES(bytes.len) + 1);
    if (!base64)
        return;
    size_t len = base64_encode(bytes.data, bytes.len, base64);
    snprintf(base64_name, sizeof(base64_name), "%s_base64", name);
    json_object_set_new(object, base64_name, json_stringn(base64, len));
    free(base64);
}

static void set_uuid(json_t *object, const char *name, const uint8_t uuid[16])
{
    char text[36];
    uuid_format(uuid, text);
    json_object_set_new(object, name, json_stringn(text, sizeof(text)));
}

static void set_time(json_t *object, const char *name, int64_t unix_us)
{
    char date[32], text[48];
    time_t unix_s = (time_t)(unix_us / 1000000);
    struct tm utc;
    gmtime_r(&unix_s, &utc);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text, sizeof(text), "%s.%06dZ", date, (int)(unix_us % 1000000));
    json_object_set_new(object, name, json_string(text));
}

static void set_event(json_t *object, const struct delivery_event *item)
{
    const struct oh_event *event = item->event;
    const char *channel = oh_channel_name(event->channel);
    set_text(object, "key_scope", item->scope);
    set_text(object, "provider_event_id", event->key);
    json_object_set_new(object, "key_grade", json_string(oh_key_grade_name(event->grade)));
    json_object_set_new(object, "event_type", json_string(oh_event_type_name(event->type)));
    set_text(object, "provider_event_type", event->provider_type);
    if (channel)
        json_object_set_new(object, "channel", json_string(channel));
    set_time(object, "timestamp", event->occurred_at_us);
    if (event->has_enrollment)
        set_uuid(object, "enrollment_id", event->enrollment_id);
    if (event->has_instance)
        set_uuid(object, "instance_id", event->instance_id);
    set_bytes(object, "payload", event->payload.data ? event->payload : event->raw);
}

static void set_unreadable(json_t *object, const struct delivery *delivery)
{
    const struct oh_request *request = &delivery->request;
    json_t *headers = json_array();
    json_object_set_new(object, "unreadable", json_string(delivery->unreadable));
    set_bytes(object, "method", request->method);
    set_bytes(object, "url", request->url);
    for (size_t i = 0; i < request->header_count; i++) {
        json_t *header = json_object();
        set_bytes(header, "name", request->headers[i].name);
        set_bytes(header, "value", request->headers[i].value);
        json_array_append_new(headers, header);
    }
    json_object_set_new(object, "headers", headers);
    set_bytes(object, "body", request->body);
}

static bool write_record(const struct delivery *delivery)
{
    json_t *object = json_pack("{s:s, s:s}", "source", delivery->source->name, "provider",
                               delivery->source->provider);
    set_uuid(object, "delivery_id", delivery->id);
    set_time(object, "accepted_at", delivery->accepted_wall_us);
    if (delivery->events[0].event)
        set_event(object, &delivery->events[0]);
    else
        set_unreadable(object, delivery);
    bool done = json_dumpf(object, stdout, JSON_COMPACT) == 0 && putchar('\n') != EOF;
    json_decref(object);
    return done;
}

static bool is_owned(const struct look *look)
{
    if (look->owner)
        fprintf(stderr, "oncehook spool: process %d owns the spool and drains it: stop it first\n",
                (int)look->owner);
    return look->owner != 0;
}

static void print_progress(uint64_t done, uint64_t all, const char *words)
{
    cli_draw_bar((long long)done, (long long)all, "%" PRIu64 "/%" PRIu64 " %s", done, all, words);
}

/* Reads everything and finishes nothing: the spool stays as it is. */
static int export(struct look *look)
{
    struct spool *spool = look->spool;
    struct spool_state state;
    bool written = true, shows = isatty(STDERR_FILENO);
    uint64_t done = 0;
    if (is_owned(look))
        return CLI_USAGE;
    spool_get_state(spool, &state);
    uint64_t waiting = state.waiting, lost = state.lost;
    while (written && done < waiting) {
        struct spool_chunk *chunk = spool_read(spool, CHUNK_EVENTS, CHUNK_BYTES);
        if (!chunk) {
            (void)spool_wait(spool, WAIT_MS);
            continue;
        }
        for (size_t i = 0; written && i < chunk->count; i++)
            written = write_record(chunk->deliveries[i]);
        done += chunk->last - chunk->first + 1;
        spool_release(spool, chunk);
        if (shows)
            print_progress(done, waiting, "events");
    }
    if (shows)
        fputc('\n', stderr);
    if (fflush(stdout) != 0 || !written) {
        perror("oncehook spool: stdout");
        return CLI_USAGE;
    }
    spool_get_state(spool, &state);
    if (state.lost > lost)
        fprintf(stderr, "oncehook spool: %" PRIu64 " of %" PRIu64 " records cannot be read\n",
                state.lost - lost, waiting);
    return state.lost > lost ? CLI_NO : CLI_OK;
}

/* ---- drain ----------------------------------------------------------------------------------- */

struct progress {
    uint64_t all; /* the most that ever waited */
    bool shows;
    char problem[256];
};

static void on_progress(void *context, uint64_t waiting, const char *problem)
{
    struct progress *progress = context;
    if (waiting > progress->all)
        progress->all = waiting;
    if (progress->shows)
        print_progress(progress->all - waiting, progress->all, problem[0] ? problem : "events");
    snprintf(progress->problem, sizeof(progress->problem), "%s", problem);
}

static int drain(struct look *look)
{
    struct progress progress = {.shows = isatty(STDERR_FILENO)};
    struct spool_state before, after;
    struct oh_error err;
    uint64_t left = 0;
    if (is_owned(look))
        return CLI_USAGE;
    spool_get_state(look->spool, &before);
    progress.all = before.waiting;
    if (progress.shows) /* beside a bar, only what matters */
        log_set_level(LOG_WARNING);
    spool_close(look->spool);
    look->spool = NULL;
    enum oh_status result = app_drain(look->config, on_progress, &progress, &left, &err);
    if (progress.shows)
        fputc('\n', stderr);
    if (result == OH_OK)
        result = spool_look(look->config, &look->spool, &look->owner, &err);
    if (result != OH_OK) {
        fprintf(stderr, "oncehook spool: %s\n", err.text);
        return CLI_USAGE;
    }
    spool_get_state(look->spool, &after);
    uint64_t lost = after.lost - before.lost;
    printf("%" PRIu64 " drained, %" PRIu64 " lost, %" PRIu64 " left\n",
           before.waiting - lost - left, lost, left);
    if (left > 0 && progress.problem[0])
        fprintf(stderr, "oncehook spool: %s\n", progress.problem);
    return left > 0 || lost > 0 ? CLI_NO : CLI_OK;
}

/* ---- the command ----------------------------------------------------------------------------- */

static const struct action {
    const char *name;
    int (*run)(struct look *look);
    unsigned parts; /* of the configuration */
} actions[] = {{"status", status, 0}, {"export", export, 0}, {"drain", drain, CONFIG_URL}};

static int run(const struct action *action, const char *path, bool json)
{
    struct look look = {.config = cli_load_config(path, action->parts), .json = json};
    struct oh_error err;
    int code = CLI_USAGE;
    if (!look.config)
        return CLI_USAGE;
    if (spool_look(look.config, &look.spool, &look.owner, &err) == OH_OK)
        code = action->run(&look);
    else
        fprintf(stderr, "oncehook spool: %s\n", err.text);
    spool_close(look.spool);
    config_free(look.config);
    return code;
}

int cli_spool(int argc, char **argv)
{
    const char *name = NULL, *path = NULL;
    bool json = false;
    const struct cli_option options[] = {
        {.argument = "status|export|drain", .needed = true, .value = &name},
        {"config", 'c', true, "FILE", "the configuration (docs/configuration.md)", &path, NULL},
        {"json", 'j', false, NULL, "status as an object", NULL, &json},
        {0},
    };
    cli_read_options(
        options,
        "status: what waits in the spool, how old and how much, and what was lost. "
        "export: every record as one line of JSON, in order; the spool stays as it "
        "is. drain: brings everything to PostgreSQL, without listening, until it is "
        "empty or SIGINT or SIGTERM comes.\vExport and drain work while no gateway "
        "owns the spool. Exit: 0 fine, 1 records are left (drain), or cannot be read (export, "
        "drain), 2 usage or configuration.",
        argc, argv);
    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++)
        if (strcmp(name, actions[i].name) == 0)
            return run(&actions[i], path, json);
    return CLI_USAGE;
}
