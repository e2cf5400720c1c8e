/* SPDX-License-Identifier: Apache-2.0 */
/* One PostgreSQL connection. The acknowledgement rule stands in store_finish(): committed is what
 * has been read to its end without an error and without a durability warning. */
#include "store/room.h"

#include "base/clock.h"
#include "base/embedded.h"
#include "base/slice.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

static const Oid param_types[PARAM_COUNT] = {
    [P_SOURCE] = OID_TEXT_ARRAY,
    [P_PROVIDER] = OID_TEXT_ARRAY,
    [P_ID] = OID_TEXT_ARRAY,
    [P_SCOPE] = OID_TEXT_ARRAY,
    [P_GRADE] = OID_TEXT_ARRAY,
    [P_TYPE] = OID_TEXT_ARRAY,
    [P_PROVIDER_TYPE] = OID_TEXT_ARRAY,
    [P_CHANNEL] = OID_TEXT_ARRAY,
    [P_ENROLLMENT] = OID_UUID_ARRAY,
    [P_INSTANCE] = OID_UUID_ARRAY,
    [P_AT] = OID_TIMESTAMPTZ_ARRAY,
    [P_DELIVERY] = OID_UUID_ARRAY,
    [P_PAYLOAD] = OID_JSONB_ARRAY,
    [P_BYTES] = OID_BYTEA_ARRAY,
};

static const Oid element_types[PARAM_COUNT] = {
    [P_SOURCE] = OID_TEXT,        [P_PROVIDER] = OID_TEXT,  [P_ID] = OID_TEXT,
    [P_SCOPE] = OID_TEXT,         [P_GRADE] = OID_TEXT,     [P_TYPE] = OID_TEXT,
    [P_PROVIDER_TYPE] = OID_TEXT, [P_CHANNEL] = OID_TEXT,   [P_ENROLLMENT] = OID_UUID,
    [P_INSTANCE] = OID_UUID,      [P_AT] = OID_TIMESTAMPTZ, [P_DELIVERY] = OID_UUID,
    [P_PAYLOAD] = OID_JSONB,      [P_BYTES] = OID_BYTEA,
};

/* How a batch is captured; `name` is the prepared statement's. */
enum { CAPTURE_PLAIN, CAPTURE_REFERENCES, CAPTURE_COUNT };
static const struct {
    const char *name, *sql;
} captures[CAPTURE_COUNT] = {
    [CAPTURE_PLAIN] =
        {"capture",
         "/* capture_v1 */ SELECT capture_v1($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14)"},
    [CAPTURE_REFERENCES] =
        {"capture references",
         "/* capture_v2 */ SELECT capture_v2($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14)"},
};

/* A client waits this much longer than the server's own timeout before it gives a statement up. */
enum { NETWORK_GRACE_MS = 2000, STATEMENT_STEPS = 8, STOP_POLL_MS = 100 };

/* ---- errors and notices ---------------------------------------------------------------------- */

void store_set_error(struct store_error *error, const char *sqlstate, const char *text)
{
    snprintf(error->sqlstate, sizeof(error->sqlstate), "%s", sqlstate ? sqlstate : "");
    snprintf(error->text, sizeof(error->text), "%s", text ? text : "");
    size_t len = strcspn(error->text, "\n");
    error->text[len] = '\0';
    error->names_constraint = false;
    error->part = NULL;
}

static void take_result_error(const PGresult *result, struct store_error *error)
{
    const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    store_set_error(error, PQresultErrorField(result, PG_DIAG_SQLSTATE),
                    primary ? primary : PQresultErrorMessage(result));
    error->names_constraint = PQresultErrorField(result, PG_DIAG_CONSTRAINT_NAME) != NULL;
}

/* A cancelled wait for a synchronous standby reports success with a warning. The function's name is
 * compared because texts are translated and any trigger may raise the same SQLSTATE. */
void store_on_notice(void *context, const PGresult *notice)
{
    struct store *store = context;
    const char *function = PQresultErrorField(notice, PG_DIAG_SOURCE_FUNCTION);
    if (function && strcmp(function, "SyncRepWaitForLSN") == 0)
        store->durability_warning = true;
}

/* ---- slow statements ------------------------------------------------------------------------- */

static _Atomic uint64_t slow_statements;

uint64_t store_slow_statements(void)
{
    return atomic_load(&slow_statements);
}

void store_name_statement(const char *sql, char *name, size_t size)
{
    const char *text = "unnamed";
    size_t len = strlen(text);
    if (strncmp(sql, "/* ", 3) == 0 && strstr(sql, " */")) {
        text = sql + 3;
        len = (size_t)(strstr(text, " */") - text);
    }
    for (const struct embedded_file *file = embedded_sql; file->name; file++)
        if (file->text == sql) {
            text = file->name;
            len = strcspn(text, ".");
        }
    snprintf(name, size, "%.*s", (int)len, text);
}

/* What a statement took from sending it to its known end, commit and network included. */
static void note_slow(const struct store *store, const char *sql, int64_t began_us,
                      enum store_action action, const struct store_error *error)
{
    int64_t took_ms = (clock_mono_us() - began_us) / 1000;
    char name[64];
    if (took_ms <= store->config->database.slow_statement_ms)
        return;
    atomic_fetch_add(&slow_statements, 1);
    store_name_statement(sql, name, sizeof(name));
    LOG_RATE_LIMITED(LOG_WARNING, "store", "slow statement", log_text("statement", name),
                     log_text("connection", store->name), log_int("ms", took_ms),
                     log_text("sqlstate", action == STORE_COMMITTED ? "00000" : error->sqlstate));
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* Waits for `events` on the connection's socket; false at the deadline. */
bool store_wait_socket(const struct store *store, short events, int64_t deadline_mono_us)
{
    for (;;) {
        int64_t left_us = deadline_mono_us - clock_mono_us();
        if (left_us <= 0 || (store->stop && atomic_load(store->stop)))
            return false;
        int64_t wait_ms = left_us / 1000 + 1;
        if (store->stop && wait_ms > STOP_POLL_MS)
            wait_ms = STOP_POLL_MS;
        struct pollfd pollfd = {.fd = PQsocket(store->connection), .events = events};
        int n = poll(&pollfd, 1, (int)wait_ms);
        if (n > 0)
            return true;
        if (n < 0 && errno != EINTR)
            return false;
    }
}

/* Sends what is queued. While the server does not read, it may be because it wants us to. */
static bool flush_query(struct store *store, int64_t deadline_mono_us)
{
    for (;;) {
        int left = PQflush(store->connection);
        if (left <= 0)
            return true; /* an error shows on the read side */
        if (!store_wait_socket(store, POLLIN | POLLOUT, deadline_mono_us))
            return false;
        if (!PQconsumeInput(store->connection))
            return false;
    }
}

/* The next result, or NULL at the end; *timed_out when the deadline passed. */
static PGresult *next_result(struct store *store, int64_t deadline_mono_us, bool *timed_out)
{
    while (PQisBusy(store->connection)) {
        if (!store_wait_socket(store, POLLIN, deadline_mono_us)) {
            *timed_out = true;
            return NULL;
        }
        if (!PQconsumeInput(store->connection))
            break; /* PQgetResult reports the loss */
    }
    return PQgetResult(store->connection);
}

/* Reads a statement to its end. The rows come before the commit; a commit that fails comes as a
 * second result. *rows (may be NULL) gets the first result that has rows. */
static enum store_action store_finish(struct store *store, int64_t deadline_mono_us,
                                      PGresult **rows, struct store_error *error)
{
    bool failed = false, timed_out = false;
    PGresult *kept = NULL, *result;

    store_set_error(error, "", "connection lost");
    if (!flush_query(store, deadline_mono_us)) {
        store_set_error(error, "", "no answer from PostgreSQL in time");
        timed_out = true;
    }
    while (!timed_out && (result = next_result(store, deadline_mono_us, &timed_out))) {
        ExecStatusType status = PQresultStatus(result);
        if (status == PGRES_TUPLES_OK && !kept) {
            kept = result;
            continue;
        }
        if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
            if (!failed)
                take_result_error(result, error);
            failed = true;
        }
        PQclear(result);
    }
    if (timed_out)
        store_set_error(error, "", "no answer from PostgreSQL in time");

    enum store_action action = STORE_RECONNECT;
    if (failed && !timed_out)
        action = store_action_for(error->sqlstate, error->names_constraint);
    else if (store->durability_warning)
        store_set_error(error, "", "a wait for synchronous replication was cancelled");
    else if (!timed_out && kept && PQtransactionStatus(store->connection) == PQTRANS_IDLE)
        action = STORE_COMMITTED;

    if (action == STORE_COMMITTED && rows) {
        *rows = kept;
        kept = NULL;
    }
    PQclear(kept);
    if (action == STORE_RECONNECT || PQstatus(store->connection) == CONNECTION_BAD)
        store_disconnect(store);
    return action;
}

/* ---- life ------------------------------------------------------------------------------------ */

struct store *store_new(const struct config *config, const char *url, const char *name)
{
    struct store *store = calloc(1, sizeof(*store));
    if (!store)
        return NULL;
    store->config = config;
    store->url = strdup(url);
    snprintf(store->name, sizeof(store->name), "oncehook %s", name);
    /* A statement never needs to outlast the longest deadline of a delivery. */
    store->statement_ms = config->database.statement_timeout_ms;
    int64_t longest_ms = 0;
    for (size_t i = 0; i < config->source_count; i++)
        if (config->sources[i].ack_deadline_ms > longest_ms)
            longest_ms = config->sources[i].ack_deadline_ms;
    if (longest_ms > 0 && longest_ms < store->statement_ms)
        store->statement_ms = longest_ms;
    if (!store->url) {
        free(store);
        return NULL;
    }
    store_read_hosts(store);
    return store;
}

void store_free(struct store *store)
{
    if (!store)
        return;
    store_disconnect(store);
    for (int i = 0; i < PARAM_COUNT; i++)
        param_free(&store->params[i]);
    free(store->url);
    free(store->hosts);
    free(store->addresses);
    free(store->ports);
    free(store);
}

void store_set_patience(struct store *store, int64_t statement_ms, const atomic_bool *stop)
{
    if (statement_ms > 0)
        store->statement_ms = statement_ms;
    store->stop = stop;
}

bool store_is_connected(const struct store *store)
{
    return store->connection != NULL;
}

void store_disconnect(struct store *store)
{
    PQfinish(store->connection);
    store->connection = NULL;
}

bool store_check_idle(struct store *store)
{
    if (!store->connection)
        return false;
    struct pollfd pollfd = {.fd = PQsocket(store->connection), .events = POLLIN};
    if (poll(&pollfd, 1, 0) > 0 &&
        (!PQconsumeInput(store->connection) || PQstatus(store->connection) == CONNECTION_BAD))
        store_disconnect(store);
    return store->connection != NULL;
}

static int64_t statement_deadline(const struct store *store, int64_t deadline_mono_us)
{
    int64_t latest = clock_mono_us() + (store->statement_ms + NETWORK_GRACE_MS) * 1000;
    return deadline_mono_us < latest ? deadline_mono_us : latest;
}

enum store_action store_query(struct store *store, const char *sql, int count,
                              const char *const *values, int64_t deadline_mono_us,
                              struct pg_result **rows, struct store_error *error)
{
    if (!store->connection) {
        store_set_error(error, "", "not connected");
        return STORE_RECONNECT;
    }
    store->durability_warning = false;
    int64_t began_us = clock_mono_us();
    if (!PQsendQueryParams(store->connection, sql, count, NULL, values, NULL, NULL, 0)) {
        store_set_error(error, "", PQerrorMessage(store->connection));
        store_disconnect(store);
        return STORE_RECONNECT;
    }
    enum store_action action =
        store_finish(store, statement_deadline(store, deadline_mono_us), rows, error);
    note_slow(store, sql, began_us, action, error);
    return action;
}

/* Sets the server's statement_timeout to what is left of the deadline, in steps, so that a change,
 * which costs a round trip, is rare. */
static bool limit_statement(struct store *store, int64_t deadline_mono_us, int64_t give_up_mono_us,
                            struct store_error *error)
{
    int64_t step_ms = store->statement_ms / STATEMENT_STEPS;
    int64_t steps = (deadline_mono_us - clock_mono_us()) / 1000 / step_ms;
    steps = steps < 1 ? 1 : steps > STATEMENT_STEPS ? STATEMENT_STEPS : steps;
    if (steps * step_ms == store->limit_ms)
        return true;
    char limit[24];
    snprintf(limit, sizeof(limit), "%lldms", (long long)(steps * step_ms));
    const char *values[] = {limit};
    if (store_query(store, "/* set_timeout */ SELECT set_config('statement_timeout', $1, false)", 1,
                    values, give_up_mono_us, NULL, error) != STORE_COMMITTED)
        return false;
    store->limit_ms = steps * step_ms;
    return true;
}

static bool prepare_one(struct store *store, int number, int64_t deadline_mono_us,
                        struct store_error *error)
{
    if (!PQsendPrepare(store->connection, captures[number].name, captures[number].sql, PARAM_COUNT,
                       param_types)) {
        store_set_error(error, "", PQerrorMessage(store->connection));
        return false;
    }
    PGresult *result;
    bool timed_out = false, good = false;
    if (!flush_query(store, deadline_mono_us)) {
        store_set_error(error, "", "no answer from PostgreSQL in time");
        return false;
    }
    store_set_error(error, "", "connection lost");
    while ((result = next_result(store, deadline_mono_us, &timed_out))) {
        good = PQresultStatus(result) == PGRES_COMMAND_OK;
        if (!good)
            take_result_error(result, error);
        PQclear(result);
    }
    return good && !timed_out;
}

bool store_prepare(struct store *store, int64_t deadline_mono_us, struct store_error *error)
{
    for (int number = 0; number < CAPTURE_COUNT; number++)
        if (!prepare_one(store, number, deadline_mono_us, error))
            return false;
    return true;
}

/* ---- capture --------------------------------------------------------------------------------- */

static void add_text(struct param_array *array, const char *text)
{
    if (text)
        param_add_bytes(array, slice_of_text(text));
    else
        param_add_null(array);
}

static void add_event(struct param_array *params, const struct delivery_event *item)
{
    const struct oh_event *event = item->event;
    const struct delivery *delivery = item->delivery;
    add_text(&params[P_SOURCE], delivery->source->name);
    add_text(&params[P_PROVIDER], delivery->source->provider);
    param_add_bytes(&params[P_ID], event->key);
    param_add_bytes(&params[P_SCOPE], item->scope);
    add_text(&params[P_GRADE], oh_key_grade_name(event->grade));
    add_text(&params[P_TYPE], oh_event_type_name(event->type));
    if (event->provider_type.data)
        param_add_bytes(&params[P_PROVIDER_TYPE], event->provider_type);
    else
        param_add_null(&params[P_PROVIDER_TYPE]);
    add_text(&params[P_CHANNEL], oh_channel_name(event->channel));
    if (event->has_enrollment)
        param_add_uuid(&params[P_ENROLLMENT], event->enrollment_id);
    else
        param_add_null(&params[P_ENROLLMENT]);
    if (event->has_instance)
        param_add_uuid(&params[P_INSTANCE], event->instance_id);
    else
        param_add_null(&params[P_INSTANCE]);
    param_add_time(&params[P_AT], event->occurred_at_us);
    param_add_uuid(&params[P_DELIVERY], delivery->id);
    if (event->payload.data) {
        param_add_jsonb(&params[P_PAYLOAD], event->payload);
        param_add_null(&params[P_BYTES]);
    } else {
        param_add_null(&params[P_PAYLOAD]);
        if (event->raw.len > 0)
            param_add_bytes(&params[P_BYTES], event->raw);
        else /* forgotten while it waited in the spool */
            param_add_null(&params[P_BYTES]);
    }
}

/* The id of a reference, or one of the user's own that looks like it: that costs a look only. */
static bool may_name_reference(const struct oh_event *event)
{
    return event->has_enrollment && event->enrollment_id[6] >> 4 == OH_REFERENCE_UUID_VERSION;
}

static enum delivery_outcome outcome_of_letter(char letter)
{
    switch (letter) {
    case 'c':
        return DELIVERY_CAPTURED;
    case 'o':
        return DELIVERY_ORPHAN;
    case 'd':
        return DELIVERY_DUPLICATE;
    default:
        return DELIVERY_UNDECIDED;
    }
}

/* Both answer with one letter an event. */
static enum store_action read_outcomes(const PGresult *rows, size_t count,
                                       enum delivery_outcome *outcomes, struct store_error *error)
{
    bool good =
        PQntuples(rows) == 1 && PQnfields(rows) == 1 && (size_t)PQgetlength(rows, 0, 0) == count;
    for (size_t i = 0; good && i < count; i++) {
        outcomes[i] = outcome_of_letter(PQgetvalue(rows, 0, 0)[i]);
        good = outcomes[i] != DELIVERY_UNDECIDED;
    }
    if (good)
        return STORE_COMMITTED;
    store_set_error(error, "F0000", "the capture gave an answer that this gateway does not know");
    return STORE_OUR_FAULT;
}

enum store_action store_capture(struct store *store, struct delivery_event *const *events,
                                size_t count, enum delivery_outcome *outcomes,
                                int64_t oldest_deadline_mono_us, int64_t give_up_mono_us,
                                struct store_error *error)
{
    const char *values[PARAM_COUNT];
    int lengths[PARAM_COUNT], formats[PARAM_COUNT];

    if (!store->connection) {
        store_set_error(error, "", "not connected");
        return STORE_RECONNECT;
    }
    for (int i = 0; i < PARAM_COUNT; i++)
        param_begin(&store->params[i], element_types[i], (uint32_t)count);
    int number = CAPTURE_PLAIN;
    for (size_t i = 0; i < count; i++) {
        add_event(store->params, events[i]);
        if (may_name_reference(events[i]->event))
            number = CAPTURE_REFERENCES;
    }
    for (int i = 0; i < PARAM_COUNT; i++) {
        if (store->params[i].failed) {
            store_set_error(error, "53200", "out of memory in the gateway");
            return STORE_STOP_INTAKE;
        }
        values[i] = store->params[i].bytes;
        lengths[i] = (int)store->params[i].len;
        formats[i] = 1;
    }
    if (!limit_statement(store, oldest_deadline_mono_us, give_up_mono_us, error))
        return STORE_RECONNECT;
    store->durability_warning = false;
    int64_t began_us = clock_mono_us();
    if (!PQsendQueryPrepared(store->connection, captures[number].name, PARAM_COUNT, values, lengths,
                             formats, 0)) {
        store_set_error(error, "", PQerrorMessage(store->connection));
        store_disconnect(store);
        return STORE_RECONNECT;
    }
    PGresult *rows = NULL;
    enum store_action action =
        store_finish(store, statement_deadline(store, give_up_mono_us), &rows, error);
    note_slow(store, captures[number].sql, began_us, action, error);
    if (action == STORE_COMMITTED)
        action = read_outcomes(rows, count, outcomes, error);
    PQclear(rows);
    return action;
}
