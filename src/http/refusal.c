/* SPDX-License-Identifier: Apache-2.0 */
/* Refusals for overload take turns with everything else. A flood keeps thousands of connections
 * ready to be read; answered as they come, each of them would be served before a calm source's one.
 * So a turn of the loop answers the first few at once and the others at its end, a few a turn. A
 * connection that waits for its refusal asks for nothing, and the next turn is short.
 *
 * Nothing is refused later for it than by the turns that the refusals before it take. */
#include "http/room.h"

enum {
    REFUSALS_A_TURN = 32,
    /* A request that holds more is answered at once: its memory is free again before the next one
       is read. */
    WAITING_BODY_BYTES = 16 * 1024,
};

/* In the request's pool. */
struct refusal {
    struct list link; /* in its thread's refusals */
    h2o_req_t *req;
    struct http_thread *thread;
    const struct http_refusal_words *words;
};

static void leave(struct refusal *refusal)
{
    list_remove(&refusal->link);
    refusal->req = NULL;
    atomic_fetch_sub_explicit(&refusal->thread->unanswered, 1, memory_order_relaxed);
}

static void on_refusal_dispose(void *pointer)
{
    struct refusal *refusal = pointer;
    if (refusal->req)
        leave(refusal);
}

void refusal_answer(struct http_thread *thread, h2o_req_t *req,
                    const struct http_refusal_words *words)
{
    if (thread->refusals_left > 0 || req->entity.len > WAITING_BODY_BYTES) {
        thread->refusals_left -= thread->refusals_left > 0;
        answer_problem_retry(req, words->status, words->detail, words->retry_after_s);
        return;
    }
    struct refusal *refusal =
        h2o_mem_alloc_shared(&req->pool, sizeof(*refusal), on_refusal_dispose);
    *refusal = (struct refusal){.req = req, .thread = thread, .words = words};
    list_push_tail(&thread->refusals, &refusal->link);
    atomic_fetch_add_explicit(&thread->unanswered, 1, memory_order_relaxed);
}

bool refusal_answer_waiting(struct http_thread *thread)
{
    for (int i = 0; i < REFUSALS_A_TURN && !list_is_empty(&thread->refusals); i++) {
        struct refusal *refusal = LIST_ENTRY(thread->refusals.next, struct refusal, link);
        const struct http_refusal_words *words = refusal->words;
        h2o_req_t *req = refusal->req;
        leave(refusal);
        answer_problem_retry(req, words->status, words->detail, words->retry_after_s);
    }
    /* Those that wait come first; what the next turn brings is refused behind them. */
    bool are_left = !list_is_empty(&thread->refusals);
    thread->refusals_left = are_left ? 0 : REFUSALS_A_TURN;
    return are_left;
}
