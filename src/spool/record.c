/* SPDX-License-Identifier: Apache-2.0 */
/* spool/record.h: every length is checked against what is left before it is used. */
#include "spool/record.h"

#include "base/slice.h"
#include "store/store.h"

#include <endian.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { KIND_EVENT = 1, KIND_UNREADABLE = 2 };
enum { RECORD_ENROLLMENT = 1, RECORD_INSTANCE = 2, RECORD_PAYLOAD_IS_RAW = 4, RECORD_PAYLOAD = 8 };
enum { BUFFER_FIRST_BYTES = 4096, HEADERS_MAX = 100 /* libh2o refuses more */ };

#define TEXT_ABSENT UINT32_MAX

/* The numbers stand in files: new words go to the end. */
_Static_assert(OH_GRADE_ID == 0 && OH_GRADE_HASH == 2, "grades are stored as numbers");
_Static_assert(OH_EVENT_SENT == 0 && OH_EVENT_OTHER == 12, "types are stored as numbers");
_Static_assert(OH_CHANNEL_NONE == 0 && OH_CHANNEL_PHONE == 5, "channels are stored as numbers");

/* ---- writing --------------------------------------------------------------------------------- */

static char *grow(struct record_buffer *buffer, size_t more)
{
    if (buffer->failed)
        return NULL;
    if (buffer->size - buffer->len < more) {
        size_t size = buffer->size ? buffer->size : BUFFER_FIRST_BYTES;
        while (size - buffer->len < more)
            size *= 2;
        char *bytes = realloc(buffer->bytes, size);
        if (!bytes) {
            buffer->failed = true;
            return NULL;
        }
        buffer->bytes = bytes;
        buffer->size = size;
    }
    char *at = buffer->bytes + buffer->len;
    buffer->len += more;
    return at;
}

static void put_bytes(struct record_buffer *buffer, const void *bytes, size_t len)
{
    char *at = grow(buffer, len);
    if (at && len)
        memcpy(at, bytes, len);
}

static void put_u8(struct record_buffer *buffer, unsigned value)
{
    uint8_t byte = (uint8_t)value;
    put_bytes(buffer, &byte, 1);
}

static void put_u32(struct record_buffer *buffer, uint32_t value)
{
    value = htole32(value);
    put_bytes(buffer, &value, sizeof(value));
}

static void put_i64(struct record_buffer *buffer, int64_t value)
{
    uint64_t bits = htole64((uint64_t)value);
    put_bytes(buffer, &bits, sizeof(bits));
}

static void put_text(struct record_buffer *buffer, struct oh_slice text)
{
    if (text.len >= TEXT_ABSENT) {
        buffer->failed = true;
        return;
    }
    put_u32(buffer, text.data ? (uint32_t)text.len : TEXT_ABSENT);
    put_bytes(buffer, text.data, text.data ? text.len : 0);
}

static void put_event(struct record_buffer *buffer, const struct oh_event *event,
                      struct oh_slice scope)
{
    bool same = event->payload.data && slice_equals(event->payload, event->raw);
    unsigned flags = (event->has_enrollment ? RECORD_ENROLLMENT : 0) |
                     (event->has_instance ? RECORD_INSTANCE : 0) |
                     (same                  ? RECORD_PAYLOAD_IS_RAW
                      : event->payload.data ? RECORD_PAYLOAD
                                            : 0);
    put_u8(buffer, event->grade);
    put_u8(buffer, event->type);
    put_u8(buffer, event->channel);
    put_u8(buffer, flags);
    put_i64(buffer, event->occurred_at_us);
    put_text(buffer, scope);
    put_text(buffer, event->key);
    put_text(buffer, event->provider_type);
    put_text(buffer, event->raw);
    if (event->has_enrollment)
        put_bytes(buffer, event->enrollment_id, 16);
    if (event->has_instance)
        put_bytes(buffer, event->instance_id, 16);
    if (flags & RECORD_PAYLOAD)
        put_text(buffer, event->payload);
}

static void put_unreadable(struct record_buffer *buffer, const char *reason,
                           const struct oh_request *request)
{
    char *url = store_mask_url(request->url);
    if (!url)
        buffer->failed = true;
    put_text(buffer, slice_of_text(reason));
    put_text(buffer, request->method);
    put_text(buffer, slice_of_text(url));
    put_text(buffer, request->body);
    put_u32(buffer, (uint32_t)request->header_count);
    for (size_t i = 0; i < request->header_count; i++) {
        const struct oh_header *header = &request->headers[i];
        put_text(buffer, header->name);
        put_text(buffer,
                 store_names_credential(header->name) ? SLICE_LITERAL("****") : header->value);
    }
    free(url);
}

static void put_head(struct record_buffer *buffer, const struct delivery_event *event,
                     struct oh_slice source, struct oh_slice provider)
{
    const struct delivery *delivery = event->delivery;
    buffer->len = 0;
    buffer->failed = false;
    put_u8(buffer, RECORD_VERSION);
    put_u8(buffer, event->event ? KIND_EVENT : KIND_UNREADABLE);
    put_i64(buffer, delivery->accepted_wall_us);
    put_bytes(buffer, delivery->id, sizeof(delivery->id));
    put_text(buffer, source);
    put_text(buffer, provider);
}

enum oh_status record_encode(struct record_buffer *buffer, const struct delivery_event *event)
{
    const struct delivery *delivery = event->delivery;
    put_head(buffer, event, slice_of_text(delivery->source->name),
             slice_of_text(delivery->source->provider));
    if (event->event)
        put_event(buffer, event->event, event->scope);
    else
        put_unreadable(buffer, delivery->unreadable, &delivery->request);
    return buffer->failed ? OH_NO_MEMORY : OH_OK;
}

enum oh_status record_encode_bare(struct record_buffer *buffer, const struct record *record)
{
    const struct delivery_event *item = &record->delivery->events[0];
    put_head(buffer, item, record->source, record->provider);
    if (item->event) {
        struct oh_event bare = *item->event;
        bare.raw = SLICE_LITERAL("");
        bare.payload = (struct oh_slice){NULL, 0};
        put_event(buffer, &bare, item->scope);
    } else {
        const struct oh_request bare = {.method = record->delivery->request.method,
                                        .url = SLICE_LITERAL(""),
                                        .body = SLICE_LITERAL("")};
        put_unreadable(buffer, "forgotten while it waited in the spool", &bare);
    }
    return buffer->failed ? OH_NO_MEMORY : OH_OK;
}

void record_buffer_free(struct record_buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (struct record_buffer){0};
}

/* ---- reading --------------------------------------------------------------------------------- */

/* What is left of the record; `bad` once something did not fit, and then everything reads as 0. */
struct cursor {
    const char *at;
    size_t left;
    bool bad;
};

static const char *take(struct cursor *cursor, size_t len)
{
    if (cursor->bad || len > cursor->left) {
        cursor->bad = true;
        return NULL;
    }
    const char *at = cursor->at;
    cursor->at += len;
    cursor->left -= len;
    return at;
}

static void take_bytes(struct cursor *cursor, void *to, size_t len)
{
    const char *at = take(cursor, len);
    if (at)
        memcpy(to, at, len);
    else
        memset(to, 0, len);
}

static unsigned take_u8(struct cursor *cursor)
{
    uint8_t value;
    take_bytes(cursor, &value, 1);
    return value;
}

static uint32_t take_u32(struct cursor *cursor)
{
    uint32_t value;
    take_bytes(cursor, &value, sizeof(value));
    return le32toh(value);
}

static int64_t take_i64(struct cursor *cursor)
{
    uint64_t value;
    take_bytes(cursor, &value, sizeof(value));
    return (int64_t)le64toh(value);
}

static struct oh_slice take_text(struct cursor *cursor)
{
    uint32_t len = take_u32(cursor);
    if (cursor->bad || len == TEXT_ABSENT)
        return (struct oh_slice){NULL, 0};
    const char *at = take(cursor, len);
    return at ? slice_of(at, len) : (struct oh_slice){NULL, 0};
}

static bool take_event(struct cursor *cursor, struct oh_event *event, struct oh_slice *scope)
{
    unsigned grade = take_u8(cursor), type = take_u8(cursor), channel = take_u8(cursor);
    unsigned flags = take_u8(cursor);
    *event = (struct oh_event){
        .grade = (enum oh_key_grade)grade,
        .type = (enum oh_event_type)type,
        .channel = (enum oh_channel)channel,
        .has_enrollment = flags & RECORD_ENROLLMENT,
        .has_instance = flags & RECORD_INSTANCE,
    };
    event->occurred_at_us = take_i64(cursor);
    *scope = take_text(cursor);
    event->key = take_text(cursor);
    event->provider_type = take_text(cursor);
    event->raw = take_text(cursor);
    if (event->has_enrollment)
        take_bytes(cursor, event->enrollment_id, 16);
    if (event->has_instance)
        take_bytes(cursor, event->instance_id, 16);
    if (flags & RECORD_PAYLOAD)
        event->payload = take_text(cursor);
    else if (flags & RECORD_PAYLOAD_IS_RAW)
        event->payload = event->raw;
    return !cursor->bad && grade <= OH_GRADE_HASH && type < OH_EVENT_TYPE_COUNT &&
           channel <= OH_CHANNEL_PHONE && scope->data && event->key.data && event->raw.data;
}

static enum oh_status take_unreadable(struct cursor *cursor, struct oh_arena *arena,
                                      struct delivery *delivery)
{
    struct oh_slice reason = take_text(cursor);
    struct oh_request *request = &delivery->request;
    request->method = take_text(cursor);
    request->url = take_text(cursor);
    request->body = take_text(cursor);
    uint32_t count = take_u32(cursor);
    if (cursor->bad || !reason.data || count > HEADERS_MAX)
        return OH_UNREADABLE;
    struct oh_header *headers = oh_arena_alloc(arena, count * sizeof(*headers));
    char *words = oh_arena_alloc(arena, reason.len + 1);
    if (!headers || !words)
        return OH_NO_MEMORY;
    memcpy(words, reason.data, reason.len);
    words[reason.len] = '\0';
    for (uint32_t i = 0; i < count; i++) {
        headers[i].name = take_text(cursor);
        headers[i].value = take_text(cursor);
    }
    delivery->unreadable = words;
    request->headers = headers;
    request->header_count = count;
    return cursor->bad ? OH_UNREADABLE : OH_OK;
}

enum oh_status record_decode(struct oh_slice bytes, struct oh_arena *arena, struct record *out,
                             struct oh_error *err)
{
    struct cursor cursor = {bytes.data, bytes.len, false};
    struct block {
        struct delivery delivery;
        struct delivery_event item;
        struct oh_event event;
    } *block = oh_arena_alloc(arena, sizeof(*block));
    if (!block)
        return oh_fail(err, OH_NO_MEMORY, "no memory for a record");
    memset(block, 0, sizeof(*block));
    struct delivery *delivery = &block->delivery;

    unsigned version = take_u8(&cursor), kind = take_u8(&cursor);
    if (cursor.bad || version != RECORD_VERSION)
        return oh_fail(err, OH_UNREADABLE, "a record of format %u, this program reads %d", version,
                       RECORD_VERSION);
    delivery->accepted_wall_us = take_i64(&cursor);
    take_bytes(&cursor, delivery->id, sizeof(delivery->id));
    out->delivery = delivery;
    out->source = take_text(&cursor);
    out->provider = take_text(&cursor);
    delivery->events = &block->item;
    delivery->event_count = 1;
    delivery->bytes = bytes.len;
    list_init(&delivery->link);
    list_init(&block->item.link);
    block->item.delivery = delivery;
    atomic_init(&delivery->waiting, 1);

    enum oh_status status = OH_UNREADABLE;
    if (kind == KIND_UNREADABLE) {
        status = take_unreadable(&cursor, arena, delivery);
    } else if (kind == KIND_EVENT && take_event(&cursor, &block->event, &block->item.scope)) {
        block->item.event = &block->event;
        block->item.key_hash = XXH3_64bits(block->event.key.data, block->event.key.len);
        status = OH_OK;
    }
    if (status == OH_OK && (cursor.left > 0 || !out->source.data || !out->provider.data))
        status = OH_UNREADABLE;
    return status == OH_OK ? OH_OK : oh_fail(err, status, "a record that cannot be read");
}

void record_hash(uint64_t number, struct oh_slice bytes, uint8_t out[RECORD_HASH_BYTES])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_withSeed(bytes.data, bytes.len, number));
    memcpy(out, canonical.digest, RECORD_HASH_BYTES);
}
