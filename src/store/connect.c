/* SPDX-License-Identifier: Apache-2.0 */
/* A new connection: one host of the URL after the other, the session's settings, the start-up
 * checks. Each check says how to mend what it refuses. */
#include "store/room.h"

#include "base/clock.h"
#include "schema/schema.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- hosts ----------------------------------------------------------------------------------- */

static uint32_t count_parts(const char *list)
{
    uint32_t count = 1;
    while (list && (list = strchr(list, ',')) != NULL) {
        list++;
        count++;
    }
    return count;
}

/* Takes the lists out of the URL. One that libpq cannot read stays as it is: connecting says so. */
void store_read_hosts(struct store *store)
{
    PQconninfoOption *options = PQconninfoParse(store->url, NULL);
    for (PQconninfoOption *option = options; option && option->keyword; option++) {
        char **list = strcmp(option->keyword, "host") == 0       ? &store->hosts
                      : strcmp(option->keyword, "hostaddr") == 0 ? &store->addresses
                      : strcmp(option->keyword, "port") == 0     ? &store->ports
                                                                 : NULL;
        if (list && option->val)
            *list = strdup(option->val);
    }
    PQconninfoFree(options);
    store->host_count = count_parts(store->addresses ? store->addresses : store->hosts);
}

/* One of the URL's hosts, for libpq's keywords host, hostaddr and port. */
static const char *part_of(const char *list, uint32_t number, char *part, size_t size)
{
    if (!list)
        return NULL; /* as the URL says: nothing */
    const char *only = list;
    for (uint32_t i = 0; i < number; i++) {
        const char *comma = strchr(list, ',');
        if (!comma)
            return only; /* one port for all hosts */
        list = comma + 1;
    }
    snprintf(part, size, "%.*s", (int)strcspn(list, ","), list);
    return part;
}

/* Host `number` alone: libpq would wait for a host that drops packets until all time is gone. */
static bool connect_host(struct store *store, uint32_t number, int64_t deadline_mono_us,
                         struct store_error *error)
{
    char host[256], address[64], port[16];
    /* What stands before dbname is a default that the URL may override; what stands behind it
     * overrides the URL. A NULL value is no value. */
    const char *const keywords[] = {"application_name",
                                    "target_session_attrs",
                                    "keepalives_idle",
                                    "keepalives_interval",
                                    "keepalives_count",
                                    "tcp_user_timeout",
                                    "dbname",
                                    "client_encoding",
                                    "host",
                                    "hostaddr",
                                    "port",
                                    NULL};
    const char *const values[] = {store->name,
                                  "read-write",
                                  "10",
                                  "5",
                                  "3",
                                  "15000",
                                  store->url,
                                  "UTF8",
                                  part_of(store->hosts, number, host, sizeof(host)),
                                  part_of(store->addresses, number, address, sizeof(address)),
                                  part_of(store->ports, number, port, sizeof(port)),
                                  NULL};
    store->connection = PQconnectStartParams(keywords, values, 1);
    if (!store->connection) {
        store_set_error(error, "", "out of memory");
        return false;
    }
    PostgresPollingStatusType polling = PGRES_POLLING_WRITING;
    while (PQstatus(store->connection) != CONNECTION_BAD && polling != PGRES_POLLING_OK &&
           polling != PGRES_POLLING_FAILED) {
        short events = polling == PGRES_POLLING_READING ? POLLIN : POLLOUT;
        if (!store_wait_socket(store, events, deadline_mono_us)) {
            store_set_error(error, "", "no connection within database.connect_timeout");
            return false;
        }
        polling = PQconnectPoll(store->connection);
    }
    if (PQstatus(store->connection) != CONNECTION_OK) {
        store_set_error(error, "", PQerrorMessage(store->connection));
        return false;
    }
    PQsetNoticeReceiver(store->connection, store_on_notice, store);
    PQsetnonblocking(store->connection, 1);
    return true;
}

/* Which of the hosts was the primary last; all stores of a process are given the same list. */
static _Atomic uint32_t primary_host;

/* Each host gets an equal share of the time that is left; the last primary comes first. */
static bool connect_socket(struct store *store, int64_t deadline_mono_us, struct store_error *error)
{
    uint32_t first = atomic_load(&primary_host);
    for (uint32_t i = 0; i < store->host_count; i++) {
        uint32_t number = (first + i) % store->host_count;
        int64_t now_us = clock_mono_us();
        int64_t share_us = (deadline_mono_us - now_us) / (store->host_count - i);
        if (connect_host(store, number, now_us + share_us, error)) {
            atomic_store(&primary_host, number);
            return true;
        }
        store_disconnect(store);
    }
    return false;
}

/* ---- the session ----------------------------------------------------------------------------- */

static bool set_session(struct store *store, int64_t deadline_mono_us, struct store_error *error)
{
    char statement[24], lock[24], idle[24];
    store->limit_ms = store->statement_ms;
    snprintf(statement, sizeof(statement), "%lldms", (long long)store->statement_ms);
    snprintf(lock, sizeof(lock), "%lldms", (long long)store->config->database.lock_timeout_ms);
    snprintf(idle, sizeof(idle), "%lldms",
             (long long)store->config->database.idle_in_transaction_session_timeout_ms);
    const char *values[] = {statement, lock, idle, store->config->database.schema};
    return store_query(store,
                       "/* set_session */ SELECT set_config('statement_timeout', $1, false),"
                       " set_config('lock_timeout', $2, false),"
                       " set_config('idle_in_transaction_session_timeout', $3, false),"
                       " set_config('client_connection_check_interval', '10s', false),"
                       " set_config('search_path', quote_ident($4), false)",
                       4, values, deadline_mono_us, NULL, error) == STORE_COMMITTED;
}

/* ---- checks ---------------------------------------------------------------------------------- */

static void refuse_server(struct store_error *error, const char *sqlstate, const char *why)
{
    store_set_error(error, sqlstate, why);
    error->part = "database (a start-up check fails)";
}

/* One start-up check: a value that SQL gives and why any other than the wanted one is refused. */
static bool check_server(struct store *store, int64_t deadline_mono_us, struct store_error *error)
{
    static const struct {
        const char *bad;
        bool is_durability; /* database.unsafe_server decides */
        const char *why;
    } checks[] = {
        {"off", true,
         "fsync is off: PostgreSQL may lose what it has committed; set fsync = on, or "
         "database.unsafe_server: warn"},
        {"off", true,
         "full_page_writes is off: a crash may corrupt tables; set full_page_writes = on, or "
         "database.unsafe_server: warn"},
        {"off", true,
         "synchronous_commit is off, or does not wait for the standbys: a crash or failover loses "
         "acknowledged events; set it to on, or database.unsafe_server: warn"},
        {"t", false, "connected to a standby (in recovery), which cannot be written to"},
        {"f", false,
         "the gateway's role may not capture: run `oncehook migrate up` as the schema's owner"},
    };
    enum { CHECK_COUNT = sizeof(checks) / sizeof(checks[0]), COLUMN_VERSION = CHECK_COUNT };
    PGresult *rows = NULL;
    if (store_query(
            store,
            "/* check_server */ SELECT current_setting('fsync'), "
            "current_setting('full_page_writes'),"
            " CASE WHEN current_setting('synchronous_commit') IN ('on', 'remote_apply') OR"
            "  (current_setting('synchronous_commit') <> 'off' AND"
            "   current_setting('synchronous_standby_names') = '') THEN 'on' ELSE 'off' END,"
            " pg_is_in_recovery(),"
            " (SELECT count(*) = 3 AND bool_and(has_function_privilege(p.oid, 'EXECUTE'))"
            "    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
            "   WHERE n.nspname = current_schema() AND p.proname IN"
            "         ('capture_v1', 'quarantine_v1', 'oncehook_make_months'))"
            " AND has_table_privilege('campaign_events', 'INSERT')"
            " AND has_table_privilege('event_keys', 'INSERT')"
            " AND has_table_privilege('campaign_enrollments', 'UPDATE')"
            " AND has_table_privilege('campaign_instances', 'UPDATE'),"
            " (SELECT coalesce(max(version), 0) FROM schema_migrations)",
            0, NULL, deadline_mono_us, &rows, error) != STORE_COMMITTED) {
        if (strcmp(error->sqlstate, "42P01") == 0)
            refuse_server(error, "42P01", "the schema is missing: run `oncehook migrate up`");
        return false;
    }
    int version = (int)strtol(PQgetvalue(rows, 0, COLUMN_VERSION), NULL, 10);
    int wanted = schema_version_wanted();
    bool good = version == wanted || version == wanted + 1;
    if (!good) {
        refuse_server(error, "F0000", "");
        snprintf(error->text, sizeof(error->text),
                 "the schema has version %d, this gateway works on %d and %d: %s", version, wanted,
                 wanted + 1,
                 version < wanted ? "run `oncehook migrate up` of this release"
                                  : "run a gateway of the schema's release");
    }
    for (int i = 0; good && i < CHECK_COUNT; i++) {
        if (strcmp(PQgetvalue(rows, 0, i), checks[i].bad) != 0)
            continue;
        if (checks[i].is_durability &&
            store->config->database.unsafe_server == CONFIG_UNSAFE_SERVER_WARN) {
            LOG_LINE(LOG_WARNING, "store", "an unsafe server is used, as configured",
                     log_text("reason", checks[i].why));
            continue;
        }
        refuse_server(error, "F0000", checks[i].why);
        good = false;
    }
    PQclear(rows);
    return good;
}

bool store_connect(struct store *store, int64_t deadline_mono_us, struct store_error *error)
{
    store_disconnect(store);
    if (connect_socket(store, deadline_mono_us, error) &&
        set_session(store, deadline_mono_us, error) &&
        check_server(store, deadline_mono_us, error) &&
        store_prepare(store, deadline_mono_us, error))
        return true;
    store_disconnect(store);
    return false;
}
