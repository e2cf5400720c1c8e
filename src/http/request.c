/* SPDX-License-Identifier: Apache-2.0 */
/* One request: route -> verify -> extract -> admit -> lanes, and the answer when its delivery is
 * back.
 *
 * Lifetimes: h2o owns the request, we own the delivery. They know each other through a slot in the
 * request's pool: whichever ends first clears the other's pointer. With HTTP/1 a request stays
 * valid until it is answered, so a client that hangs up is noticed only then, and its events are
 * committed all the same. */
#include "http/room.h"

#include "base/clock.h"
#include "base/slice.h"
#include "http/head.h"
#include "log/log.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>

enum {
    HEADERS_MAX = 100, /* libh2o refuses more */
    RETRY_OVERLOAD_S = 1,
    RETRY_DATABASE_S = 2,
    ARENA_EXTRA = 4096, /* first block beyond body and headers: a few events */
    EVENT_BYTES = 2048, /* arena bytes an event may need beside its text */
    BODY_FACTOR = 10,   /* its text: copied, unescaped, hashed (oh_extract: 8 times the body) */
};

/* In the request's pool; its dispose runs when h2o ends the request. */
struct reply {
    h2o_req_t *req;
    struct http_connection *connection;
    struct delivery *delivery; /* NULL once answered */
};

static struct oh_slice slice_of_iovec(h2o_iovec_t iovec)
{
    return slice_of(iovec.base ? iovec.base : "", iovec.len);
}

/* ---- while a request waits ------------------------------------------------------------------- */

/* Its client sends more, or is gone: libh2o sees that after the answer. While the answer leaves, it
 * is read, and TLS tells but once that it is broken: libh2o closes when it has no more to read. */
static void on_stir(h2o_socket_t *socket, const char *err)
{
    if (err)
        shutdown(h2o_socket_get_fd(socket), SHUT_RD);
    h2o_socket_dont_read(socket, 0);
    h2o_socket_read_stop(socket);
}

void http_begin_waiting(struct http_thread *thread, h2o_req_t *req)
{
    h2o_socket_dont_read(http_connection_of(req)->socket, 1);
    h2o_socket_read_start(http_connection_of(req)->socket, on_stir);
    atomic_fetch_add_explicit(&thread->unanswered, 1, memory_order_relaxed);
}

void http_end_waiting(struct http_thread *thread, h2o_req_t *req)
{
    if (req)
        h2o_socket_dont_read(http_connection_of(req)->socket, 0);
    atomic_fetch_sub_explicit(&thread->unanswered, 1, memory_order_relaxed);
}

/* ---- who is asking --------------------------------------------------------------------------- */

static bool address_of_text(struct oh_slice text, struct in6_addr *to)
{
    char name[INET6_ADDRSTRLEN + 8];
    text = slice_trim(text);
    if (text.len == 0 || text.len >= sizeof(name))
        return false;
    memcpy(name, text.data, text.len);
    name[text.len] = '\0';
    struct in_addr four;
    if (inet_pton(AF_INET, name, &four) != 1)
        return inet_pton(AF_INET6, name, to) == 1;
    peers_map_ipv4(&four, to);
    return true;
}

/* The client's address: the peer's, or behind a trusted proxy the last address in X-Forwarded-For
 * that is not itself a trusted proxy. False when it cannot be told: then nobody is allowed. */
static bool client_address(const struct config *config, h2o_req_t *req, struct in6_addr *client)
{
    if (!peers_address(http_connection_of(req)->socket, client))
        return false;
    for (size_t i = req->headers.size; i-- > 0;) {
        const h2o_header_t *header = &req->headers.entries[i];
        if (!h2o_memis(header->name->base, header->name->len, H2O_STRLIT("x-forwarded-for")))
            continue;
        struct oh_slice list = slice_of_iovec(header->value);
        while (config_networks_contain(&config->listen.trusted_proxies, client)) {
            const char *comma = list.len ? memrchr(list.data, ',', list.len) : NULL;
            const char *last = comma ? comma + 1 : list.data;
            if (!address_of_text(slice_of(last, (size_t)(list.data + list.len - last)), client))
                return false;
            if (!comma)
                break;
            list.len = (size_t)(comma - list.data);
        }
    }
    return true;
}

/* ---- refusing -------------------------------------------------------------------------------- */

static void count_answer(struct http_thread *thread, const struct config_source *source, int status)
{
    metrics_count_delivery(thread->shard, source->number, status);
}

/* One text for every reason; the reason goes to log and metrics. */
static void refuse(struct http_thread *thread, h2o_req_t *req, const struct config_source *source,
                   enum metric_reason reason, const char *because)
{
    metrics_count_reject(thread->shard, source->number, reason);
    count_answer(thread, source, 401);
    LOG_RATE_LIMITED(LOG_WARNING, "http", "delivery refused", log_text("source", source->name),
                     log_text("reason", because));
    answer_problem(req, 401, "the delivery was not accepted");
}

/* What is not well now: only a look knows it. */
static struct log_field log_part(struct http_thread *thread, enum admission_verdict verdict)
{
    const struct http_hooks *hooks = &thread->http->hooks;
    const char *part = NULL;
    bool is_asked = verdict == ADMISSION_DOWN || verdict == ADMISSION_SPOOL;
    if (!is_asked || hooks->is_ready(hooks->context, &part))
        return (struct log_field){.name = NULL};
    return log_text("part", part);
}

static void refuse_admission(struct http_thread *thread, h2o_req_t *req,
                             const struct config_source *source, enum admission_verdict verdict)
{
    static const struct http_refusal_words answers[] = {
        [ADMISSION_FULL] = {503, RETRY_OVERLOAD_S, true, "too much is waiting; send it again"},
        [ADMISSION_SHARE] = {503, RETRY_OVERLOAD_S, true,
                             "too much of this source is waiting; send it again"},
        [ADMISSION_OLD] = {503, RETRY_OVERLOAD_S, true,
                           "what waits has waited too long; send it again"},
        [ADMISSION_DOWN] = {503, RETRY_DATABASE_S, false,
                            "events cannot be committed now; send it again"},
        [ADMISSION_SPOOL] = {503, RETRY_DATABASE_S, false,
                             "neither the database nor the spool takes events now; send it again"},
        [ADMISSION_STOPPING] = {503, RETRY_DATABASE_S, false,
                                "this gateway is stopping; send it again"},
        [ADMISSION_TOO_LARGE] = {413, 0, false, "more events than the queue holds"},
    };
    const struct http_refusal_words *words = &answers[verdict];
    count_answer(thread, source, words->status);
    LOG_RATE_LIMITED(LOG_WARNING, "http", "delivery not admitted", log_text("source", source->name),
                     log_text("reason", words->detail), log_part(thread, verdict));
    if (words->is_held)
        refusal_hold(thread, req, words);
    else
        answer_problem_retry(req, words->status, words->detail, words->retry_after_s);
}

static bool take_token(struct http_bucket *bucket, const struct config_source *source)
{
    if (source->rate_per_second == 0)
        return true;
    int64_t now_us = clock_mono_us();
    pthread_mutex_lock(&bucket->mutex);
    double burst = source->rate_burst ? source->rate_burst : source->rate_per_second;
    bucket->tokens += (double)(now_us - bucket->filled_mono_us) * source->rate_per_second / 1e6;
    bucket->filled_mono_us = now_us;
    if (bucket->tokens > burst)
        bucket->tokens = burst;
    bool has_token = bucket->tokens >= 1;
    if (has_token)
        bucket->tokens -= 1;
    pthread_mutex_unlock(&bucket->mutex);
    return has_token;
}

/* ---- lending a delivery to the lanes --------------------------------------------------------- */

static void on_reply_dispose(void *pointer)
{
    struct reply *reply = pointer;
    if (!reply->delivery)
        return;
    reply->delivery->reply = NULL;
    memory_end_waiting(reply->connection);
    http_end_waiting(reply->connection->thread, NULL);
}

static void await(struct http_thread *thread, h2o_req_t *req, struct delivery *delivery)
{
    struct reply *reply = h2o_mem_alloc_shared(&req->pool, sizeof(*reply), on_reply_dispose);
    *reply = (struct reply){req, http_connection_of(req), delivery};
    delivery->reply = reply;
    delivery->http_thread = thread->number;
    size_t i = 0;
    while (i + 1 < thread->deadline_count &&
           thread->deadlines[i].ms != delivery->source->ack_deadline_ms)
        i++;
    list_push_tail(&thread->deadlines[i].waiting, &delivery->link);
    http_begin_waiting(thread, req);
}

/* Takes the request back from the delivery; NULL if it is gone or answered already. */
static h2o_req_t *end_waiting(struct http_thread *thread, struct delivery *delivery)
{
    struct reply *reply = delivery->reply;
    list_remove(&delivery->link);
    if (!reply)
        return NULL;
    reply->delivery = NULL;
    delivery->reply = NULL;
    memory_end_waiting(reply->connection);
    http_end_waiting(thread, reply->req);
    return reply->req;
}

static void finish_delivery(struct http_thread *thread, struct delivery *delivery)
{
    admission_leave(thread->http->admission, delivery);
    thread->lent_bytes -= delivery->memory;
    delivery_free(delivery);
}

static void lend_delivery(struct http_thread *thread, h2o_req_t *req, struct delivery *delivery)
{
    struct http *http = thread->http;
    const struct config_source *source = delivery->source;
    enum admission_verdict verdict = admission_enter(http->admission, delivery);
    if (verdict == ADMISSION_OK && !memory_lend(http_connection_of(req), delivery)) {
        admission_leave(http->admission, delivery);
        verdict = ADMISSION_FULL;
    }
    if (verdict != ADMISSION_OK) {
        delivery_free(delivery);
        refuse_admission(thread, req, source, verdict);
        return;
    }
    await(thread, req, delivery);
    verdict = http->hooks.submit(http->hooks.context, delivery);
    if (verdict == ADMISSION_OK)
        return; /* from here on it comes back through http_on_decided() */
    (void)end_waiting(thread, delivery);
    finish_delivery(thread, delivery);
    refuse_admission(thread, req, source, verdict);
}

void http_on_decided(void *context, struct delivery *decided)
{
    struct http *http = context;
    while (decided) {
        struct delivery *delivery = decided;
        decided = delivery->next_decided;
        struct http_thread *thread = &http->threads[delivery->http_thread];
        struct delivery *head = atomic_load_explicit(&thread->returned, memory_order_relaxed);
        do
            delivery->next_decided = head;
        while (!atomic_compare_exchange_weak(&thread->returned, &head, delivery));
        if (!atomic_exchange(&thread->is_told, true))
            h2o_multithread_send_message(&thread->receiver, &thread->message);
    }
}

void http_take_returned(struct http_thread *thread)
{
    if (!atomic_load_explicit(&thread->returned, memory_order_relaxed))
        return;
    struct delivery *delivery = atomic_exchange(&thread->returned, NULL);
    int64_t now_us = clock_mono_us();
    while (delivery) {
        struct delivery *next = delivery->next_decided;
        h2o_req_t *req = end_waiting(thread, delivery);
        if (delivery->duplicates_within > 0 &&
            atomic_load(&delivery->outcomes[DELIVERY_UNDECIDED]) == 0)
            metrics_count_event(thread->shard, delivery->source->number, METRIC_OUTCOME_DUPLICATE,
                                delivery->duplicates_within);
        if (req) {
            count_answer(thread, delivery->source, answer_delivery(req, delivery));
            metrics_observe_ack_us(thread->shard, now_us - delivery->accepted_mono_us);
        }
        finish_delivery(thread, delivery);
        delivery = next;
    }
}

void http_answer_expired(struct http_thread *thread)
{
    int64_t now_us = clock_mono_us();
    for (size_t i = 0; i < thread->deadline_count; i++) {
        struct list *waiting = &thread->deadlines[i].waiting;
        while (!list_is_empty(waiting)) {
            struct delivery *delivery = LIST_ENTRY(waiting->next, struct delivery, link);
            if (delivery->deadline_mono_us > now_us)
                break;
            h2o_req_t *req = end_waiting(thread, delivery); /* the lanes still have the delivery */
            if (!req)
                continue;
            count_answer(thread, delivery->source, 503);
            LOG_RATE_LIMITED(LOG_WARNING, "http", "no commit within the deadline",
                             log_text("source", delivery->source->name));
            answer_problem_retry(req, 503, "not committed in time; send it again",
                                 RETRY_OVERLOAD_S);
        }
    }
}

/* ---- how many events a body holds, before it is read ----------------------------------------- */

static void note_event_bytes(struct http_thread *thread, const struct config_source *source,
                             size_t bytes)
{
    _Atomic size_t *known = &thread->http->buckets[source->number].event_bytes;
    size_t before = atomic_load_explicit(known, memory_order_relaxed);
    atomic_store_explicit(known, before ? (3 * before + bytes) / 4 : bytes, memory_order_relaxed);
}

static size_t guess_events(const struct http_thread *thread, const struct config_source *source,
                           size_t body_bytes)
{
    size_t bytes = atomic_load_explicit(&thread->http->buckets[source->number].event_bytes,
                                        memory_order_relaxed);
    return bytes ? body_bytes / bytes : 1;
}

/* ---- POST /in/{source} ----------------------------------------------------------------------- */

/* A token in the body (Aircall, lemlist, Smartlead) stays out of what is kept: its letters become
 * `*` in the copy. The keys were made of the bytes as they came. */
static void mask_secret(struct delivery *delivery, struct oh_slice body, struct oh_slice secret)
{
    if (secret.data)
        memset((char *)delivery->request.body.data + (secret.data - body.data), '*', secret.len);
}

/* A verified request becomes a delivery with its events, or with one body for the quarantine. */
static void take_delivery(struct http_thread *thread, h2o_req_t *req,
                          const struct config_source *source, const struct oh_request *request,
                          struct oh_slice shown_secret, struct oh_arena *arena)
{
    const struct config *config = thread->http->config;
    struct oh_extraction extraction = {.count = 0};
    struct oh_error why = {.line = 0};
    int64_t now_us = clock_wall_us();
    struct delivery *delivery = delivery_new(arena, source, request, now_us, clock_mono_us());
    enum oh_status status = OH_NO_MEMORY;
    if (delivery)
        status = oh_extract(source->recipe, source->mapping, &delivery->request, now_us,
                            config->queue.events, arena, &extraction, &why);
    if (delivery)
        mask_secret(delivery, request->body, shown_secret);
    if (status == OH_OK && extraction.count == 0) {
        oh_arena_free(arena);
        count_answer(thread, source, answer_nothing(req, source));
        return;
    }
    if (status == OH_OK) {
        note_event_bytes(thread, source, request->body.len / extraction.count);
        status = delivery_take_events(delivery, &extraction);
    } else if (status == OH_UNREADABLE) {
        /* Verified, so it is the provider's: a 4xx would make it switch the endpoint off. */
        status = delivery_take_unreadable(delivery, why.text);
    }
    if (status != OH_OK) {
        oh_arena_free(arena);
        refuse_admission(thread, req, source,
                         status == OH_TOO_MANY ? ADMISSION_TOO_LARGE : ADMISSION_FULL);
        return;
    }
    lend_delivery(thread, req, delivery);
}

static size_t collect_headers(const h2o_req_t *req, struct oh_header *headers, size_t *bytes)
{
    size_t count = req->headers.size < HEADERS_MAX ? req->headers.size : HEADERS_MAX;
    for (size_t i = 0; i < count; i++) {
        const h2o_header_t *header = &req->headers.entries[i];
        headers[i].name = slice_of_iovec(*header->name);
        headers[i].value = slice_of_iovec(header->value);
        *bytes += headers[i].name.len + headers[i].value.len + sizeof(headers[i]);
    }
    return count;
}

/* What the provider was given: the configured public URL and the path as it came. */
static struct oh_slice request_url(const struct config *config, h2o_req_t *req)
{
    if (!config->listen.public_url)
        return slice_of_iovec(req->input.path);
    size_t base_len = strlen(config->listen.public_url);
    char *url = h2o_mem_alloc_pool(&req->pool, base_len + req->input.path.len);
    memcpy(url, config->listen.public_url, base_len);
    memcpy(url + base_len, req->input.path.base, req->input.path.len);
    return slice_of(url, base_len + req->input.path.len);
}

/* Only then is anything of the request looked at. */
static bool is_allowed(struct http_thread *thread, h2o_req_t *req,
                       const struct config_source *source)
{
    struct in6_addr client;
    if (source->allow.count == 0 || (client_address(thread->http->config, req, &client) &&
                                     config_networks_contain(&source->allow, &client)))
        return true;
    refuse(thread, req, source, METRIC_REASON_NOT_ALLOWED, "address not allowed");
    return false;
}

static struct oh_request read_request(const struct config *config, h2o_req_t *req,
                                      struct oh_header *headers, size_t *header_bytes)
{
    return (struct oh_request){
        .method = slice_of_iovec(req->input.method),
        .url = request_url(config, req),
        .headers = headers,
        .header_count = collect_headers(req, headers, header_bytes),
        .body = slice_of_iovec(req->entity),
    };
}

static struct oh_slice slice_of_option(const char *text)
{
    return text ? slice_of_text(text) : slice_of(NULL, 0);
}

/* The secrets in use; they stay until the thread's next request. */
static const struct vault_door *door_of(struct http_thread *thread,
                                        const struct config_source *source)
{
    thread->keys = vault_get(thread->http->vault, thread->keys);
    return &thread->keys->doors[source->number];
}

static bool is_handshake(const struct config_source *source, const struct vault_door *door,
                         const struct oh_request *request, struct oh_arena *arena,
                         struct oh_handshake_answer *out)
{
    const struct oh_handshake_options options = {
        .secret = vault_secret_at(door, clock_wall_us() / 1000),
        .verify_token = slice_of_option(door->verify_token),
        .public_key = slice_of_option(door->public_key),
        .armed = clock_wall_us() / 1000 <= door->arm_until_ms,
    };
    return oh_handshake(source->provider, request, &options, arena, out);
}

void http_finish_handshake(struct http_thread *thread, h2o_req_t *req,
                           const struct config_source *source,
                           const struct oh_handshake_answer *answer)
{
    bool unarmed = answer->status == 403 && oh_handshake_learns(source->provider);
    count_answer(thread, source, answer->status);
    LOG_RATE_LIMITED(answer->status < 400 ? LOG_INFO : LOG_WARNING, "http", "handshake",
                     log_text("source", source->name), log_int("status", answer->status),
                     log_text(unarmed ? "reason" : NULL,
                              "it brings a secret, and the source is not armed "
                              "(handshake.arm_until) or has too many"));
    answer_handshake(req, answer);
}

/* What was not accepted is refused, but for a delivery that may be right: its provider signs with a
 * certificate, which comes while the provider waits to try again. */
static void refuse_unverified(struct http_thread *thread, h2o_req_t *req,
                              const struct config_source *source, enum oh_verdict verdict,
                              const struct oh_verify_result *result)
{
    static const enum metric_reason reasons[] = {
        [OH_SIGNATURE_MISSING] = METRIC_REASON_SIGNATURE_MISSING,
        [OH_SIGNATURE_WRONG] = METRIC_REASON_SIGNATURE_WRONG,
        [OH_STALE] = METRIC_REASON_STALE,
    };
    const struct http_hooks *hooks = &thread->http->hooks;
    if (result->certificate_url.data &&
        hooks->want_certificate(hooks->context, source, result->certificate_url)) {
        count_answer(thread, source, 503);
        LOG_RATE_LIMITED(LOG_WARNING, "http", "the provider's certificate is not here yet",
                         log_text("source", source->name));
        answer_problem_retry(req, 503, "the provider's certificate is being fetched; send it again",
                             RETRY_DATABASE_S);
        return;
    }
    if (verdict == OH_SIGNATURE_WRONG && source->is_asked && oh_handshake_learns(source->provider))
        hooks->look_for_secrets(hooks->context);
    refuse(thread, req, source, reasons[verdict], result->because);
}

static void on_delivery(struct http_thread *thread, h2o_req_t *req,
                        const struct config_source *source)
{
    const struct config *config = thread->http->config;
    struct oh_header headers[HEADERS_MAX];
    struct oh_handshake_answer answer;
    size_t header_bytes = 0;

    if (!is_allowed(thread, req, source))
        return;
    /* Before the signature: under overload most of the work would be for what is refused anyway. */
    if (thread->http->hooks.look(thread->http->hooks.context, source,
                                 guess_events(thread, source, req->entity.len)) == ADMISSION_OLD) {
        refuse_admission(thread, req, source, ADMISSION_OLD);
        return;
    }
    struct oh_request request = read_request(config, req, headers, &header_bytes);
    size_t first_bytes = request.body.len + header_bytes + ARENA_EXTRA;
    /* An event takes two bytes of an array at least. */
    size_t events_max = request.body.len / 2 + 1;
    if (events_max > config->queue.events)
        events_max = config->queue.events;
    struct oh_arena *arena =
        oh_arena_new(first_bytes, first_bytes * BODY_FACTOR + events_max * EVENT_BYTES);
    const struct vault_door *door = door_of(thread, source);
    bool is_asked =
        arena && source->is_asked && is_handshake(source, door, &request, arena, &answer);
    if (is_asked && answer.learned.data) {
        lesson_take(thread, req, source, &answer, arena);
        return;
    }
    if (is_asked && !answer.verify_first) {
        http_finish_handshake(thread, req, source, &answer);
        oh_arena_free(arena);
        return;
    }
    struct oh_verify_result result = {.because = "out of memory"};
    enum oh_verdict verdict = OH_SIGNATURE_WRONG;
    int64_t now_ms = clock_wall_us() / 1000;
    if (arena)
        verdict = oh_verify(source->recipe, door->keyring, &request, now_ms, source->tolerance_s,
                            arena, &result);
    if (verdict != OH_ACCEPTED) {
        refuse_unverified(thread, req, source, verdict, &result);
        oh_arena_free(arena);
        return;
    }
    vault_note_match(door, result.secret_index, now_ms / 1000);
    if (is_asked) {
        if (answer.visit.data)
            thread->http->hooks.visit(thread->http->hooks.context, source, answer.visit);
        http_finish_handshake(thread, req, source, &answer);
        oh_arena_free(arena);
        return;
    }
    static const struct http_refusal_words faster = {429, 1, true,
                                                     "faster than this source's rate_limit"};
    if (!take_token(&thread->http->buckets[source->number], source)) {
        oh_arena_free(arena);
        metrics_count_reject(thread->shard, source->number, METRIC_REASON_TOO_FAST);
        count_answer(thread, source, 429);
        refusal_hold(thread, req, &faster);
        return;
    }
    take_delivery(thread, req, source, &request, result.shown_secret, arena);
}

/* GET, HEAD or OPTIONS: the provider asks before it sends. */
static void on_question(struct http_thread *thread, h2o_req_t *req,
                        const struct config_source *source)
{
    struct oh_header headers[HEADERS_MAX];
    struct oh_handshake_answer answer;
    size_t header_bytes = 0;
    if (!is_allowed(thread, req, source))
        return;
    struct oh_request request = read_request(thread->http->config, req, headers, &header_bytes);
    struct oh_arena *arena = oh_arena_new(ARENA_EXTRA, BODY_FACTOR * ARENA_EXTRA + header_bytes);
    if (arena && is_handshake(source, door_of(thread, source), &request, arena, &answer)) {
        http_finish_handshake(thread, req, source, &answer);
    } else {
        count_answer(thread, source, 400);
        answer_problem(req, 400, "this is not how the provider asks");
    }
    oh_arena_free(arena);
}

/* ---- routes ---------------------------------------------------------------------------------- */

static const char *allowed_methods(const struct config_source *source)
{
    static const struct {
        const char *method, *allow;
    } asked[] = {{"GET", "POST, GET"}, {"HEAD", "POST, HEAD"}, {"OPTIONS", "POST, OPTIONS"}};
    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++)
        if (oh_handshake_takes(source->provider, slice_of_text(asked[i].method)))
            return asked[i].allow;
    return "POST";
}

static void on_in(struct http_thread *thread, h2o_req_t *req, struct oh_slice rest)
{
    const struct config_source *source = config_find_source(thread->http->config, rest);
    if (!source) {
        answer_problem(req, 404, "no such source");
        return;
    }
    if (h2o_memis(req->method.base, req->method.len, H2O_STRLIT("POST"))) {
        on_delivery(thread, req, source);
    } else if (oh_handshake_takes(source->provider, slice_of_iovec(req->method))) {
        on_question(thread, req, source);
    } else {
        count_answer(thread, source, 405);
        answer_method_not_allowed(req, allowed_methods(source));
    }
}

static bool is_get(const h2o_req_t *req)
{
    return h2o_memis(req->method.base, req->method.len, H2O_STRLIT("GET")) ||
           h2o_memis(req->method.base, req->method.len, H2O_STRLIT("HEAD"));
}

static void on_livez(struct http_thread *thread, h2o_req_t *req, struct oh_slice rest)
{
    (void)thread;
    (void)rest;
    if (is_get(req))
        answer_text(req, 200, "alive\n");
    else
        answer_method_not_allowed(req, "GET, HEAD");
}

static void on_readyz(struct http_thread *thread, h2o_req_t *req, struct oh_slice rest)
{
    const struct http_hooks *hooks = &thread->http->hooks;
    const char *part = "shutting down";
    (void)rest;
    if (!is_get(req)) {
        answer_method_not_allowed(req, "GET, HEAD");
    } else if (atomic_load(&thread->http->phase) == HTTP_SERVING &&
               hooks->is_ready(hooks->context, &part)) {
        answer_text(req, 200, "ready\n");
    } else {
        char detail[128];
        snprintf(detail, sizeof(detail), "not ready: %s", part);
        answer_problem_retry(req, 503, detail, RETRY_DATABASE_S);
    }
}

struct route {
    const char *path;
    bool is_prefix; /* what follows goes to the handler */
    void (*on_request)(struct http_thread *thread, h2o_req_t *req, struct oh_slice rest);
};

static const struct route routes[] = {
    {"/in/", true, on_in},
    {"/livez", false, on_livez},
    {"/readyz", false, on_readyz},
};

int http_on_request(h2o_handler_t *handler, h2o_req_t *req)
{
    (void)handler;
    struct http_thread *thread = http_connection_of(req)->thread;
    const h2o_buffer_t *input = http_connection_of(req)->socket->input;
    if (!head_is_unambiguous(input->bytes, input->size)) {
        req->http1_is_persistent = 0;
        answer_problem(req, 400, "the request frames its body in more than one way");
        return 0;
    }
    struct oh_slice path = slice_of_iovec(req->path_normalized);
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        struct oh_slice prefix = slice_of_text(routes[i].path);
        if (routes[i].is_prefix ? !slice_has_prefix(path, prefix) : !slice_equals(path, prefix))
            continue;
        routes[i].on_request(thread, req, slice_of(path.data + prefix.len, path.len - prefix.len));
        return 0;
    }
    answer_problem(req, 404, "no such path");
    return 0;
}
