/* SPDX-License-Identifier: Apache-2.0 */
/* What a person is told of a request that was judged: off the hot path, nothing here decides. */
#ifndef VERIFY_EXPLAIN_H
#define VERIFY_EXPLAIN_H

#include "verify/message.h"

/* Adds a spelling of what is signed, in one piece; nothing once there are OH_SPELLINGS_MAX, or
 * memory is gone. A spelling that is there already is left out. */
void explain_add_message(struct oh_explanation *to, const struct oh_slice *parts, size_t count,
                         struct oh_arena *arena);

/* Names what the scheme reads and the request lacks. */
void explain_find_missing(const struct message_source *from, struct oh_slice *out);

#endif
