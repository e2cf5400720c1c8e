/* SPDX-License-Identifier: Apache-2.0 */
/* The format of one record of the spool: a decided event, or a delivery that could not be read.
 *
 * Version 1; integers are little-endian, a text is its length (u32) and its bytes. An absent text
 * has the length 0xffffffff.
 *   u8 version, u8 kind, i64 accepted (unix µs), 16 bytes delivery_id, text source, text provider
 *   kind 1, an event:
 *     u8 grade, u8 type, u8 channel, u8 flags (RECORD_ENROLLMENT …), i64 occurred (unix µs),
 *     text key_scope, text key, text provider_type, text raw bytes; as the flags say: 16 bytes
 *     enrollment_id, 16 bytes instance_id, text payload
 *   kind 2, an unreadable delivery:
 *     text reason, text method, text url, text body, u32 count of headers, each text name, text
 * value Credentials in url and headers are **** already. Pure. */
#ifndef SPOOL_RECORD_H
#define SPOOL_RECORD_H

#include "delivery/delivery.h"

enum { RECORD_VERSION = 1, RECORD_HASH_BYTES = 16 };

/* Bytes being written, kept from record to record. Zero-initialised = empty. */
struct record_buffer {
    char *bytes;
    size_t len, size;
    bool failed; /* memory was gone */
};

/* Writes the record of `event` over what was there. OH_NO_MEMORY, OH_TOO_MANY (a text beyond 4
 * GiB).
 */
enum oh_status record_encode(struct record_buffer *buffer,
                             const struct delivery_event *event) OH_MUST_CHECK;

/* The same for a record that was read, without what it says of a person: an event keeps its key,
 * type, times and ids, an unreadable delivery its source and time. */
struct record;
enum oh_status record_encode_bare(struct record_buffer *buffer,
                                  const struct record *record) OH_MUST_CHECK;
void record_buffer_free(struct record_buffer *buffer);

/* One record, read. */
struct record {
    struct oh_slice source, provider; /* names; delivery->source is left NULL */
    struct delivery *delivery;        /* one event */
};

/* Reads a record. Everything in *out lives in `arena` or points into `bytes`, which must live as
 * long. OH_UNREADABLE: no record, or of another version; *err says which, without content. */
enum oh_status record_decode(struct oh_slice bytes, struct oh_arena *arena, struct record *out,
                             struct oh_error *err) OH_MUST_CHECK;

/* XXH3-128 (canonical) of the bytes, seeded with the number: a record in another's place does not
 * verify. */
void record_hash(uint64_t number, struct oh_slice bytes, uint8_t out[RECORD_HASH_BYTES]);

#endif
