/* SPDX-License-Identifier: Apache-2.0 */
/* admin/admin.h on libmicrohttpd: sockets, paths, the token, and bounds on what a client may hold.
 *
 * One thread a connection, one request a connection ("Connection: close"), so a connection's age is
 * its request's age. libmicrohttpd only knows a timeout of silence, which a client that trickles
 * bytes never meets; so connections that are too old are shut down when room is wanted. */
#include "admin/admin.h"

#include "admin/api.h"
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
    CONNECTIONS_MAX = 256,
    CONNECTION_SLOTS = CONNECTIONS_MAX + 64, /* those being closed still hold one */
    CONNECTION_AGE_MAX_US = 5 * 1000000,
    SILENCE_MAX_S = 5,
    CONNECTION_MEMORY_BYTES = 16 * 1024, /* bounds a request's head */
    BODY_BYTES_MAX = 1024 * 1024,
    ARGUMENTS_MAX = 32,
};

struct connection_slot {
    int fd;           /* -1 = free */
    int64_t since_us; /* INT64_MAX while its request is being answered */
};

/* The body of a request below /v1, as it comes in. */
struct upload {
    char *bytes; /* a NUL follows them */
    size_t len;
    bool too_large;
};

struct admin {
    const struct config *config;
    const struct metrics *metrics;
    struct admin_hooks hooks;
    struct tables *tables; /* NULL = no database configured */
    struct api *api;       /* likewise */
    struct MHD_Daemon *daemon;
    uint16_t port;
    pthread_mutex_t state_mutex; /* one get_state() at a time */
    pthread_mutex_t slots_mutex;
    struct connection_slot slots[CONNECTION_SLOTS];
};

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
    /* No full stop: the problem may end with SQL, to be copied. */
    return reply_problem(MHD_HTTP_SERVICE_UNAVAILABLE, NULL, "Events cannot be taken now: %s%s%s",
                         state.not_ready ? state.not_ready : "not started",
                         state.lanes.problem[0] ? ": " : "", state.lanes.problem);
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

static bool is_below_v1(const char *path)
{
    return strcmp(path, "/v1") == 0 || strncmp(path, "/v1/", 4) == 0;
}

static bool is_get(const char *method)
{
    return strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
}

static struct reply answer(struct admin *admin, const char *path, const char *method)
{
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (strcmp(path, routes[i].path) != 0)
            continue;
        if (is_get(method))
            return routes[i].answer(admin);
        struct reply reply =
            reply_problem(MHD_HTTP_METHOD_NOT_ALLOWED, NULL, "Only GET and HEAD are known here.");
        snprintf(reply.allow, sizeof(reply.allow), "GET, HEAD");
        return reply;
    }
    return reply_problem(MHD_HTTP_NOT_FOUND, NULL, "There is nothing at this path.");
}

struct arguments {
    struct route_argument items[ARGUMENTS_MAX];
    size_t count;
};

static enum MHD_Result take_argument(void *context, enum MHD_ValueKind kind, const char *name,
                                     size_t name_len, const char *value, size_t value_len)
{
    struct arguments *arguments = context;
    (void)kind;
    (void)name_len;
    if (arguments->count == ARGUMENTS_MAX)
        return MHD_NO;
    arguments->items[arguments->count++] =
        (struct route_argument){name, {value, value ? value_len : 0}};
    return MHD_YES;
}

/* The token was right. While this takes its time, nothing counts the connection as too old. */
static struct reply answer_v1(struct admin *admin, struct MHD_Connection *connection,
                              const char *path, const char *method, const struct upload *upload)
{
    struct arguments arguments = {.count = 0};
    if (upload && upload->too_large)
        return reply_problem(413, NULL, "A body is at most %d bytes.", (int)BODY_BYTES_MAX);
    if (strcmp(path, "/v1") == 0 && is_get(method))
        return reply_json(MHD_HTTP_OK, "application/json", route_list());
    if (!admin->api)
        return reply_problem(MHD_HTTP_NOT_FOUND, NULL, "No database is configured.");
    MHD_get_connection_values_n(connection, MHD_GET_ARGUMENT_KIND, take_argument, &arguments);
    if (arguments.count == ARGUMENTS_MAX)
        return reply_problem(400, NULL, "At most %d parameters.", (int)ARGUMENTS_MAX - 1);
    const struct route_request request = {
        .method = method,
        .path = path,
        .arguments = arguments.items,
        .argument_count = arguments.count,
        .body = upload ? (struct oh_slice){upload->bytes, upload->len} : (struct oh_slice){0},
        .fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd,
    };
    return api_answer(admin->api, &request);
}

/* Sets since when the connection's slot counts, and its timeout of silence (0 = none). */
static void set_patience(struct admin *admin, struct MHD_Connection *connection, int64_t since_us,
                         unsigned silence_s)
{
    struct connection_slot *slot =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, silence_s);
    pthread_mutex_lock(&admin->slots_mutex);
    if (slot)
        slot->since_us = since_us;
    pthread_mutex_unlock(&admin->slots_mutex);
}

static enum MHD_Result send_reply(struct MHD_Connection *connection, const struct reply *reply)
{
    char seconds[16];
    if (!reply->body)
        return MHD_NO; /* no memory: the connection is closed */
    struct MHD_Response *response =
        MHD_create_response_from_buffer(reply->len, reply->body, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(reply->body);
        return MHD_NO;
    }
    snprintf(seconds, sizeof(seconds), "%u", reply->retry_after_s);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, reply->content_type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    if (reply->status == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    if (reply->allow[0])
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, reply->allow);
    if (reply->retry_after_s)
        MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, seconds);
    if (reply->cursor[0])
        MHD_add_response_header(response, "Oncehook-Cursor", reply->cursor);
    enum MHD_Result result = MHD_queue_response(connection, reply->status, response);
    MHD_destroy_response(response);
    return result;
}

/* Keeps a piece of the body. */
static void take_upload(struct upload *upload, const char *bytes, size_t len)
{
    if (upload->too_large || upload->len + len > BODY_BYTES_MAX) {
        upload->too_large = true;
        return;
    }
    char *longer = realloc(upload->bytes, upload->len + len + 1);
    upload->too_large = !longer;
    if (!longer)
        return;
    memcpy(longer + upload->len, bytes, len);
    upload->bytes = longer;
    upload->len += len;
    longer[upload->len] = '\0';
}

/* Called when the head is read, for each piece of a body, and at its end. What takes no body, or
 * may not come in, is answered at the first call. */
static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *bytes,
                                  size_t *byte_count, void **request)
{
    (void)version;
    struct admin *admin = context;
    struct upload *upload = *request;
    if (upload && *byte_count) {
        take_upload(upload, bytes, *byte_count);
        *byte_count = 0;
        return MHD_YES;
    }
    struct reply reply;
    if (!is_below_v1(url)) {
        reply = answer(admin, url, method);
    } else if (!token_is_right(&admin->config->admin.token,
                               MHD_lookup_connection_value(connection, MHD_HEADER_KIND,
                                                           MHD_HTTP_HEADER_AUTHORIZATION))) {
        reply = reply_problem(MHD_HTTP_UNAUTHORIZED, NULL,
                              "This path needs Authorization: Bearer TOKEN.");
    } else if (!upload && route_takes_body(method, url)) {
        *request = calloc(1, sizeof(*upload));
        return *request ? MHD_YES : MHD_NO;
    } else {
        set_patience(admin, connection, INT64_MAX, 0);
        reply = answer_v1(admin, connection, url, method, upload);
        set_patience(admin, connection, clock_mono_us(), SILENCE_MAX_S);
    }
    return send_reply(connection, &reply);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **request,
                         enum MHD_RequestTerminationCode why)
{
    struct upload *upload = *request;
    (void)context;
    (void)connection;
    (void)why;
    if (upload)
        free(upload->bytes);
    free(upload);
    *request = NULL;
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
    if (config->database.url &&
        (!(admin->tables = tables_new(config)) || !(admin->api = api_new(config)))) {
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
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, admin, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, NULL, MHD_OPTION_END);
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
    if (admin->api)
        api_stop(admin->api);
    if (admin->daemon)
        MHD_stop_daemon(admin->daemon);
    api_free(admin->api);
    tables_free(admin->tables);
    pthread_mutex_destroy(&admin->state_mutex);
    pthread_mutex_destroy(&admin->slots_mutex);
    free(admin);
}
