/* SPDX-License-Identifier: Apache-2.0 */
/* The samples are one table: provider, headers, one event as text with ${names} to fill in. The ids
 * of enrollment and instance go wherever the recipe looks for them, so a sample need not know. */
#include "cli/sample.h"

#include "base/encode.h"
#include "base/slice.h"
#include "recipe/recipe.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct sample {
    const char *provider;   /* or scheme; NULL: every other */
    const char *type;       /* of an event when nobody asks for another */
    const char *headers[3]; /* "Name: value", beyond Content-Type; NULL = no more */
    bool is_array;          /* a delivery is an array of events */
    const char *event;
    const char *form; /* not NULL: the body is a form; the field that holds the event, in an array,
                         or XML in base64; "" = the event's members are its fields */
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
     "hello-world\",\"private\":false},\"sender\":{\"login\":\"octocat\",\"id\":583231}}",
     NULL},
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
     "null,\"idempotency_key\":null}}",
     NULL},
    {"sendgrid",
     "delivered",
     {"User-Agent: SendGrid Event API"},
     true,
     "{\"email\":\"alex@example.com\",\"timestamp\":${unix},\"smtp-id\":\"<${hex}@example.com>\","
     "\"event\":\"${type}\",\"category\":[\"newsletter\"],\"sg_event_id\":\"${hex}\","
     "\"sg_message_id\":\"14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0\",\"response\":"
     "\"250 OK\"}",
     NULL},
    {"aws_sns",
     "Open",
     {"X-Amz-Sns-Message-Type: Notification"},
     false,
     "{\"Type\":\"Notification\",\"MessageId\":\"${uuid}\",\"Message\":\"{\\\"eventType\\\":"
     "\\\"${type}\\\",\\\"mail\\\":{\\\"messageId\\\":\\\"${hex}\\\"}}\"}",
     NULL},
    {"twilio",
     "delivered",
     {"User-Agent: TwilioProxy/1.1"},
     false,
     "{\"MessageSid\":\"SM${hex}\",\"MessageStatus\":\"${type}\",\"From\":\"+14155550100\",\"To\":"
     "\"+14155550101\"}",
     ""},
    {"mailgun_legacy_form",
     "delivered",
     {NULL},
     false,
     "{\"timestamp\":\"${unix}\",\"token\":\"${hex}\",\"event\":\"${type}\",\"recipient\":\"alex@"
     "example.com\",\"Message-Id\":\"<${hex}@example."
     "com>\"}",
     ""},
    {"mandrill",
     "open",
     {"User-Agent: Mandrill-Webhook/1.0"},
     false,
     "{\"event\":\"${type}\",\"_id\":\"${hex}\",\"ts\":${unix},\"msg\":{\"email\":\"alex@example."
     "com\"}}",
     "mandrill_events"},
    {"braintree",
     "subscription_canceled",
     {NULL},
     false,
     "<notification><timestamp type=\"datetime\">${iso}</timestamp><kind>${type}</kind><subject>"
     "<subscription><id>${hex}</id></subscription></subject></notification>",
     "bt_payload"},
    {"sparkpost",
     "delivery",
     {NULL},
     true,
     "{\"msys\":{\"message_event\":{\"type\":\"${type}\",\"event_id\":\"${hex}\",\"timestamp\":"
     "\"${unix}\",\"rcpt_to\":\"alex@example.com\"}}}",
     NULL},
    /* The last row is for every other provider, `hmac` among them. */
    {NULL,
     "delivered",
     {NULL},
     false,
     "{\"id\":\"${uuid}\",\"type\":\"${type}\",\"occurred_at\":\"${iso}\",\"contact\":"
     "\"alex@example.com\"}",
     NULL},
};

/* What the ${names} of one event stand for. */
struct names {
    char uuid[37], hex[33], unix_s[24], iso[32];
    const char *type;
};

static void fill_names(const struct sample *sample, const struct sample_event *event,
                       int64_t now_us, struct names *names)
{
    uint8_t id[16];
    time_t seconds = (time_t)(now_us / 1000000);
    struct tm utc;
    if (event->id)
        memcpy(id, event->id, sizeof(id));
    else
        uuid_random(id);
    *names = (struct names){.type = event->type ? event->type : sample->type};
    uuid_format(id, names->uuid);
    hex_encode(id, sizeof(id), names->hex);
    gmtime_r(&seconds, &utc);
    strftime(names->iso, sizeof(names->iso), "%Y-%m-%dT%H:%M:%SZ", &utc);
    snprintf(names->unix_s, sizeof(names->unix_s), "%lld", (long long)seconds);
}

/* `text` with its ${names} filled in; NULL without memory. The caller frees it. */
static char *fill_in(const char *text, const struct names *names)
{
    const char *const known[][2] = {{"${uuid}", names->uuid},
                                    {"${hex}", names->hex},
                                    {"${unix}", names->unix_s},
                                    {"${iso}", names->iso},
                                    {"${type}", names->type}};
    enum { KNOWN = sizeof(known) / sizeof(known[0]) };
    char *filled = NULL;
    size_t len;
    FILE *out = open_memstream(&filled, &len);
    while (out && *text) {
        size_t i = 0;
        while (i < KNOWN && strncmp(text, known[i][0], strlen(known[i][0])) != 0)
            i++;
        if (i < KNOWN)
            fputs(known[i][1], out);
        else
            putc(*text, out);
        text += i < KNOWN ? strlen(known[i][0]) : 1;
    }
    if (out && fclose(out) == 0)
        return filled;
    free(filled);
    return NULL;
}

/* Moves a text into the arena; data NULL without memory. */
static struct oh_slice keep(char *text, struct oh_arena *arena)
{
    size_t len = text ? strlen(text) : 0;
    char *copy = text ? oh_arena_alloc(arena, len + 1) : NULL;
    if (copy)
        memcpy(copy, text, len + 1);
    free(text);
    return slice_of(copy, copy ? len : 0);
}

static bool add_headers(const struct sample *sample, const struct names *names,
                        struct oh_arena *arena, struct sample_delivery *delivery)
{
    delivery->headers[0] =
        (struct oh_header){SLICE_LITERAL("Content-Type"),
                           sample->form ? SLICE_LITERAL("application/x-www-form-urlencoded")
                                        : SLICE_LITERAL("application/json")};
    delivery->header_count = 1;
    for (size_t i = 0; i < SAMPLE_HEADERS_MAX - 1 && sample->headers[i]; i++) {
        struct oh_slice line = keep(fill_in(sample->headers[i], names), arena);
        if (!line.data)
            return false;
        size_t name_len = strcspn(line.data, ":");
        delivery->headers[delivery->header_count++] = (struct oh_header){
            slice_of(line.data, name_len), slice_of_text(line.data + name_len + 2)};
    }
    return true;
}

/* Puts `value` where the pointer `place` says, making the objects on the way. */
static enum oh_status set_id(json_t *event, const char *place, const char *value,
                             struct oh_arena *arena, struct oh_error *err)
{
    struct pointer pointer;
    if (!place || !value)
        return OH_OK;
    enum oh_status status = pointer_parse(slice_of_text(place), 0, arena, &pointer, err);
    if (status != OH_OK || pointer.count == 0)
        return oh_fail(err, OH_INVALID, "a sample event has no place %s", place);
    struct oh_slice name = pointer.tokens[0].name;
    for (size_t i = 1; i < pointer.count; i++, name = pointer.tokens[i - 1].name) {
        json_t *next = json_object_getn(event, name.data, name.len);
        if (!json_is_object(next))
            json_object_setn_new(event, name.data, name.len, next = json_object());
        event = next;
    }
    return json_object_setn_new(event, name.data, name.len, json_string(value)) == 0
               ? OH_OK
               : oh_fail(err, OH_NO_MEMORY, "out of memory");
}

/* One event with its ids; NULL without memory or a place for them. The caller drops it. */
static json_t *make_event(const struct config_source *source, const struct oh_recipe_info *info,
                          const char *text, const struct sample_event *event,
                          struct oh_arena *arena, struct oh_error *err)
{
    json_t *made = text ? json_loads(text, 0, NULL) : NULL;
    if (!made) {
        (void)oh_fail(err, OH_NO_MEMORY, "out of memory");
    } else if (set_id(made, source->map_enrollment ? source->map_enrollment : info->map_enrollment,
                      event->enrollment_id, arena, err) ||
               set_id(made, source->map_instance ? source->map_instance : info->map_instance,
                      event->instance_id, arena, err)) {
        json_decref(made);
        return NULL;
    }
    return made;
}

/* Puts the event, or the list of them, where the recipe splits the body; takes it over. */
static json_t *wrap(const struct oh_recipe *recipe, json_t *list)
{
    const struct recipe_events *events = &recipe->events;
    const struct pointer *split = &events->split;
    if (!events->has_split) {
        json_t *only = json_incref(json_array_get(list, 0));
        json_decref(list);
        return only;
    }
    for (size_t i = split->count; list && i-- > 0;) {
        const struct pointer_token *token = &split->tokens[i];
        json_t *outer = token->each ? json_array() : json_object();
        if (token->each)
            json_array_append_new(outer, list);
        else
            json_object_setn_new(outer, token->name.data, token->name.len, list);
        list = outer;
    }
    return list;
}

static void put_field(FILE *to, bool is_first, const char *name, const char *value)
{
    fprintf(to, "%s%s=", is_first ? "" : "&", name);
    for (; *value; value++)
        if (isalnum((unsigned char)*value))
            putc(*value, to);
        else
            fprintf(to, "%%%02X", (unsigned char)*value);
}

/* The body of a form; the caller frees it. NULL without memory. */
static char *make_form(const struct sample *sample, const char *event)
{
    char *body = NULL, *text = NULL;
    size_t len;
    FILE *to = open_memstream(&body, &len);
    json_t *members = *event == '{' ? json_loads(event, 0, NULL) : NULL, *value;
    const char *name;
    bool is_first = true;
    if (!to)
        return NULL;
    if (*event == '<' && (text = calloc(1, BASE64_BYTES(strlen(event)) + 2))) {
        size_t end = base64_encode((const uint8_t *)event, strlen(event), text);
        text[end] = '\n';
    } else if (*sample->form && asprintf(&text, "[%s]", event) < 0) {
        text = NULL;
    }
    if (*sample->form)
        put_field(to, true, sample->form, text ? text : "");
    json_object_foreach(*sample->form ? NULL : members, name, value)
    {
        put_field(to, is_first, name, json_string_value(value));
        is_first = false;
    }
    json_decref(members);
    free(text);
    fclose(to);
    return body;
}

enum oh_status sample_make(const struct config_source *source, const struct sample_event *events,
                           size_t count, int64_t now_us, struct oh_arena *arena,
                           struct sample_delivery *out, struct oh_error *err)
{
    const struct sample *sample = samples;
    struct oh_recipe_info info;
    struct names names;
    oh_recipe_describe(source->recipe, &info);
    while (sample->provider && strcmp(sample->provider, info.provider) != 0 &&
           strcmp(sample->provider, info.scheme) != 0)
        sample++;
    if (count != 1 && !sample->is_array)
        return oh_fail(err, OH_INVALID, "a delivery of %s is one event", info.provider);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        fill_names(sample, &events[i], now_us, &names);
        char *text = fill_in(sample->event, &names);
        if (text && sample->form) {
            out->body = keep(make_form(sample, text), arena);
            free(text);
            continue;
        }
        json_t *event = make_event(source, &info, text, &events[i], arena, err);
        free(text);
        if (!event) {
            json_decref(list);
            return OH_INVALID;
        }
        json_array_append_new(list, event);
    }
    json_t *whole = sample->form || sample->is_array ? list : wrap(source->recipe, list);
    if (!sample->form)
        out->body = keep(json_dumps(whole, JSON_COMPACT), arena);
    json_decref(whole);
    return out->body.data && add_headers(sample, &names, arena, out)
               ? OH_OK
               : oh_fail(err, OH_NO_MEMORY, "out of memory");
}
