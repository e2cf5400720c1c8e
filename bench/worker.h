/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the client: a worker and its connections. A connection is in one of three lists: idle (may
 * send), busy (connecting, writing, or waiting for an answer; oldest first), or resting (connects
 * or sends again when the rest is over). connection.c moves them, client.c says when. */
#ifndef BENCH_WORKER_H
#define BENCH_WORKER_H

#include "answer.h"
#include "base/list.h"
#include "client.h"

#include <pthread.h>
#include <stdatomic.h>

enum { REST_US = 50000 }; /* after a failure, or an answer that asks to wait */

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
    struct histogram latencies, accepted, accepted_sent; /* as in client_finish() */
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

/* Keeps the first thing that went wrong. */
void note_problem(struct client *client, const char *what, const char *why);

/* Puts it at the end of `list`. */
void move_to(struct connection *connection, struct list *list, int64_t since_us);
struct connection *first_of(const struct list *list);

/* Whether the request that was due then, and is over now, is one to measure. */
bool in_window(const struct client *client, int64_t due_us, int64_t now_us);

/* Begins to connect; loaded: in order to send a request as soon as it stands. */
void connection_open(struct worker *worker, struct connection *connection, bool loaded,
                     int64_t now_us);

/* Sends the request that is due at due_us, on a connection of the idle list. */
void connection_start(struct worker *worker, struct connection *connection, int64_t due_us,
                      int64_t now_us);

/* Goes on with a connection whose socket has these epoll events. */
void connection_ready(struct worker *worker, struct connection *connection, uint32_t events,
                      int64_t now_us);

/* Gives up a busy connection that took too long. */
void connection_expire(struct worker *worker, struct connection *connection, int64_t now_us);

#endif
