/* SPDX-License-Identifier: Apache-2.0 */
/* The gateway's listeners: all of libh2o sits in this room. Threads with an h2o event loop each;
 * TLS, limits, route, verify, extract, and the answer when a delivery is decided.
 *
 * The room knows no lane and no database: what it needs of them are the hooks. */
#ifndef HTTP_HTTP_H
#define HTTP_HTTP_H

#include "config/vault.h"
#include "delivery/delivery.h"
#include "metrics/metrics.h"

struct http;

struct http_hooks {
    void *context;
    /* Takes the delivery (ADMISSION_OK: it comes back through http_on_decided) or refuses it. Any
     * http thread; may not block. */
    enum admission_verdict (*submit)(void *context, struct delivery *delivery);
    /* What submit() would say of any delivery of this source now, so that overload is refused
     * before it costs anything. Any http thread; may not block. */
    enum admission_verdict (*look)(void *context, const struct config_source *source,
                                   size_t events);
    /* Has a secret kept that a handshake brought; see learner_keep(). */
    bool (*keep)(void *context, const struct config_source *source, struct oh_slice secret,
                 _Atomic int *lesson);
    /* A request names a certificate of its provider that is not there: false = it never will be.
     * Any http thread; may not block. */
    bool (*want_certificate)(void *context, const struct config_source *source,
                             struct oh_slice url);
    /* A verified handshake wants this URL of its provider's to be asked for. Any http thread; may
     * not block. */
    void (*visit)(void *context, const struct config_source *source, struct oh_slice url);
    /* A request of a source whose handshake brings secrets was wrongly signed: another gateway may
     * have learned one. Any http thread; may not block. */
    void (*look_for_secrets)(void *context);
    /* True if events can be captured now; else the name of the part that is not well goes to *part
     * (static text). Any http thread; may not block. */
    bool (*is_ready)(void *context, const char **part);
};

/* Binds the configured listeners and starts the threads, which verify with the secrets of `vault`;
 * it must outlive http_stop(). first_shard: metrics shard of thread 0. *out is set before the first
 * thread runs. After an error the process must end: what was bound stays so. */
enum oh_status http_start(const struct config *config, struct vault *vault, struct metrics *metrics,
                          uint32_t first_shard, const struct http_hooks *hooks, struct http **out,
                          struct oh_error *err) OH_MUST_CHECK;

/* lanes_on_decided of this room. context: struct http. Thread: any. */
void http_on_decided(void *context, struct delivery *decided);

/* The ports that were bound; 0 = no such listener. */
uint16_t http_port_of_https(const struct http *http);
uint16_t http_port_of_http(const struct http *http);

/* Open client connections. Thread: any. */
uint64_t http_connections(const struct http *http);

/* Bytes that count for limits.memory. Thread: any. */
uint64_t http_memory_bytes(const struct http *http);

/* Events that are admitted and not decided yet. Thread: any. */
uint64_t http_queued_events(const struct http *http);

/* Stops accepting and asks for the end of idle connections; returns when nothing is in flight or at
 * the deadline (monotonic µs). */
void http_drain(struct http *http, int64_t deadline_mono_us);

/* Closes all connections and parks the threads. No delivery may be on its way any more. libh2o's
 * loops cannot be destroyed: keep `http` reachable until the process ends. */
void http_stop(struct http *http);

#endif
