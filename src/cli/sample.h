/* SPDX-License-Identifier: Apache-2.0 */
/* Sample deliveries: what a provider's webhook looks like, as data, with fresh ids. For `send` and
 * the demo; nothing is signed here. */
#ifndef CLI_SAMPLE_H
#define CLI_SAMPLE_H

#include "config/config.h"
#include "oncehook/sign.h"

#define SAMPLE_HEADERS_MAX 4

/* One event to make. NULL texts: the sample's own. */
struct sample_event {
    const uint8_t *id;         /* 16 bytes that the provider's id is made of; NULL = random */
    const char *type;          /* the provider's own type word */
    const char *enrollment_id; /* put where the source looks for it; NULL = left out */
    const char *instance_id;
};

/* A delivery, signed or not; bytes live in the arena. */
struct sample_delivery {
    struct oh_header headers[SAMPLE_HEADERS_MAX + OH_SIGN_HEADERS_MAX];
    size_t header_count;
    struct oh_slice body;
    struct oh_slice query; /* what the scheme adds to the URL: "?secret=…" */
};

/* Makes a delivery to `source` of `count` events (more than one only where a delivery is an array)
 * that happened at now_us (unix microseconds). Errors: OH_INVALID (count; a place for ids that no
 * event can have), OH_NO_MEMORY. */
enum oh_status sample_make(const struct config_source *source, const struct sample_event *events,
                           size_t count, int64_t now_us, struct oh_arena *arena,
                           struct sample_delivery *out, struct oh_error *err) OH_MUST_CHECK;

#endif
