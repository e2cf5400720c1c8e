/* SPDX-License-Identifier: Apache-2.0 */
/* A handshake that brought a secret: the provider hears 200 only when the secret is kept. Meanwhile
 * the request waits as one does for its delivery; each turn of the loop looks how it went. */
#include "http/room.h"

#include "base/clock.h"
#include "base/slice.h"
#include "log/log.h"

#include <stdlib.h>

enum { LESSONS_MAX = 16, RETRY_S = 2 };

struct lesson {
    struct list link;
    h2o_req_t *req;       /* NULL once answered or gone */
    struct lesson **slip; /* its place in the request's pool, while req is not NULL */
    const struct config_source *source;
    struct oh_handshake_answer answer; /* lives as long as the request, and in the arena */
    struct oh_arena *arena;
    int64_t deadline_mono_us;
    _Atomic int state; /* enum vault_lesson; the learner's until it is not WAITS */
};

/* In the request's pool. */
struct slip {
    struct http_thread *thread;
    struct lesson *lesson; /* NULL once answered */
};

static void on_slip_dispose(void *pointer)
{
    struct slip *slip = pointer;
    if (!slip->lesson)
        return;
    slip->lesson->req = NULL;
    http_end_waiting(slip->thread, NULL);
}

static void refuse(struct http_thread *thread, h2o_req_t *req, const struct config_source *source,
                   const char *why)
{
    metrics_count_delivery(thread->shard, source->number, 503);
    LOG_RATE_LIMITED(LOG_WARNING, "http", "handshake not answered",
                     log_text("source", source->name), log_text("reason", why));
    answer_problem_retry(req, 503, "the secret could not be kept; send it again", RETRY_S);
}

void lesson_take(struct http_thread *thread, h2o_req_t *req, const struct config_source *source,
                 const struct oh_handshake_answer *answer, struct oh_arena *arena)
{
    const struct http_hooks *hooks = &thread->http->hooks;
    struct lesson *lesson = thread->lesson_count < LESSONS_MAX ? calloc(1, sizeof(*lesson)) : NULL;
    if (!lesson || !hooks->keep(hooks->context, source, answer->learned, &lesson->state)) {
        free(lesson);
        oh_arena_free(arena);
        refuse(thread, req, source, "too many wait");
        return;
    }
    struct slip *slip = h2o_mem_alloc_shared(&req->pool, sizeof(*slip), on_slip_dispose);
    *slip = (struct slip){thread, lesson};
    lesson->req = req;
    lesson->slip = &slip->lesson;
    lesson->source = source;
    lesson->answer = *answer;
    lesson->arena = arena;
    lesson->deadline_mono_us = clock_mono_us() + source->ack_deadline_ms * 1000;
    list_push_tail(&thread->lessons, &lesson->link);
    thread->lesson_count++;
    http_begin_waiting(thread, req);
}

/* Takes the request back; NULL if it is gone or answered already. */
static h2o_req_t *end_waiting(struct http_thread *thread, struct lesson *lesson)
{
    h2o_req_t *req = lesson->req;
    if (req) {
        *lesson->slip = NULL;
        http_end_waiting(thread, req);
    }
    lesson->req = NULL;
    return req;
}

void lesson_answer_all(struct http_thread *thread)
{
    struct list *next;
    for (struct list *node = thread->lessons.next; node != &thread->lessons; node = next) {
        struct lesson *lesson = LIST_ENTRY(node, struct lesson, link);
        next = node->next;
        int state = atomic_load(&lesson->state);
        if (state == VAULT_LESSON_WAITS && clock_mono_us() < lesson->deadline_mono_us)
            continue;
        h2o_req_t *req = end_waiting(thread, lesson);
        if (req && (state == VAULT_LESSON_WAITS || state == VAULT_LESSON_FAILED)) {
            refuse(thread, req, lesson->source, "PostgreSQL has not kept the secret");
        } else if (req) {
            if (state == VAULT_LESSON_REFUSED)
                lesson->answer = (struct oh_handshake_answer){.status = 403};
            http_finish_handshake(thread, req, lesson->source, &lesson->answer);
        }
        if (state == VAULT_LESSON_WAITS)
            continue; /* the learner still writes into it */
        list_remove(&lesson->link);
        thread->lesson_count--;
        oh_arena_free(lesson->arena);
        free(lesson);
    }
}
