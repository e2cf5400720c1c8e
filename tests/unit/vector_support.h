/* SPDX-License-Identifier: Apache-2.0 */
/* The recorded requests of tests/data/vectors.json, for tests that ask more of them than a verdict.
 */
#ifndef VECTOR_SUPPORT_H
#define VECTOR_SUPPORT_H

#include "oncehook/verify.h"

#include <jansson.h>

enum { VECTOR_HEADERS_MAX = 40, VECTOR_SECRETS_MAX = 8 };

/* One request; texts belong to the JSON or to `arena`. */
struct vector {
    const char *id;
    const struct oh_recipe *recipe;
    struct oh_request request;
    struct oh_header headers[VECTOR_HEADERS_MAX];
    struct oh_slice secrets[VECTOR_SECRETS_MAX]; /* or public keys */
    size_t secret_count;
    struct oh_slice body; /* as recorded, whatever becomes of the request */
    const json_t *certs;
    int64_t now_s;
    bool is_accepted;
};

/* All of them; the caller drops it. */
json_t *vectors_load(void);

/* Reads one. Ends the test where there is no recipe or no room for it. */
void vector_read(const struct oh_catalog *catalog, const json_t *item, struct oh_arena *arena,
                 struct vector *out);

/* A ring of these secrets and the vector's certificates; the caller frees it. Secrets that do not
 * parse are left out. */
struct oh_keyring *vector_ring(const struct vector *vector, const struct oh_slice *secrets);

#endif
