/* SPDX-License-Identifier: Apache-2.0 */
/* Deliveries from templates: what changes from event to event has a fixed width and is written over
 * its place, so making one costs two copies and a signature. */
#include "maker.h"

#include "base/slice.h"

#include <inttypes.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    TEMPLATE_BYTES = 2048,
    SLOTS_MAX = 8,
    TYPES_MAX = 4,
    HEAD_BYTES = 8192,  /* bound of a request's head */
    HEADER_BYTES = 128, /* of a value that the provider adds */
    HEADERS_EXTRA = 2,  /* that a provider adds at most, beside the signature's */
    HEADERS_MAX = 2 + HEADERS_EXTRA,
};

/* ---- what providers send -------------------------------------------------------------------- */

/* Headers and events are texts with @id@ @enrollment@ @instance@ (36 characters each, filled in per
 * event) and @type@ @iso@ @unix@ (filled in once). */
struct format {
    const char *provider;                  /* NULL: every other one */
    const char *headers[HEADERS_EXTRA][2]; /* name and value */
    const char *types[TYPES_MAX];          /* the provider's words, by turns */
    const char *event;
    bool array; /* even a single event comes as an array */
};

#define PERSON "\"enrollment_id\":\"@enrollment@\",\"instance_id\":\"@instance@\","

static const struct format formats[] = {
    {.provider = "github",
     .headers = {{"x-github-event", "issues"}, {"x-github-delivery", "@id@"}},
     .types = {"opened", "closed"},
     .event =
         "{\"action\":\"@type@\"," PERSON
         "\"issue\":{\"id\":1790243112,\"number\":42,\"title\":\"The counter is off by one\","
         "\"state\":\"open\",\"created_at\":\"@iso@\",\"user\":{\"login\":\"octocat\","
         "\"id\":583231,\"type\":\"User\"},\"labels\":[{\"name\":\"bug\",\"color\":\"d73a4a\"}]},"
         "\"repository\":{\"id\":1296269,\"full_name\":\"octocat/hello-world\","
         "\"private\":false,\"default_branch\":\"main\"},"
         "\"sender\":{\"login\":\"octocat\",\"id\":583231}}"},
    {.provider = "stripe",
     .types = {"invoice.paid", "charge.succeeded"},
     .event = "{\"id\":\"evt_@id@\",\"object\":\"event\",\"api_version\":\"2024-06-20\","
              "\"created\":@unix@,\"type\":\"@type@\"," PERSON
              "\"data\":{\"object\":{\"object\":\"invoice\",\"amount_due\":4200,"
              "\"currency\":\"eur\",\"metadata\":{" PERSON "\"plan\":\"spring\"}}},"
              "\"livemode\":false,\"pending_webhooks\":1,"
              "\"request\":{\"id\":null,\"idempotency_key\":null}}"},
    {.provider = "sendgrid",
     .types = {"delivered", "open", "click", "processed"},
     .array = true,
     .event = "{\"email\":\"person@example.com\",\"timestamp\":@unix@,\"event\":\"@type@\","
              "\"sg_event_id\":\"@id@\",\"sg_message_id\":\"@id@.recvd-7d9c\"," PERSON
              "\"smtp-id\":\"<14c5d75ce93.dfd.64b469@ismtpd-555>\",\"category\":[\"spring\"],"
              "\"useragent\":\"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/128.0\","
              "\"ip\":\"192.0.2.17\",\"url\":\"https://www.example.com/offers/spring\"}"},
    {.types = {"delivered", "opened", "clicked", "sent"},
     .event = "{\"id\":\"@id@\",\"type\":\"@type@\",\"occurred_at\":\"@iso@\"," PERSON
              "\"recipient\":\"person@example.com\",\"subject\":\"Spring is here, and so are we\","
              "\"message_id\":\"<20260309.5a1c77d0@mail.example.com>\",\"ip\":\"192.0.2.17\","
              "\"user_agent\":\"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/128.0\","
              "\"url\":\"https://www.example.com/offers/spring?utm_source=newsletter\","
              "\"tags\":[\"spring\",\"newsletter\"],\"attempt\":1}"},
};

static const struct format *format_of(const char *provider)
{
    const struct format *format = formats;
    while (format->provider && strcmp(format->provider, provider) != 0)
        format++;
    return format;
}

/* ---- templates ------------------------------------------------------------------------------ */

enum slot_kind { SLOT_ID, SLOT_ENROLLMENT, SLOT_INSTANCE };

struct template
{
    char text[TEMPLATE_BYTES];
    size_t len;
    struct {
        enum slot_kind kind;
        size_t at;
    } slots[SLOTS_MAX];
    size_t slot_count;
};

struct words {
    const char *type, *iso, *unix_s;
};

static bool template_append(struct template *template, const char *text, size_t len)
{
    if (len > sizeof(template->text) - template->len)
        return false;
    memcpy(template->text + template->len, text, len);
    template->len += len;
    return true;
}

static bool template_append_slot(struct template *template, enum slot_kind kind)
{
    if (template->slot_count == SLOTS_MAX || UUID_TEXT > sizeof(template->text) - template->len)
        return false;
    template->slots[template->slot_count].kind = kind;
    template->slots[template->slot_count++].at = template->len;
    template->len += UUID_TEXT;
    return true;
}

/* Takes the marker `name` between two '@'; false when it is none: an address, for instance. */
static bool template_append_marker(struct template *template, struct oh_slice name,
                                   const struct words *words, bool *fits)
{
    static const struct {
        const char *name;
        enum slot_kind kind;
    } slots[] = {{"id", SLOT_ID}, {"enrollment", SLOT_ENROLLMENT}, {"instance", SLOT_INSTANCE}};
    const struct {
        const char *name, *value;
    } texts[] = {{"type", words->type}, {"iso", words->iso}, {"unix", words->unix_s}};
    for (size_t i = 0; i < 3; i++) {
        if (slice_equals(name, slice_of_text(slots[i].name))) {
            *fits = template_append_slot(template, slots[i].kind);
            return true;
        }
        if (slice_equals(name, slice_of_text(texts[i].name))) {
            *fits = template_append(template, texts[i].value, strlen(texts[i].value));
            return true;
        }
    }
    return false;
}

static bool template_compile(struct template *template, const char *source,
                             const struct words *words)
{
    bool fits = true;
    template->len = template->slot_count = 0;
    while (fits && *source) {
        const char *end = *source == '@' ? strchr(source + 1, '@') : NULL;
        struct oh_slice name = slice_of(source + 1, end ? (size_t)(end - source - 1) : 0);
        if (end && template_append_marker(template, name, words, &fits)) {
            source = end + 1;
            continue;
        }
        fits = template_append(template, source++, 1);
    }
    return fits;
}

/* ---- the plan ------------------------------------------------------------------------------- */

struct maker_plan {
    struct maker_options options;
    const struct format *format;
    struct template events[TYPES_MAX]; /* one a type */
    struct template headers[HEADERS_EXTRA];
    size_t header_count;
    size_t event_kinds;
    size_t event_bytes; /* of the longest */
    char head[1024];    /* request line and the headers that never change */
    size_t head_len;
    uint64_t nonce[2]; /* this run's random part of every id */
};

static uint64_t mix(uint64_t x) /* a bijection: the finaliser of SplitMix64 */
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

void maker_event_id(const struct maker_plan *plan, uint64_t event, char out[UUID_TEXT])
{
    static const char digits[] = "0123456789abcdef";
    /* All 64 bits of the mixed number are in the id, so no two events of a run can share one; the
     * random part keeps runs apart. */
    uint64_t unique = mix(event + plan->nonce[0]), random = plan->nonce[1];
    for (unsigned i = 0, digit = 0; i < UUID_TEXT; i++) {
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            out[i] = '-';
        } else if (i == 14) {
            out[i] = '4';
        } else if (i == 19) {
            out[i] = '8';
        } else {
            uint64_t *from = digit++ < 16 ? &unique : &random;
            out[i] = digits[*from & 15];
            *from >>= 4;
        }
    }
}

const struct pair *maker_event_pair(const struct maker_plan *plan, uint64_t event)
{
    return &plan->options.pairs->items[mix(event ^ plan->nonce[1]) % plan->options.pairs->count];
}

static void template_fill(const struct maker_plan *plan, const struct template *template,
                          uint64_t event, char *out)
{
    const struct pair *pair = maker_event_pair(plan, event);
    memcpy(out, template->text, template->len);
    for (size_t i = 0; i < template->slot_count; i++) {
        char *at = out + template->slots[i].at;
        switch (template->slots[i].kind) {
        case SLOT_ID:
            maker_event_id(plan, event, at);
            break;
        case SLOT_ENROLLMENT:
            memcpy(at, pair->enrollment, UUID_TEXT);
            break;
        case SLOT_INSTANCE:
            memcpy(at, pair->instance, UUID_TEXT);
            break;
        }
    }
}

const char *maker_event_type(const struct maker_plan *plan, uint64_t event)
{
    return plan->format->types[event % plan->event_kinds];
}

size_t maker_event_bytes(const struct maker_plan *plan)
{
    return plan->event_bytes;
}

size_t maker_write_event(const struct maker_plan *plan, uint64_t event, char *out)
{
    const struct template *template = &plan->events[event % plan->event_kinds];
    template_fill(plan, template, event, out);
    return template->len;
}

static bool plan_compile(struct maker_plan *plan)
{
    char iso[32], unix_s[24];
    time_t now = (time_t)(plan->options.now_us / 1000000);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(iso, sizeof(iso), "%Y-%m-%dT%H:%M:%SZ", &utc);
    snprintf(unix_s, sizeof(unix_s), "%" PRId64, plan->options.now_us / 1000000);
    for (size_t i = 0; i < TYPES_MAX && plan->format->types[i]; i++) {
        struct words words = {plan->format->types[i], iso, unix_s};
        if (!template_compile(&plan->events[i], plan->format->event, &words))
            return false;
        plan->event_kinds++;
        if (plan->events[i].len > plan->event_bytes)
            plan->event_bytes = plan->events[i].len;
    }
    const struct words none = {"", "", ""};
    for (size_t i = 0; i < HEADERS_EXTRA && plan->format->headers[i][0]; i++) {
        struct template *header = &plan->headers[plan->header_count++];
        if (!template_compile(header, plan->format->headers[i][1], &none) ||
            header->len > HEADER_BYTES)
            return false;
    }
    int len = snprintf(plan->head, sizeof(plan->head),
                       "POST %s HTTP/1.1\r\nhost: %s\r\nuser-agent: oncehook-bench\r\n"
                       "content-type: application/json\r\n%s",
                       plan->options.path, plan->options.host,
                       plan->options.close_after ? "connection: close\r\n" : "");
    plan->head_len = (size_t)len;
    return len > 0 && (size_t)len < sizeof(plan->head);
}

enum oh_status maker_plan_new(const struct maker_options *options, struct maker_plan **out,
                              struct oh_error *err)
{
    *out = NULL;
    struct maker_plan *plan = calloc(1, sizeof(*plan));
    if (!plan)
        return oh_fail(err, OH_NO_MEMORY, "no memory");
    plan->options = *options;
    plan->format = format_of(options->provider);
    if (options->events_per_delivery < 1 || options->events_per_delivery > MAKER_EVENTS_MAX) {
        maker_plan_free(plan);
        return oh_fail(err, OH_INVALID, "events per delivery: from 1 to %d", MAKER_EVENTS_MAX);
    }
    if (!plan_compile(plan)) {
        maker_plan_free(plan);
        return oh_fail(err, OH_INVALID, "the URL is too long");
    }
    if (RAND_bytes((unsigned char *)plan->nonce, sizeof(plan->nonce)) != 1) {
        maker_plan_free(plan);
        return oh_fail(err, OH_SYSTEM, "no random bytes");
    }
    *out = plan;
    return OH_OK;
}

void maker_plan_free(struct maker_plan *plan)
{
    free(plan);
}

/* ---- one thread's deliveries ---------------------------------------------------------------- */

struct maker {
    const struct maker_plan *plan;
    char *body;
    char *request; /* head, then body */
    char values[HEADERS_EXTRA][HEADER_BYTES];
};

struct maker *maker_new(const struct maker_plan *plan)
{
    struct maker *maker = calloc(1, sizeof(*maker));
    if (!maker)
        return NULL;
    size_t body_bytes = plan->options.events_per_delivery * (plan->event_bytes + 1) + 2;
    maker->plan = plan;
    maker->body = malloc(body_bytes);
    maker->request = malloc(HEAD_BYTES + body_bytes);
    if (!maker->body || !maker->request) {
        maker_free(maker);
        return NULL;
    }
    return maker;
}

void maker_free(struct maker *maker)
{
    if (!maker)
        return;
    free(maker->body);
    free(maker->request);
    free(maker);
}

static size_t write_body(struct maker *maker, uint64_t delivery)
{
    const struct maker_plan *plan = maker->plan;
    uint32_t count = plan->options.events_per_delivery;
    bool array = count > 1 || plan->format->array;
    size_t len = 0;
    if (array)
        maker->body[len++] = '[';
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0)
            maker->body[len++] = ',';
        len += maker_write_event(plan, delivery * count + i, maker->body + len);
    }
    if (array)
        maker->body[len++] = ']';
    return len;
}

/* The headers that the signature may cover. */
static size_t list_headers(struct maker *maker, uint64_t delivery,
                           struct oh_header headers[HEADERS_MAX])
{
    const struct maker_plan *plan = maker->plan;
    size_t count = 0;
    headers[count++] = (struct oh_header){SLICE_LITERAL("host"), slice_of_text(plan->options.host)};
    headers[count++] =
        (struct oh_header){SLICE_LITERAL("content-type"), SLICE_LITERAL("application/json")};
    for (size_t i = 0; i < plan->header_count; i++) {
        template_fill(plan, &plan->headers[i], delivery * plan->options.events_per_delivery,
                      maker->values[i]);
        headers[count++] = (struct oh_header){slice_of_text(plan->format->headers[i][0]),
                                              slice_of(maker->values[i], plan->headers[i].len)};
    }
    return count;
}

static bool append_header(char *head, size_t *len, const struct oh_header *header)
{
    size_t need = header->name.len + header->value.len + 4;
    if (need > HEAD_BYTES - *len)
        return false;
    char *at = head + *len;
    memcpy(at, header->name.data, header->name.len);
    at += header->name.len;
    memcpy(at, ": ", 2);
    memcpy(at + 2, header->value.data, header->value.len);
    memcpy(at + 2 + header->value.len, "\r\n", 2);
    *len += need;
    return true;
}

enum oh_status maker_make(struct maker *maker, uint64_t delivery, int64_t now_ms,
                          struct oh_slice *request, struct oh_error *err)
{
    const struct maker_plan *plan = maker->plan;
    struct oh_header headers[HEADERS_MAX];
    struct oh_signed done;
    size_t body_len = write_body(maker, delivery), own = list_headers(maker, delivery, headers);
    const struct oh_request unsigned_request = {.method = SLICE_LITERAL("POST"),
                                                .url = slice_of_text(plan->options.url),
                                                .headers = headers,
                                                .header_count = own,
                                                .body = slice_of(maker->body, body_len)};
    struct oh_arena *arena = oh_arena_new(2048, 65536);
    if (!arena)
        return oh_fail(err, OH_NO_MEMORY, "no memory");
    enum oh_status status =
        oh_sign(plan->options.signer, &unsigned_request, now_ms, arena, &done, err);
    size_t len = plan->head_len;
    memcpy(maker->request, plan->head, plan->head_len);
    for (size_t i = 2; status == OH_OK && i < own + done.count;
         i++) /* two are in the head already */
        if (!append_header(maker->request, &len, i < own ? &headers[i] : &done.headers[i - own]))
            status = oh_fail(err, OH_TOO_MANY, "the signature's headers are too long");
    oh_arena_free(arena);
    if (status != OH_OK)
        return status;
    char length[64];
    int length_len = snprintf(length, sizeof(length), "content-length: %zu\r\n\r\n", body_len);
    if ((size_t)length_len > HEAD_BYTES - len)
        return oh_fail(err, OH_TOO_MANY, "the request's head is too long");
    memcpy(maker->request + len, length, (size_t)length_len);
    len += (size_t)length_len;
    memcpy(maker->request + len, maker->body, body_len);
    *request = slice_of(maker->request, len + body_len);
    return OH_OK;
}
