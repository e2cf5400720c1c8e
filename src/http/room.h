/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the http room share. All of it belongs to one http thread unless it says so. */
#ifndef HTTP_ROOM_H
#define HTTP_ROOM_H

#include "base/list.h"
#include "http/http.h"
#include "oncehook/handshake.h"

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
    int64_t refused_mono_us; /* its last refusal for overload was answered then; 0 = none was */
    bool is_counted;         /* in http->peers */
    bool is_closing;         /* for its memory */
    size_t waiting_bytes;    /* of its input while it waits for its commit; 0 = it does not */
};

static inline struct http_connection *http_connection_of(h2o_req_t *req)
{
    return req->conn->callbacks->get_socket(req->conn)->on_close.data;
}

struct http_listener {
    struct http_thread *thread;
    h2o_socket_t *socket; /* NULL once it is closed */
    h2o_accept_ctx_t accept;
    bool is_paused; /* connection cap reached or out of file descriptors */
    int64_t resume_mono_us;
};

/* Of refusals for overload (http/refusal.c). */
enum http_hold { HTTP_HOLD_FIRST, HTTP_HOLD_AGAIN, HTTP_HOLDS };

enum http_thread_start { HTTP_STARTING, HTTP_STARTED, HTTP_START_FAILED };

struct http_thread {
    struct http *http;
    uint32_t number;
    pthread_t thread;
    h2o_context_t context;
    struct metrics_shard *shard;
    const struct vault_set *keys; /* the secrets in use */
    struct http_listener listeners[HTTP_LISTENERS_MAX];
    struct list connections;
    uint32_t connection_count, connection_max;
    size_t memory_max;                /* its share of limits.memory; 0 = off */
    size_t lent_bytes, waiting_bytes; /* arenas of lent deliveries; input of their requests */
    int64_t memory_look_us;           /* when to look again */
    bool trim;                        /* once less is held, give back what malloc keeps */
    struct list lessons;              /* handshakes that brought a secret (http/lesson.c) */
    struct list refusals[HTTP_HOLDS]; /* for overload, held a moment (http/refusal.c) */
    uint32_t lesson_count, refusal_count;
    struct http_deadline *deadlines; /* one for each different ack deadline of the sources */
    size_t deadline_count;

    /* Deliveries that come back from the lanes. */
    h2o_multithread_receiver_t receiver;
    h2o_multithread_message_t message;
    _Atomic(struct delivery *) returned; /* chained by next_decided, the last one first */

    _Atomic uint32_t unanswered;       /* requests that wait for their delivery */
    _Atomic uint64_t open_connections; /* connection_count, for other threads */
    _Atomic uint64_t memory_held;      /* when last looked at */
    _Atomic int start;                 /* enum http_thread_start */
    _Atomic bool is_told;              /* `message` is on its way */
    _Atomic bool is_parked;            /* done, and waiting for the end of the process */
};

/* What the http threads know of a source: its token bucket, and what it sends. */
struct http_bucket {
    pthread_mutex_t mutex;
    double tokens;
    int64_t filled_mono_us;
    _Atomic size_t event_bytes; /* of a body, for each of its events; smoothed, 0 = not known yet */
};

struct peers;

struct http {
    const struct config *config;
    struct vault *vault;
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

/* A request that waits for its answer (http/request.c), from within the handler until just before
 * the answer; `req` is NULL where libh2o has ended it meanwhile. Its connection is not read, and
 * stays in the epoll set: libh2o alone takes it out and puts it back, two system calls a request,
 * for what comes once in a while, a client that sends more or leaves. After the answer nothing may
 * look at the request's head or body: the next one may be read behind it (docs/adr/0019). */
void http_begin_waiting(struct http_thread *thread, h2o_req_t *req);
void http_end_waiting(struct http_thread *thread, h2o_req_t *req);

/* Takes back what the lanes have decided (http/request.c). */
void http_take_returned(struct http_thread *thread);

/* Answers 503 to what has waited past its deadline (http/request.c). */
void http_answer_expired(struct http_thread *thread);

/* A handshake that brought a secret (http/lesson.c): answered when the secret is kept. The arena
 * goes over to it. lesson_answer_all(): after each turn of the loop. */
void lesson_take(struct http_thread *thread, h2o_req_t *req, const struct config_source *source,
                 const struct oh_handshake_answer *answer, struct oh_arena *arena);
void lesson_answer_all(struct http_thread *thread);

/* Counts, logs and sends the answer to a handshake (http/request.c). */
void http_finish_handshake(struct http_thread *thread, h2o_req_t *req,
                           const struct config_source *source,
                           const struct oh_handshake_answer *answer);

/* A refusal for overload (http/refusal.c): answered a moment later, so that who does not back off
 * asks for less. `words` must outlive the request. refusal_answer_due(): after each turn of the
 * loop, a few; `all`: at the end of the process, also those that are not due. */
struct http_refusal_words {
    int status, retry_after_s;
    bool is_held; /* else it is answered at once */
    const char *detail;
};
void refusal_hold(struct http_thread *thread, h2o_req_t *req,
                  const struct http_refusal_words *words);
void refusal_answer_due(struct http_thread *thread, bool all);

/* limits.memory (http/memory.c). memory_init(): once, before the first thread. memory_look(): after
 * each turn of the loop; true if it closed connections, whose memory the next turn frees. */
void memory_init(void);
bool memory_look(struct http_thread *thread);
/* Books an admitted delivery and its request, or says that there is no room: 503. The request's
 * part is given back by memory_end_waiting(), the delivery's (delivery->memory) when it is freed.
 */
bool memory_lend(struct http_connection *connection, struct delivery *delivery);
void memory_end_waiting(struct http_connection *connection);

/* Answers (http/answer.c). Each sends at once; afterwards the request may be gone. */
void answer_problem(h2o_req_t *req, int status, const char *detail);
void answer_problem_retry(h2o_req_t *req, int status, const char *detail, int retry_after_s);
void answer_method_not_allowed(h2o_req_t *req, const char *allow);
void answer_text(h2o_req_t *req, int status, const char *text);
/* The numbers of a decided delivery; returns the status. */
int answer_delivery(h2o_req_t *req, const struct delivery *delivery);
/* A delivery that was verified and is empty by design; returns the status. */
int answer_nothing(h2o_req_t *req, const struct config_source *source);
/* What the provider wants to hear; its body and values are copied. */
void answer_handshake(h2o_req_t *req, const struct oh_handshake_answer *answer);

/* A server's TLS context (http/tls.c); NULL with *err filled. */
SSL_CTX *tls_new_context(const char *certificate, const char *key, struct oh_error *err);

/* Connections by address (http/peers.c); thread: any. IPv4 is mapped into IPv6. */
void peers_map_ipv4(const struct in_addr *from, struct in6_addr *to);
bool peers_address(h2o_socket_t *socket, struct in6_addr *address); /* false: it cannot be told */
struct peers *peers_new(uint32_t connections_max, uint32_t per_ip_max);
bool peers_enter(struct peers *peers, const struct in6_addr *address);
void peers_leave(struct peers *peers, const struct in6_addr *address);
void peers_free(struct peers *peers);

#endif
