/* SPDX-License-Identifier: Apache-2.0 */
/* What a SQLSTATE asks for: the one place where it is decided. Longest match wins; what is not here
 * is our fault: the batch is not acknowledged and a person is told. */
#include "store/store.h"

#include <string.h>

struct sqlstate_row {
    const char *prefix; /* two characters for a class, five for one state */
    enum store_action action;
};

static const struct sqlstate_row rows[] = {
    {"40001", STORE_RETRY}, /* serialization failure: somebody's REPEATABLE READ */
    {"40P01", STORE_RETRY}, /* deadlock: cannot come from our own lock order, can from users' SQL */
    {"55P03", STORE_RETRY}, /* lock_timeout */
    {"57014", STORE_RETRY}, /* statement_timeout */
    {"55006", STORE_RETRY}, /* object in use */
    {"08", STORE_RECONNECT},      /* connection exceptions */
    {"57P01", STORE_RECONNECT},   /* admin shutdown */
    {"57P02", STORE_RECONNECT},   /* crash shutdown */
    {"57P03", STORE_RECONNECT},   /* cannot connect now */
    {"57P05", STORE_RECONNECT},   /* idle session timeout */
    {"25006", STORE_RECONNECT},   /* read-only: a standby, or a primary that was demoted */
    {"25P03", STORE_RECONNECT},   /* idle in transaction timeout */
    {"26000", STORE_RECONNECT},   /* our prepared statement is gone (a pooler): prepare again */
    {"0A000", STORE_RECONNECT},   /* cached plan must not change result type: prepare again */
    {"22", STORE_POISON},         /* data exceptions: text that jsonb refuses, times out of range */
    {"54000", STORE_POISON},      /* program limit exceeded: index row too large */
    {"54001", STORE_POISON},      /* nesting beyond the server's stack */
    {"23502", STORE_POISON},      /* not null */
    {"23514", STORE_POISON},      /* check; without a month see below */
    {"23", STORE_REFUSED},        /* foreign keys and the like that users add to our tables */
    {"P0", STORE_REFUSED},        /* RAISE in a trigger of the user's own, at the commit perhaps */
    {"53", STORE_STOP_INTAKE},    /* out of disk, memory, connections */
    {"58030", STORE_STOP_INTAKE}, /* I/O error */
    {"XX", STORE_STOP_INTAKE},    /* internal error, corruption: never retried blindly */
};

enum store_action store_action_for(const char *sqlstate, bool names_constraint)
{
    if (!sqlstate || !sqlstate[0])
        return STORE_RECONNECT; /* nobody said what became of it */
    if (strcmp(sqlstate, "23514") == 0 && !names_constraint)
        return STORE_MAKE_MONTH; /* no partition for the row */
    enum store_action action = STORE_OUR_FAULT;
    size_t longest = 0;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t len = strlen(rows[i].prefix);
        if (len > longest && strncmp(sqlstate, rows[i].prefix, len) == 0) {
            longest = len;
            action = rows[i].action;
        }
    }
    return action;
}

const char *store_error_part(const struct store_error *error)
{
    if (error->part)
        return error->part;
    switch (store_action_for(error->sqlstate, true)) {
    case STORE_RECONNECT:
        return "database";
    case STORE_STOP_INTAKE:
        return "database (it is out of something)";
    default:
        return "database (it refuses the gateway)";
    }
}

/* Classes whose messages speak of connections, objects and the server, not of a row's content. */
static const char *const wordy_classes[] = {"08", "0A", "25", "26", "28", "3D", "40",
                                            "42", "53", "55", "57", "58", "F0", "XX"};

const char *store_error_words(const struct store_error *error)
{
    if (!error->sqlstate[0]) /* our own words, or libpq's of the connection */
        return error->text;
    bool quotes_sql = strcmp(error->sqlstate, "42601") == 0; /* of a trigger that builds SQL */
    for (size_t i = 0; !quotes_sql && i < sizeof(wordy_classes) / sizeof(wordy_classes[0]); i++)
        if (strncmp(error->sqlstate, wordy_classes[i], 2) == 0)
            return error->text;
    return "the server's words may quote the event and are not shown";
}
