/* SPDX-License-Identifier: Apache-2.0 */
/* A small HTTPS client for `send` and the demo: POST requests over a bounded number of kept-alive
 * connections, on libcurl's multi interface. HTTP/1.1 only, no redirects, no proxies. One thread.
 */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include "cli/sample.h"

enum {
    CLIENT_CONNECTIONS_MAX = 32,
    CLIENT_TIMEOUT_MS = 30 * 1000, /* of one request, connecting included */
};

struct client;

/* What became of a request; everything lives for the callback. */
struct client_answer {
    void *tag;
    int status;            /* of HTTP; 0 = there was none */
    const char *failure;   /* why there was none, in words; NULL with a status or when hung up */
    struct oh_slice body;  /* cut at 4 KiB */
    int64_t retry_after_s; /* of the header Retry-After; 0 = not given */
    int64_t latency_us;    /* from the start of the request to the end of the answer */
};

/* Called once for each request that client_post() took. May not call back into the client. */
typedef void client_on_answer(void *context, const struct client_answer *answer);

/* ca: PEM file of what the server's certificate is checked against, NULL = the system's; it must
 * outlive the client. connections: 1..CLIENT_CONNECTIONS_MAX, also how many requests are under way
 * at once. *out belongs to the caller: client_free(). Errors: OH_NO_MEMORY. */
enum oh_status client_new(const char *ca, uint32_t connections, client_on_answer *on_answer,
                          void *context, struct client **out, struct oh_error *err) OH_MUST_CHECK;

/* Starts a request, whose bytes are copied; while all connections are busy it first waits for an
 * answer. hang_up: closes the connection when the request is sent. `tag` comes back with the
 * answer. */
enum oh_status client_post(struct client *client, const char *url,
                           const struct sample_delivery *delivery, bool hang_up, void *tag,
                           struct oh_error *err) OH_MUST_CHECK;

/* Waits until every request has its answer. */
enum oh_status client_finish(struct client *client, struct oh_error *err) OH_MUST_CHECK;

/* One page of a running gateway, at most 32 MiB and 3 s; malloc'ed, a NUL follows it. NULL: *why.
 */
char *client_get(const char *url, char *why, size_t why_size) OH_MUST_CHECK;

/* Where `path` of the admin listener is: below `base`, or by default at admin.listen of the
 * configuration (either may be NULL). False, and an empty text: not known. */
bool client_admin_url(const struct config *config, const char *base, const char *path, char *url,
                      size_t url_size);

/* Drops what is under way, without an answer. NULL is allowed. */
void client_free(struct client *client);

#endif
