/* SPDX-License-Identifier: Apache-2.0 */
/* What up, down and status share: the owner's connection, the migrations of the binary, those that
 * the database says were applied, and the check of one against the other. Blocking libpq: only
 * commands use it. Thread: one at a time. */
#ifndef SCHEMA_SESSION_H
#define SCHEMA_SESSION_H

#include "schema/migration.h"
#include "schema/schema.h"

#include <libpq-fe.h>

/* A row of schema_migrations. */
struct applied {
    int version;
    char name[64];
    char checksum[65];
    char when[32]; /* UTC, to the second */
};

/* A migration of several steps that was begun and not ended; version 0: there is none. */
struct unfinished {
    int version, done;      /* steps that are done */
    bool is_down, is_begun; /* is_begun: step done + 1 was, and may have left something */
    char checksum[65];
};

/* What a statement, or the tries of a step, waited for. */
struct waits {
    int tries;
    int64_t waited_us;
    char who[320]; /* pid, application_name, state; "" = nobody was seen */
};

struct session {
    PGconn *connection;
    PGconn *watch; /* looks at what `connection` waits for; NULL until it is needed */
    const char *url, *schema;
    char *schema_quoted; /* as an SQL identifier */
    struct migrations migrations;
    struct applied *applied; /* ascending by version */
    size_t applied_count;
    bool schema_exists, ledger_exists; /* the schema; schema_migrations in it */
    struct unfinished unfinished;
    struct waits waits;
    char state[6]; /* SQLSTATE of the last error, or "" */
    bool is_tty;   /* progress is drawn on stderr */
    const struct schema_report *report;
    struct oh_error *err;
};

/* Connects, takes the advisory lock if `lock` (tried in a loop, for at most a minute), and reads
 * what was applied. Refuses (OH_INVALID) a changed migration and a schema_migrations of somebody
 * else. `err` must not be NULL. session_close() whatever it returns. */
enum oh_status session_open(struct session *session, const char *url, const char *schema, bool lock,
                            const struct schema_report *report, struct oh_error *err) OH_MUST_CHECK;
void session_close(struct session *session);

/* Runs `sql`: with count == 0 and no `rows` it may be several statements. *rows (or NULL, where
 * nobody wants them) must be cleared. Errors: OH_SYSTEM with the server's words and its hint. */
enum oh_status session_query(struct session *session, const char *sql, int count,
                             const char *const *values, PGresult **rows) OH_MUST_CHECK;

/* Likewise for what may take long: `sql` is one or more statements. Meanwhile session->waits notes
 * who blocks it, and a terminal sees how far an index is. *rows (or NULL): rows that the last
 * statement touched. */
enum oh_status session_run(struct session *session, const char *sql, long long *rows) OH_MUST_CHECK;
/* As an error of libpq or of the server; result may be NULL. */
enum oh_status session_fail(struct session *session, const PGresult *result);

/* BEGIN, with the schema as search_path and a short lock_timeout; and its end. */
enum oh_status session_begin(struct session *session) OH_MUST_CHECK;
enum oh_status session_commit(struct session *session) OH_MUST_CHECK;
void session_rollback(struct session *session);

/* The row of schema_migrations of that version, or NULL. */
const struct applied *session_find_applied(const struct session *session, int version);

/* One line of `migrate`'s output. */
void session_say(const struct session *session, const char *format, ...) OH_PRINTF(2, 3);

#endif
