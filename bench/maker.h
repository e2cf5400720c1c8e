/* SPDX-License-Identifier: Apache-2.0 */
/* Makes deliveries as a provider would send them: fresh events of about 560 bytes each, signed with
 * liboncehook, as whole HTTP/1.1 requests. Every event follows from its number alone, so a delivery
 * that is made again is byte for byte the same but for its signature's time. */
#ifndef BENCH_MAKER_H
#define BENCH_MAKER_H

#include "oncehook/sign.h"
#include "pairs.h"

struct maker_options {
    const char *provider;           /* chooses the form of events */
    const struct oh_signer *signer; /* must outlive the plan; NULL: maker_make() is not used */
    const struct pairs *pairs;      /* likewise; at least one */
    const char *url;                /* whole URL, as signed */
    const char *host;               /* value of the Host header */
    const char *path;               /* request target */
    uint32_t events_per_delivery;   /* from 1 to MAKER_EVENTS_MAX */
    bool close_after;               /* ask the server to close after its answer */
    int64_t now_us;                 /* unix time that the events carry */
};

enum { MAKER_EVENTS_MAX = 10000 };

/* What all threads share; immutable. */
struct maker_plan;

/* *out belongs to the caller: maker_plan_free(). Draws the run's own random part of all ids. */
enum oh_status maker_plan_new(const struct maker_options *options, struct maker_plan **out,
                              struct oh_error *err) OH_MUST_CHECK;
void maker_plan_free(struct maker_plan *plan);

/* Bytes of one event, the same for all of a kind; at most this. */
size_t maker_event_bytes(const struct maker_plan *plan);

/* The pieces of event number `event`: its id, whom it is about, and its text of at most
 * maker_event_bytes(); returns the text's length. */
void maker_event_id(const struct maker_plan *plan, uint64_t event, char out[UUID_TEXT]);
const struct pair *maker_event_pair(const struct maker_plan *plan, uint64_t event);
const char *maker_event_type(const struct maker_plan *plan, uint64_t event); /* provider's word */
size_t maker_write_event(const struct maker_plan *plan, uint64_t event, char *out);

/* One thread's buffers. NULL when memory is gone. */
struct maker *maker_new(const struct maker_plan *plan) OH_MUST_CHECK;
void maker_free(struct maker *maker);

/* Makes delivery number `delivery`, signed at now_ms (unix time). *request is valid until the next
 * call. */
enum oh_status maker_make(struct maker *maker, uint64_t delivery, int64_t now_ms,
                          struct oh_slice *request, struct oh_error *err) OH_MUST_CHECK;

#endif
