/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the http room share. All of it belongs to one http thread unless it says so. */
#ifndef HTTP_ROOM_H
#define HTTP_ROOM_H

#include "base/list.h"
#include "http/http.h"

#include <h2o.h>
#include <pthread.h>

enum {
    HTTP_LISTENERS_MAX = 2, /* HTTPS and HTTP */
};

/* Deliveries with the same ack deadline, in the order they came: the first is the first to expire.
 */
struct http_deadline {
    int64_t ms;
    struct list waiting;
};

/* One open client connection. */
struct http_connection {
    struct list link; /* in its thread's connections */
    struct http_thread *thread;
    h2o_socket_t *socket;
    struct in6_addr peer;
    bool is_counted; /* in http->peers */
};

struct http_listener {
    struct http_thread *thread;
    h2o_socket_t *socket; /* NULL once it is closed */
    h2o_accept_ctx_t accept;
    bool is_paused; /* connection cap reached or out of file descriptors */
};

enum http_thread_start { HTTP_STARTING, HTTP_STARTED, HTTP_START_FAILED };

struct http_thread {
    struct http *http;
    uint32_t number;
    pthread_t thread;
    h2o_context_t context;
    struct metrics_shard *shard;
    struct http_listener listeners[HTTP_LISTENERS_MAX];
    struct list connections;
    uint32_t connection_count, connection_max;
    struct http_deadline *deadlines; /* one for each different ack deadline of the sources */
    size_t deadline_count;

    /* Deliveries that come back from the lanes. */
    h2o_multithread_receiver_t receiver;
    h2o_multithread_message_t message; /* in flight while `returned` is not empty */
    pthread_mutex_t returned_mutex;
    struct delivery *returned; /* chained by next_decided */

    _Atomic uint32_t unanswered;       /* requests that wait for their delivery */
    _Atomic uint64_t open_connections; /* connection_count, for other threads */
    _Atomic int start;                 /* enum http_thread_start */
    _Atomic bool is_parked;            /* done, and waiting for the end of the process */
};

/* A source's token bucket; any http thread. */
struct http_bucket {
    pthread_mutex_t mutex;
    double tokens;
    int64_t filled_mono_us;
};

struct peers;

struct http {
    const struct config *config;
    struct http_hooks hooks;
    h2o_globalconf_t globalconf;
    h2o_hostconf_t *hosts[2];
    SSL_CTX *ssl;
    int listen_fds[HTTP_LISTENERS_MAX]; /* -1 = not configured */
    uint16_t ports[HTTP_LISTENERS_MAX]; /* 0: HTTPS, 1: HTTP */
    struct admission *admission;
    struct http_bucket *buckets; /* one a source */
    struct peers *peers;         /* NULL unless limits.connections_per_ip */
    _Atomic int phase;           /* enum http_phase */
    uint32_t thread_count;
    struct http_thread *threads;
};

enum http_phase { HTTP_SERVING, HTTP_DRAINING, HTTP_STOPPING };

/* The one handler: every request of every path comes here (http/request.c). */
int http_on_request(h2o_handler_t *handler, h2o_req_t *req);

/* Takes back what the lanes have decided (http/request.c). */
void http_take_returned(struct http_thread *thread);

/* Answers 503 to what has waited past its deadline (http/request.c). */
void http_answer_expired(struct http_thread *thread);

/* Answers (http/answer.c). Each sends at once; afterwards the request may be gone. */
void answer_problem(h2o_req_t *req, int status, const char *detail);
void answer_problem_retry(h2o_req_t *req, int status, const char *detail, int retry_after_s);
void answer_method_not_allowed(h2o_req_t *req, const char *allow);
void answer_text(h2o_req_t *req, int status, const char *text);
/* The numbers of a decided delivery; returns the status. */
int answer_delivery(h2o_req_t *req, const struct delivery *delivery);
/* A delivery that was verified and is empty by design. */
void answer_nothing(h2o_req_t *req);

/* A server's TLS context (http/tls.c); NULL with *err filled. */
SSL_CTX *tls_new_context(const char *certificate, const char *key, struct oh_error *err);

/* Connections by address (http/peers.c); thread: any. */
struct peers *peers_new(uint32_t connections_max, uint32_t per_ip_max);
bool peers_enter(struct peers *peers, const struct in6_addr *address);
void peers_leave(struct peers *peers, const struct in6_addr *address);
void peers_free(struct peers *peers);

#endif
