/* SPDX-License-Identifier: Apache-2.0 */
/* Refusals for overload are held a moment. A client that does not back off sends its next request
 * as soon as it hears of the last one: answered at once, its connections would keep both the http
 * threads and the client busy with refusals, and what is accepted, of this source and of others,
 * would wait for a processor. Held, each connection asks ten times a second at most, and twice a
 * second when it does not wait as long as Retry-After says; and it asks for nothing meanwhile.
 *
 * At the end of the moment they take turns with everything else: a few a turn of the loop, so that
 * the next turn, with what those connections send then, is short. While three quarters of a
 * thread's connections are held, the moment is the short one for all: through a proxy the
 * connections are everybody's. */
#include "http/room.h"

#include "base/clock.h"

enum {
    AGAIN_MS = 1000, /* Retry-After: who asks earlier on the same connection did not wait */
    REFUSALS_A_TURN = 32,
    /* A request that holds more is answered at once: its memory is free again before the next one
       is read. */
    HELD_BODY_BYTES = 16 * 1024,
};

static const int64_t hold_us[HTTP_HOLDS] = {
    [HTTP_HOLD_FIRST] = 100000, /* less than what is accepted may take in an overload: queue.age */
    [HTTP_HOLD_AGAIN] = 500000,
};

/* In the request's pool. */
struct refusal {
    struct list link; /* in one of its thread's refusals, by due_mono_us; in none: it has left */
    h2o_req_t *req;
    struct http_thread *thread;
    const struct http_refusal_words *words;
    int64_t due_mono_us;
};

/* `req`: NULL where libh2o has ended it. */
static void leave(struct refusal *refusal, h2o_req_t *req)
{
    list_remove(&refusal->link);
    refusal->thread->refusal_count--;
    http_end_waiting(refusal->thread, req);
}

static void on_refusal_dispose(void *pointer)
{
    struct refusal *refusal = pointer;
    if (!list_is_empty(&refusal->link))
        leave(refusal, NULL);
}

void refusal_hold(struct http_thread *thread, h2o_req_t *req,
                  const struct http_refusal_words *words)
{
    if (req->entity.len > HELD_BODY_BYTES) {
        answer_problem_retry(req, words->status, words->detail, words->retry_after_s);
        return;
    }
    int64_t now_us = clock_mono_us(), refused_us = http_connection_of(req)->refused_mono_us;
    bool is_again = refused_us && now_us - refused_us < AGAIN_MS * 1000;
    enum http_hold hold = is_again ? HTTP_HOLD_AGAIN : HTTP_HOLD_FIRST;
    struct refusal *refusal =
        h2o_mem_alloc_shared(&req->pool, sizeof(*refusal), on_refusal_dispose);
    *refusal = (struct refusal){
        .req = req, .thread = thread, .words = words, .due_mono_us = now_us + hold_us[hold]};
    list_push_tail(&thread->refusals[hold], &refusal->link);
    thread->refusal_count++;
    http_begin_waiting(thread, req);
}

/* The one that is due first, at *due_us; NULL = there is none. */
static struct refusal *first_due(struct http_thread *thread, int64_t *due_us)
{
    bool is_crowded = thread->refusal_count > thread->connection_max - thread->connection_max / 4;
    struct refusal *first = NULL;
    for (int i = 0; i < HTTP_HOLDS; i++) {
        if (list_is_empty(&thread->refusals[i]))
            continue;
        struct refusal *one = LIST_ENTRY(thread->refusals[i].next, struct refusal, link);
        int64_t early_us = is_crowded ? hold_us[i] - hold_us[HTTP_HOLD_FIRST] : 0;
        if (first && one->due_mono_us - early_us >= *due_us)
            continue;
        first = one;
        *due_us = one->due_mono_us - early_us;
    }
    return first;
}

void refusal_answer_due(struct http_thread *thread, bool all)
{
    int64_t now_us = clock_mono_us(), due_us;
    struct refusal *refusal;
    for (int i = 0; i < REFUSALS_A_TURN && (refusal = first_due(thread, &due_us)); i++) {
        if (due_us > now_us && !all)
            return;
        const struct http_refusal_words *words = refusal->words;
        h2o_req_t *req = refusal->req;
        leave(refusal, req);
        http_connection_of(req)->refused_mono_us = now_us;
        answer_problem_retry(req, words->status, words->detail, words->retry_after_s);
    }
}
