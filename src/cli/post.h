/* SPDX-License-Identifier: Apache-2.0 */
/* A delivery on its way to POST /in/SOURCE: signed as the provider would, spoilt on purpose, or
 * printed as the curl command that sends the same. For `send` and the demo. */
#ifndef CLI_POST_H
#define CLI_POST_H

#include "cli/sample.h"

/* Where the deliveries of one source go, and who signs them. */
struct post_door {
    const struct config_source *source;
    struct oh_signer *signer;
    char *url, *signed_url; /* where they are sent; what the provider was given */
};

/* Opens the door of `source`. base_url: of the gateway, slashes at its end are dropped; key_file:
 * the PEM to sign with (NULL: the source's first secret, or where the scheme needs a private half,
 * DIRECTORY/keys/NAME.pem). `config` must outlive it. post_close() in any case. Errors: OH_INVALID,
 * OH_SYSTEM, OH_NO_MEMORY. */
enum oh_status post_open(struct post_door *door, const struct config *config,
                         const struct config_source *source, const char *base_url,
                         const char *key_file, const char *directory,
                         struct oh_error *err) OH_MUST_CHECK;
void post_close(struct post_door *door);

enum post_flags {
    POST_TAMPERED = 1, /* a byte of the body changes after signing */
    POST_STALE = 2,    /* signed with a time that is too old */
    POST_UNSIGNED = 4,
};

/* True if the source's scheme signs a time, so that a delivery can be stale. */
bool post_can_be_stale(const struct config_source *source);
/* True if the source's scheme signs the body, so that a changed one has to be refused. */
bool post_can_be_tampered(const struct config_source *source);

/* The sample delivery of `events`, which happened at now_us, with `body` instead of its own unless
 * body.data is NULL; signed now, and spoilt as `flags` say. Bytes live in `arena` or are `body`. */
enum oh_status post_make(const struct post_door *door, const struct sample_event *events,
                         size_t count, int64_t now_us, struct oh_slice body, unsigned flags,
                         struct oh_arena *arena, struct sample_delivery *out,
                         struct oh_error *err) OH_MUST_CHECK;

/* Prints the shell command that sends the delivery. ca NULL: the system's. OH_INVALID: a body that
 * a command cannot carry. */
enum oh_status post_print_curl(const struct post_door *door, const char *ca,
                               const struct sample_delivery *delivery,
                               struct oh_error *err) OH_MUST_CHECK;

/* What the gateway says of a delivery: the numbers of its answer, in their order there. */
enum post_outcome {
    POST_CAPTURED,
    POST_DUPLICATES,
    POST_ORPHANS,
    POST_QUARANTINED,
    POST_SPOOLED,
    POST_OUTCOMES
};
extern const char *const post_outcome_names[POST_OUTCOMES];

/* Adds an answer to `sums`; false when the body is not the contract's object (providers that demand
 * their own words). */
bool post_add_outcome(struct oh_slice body, uint64_t sums[POST_OUTCOMES]);

#endif
