/* SPDX-License-Identifier: Apache-2.0 */
/* The key ladder of oncehook/event.h: what makes two deliveries of one event equal. */
#ifndef EVENT_KEY_H
#define EVENT_KEY_H

#include "event/plan.h"

#include <openssl/types.h>

/* Decides key, grade and composite of *out, whose `raw` is filled already. `sha256`: a context to
 * compute in. The key lives where plan_read() found it, or in `arena`. Errors: OH_NO_MEMORY. */
enum oh_status key_decide(const struct plan_event *of, EVP_MD_CTX *sha256, struct oh_arena *arena,
                          struct oh_event *out, struct oh_error *err) OH_MUST_CHECK;

/* The id of the reference that the event has (oncehook/event.h); false: it has none. `sha256`: as
 * above; without memory there is none. */
bool key_reference(const struct plan_event *of, EVP_MD_CTX *sha256, uint8_t id[16]) OH_MUST_CHECK;

#endif
