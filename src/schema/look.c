/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes, estimates, ANALYZE, what is left. The speeds are rough, of a small machine
 * (docs/migrations.md says how they were measured): an estimate is to tell seconds from hours. */
#include "schema/look.h"

#include <stdio.h>
#include <stdlib.h>

/* Bytes a second of each work; rows a second for WORK_ROWS. */
static const struct {
    const char *words;
    double bytes_per_s, rows_per_s;
    bool should_analyze;
} works[] = {
    [WORK_CATALOG] = {"changes the catalog only", 0, 0, false},
    [WORK_SCAN] = {"reads it", 300e6, 0, false},
    [WORK_INDEX] = {"builds an index", 60e6, 0, true},
    [WORK_REWRITE] = {"writes it anew", 40e6, 0, true},
    [WORK_ROWS] = {"writes rows", 0, 20e3, true},
};

static enum oh_status ask_size(struct session *session, const char *table, PGresult **rows)
{
    const char *const values[] = {table, session->schema};
    return session_query(session, embedded_find(embedded_sql, "migrate_size.sql"), 2, values, rows);
}

enum oh_status look_kind(struct session *session, const char *table, char *kind)
{
    PGresult *rows;
    enum oh_status status = ask_size(session, table, &rows);
    if (status == OH_OK)
        *kind = PQntuples(rows) == 1 ? PQgetvalue(rows, 0, 0)[0] : '\0';
    if (status == OH_OK)
        PQclear(rows);
    return status;
}

static enum oh_status look_at(struct session *session, const struct effect *effect, json_t *tables)
{
    PGresult *rows;
    enum oh_status status = ask_size(session, effect->table, &rows);
    if (status != OH_OK)
        return status;
    if (PQntuples(rows) == 1) {
        double bytes = strtod(PQgetvalue(rows, 0, 1), NULL);
        double count = strtod(PQgetvalue(rows, 0, 2), NULL);
        double bytes_per_s = works[effect->work].bytes_per_s;
        double rows_per_s = works[effect->work].rows_per_s;
        double seconds =
            (bytes_per_s > 0 ? bytes / bytes_per_s : 0) + (rows_per_s > 0 ? count / rows_per_s : 0);
        session_say(session, "  %s: %s, about %.0f rows; %s, %s, about %.*f s", effect->table,
                    PQgetvalue(rows, 0, 3), count, lock_mode_name(effect->lock),
                    works[effect->work].words, seconds < 10 ? 1 : 0, seconds);
        if (works[effect->work].should_analyze)
            json_object_set_new(tables, effect->table, json_true());
    }
    PQclear(rows);
    return OH_OK;
}

/* Of several effects on one table the longest work counts, and the strongest lock. */
static size_t merge_effects(struct effect *all, size_t count, const struct effect *more)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(all[i].table, more->table) == 0) {
            all[i].lock = all[i].lock > more->lock ? all[i].lock : more->lock;
            all[i].work = all[i].work > more->work ? all[i].work : more->work;
            return count;
        }
    if (count < EFFECTS_MAX)
        all[count++] = *more;
    return count;
}

enum oh_status look_before(struct session *session, const struct step *step, json_t *tables)
{
    struct effect all[EFFECTS_MAX], some[EFFECTS_MAX];
    struct statements statements;
    enum oh_status status = OH_OK;
    size_t count = 0;

    if (statements_parse(step->text, &statements, NULL) != OH_OK)
        return OH_OK; /* newer than the grammar here: the server decides */
    for (size_t i = 0; i < statements.count; i++) {
        json_t *members;
        const char *type = statement_type(&statements, i, &members);
        size_t few = statement_effects(type, members, some);
        for (size_t k = 0; k < few; k++)
            if (!some[k].is_index)
                count = merge_effects(all, count, &some[k]);
    }
    for (size_t i = 0; i < count && status == OH_OK; i++)
        status = look_at(session, &all[i], tables);
    statements_free(&statements);
    return status;
}

void look_analyze(struct session *session, json_t *tables)
{
    const char *table;
    json_t *value;
    json_object_foreach(tables, table, value)
    {
        char sql[256];
        snprintf(sql, sizeof(sql), "SET lock_timeout = '2s'; ANALYZE %s.%s", session->schema_quoted,
                 table);
        if (session_run(session, sql, NULL) == OH_OK)
            session_say(session, "analyzed %s", table);
        else
            session_say(session, "%s is not analyzed: %s", table, session->err->text);
    }
}

enum oh_status look_verify(struct session *session)
{
    const char *const values[] = {session->schema};
    PGresult *rows;
    enum oh_status status =
        session_query(session, embedded_find(embedded_sql, "migrate_verify.sql"), 1, values, &rows);
    if (status != OH_OK)
        return status;
    session_say(session,
                "verified: version %zu of %zu, %s invalid indexes, %s constraints not "
                "validated",
                session->migrations.count, session->migrations.count, PQgetvalue(rows, 0, 0),
                PQgetvalue(rows, 0, 1));
    PQclear(rows);
    return OH_OK;
}
