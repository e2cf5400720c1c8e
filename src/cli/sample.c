/* SPDX-License-Identifier: Apache-2.0 */
/* The samples are one table: provider, headers, one event as text with ${names} to fill in. The ids
 * of enrollment and instance go wherever the recipe looks for them, so a sample need not know. */
#include "cli/sample.h"

#include "base/encode.h"
#include "base/slice.h"
#include "recipe/pointer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { EVENTS_MAX = 1000, TEXT_BYTES_MAX = 8 * 1024 };

struct sample {
    const char *provider;
    const char *type;       /* of an event when nobody asks for another */
    const char *headers[3]; /* "Name: value", beyond Content-Type; NULL = no more */
    bool is_array;          /* a delivery is an array of events */
    const char *event;
};

/* ${uuid} and ${hex} are fresh in each event, ${unix} and ${iso} its time. The shapes are those of
 * the providers' reference pages: docs.github.com (issues event), docs.stripe.com/api/events,
 * SendGrid's Event Webhook reference. */
static const struct sample samples[] = {
    {"github",
     "issues",
     {"User-Agent: GitHub-Hookshot/0a1b2c3", "X-GitHub-Event: ${type}",
      "X-GitHub-Delivery: ${uuid}"},
     false,
     "{\"action\":\"opened\",\"issue\":{\"id\":2431887211,\"node_id\":\"I_${hex}\",\"number\":1347,"
     "\"title\":\"A comma is "
     "missing\",\"state\":\"open\",\"user\":{\"login\":\"octocat\",\"id\":583231},\"created_at\":"
     "\"${iso}\",\"updated_at\":\"${iso}\"},\"repository\":{\"id\":1296269,\"full_name\":"
     "\"octocat/"
     "hello-world\",\"private\":false},\"sender\":{\"login\":\"octocat\",\"id\":583231}}"},
    {"stripe",
     "invoice.paid",
     {"User-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)"},
     false,
     "{\"id\":\"evt_${hex}\",\"object\":\"event\",\"api_version\":\"2024-06-20\",\"created\":${"
     "unix},"
     "\"type\":\"${type}\",\"livemode\":false,\"pending_webhooks\":1,\"data\":{\"object\":{\"id\":"
     "\"in_1PgafmB7WZ01zgkW\",\"object\":\"invoice\",\"amount_paid\":4900,\"currency\":\"eur\","
     "\"customer\":\"cus_9s6XKzkNRiz8i3\",\"status\":\"paid\",\"metadata\":{}}},\"request\":{"
     "\"id\":"
     "null,\"idempotency_key\":null}}"},
    {"sendgrid",
     "delivered",
     {"User-Agent: SendGrid Event API"},
     true,
     "{\"email\":\"alex@example.com\",\"timestamp\":${unix},\"smtp-id\":\"<${hex}@example.com>\","
     "\"event\":\"${type}\",\"category\":[\"newsletter\"],\"sg_event_id\":\"${hex}\","
     "\"sg_message_id\":\"14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0\",\"response\":"
     "\"250 OK\"}"},
    /* The last row is for every other provider, `hmac` among them. */
    {NULL,
     "delivered",
     {NULL},
     false,
     "{\"id\":\"${uuid}\",\"type\":\"${type}\",\"occurred_at\":\"${iso}\",\"contact\":"
     "\"alex@example.com\"}"},
};

static const struct sample *find_sample(const char *provider)
{
    const struct sample *row = samples;
    while (row->provider && strcmp(row->provider, provider) != 0)
        row++;
    return row;
}

size_t sample_events_max(const char *provider)
{
    return find_sample(provider)->is_array ? EVENTS_MAX : 1;
}

/* ---- filling in ------------------------------------------------------------------------------ */

/* What the ${names} of one event stand for. */
struct names {
    char uuid[37], hex[33], unix_s[24], iso[32];
    const char *type;
};

static void fill_names(const struct sample *sample, const struct sample_event *event,
                       int64_t now_us, struct names *names)
{
    uint8_t id[16];
    if (event->id)
        memcpy(id, event->id, sizeof(id));
    else
        uuid_random(id);
    uuid_format(id, names->uuid);
    hex_encode(id, sizeof(id), names->hex);
    names->uuid[36] = names->hex[32] = '\0';
    time_t seconds = (time_t)(now_us / 1000000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    strftime(names->iso, sizeof(names->iso), "%Y-%m-%dT%H:%M:%SZ", &utc);
    snprintf(names->unix_s, sizeof(names->unix_s), "%lld", (long long)seconds);
    names->type = event->type ? event->type : sample->type;
}

/* Copies `text` into the arena with its ${names} filled in; data NULL when memory or the bound of a
 * text is reached. */
static struct oh_slice fill_in(const char *text, const struct names *names, struct oh_arena *arena)
{
    const struct {
        const char *name, *value;
    } known[] = {{"${uuid}", names->uuid},
                 {"${hex}", names->hex},
                 {"${unix}", names->unix_s},
                 {"${iso}", names->iso},
                 {"${type}", names->type}};
    char filled[TEXT_BYTES_MAX];
    size_t len = 0;
    while (*text) {
        const char *piece = text;
        size_t piece_len = 1, skip = 1;
        for (size_t i = 0; *text == '$' && i < sizeof(known) / sizeof(known[0]); i++)
            if (strncmp(text, known[i].name, strlen(known[i].name)) == 0) {
                piece = known[i].value;
                piece_len = strlen(piece);
                skip = strlen(known[i].name);
            }
        if (len + piece_len > sizeof(filled))
            return slice_of(NULL, 0);
        memcpy(filled + len, piece, piece_len);
        len += piece_len;
        text += skip;
    }
    char *copy = oh_arena_alloc(arena, len + 1);
    if (!copy)
        return slice_of(NULL, 0);
    memcpy(copy, filled, len);
    copy[len] = '\0';
    return slice_of(copy, len);
}

static bool add_header(struct sample_delivery *delivery, struct oh_slice name,
                       struct oh_slice value)
{
    if (delivery->header_count >= SAMPLE_HEADERS_MAX || !name.data || !value.data)
        return false;
    delivery->headers[delivery->header_count++] = (struct oh_header){name, value};
    return true;
}

static bool add_headers(const struct sample *sample, const struct names *names,
                        struct oh_arena *arena, struct sample_delivery *delivery)
{
    delivery->header_count = 0;
    if (!add_header(delivery, SLICE_LITERAL("Content-Type"), SLICE_LITERAL("application/json")))
        return false;
    for (size_t i = 0; i < 3 && sample->headers[i]; i++) {
        struct oh_slice line = fill_in(sample->headers[i], names, arena);
        if (!line.data)
            return false;
        size_t name_len = strcspn(line.data, ":");
        if (!add_header(delivery, slice_of(line.data, name_len),
                        slice_of(line.data + name_len + 2, line.len - name_len - 2)))
            return false;
    }
    return true;
}

/* ---- the ids of enrollment and instance ------------------------------------------------------ */

/* Sets the text at `pointer` inside `event`, making the objects on the way. */
static enum oh_status set_at(json_t *event, const struct pointer *pointer, const char *value)
{
    if (pointer->count == 0)
        return OH_INVALID;
    json_t *at = event;
    for (size_t i = 0; i + 1 < pointer->count; i++) {
        struct oh_slice name = pointer->tokens[i].name;
        json_t *next = json_object_getn(at, name.data, name.len);
        if (!next && json_object_setn_new(at, name.data, name.len, json_object()) == 0)
            next = json_object_getn(at, name.data, name.len);
        if (!json_is_object(next))
            return OH_INVALID;
        at = next;
    }
    struct oh_slice last = pointer->tokens[pointer->count - 1].name;
    return json_object_setn_new(at, last.data, last.len, json_string(value)) == 0 ? OH_OK
                                                                                  : OH_INVALID;
}

/* Puts `value` where `place` ("/pointer", "body:/pointer" or "header:NAME") says. */
static enum oh_status set_id(json_t *event, const char *place, const char *value,
                             struct oh_arena *arena, struct sample_delivery *delivery,
                             struct oh_error *err)
{
    static const char header[] = "header:", body[] = "body:";
    if (strncmp(place, header, sizeof(header) - 1) == 0) {
        bool ok =
            add_header(delivery, slice_of_text(place + sizeof(header) - 1), slice_of_text(value));
        return ok ? OH_OK : oh_fail(err, OH_INVALID, "too many headers");
    }
    if (strncmp(place, body, sizeof(body) - 1) == 0)
        place += sizeof(body) - 1;
    struct pointer pointer;
    enum oh_status status = pointer_parse(slice_of_text(place), 0, arena, &pointer, err);
    if (status != OH_OK)
        return status;
    status = set_at(event, &pointer, value);
    return status == OH_OK ? OH_OK : oh_fail(err, status, "a sample event has no place %s", place);
}

static enum oh_status set_ids(const struct config_source *source, const struct sample_event *event,
                              struct oh_arena *arena, struct sample_delivery *delivery,
                              struct oh_slice *text, struct oh_error *err)
{
    if (!event->enrollment_id && !event->instance_id)
        return OH_OK;
    struct oh_recipe_info info;
    oh_recipe_describe(source->recipe, &info);
    const char *enrollment = source->map_enrollment ? source->map_enrollment : info.map_enrollment;
    const char *instance = source->map_instance ? source->map_instance : info.map_instance;
    json_t *root = json_loadb(text->data, text->len, 0, NULL);
    enum oh_status status = root ? OH_OK : OH_NO_MEMORY;
    char *dumped = NULL, *copy = NULL;
    if (status == OH_OK && event->enrollment_id && enrollment)
        status = set_id(root, enrollment, event->enrollment_id, arena, delivery, err);
    if (status == OH_OK && event->instance_id && instance)
        status = set_id(root, instance, event->instance_id, arena, delivery, err);
    if (status == OH_OK)
        dumped = json_dumps(root, JSON_COMPACT);
    size_t len = dumped ? strlen(dumped) : 0;
    if (dumped && (copy = oh_arena_alloc(arena, len + 1)))
        *text = slice_of(memcpy(copy, dumped, len + 1), len);
    if (status == OH_OK && !copy)
        status = oh_fail(err, OH_NO_MEMORY, "out of memory");
    free(dumped);
    json_decref(root);
    return status;
}

/* ---- deliveries ------------------------------------------------------------------------------ */

/* "[a,b,c]" of the events' texts, and CRLF, which SendGrid sends and signs. */
static struct oh_slice join_array(const struct oh_slice *texts, size_t count,
                                  struct oh_arena *arena)
{
    size_t len = sizeof("[\r\n") - 1;
    for (size_t i = 0; i < count; i++)
        len += texts[i].len + 1;
    char *body = oh_arena_alloc(arena, len + 1), *end = body;
    if (!body)
        return slice_of(NULL, 0);
    *end++ = '[';
    for (size_t i = 0; i < count; i++) {
        memcpy(end, texts[i].data, texts[i].len);
        end += texts[i].len;
        *end++ = i + 1 < count ? ',' : ']';
    }
    memcpy(end, "\r\n", sizeof("\r\n"));
    return slice_of(body, len);
}

enum oh_status sample_make(const struct config_source *source, const struct sample_event *events,
                           size_t count, int64_t now_us, struct oh_arena *arena,
                           struct sample_delivery *out, struct oh_error *err)
{
    struct oh_recipe_info info;
    oh_recipe_describe(source->recipe, &info);
    const struct sample *sample = find_sample(info.provider);
    if (count < 1 || count > sample_events_max(info.provider))
        return oh_fail(err, OH_INVALID, "a delivery of %s cannot carry %zu events", info.provider,
                       count);
    struct oh_slice *texts = oh_arena_alloc(arena, count * sizeof(*texts));
    if (!texts)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < count; i++) {
        struct names names;
        fill_names(sample, &events[i], now_us, &names);
        texts[i] = fill_in(sample->event, &names, arena);
        if (!texts[i].data || (i == 0 && !add_headers(sample, &names, arena, out)))
            return oh_fail(err, OH_NO_MEMORY, "out of memory");
        enum oh_status status = set_ids(source, &events[i], arena, out, &texts[i], err);
        if (status != OH_OK)
            return status;
    }
    out->body = sample->is_array ? join_array(texts, count, arena) : texts[0];
    return out->body.data ? OH_OK : oh_fail(err, OH_NO_MEMORY, "out of memory");
}

enum oh_status sample_headers(const struct oh_recipe *recipe, int64_t now_us,
                              struct oh_arena *arena, struct sample_delivery *out,
                              struct oh_error *err)
{
    struct oh_recipe_info info;
    oh_recipe_describe(recipe, &info);
    const struct sample *sample = find_sample(info.provider);
    struct names names;
    fill_names(sample, &(struct sample_event){NULL, NULL, NULL, NULL}, now_us, &names);
    return add_headers(sample, &names, arena, out) ? OH_OK
                                                   : oh_fail(err, OH_NO_MEMORY, "out of memory");
}
