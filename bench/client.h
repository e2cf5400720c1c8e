/* SPDX-License-Identifier: Apache-2.0 */
/* A load-making HTTP/1.1 client: threads with an epoll loop each, kept-alive or fresh connections,
 * plain or TLS. Small, because on the same cores a heavy client would measure itself: one write and
 * one read a request, nothing allocated on the way.
 *
 * Open loop: request k is due at start + k/rate whatever the server does, and its latency counts
 * from then, so a stall is seen by every request it delays (no coordinated omission). Closed loop:
 * each connection sends its next request when it has the answer. */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include "answer.h"
#include "histogram.h"
#include "maker.h"
#include "wire.h"

struct client_options {
    struct sockaddr_storage address;
    socklen_t address_len;
    SSL_CTX *tls;         /* NULL = plain; from wire_tls_new() */
    const char *tls_name; /* who the certificate must be for: a host name or a numeric address */
    const struct maker_plan *plan;
    uint32_t threads, connections; /* connections in all, >= threads */
    double rate;                   /* deliveries/s of the open loop; 0 = closed loop */
    bool new_connections;          /* a connection per delivery */
    double duplicates;  /* share of the window's deliveries that repeat an earlier one, 0 to 1 */
    int64_t timeout_us; /* for connecting, and for an answer */
};

/* What became of deliveries. Sums of all threads. */
struct client_totals {
    uint64_t sent;                        /* whole requests written */
    uint64_t statuses[ANSWER_STATUS_MAX]; /* answers by status */
    uint64_t timeouts;                    /* no answer in time */
    uint64_t broken;    /* connection lost or answer unreadable, outcome unknown */
    uint64_t refused;   /* connections that could not be made */
    uint64_t connected; /* connections made */
    uint64_t unsent;    /* open loop: due, but never sent */
    /* sums of the numbers in the answers */
    uint64_t captured, duplicates, orphans, quarantined, spooled;
};

/* From the moment that a request was due (open loop), or begun (closed loop). */
struct client_latencies {
    struct histogram all;      /* whatever became of it */
    struct histogram accepted; /* answered 200 or 202 */
    struct histogram
        accepted_sent; /* the same, from the moment that a connection was free for it */
};

struct client;

/* Starts the threads; they connect and wait for client_begin(). *options is copied, what it points
 * to must outlive the client. */
enum oh_status client_start(const struct client_options *options, struct client **out,
                            struct oh_error *err) OH_MUST_CHECK;

/* Waits until all connections stand (with new_connections: until one could be made). OH_SYSTEM: not
 * within timeout_us; *err says why. */
enum oh_status client_wait_connected(struct client *client, struct oh_error *err) OH_MUST_CHECK;

/* Lets the threads send from start_us on; latencies are noted for requests of [from_us, until_us)
 * (open loop: due then; closed loop: answered then); none is begun after until_us. All monotonic
 * µs. */
void client_begin(struct client *client, int64_t start_us, int64_t from_us, int64_t until_us);

/* Deliveries answered 200 or 202 so far, and answers of any other kind. Thread: any. */
uint64_t client_acknowledged(const struct client *client);
uint64_t client_failed(const struct client *client);

/* Waits until every request has its answer or its timeout, joins the threads, and adds up what they
 * saw; latencies in µs. *problem: the first thing that went wrong, empty text if nothing did. */
void client_finish(struct client *client, struct client_totals *totals,
                   struct client_latencies *latencies, struct oh_error *problem);
void client_free(struct client *client);

#endif
