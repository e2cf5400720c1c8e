/* SPDX-License-Identifier: Apache-2.0 */
/* Sample deliveries: what a provider's webhook looks like, as data, with fresh ids. For `send` and
 * the demo; nothing is signed here. */
#ifndef CLI_SAMPLE_H
#define CLI_SAMPLE_H

#include "config/config.h"
#include "oncehook/sign.h"

#define SAMPLE_HEADERS_MAX 8

/* One event to make. NULL texts: the sample's own. */
struct sample_event {
    const uint8_t *id;         /* 16 bytes that the provider's id is made of; NULL = random */
    const char *type;          /* the provider's own type word */
    const char *enrollment_id; /* put where the source looks for it; NULL = left out */
    const char *instance_id;
};

/* A delivery to sign; bytes live in the arena, headers may be added to up to the maximum. */
struct sample_delivery {
    struct oh_header headers[SAMPLE_HEADERS_MAX + OH_SIGN_HEADERS_MAX];
    size_t header_count;
    struct oh_slice body;
};

/* Most events that one delivery of this provider carries: 1 where its body is one event. */
size_t sample_events_max(const char *provider);

/* Makes a delivery to `source` of `count` events (1..sample_events_max()) that happened at now_us
 * (unix microseconds). Errors: OH_INVALID (count; a place for ids that no event can have),
 * OH_NO_MEMORY.
 */
enum oh_status sample_make(const struct config_source *source, const struct sample_event *events,
                           size_t count, int64_t now_us, struct oh_arena *arena,
                           struct sample_delivery *out, struct oh_error *err) OH_MUST_CHECK;

/* The headers of this provider's deliveries for a body that somebody else made; out->body stays. */
enum oh_status sample_headers(const struct oh_recipe *recipe, int64_t now_us,
                              struct oh_arena *arena, struct sample_delivery *out,
                              struct oh_error *err) OH_MUST_CHECK;

#endif
