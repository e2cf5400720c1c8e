/* SPDX-License-Identifier: Apache-2.0 */
/* migrate up, down, status. A migration of one step is one transaction: it and its row in
 * schema_migrations are there, or neither is. One of several steps is recorded step by step, and
 * goes on after the last one that is done. */
#include "schema/schema.h"

#include "base/clock.h"
#include "schema/look.h"
#include "schema/run.h"
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

static enum oh_status is_there(struct session *session, struct oh_slice table, bool *answer)
{
    char name[64];
    snprintf(name, sizeof(name), "%.*s", (int)table.len, table.data);
    const char *const values[] = {session->schema, name};
    PGresult *rows;
    enum oh_status status = session_query(
        session, "SELECT to_regclass(format('%I.%I', $1::text, $2::text)) IS NOT NULL", 2, values,
        &rows);
    if (status != OH_OK)
        return status;
    *answer = PQgetvalue(rows, 0, 0)[0] == 't';
    PQclear(rows);
    return OH_OK;
}

/* Refuses if a table that the migration made has rows; `lock`: and keeps everybody off it. One that
 * a step before has dropped has none. */
static enum oh_status refuse_rows(struct session *session, const struct migration *migration,
                                  bool lock)
{
    enum oh_status status = OH_OK;
    size_t at = 0;

    for (struct oh_slice t; status == OH_OK && (t = migration_next_table(migration, &at)).data;) {
        PGresult *rows;
        bool there = false;
        char sql[256];
        status = is_there(session, t, &there);
        if (status != OH_OK || !there)
            continue;
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

static enum oh_status remember_migration(struct session *session, const struct migration *migration)
{
    char version[16];
    snprintf(version, sizeof(version), "%d", migration->version);
    const char *const values[] = {version, migration->name, migration->checksum};
    return session_query(
        session, "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)", 3,
        values, NULL);
}

/* What the hooks of a step know of it. */
struct at {
    const struct migration *migration;
    const struct change *change;
    const struct steps *steps;
    size_t number; /* of the step, from 1 */
};

static enum oh_status keep_off_rows(struct session *session, void *context)
{
    const struct at *at = context;
    return at->change->is_down && !at->change->force ? refuse_rows(session, at->migration, true)
                                                     : OH_OK;
}

static enum oh_status record_migration(struct session *session, void *context)
{
    const struct at *at = context;
    bool is_alone = at->steps->count == 1 && at->steps->items[0].kind == STEP_TRANSACTION;
    enum oh_status status = OH_OK;
    if (!is_alone || session->unfinished.version)
        status =
            session_query(session, "DROP TABLE IF EXISTS schema_migration_steps", 0, NULL, NULL);
    if (status != OH_OK)
        return status;
    return at->change->is_down ? forget_migration(session, at->migration)
                               : remember_migration(session, at->migration);
}

/* ---- several steps --------------------------------------------------------------------------- */

/* The table is there only while a migration is half-way: a row a step that was begun. Going the
 * other way forgets what was done this way. */
static enum oh_status begin_step(struct session *session, const struct at *at)
{
    char sql[1024];
    snprintf(
        sql, sizeof(sql),
        "CREATE TABLE IF NOT EXISTS %s.schema_migration_steps (version integer NOT NULL, is_down "
        "boolean NOT NULL, checksum text NOT NULL, step integer NOT NULL, begun_at timestamptz "
        "NOT NULL DEFAULT now(), done_at timestamptz, PRIMARY KEY (version, is_down, step)); "
        "DELETE FROM %s.schema_migration_steps WHERE is_down <> %s; "
        "INSERT INTO %s.schema_migration_steps (version, is_down, checksum, step) "
        "VALUES (%d, %s, '%s', %zu) ON CONFLICT DO NOTHING",
        session->schema_quoted, session->schema_quoted, at->change->is_down ? "true" : "false",
        session->schema_quoted, at->migration->version, at->change->is_down ? "true" : "false",
        at->migration->checksum, at->number);
    return session_query(session, sql, 0, NULL, NULL);
}

static enum oh_status record_step(struct session *session, void *context)
{
    const struct at *at = context;
    char number[16];
    snprintf(number, sizeof(number), "%zu", at->number);
    const char *const values[] = {number};
    enum oh_status status =
        session_query(session, "UPDATE schema_migration_steps SET done_at = now() WHERE step = $1",
                      1, values, NULL);
    if (status == OH_OK && at->number == at->steps->count)
        status = record_migration(session, context);
    return status;
}

static void say_waits(const struct session *session)
{
    const struct waits *w = &session->waits;
    if (w->who[0] || w->waited_us > 0)
        session_say(session, "  waited %.1f s for locks, %d tries; blocked by %s",
                    (double)w->waited_us / 1e6, w->tries,
                    w->who[0] ? w->who : "nobody that was seen");
}

static enum oh_status run_one(struct session *session, struct at *at, bool is_again, json_t *tables)
{
    const struct step *step = &at->steps->items[at->number - 1];
    const struct run run = {
        step, is_again, keep_off_rows,
        at->steps->count == 1 && step->kind == STEP_TRANSACTION ? record_migration : record_step,
        at};
    const char *way = at->change->is_down ? "undo" : "apply";
    enum oh_status status = OH_OK;

    if (at->steps->count > 1)
        session_say(session, "%s%s %04d %s, step %zu of %zu: %s",
                    at->change->dry_run ? "would " : "", way, at->migration->version,
                    at->migration->name, at->number, at->steps->count, step_kind_name(step->kind));
    else if (at->change->dry_run)
        session_say(session, "would %s %04d %s", way, at->migration->version, at->migration->name);
    if (session->ledger_exists)
        status = look_before(session, step, tables);
    if (status != OH_OK || at->change->dry_run)
        return status;
    if (run.after == record_step)
        status = begin_step(session, at);
    if (status == OH_OK)
        status = run_step(session, &run);
    say_waits(session);
    return status;
}

/* What was half-way up goes down. */
static enum oh_status clean_up(struct session *session, const struct migration *migration)
{
    struct steps steps;
    enum oh_status status = steps_read(migration->up, &steps, session->err);
    for (size_t i = 0; status == OH_OK && i < steps.count; i++)
        status = run_clean(session, &steps.items[i]);
    return status;
}

static enum oh_status run_change(struct session *session, const struct migration *migration,
                                 const struct change *change)
{
    const struct unfinished *u = &session->unfinished;
    struct steps steps;
    struct at at = {migration, change, &steps, 1};
    int64_t start_us = clock_mono_us();
    json_t *tables = json_object();
    bool is_again = false;

    enum oh_status status =
        steps_read(change->is_down ? migration->down : migration->up, &steps, session->err);
    if (status == OH_OK && u->version == migration->version && change->is_down && !u->is_down &&
        !change->dry_run)
        status = clean_up(session, migration);
    if (u->version == migration->version && u->is_down == change->is_down) {
        is_again = u->is_begun;
        at.number += (size_t)u->done;
        session_say(session, "%04d %s goes on: %d of %zu steps are done", migration->version,
                    migration->name, u->done, steps.count);
    }
    for (; status == OH_OK && at.number <= steps.count; at.number++, is_again = false)
        status = run_one(session, &at, is_again, tables);
    if (status == OH_OK && !change->dry_run) {
        session_say(session, "%s %04d %s in %lld ms", change->is_down ? "undid" : "applied",
                    migration->version, migration->name,
                    (long long)(clock_mono_us() - start_us) / 1000);
        if (!change->is_down)
            look_analyze(session, tables);
    }
    json_decref(tables);
    return status;
}

/* ---- up ------------------------------------------------------------------------------------- */

/* A table that a migration is going to make and that is there already is somebody else's. */
static enum oh_status refuse_foreign_tables(struct session *session,
                                            const struct migration *migration)
{
    size_t at = 0;
    if (migration->version == session->unfinished.version)
        return OH_OK;
    for (struct oh_slice t; (t = migration_next_table(migration, &at)).data;) {
        bool there = false;
        enum oh_status status = is_there(session, t, &there);
        if (status != OH_OK)
            return status;
        if (there)
            return oh_fail(
                session->err, OH_INVALID,
                "table %.*s in schema %s was not made by oncehook: set database.schema to a schema "
                "of its own",
                (int)t.len, t.data, session->schema_quoted);
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
    const struct unfinished *u = &session->unfinished;
    enum oh_status status = OH_OK;
    size_t missing = 0;

    if (u->version && u->is_down)
        return oh_fail(session->err, OH_INVALID,
                       "migration %04d is half undone: `oncehook migrate down` ends that first",
                       u->version);
    /* All of them first: half a schema beside somebody else's tables helps nobody. */
    for (size_t i = 0; i < session->migrations.count && status == OH_OK; i++)
        if (!session_find_applied(session, session->migrations.items[i].version))
            status = refuse_foreign_tables(session, &session->migrations.items[i]);
    for (size_t i = 0; i < session->migrations.count && status == OH_OK; i++) {
        if (session_find_applied(session, session->migrations.items[i].version))
            continue;
        if (missing++ == 0 && session->ledger_exists)
            session_say(session, "nothing here makes a backup: is there one? (docs/migrations.md)");
        else if (missing == 1 && !change->dry_run)
            status = make_ledger(session);
        if (status == OH_OK)
            status = run_change(session, &session->migrations.items[i], change);
    }
    if (status == OH_OK && missing > 0 && !change->dry_run)
        status = look_verify(session);
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

enum { STEPS_MAX_DOWN = 9999 };

/* The last `steps` applied migrations, newest first. Rows are looked for in all of them before the
 * first is undone, and again in each one's transaction, with everybody kept off. */
static enum oh_status undo_last(struct session *session, int steps, const struct change *change)
{
    const struct migration *migrations = session->migrations.items;
    int versions[STEPS_MAX_DOWN], count = 0;
    enum oh_status status = OH_OK;

    /* What is half-way up is the newest; what is half undone still stands in schema_migrations. */
    if (session->unfinished.version && !session->unfinished.is_down)
        versions[count++] = session->unfinished.version;
    for (size_t i = session->applied_count; i > 0 && count < steps && count < STEPS_MAX_DOWN; i--)
        versions[count++] = session->applied[i - 1].version;
    if (count == 0) {
        session_say(session, "nothing to do: schema %s has no migration", session->schema_quoted);
        return OH_OK;
    }
    if ((size_t)versions[0] > session->migrations.count)
        return oh_fail(
            session->err, OH_INVALID,
            "the database is at version %d and this oncehook knows %zu: the newer one must undo it",
            versions[0], session->migrations.count);
    for (int i = 0; i < count && status == OH_OK && !change->force; i++)
        status = refuse_rows(session, &migrations[versions[i] - 1], false);
    for (int i = 0; i < count && status == OH_OK; i++)
        status = run_change(session, &migrations[versions[i] - 1], change);
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
        if (m->version == session.unfinished.version)
            session_say(&session, "%04d %-16s half-way %s, %d steps are done", m->version, m->name,
                        session.unfinished.is_down ? "down" : "up", session.unfinished.done);
        else
            session_say(&session, "%04d %-16s %s", m->version, m->name, a ? a->when : "pending");
    }
    for (size_t i = 0; status == OH_OK && i < session.applied_count; i++)
        if ((size_t)session.applied[i].version > session.migrations.count)
            session_say(&session, "%04d %-16s %s (of a newer oncehook)", session.applied[i].version,
                        session.applied[i].name, session.applied[i].when);
    session_close(&session);
    return status;
}
