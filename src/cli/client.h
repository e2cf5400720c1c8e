/* SPDX-License-Identifier: Apache-2.0 */
/* A small HTTPS client for `send` and the demo: POST requests over a bounded number of kept-alive
 * connections, on libcurl's multi interface. HTTP/1.1 only, no redirects, no proxies. One thread.
 */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include "oncehook/verify.h"

enum {
    CLIENT_CONNECTIONS_MAX = 1024,
    CLIENT_ANSWER_BYTES_MAX = 64 * 1024, /* an answer's body is cut there */
};

struct client;

struct client_options {
    const char
        *ca; /* PEM file of what the server's certificate is checked against; NULL = the system's */
    uint32_t
        connections; /* 1..CLIENT_CONNECTIONS_MAX: also how many requests are under way at once */
    int64_t timeout_ms; /* of one request, connecting included; > 0 */
};

enum client_flags {
    CLIENT_HANG_UP = 1, /* closes the connection when the request is sent, before the answer */
    CLIENT_EXPECT_CONTINUE = 2, /* sends the body only when the server asks for it */
};

/* One POST. All bytes are copied. */
struct client_request {
    const char *url;
    const struct oh_header *headers;
    size_t header_count;
    struct oh_slice body;
    unsigned flags; /* of enum client_flags */
    void *tag;      /* comes back with the answer */
};

/* What became of it; everything lives for the callback. */
struct client_answer {
    void *tag;
    int status;            /* of HTTP; 0 = there was none */
    const char *failure;   /* why there was none, in words; NULL with a status or when hung up */
    struct oh_slice body;  /* NUL-terminated beyond `len` */
    int64_t retry_after_s; /* of the header Retry-After; 0 = not given */
    int64_t latency_us;    /* from the start of the request to the end of the answer */
};

/* Called once for each request that client_post() took. May not call back into the client. */
typedef void client_on_answer(void *context, const struct client_answer *answer);

/* *out belongs to the caller: client_free(). Errors: OH_INVALID, OH_NO_MEMORY, OH_SYSTEM. */
enum oh_status client_new(const struct client_options *options, client_on_answer *on_answer,
                          void *context, struct client **out, struct oh_error *err) OH_MUST_CHECK;

/* Starts `request`; while all connections are busy it first waits for an answer. */
enum oh_status client_post(struct client *client, const struct client_request *request,
                           struct oh_error *err) OH_MUST_CHECK;

/* Waits until every request has its answer. */
enum oh_status client_finish(struct client *client, struct oh_error *err) OH_MUST_CHECK;

/* Drops what is under way, without an answer. NULL is allowed. */
void client_free(struct client *client);

#endif
