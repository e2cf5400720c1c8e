/* SPDX-License-Identifier: Apache-2.0 */
/* A second look at a request's raw head. libh2o 2.2.5 accepts two Content-Length lines (using the
 * first), Content-Length together with Transfer-Encoding, and folded lines: the shapes of request
 * smuggling behind a lax proxy. It hides them from req->headers, but the bytes are still there.
 * Pure. */
#ifndef HTTP_HEAD_H
#define HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>

/* True if the head that starts at bytes[0] (request line first; `len` may reach beyond it) frames
 * its body in one way only: at most one Content-Length or Transfer-Encoding line, none folded (RFC
 * 9112, 5.2, 6.1 and 6.3). */
bool head_is_unambiguous(const char *bytes, size_t len);

#endif
