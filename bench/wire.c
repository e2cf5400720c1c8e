/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets and OpenSSL behind one small face; nothing here blocks. */
#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static _Thread_local int last_errno;

SSL_CTX *wire_tls_new(const char *ca, struct oh_error *err)
{
    SSL_CTX *tls = SSL_CTX_new(TLS_client_method());
    bool good = tls && SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION) == 1 &&
                (ca ? SSL_CTX_load_verify_locations(tls, ca, NULL) == 1
                    : SSL_CTX_set_default_verify_paths(tls) == 1);
    if (!good) {
        SSL_CTX_free(tls);
        (void)oh_fail(err, OH_INVALID, "cannot read certificates from %s", ca ? ca : "the system");
        return NULL;
    }
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(tls, 1); /* one read(2) a record instead of two */
    SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
    return tls;
}

/* What a failed OpenSSL call means. */
static enum wire_result tls_result(struct wire *wire, int returned)
{
    int saved_errno = errno;
    last_errno = 0;
    switch (SSL_get_error(wire->ssl, returned)) {
    case SSL_ERROR_WANT_READ:
        wire->wants_write = false;
        return WIRE_WAIT;
    case SSL_ERROR_WANT_WRITE:
        wire->wants_write = true;
        return WIRE_WAIT;
    case SSL_ERROR_ZERO_RETURN:
        return WIRE_CLOSED;
    case SSL_ERROR_SYSCALL:
        last_errno = saved_errno;
        return WIRE_FAILED;
    default:
        return WIRE_FAILED;
    }
}

/* What a failed socket call means. */
static enum wire_result plain_result(struct wire *wire, bool writing)
{
    last_errno = errno;
    if (last_errno != EAGAIN && last_errno != EINTR)
        return WIRE_FAILED;
    wire->wants_write = writing;
    return WIRE_WAIT;
}

static bool tls_begin(struct wire *wire, SSL_CTX *tls, const char *name)
{
    unsigned char numeric[sizeof(struct in6_addr)];
    bool is_address =
        inet_pton(AF_INET, name, numeric) == 1 || inet_pton(AF_INET6, name, numeric) == 1;
    wire->ssl = SSL_new(tls);
    if (!wire->ssl || SSL_set_fd(wire->ssl, wire->fd) != 1)
        return false;
    SSL_set_connect_state(wire->ssl);
    if (is_address)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(wire->ssl), name) == 1;
    return SSL_set1_host(wire->ssl, name) == 1 && SSL_set_tlsext_host_name(wire->ssl, name) == 1;
}

enum wire_result wire_open(struct wire *wire, const struct sockaddr *address, socklen_t len,
                           SSL_CTX *tls, const char *tls_name)
{
    const int on = 1;
    *wire = (struct wire){
        .fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    last_errno = errno;
    if (wire->fd < 0)
        return WIRE_FAILED;
    (void)setsockopt(wire->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (tls && !tls_begin(wire, tls, tls_name)) {
        wire_close(wire);
        return WIRE_FAILED;
    }
    if (connect(wire->fd, address, len) == 0)
        return wire_continue_open(wire);
    last_errno = errno;
    if (last_errno != EINPROGRESS) {
        wire_close(wire);
        return WIRE_FAILED;
    }
    wire->wants_write = true;
    return WIRE_WAIT;
}

enum wire_result wire_continue_open(struct wire *wire)
{
    if (!wire->connected) {
        int error = 0;
        socklen_t size = sizeof(error);
        if (getsockopt(wire->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
            last_errno = error;
            return WIRE_FAILED;
        }
        wire->connected = true;
    }
    wire->wants_write = false;
    if (!wire->ssl)
        return WIRE_OK;
    ERR_clear_error();
    int done = SSL_do_handshake(wire->ssl);
    return done == 1 ? WIRE_OK : tls_result(wire, done);
}

enum wire_result wire_write(struct wire *wire, const char *data, size_t len, size_t *written)
{
    *written = 0;
    if (wire->ssl) {
        ERR_clear_error();
        int done = SSL_write_ex(wire->ssl, data, len, written);
        return done == 1 ? WIRE_OK : tls_result(wire, done);
    }
    ssize_t done = send(wire->fd, data, len, MSG_NOSIGNAL);
    if (done < 0)
        return plain_result(wire, true);
    *written = (size_t)done;
    return WIRE_OK;
}

enum wire_result wire_read(struct wire *wire, char *data, size_t size, size_t *read)
{
    *read = 0;
    if (wire->ssl) {
        ERR_clear_error();
        int done = SSL_read_ex(wire->ssl, data, size, read);
        return done == 1 ? WIRE_OK : tls_result(wire, done);
    }
    ssize_t done = recv(wire->fd, data, size, 0);
    if (done < 0)
        return plain_result(wire, false);
    *read = (size_t)done;
    return done == 0 ? WIRE_CLOSED : WIRE_OK;
}

void wire_close(struct wire *wire)
{
    SSL_free(wire->ssl);
    if (wire->fd >= 0)
        close(wire->fd);
    *wire = (struct wire){.fd = -1};
}

const char *wire_problem(const struct wire *wire)
{
    static _Thread_local char text[256];
    unsigned long error = ERR_peek_last_error();
    long verify = wire->ssl ? SSL_get_verify_result(wire->ssl) : X509_V_OK;
    if (verify != X509_V_OK)
        snprintf(text, sizeof(text), "certificate: %s", X509_verify_cert_error_string(verify));
    else if (error)
        snprintf(text, sizeof(text), "TLS: %s", ERR_reason_error_string(error));
    else
        snprintf(text, sizeof(text), "%s",
                 last_errno ? strerror(last_errno) : "closed by the server");
    return text;
}
