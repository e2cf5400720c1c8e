/* SPDX-License-Identifier: Apache-2.0 */
/* TLS of the gateway: 1.2 and 1.3, HTTP/1.1 only. Tickets are on, so that providers that open a
 * connection a delivery can resume; early data is off (it could be replayed). */
#include "http/room.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

static SSL_CTX *fail(SSL_CTX *ssl, struct oh_error *err, const char *what, const char *path)
{
    char reason[160];
    ERR_error_string_n(ERR_peek_last_error(), reason, sizeof(reason));
    ERR_clear_error();
    SSL_CTX_free(ssl);
    (void)oh_fail(err, OH_INVALID, "%s %s: %s", what, path, reason);
    return NULL;
}

SSL_CTX *tls_new_context(const char *certificate, const char *key, struct oh_error *err)
{
    /* HTTP/2 is off by two switches, this one and http1.upgrade_to_http2: the packaged libh2o lacks
     * the fixes for rapid reset and for an assertion that a peer can reach. */
    static const h2o_iovec_t protocols[] = {{H2O_STRLIT("http/1.1")}, {NULL, 0}};
    static const unsigned char session_context[] = "oncehook";

    SSL_CTX *ssl = SSL_CTX_new(TLS_server_method());
    if (!ssl)
        return fail(ssl, err, "TLS", "context");
    SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION);
    SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_max_early_data(ssl, 0);
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF); /* tickets need no memory here */
    SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_id_context(ssl, session_context, sizeof(session_context) - 1);
    if (SSL_CTX_use_certificate_chain_file(ssl, certificate) != 1)
        return fail(ssl, err, "certificate", certificate);
    if (SSL_CTX_use_PrivateKey_file(ssl, key, SSL_FILETYPE_PEM) != 1)
        return fail(ssl, err, "key", key);
    if (SSL_CTX_check_private_key(ssl) != 1)
        return fail(ssl, err, "the key does not fit the certificate", certificate);
    h2o_ssl_register_alpn_protocols(ssl, protocols);
    return ssl;
}
