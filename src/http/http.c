/* SPDX-License-Identifier: Apache-2.0 */
/* The http threads: listeners, connections, the event loop, drain. The tick stands in run_thread():
 *   h2o reads, parses, calls http_on_request  ->  what the lanes decided is answered  ->  what is
 * past its deadline is answered 503. */
#include "http/room.h"

#include "base/clock.h"
#include "base/thread.h"
#include "log/log.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BACKLOG = 1024,
    ACCEPTS_A_WAKEUP = 64, /* so that one loop does not take all of a burst */
    TICK_MS = 20,          /* precision of deadlines while something waits */
    IDLE_TICK_MS = 200,
    NO_DESCRIPTOR_PAUSE_MS = 100, /* each try costs a turn that finds nothing */
    KEEPALIVE_IDLE_S = 60,
    USER_TIMEOUT_MS =
        30000, /* unacknowledged data this old ends a connection: h2o has no write timeout */
    RECEIVE_BUFFER_BYTES = 64 * 1024, /* the kernel doubles it. What one read can bring */
    LAST_BYTES_MS = 100, /* how long answers may take to leave after the last one is written */
    CLOSE_MS = 1000,     /* how long connections may take to close at the end */
};

/* ---- connections ----------------------------------------------------------------------------- */

static void on_connection_closed(void *data)
{
    struct http_connection *connection = data;
    struct http_thread *thread = connection->thread;
    list_remove(&connection->link);
    thread->connection_count--;
    atomic_store_explicit(&thread->open_connections, thread->connection_count,
                          memory_order_relaxed);
    if (connection->is_counted)
        peers_leave(thread->http->peers, &connection->peer);
    free(connection);
}

/* A trusted proxy carries many clients: connections_per_ip is not for it. */
static bool count_peer(struct http *http, struct http_connection *connection)
{
    if (!http->peers || !peers_address(connection->socket, &connection->peer) ||
        config_networks_contain(&http->config->listen.trusted_proxies, &connection->peer))
        return true;
    connection->is_counted = peers_enter(http->peers, &connection->peer);
    return connection->is_counted;
}

static void take_connection(struct http_listener *listener, h2o_socket_t *socket)
{
    struct http_thread *thread = listener->thread;
    struct http_connection *connection = calloc(1, sizeof(*connection));
    if (connection)
        *connection = (struct http_connection){.thread = thread, .socket = socket};
    if (!connection || !count_peer(thread->http, connection)) {
        free(connection);
        h2o_socket_close(socket);
        return;
    }
    list_push_tail(&thread->connections, &connection->link);
    thread->connection_count++;
    atomic_store_explicit(&thread->open_connections, thread->connection_count,
                          memory_order_relaxed);
    socket->on_close.cb = on_connection_closed;
    socket->on_close.data = connection;
    h2o_accept(&listener->accept, socket);
}

static void pause_listener(struct http_listener *listener, int64_t ms)
{
    h2o_socket_read_stop(listener->socket);
    listener->is_paused = true;
    listener->resume_mono_us = clock_mono_us() + ms * 1000;
}

static void on_accept(h2o_socket_t *socket, const char *err)
{
    struct http_listener *listener = socket->data;
    if (err)
        return;
    for (int i = 0; i < ACCEPTS_A_WAKEUP; i++) {
        if (listener->thread->connection_count >= listener->thread->connection_max) {
            pause_listener(listener, 0);
            return;
        }
        h2o_socket_t *accepted = h2o_evloop_socket_accept(listener->socket);
        if (!accepted) {
            /* Out of descriptors: the level-triggered loop would spin on the backlog. */
            if (errno == EMFILE || errno == ENFILE)
                pause_listener(listener, NO_DESCRIPTOR_PAUSE_MS);
            return;
        }
        take_connection(listener, accepted);
    }
}

static void resume_listeners(struct http_thread *thread)
{
    for (int i = 0; i < HTTP_LISTENERS_MAX; i++) {
        struct http_listener *listener = &thread->listeners[i];
        if (listener->socket && listener->is_paused &&
            thread->connection_count < thread->connection_max &&
            clock_mono_us() >= listener->resume_mono_us) {
            listener->is_paused = false;
            h2o_socket_read_start(listener->socket, on_accept);
        }
    }
}

/* ---- a thread -------------------------------------------------------------------------------- */

static void on_message(h2o_multithread_receiver_t *receiver, h2o_linklist_t *messages)
{
    /* There is one message a thread, and it is sent again only after `is_told` is cleared. */
    if (!h2o_linklist_is_empty(messages))
        h2o_linklist_unlink(messages->next);
    struct http_thread *thread = LIST_ENTRY(receiver, struct http_thread, receiver);
    /* First: what is put there from now on brings the message again. */
    atomic_store(&thread->is_told, false);
    http_take_returned(thread);
}

static void close_listeners(struct http_thread *thread)
{
    for (int i = 0; i < HTTP_LISTENERS_MAX; i++) {
        struct http_listener *listener = &thread->listeners[i];
        if (listener->socket)
            h2o_socket_close(listener->socket);
        listener->socket = NULL;
    }
}

/* h2o closes a connection of its own when it reads an end of file. */
static void shut_connections(struct http_thread *thread)
{
    for (struct list *node = thread->connections.next; node != &thread->connections;
         node = node->next)
        shutdown(h2o_socket_get_fd(LIST_ENTRY(node, struct http_connection, link)->socket),
                 SHUT_RDWR);
}

/* Each thread polls a dup of one listening socket: with a socket a thread, closing one would reset
 * what is in its backlog. */
static bool open_listener(struct http_thread *thread, int number)
{
    struct http *http = thread->http;
    struct http_listener *listener = &thread->listeners[number];
    if (http->listen_fds[number] < 0)
        return true;
    int fd = fcntl(http->listen_fds[number], F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return false;
    listener->thread = thread;
    listener->accept.ctx = &thread->context;
    listener->accept.hosts = http->hosts;
    listener->accept.ssl_ctx = number == 0 ? http->ssl : NULL;
    listener->socket =
        h2o_evloop_socket_create(thread->context.loop, fd, H2O_SOCKET_FLAG_DONT_READ);
    listener->socket->data = listener;
    h2o_socket_read_start(listener->socket, on_accept);
    return true;
}

/* On the thread itself: libh2o's buffers belong to the thread that made their socket, whose free
 * lists are thread-local. Made elsewhere, two threads would share one list. */
static bool open_loop(struct http_thread *thread)
{
    h2o_context_init(&thread->context, h2o_evloop_create(), &thread->http->globalconf);
    h2o_multithread_register_receiver(thread->context.queue, &thread->receiver, on_message);
    for (int i = 0; i < HTTP_LISTENERS_MAX; i++)
        if (!open_listener(thread, i))
            return false;
    return true;
}

static _Noreturn void *run_thread(void *argument)
{
    struct http_thread *thread = argument;
    struct http *http = thread->http;
    thread_set_name("http", thread - http->threads);
    int phase = HTTP_SERVING;
    int64_t close_deadline_us = 0;

    bool is_open = open_loop(thread);
    atomic_store(&thread->start, is_open ? HTTP_STARTED : HTTP_START_FAILED);
    bool has_closed = false, has_answered = false;
    while (is_open) {
        bool waits = atomic_load_explicit(&thread->unanswered, memory_order_relaxed) > 0;
        /* -1 means interrupted or worse; the next turn tells. */
        int32_t wait_ms = waits || phase != HTTP_SERVING ? TICK_MS : IDLE_TICK_MS;
        (void)h2o_evloop_run(thread->context.loop, has_closed || has_answered ? 0 : wait_ms);
        uint32_t unanswered = atomic_load_explicit(&thread->unanswered, memory_order_relaxed);
        http_take_returned(thread); /* the message may be far behind in what the loop has to read */
        refusal_answer_due(thread, phase != HTTP_SERVING);
        has_closed = memory_look(thread);
        thread->keys = vault_get(http->vault, thread->keys); /* what was replaced can be freed */
        http_answer_expired(thread);
        lesson_answer_all(thread);
        /* In its next turn libh2o closes those, or reads what stands behind them. */
        has_answered = atomic_load_explicit(&thread->unanswered, memory_order_relaxed) < unanswered;
        if (phase == HTTP_SERVING)
            resume_listeners(thread);
        int wanted = atomic_load(&http->phase);
        if (wanted >= HTTP_DRAINING && phase == HTTP_SERVING) {
            close_listeners(thread);
            h2o_context_request_shutdown(
                &thread->context); /* later answers say Connection: close */
            phase = HTTP_DRAINING;
        }
        if (wanted == HTTP_STOPPING && phase == HTTP_DRAINING) {
            shut_connections(thread);
            close_deadline_us = clock_mono_us() + CLOSE_MS * 1000;
            phase = HTTP_STOPPING;
        }
        if (phase == HTTP_STOPPING &&
            (thread->connection_count == 0 || clock_mono_us() > close_deadline_us))
            break;
    }
    if (thread->keys)
        vault_leave(http->vault, thread->keys);
    /* libh2o keeps free lists in thread-local storage that nobody can free: the thread waits for
     * the end of the process, so that they do not look lost. */
    atomic_store(&thread->is_parked, true);
    for (;;)
        pause();
}

/* ---- listening ------------------------------------------------------------------------------- */

/* The options that accepted connections inherit on Linux. */
static int bind_address(const struct config_address *address, uint16_t *port, struct oh_error *err)
{
    int fd = config_listen(address, BACKLOG, port, err);
    if (fd >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &(int){1}, sizeof(int));
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &(int){KEEPALIVE_IDLE_S}, sizeof(int));
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){RECEIVE_BUFFER_BYTES}, sizeof(int));
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &(int){USER_TIMEOUT_MS}, sizeof(int));
    }
    return fd;
}

/* ---- life ------------------------------------------------------------------------------------ */

static void init_globalconf(struct http *http)
{
    const struct config *config = http->config;
    h2o_config_init(&http->globalconf);
    http->globalconf.server_name =
        h2o_iovec_init(NULL, 0); /* no version of any server in answers */
    http->globalconf.max_request_entity_size = config->limits.body_bytes;
    /* One timer from the end of the last answer to the last byte of the next body. */
    http->globalconf.http1.req_timeout = (uint64_t)config->limits.request_timeout_ms;
    if (http->globalconf.handshake_timeout > (uint64_t)config->limits.request_timeout_ms)
        http->globalconf.handshake_timeout = (uint64_t)config->limits.request_timeout_ms;
    http->globalconf.http1.upgrade_to_http2 = 0; /* see tls.c */
    h2o_hostconf_t *host =
        h2o_config_register_host(&http->globalconf, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    h2o_pathconf_t *path = h2o_config_register_path(host, "/", 0);
    h2o_handler_t *handler = h2o_create_handler(path, sizeof(*handler));
    handler->on_req = http_on_request;
    http->hosts[0] = host;
}

static bool init_deadlines(struct http_thread *thread, const struct config *config)
{
    thread->deadlines = calloc(config->source_count + 1, sizeof(*thread->deadlines));
    if (!thread->deadlines)
        return false;
    for (size_t i = 0; i < config->source_count; i++) {
        size_t k = 0;
        while (k < thread->deadline_count &&
               thread->deadlines[k].ms != config->sources[i].ack_deadline_ms)
            k++;
        if (k < thread->deadline_count)
            continue;
        thread->deadlines[k].ms = config->sources[i].ack_deadline_ms;
        thread->deadline_count++;
    }
    for (size_t k = 0; k < config->source_count + 1; k++) /* in place: a list knows its address */
        list_init(&thread->deadlines[k].waiting);
    return true;
}

static bool init_thread(struct http *http, uint32_t number, struct metrics_shard *shard)
{
    struct http_thread *thread = &http->threads[number];
    thread->http = http;
    thread->number = number;
    thread->shard = shard;
    thread->connection_max = http->config->limits.connections / http->thread_count;
    if (thread->connection_max == 0)
        thread->connection_max = 1;
    thread->memory_max = http->config->limits.memory_bytes / http->thread_count;
    list_init(&thread->connections);
    list_init(&thread->lessons);
    for (int i = 0; i < HTTP_HOLDS; i++)
        list_init(&thread->refusals[i]);
    return init_deadlines(thread, http->config);
}

static enum oh_status bind_listeners(struct http *http, struct oh_error *err)
{
    const struct config *config = http->config;
    const struct config_address *addresses[HTTP_LISTENERS_MAX] = {&config->listen.https,
                                                                  &config->listen.http};
    for (int i = 0; i < HTTP_LISTENERS_MAX; i++) {
        if (!addresses[i]->host)
            continue;
        http->listen_fds[i] = bind_address(addresses[i], &http->ports[i], err);
        if (http->listen_fds[i] < 0)
            return OH_SYSTEM;
    }
    if (config->listen.https.host) {
        http->ssl = tls_new_context(config->listen.certificate, config->listen.key, err);
        if (!http->ssl)
            return OH_INVALID;
    }
    return OH_OK;
}

static enum oh_status init_shared(struct http *http, struct oh_error *err)
{
    const struct config *config = http->config;
    http->admission = admission_new(config);
    http->buckets = calloc(config->source_count + 1, sizeof(*http->buckets));
    http->threads = calloc(http->thread_count, sizeof(*http->threads));
    if (config->limits.connections_per_ip)
        http->peers = peers_new(config->limits.connections, config->limits.connections_per_ip);
    if (!http->admission || !http->buckets || !http->threads ||
        (config->limits.connections_per_ip && !http->peers))
        return oh_fail(err, OH_NO_MEMORY, "no memory for the http threads");
    for (size_t i = 0; i < config->source_count; i++) {
        pthread_mutex_init(&http->buckets[i].mutex, NULL);
        http->buckets[i].tokens = config->sources[i].rate_burst;
        http->buckets[i].filled_mono_us = clock_mono_us();
    }
    return OH_OK;
}

static void sleep_ms(int64_t ms)
{
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000};
    nanosleep(&pause, NULL);
}

enum oh_status http_start(const struct config *config, struct vault *vault, struct metrics *metrics,
                          uint32_t first_shard, const struct http_hooks *hooks, struct http **out,
                          struct oh_error *err)
{
    struct http *http = calloc(1, sizeof(*http));
    if (!http)
        return oh_fail(err, OH_NO_MEMORY, "no memory for the http room");
    http->config = config;
    http->vault = vault;
    http->hooks = *hooks;
    http->thread_count = (uint32_t)config->threads;
    http->listen_fds[0] = http->listen_fds[1] = -1;
    enum oh_status status = init_shared(http, err);
    if (status == OH_OK)
        status = bind_listeners(http, err);
    if (status != OH_OK)
        return status; /* NOLINT(clang-analyzer-unix.Malloc): the process ends with this */
    init_globalconf(http);
    memory_init();
    for (uint32_t i = 0; i < http->thread_count; i++)
        if (!init_thread(http, i, metrics_shard_at(metrics, first_shard + i)))
            return oh_fail(err, OH_SYSTEM, "http thread %u: %s", i, strerror(errno));
    *out = http; /* before the first request can come back through http_on_decided() */
    for (uint32_t i = 0; i < http->thread_count; i++) {
        struct http_thread *thread = &http->threads[i];
        if (pthread_create(&thread->thread, NULL, run_thread, thread) != 0)
            return oh_fail(err, OH_SYSTEM, "http thread %u could not be started", i);
    }
    for (uint32_t i = 0; i < http->thread_count; i++) {
        while (atomic_load(&http->threads[i].start) == HTTP_STARTING)
            sleep_ms(1);
        if (atomic_load(&http->threads[i].start) == HTTP_START_FAILED)
            return oh_fail(err, OH_SYSTEM, "http thread %u has no descriptor to listen on", i);
    }
    return OH_OK;
}

uint16_t http_port_of_https(const struct http *http)
{
    return http->ports[0];
}

uint16_t http_port_of_http(const struct http *http)
{
    return http->ports[1];
}

uint64_t http_connections(const struct http *http)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < http->thread_count; i++)
        sum += atomic_load_explicit(&http->threads[i].open_connections, memory_order_relaxed);
    return sum;
}

uint64_t http_memory_bytes(const struct http *http)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < http->thread_count; i++)
        sum += atomic_load_explicit(&http->threads[i].memory_held, memory_order_relaxed);
    return sum;
}

uint64_t http_queued_events(const struct http *http)
{
    return admission_events(http->admission);
}

static uint32_t count_waiting(const struct http *http)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < http->thread_count; i++)
        sum += atomic_load(&http->threads[i].unanswered);
    return sum;
}

void http_drain(struct http *http, int64_t deadline_mono_us)
{
    for (int i = 0; i < HTTP_LISTENERS_MAX; i++)
        if (http->listen_fds[i] >= 0)
            close(http->listen_fds[i]);
    atomic_store(&http->phase, HTTP_DRAINING);
    sleep_ms(LAST_BYTES_MS); /* what has arrived is read */
    while (count_waiting(http) > 0 && clock_mono_us() < deadline_mono_us)
        sleep_ms(TICK_MS);
    sleep_ms(LAST_BYTES_MS);
}

void http_stop(struct http *http)
{
    atomic_store(&http->phase, HTTP_STOPPING);
    for (uint32_t i = 0; i < http->thread_count; i++)
        while (!atomic_load(&http->threads[i].is_parked))
            sleep_ms(1);
    /* Event loops of 2.2 cannot be destroyed (h2o issue 1609); the process ends next, and the
     * caller keeps `http` reachable. */
}
