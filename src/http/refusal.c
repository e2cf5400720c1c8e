/* SPDX-License-Identifier: Apache-2.0 */
/* Refusals for overload are held a moment. A client that does not back off sends its next request
 * as soon as it hears of the last one: answered at once, its connections would keep both the http
 * threads and the client busy with refusals, and what is accepted, of this source and of others,
 * would wait for a processor. Held, each connection asks ten times a second at most, and asks for
 * nothing meanwhile.
 *
 * At the end of the moment they take turns with everything else: a few a turn of the loop, so that
 * the next turn, with what those connections send then, is short. */
#include "http/room.h"

#include "base/clock.h"

enum {
    HOLD_MS = 100, /* less than what is accepted may take in an overload: queue.age */
    REFUSALS_A_TURN = 32,
    /* A request that holds more is answered at once: its memory is free again before the next one
       is read. */
    HELD_BODY_BYTES = 16 * 1024,
};

/* In the request's pool. */
struct refusal {
    struct list link; /* in its thread's refusals, by due_mono_us */
    h2o_req_t *req;
    struct http_thread *thread;
    const struct http_refusal_words *words;
    int64_t due_mono_us;
};

/* `req`: NULL where libh2o has ended it. */
static void leave(struct refusal *refusal, h2o_req_t *req)
{
    list_remove(&refusal->link);
    refusal->req = NULL;
    http_end_waiting(refusal->thread, req);
}

static void on_refusal_dispose(void *pointer)
{
    struct refusal *refusal = pointer;
    if (refusal->req)
        leave(refusal, NULL);
}

void refusal_hold(struct http_thread *thread, h2o_req_t *req,
                  const struct http_refusal_words *words)
{
    if (req->entity.len > HELD_BODY_BYTES) {
        answer_problem_retry(req, words->status, words->detail, words->retry_after_s);
        return;
    }
    struct refusal *refusal =
        h2o_mem_alloc_shared(&req->pool, sizeof(*refusal), on_refusal_dispose);
    *refusal = (struct refusal){.req = req,
                                .thread = thread,
                                .words = words,
                                .due_mono_us = clock_mono_us() + HOLD_MS * 1000};
    list_push_tail(&thread->refusals, &refusal->link);
    http_begin_waiting(thread, req);
}

void refusal_answer_due(struct http_thread *thread, bool all)
{
    int64_t now_us = clock_mono_us();
    for (int i = 0; i < REFUSALS_A_TURN && !list_is_empty(&thread->refusals); i++) {
        struct refusal *refusal = LIST_ENTRY(thread->refusals.next, struct refusal, link);
        if (refusal->due_mono_us > now_us && !all)
            return;
        const struct http_refusal_words *words = refusal->words;
        h2o_req_t *req = refusal->req;
        leave(refusal, req);
        answer_problem_retry(req, words->status, words->detail, words->retry_after_s);
    }
}
