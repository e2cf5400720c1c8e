/* SPDX-License-Identifier: Apache-2.0 */
/* A non-blocking byte stream to a server, plain or TLS, for an epoll loop. */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include "oncehook/types.h"

#include <openssl/ssl.h>
#include <stdbool.h>
#include <sys/socket.h>

struct wire {
    int fd; /* -1 = closed */
    SSL *ssl;
    bool connected;   /* TCP stands */
    bool wants_write; /* after WIRE_WAIT: for the socket to take bytes, else for bytes to come */
};

enum wire_result {
    WIRE_OK,
    WIRE_WAIT,   /* would block */
    WIRE_CLOSED, /* orderly end of the stream */
    WIRE_FAILED
};

/* A TLS context that trusts the certificates in the PEM file `ca` (NULL: the system's), TLS 1.2 and
 * above. NULL on error, then *err says why. SSL_CTX_free() it. */
SSL_CTX *wire_tls_new(const char *ca, struct oh_error *err) OH_MUST_CHECK;

/* Begins to connect; tls NULL = plain. tls_name: the host name or numeric address that the
 * certificate must be for. WIRE_FAILED: the wire is closed again. */
enum wire_result wire_open(struct wire *wire, const struct sockaddr *address, socklen_t len,
                           SSL_CTX *tls, const char *tls_name) OH_MUST_CHECK;

/* Goes on connecting; to be called when the socket is ready, until it gives WIRE_OK. */
enum wire_result wire_continue_open(struct wire *wire) OH_MUST_CHECK;

/* Writes what the socket takes; *written > 0 with WIRE_OK. After WIRE_WAIT call it again with the
 * same bytes (they may have moved). */
enum wire_result wire_write(struct wire *wire, const char *data, size_t len,
                            size_t *written) OH_MUST_CHECK;

/* Reads once; *read > 0 with WIRE_OK. Over TLS call it until it gives WIRE_WAIT or the wanted bytes
 * are there: what TLS has read ahead wakes no epoll. */
enum wire_result wire_read(struct wire *wire, char *data, size_t size, size_t *read) OH_MUST_CHECK;

/* Closes without a farewell. Closed ones stay closed. */
void wire_close(struct wire *wire);

/* Why the last call on this thread gave WIRE_FAILED, for a person; static buffer per thread. */
const char *wire_problem(const struct wire *wire);

#endif
