/* SPDX-License-Identifier: Apache-2.0 */
/* upkeep/learner.h: one thread that keeps what came and reads what is there. */
#include "upkeep/learner.h"

#include "base/clock.h"
#include "base/embedded.h"
#include "base/slice.h"
#include "base/thread.h"
#include "oncehook/handshake.h"
#include "store/store.h"

#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

enum {
    QUEUE_MAX = 32,
    SECRET_BYTES_MAX = 1024, /* of a handshake; the table's bound too */
    LOOK_S = 30,
    RETRY_S = 2,
    PAUSE_S = 1, /* between two looks that somebody asked for */
    KEEP_S = 5,  /* how long a statement may take */
    KEEP_TRIES = 3,
};

struct lesson {
    const struct config_source *source;
    char secret[SECRET_BYTES_MAX + 1];
    _Atomic int *state;
};

struct learner {
    const struct config *config;
    struct vault *vault;
    struct store *store;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t wake;
    struct lesson queue[QUEUE_MAX];
    size_t first, count;
    bool has_thread;
    atomic_bool is_wanted; /* a look */
    atomic_bool is_stopping;
};

/* ---- reading --------------------------------------------------------------------------------- */

/* True when the vault has what the database has. */
static bool look(struct learner *learner)
{
    struct store_error error = {0};
    struct oh_error err = {.text = ""};
    PGresult *rows = NULL;
    bool changed = false, done = false;
    atomic_store(&learner->is_wanted, false);
    if (store_query(learner->store, embedded_find(embedded_sql, "get_learned.sql"), 0, NULL,
                    clock_mono_us() + KEEP_S * 1000000LL, &rows, &error) != STORE_COMMITTED) {
        LOG_RATE_LIMITED(LOG_WARNING, "upkeep", "learned secrets cannot be read; it is tried again",
                         log_text("sqlstate", error.sqlstate),
                         log_text("reason", store_error_words(&error)));
        return false;
    }
    size_t count = (size_t)PQntuples(rows);
    struct vault_learned *learned = calloc(count + 1, sizeof(*learned));
    for (int i = 0; learned && i < (int)count; i++)
        learned[i] = (struct vault_learned){
            .id = strtoll(PQgetvalue(rows, i, 0), NULL, 10),
            .source = PQgetvalue(rows, i, 1),
            .secret = slice_of(PQgetvalue(rows, i, 2), (size_t)PQgetlength(rows, i, 2))};
    if (learned && vault_learn(learner->vault, learned, count, &changed, &err) == OH_OK)
        done = true;
    if (changed)
        LOG_LINE(LOG_INFO, "upkeep", "learned secrets are in use",
                 log_int("known", (int64_t)count));
    for (int i = 0; i < (int)count; i++)
        OPENSSL_cleanse(PQgetvalue(rows, i, 2), (size_t)PQgetlength(rows, i, 2));
    free(learned);
    PQclear(rows);
    return done;
}

static bool ensure_connected(struct learner *learner)
{
    struct store_error error;
    return store_check_idle(learner->store) ||
           store_connect(learner->store,
                         clock_mono_us() + learner->config->database.connect_timeout_ms * 1000,
                         &error); /* the lanes say why not, once */
}

/* ---- keeping --------------------------------------------------------------------------------- */

/* An unknown outcome is asked again: who is known already is not kept twice. */
static enum vault_lesson keep(struct learner *learner, const struct lesson *lesson)
{
    const char *const values[] = {lesson->source->name, lesson->secret, VAULT_LEARNED_MAX_TEXT};
    struct store_error error = {0};
    enum store_action action = STORE_RECONNECT;
    bool is_full = false;
    for (int i = 0; i < KEEP_TRIES && action != STORE_COMMITTED; i++) {
        PGresult *row = NULL;
        if (!ensure_connected(learner))
            break;
        action = store_query(learner->store, "/* learn_v1 */ SELECT learn_v1($1, $2, $3::integer)",
                             3, values, clock_mono_us() + KEEP_S * 1000000LL, &row, &error);
        is_full = action == STORE_COMMITTED && PQgetisnull(row, 0, 0);
        PQclear(row);
    }
    if (action != STORE_COMMITTED) {
        LOG_LINE(LOG_ERROR, "upkeep", "a handshake brought a secret that could not be kept",
                 log_text("source", lesson->source->name), log_text("sqlstate", error.sqlstate),
                 log_text("reason", store_error_words(&error)));
        return VAULT_LESSON_FAILED;
    }
    if (is_full) {
        LOG_LINE(LOG_ERROR, "upkeep", "a handshake brought one secret too many",
                 log_text("source", lesson->source->name), log_int("most", VAULT_LEARNED_MAX));
        return VAULT_LESSON_REFUSED;
    }
    LOG_LINE(LOG_INFO, "upkeep", "a handshake brought a secret; it is kept",
             log_text("source", lesson->source->name));
    return look(learner) ? VAULT_LESSON_KEPT : VAULT_LESSON_FAILED;
}

bool learner_keep(struct learner *learner, const struct config_source *source,
                  struct oh_slice secret, _Atomic int *lesson)
{
    bool has_room = false;
    if (!learner || secret.len > SECRET_BYTES_MAX)
        return false;
    pthread_mutex_lock(&learner->mutex);
    if (learner->count < QUEUE_MAX && !atomic_load(&learner->is_stopping)) {
        struct lesson *last = &learner->queue[(learner->first + learner->count++) % QUEUE_MAX];
        *last = (struct lesson){.source = source, .state = lesson};
        memcpy(last->secret, secret.data, secret.len);
        atomic_store(lesson, VAULT_LESSON_WAITS);
        has_room = true;
        pthread_cond_signal(&learner->wake);
    }
    pthread_mutex_unlock(&learner->mutex);
    return has_room;
}

/* Takes the first that waits; false when none does. */
static bool next_lesson(struct learner *learner, struct lesson *out)
{
    pthread_mutex_lock(&learner->mutex);
    bool found = learner->count > 0;
    if (found) {
        struct lesson *first = &learner->queue[learner->first];
        *out = *first;
        OPENSSL_cleanse(first->secret, sizeof(first->secret));
        learner->first = (learner->first + 1) % QUEUE_MAX;
        learner->count--;
    }
    pthread_mutex_unlock(&learner->mutex);
    return found;
}

/* ---- the thread ------------------------------------------------------------------------------ */

void learner_look(struct learner *learner)
{
    if (!learner || atomic_exchange(&learner->is_wanted, true))
        return;
    pthread_mutex_lock(&learner->mutex);
    pthread_cond_signal(&learner->wake);
    pthread_mutex_unlock(&learner->mutex);
}

/* Waits until something is to be done: a lesson, the time of the next look, or one that is wanted,
 * which never comes before `soonest_us`. True: look. */
static bool wait(struct learner *learner, int64_t soonest_us, int64_t next_us)
{
    pthread_mutex_lock(&learner->mutex);
    int64_t until_us = next_us, now_us = clock_mono_us();
    while (learner->count == 0 && !atomic_load(&learner->is_stopping) && now_us < until_us) {
        if (atomic_load(&learner->is_wanted) && soonest_us < until_us)
            until_us = soonest_us;
        struct timespec until = {.tv_sec = until_us / 1000000,
                                 .tv_nsec = until_us % 1000000 * 1000};
        pthread_cond_timedwait(&learner->wake, &learner->mutex, &until);
        now_us = clock_mono_us();
    }
    pthread_mutex_unlock(&learner->mutex);
    return now_us >= until_us;
}

static void *run(void *argument)
{
    struct learner *learner = argument;
    struct lesson lesson;
    int64_t next_us = 0, soonest_us = 0;
    thread_set_name("learner", THREAD_NO_NUMBER);
    while (!atomic_load(&learner->is_stopping)) {
        if (wait(learner, soonest_us, next_us)) {
            bool done = ensure_connected(learner) && look(learner);
            soonest_us = clock_mono_us() + PAUSE_S * 1000000LL;
            next_us = clock_mono_us() + (done ? LOOK_S : RETRY_S) * 1000000LL;
        }
        while (!atomic_load(&learner->is_stopping) && next_lesson(learner, &lesson)) {
            enum vault_lesson outcome = keep(learner, &lesson);
            OPENSSL_cleanse(lesson.secret, sizeof(lesson.secret));
            atomic_store(lesson.state, outcome);
        }
    }
    return NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

enum oh_status learner_start(const struct config *config, struct vault *vault, struct learner **out,
                             struct oh_error *err)
{
    bool is_needed = false;
    *out = NULL;
    for (size_t i = 0; i < config->source_count; i++)
        is_needed |= oh_handshake_learns(config->sources[i].provider);
    if (!is_needed)
        return OH_OK;
    struct learner *learner = calloc(1, sizeof(*learner));
    if (!learner)
        return oh_fail(err, OH_NO_MEMORY, "no memory for the learner");
    learner->config = config;
    learner->vault = vault;
    pthread_mutex_init(&learner->mutex, NULL);
    thread_cond_init(&learner->wake);
    learner->store = store_new(config, config->database.url, "learner");
    if (learner->store)
        store_set_patience(learner->store, KEEP_S * 1000, &learner->is_stopping);
    learner->has_thread =
        learner->store && pthread_create(&learner->thread, NULL, run, learner) == 0;
    if (!learner->has_thread) {
        learner_free(learner);
        return oh_fail(err, OH_SYSTEM, "the learner could not be started");
    }
    *out = learner;
    return OH_OK;
}

void learner_stop(struct learner *learner)
{
    struct lesson lesson;
    if (!learner)
        return;
    pthread_mutex_lock(&learner->mutex);
    atomic_store(&learner->is_stopping, true);
    pthread_cond_broadcast(&learner->wake);
    pthread_mutex_unlock(&learner->mutex);
    if (learner->has_thread)
        pthread_join(learner->thread, NULL);
    learner->has_thread = false;
    while (next_lesson(learner, &lesson)) {
        OPENSSL_cleanse(lesson.secret, sizeof(lesson.secret));
        atomic_store(lesson.state, VAULT_LESSON_FAILED);
    }
}

void learner_free(struct learner *learner)
{
    if (!learner)
        return;
    if (learner->has_thread)
        learner_stop(learner);
    if (learner->store)
        store_free(learner->store);
    pthread_cond_destroy(&learner->wake);
    pthread_mutex_destroy(&learner->mutex);
    free(learner);
}
