/* SPDX-License-Identifier: Apache-2.0 */
/* The load-making client: connections move between three lists of their worker - idle (may send),
 * busy (connecting, writing, or waiting for an answer; oldest first) and resting (connect again
 * when the rest is over) - and one loop turns the clock and epoll into moves. */
#include "client.h"

#include "base/clock.h"
#include "base/list.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum {
    ANSWER_BYTES = 4096,        /* longest answer that is understood */
    EVENTS_MAX = 256,           /* epoll events a turn */
    CONNECTING_MAX = 64,        /* handshakes at a time and thread, kind to the server's backlog */
    REST_US = 50000,            /* after a failure, or an answer that asks to wait */
    TURN_MAX_US = 100000,       /* longest sleep of the loop */
    TURN_MIN_US = 100,          /* shortest sleep of the open loop: a finer clock costs more CPU */
    BACKLOG_GRACE_US = 5000000, /* open loop: how long late requests are still sent after the end */
    REPEAT_DISTANCE = 50000,    /* a duplicate repeats one of the last so many deliveries */
};

struct connection {
    struct list link;
    struct wire wire;
    enum { CONNECTION_CLOSED, CONNECTION_OPENING, CONNECTION_IDLE, CONNECTION_BUSY } state;
    bool loaded;        /* opening in order to send */
    bool watches_write; /* epoll waits for EPOLLOUT too */
    int64_t since_us;   /* busy since; resting until */
    int64_t due_us;     /* when its request should have been sent: latency counts from here */
    char *unsent;       /* the part of the request that the socket did not take yet */
    size_t unsent_len, unsent_at;
    size_t answer_len;
    char answer[ANSWER_BYTES + 1];
};

struct worker {
    struct client *client;
    pthread_t thread;
    bool running;
    uint32_t index;
    int epoll;
    struct maker *maker;
    struct connection *connections;
    uint32_t connection_count, opening;
    struct list idle, busy, resting;
    uint64_t next_delivery; /* own count: delivery number = next * threads + index */
    uint64_t next_due;      /* open loop: own count of the next request */
    uint64_t random;
    struct client_totals totals;
    struct histogram latencies;
    _Atomic uint64_t acknowledged, failed;
    _Atomic uint32_t ready; /* connections that stood at least once */
};

struct client {
    struct client_options options;
    struct worker *workers;
    _Atomic int64_t start_us; /* 0 = not yet; set last */
    int64_t from_us, until_us;
    _Atomic bool stop;
    pthread_mutex_t problem_lock;
    struct oh_error problem; /* the first one */
};

static void note_problem(struct client *client, const char *what, const char *why)
{
    pthread_mutex_lock(&client->problem_lock);
    if (client->problem.text[0] == '\0')
        (void)oh_fail(&client->problem, OH_SYSTEM, "%s: %s", what, why);
    pthread_mutex_unlock(&client->problem_lock);
}

/* ---- lists ---------------------------------------------------------------------------------- */

static void move_to(struct connection *connection, struct list *list, int64_t since_us)
{
    list_remove(&connection->link);
    list_push_tail(list, &connection->link);
    connection->since_us = since_us;
}

static struct connection *first_of(const struct list *list)
{
    return list_is_empty(list) ? NULL : LIST_ENTRY(list->next, struct connection, link);
}

/* ---- one connection ------------------------------------------------------------------------- */

static void connection_watch(struct worker *worker, struct connection *connection, int operation,
                             bool write)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | (write ? EPOLLOUT : 0),
                                .data.ptr = connection};
    if (operation == EPOLL_CTL_MOD && connection->watches_write == write)
        return;
    connection->watches_write = write;
    if (epoll_ctl(worker->epoll, operation, connection->wire.fd, &event) != 0)
        note_problem(worker->client, "epoll_ctl", strerror(errno));
}

static void connection_reset(struct worker *worker, struct connection *connection)
{
    if (connection->state == CONNECTION_OPENING)
        worker->opening--;
    wire_close(&connection->wire);
    free(connection->unsent);
    connection->unsent = NULL;
    connection->answer_len = 0;
    connection->loaded = false;
    connection->state = CONNECTION_CLOSED;
}

/* Its connection is over. A kept-alive one is made again after a rest, a fresh one when needed. */
static void connection_end(struct worker *worker, struct connection *connection, int64_t now_us)
{
    connection_reset(worker, connection);
    move_to(connection, &worker->resting, now_us + REST_US);
}

/* Whether a request that was due then, and answered now, is one to measure. */
static bool in_window(const struct client *client, int64_t due_us, int64_t now_us)
{
    int64_t at_us = client->options.rate > 0 ? due_us : now_us;
    return at_us >= client->from_us && at_us < client->until_us;
}

/* A request is lost: its outcome is not known. It still counts as having waited this long. */
static void request_lost(struct worker *worker, struct connection *connection, uint64_t *counter,
                         int64_t now_us)
{
    (*counter)++;
    atomic_fetch_add_explicit(&worker->failed, 1, memory_order_relaxed);
    if (in_window(worker->client, connection->due_us, now_us))
        histogram_record(&worker->latencies, now_us - connection->due_us);
    connection_end(worker, connection, now_us);
}

static void connection_failed(struct worker *worker, struct connection *connection, int64_t now_us)
{
    const char *why = wire_problem(&connection->wire);
    bool loaded = connection->loaded;
    switch (connection->state) {
    case CONNECTION_OPENING:
        note_problem(worker->client, "connect", why);
        if (loaded) {
            request_lost(worker, connection, &worker->totals.refused, now_us);
        } else {
            worker->totals.refused++;
            connection_end(worker, connection, now_us);
        }
        break;
    case CONNECTION_BUSY:
        note_problem(worker->client, "connection", why);
        request_lost(worker, connection, &worker->totals.broken, now_us);
        break;
    default: /* the server may end idle connections whenever it likes */
        connection_end(worker, connection, now_us);
    }
}

/* Writes what is left of the request. False: the connection failed and is dealt with. */
static bool connection_write(struct worker *worker, struct connection *connection,
                             struct oh_slice bytes, int64_t now_us)
{
    size_t at = 0, written = 0;
    enum wire_result result = WIRE_OK;
    while (at < bytes.len && result == WIRE_OK) {
        result = wire_write(&connection->wire, bytes.data + at, bytes.len - at, &written);
        at += written;
    }
    if (result == WIRE_FAILED || result == WIRE_CLOSED) {
        connection_failed(worker, connection, now_us);
        return false;
    }
    if (at == bytes.len) {
        free(connection->unsent);
        connection->unsent = NULL;
        worker->totals.sent++;
        connection_watch(worker, connection, EPOLL_CTL_MOD, false);
        return true;
    }
    if (!connection->unsent) {
        connection->unsent = malloc(bytes.len - at);
        if (!connection->unsent) {
            connection_failed(worker, connection, now_us);
            return false;
        }
        memcpy(connection->unsent, bytes.data + at, bytes.len - at);
        connection->unsent_len = bytes.len - at;
        connection->unsent_at = 0;
    } else {
        connection->unsent_at += at;
    }
    connection_watch(worker, connection, EPOLL_CTL_MOD, connection->wire.wants_write);
    return true;
}

static uint64_t next_random(struct worker *worker) /* xorshift64 */
{
    worker->random ^= worker->random << 13;
    worker->random ^= worker->random >> 7;
    worker->random ^= worker->random << 17;
    return worker->random;
}

/* The number of the delivery to send: a new one, or one of the last that this worker sent. */
static uint64_t choose_delivery(struct worker *worker)
{
    const struct client_options *options = &worker->client->options;
    uint64_t known = worker->next_delivery, own = known;
    bool repeat = options->duplicates > 0 && known > 0 &&
                  (double)(next_random(worker) >> 11) * 0x1p-53 < options->duplicates;
    if (repeat) {
        uint64_t reach = known < REPEAT_DISTANCE ? known : REPEAT_DISTANCE;
        own = known - 1 - next_random(worker) % reach;
    } else {
        worker->next_delivery++;
    }
    return own * options->threads + worker->index;
}

/* Sends a request on an open connection. */
static void connection_send(struct worker *worker, struct connection *connection, int64_t now_us)
{
    struct oh_slice request;
    struct oh_error err = {0};
    connection->loaded = false;
    connection->state = CONNECTION_BUSY;
    if (maker_make(worker->maker, choose_delivery(worker), clock_wall_us() / 1000, &request,
                   &err) != OH_OK) {
        note_problem(worker->client, "sign", err.text);
        atomic_store(&worker->client->stop, true);
        return;
    }
    (void)connection_write(worker, connection, request, now_us);
}

static void connection_opened(struct worker *worker, struct connection *connection, int64_t now_us)
{
    worker->opening--;
    worker->totals.connected++;
    atomic_fetch_add_explicit(&worker->ready, 1, memory_order_relaxed);
    connection_watch(worker, connection, EPOLL_CTL_MOD, false);
    if (connection->loaded) {
        connection_send(worker, connection, now_us);
        return;
    }
    connection->state = CONNECTION_IDLE;
    move_to(connection, &worker->idle, now_us);
}

static void connection_open(struct worker *worker, struct connection *connection, bool loaded,
                            int64_t now_us)
{
    const struct client_options *options = &worker->client->options;
    connection->state = CONNECTION_OPENING;
    connection->loaded = loaded;
    worker->opening++;
    move_to(connection, &worker->busy, now_us);
    enum wire_result result = wire_open(&connection->wire, (const void *)&options->address,
                                        options->address_len, options->tls, options->tls_name);
    if (result == WIRE_FAILED || result == WIRE_CLOSED) {
        connection_failed(worker, connection, now_us);
        return;
    }
    connection_watch(worker, connection, EPOLL_CTL_ADD,
                     result == WIRE_WAIT && connection->wire.wants_write);
    if (result == WIRE_OK)
        connection_opened(worker, connection, now_us);
}

/* Sends the request that is due at due_us, on a connection from the idle list. */
static void connection_start(struct worker *worker, struct connection *connection, int64_t due_us,
                             int64_t now_us)
{
    connection->due_us = due_us;
    if (connection->state == CONNECTION_CLOSED) {
        connection_open(worker, connection, true, now_us);
        return;
    }
    move_to(connection, &worker->busy, now_us);
    connection_send(worker, connection, now_us);
}

/* ---- answers -------------------------------------------------------------------------------- */

struct answer {
    int status;
    size_t head_len;
    bool closes;
};

/* The value of header `name` (lower case, with its colon), or NULL; lines end with CR LF. */
static const char *find_header(const char *head, const char *name)
{
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, strlen(name)) == 0)
            return line + strlen(name) + strspn(line + strlen(name), " \t");
    }
    return NULL;
}

/* The whole answer's length, or SIZE_MAX while it is not known. A chunked one ends with its empty
 * chunk, since nothing is pipelined. */
static size_t answer_bytes(const struct answer *answer, const char *text, size_t len,
                           const char *length, const char *encoding)
{
    static const char last_chunk[] = "\r\n0\r\n\r\n";
    const size_t last_len = sizeof(last_chunk) - 1;
    if (length)
        return answer->head_len + strtoul(length, NULL, 10);
    if (!encoding)
        return answer->head_len;
    bool ended = len >= answer->head_len + last_len &&
                 memcmp(text + len - last_len, last_chunk, last_len) == 0;
    return ended ? len : SIZE_MAX;
}

/* Reads a NUL-terminated answer. 1: complete, 0: more must come, -1: not understood. */
static int answer_parse(char *text, size_t len, struct answer *out)
{
    char *end = strstr(text, "\r\n\r\n");
    if (!end)
        return len == ANSWER_BYTES ? -1 : 0;
    if (strncmp(text, "HTTP/1.", 7) != 0 || len < 12)
        return -1;
    out->head_len = (size_t)(end - text) + 4;
    out->status = (int)strtol(text + 9, NULL, 10);
    char kept = end[2];
    end[2] = '\0'; /* headers must not be sought in the body */
    const char *length = find_header(text, "content-length:");
    const char *encoding = find_header(text, "transfer-encoding:");
    const char *connection = find_header(text, "connection:");
    out->closes = connection && strncasecmp(connection, "close", 5) == 0;
    end[2] = kept;
    size_t whole = answer_bytes(out, text, len, length, encoding);
    if (out->status < 100 || out->status >= CLIENT_STATUS_MAX || len > whole)
        return -1;
    if (len < whole)
        return len == ANSWER_BYTES ? -1 : 0;
    return 1;
}

static void add_number(const char *body, const char *name, uint64_t *sum)
{
    const char *at = strstr(body, name);
    if (at)
        *sum += strtoull(at + strlen(name), NULL, 10);
}

static void count_answer(struct worker *worker, const struct connection *connection,
                         const struct answer *answer, int64_t now_us)
{
    struct client_totals *totals = &worker->totals;
    totals->statuses[answer->status]++;
    if (in_window(worker->client, connection->due_us, now_us))
        histogram_record(&worker->latencies, now_us - connection->due_us);
    if (answer->status != 200 && answer->status != 202) {
        atomic_fetch_add_explicit(&worker->failed, 1, memory_order_relaxed);
        return;
    }
    atomic_fetch_add_explicit(&worker->acknowledged, 1, memory_order_relaxed);
    const char *body = connection->answer + answer->head_len;
    add_number(body, "\"captured\":", &totals->captured);
    add_number(body, "\"duplicates\":", &totals->duplicates);
    add_number(body, "\"orphans\":", &totals->orphans);
    add_number(body, "\"quarantined\":", &totals->quarantined);
    add_number(body, "\"spooled\":", &totals->spooled);
}

static void connection_answered(struct worker *worker, struct connection *connection,
                                const struct answer *answer, int64_t now_us)
{
    const struct client_options *options = &worker->client->options;
    bool unsent = connection->unsent != NULL; /* answered before it had all: the stream is spent */
    count_answer(worker, connection, answer, now_us);
    connection->answer_len = 0;
    connection->state = CONNECTION_IDLE;
    if (options->new_connections) {
        connection_reset(worker, connection);
        move_to(connection, &worker->idle, now_us);
    } else if (answer->closes || unsent) {
        connection_reset(worker, connection);
        connection_open(worker, connection, false, now_us);
    } else if (options->rate == 0 && (answer->status == 503 || answer->status == 429)) {
        move_to(connection, &worker->resting, now_us + REST_US);
    } else {
        move_to(connection, &worker->idle, now_us);
    }
}

static void connection_read(struct worker *worker, struct connection *connection, int64_t now_us)
{
    enum wire_result result;
    do {
        size_t read = 0;
        result = wire_read(&connection->wire, connection->answer + connection->answer_len,
                           ANSWER_BYTES - connection->answer_len, &read);
        connection->answer_len += read;
        connection->answer[connection->answer_len] = '\0';
        if (result == WIRE_OK) {
            struct answer answer;
            int complete = connection->state == CONNECTION_BUSY
                               ? answer_parse(connection->answer, connection->answer_len, &answer)
                               : -1; /* bytes that nobody asked for */
            if (complete > 0) {
                connection_answered(worker, connection, &answer, now_us);
                return;
            }
            if (complete < 0) {
                note_problem(worker->client, "answer", "not understood");
                result = WIRE_FAILED;
            }
        }
    } while (result == WIRE_OK && connection->wire.ssl);
    if (result == WIRE_CLOSED || result == WIRE_FAILED)
        connection_failed(worker, connection, now_us);
}

static void connection_ready(struct worker *worker, struct connection *connection, uint32_t events,
                             int64_t now_us)
{
    if (connection->state == CONNECTION_OPENING) {
        enum wire_result result = wire_continue_open(&connection->wire);
        if (result == WIRE_OK)
            connection_opened(worker, connection, now_us);
        else if (result == WIRE_WAIT)
            connection_watch(worker, connection, EPOLL_CTL_MOD, connection->wire.wants_write);
        else
            connection_failed(worker, connection, now_us);
        return;
    }
    if (connection->unsent) {
        struct oh_slice rest = {connection->unsent + connection->unsent_at,
                                connection->unsent_len - connection->unsent_at};
        if (!connection_write(worker, connection, rest, now_us))
            return;
    }
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        connection_read(worker, connection, now_us);
}

/* ---- a worker's loop ------------------------------------------------------------------------ */

/* When this worker's request number k is due: the workers take turns. */
static int64_t due_at(const struct worker *worker, int64_t start_us, uint64_t k)
{
    const struct client_options *options = &worker->client->options;
    double turn = (double)(k * options->threads + worker->index);
    return start_us + (int64_t)(turn * 1e6 / options->rate);
}

/* Starts all requests that are due. Returns the µs until there is more to do. */
static int64_t start_due(struct worker *worker, int64_t start_us, int64_t now_us)
{
    const struct client *client = worker->client;
    struct connection *connection;
    if (now_us < start_us)
        return start_us - now_us;
    while ((connection = first_of(&worker->idle))) {
        int64_t due_us = now_us;
        if (client->options.rate > 0) {
            due_us = due_at(worker, start_us, worker->next_due);
            if (due_us >= client->until_us || now_us >= client->until_us + BACKLOG_GRACE_US)
                return TURN_MAX_US;
            if (due_us > now_us)
                return due_us - now_us > TURN_MIN_US ? due_us - now_us : TURN_MIN_US;
            worker->next_due++;
        } else if (now_us >= client->until_us) {
            return TURN_MAX_US;
        }
        connection_start(worker, connection, due_us, now_us);
        if (atomic_load_explicit(&worker->client->stop, memory_order_relaxed))
            return 0;
    }
    return TURN_MAX_US;
}

static void wake_rested(struct worker *worker, int64_t now_us)
{
    struct connection *connection;
    while ((connection = first_of(&worker->resting)) && connection->since_us <= now_us) {
        if (connection->state == CONNECTION_IDLE || worker->client->options.new_connections)
            move_to(connection, &worker->idle, now_us);
        else if (worker->opening < CONNECTING_MAX)
            connection_open(worker, connection, false, now_us);
        else
            return;
    }
}

static void expire_busy(struct worker *worker, int64_t now_us)
{
    struct connection *connection;
    int64_t timeout_us = worker->client->options.timeout_us;
    while ((connection = first_of(&worker->busy)) && connection->since_us + timeout_us <= now_us) {
        bool opening = connection->state == CONNECTION_OPENING;
        note_problem(worker->client, opening ? "connect" : "answer", "timed out");
        if (opening && !connection->loaded) {
            worker->totals.refused++;
            connection_end(worker, connection, now_us);
        } else {
            request_lost(worker, connection, &worker->totals.timeouts, now_us);
        }
    }
}

/* Nothing more is due, and nothing is on its way. */
static bool is_finished(const struct worker *worker, int64_t start_us, int64_t now_us)
{
    const struct client *client = worker->client;
    if (atomic_load_explicit(&client->stop, memory_order_relaxed))
        return true;
    if (start_us == 0 || now_us < client->until_us || !list_is_empty(&worker->busy))
        return false;
    return client->options.rate == 0 || now_us >= client->until_us + BACKLOG_GRACE_US ||
           due_at(worker, start_us, worker->next_due) >= client->until_us;
}

/* What was due and never sent has waited at least until now. */
static void count_unsent(struct worker *worker, int64_t start_us, int64_t now_us)
{
    if (worker->client->options.rate == 0 || start_us == 0)
        return;
    for (;; worker->next_due++) {
        int64_t due_us = due_at(worker, start_us, worker->next_due);
        if (due_us >= worker->client->until_us)
            return;
        worker->totals.unsent++;
        if (in_window(worker->client, due_us, now_us))
            histogram_record(&worker->latencies, now_us - due_us);
    }
}

static void *worker_run(void *context)
{
    struct worker *worker = context;
    struct epoll_event events[EVENTS_MAX];
    int64_t now_us = clock_mono_us(), start_us = 0;
    while (!is_finished(worker, start_us, now_us)) {
        start_us = atomic_load_explicit(&worker->client->start_us, memory_order_acquire);
        wake_rested(worker, now_us);
        expire_busy(worker, now_us);
        int64_t sleep_us = start_us ? start_due(worker, start_us, now_us) : REST_US / 5;
        if (!list_is_empty(&worker->resting) && sleep_us > REST_US / 5)
            sleep_us = REST_US / 5;
        if (sleep_us > TURN_MAX_US)
            sleep_us = TURN_MAX_US;
        struct timespec sleep = {.tv_nsec = sleep_us * 1000};
        int count = epoll_pwait2(worker->epoll, events, EVENTS_MAX, &sleep, NULL);
        now_us = clock_mono_us();
        for (int i = 0; i < count; i++)
            connection_ready(worker, events[i].data.ptr, events[i].events, now_us);
    }
    count_unsent(worker, start_us, now_us);
    return NULL;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static enum oh_status worker_init(struct worker *worker, struct client *client, uint32_t index,
                                  struct oh_error *err)
{
    const struct client_options *options = &client->options;
    worker->client = client;
    worker->index = index;
    worker->random = 0x9e3779b97f4a7c15u * (index + 1);
    worker->connection_count =
        options->connections / options->threads + (index < options->connections % options->threads);
    worker->connections = calloc(worker->connection_count, sizeof(*worker->connections));
    worker->maker = maker_new(options->plan);
    worker->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!worker->connections || !worker->maker || worker->epoll < 0)
        return oh_fail(err, OH_NO_MEMORY, "no memory or descriptors for %u connections",
                       options->connections);
    for (uint32_t i = 0; i < worker->connection_count; i++) {
        struct connection *connection = &worker->connections[i];
        bool open_now = !options->new_connections || i == 0;
        connection->wire.fd = -1;
        list_push_tail(open_now ? &worker->resting : &worker->idle, &connection->link);
    }
    if (options->new_connections) /* one, to see that it can be done */
        connection_open(worker, first_of(&worker->resting), false, clock_mono_us());
    return OH_OK;
}

enum oh_status client_start(const struct client_options *options, struct client **out,
                            struct oh_error *err)
{
    struct client *client = calloc(1, sizeof(*client));
    *out = client;
    if (!client)
        return oh_fail(err, OH_NO_MEMORY, "no memory");
    client->options = *options;
    pthread_mutex_init(&client->problem_lock, NULL);
    client->workers = calloc(options->threads, sizeof(*client->workers));
    if (!client->workers)
        return oh_fail(err, OH_NO_MEMORY, "no memory");
    for (uint32_t i = 0; i < options->threads; i++) {
        struct worker *worker = &client->workers[i];
        worker->epoll = -1;
        list_init(&worker->idle);
        list_init(&worker->busy);
        list_init(&worker->resting);
    }
    for (uint32_t i = 0; i < options->threads; i++) {
        struct worker *worker = &client->workers[i];
        enum oh_status status = worker_init(worker, client, i, err);
        if (status != OH_OK)
            return status;
        if (pthread_create(&worker->thread, NULL, worker_run, worker) != 0)
            return oh_fail(err, OH_SYSTEM, "cannot start a thread");
        worker->running = true;
    }
    return OH_OK;
}

enum oh_status client_wait_connected(struct client *client, struct oh_error *err)
{
    const struct client_options *options = &client->options;
    uint32_t wanted = options->new_connections ? options->threads : options->connections;
    int64_t deadline_us = clock_mono_us() + options->timeout_us;
    struct oh_error problem;
    for (;;) {
        uint32_t ready = 0;
        for (uint32_t i = 0; i < options->threads; i++)
            ready += atomic_load_explicit(&client->workers[i].ready, memory_order_relaxed);
        if (ready >= wanted)
            return OH_OK;
        if (clock_mono_us() > deadline_us) {
            pthread_mutex_lock(&client->problem_lock);
            problem = client->problem;
            pthread_mutex_unlock(&client->problem_lock);
            return oh_fail(err, OH_SYSTEM,
                           "%u of %u connections could be made; first problem: %.200s", ready,
                           wanted, problem.text);
        }
        usleep(2000);
    }
}

void client_begin(struct client *client, int64_t start_us, int64_t from_us, int64_t until_us)
{
    client->from_us = from_us;
    client->until_us = until_us;
    atomic_store_explicit(&client->start_us, start_us, memory_order_release);
}

static uint64_t sum_of(const struct client *client, bool acknowledged)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < client->options.threads; i++) {
        const struct worker *worker = &client->workers[i];
        sum += atomic_load_explicit(acknowledged ? &worker->acknowledged : &worker->failed,
                                    memory_order_relaxed);
    }
    return sum;
}

uint64_t client_acknowledged(const struct client *client)
{
    return sum_of(client, true);
}

uint64_t client_failed(const struct client *client)
{
    return sum_of(client, false);
}

static void totals_add(struct client_totals *to, const struct client_totals *from)
{
    /* a struct of nothing but uint64_t is an array of them */
    _Static_assert(sizeof(*to) % sizeof(uint64_t) == 0, "totals are counters only");
    uint64_t *sum = (uint64_t *)(void *)to;
    const uint64_t *add = (const uint64_t *)(const void *)from;
    for (size_t i = 0; i < sizeof(*to) / sizeof(uint64_t); i++)
        sum[i] += add[i];
}

void client_finish(struct client *client, struct client_totals *totals, struct histogram *latencies,
                   struct oh_error *problem)
{
    for (uint32_t i = 0; i < client->options.threads; i++) {
        struct worker *worker = &client->workers[i];
        if (worker->running)
            pthread_join(worker->thread, NULL);
        worker->running = false;
        totals_add(totals, &worker->totals);
        histogram_add(latencies, &worker->latencies);
    }
    *problem = client->problem;
}

void client_free(struct client *client)
{
    if (!client)
        return;
    atomic_store(&client->stop, true);
    for (uint32_t i = 0; client->workers && i < client->options.threads; i++) {
        struct worker *worker = &client->workers[i];
        if (worker->running)
            pthread_join(worker->thread, NULL);
        for (uint32_t j = 0; worker->connections && j < worker->connection_count; j++) {
            wire_close(&worker->connections[j].wire);
            free(worker->connections[j].unsent);
        }
        if (worker->epoll >= 0)
            close(worker->epoll);
        maker_free(worker->maker);
        free(worker->connections);
    }
    pthread_mutex_destroy(&client->problem_lock);
    free(client->workers);
    free(client);
}
