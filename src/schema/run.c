/* SPDX-License-Identifier: Apache-2.0 */
/* The three kinds of steps. A transaction waits 100 ms for a lock, since captures queue behind it,
 * and tries again for a minute; what takes no lock that they feel may wait for minutes. */
#include "schema/run.h"

#include "base/clock.h"
#include "schema/look.h"
#include "schema/statement.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    TRY_FOR_S = 60,
    PAUSE_FIRST_MS = 100,
    PAUSE_MAX_MS = 2000,
    BUILD_TRIES = 3,
    BATCH_PAUSE_MIN_MS = 5,
};

/* Lost to others' locks, and nothing has happened. */
static bool is_lock_state(const char *state)
{
    return strcmp(state, "55P03") == 0 || strcmp(state, "40P01") == 0 ||
           strcmp(state, "40001") == 0;
}

/* ---- a transaction --------------------------------------------------------------------------- */

static enum oh_status try_transaction(struct session *session, const char *sql,
                                      const struct run *run, long long *rows)
{
    session->state[0] = '\0';
    enum oh_status status = session_begin(session);
    if (status == OH_OK && run && run->before)
        status = run->before(session, run->context);
    if (status == OH_OK)
        status = session_run(session, sql, rows);
    if (status == OH_OK && run && run->after)
        status = run->after(session, run->context);
    if (status == OH_OK)
        status = session_commit(session);
    if (status != OH_OK)
        session_rollback(session);
    return status;
}

/* Half to one and a half times the pause, so that two do not meet again. */
static void pause_ms(int ms)
{
    usleep((useconds_t)(ms * 500 + (int)(random() % (ms * 1000))));
}

static enum oh_status give_up(struct session *session, int64_t start_us)
{
    return oh_fail(session->err, OH_SYSTEM,
                   "no lock within %.0f s, in %d tries of 100 ms; blocked by %s. Nothing of this "
                   "step has happened: run it again when they are done, or end them with "
                   "pg_terminate_backend()",
                   (double)(clock_mono_us() - start_us) / 1e6, session->waits.tries,
                   session->waits.who[0] ? session->waits.who : "nobody that was seen");
}

static enum oh_status try_for_long(struct session *session, const char *sql, const struct run *run,
                                   long long *rows)
{
    const int64_t start_us = clock_mono_us();
    for (int ms = PAUSE_FIRST_MS;; ms = ms * 2 < PAUSE_MAX_MS ? ms * 2 : PAUSE_MAX_MS) {
        enum oh_status status = try_transaction(session, sql, run, rows);
        session->waits.tries++;
        if (status == OH_OK || !is_lock_state(session->state))
            return status;
        session->waits.waited_us = clock_mono_us() - start_us;
        if (session->waits.waited_us > TRY_FOR_S * INT64_C(1000000))
            return give_up(session, start_us);
        pause_ms(ms);
        session->waits.waited_us = clock_mono_us() - start_us;
    }
}

enum oh_status run_transaction(struct session *session, const char *sql, const struct run *run)
{
    return try_for_long(session, sql, run, NULL);
}

/* ---- batches --------------------------------------------------------------------------------- */

/* Each batch is a transaction; between them the others have as long as it took. A statement that
 * finds its own rows again would never end: more than its table ever had is too many. */
static enum oh_status run_batches(struct session *session, const char *sql, const struct run *run)
{
    long long total = 0, rows = 0;
    enum oh_status status;
    PGresult *counted;

    /* The sum of all tables is a bound that needs no name. */
    status = session_query(session,
                           "SELECT 100000 + 4 * coalesce(sum(greatest(reltuples, relpages * 200)), "
                           "0)::bigint FROM pg_class WHERE relkind IN ('r', 'm')",
                           0, NULL, &counted);
    if (status != OH_OK)
        return status;
    const long long most = strtoll(PQgetvalue(counted, 0, 0), NULL, 10);
    PQclear(counted);
    do {
        int64_t start_us = clock_mono_us();
        const struct run quiet = {.step = run->step};
        status = try_for_long(session, sql, &quiet, &rows);
        total += rows;
        if (status == OH_OK && total > most)
            status = oh_fail(session->err, OH_INVALID,
                             "the batches do not end: %lld rows, and it still finds some", total);
        if (status == OH_OK && session->is_tty)
            fprintf(stderr, "\r\033[K%lld rows", total);
        usleep((useconds_t)(clock_mono_us() - start_us) + BATCH_PAUSE_MIN_MS * 1000);
    } while (status == OH_OK && rows > 0);
    if (session->is_tty)
        fputs("\r\033[K", stderr);
    if (status == OH_OK)
        session_say(session, "  %lld rows", total);
    return status == OH_OK ? try_for_long(session, "", run, NULL) : status;
}

/* ---- concurrently ---------------------------------------------------------------------------- */

/* Outside of a transaction; its locks stop nobody, so it may wait long for those before it. */
static enum oh_status run_outside(struct session *session, const char *sql)
{
    char set[256];
    snprintf(set, sizeof(set),
             "SET lock_timeout = '10min'; SET statement_timeout = 0; SET search_path = %s, pg_temp",
             session->schema_quoted);
    enum oh_status status = session_query(session, set, 0, NULL, NULL);
    return status == OH_OK ? session_run(session, sql, NULL) : status;
}

/* 't' valid, 'f' INVALID, 0: there is no such index. */
static enum oh_status ask_index(struct session *session, const char *name, char *is_valid)
{
    const char *const values[] = {session->schema, name};
    PGresult *rows;
    enum oh_status status = session_query(
        session,
        "SELECT x.indisvalid FROM pg_class c JOIN pg_index x ON x.indexrelid = c.oid "
        "WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) AND c.relname = "
        "$2",
        2, values, &rows);
    if (status != OH_OK)
        return status;
    *is_valid = PQntuples(rows) == 1 ? PQgetvalue(rows, 0, 0)[0] : '\0';
    PQclear(rows);
    return OH_OK;
}

/* CREATE INDEX CONCURRENTLY. What a failure leaves is INVALID, and goes at once. */
static enum oh_status build(struct session *session, const char *create, const char *drop)
{
    enum oh_status status = OH_OK;
    for (int i = 0; i < BUILD_TRIES; i++) {
        struct oh_error why;
        char state[6];
        status = run_outside(session, create);
        session->waits.tries++;
        if (status == OH_OK)
            return OH_OK;
        why = *session->err;
        memcpy(state, session->state, sizeof(state));
        if (PQstatus(session->connection) != CONNECTION_OK || run_outside(session, drop) != OH_OK) {
            *session->err = why;
            return status;
        }
        *session->err = why;
        if (!is_lock_state(state))
            return status;
        pause_ms(PAUSE_MAX_MS);
    }
    return status;
}

/* "CREATE INDEX CONCURRENTLY i ON t …" -> "CREATE INDEX i ON ONLY t …". location: of `t`. */
static bool write_parent(char *sql, size_t size, struct oh_slice text, size_t location)
{
    static const char word[] = "concurrently";
    size_t begin = step_skip_comments(text), at = begin;
    while (at < location && strncasecmp(text.data + at, word, sizeof(word) - 1) != 0)
        at++;
    size_t after = at + sizeof(word) - 1;
    return at < location && snprintf(sql, size, "%.*s%.*sONLY %.*s", (int)(at - begin),
                                     text.data + begin, (int)(location - after), text.data + after,
                                     (int)(text.len - location), text.data + location) < (int)size;
}

/* One month that lacks its part: builds it, or takes one that is there, and attaches it. */
static enum oh_status build_month(struct session *session, const PGresult *months)
{
    const char *drop = PQgetvalue(months, 0, 3);
    bool is_there = !PQgetisnull(months, 0, 2), is_valid = PQgetvalue(months, 0, 2)[0] == 't';
    enum oh_status status = OH_OK;

    if (is_there && !is_valid)
        status = run_outside(session, drop);
    if (status == OH_OK && !(is_there && is_valid))
        status = build(session, PQgetvalue(months, 0, 4), drop);
    if (status == OH_OK)
        status = run_transaction(session, PQgetvalue(months, 0, 5), NULL);
    if (status == OH_OK)
        session_say(session, "  %s: %s", PQgetvalue(months, 0, 0), PQgetvalue(months, 0, 1));
    return status;
}

/* ON ONLY the parent, CONCURRENTLY on each month, ATTACH. Months that others make meanwhile come
 * with their part. */
static enum oh_status build_partitioned(struct session *session, const char *name,
                                        const char *parent, char is_there)
{
    const char *const values[] = {name, session->schema};
    enum oh_status status = is_there ? OH_OK : run_transaction(session, parent, NULL);
    for (int count = 1; status == OH_OK && count > 0;) {
        PGresult *months;
        status = session_query(session, embedded_find(embedded_sql, "migrate_months.sql"), 2,
                               values, &months);
        if (status != OH_OK)
            break;
        count = PQntuples(months);
        if (count > 0)
            status = build_month(session, months);
        PQclear(months);
    }
    return status;
}

static enum oh_status run_index(struct session *session, const struct run *run, json_t *index,
                                struct oh_slice text)
{
    const char *name = tree_text(index, "idxname"), *table = tree_text(index, "relation.relname");
    size_t location = (size_t)json_integer_value(tree_node(index, "relation.location"));
    char sql[4096], drop[128], kind = '\0', is_valid = '\0';

    enum oh_status status = look_kind(session, table, &kind);
    if (status == OH_OK)
        status = ask_index(session, name, &is_valid);
    if (status != OH_OK)
        return status;
    if (is_valid && !run->is_again)
        return oh_fail(session->err, OH_INVALID,
                       "index %s is there already and not of this migration: drop or rename it",
                       name);
    if (is_valid == 't')
        return OH_OK; /* done before the record of it was */
    if (kind == 'p') {
        if (!write_parent(sql, sizeof(sql), text, location))
            return oh_fail(session->err, OH_INVALID, "the statement of index %s is too long", name);
        return build_partitioned(session, name, sql, is_valid);
    }
    snprintf(drop, sizeof(drop), "DROP INDEX CONCURRENTLY IF EXISTS \"%s\"", name);
    if (is_valid)
        status = run_outside(session, drop);
    if (snprintf(sql, sizeof(sql), "%.*s", (int)text.len, text.data) >= (int)sizeof(sql))
        return oh_fail(session->err, OH_INVALID, "the statement of index %s is too long", name);
    return status == OH_OK ? build(session, sql, drop) : status;
}

enum oh_status run_clean(struct session *session, const struct step *step)
{
    struct statements statements;
    enum oh_status status = OH_OK;
    json_t *members;

    if (step->kind != STEP_CONCURRENTLY || statements_parse(step->text, &statements, NULL) != OH_OK)
        return OH_OK;
    if (strcmp(statement_type(&statements, 0, &members), "IndexStmt") == 0) {
        const char *const values[] = {tree_text(members, "idxname"), session->schema};
        PGresult *months;
        status = session_query(session, embedded_find(embedded_sql, "migrate_months.sql"), 2,
                               values, &months);
        for (int i = 0; status == OH_OK && i < PQntuples(months); i++)
            if (!PQgetisnull(months, i, 2))
                status = run_outside(session, PQgetvalue(months, i, 3));
        PQclear(months);
    }
    statements_free(&statements);
    return status;
}

static enum oh_status run_concurrently(struct session *session, const char *sql,
                                       const struct run *run)
{
    struct statements statements;
    json_t *members;
    if (statements_parse(run->step->text, &statements, NULL) != OH_OK)
        statements = (struct statements){NULL, 0};
    bool is_index =
        statements.count == 1 && strcmp(statement_type(&statements, 0, &members), "IndexStmt") == 0;
    enum oh_status status =
        is_index ? run_index(session, run, members, statement_text(&statements, 0, run->step->text))
                 : run_outside(session, sql);
    statements_free(&statements);
    return status == OH_OK ? run_transaction(session, "", run) : status;
}

enum oh_status run_step(struct session *session, const struct run *run)
{
    char *sql = strndup(run->step->text.data, run->step->text.len);
    enum oh_status status = OH_OK;

    session->waits = (struct waits){0};
    if (!sql)
        return oh_fail(session->err, OH_NO_MEMORY, "no memory");
    if (run->step->kind == STEP_TRANSACTION)
        status = run_transaction(session, sql, run);
    else if (run->step->kind == STEP_BATCHES)
        status = run_batches(session, sql, run);
    else
        status = run_concurrently(session, sql, run);
    free(sql);
    return status;
}
