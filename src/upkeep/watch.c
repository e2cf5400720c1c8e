/* SPDX-License-Identifier: Apache-2.0 */
/* What is watched of the database: a few of `doctor`'s looks (sql/doctor_*.sql), the first value of
 * each as a gauge. A look that fails is absent: an old value would say that all is well. */
#include "upkeep/chores.h"

#include "base/embedded.h"

#include <libpq-fe.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GAUGE(member) offsetof(struct metrics_gauges, member)

static const struct {
    const char *file;
    size_t gauge;
} looks[] = {
    {"doctor_months.sql", GAUGE(months_ahead)},
    {"doctor_transactions.sql", GAUGE(oldest_transaction_seconds)},
    {"doctor_dead_rows.sql", GAUGE(dead_row_share)},
    {"doctor_ids.sql", GAUGE(id_headroom)},
    {"doctor_hit_ratio.sql", GAUGE(hit_ratio)},
    {"doctor_size.sql", GAUGE(database_bytes)},
    {"doctor_quarantine.sql", GAUGE(quarantine_oldest_seconds)},
    {"retention_age.sql", GAUGE(retention_age_seconds)},
};

enum { LOOK_COUNT = sizeof(looks) / sizeof(looks[0]) };
_Static_assert((int)LOOK_COUNT == (int)WATCH_LOOKS, "upkeep/chores.h holds a value for each");

/* Two more columns, a part and its whole since the statistics began: the ratio since the last look,
 * while enough happens for one to mean something. */
enum { COLUMN_VALUE, COLUMN_PART = 3, COLUMN_WHOLE, WHOLE_MIN = 1000 };

static double read_number(const PGresult *rows, int column)
{
    if (PQntuples(rows) == 0 || PQgetisnull(rows, 0, column))
        return NAN;
    return strtod(PQgetvalue(rows, 0, column), NULL);
}

static double read_ratio(struct watch *watch, const PGresult *rows, double before)
{
    double part = read_number(rows, COLUMN_PART), whole = read_number(rows, COLUMN_WHOLE);
    double parts = part - watch->part, wholes = whole - watch->whole;
    if (isnan(wholes) || isnan(parts))
        return NAN;
    if (wholes >= 0 && wholes < WHOLE_MIN)
        return before;
    watch->part = part;
    watch->whole = whole;
    if (wholes < 0 || parts < 0) /* the statistics were reset */
        return NAN;
    return parts / wholes;
}

void watch_forget(struct watch *watch)
{
    watch->part = watch->whole = 0;
    for (int i = 0; i < LOOK_COUNT; i++)
        atomic_store(&watch->values[i], NAN);
}

void watch_fill(const struct watch *watch, struct metrics_gauges *gauges)
{
    for (int i = 0; i < LOOK_COUNT; i++)
        *(double *)(void *)((char *)gauges + looks[i].gauge) = atomic_load(&watch->values[i]);
}

enum store_action watch_run(struct watch *watch, struct store *store, int64_t deadline_mono_us,
                            struct store_error *error)
{
    enum store_action action = STORE_COMMITTED;
    for (int i = 0; i < LOOK_COUNT && store_is_connected(store); i++) {
        PGresult *rows = NULL;
        enum store_action looked = store_query(store, embedded_find(embedded_sql, looks[i].file), 0,
                                               NULL, deadline_mono_us, &rows, error);
        double value = NAN;
        if (looked != STORE_COMMITTED)
            action = looked;
        else if (PQnfields(rows) > COLUMN_WHOLE)
            value = read_ratio(watch, rows, atomic_load(&watch->values[i]));
        else
            value = read_number(rows, COLUMN_VALUE);
        atomic_store(&watch->values[i], value);
        PQclear(rows);
    }
    return action;
}
