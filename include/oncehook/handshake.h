/* SPDX-License-Identifier: Apache-2.0 */
/* Handshakes: what a provider asks before or between its events, and the answer it wants. Pure: a
 * request gives an answer, nothing is stored or sent.
 *
 * Some answers are an HMAC of a text of the caller's, under the very key that signs events. Such a
 * text is taken only in letters that no signed message has, or anyone could have events signed. */
#ifndef ONCEHOOK_HANDSHAKE_H
#define ONCEHOOK_HANDSHAKE_H

#include "oncehook/verify.h"

/* What the source's configuration knows; data == NULL: not given. */
struct oh_handshake_options {
    struct oh_slice secret;       /* the source's secret, as the provider shows it */
    struct oh_slice verify_token; /* Meta, eBay */
    struct oh_slice public_key;   /* Braintree */
    struct oh_slice endpoint;     /* eBay: the URL as it was registered */
    bool armed;                   /* a secret may arrive now (Asana, Notion) */
};

struct oh_handshake_answer {
    int status;
    bool verify_first;           /* only after oh_verify() has accepted the request; else 401 */
    struct oh_header headers[2]; /* Content-Type first, where there is a body */
    size_t header_count;
    struct oh_slice body;
    struct oh_slice learned; /* data not NULL: the secret that arrived, to be kept */
    /* data not NULL: a URL of the provider's that has to be asked for once the request is verified
     * (SNS: it confirms the subscription); points into the request or the arena */
    struct oh_slice visit;
};

/* True when `request` is a handshake of `provider`; then *out holds the answer, a refusal (400,
 * 403) among them. All of it lives in the arena, the request or the options. False: an event, or
 * memory is gone. Thread: any. */
bool oh_handshake(const char *provider, const struct oh_request *request,
                  const struct oh_handshake_options *options, struct oh_arena *arena,
                  struct oh_handshake_answer *out);

/* True when a handshake of `provider` brings a secret (Asana, Notion). Thread: any. */
bool oh_handshake_learns(const char *provider);

/* True when `provider` asks with this method, "GET" say. Thread: any. */
bool oh_handshake_takes(const char *provider, struct oh_slice method);

#endif
