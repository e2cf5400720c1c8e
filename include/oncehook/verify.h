/* SPDX-License-Identifier: Apache-2.0 */
/* Verification: recipe + live secrets + request -> accepted, or why not. Pure: no I/O, no clock.
 * All comparisons of secret-dependent bytes take constant time. */
#ifndef ONCEHOOK_VERIFY_H
#define ONCEHOOK_VERIFY_H

#include "oncehook/recipe.h"

struct oh_header {
    struct oh_slice name;  /* compared without regard to case */
    struct oh_slice value; /* without surrounding white space */
};

/* One request as it came. Repeated header lines stand as repeated entries, in their order. */
struct oh_request {
    struct oh_slice method; /* "POST" */
    struct oh_slice url;    /* the URL the provider was given, with query */
    const struct oh_header *headers;
    size_t header_count;
    struct oh_slice body; /* exact bytes */
};

/* The live secrets (or public keys) of one source, parsed once. Immutable after the last add. */
struct oh_keyring;

/* An empty ring for `recipe`, which must outlive it. NULL when memory is gone. */
struct oh_keyring *oh_keyring_new(const struct oh_recipe *recipe) OH_MUST_CHECK;

/* Adds one secret in the form the provider shows it (key encodings: the recipe's `key`). Bytes are
 * copied, and wiped when the ring is freed. Errors: OH_INVALID for an empty secret or one that does
 * not parse; *err never repeats it. */
enum oh_status oh_keyring_add(struct oh_keyring *ring, struct oh_slice secret,
                              struct oh_error *err) OH_MUST_CHECK;

/* From when until when the secret that was added last is taken, unix milliseconds, both included.
 * INT64_MIN and INT64_MAX, as it is added: always. What counts is the moment of arrival. */
void oh_keyring_limit(struct oh_keyring *ring, int64_t not_before_ms, int64_t not_after_ms);

/* Adds a certificate (PEM) that requests may name by `url`, for schemes that sign with one (SNS,
 * PayPal); a request that names another is refused. Errors: OH_INVALID. */
enum oh_status oh_keyring_add_certificate(struct oh_keyring *ring, struct oh_slice url,
                                          struct oh_slice pem, struct oh_error *err) OH_MUST_CHECK;

/* The number of secrets; certificates do not count. */
size_t oh_keyring_count(const struct oh_keyring *ring);
void oh_keyring_free(struct oh_keyring *ring);

enum oh_verdict {
    OH_ACCEPTED,
    OH_SIGNATURE_MISSING, /* no usable signature or timestamp in the request */
    OH_SIGNATURE_WRONG,
    OH_STALE, /* signature right, time outside the window */
};

/* The word of oncehook_rejects_total for a verdict; "-" for OH_ACCEPTED. */
const char *oh_verdict_name(enum oh_verdict verdict);

struct oh_verify_result {
    int secret_index;    /* which secret of the ring matched, from 0; -1 = none */
    const char *because; /* static words for a person: "signature header repeated"; never NULL */
    struct oh_slice certificate_url; /* data not NULL: the request names this certificate of the
                                        provider, and the ring does not have it */
    struct oh_slice shown_secret;    /* data not NULL: the secret itself stands here in the accepted
                                        body. Who keeps the body takes it out */
};

/* The scheme's own window, for oh_verify's past_tolerance_s. */
#define OH_TOLERANCE_OF_SCHEME (-1)

/* Verifies `request` against every secret of `ring` that is taken at `now_ms`.
 * now_ms: unix time in milliseconds. past_tolerance_s: how old a signed timestamp may be, in
 * seconds, OH_TOLERANCE_OF_SCHEME for the recipe's own. `arena` takes what is needed while
 * it runs: a few KiB and at most eight times the body; NULL does for schemes that sign bytes as
 * they stand in headers and body. *result (may be NULL) is always filled. Thread: any; ring and
 * recipe are only read. A ring without secrets accepts nothing. Memory that runs out counts as
 * OH_SIGNATURE_WRONG. */
enum oh_verdict oh_verify(const struct oh_recipe *recipe, const struct oh_keyring *ring,
                          const struct oh_request *request, int64_t now_ms,
                          int64_t past_tolerance_s, struct oh_arena *arena,
                          struct oh_verify_result *result);

#define OH_SPELLINGS_MAX 8

/* What a verdict rests on, for the person who has to find out why a request was refused. Texts
 * belong to the recipe, the request or the arena. */
struct oh_explanation {
    struct oh_verify_result result;
    struct oh_slice missing; /* what the scheme reads and the request lacks: "stripe-signature",
                                ", " between; len 0 = nothing */
    bool has_time;
    int64_t time_ms;  /* of the request, as it says, unix milliseconds */
    int64_t past_s;   /* the window that was held against it; -1 = none */
    int64_t future_s; /* likewise */
    /* The exact bytes that a right signature would be of: each spelling that was tried. A secret
     * that is part of them stands as `****`. They hold the delivery: show them to nobody but the
     * person who asked. */
    struct oh_slice messages[OH_SPELLINGS_MAX];
    size_t message_count;
};

/* oh_verify() that says what it did. Where every item of a body has a signature of its own, *out
 * tells of the last one that was looked at. `arena` takes the messages too: OH_SPELLINGS_MAX times
 * the body and more; it is not NULL. Errors and thread: as oh_verify(). */
enum oh_verdict oh_explain(const struct oh_recipe *recipe, const struct oh_keyring *ring,
                           const struct oh_request *request, int64_t now_ms,
                           int64_t past_tolerance_s, struct oh_arena *arena,
                           struct oh_explanation *out);

#endif
