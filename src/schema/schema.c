/* SPDX-License-Identifier: Apache-2.0 */
/* migrate up, down, status. A migration is one transaction: it and its row in schema_migrations are
 * there, or neither is. */
#include "schema/schema.h"

#include "base/clock.h"
#include "schema/session.h"

#include <stdio.h>

int schema_version_wanted(void)
{
    struct migrations migrations;
    if (migrations_read(embedded_sql, &migrations, NULL) != OH_OK)
        return 0;
    int version = (int)migrations.count;
    migrations_free(&migrations);
    return version;
}

/* ---- one migration --------------------------------------------------------------------------- */

/* What is asked for: a way, and how. */
struct change {
    bool is_down, force, dry_run;
};

/* Refuses if a table that the migration made has rows; `lock`: and keeps everybody off it. */
static enum oh_status refuse_rows(struct session *session, const struct migration *migration,
                                  bool lock)
{
    enum oh_status status = OH_OK;
    size_t at = 0;

    for (struct oh_slice t; status == OH_OK && (t = migration_next_table(migration, &at)).data;) {
        PGresult *rows;
        char sql[256];
        snprintf(sql, sizeof(sql), "LOCK TABLE %s.%.*s IN ACCESS EXCLUSIVE MODE",
                 session->schema_quoted, (int)t.len, t.data);
        if (lock)
            status = session_query(session, sql, 0, NULL, NULL);
        snprintf(sql, sizeof(sql), "SELECT EXISTS (SELECT FROM %s.%.*s)", session->schema_quoted,
                 (int)t.len, t.data);
        if (status == OH_OK)
            status = session_query(session, sql, 0, NULL, &rows);
        if (status != OH_OK)
            return status;
        if (PQgetvalue(rows, 0, 0)[0] == 't')
            status = oh_fail(session->err, OH_INVALID,
                             "undoing %04d %s would destroy the rows of %.*s: --force does it",
                             migration->version, migration->name, (int)t.len, t.data);
        PQclear(rows);
    }
    return status;
}

static enum oh_status forget_migration(struct session *session, const struct migration *migration)
{
    char version[16];
    snprintf(version, sizeof(version), "%d", migration->version);
    const char *const values[] = {version};

    enum oh_status status =
        session_query(session, "DELETE FROM schema_migrations WHERE version = $1", 1, values, NULL);
    if (status == OH_OK && migration->version == 1) /* the last one: nothing of ours stays */
        status = session_query(session, "DROP TABLE schema_migrations", 0, NULL, NULL);
    return status;
}

static enum oh_status change_in_transaction(struct session *session,
                                            const struct migration *migration,
                                            const struct change *change)
{
    char version[16];
    snprintf(version, sizeof(version), "%d", migration->version);
    const char *const values[] = {version, migration->name, migration->checksum};
    const char *sql = change->is_down ? migration->down->text : migration->up->text;

    enum oh_status status = session_begin(session);
    if (status == OH_OK && change->is_down && !change->force)
        status = refuse_rows(session, migration, true);
    if (status == OH_OK)
        status = session_query(session, sql, 0, NULL, NULL);
    if (status == OH_OK && change->is_down)
        status = forget_migration(session, migration);
    else if (status == OH_OK)
        status = session_query(
            session, "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
            3, values, NULL);
    if (status == OH_OK)
        status = session_commit(session);
    if (status != OH_OK)
        session_rollback(session);
    return status;
}

static enum oh_status run_change(struct session *session, const struct migration *migration,
                                 const struct change *change)
{
    if (change->dry_run) {
        session_say(session, "would %s %04d %s", change->is_down ? "undo" : "apply",
                    migration->version, migration->name);
        return OH_OK;
    }
    int64_t start_us = clock_mono_us();
    enum oh_status status = change_in_transaction(session, migration, change);
    if (status == OH_OK)
        session_say(session, "%s %04d %s in %lld ms", change->is_down ? "undid" : "applied",
                    migration->version, migration->name,
                    (long long)(clock_mono_us() - start_us) / 1000);
    return status;
}

/* ---- up ------------------------------------------------------------------------------------- */

/* A table that a migration is going to make and that is there already is somebody else's. */
static enum oh_status refuse_foreign_tables(struct session *session,
                                            const struct migration *migration)
{
    size_t at = 0;
    for (struct oh_slice t; (t = migration_next_table(migration, &at)).data;) {
        char name[64];
        snprintf(name, sizeof(name), "%.*s", (int)t.len, t.data);
        const char *const values[] = {session->schema, name};
        PGresult *rows;
        enum oh_status status = session_query(
            session, "SELECT to_regclass(format('%I.%I', $1::text, $2::text)) IS NOT NULL", 2,
            values, &rows);
        if (status != OH_OK)
            return status;
        bool there = PQgetvalue(rows, 0, 0)[0] == 't';
        PQclear(rows);
        if (there)
            return oh_fail(
                session->err, OH_INVALID,
                "table %s in schema %s was not made by oncehook: set database.schema to a schema "
                "of its own",
                name, session->schema_quoted);
    }
    return OH_OK;
}

static enum oh_status make_ledger(struct session *session)
{
    char sql[512];
    enum oh_status status = OH_OK;

    if (!session->schema_exists) {
        snprintf(sql, sizeof(sql), "CREATE SCHEMA %s", session->schema_quoted);
        status = session_query(session, sql, 0, NULL, NULL);
    }
    if (status != OH_OK)
        return status;
    snprintf(sql, sizeof(sql),
             "CREATE TABLE %s.schema_migrations (version integer PRIMARY KEY CHECK (version > 0), "
             "name text NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT "
             "now())",
             session->schema_quoted);
    return session_query(session, sql, 0, NULL, NULL);
}

static enum oh_status apply_missing(struct session *session, const struct change *change)
{
    enum oh_status status = OH_OK;
    size_t missing = 0;

    /* All of them first: half a schema beside somebody else's tables helps nobody. */
    for (size_t i = 0; i < session->migrations.count && status == OH_OK; i++)
        if (!session_find_applied(session, session->migrations.items[i].version))
            status = refuse_foreign_tables(session, &session->migrations.items[i]);
    for (size_t i = 0; i < session->migrations.count && status == OH_OK; i++) {
        if (session_find_applied(session, session->migrations.items[i].version))
            continue;
        if (missing++ == 0 && !change->dry_run && !session->ledger_exists)
            status = make_ledger(session);
        if (status == OH_OK)
            status = run_change(session, &session->migrations.items[i], change);
    }
    if (status == OH_OK && missing == 0)
        session_say(session, "nothing to do: schema %s is at version %d", session->schema_quoted,
                    session->applied[session->applied_count - 1].version);
    return status;
}

enum oh_status schema_up(const char *url, const char *schema, bool dry_run,
                         const struct schema_report *report, struct oh_error *err)
{
    const struct change change = {.dry_run = dry_run};
    struct session session;
    enum oh_status status = session_open(&session, url, schema, !dry_run, report, err);
    if (status == OH_OK)
        status = apply_missing(&session, &change);
    session_close(&session);
    return status;
}

/* ---- down ----------------------------------------------------------------------------------- */

/* The last `steps` applied migrations, newest first. Rows are looked for in all of them before the
 * first is undone, and again in each one's transaction, with everybody kept off. */
static enum oh_status undo_last(struct session *session, int steps, const struct change *change)
{
    if (session->applied_count == 0) {
        session_say(session, "nothing to do: schema %s has no migration", session->schema_quoted);
        return OH_OK;
    }
    int newest = session->applied[session->applied_count - 1].version;
    if ((size_t)newest > session->migrations.count)
        return oh_fail(
            session->err, OH_INVALID,
            "the database is at version %d and this oncehook knows %zu: the newer one must undo it",
            newest, session->migrations.count);

    const size_t count = session->applied_count;
    const size_t first = (size_t)steps < count ? count - (size_t)steps : 0;
    const struct migration *migrations = session->migrations.items;
    enum oh_status status = OH_OK;
    for (size_t i = count; i > first && status == OH_OK && !change->force; i--)
        status = refuse_rows(session, &migrations[session->applied[i - 1].version - 1], false);
    for (size_t i = count; i > first && status == OH_OK; i--)
        status = run_change(session, &migrations[session->applied[i - 1].version - 1], change);
    return status;
}

enum oh_status schema_down(const char *url, const char *schema, int steps, bool force, bool dry_run,
                           const struct schema_report *report, struct oh_error *err)
{
    const struct change change = {.is_down = true, .force = force, .dry_run = dry_run};
    struct session session;
    enum oh_status status = session_open(&session, url, schema, !dry_run, report, err);
    if (status == OH_OK)
        status = undo_last(&session, steps, &change);
    session_close(&session);
    return status;
}

/* ---- status --------------------------------------------------------------------------------- */

enum oh_status schema_status(const char *url, const char *schema,
                             const struct schema_report *report, struct oh_error *err)
{
    struct session session;
    enum oh_status status = session_open(&session, url, schema, false, report, err);

    for (size_t i = 0; status == OH_OK && i < session.migrations.count; i++) {
        const struct migration *m = &session.migrations.items[i];
        const struct applied *a = session_find_applied(&session, m->version);
        session_say(&session, "%04d %-16s %s", m->version, m->name, a ? a->when : "pending");
    }
    for (size_t i = 0; status == OH_OK && i < session.applied_count; i++)
        if ((size_t)session.applied[i].version > session.migrations.count)
            session_say(&session, "%04d %-16s %s (of a newer oncehook)", session.applied[i].version,
                        session.applied[i].name, session.applied[i].when);
    session_close(&session);
    return status;
}
