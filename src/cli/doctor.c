/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook doctor: what may need a person, looked at one after the other: in PostgreSQL, in the
 * running gateway, on this node's disks. A look that cannot be taken says why, and never counts as
 * fine. It only reads. */
#include "cli/client.h"
#include "cli/doctor.h"

#include "admin/reply.h"
#include "base/embedded.h"
#include "cli/cli.h"
#include "schema/schema.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MINUTE 60.0
#define HOUR   3600.0
#define DAY    86400.0
#define MIB    1048576.0
#define GIB    (1024 * MIB)
#define NONE   NAN
/* database.watch… of the configuration, see limit_of(). */
#define CONFIGURED -1.0

static const struct doctor_look looks[] = {
    {"schema", "doctor_schema.sql", NULL, UNIT_FLAG, false, 1, 2,
     "`oncehook migrate up` as the schema's owner, or the oncehook that fits.", NULL},
    {"settings", "doctor_settings.sql", NULL, UNIT_FLAG, false, NONE, 1,
     "Set it to on, as a superuser: ALTER SYSTEM SET …; SELECT pg_reload_conf();", NULL},
    {"rights", "doctor_rights.sql", NULL, UNIT_FLAG, false, 0.5, 1,
     "Rights are given by `oncehook migrate up`; take away what it did not give.", NULL},
    {"clear secrets", "doctor_secrets.sql", NULL, UNIT_FLAG, false, NONE, 1,
     "Store a reference in its place, {\"$ref\": \"env:NAME\"}, and have the secret changed: dumps "
     "and replicas have it.",
     NULL},
    {"months", "doctor_months.sql", NULL, UNIT_COUNT, true, 3, 2,
     "The gateway makes them every hour: its log says what keeps it from that. By hand: SELECT "
     "oncehook_make_months(3);",
     NULL},
    {"detached months", "doctor_detached.sql", NULL, UNIT_FLAG, false, NONE, 1,
     "Attach it as the schema's owner: its events are counted. To leave it out for good, rename "
     "it.",
     NULL},
    {"ids", "doctor_ids.sql", NULL, UNIT_SHARE, true, 0.75, 0.5,
     "A server that runs out stops writing. For transaction ids: find what holds VACUUM up "
     "(transactions, prepared, slots), then VACUUM FREEZE.",
     NULL},
    {"transactions", "doctor_transactions.sql", NULL, UNIT_SECONDS, false, 5 * MINUTE, HOUR,
     "While it is open, VACUUM cannot remove what it may see. Ask its owner, or end it: SELECT "
     "pg_terminate_backend(PID);",
     NULL},
    {"prepared", "doctor_prepared.sql", NULL, UNIT_SECONDS, false, 5 * MINUTE, HOUR,
     "Its transaction manager has forgotten it: COMMIT PREPARED or ROLLBACK PREPARED.", NULL},
    {"slots", "doctor_slots.sql", NULL, UNIT_BYTES, false, GIB, 5 * GIB,
     "Bring its standby back, or SELECT pg_drop_replication_slot(NAME): else WAL fills the disk.",
     NULL},
    {"invalid", "doctor_invalid.sql", NULL, UNIT_FLAG, false, 0.5, 1,
     "An index: DROP INDEX CONCURRENTLY, and make it again. A constraint: ALTER TABLE … VALIDATE "
     "CONSTRAINT.",
     NULL},
    {"dead rows", "doctor_dead_rows.sql", NULL, UNIT_SHARE, false, 0.2, 0.5,
     "VACUUM it, and see what keeps autovacuum from it: transactions, prepared, slots, its "
     "settings.",
     NULL},
    {"size", "doctor_size.sql", NULL, UNIT_BYTES, false, NONE, CONFIGURED,
     "Keep less (`retention`), or plan for more and say so: watch.database_bytes.", NULL},
    {"retention", "doctor_retention.sql", NULL, UNIT_SECONDS, false, 2 * DAY, 7 * DAY,
     "Too old for `retention`: run `oncehook retention`, and see why it did not run.", NULL},
    {"quarantine", "doctor_quarantine.sql", NULL, UNIT_SECONDS, false, 1, DAY,
     "Look at them (reason, source, body in quarantined_deliveries), then set resolved_at.", NULL},
    {"silent sources", "doctor_silent.sql", NULL, UNIT_TIMES, false, 1, 2,
     "Ask the provider whether it has switched the endpoint off, and look for 401 and 503 in "
     "oncehook_deliveries_total.",
     NULL},
    {"unseen sources", "doctor_unseen.sql", NULL, UNIT_COUNT, false, 1, NONE,
     "Connect them at the provider, or take them out of the configuration.", NULL},
    {"hit ratio", "doctor_hit_ratio.sql", NULL, UNIT_SHARE, true, 0.99, 0.9,
     "shared_buffers is too small for what is read, or a query reads too much: see statements.",
     NULL},
    {"statements", "doctor_statements.sql", NULL, UNIT_MS, false, 1000, NONE,
     "EXPLAIN (ANALYZE, BUFFERS) it; pg_stat_statements has its whole text.",
     "CREATE EXTENSION pg_stat_statements, and shared_preload_libraries."},
    {"unused indexes", "doctor_unused.sql", NULL, UNIT_COUNT, true, 100, NONE,
     "Each costs every write. Where no standby uses it either: DROP INDEX CONCURRENTLY.", NULL},
    {"connections", "doctor_connections.sql", NULL, UNIT_SHARE, false, 0.8, 0.95,
     "Find who holds them (pg_stat_activity by application_name), or raise max_connections.", NULL},
    {"gateway", NULL, doctor_take_gateway, UNIT_FLAG, false, NONE, 1,
     "Events cannot be committed: /health of the admin listener and the gateway's log say why.",
     NULL},
    {"lanes", NULL, doctor_take_lanes, UNIT_SHARE, false, 0.8, 0.95,
     "More database.lanes where PostgreSQL has cores to spare, or a faster disk: see "
     "docs/performance.md.",
     NULL},
    {"waiting", NULL, doctor_take_waiting, UNIT_COUNT, false, NONE, 5,
     "Lanes cannot keep up: as for lanes.", NULL},
    {"answers", NULL, doctor_take_answers, UNIT_TIMES, false, 1, NONE,
     "See oncehook_commit_seconds and slow statements: is it the commit, or the queue before it?",
     NULL},
    {"slow statements", NULL, doctor_take_slow, UNIT_COUNT, false, 1, NONE,
     "The gateway's log names each: `slow statement`.", NULL},
    {"deadlocks", NULL, doctor_take_deadlocks, UNIT_COUNT, false, 1, NONE,
     "SQL of another program takes locks in another order: docs/lock-order.md.", NULL},
    {"drift", NULL, doctor_take_drift, UNIT_COUNT, false, NONE, 1,
     "`oncehook audit` names the counters, `oncehook audit --repair` mends them.", NULL},
    {"spool size", NULL, doctor_take_spool_size, UNIT_BYTES, false, 500 * MIB, CONFIGURED,
     "It drains when PostgreSQL takes events: see gateway. Full, new events are refused.", NULL},
    {"spool backlog", NULL, doctor_take_spool_age, UNIT_SECONDS, false, 10 * MINUTE, HOUR,
     "PostgreSQL answers and it does not drain: is the gateway running? Else `oncehook spool "
     "drain`.",
     NULL},
    {"spool losses", NULL, doctor_take_spool_lost, UNIT_COUNT, false, NONE, 1,
     "`oncehook spool status` lists them: ask the providers for that time again.", NULL},
    {"disks", NULL, doctor_take_disks, UNIT_SHARE, true, 0.2, 0.1,
     "A full disk stops everything: make room, or keep less.", NULL},
};

enum { LOOK_COUNT = sizeof(looks) / sizeof(looks[0]) };

/* ---- one finding ----------------------------------------------------------------------------- */

static bool is_beyond(const struct doctor_finding *finding, double value, double limit)
{
    return !isnan(limit) && (finding->look->at_least ? value < limit : value >= limit);
}

static enum doctor_state judge(const struct doctor_finding *finding, double value)
{
    return is_beyond(finding, value, finding->person)  ? DOCTOR_PERSON
           : is_beyond(finding, value, finding->watch) ? DOCTOR_WATCH
                                                       : DOCTOR_FINE;
}

/* What PostgreSQL gives in SQL_ASCII need not be text. */
static json_t *text_or_null(const char *text)
{
    json_t *string = text ? json_string(text) : NULL;
    return string ? string : json_null();
}

void doctor_add(struct doctor_finding *finding, double value, const char *subject,
                const char *words)
{
    enum doctor_state state = judge(finding, value);
    json_t *row = json_pack("{s:i, s:o, s:o, s:o}", "state", (int)state, "value", reply_real(value),
                            "subject", text_or_null(subject), "words", text_or_null(words));
    json_array_append_new(finding->rows, row);
    if (state > finding->state)
        finding->state = state;
}

void doctor_not_known(struct doctor_finding *finding, const char *why)
{
    snprintf(finding->unknown, sizeof(finding->unknown), "%s", why);
    if (finding->state == DOCTOR_FINE)
        finding->state = DOCTOR_UNKNOWN;
}

/* ---- PostgreSQL ------------------------------------------------------------------------------ */

static bool run(const struct doctor *doctor, const char *sql, bool *is_true)
{
    PGresult *result = PQexec(doctor->connection, sql);
    bool done = PQresultStatus(result) == PGRES_TUPLES_OK;
    if (done && is_true)
        *is_true = PQntuples(result) > 0 && PQgetvalue(result, 0, 0)[0] == 't';
    PQclear(result);
    return done;
}

/* Nothing that it does may hold anybody up. pg_stat_statements lies in a schema of its own. */
static bool set_session(struct doctor *doctor)
{
    return PQsetClientEncoding(doctor->connection, "UTF8") == 0 &&
           run(doctor,
               "SELECT set_config('statement_timeout', '10s', false),"
               " set_config('lock_timeout', '1s', false),"
               " set_config('default_transaction_read_only', 'on', false)",
               NULL) &&
           run(doctor,
               "SELECT set_config('search_path', current_setting('search_path') || ', ' ||"
               "  quote_ident(n.nspname), false) FROM pg_extension e JOIN pg_namespace n"
               "  ON n.oid = e.extnamespace WHERE e.extname = 'pg_stat_statements'",
               NULL) &&
           run(doctor, "SELECT to_regclass('schema_migrations') IS NOT NULL", &doctor->has_schema);
}

/* The parameters of all files; those of a configuration that was not given are null. */
enum { PARAM_SOURCES, PARAM_EVENTS, PARAM_LEDGER, PARAM_VERSION, PARAM_COUNT };

struct parameters {
    char *sources; /* as SQL writes an array; names need no quotes */
    char events[24], ledger[24], version[16];
};

static char *list_sources(const struct config *config)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        return NULL;
    for (size_t i = 0; i < config->source_count; i++)
        fprintf(out, "%c%s", i ? ',' : '{', config->sources[i].name);
    fputs(config->source_count ? "}" : "{}", out);
    return fclose(out) == 0 ? text : NULL;
}

static void take_file(const struct doctor *doctor, const struct parameters *given,
                      struct doctor_finding *finding)
{
    enum { TEXT_ARRAY = 1009, FLOAT8 = 701, INT4 = 23 };
    static const Oid types[PARAM_COUNT] = {TEXT_ARRAY, FLOAT8, FLOAT8, INT4};
    const char *const values[PARAM_COUNT] = {given->sources, given->events, given->ledger,
                                             given->version};
    PGresult *rows =
        PQexecParams(doctor->connection, embedded_find(embedded_sql, finding->look->file),
                     PARAM_COUNT, types, values, NULL, NULL, 0);
    bool done = PQresultStatus(rows) == PGRES_TUPLES_OK;
    if (!done) {
        const char *primary = PQresultErrorField(rows, PG_DIAG_MESSAGE_PRIMARY);
        doctor_not_known(finding, primary ? primary : "the connection is lost");
    }
    for (int i = 0; done && i < PQntuples(rows); i++) {
        if (PQgetisnull(rows, i, 0))
            doctor_not_known(finding, PQgetvalue(rows, i, 2));
        else
            doctor_add(finding, strtod(PQgetvalue(rows, i, 0), NULL),
                       PQgetisnull(rows, i, 1) ? NULL : PQgetvalue(rows, i, 1),
                       PQgetvalue(rows, i, 2));
    }
    PQclear(rows);
}

/* ---- all looks ------------------------------------------------------------------------------- */

static double limit_of(const struct doctor *doctor, const struct doctor_look *look)
{
    if (look->person != CONFIGURED)
        return look->person;
    if (look->file)
        return doctor->database_bytes;
    const struct config *config = doctor->database->config;
    return config ? 0.8 * (double)config->spool.bytes : NONE;
}

static void take(struct doctor *doctor, const struct parameters *given,
                 struct doctor_finding *finding)
{
    const struct doctor_look *look = finding->look;
    const struct config *config = doctor->database->config;
    bool is_ignored = config && config->watch.unseen_sources == CONFIG_UNSEEN_SOURCES_IGNORE &&
                      look->file && strcmp(look->file, "doctor_unseen.sql") == 0;
    finding->watch = is_ignored ? NONE : look->watch;
    finding->person = limit_of(doctor, look);
    finding->todo = look->todo;
    finding->rows = json_array();
    if (look->take)
        look->take(doctor, finding);
    else if (doctor->has_schema)
        take_file(doctor, given, finding);
    else if (strcmp(look->name, "schema") == 0)
        doctor_add(finding, look->person, NULL, "there is none");
    else
        doctor_not_known(finding, "the schema is missing");
    if (look->file && strcmp(look->file, "doctor_detached.sql") == 0)
        doctor->has_detached = finding->state == DOCTOR_PERSON;
}

/* What needs the gateway comes last, so that its second look is some time after the first. */
static void take_all(struct doctor *doctor, const struct parameters *given,
                     struct doctor_finding *findings)
{
    bool is_tty = isatty(STDERR_FILENO), has_asked = false;
    doctor_ask_gateway(doctor);
    for (int i = 0; i < LOOK_COUNT; i++) {
        findings[i].look = &looks[i];
        if (is_tty)
            fprintf(stderr, "\r\033[K[%d/%d] %s", i + 1, LOOK_COUNT, looks[i].name);
        if (looks[i].take && !has_asked) {
            doctor_ask_gateway_again(doctor);
            has_asked = true;
        }
        take(doctor, given, &findings[i]);
    }
    if (is_tty)
        fputs("\r\033[K", stderr);
}

static void find_gateway(struct doctor *doctor, const char *url)
{
    if (client_admin_url(doctor->database->config, url, "/metrics", doctor->address,
                         sizeof(doctor->address)))
        return;
    snprintf(doctor->no_metrics, sizeof(doctor->no_metrics),
             "no address of a gateway: -c FILE with admin.listen, or --admin URL");
}

static enum doctor_state examine(struct doctor *doctor, const char *admin, bool json)
{
    struct doctor_finding findings[LOOK_COUNT];
    struct parameters given = {.sources = NULL};
    const struct config *config = doctor->database->config;
    memset(findings, 0, sizeof(findings));
    find_gateway(doctor, admin);
    doctor->database_bytes = config ? (double)config->watch.database_bytes : 10 * GIB;
    if (config)
        given.sources = list_sources(config);
    snprintf(given.events, sizeof(given.events), "%lld",
             config ? (long long)config->retention.events_s : 90 * 86400LL);
    snprintf(given.ledger, sizeof(given.ledger), "%lld",
             config ? (long long)config->retention.ledger_s : 180 * 86400LL);
    snprintf(given.version, sizeof(given.version), "%d", schema_version_wanted());
    take_all(doctor, &given, findings);
    enum doctor_state worst = doctor_report(doctor, findings, LOOK_COUNT, json);
    for (int i = 0; i < LOOK_COUNT; i++)
        json_decref(findings[i].rows);
    free(given.sources);
    free(doctor->first);
    free(doctor->second);
    return worst;
}

int cli_doctor(int argc, char **argv)
{
    struct cli_database_options where = {0};
    const char *admin = NULL;
    bool is_json = false;
    const struct cli_option options[] = {
        {"config", 'c', false, "FILE",
         "Take database.url, the sources, retention and the gateway's address from FILE",
         &where.config, NULL},
        {"database", 0, false, "URL", "The gateway's login, a libpq URI or conninfo", &where.url,
         NULL},
        {"schema", 0, false, "NAME", "The schema (default: the configured one, else public)",
         &where.schema, NULL},
        {"admin", 0, false, "URL",
         "Where the running gateway's /metrics is (default: http:// and admin.listen)", &admin,
         NULL},
        {"json", 0, false, NULL, "One JSON object instead of text", NULL, &is_json},
        {0},
    };
    cli_read_options(
        options,
        "Look at PostgreSQL, the running gateway and this node's disks for what needs a "
        "person. Reads only; takes some seconds. Exit 0 when no person is needed, 1 "
        "when one is. docs/watching.md says what each look means.",
        argc, argv);
    struct cli_database database;
    if (!cli_database_find(&where, false, &database))
        return CLI_USAGE;
    struct doctor doctor = {.database = &database};
    int code = CLI_USAGE;
    doctor.connection = cli_database_connect(&database, "oncehook doctor");
    bool is_ready = doctor.connection && set_session(&doctor);
    if (is_ready)
        code = examine(&doctor, admin, is_json) == DOCTOR_PERSON ? CLI_NO : CLI_OK;
    if (doctor.connection && (!is_ready || PQstatus(doctor.connection) != CONNECTION_OK)) {
        fprintf(stderr, "oncehook doctor: database: %s", PQerrorMessage(doctor.connection));
        code = CLI_USAGE;
    }
    PQfinish(doctor.connection);
    cli_database_release(&database);
    return fflush(stdout) == 0 ? code : CLI_USAGE;
}
