/* SPDX-License-Identifier: Apache-2.0 */
/* One connection of the load-making client, from connect to the last answer. */
#include "worker.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

enum {
    REPEAT_DISTANCE = 50000, /* a duplicate repeats one of the last so many deliveries */
};

void note_problem(struct client *client, const char *what, const char *why)
{
    pthread_mutex_lock(&client->problem_lock);
    if (client->problem.text[0] == '\0')
        (void)oh_fail(&client->problem, OH_SYSTEM, "%s: %s", what, why);
    pthread_mutex_unlock(&client->problem_lock);
}

/* ---- lists ---------------------------------------------------------------------------------- */

void move_to(struct connection *connection, struct list *list, int64_t since_us)
{
    list_remove(&connection->link);
    list_push_tail(list, &connection->link);
    connection->since_us = since_us;
}

struct connection *first_of(const struct list *list)
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
bool in_window(const struct client *client, int64_t due_us, int64_t now_us)
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

/* The number of the delivery to send: a new one, or, in the window, one of the last that this
 * worker sent. */
static uint64_t choose_delivery(struct worker *worker, int64_t now_us)
{
    const struct client_options *options = &worker->client->options;
    uint64_t known = worker->next_delivery, own = known;
    bool repeat = options->duplicates > 0 && known > 0 && now_us >= worker->client->from_us &&
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
    if (maker_make(worker->maker, choose_delivery(worker, now_us), clock_wall_us() / 1000, &request,
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

void connection_open(struct worker *worker, struct connection *connection, bool loaded,
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
void connection_start(struct worker *worker, struct connection *connection, int64_t due_us,
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
    if (in_window(worker->client, connection->due_us, now_us)) {
        histogram_record(&worker->accepted, now_us - connection->due_us);
        histogram_record(&worker->accepted_sent, now_us - connection->since_us);
    }
    atomic_fetch_add_explicit(&worker->acknowledged, 1, memory_order_relaxed);
    const char *body = connection->answer + answer->head_len;
    totals->captured += answer_number(body, "\"captured\":");
    totals->duplicates += answer_number(body, "\"duplicates\":");
    totals->orphans += answer_number(body, "\"orphans\":");
    totals->quarantined += answer_number(body, "\"quarantined\":");
    totals->spooled += answer_number(body, "\"spooled\":");
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

void connection_ready(struct worker *worker, struct connection *connection, uint32_t events,
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

void connection_expire(struct worker *worker, struct connection *connection, int64_t now_us)
{
    bool opening = connection->state == CONNECTION_OPENING;
    note_problem(worker->client, opening ? "connect" : "answer", "timed out");
    if (opening && !connection->loaded) {
        worker->totals.refused++;
        connection_end(worker, connection, now_us);
    } else {
        request_lost(worker, connection, &worker->totals.timeouts, now_us);
    }
}
