/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any bytes as a record of the spool. What can be read can be written again, and reads
 * the same. The first two bytes bound the arena. */
#include "fuzz_support.h"

#include "spool/record.h"

#include <stdio.h>
#include <stdlib.h>

static bool lies_in(struct oh_slice part, struct oh_slice whole)
{
    return !part.data || (part.data >= whole.data && part.len <= whole.len &&
                          part.data + part.len <= whole.data + whole.len);
}

static void check_again(const struct record *record, struct oh_arena *arena)
{
    struct record_buffer buffer = {.len = 0};
    struct record again;
    struct oh_error err;
    char name[256], provider[256];
    struct config_source source = {.name = name, .provider = provider};
    if (record->source.len >= sizeof(name) || record->provider.len >= sizeof(provider) ||
        memchr(record->source.data, 0, record->source.len) ||
        memchr(record->provider.data, 0, record->provider.len))
        return;
    snprintf(name, sizeof(name), "%.*s", (int)record->source.len, record->source.data);
    snprintf(provider, sizeof(provider), "%.*s", (int)record->provider.len, record->provider.data);
    struct delivery *delivery = record->delivery;
    delivery->source = &source;
    demand(record_encode(&buffer, &delivery->events[0]) == OH_OK, "encode");
    enum oh_status status = record_decode(slice_of(buffer.bytes, buffer.len), arena, &again, &err);
    demand(status == OH_OK || status == OH_NO_MEMORY, "decode again");
    if (status == OH_OK && delivery->events[0].event) {
        const struct oh_event *a = delivery->events[0].event, *b = again.delivery->events[0].event;
        demand(slice_equals(a->key, b->key) && slice_equals(a->raw, b->raw) &&
                   slice_equals(a->payload, b->payload) && a->type == b->type,
               "the same event");
    }
    record_buffer_free(&buffer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    size_t bound = 64 + (size_t)data[0] * 256 + data[1];
    struct oh_slice bytes = slice_of((const char *)data + 2, size - 2);
    struct oh_arena *arena = oh_arena_new(64, bound * 16);
    struct record record;
    struct oh_error err;
    enum oh_status status = record_decode(bytes, arena, &record, &err);
    demand(status == OH_OK || status == OH_UNREADABLE || status == OH_NO_MEMORY, "status");
    if (status == OH_OK) {
        const struct delivery *delivery = record.delivery;
        demand(lies_in(record.source, bytes) && lies_in(record.provider, bytes), "names");
        demand(lies_in(delivery->request.body, bytes), "body");
        if (delivery->events[0].event)
            demand(lies_in(delivery->events[0].event->raw, bytes) &&
                       lies_in(delivery->events[0].event->payload, bytes) &&
                       delivery->events[0].event->type < OH_EVENT_TYPE_COUNT,
                   "event");
        for (size_t i = 0; i < delivery->request.header_count; i++)
            demand(lies_in(delivery->request.headers[i].value, bytes), "header");
        check_again(&record, arena);
    }
    oh_arena_free(arena);
    return 0;
}
