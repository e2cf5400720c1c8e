/* SPDX-License-Identifier: Apache-2.0 */
/* The owner's connection. Whatever it refuses, it refuses before it has changed anything. */
#include "schema/session.h"

#include "base/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { LOCK_WAIT_S = 60, LOCK_RETRY_MS = 100 };

/* Who is killed is noticed by the server, which gives its locks back. */
static const char at_first[] = "SET client_connection_check_interval = '2s'";

static void drop_notice(void *context, const PGresult *notice)
{
    (void)context;
    (void)notice;
}

void session_say(const struct session *session, const char *format, ...)
{
    char text[512];
    va_list args;

    if (!session->report)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    session->report->line(session->report->context, text);
}

/* The server's words on one line, and its hint: the one of a missing role says what to run. */
enum oh_status session_fail(struct session *session, const PGresult *result)
{
    const char *text = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    const char *hint = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_HINT) : NULL;
    const char *state = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;

    snprintf(session->state, sizeof(session->state), "%s", state ? state : "");
    if (!text) {
        oh_fail(session->err, OH_SYSTEM, "database: %s", PQerrorMessage(session->connection));
        for (char *c = session->err->text; (c = strpbrk(c, "\n\t")) != NULL;)
            *c = c[1] ? ' ' : '\0';
        return OH_SYSTEM;
    }
    return oh_fail(session->err, OH_SYSTEM, "database: %s (%s)%s%s", text, state ? state : "?",
                   hint ? ". " : "", hint ? hint : "");
}

enum oh_status session_query(struct session *session, const char *sql, int count,
                             const char *const *values, PGresult **rows)
{
    PGresult *result = count == 0 && !rows ? PQexec(session->connection, sql)
                                           : PQexecParams(session->connection, sql, count, NULL,
                                                          values, NULL, NULL, 0);
    ExecStatusType got = PQresultStatus(result);
    enum oh_status status = OH_OK;

    if (got != PGRES_TUPLES_OK && got != PGRES_COMMAND_OK)
        status = session_fail(session, result);
    if (rows)
        *rows = status == OH_OK ? result : NULL;
    if (!rows || status != OH_OK)
        PQclear(result);
    return status;
}

enum oh_status session_begin(struct session *session)
{
    char sql[512];
    /* pg_temp last: else a temporary table would come before the schema's own. */
    snprintf(sql, sizeof(sql),
             "BEGIN; SET LOCAL lock_timeout = '100ms'; SET LOCAL statement_timeout = 0; "
             "SET LOCAL search_path = %s, pg_temp",
             session->schema_quoted);
    return session_query(session, sql, 0, NULL, NULL);
}

enum oh_status session_commit(struct session *session)
{
    return session_query(session, "COMMIT", 0, NULL, NULL);
}

void session_rollback(struct session *session)
{
    PQclear(PQexec(session->connection, "ROLLBACK"));
}

static enum oh_status connect_owner(struct session *session)
{
    static const char *const names[] = {"fallback_application_name", "connect_timeout", "dbname",
                                        NULL};
    const char *const values[] = {"oncehook migrate", "10", session->url, NULL};

    session->connection = PQconnectdbParams(names, values, 1);
    if (!session->connection)
        return oh_fail(session->err, OH_NO_MEMORY, "no memory");
    PQsetNoticeReceiver(session->connection, drop_notice, NULL);
    if (PQstatus(session->connection) != CONNECTION_OK)
        return session_fail(session, NULL);
    session->schema_quoted =
        PQescapeIdentifier(session->connection, session->schema, strlen(session->schema));
    enum oh_status status = session_query(session, at_first, 0, NULL, NULL);
    if (status != OH_OK)
        return status;
    if (!session->schema_quoted || strlen(session->schema) > 63)
        return oh_fail(session->err, OH_INVALID, "not a schema's name: %.100s", session->schema);
    return OH_OK;
}

/* Tried, never waited for: a wait inside pg_advisory_lock() holds a snapshot, for which a CREATE
 * INDEX CONCURRENTLY of the one that holds the lock would wait in turn. */
static enum oh_status take_lock(struct session *session)
{
    const int64_t deadline_us = clock_mono_us() + LOCK_WAIT_S * INT64_C(1000000);
    const char *const values[] = {session->schema};
    bool taken = false, said = false;

    for (;;) {
        PGresult *rows;
        enum oh_status status = session_query(
            session, "SELECT pg_try_advisory_lock(hashtext('oncehook migrate'), hashtext($1))", 1,
            values, &rows);
        if (status != OH_OK)
            return status;
        taken = PQgetvalue(rows, 0, 0)[0] == 't';
        PQclear(rows);
        if (taken)
            return OH_OK;
        if (clock_mono_us() >= deadline_us)
            return oh_fail(session->err, OH_SYSTEM, "another migrate has held the lock for %d s",
                           LOCK_WAIT_S);
        if (!said)
            session_say(session, "waiting for another migrate");
        said = true;
        usleep(LOCK_RETRY_MS * 1000);
    }
}

/* Is there a schema; a schema_migrations; is that one ours (others use the same name)? */
static enum oh_status look_at_schema(struct session *session)
{
    const char *const values[] = {session->schema};
    PGresult *rows;
    enum oh_status status = session_query(
        session,
        "SELECT n.oid IS NOT NULL, c.oid IS NOT NULL, "
        "       (SELECT coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{}') = "
        "               '{version,name,checksum,applied_at}' "
        "          FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT "
        "a.attisdropped) "
        "  FROM (VALUES (1)) one "
        "  LEFT JOIN pg_namespace n ON n.nspname = $1 "
        "  LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'schema_migrations'",
        1, values, &rows);
    if (status != OH_OK)
        return status;
    session->schema_exists = PQgetvalue(rows, 0, 0)[0] == 't';
    session->ledger_exists = PQgetvalue(rows, 0, 1)[0] == 't';
    if (session->ledger_exists && PQgetvalue(rows, 0, 2)[0] != 't')
        status = oh_fail(
            session->err, OH_INVALID,
            "schema_migrations in schema %s was not made by oncehook: set database.schema to a "
            "schema of its own",
            session->schema_quoted);
    PQclear(rows);
    return status;
}

static enum oh_status read_applied(struct session *session)
{
    PGresult *rows;
    char sql[256];
    snprintf(sql, sizeof(sql),
             "SELECT version, name, checksum, to_char(applied_at AT TIME ZONE 'UTC', "
             "'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM %s.schema_migrations ORDER BY version",
             session->schema_quoted);
    enum oh_status status = session_query(session, sql, 0, NULL, &rows);
    if (status != OH_OK)
        return status;

    int count = PQntuples(rows);
    session->applied = calloc((size_t)count + 1, sizeof(*session->applied));
    if (!session->applied)
        status = oh_fail(session->err, OH_NO_MEMORY, "no memory");
    for (int i = 0; i < count && session->applied; i++) {
        struct applied *a = &session->applied[session->applied_count++];
        a->version = (int)strtol(PQgetvalue(rows, i, 0), NULL, 10); /* an integer column */
        snprintf(a->name, sizeof(a->name), "%s", PQgetvalue(rows, i, 1));
        snprintf(a->checksum, sizeof(a->checksum), "%s", PQgetvalue(rows, i, 2));
        snprintf(a->when, sizeof(a->when), "%s", PQgetvalue(rows, i, 3));
    }
    PQclear(rows);
    return status;
}

static enum oh_status read_unfinished(struct session *session)
{
    struct unfinished *u = &session->unfinished;
    PGresult *rows;
    char sql[320];
    snprintf(sql, sizeof(sql), "SELECT to_regclass('%s.schema_migration_steps') IS NOT NULL",
             session->schema_quoted);
    enum oh_status status = session_query(session, sql, 0, NULL, &rows);
    if (status != OH_OK)
        return status;
    bool is_there = PQgetvalue(rows, 0, 0)[0] == 't';
    PQclear(rows);
    if (!is_there)
        return OH_OK;
    snprintf(sql, sizeof(sql),
             "SELECT version, is_down, checksum, count(done_at), count(*) > count(done_at) "
             "FROM %s.schema_migration_steps GROUP BY 1, 2, 3",
             session->schema_quoted);
    status = session_query(session, sql, 0, NULL, &rows);
    if (status == OH_OK && PQntuples(rows) > 0) {
        u->version = (int)strtol(PQgetvalue(rows, 0, 0), NULL, 10);
        u->is_down = PQgetvalue(rows, 0, 1)[0] == 't';
        snprintf(u->checksum, sizeof(u->checksum), "%s", PQgetvalue(rows, 0, 2));
        u->done = (int)strtol(PQgetvalue(rows, 0, 3), NULL, 10);
        u->is_begun = PQgetvalue(rows, 0, 4)[0] == 't';
    }
    PQclear(rows);
    return status;
}

static enum oh_status check_unfinished(const struct session *session)
{
    const struct unfinished *u = &session->unfinished;
    if (u->version < 1)
        return OH_OK;
    if ((size_t)u->version > session->migrations.count)
        return oh_fail(session->err, OH_INVALID,
                       "migration %04d of a newer oncehook is half-way: the newer one must end it",
                       u->version);
    if (strcmp(u->checksum, session->migrations.items[u->version - 1].checksum) != 0)
        return oh_fail(
            session->err, OH_INVALID,
            "migration %04d was changed while it was half-way (%d steps are done): end it "
            "with the oncehook that began it",
            u->version, u->done);
    return OH_OK;
}

static enum oh_status check_applied(struct session *session)
{
    for (size_t i = 0; i < session->applied_count; i++) {
        const struct applied *a = &session->applied[i];
        if (a->version < 1)
            return oh_fail(session->err, OH_INVALID, "schema_migrations holds version %d",
                           a->version);
        if ((size_t)a->version > session->migrations.count)
            continue; /* a newer oncehook's */
        const struct migration *m = &session->migrations.items[a->version - 1];
        if (strcmp(a->checksum, m->checksum) != 0)
            return oh_fail(
                session->err, OH_INVALID,
                "migration %04d %s was changed after it was applied: this oncehook has %.12s…, "
                "the database has %.12s… (%s, %s)",
                m->version, m->name, m->checksum, a->checksum, a->name, a->when);
    }
    return OH_OK;
}

const struct applied *session_find_applied(const struct session *session, int version)
{
    for (size_t i = 0; i < session->applied_count; i++)
        if (session->applied[i].version == version)
            return &session->applied[i];
    return NULL;
}

enum oh_status session_open(struct session *session, const char *url, const char *schema, bool lock,
                            const struct schema_report *report, struct oh_error *err)
{
    *session = (struct session){.url = url,
                                .schema = schema,
                                .report = report,
                                .err = err,
                                .is_tty = isatty(STDERR_FILENO) == 1};
    enum oh_status status = migrations_read(embedded_sql, &session->migrations, err);
    if (status == OH_OK)
        status = connect_owner(session);
    if (status == OH_OK && lock)
        status = take_lock(session);
    if (status == OH_OK)
        status = look_at_schema(session);
    if (status == OH_OK && session->ledger_exists)
        status = read_applied(session);
    if (status == OH_OK && session->schema_exists)
        status = read_unfinished(session);
    if (status == OH_OK)
        status = check_applied(session);
    if (status == OH_OK)
        status = check_unfinished(session);
    return status;
}

void session_close(struct session *session)
{
    PQfreemem(session->schema_quoted);
    PQfinish(session->watch);
    PQfinish(session->connection); /* gives the lock back */
    migrations_free(&session->migrations);
    free(session->applied);
    *session = (struct session){0};
}
