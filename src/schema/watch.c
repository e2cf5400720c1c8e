/* SPDX-License-Identifier: Apache-2.0 */
/* Runs what may take long, and looks at it meanwhile over a connection of its own: who blocks it,
 * how far its index is. */
#include "schema/session.h"

#include "base/clock.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

enum { LOOK_MS = 20, BAR_WIDTH = 30 };

static bool open_watch(struct session *session)
{
    static const char *const names[] = {"fallback_application_name", "connect_timeout", "dbname",
                                        NULL};
    const char *const values[] = {"oncehook migrate watch", "5", session->url, NULL};
    if (!session->watch)
        session->watch = PQconnectdbParams(names, values, 1);
    return PQstatus(session->watch) == CONNECTION_OK;
}

static void draw(const char *phase, double share)
{
    int filled = (int)((share > 1 ? 1 : share) * BAR_WIDTH);
    fprintf(stderr, "\r\033[K[%.*s%*s] %s", filled, "##############################",
            BAR_WIDTH - filled, "", phase);
    fflush(stderr);
}

/* Without the second connection nothing is known, and nothing else is different. */
static void look(struct session *session)
{
    char pid[16];
    snprintf(pid, sizeof(pid), "%d", PQbackendPID(session->connection));
    const char *const values[] = {pid};
    if (!open_watch(session))
        return;
    PGresult *rows = PQexecParams(session->watch, embedded_find(embedded_sql, "migrate_watch.sql"),
                                  1, NULL, values, NULL, NULL, 0);
    if (PQresultStatus(rows) == PGRES_TUPLES_OK && PQntuples(rows) == 1) {
        if (!PQgetisnull(rows, 0, 0))
            snprintf(session->waits.who, sizeof(session->waits.who), "%s", PQgetvalue(rows, 0, 0));
        if (session->is_tty && !PQgetisnull(rows, 0, 1))
            draw(PQgetvalue(rows, 0, 1), strtod(PQgetvalue(rows, 0, 2), NULL));
    }
    PQclear(rows);
}

enum oh_status session_run(struct session *session, const char *sql, long long *rows)
{
    PGconn *connection = session->connection;
    enum oh_status status = OH_OK;

    session->state[0] = '\0';
    open_watch(session);
    if (!PQsendQuery(connection, sql))
        return session_fail(session, NULL);
    for (;;) {
        while (PQisBusy(connection)) {
            struct pollfd ready = {.fd = PQsocket(connection), .events = POLLIN};
            int got = poll(&ready, 1, LOOK_MS);
            if (got == 0)
                look(session);
            else if (!PQconsumeInput(connection))
                return session_fail(session, NULL);
        }
        PGresult *result = PQgetResult(connection);
        if (!result)
            break;
        ExecStatusType is = PQresultStatus(result);
        if (is != PGRES_TUPLES_OK && is != PGRES_COMMAND_OK && is != PGRES_EMPTY_QUERY &&
            status == OH_OK)
            status = session_fail(session, result);
        if (rows)
            *rows = strtoll(PQcmdTuples(result), NULL, 10);
        PQclear(result);
    }
    if (session->is_tty && session->watch)
        fputs("\r\033[K", stderr);
    return status;
}
