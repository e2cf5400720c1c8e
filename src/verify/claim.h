/* SPDX-License-Identifier: Apache-2.0 */
/* What a request claims, before any secret is asked: its signatures and its timestamp, taken apart.
 * What is ambiguous is refused: a repeated header, a key twice, a pair without '='. */
#ifndef VERIFY_CLAIM_H
#define VERIFY_CLAIM_H

#include "verify/message.h"

/* Signatures in one request. Stripe sends one for each secret while a secret is rolled. */
enum { CANDIDATES_MAX = 16 };

struct claim {
    struct oh_slice candidates[CANDIDATES_MAX]; /* encoded signatures */
    size_t count;
    struct oh_slice ts;     /* the text that is signed; data == NULL: none */
    int64_t ts_value;       /* in units of 1/ts_per_s seconds, not negative */
    struct oh_slice groups; /* KV with groups: those not taken yet; data == NULL: none */
    const char *because;
};

/* Reads the signatures and the timestamp of a request. False with claim->because set: there is
 * nothing that could be verified. */
bool claim_read(const struct message_source *from, struct claim *claim);

/* The next group of the same header, after claim_read(); false when there is none. */
bool claim_next_group(const struct message_source *from, struct claim *claim);

/* Sets ts_value from ts; false with claim->because set when it is missing or malformed. */
bool claim_read_ts(const struct message_source *from, struct claim *claim);

/* 1 where timestamps count seconds, else 1000. */
int64_t claim_ts_per_s(const struct oh_recipe *recipe);

#endif
