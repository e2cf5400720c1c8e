/* SPDX-License-Identifier: Apache-2.0 */
/* admin/admin.h on libmicrohttpd: sockets, routes, the token, and bounds on what a client may hold.
 *
 * One thread a connection, one request a connection ("Connection: close"), so a connection's age is
 * its request's age. libmicrohttpd only knows a timeout of silence, which a client that trickles
 * bytes never meets; so connections that are too old are shut down when room is wanted. */
#include "admin/admin.h"

#include "admin/health.h"
#include "admin/tables.h"
#include "base/clock.h"
#include "log/log.h"

#include <errno.h>
#include <microhttpd.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 64,
    CONNECTION_SLOTS = CONNECTIONS_MAX + 16, /* those being closed still hold one */
    CONNECTION_AGE_MAX_US = 5 * 1000000,
    SILENCE_MAX_S = 5,
    CONNECTION_MEMORY_BYTES = 16 * 1024, /* bounds a request's head */
};

struct connection_slot {
    int fd; /* -1 = free */
    int64_t since_us;
};

struct admin {
    const struct config *config;
    const struct metrics *metrics;
    struct admin_hooks hooks;
    struct tables *tables; /* NULL = no database configured */
    struct MHD_Daemon *daemon;
    uint16_t port;
    pthread_mutex_t state_mutex; /* one get_state() at a time */
    pthread_mutex_t slots_mutex;
    struct connection_slot slots[CONNECTION_SLOTS];
};

/* What a route gives back; body is malloc'ed, NULL when memory is gone. */
struct reply {
    unsigned status;
    const char *content_type;
    char *body;
    size_t len;
};

/* ---- replies ---- */

static struct reply reply_json(unsigned status, const char *content_type, json_t *value)
{
    struct reply reply = {.status = status, .content_type = content_type};
    reply.body = value ? json_dumps(value, JSON_COMPACT) : NULL;
    reply.len = reply.body ? strlen(reply.body) : 0;
    json_decref(value);
    return reply;
}

/* An error as application/problem+json (RFC 9457). */
static struct reply reply_problem(unsigned status, const char *title, const char *detail)
{
    return reply_json(status, "application/problem+json",
                      json_pack("{s:s, s:s, s:i, s:s}", "type", "about:blank", "title", title,
                                "status", (int)status, "detail", detail));
}

static struct reply reply_not_found(void)
{
    return reply_problem(MHD_HTTP_NOT_FOUND, "Not Found", "There is nothing at this path.");
}

/* ---- routes ---- */

static void get_state(struct admin *admin, struct admin_state *state)
{
    memset(state, 0, sizeof(*state));
    pthread_mutex_lock(&admin->state_mutex);
    admin->hooks.get_state(admin->hooks.context, state);
    pthread_mutex_unlock(&admin->state_mutex);
}

static struct reply route_livez(struct admin *admin)
{
    (void)admin;
    return reply_json(MHD_HTTP_OK, "application/json", json_pack("{s:s}", "status", "alive"));
}

static struct reply route_readyz(struct admin *admin)
{
    struct admin_state state;
    get_state(admin, &state);
    if (state.ready)
        return reply_json(MHD_HTTP_OK, "application/json", json_pack("{s:s}", "status", "ready"));
    char detail[128];
    snprintf(detail, sizeof(detail), "Events cannot be taken now: %s.",
             state.not_ready ? state.not_ready : "not started");
    return reply_problem(MHD_HTTP_SERVICE_UNAVAILABLE, "Not ready", detail);
}

static struct reply route_health(struct admin *admin)
{
    struct admin_state state;
    get_state(admin, &state);
    return reply_json(MHD_HTTP_OK, "application/json", health_of_all(admin->config, &state));
}

static struct reply route_health_database(struct admin *admin)
{
    struct admin_state state;
    get_state(admin, &state);
    /* While lanes have no database nobody waits for a connection that they cannot get either. */
    json_t *tables = NULL;
    if (admin->tables && state.gauges.database_up)
        tables = tables_read(admin->tables);
    return reply_json(MHD_HTTP_OK, "application/json", health_of_database(&state, tables));
}

static struct reply route_metrics(struct admin *admin)
{
    struct admin_state state;
    get_state(admin, &state);
    struct reply reply = {.status = MHD_HTTP_OK,
                          .content_type = "text/plain; version=0.0.4; charset=utf-8"};
    reply.body = metrics_render(admin->metrics, &state.gauges, &reply.len);
    return reply;
}

static const struct {
    const char *path;
    struct reply (*answer)(struct admin *admin);
} routes[] = {
    {"/livez", route_livez},     {"/readyz", route_readyz},
    {"/health", route_health},   {"/health/database", route_health_database},
    {"/metrics", route_metrics},
};

/* ---- one request ---- */

/* True if `header` is "Bearer TOKEN" (RFC 6750). Digests are compared, so that neither the token's
 * bytes nor its length can be timed. */
static bool token_is_right(const struct secret *token, const char *header)
{
    static const char scheme[] = "Bearer ";
    if (!token->bytes.data || token->bytes.len == 0 || !header ||
        strncasecmp(header, scheme, sizeof(scheme) - 1) != 0)
        return false;
    const char *given = header + sizeof(scheme) - 1;
    unsigned char ours[SHA256_DIGEST_LENGTH], theirs[SHA256_DIGEST_LENGTH];
    SHA256((const unsigned char *)token->bytes.data, token->bytes.len, ours);
    SHA256((const unsigned char *)given, strlen(given), theirs);
    return CRYPTO_memcmp(ours, theirs, sizeof(ours)) == 0;
}

static struct reply answer(struct admin *admin, const char *path, const char *method,
                           const char *authorization)
{
    if (strcmp(path, "/v1") == 0 || strncmp(path, "/v1/", 4) == 0) {
        if (!token_is_right(&admin->config->admin.token, authorization))
            return reply_problem(MHD_HTTP_UNAUTHORIZED, "Unauthorized",
                                 "This path needs Authorization: Bearer TOKEN.");
        return reply_not_found();
    }
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (strcmp(path, routes[i].path) != 0)
            continue;
        if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
            return reply_problem(MHD_HTTP_METHOD_NOT_ALLOWED, "Method Not Allowed",
                                 "Only GET and HEAD are known here.");
        return routes[i].answer(admin);
    }
    return reply_not_found();
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_bytes, void **request)
{
    (void)version;
    (void)upload;
    (void)upload_bytes;
    (void)request;
    /* Answered at the first call, when the head is read: no route takes a body. */
    struct reply reply = answer(
        context, url, method,
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION));
    if (!reply.body)
        return MHD_NO; /* no memory: the connection is closed */
    struct MHD_Response *response =
        MHD_create_response_from_buffer(reply.len, reply.body, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(reply.body);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, reply.content_type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    if (reply.status == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    if (reply.status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    enum MHD_Result result = MHD_queue_response(connection, reply.status, response);
    MHD_destroy_response(response);
    return result;
}

/* ---- connections ---- */

/* Whether another connection may come in. At the bound, room is made by shutting down the ones that
 * are too old; they are gone a moment later, so this client is refused and may come again. */
static enum MHD_Result on_accept(void *context, const struct sockaddr *address, socklen_t len)
{
    (void)address;
    (void)len;
    struct admin *admin = context;
    int64_t now_us = clock_mono_us();
    int taken = 0;
    pthread_mutex_lock(&admin->slots_mutex);
    for (size_t i = 0; i < CONNECTION_SLOTS; i++)
        taken += admin->slots[i].fd >= 0;
    for (size_t i = 0; taken >= CONNECTIONS_MAX && i < CONNECTION_SLOTS; i++)
        if (admin->slots[i].fd >= 0 && now_us - admin->slots[i].since_us > CONNECTION_AGE_MAX_US)
            shutdown(admin->slots[i].fd, SHUT_RDWR);
    pthread_mutex_unlock(&admin->slots_mutex);
    if (taken < CONNECTIONS_MAX)
        return MHD_YES;
    LOG_RATE_LIMITED(LOG_WARNING, "admin", "too many connections", log_int("connections", taken));
    return MHD_NO;
}

/* libmicrohttpd tells of a connection's end before it closes the descriptor, so a descriptor in a
 * slot is never somebody else's. */
static void on_connection(void *context, struct MHD_Connection *connection, void **slot_of,
                          enum MHD_ConnectionNotificationCode what)
{
    struct admin *admin = context;
    pthread_mutex_lock(&admin->slots_mutex);
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        struct connection_slot *slot = *slot_of;
        if (slot)
            slot->fd = -1;
    } else {
        *slot_of = NULL;
        for (size_t i = 0; i < CONNECTION_SLOTS && !*slot_of; i++)
            if (admin->slots[i].fd < 0)
                *slot_of = &admin->slots[i];
        struct connection_slot *slot = *slot_of;
        if (slot) {
            slot->fd =
                MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
            slot->since_us = clock_mono_us();
        }
    }
    pthread_mutex_unlock(&admin->slots_mutex);
}

/* ---- life ---- */

enum oh_status admin_start(const struct config *config, const struct metrics *metrics,
                           const struct admin_hooks *hooks, struct admin **out,
                           struct oh_error *err)
{
    *out = NULL;
    if (!config->admin.listen.host)
        return OH_OK;
    enum oh_status status = OH_NO_MEMORY;
    int fd = -1;
    struct admin *admin = calloc(1, sizeof(*admin));
    if (!admin)
        return oh_fail(err, OH_NO_MEMORY, "no memory for the admin listener");
    admin->config = config;
    admin->metrics = metrics;
    admin->hooks = *hooks;
    pthread_mutex_init(&admin->state_mutex, NULL);
    pthread_mutex_init(&admin->slots_mutex, NULL);
    for (size_t i = 0; i < CONNECTION_SLOTS; i++)
        admin->slots[i].fd = -1;
    if (config->database.url && !(admin->tables = tables_new(config))) {
        oh_fail(err, OH_NO_MEMORY, "no memory for the admin listener");
        goto fail;
    }
    status = OH_SYSTEM;
    fd = config_listen(&config->admin.listen, CONNECTIONS_MAX, &admin->port, err);
    if (fd < 0)
        goto fail;
    admin->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL, 0,
        on_accept, admin, on_request, admin, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTION_SLOTS, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)SILENCE_MAX_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_MEMORY_BYTES, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, admin, MHD_OPTION_END);
    if (!admin->daemon) {
        oh_fail(err, OH_SYSTEM, "admin.listen: libmicrohttpd does not start: %s", strerror(errno));
        goto fail; /* fd: libmicrohttpd closes it on some of its failures, so it is left to exit()
                    */
    }
    *out = admin;
    return OH_OK;
fail:
    admin_stop(admin);
    return status;
}

uint16_t admin_port(const struct admin *admin)
{
    return admin ? admin->port : 0;
}

void admin_stop(struct admin *admin)
{
    if (!admin)
        return;
    if (admin->daemon)
        MHD_stop_daemon(admin->daemon);
    tables_free(admin->tables);
    pthread_mutex_destroy(&admin->state_mutex);
    pthread_mutex_destroy(&admin->slots_mutex);
    free(admin);
}
