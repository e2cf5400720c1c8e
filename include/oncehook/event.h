/* SPDX-License-Identifier: Apache-2.0 */
/* Extraction: a verified body -> 1..n events with their keys. Pure: no I/O, no clock.
 *
 * The split: a body that is an array is its elements, anything else is one event. Where the recipe
 * names the place of the events, an array there is its elements and an object there is one event;
 * a body without either is unreadable, since taking it for an event would be a guess. An element of
 * an outer array in which the place is missing is kept as one event, and so is every element that
 * is no object: nothing is lost. A byte order mark before the body is no part of it.
 *
 * The key ladder: the provider's id -> a composite of named fields -> SHA-256 of the event's exact
 * bytes.
 * - An id is a string or a number (its exact text). One that is missing, empty, longer than
 *   OH_KEY_BYTES_MAX, not UTF-8 or with NUL falls to the next rung. So does an id from a header or
 *   from the body around the events when the delivery holds several: it is the same for all.
 * - A composite needs each of its fields as a string that is not empty, a number or a boolean, and
 *   one field at least of the event itself when the delivery holds several. It is stored as
 *   "composite:" and the hex SHA-256 of the fields as netstrings one after the other ("5:hello,"),
 *   "-," for an optional field that is missing; at most 16 KiB of them. A missing field never makes
 * two events equal.
 * - Two events of equal bytes on the hash rung are one event.
 * Of an object's repeated key the last value counts, as in jsonb. A header that is repeated names
 * nothing. */
#ifndef ONCEHOOK_EVENT_H
#define ONCEHOOK_EVENT_H

#include "oncehook/verify.h"

#define OH_KEY_BYTES_MAX  255 /* longest provider id that is stored as it is */
#define OH_EVENT_TYPE_MAX 255 /* provider's own type word, longer ones are cut */
#define OH_JSON_DEPTH_MAX 512 /* deeper payloads are kept as bytes only */

/* The contract's words for what happened. */
#define OH_EVENT_TYPES(X)           \
    X(SENT, "sent")                 \
    X(DELIVERED, "delivered")       \
    X(OPENED, "opened")             \
    X(CLICKED, "clicked")           \
    X(REPLIED, "replied")           \
    X(BOUNCED, "bounced")           \
    X(UNSUBSCRIBED, "unsubscribed") \
    X(COMPLAINED, "complained")     \
    X(FAILED, "failed")             \
    X(CONNECTED, "connected")       \
    X(VIEWED, "viewed")             \
    X(COMPLETED, "completed")       \
    X(OTHER, "other")

enum oh_event_type {
#define X(name, word) OH_EVENT_##name,
    OH_EVENT_TYPES(X)
#undef X
        OH_EVENT_TYPE_COUNT
};

enum oh_channel {
    OH_CHANNEL_NONE,
    OH_CHANNEL_EMAIL,
    OH_CHANNEL_LINKEDIN,
    OH_CHANNEL_VIDEO,
    OH_CHANNEL_SMS,
    OH_CHANNEL_PHONE
};

enum oh_key_grade { OH_GRADE_ID, OH_GRADE_COMPOSITE, OH_GRADE_HASH };

/* The words of the contract; OH_CHANNEL_NONE gives NULL. */
const char *oh_event_type_name(enum oh_event_type type);
const char *oh_channel_name(enum oh_channel channel);
const char *oh_key_grade_name(enum oh_key_grade grade);

struct oh_event {
    struct oh_slice key; /* provider_event_id as stored: the id, "composite:HEX", "sha256:HEX" */
    enum oh_key_grade grade;
    enum oh_event_type type;
    enum oh_channel channel;
    struct oh_slice provider_type; /* the provider's own word: UTF-8 without NUL, may be empty */
    int64_t occurred_at_us;    /* unix time in microseconds, already within the contract's window */
    uint8_t enrollment_id[16]; /* valid if has_enrollment; or the id of a reference */
    uint8_t instance_id[16];   /* valid if has_instance */
    bool has_enrollment;
    bool has_instance;
    bool has_composite;      /* all fields of the recipe's composite were there */
    uint64_t composite[2];   /* XXH3-128 of the composite: only to notice ids that change */
    struct oh_slice raw;     /* the event's exact bytes inside the body */
    struct oh_slice payload; /* JSON text that jsonb can hold; data == NULL: keep `raw` instead */
};

struct oh_extraction {
    struct oh_event *events; /* in the arena */
    uint32_t count;          /* 0: verified and empty by design */
};

/* Where a source's events say whose they are: JSON pointers (RFC 6901) into one event, or
 * "header:NAME". NULL = the recipe's own default, and with none there, no such id.
 *
 * A reference is the provider's own id of a message or lead, where it echoes no enrollment's id. An
 * event that names no enrollment and has a reference gets as enrollment_id the id *of the
 * reference*: a UUID of version 8, of which all other bits are the first of
 * SHA-256(reference_scope, a zero byte, reference). PostgreSQL knows which enrollment that is, now
 * or later (enrollment_references; docs/adr/0009-references.md). */
struct oh_map {
    const char *enrollment_id, *instance_id;
    const char *reference;       /* several, one a line: their values joined by ":" */
    const char *reference_scope; /* key_scope of the references; with `reference` not NULL */
};

#define OH_REFERENCE_BYTES_MAX    255 /* longer ones name nothing */
#define OH_REFERENCE_PARTS_MAX    4
#define OH_REFERENCE_UUID_VERSION 8

/* An oh_map, compiled. Immutable. */
struct oh_mapping;

/* *out belongs to the caller: oh_mapping_free(); `recipe` must outlive it, *map is copied. Thread:
 * any; *out may then be shared. Errors: OH_INVALID for a malformed pointer or too many (different)
 * ones, OH_NO_MEMORY. */
enum oh_status oh_mapping_new(const struct oh_recipe *recipe, const struct oh_map *map,
                              struct oh_mapping **out, struct oh_error *err) OH_MUST_CHECK;
void oh_mapping_free(struct oh_mapping *mapping);

/* Splits request->body into events. `mapping` was made for `recipe`. now_us: the moment of
 * acceptance, unix microseconds; a time before 2000-01-01 or more than 24 h ahead becomes it.
 * events_max: OH_TOO_MANY beyond. Everything in *out lives in `arena` or points into the bytes of
 * *request or of the recipe, which must live as long. Memory is linear: the arena should allow
 * 16 KiB, 2 KiB an event, and eight times the body.
 * Errors: OH_UNREADABLE = verified, but no event can be read from it (the caller keeps the bytes);
 * OH_TOO_MANY; OH_NO_MEMORY. *err holds a static reason without content. Thread: any. */
enum oh_status oh_extract(const struct oh_recipe *recipe, const struct oh_mapping *mapping,
                          const struct oh_request *request, int64_t now_us, uint32_t events_max,
                          struct oh_arena *arena, struct oh_extraction *out,
                          struct oh_error *err) OH_MUST_CHECK;

#endif
