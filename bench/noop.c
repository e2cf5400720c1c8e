/* SPDX-License-Identifier: Apache-2.0 */
/* bench/noop: libh2o doing nothing. The same listeners and threads as the gateway, and to every
 * POST an answer of the gateway's size: what HTTP and TLS cost on this machine before any work is
 * done.
 *
 *   noop --http ADDRESS:PORT --https ADDRESS:PORT --certificate FILE --key FILE [--threads N]
 *
 * Port 0 = any free; the ports stand on stdout, then "ready". Ends at SIGTERM or SIGINT. */
#include "number.h"

#include <errno.h>
#include <h2o.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { ACCEPT_MAX = 16, BACKLOG = 4096, BODY_MAX = 1048576, THREADS_MAX = 64, LISTENERS_MAX = 2 };

struct listener {
    int fd;
    SSL_CTX *tls; /* NULL = plain */
};

static struct listener listeners[LISTENERS_MAX];
static size_t listener_count;
static h2o_globalconf_t h2o_config;

struct server_thread {
    pthread_t thread;
    h2o_context_t context;
    h2o_accept_ctx_t accept[LISTENERS_MAX];
};

/* ---- the answer ----------------------------------------------------------------------------- */

static int on_request(h2o_handler_t *handler, h2o_req_t *request)
{
    static const char answer[] =
        "{\"captured\":1,\"duplicates\":0,\"orphans\":0,\"quarantined\":0,\"spooled\":0}";
    (void)handler;
    if (!h2o_memis(request->method.base, request->method.len, H2O_STRLIT("POST")))
        return -1;
    request->res.status = 200;
    request->res.reason = "OK";
    request->res.content_length = sizeof(answer) - 1; /* else it would be chunked */
    h2o_add_header(&request->pool, &request->res.headers, H2O_TOKEN_CONTENT_TYPE, NULL,
                   H2O_STRLIT("application/json"));
    h2o_send_inline(request, answer, sizeof(answer) - 1);
    return 0;
}

static void configure(void)
{
    h2o_config_init(&h2o_config);
    h2o_config.max_request_entity_size = BODY_MAX;
    h2o_config.http1.req_timeout = 75000;
    h2o_config.http1.upgrade_to_http2 = 0;
    h2o_config.server_name = h2o_iovec_init(H2O_STRLIT(""));
    h2o_hostconf_t *host =
        h2o_config_register_host(&h2o_config, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    h2o_pathconf_t *path = h2o_config_register_path(host, "/", 0);
    h2o_handler_t *handler = h2o_create_handler(path, sizeof(*handler));
    handler->on_req = on_request;
}

/* ---- threads -------------------------------------------------------------------------------- */

static void on_accept(h2o_socket_t *listening, const char *error)
{
    h2o_accept_ctx_t *accept = listening->data;
    if (error)
        return;
    for (int i = 0; i < ACCEPT_MAX; i++) {
        h2o_socket_t *socket = h2o_evloop_socket_accept(listening);
        if (!socket)
            return;
        h2o_accept(accept, socket);
    }
}

static void *serve(void *context)
{
    struct server_thread *thread = context;
    h2o_evloop_t *loop = h2o_evloop_create();
    h2o_context_init(&thread->context, loop, &h2o_config);
    for (size_t i = 0; i < listener_count; i++) {
        int fd = dup(listeners[i].fd);
        if (fd < 0) {
            perror("noop: dup");
            exit(1);
        }
        thread->accept[i] = (h2o_accept_ctx_t){
            .ctx = &thread->context, .hosts = h2o_config.hosts, .ssl_ctx = listeners[i].tls};
        h2o_socket_t *socket = h2o_evloop_socket_create(loop, fd, H2O_SOCKET_FLAG_DONT_READ);
        socket->data = &thread->accept[i];
        h2o_socket_read_start(socket, on_accept);
    }
    for (;;)
        h2o_evloop_run(loop, INT32_MAX);
    return NULL;
}

/* ---- listeners ------------------------------------------------------------------------------ */

static bool tls_load(SSL_CTX **out, const char *certificate, const char *key)
{
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    if (!tls || !certificate || !key || SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION) != 1 ||
        SSL_CTX_use_certificate_chain_file(tls, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1) {
        SSL_CTX_free(tls);
        return false;
    }
    h2o_iovec_t protocols[] = {h2o_iovec_init(H2O_STRLIT("http/1.1")), {NULL, 0}};
    h2o_ssl_register_alpn_protocols(tls, protocols);
    *out = tls;
    return true;
}

/* Binds "127.0.0.1:PORT"; says the port on stdout. */
static bool listen_on(const char *name, const char *address, SSL_CTX *tls)
{
    char host[64];
    unsigned port;
    const int on = 1;
    struct sockaddr_in bound = {.sin_family = AF_INET};
    socklen_t size = sizeof(bound);
    if (sscanf(address, "%63[0-9.]:%u", host, &port) != 2 || port > 65535 ||
        inet_pton(AF_INET, host, &bound.sin_addr) != 1)
        return false;
    bound.sin_port = htons((uint16_t)port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        bind(fd, (struct sockaddr *)&bound, size) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &size) != 0)
        return false;
    listeners[listener_count++] = (struct listener){fd, tls};
    printf("%s %u\n", name, ntohs(bound.sin_port));
    return true;
}

/* ---- start ---------------------------------------------------------------------------------- */

struct options {
    const char *http, *https, *certificate, *key;
    int threads;
};

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'h':
        options->http = text;
        break;
    case 's':
        options->https = text;
        break;
    case 'c':
        options->certificate = text;
        break;
    case 'k':
        options->key = text;
        break;
    case 't':
        options->threads = (int)count_or_usage(state, "threads", text, 1, THREADS_MAX);
        break;
    case ARGP_KEY_END:
        if (!options->http && !options->https)
            argp_error(state, "--http or --https is needed");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static bool start_threads(int count)
{
    for (int i = 0; i < count; i++) {
        struct server_thread *thread = calloc(1, sizeof(*thread));
        if (!thread || pthread_create(&thread->thread, NULL, serve, thread) != 0)
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    static const struct argp_option rows[] = {
        {"http", 'h', "ADDRESS:PORT", 0, "plain listener", 0},
        {"https", 's', "ADDRESS:PORT", 0, "TLS listener", 0},
        {"certificate", 'c', "FILE", 0, "PEM certificate chain", 0},
        {"key", 'k', "FILE", 0, "PEM private key", 0},
        {"threads", 't', "N", 0, "event loops (default: one per core)", 0},
        {0},
    };
    static const struct argp argp = {
        .options = rows, .parser = parse_option, .doc = "libh2o doing nothing."};
    struct options options = {.threads = (int)sysconf(_SC_NPROCESSORS_ONLN)};
    SSL_CTX *tls = NULL;
    sigset_t ends;
    int which;
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    pthread_sigmask(SIG_BLOCK, &ends, NULL); /* inherited by the threads; the main thread waits */
    configure();
    if (options.https && !tls_load(&tls, options.certificate, options.key)) {
        fprintf(stderr, "noop: --https needs a readable --certificate and --key\n");
        return 2;
    }
    if ((options.http && !listen_on("http", options.http, NULL)) ||
        (options.https && !listen_on("https", options.https, tls)) ||
        !start_threads(options.threads)) {
        fprintf(stderr, "noop: cannot listen: %s\n", strerror(errno));
        return 2;
    }
    printf("ready\n");
    fflush(stdout);
    sigwait(&ends, &which);
    /* The loops have no end of their own; nothing is in them that needs one. */
    _exit(0);
}
