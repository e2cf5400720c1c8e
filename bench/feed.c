/* SPDX-License-Identifier: Apache-2.0 */
/* Rows by COPY, keys by INSERT: what PostgreSQL gives when nothing but that is asked of it. COPY is
 * binary, since the gateway's parameters are binary too: no side gains by its form. */
#include "feed.h"

#include <arpa/inet.h>
#include <endian.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SQL_BYTES = 1024, BUFFER_BYTES = 65536, COLUMNS = 13 };

/* Unix time of 2000-01-01, the zero of PostgreSQL's timestamps, in microseconds. */
#define POSTGRES_EPOCH_US INT64_C(946684800000000)

struct feed {
    PGconn *connection;
    enum feed_kind kind;
    char sql[SQL_BYTES];
    char *bytes; /* the batch: COPY's stream, or the text of an array */
    size_t len, size;
    bool is_short; /* of memory */
};

enum feed_kind feed_kind_of(const char *name)
{
    static const char *const names[FEED_KIND_COUNT] = {"capture", "copy", "keys"};
    enum feed_kind kind = 0;
    while (kind < FEED_KIND_COUNT && strcmp(names[kind], name) != 0)
        kind++;
    return kind;
}

static enum oh_status database_fail(const struct feed *feed, struct oh_error *err)
{
    const char *text = PQerrorMessage(feed->connection);
    return oh_fail(err, OH_SYSTEM, "database: %.*s", (int)strcspn(text, "\n"), text);
}

/* ---- the batch ------------------------------------------------------------------------------ */

static void append(struct feed *feed, const void *bytes, size_t len)
{
    if (len > feed->size - feed->len) {
        size_t size = 2 * feed->size + len;
        char *grown = realloc(feed->bytes, size);
        if (!grown) {
            feed->is_short = true;
            return;
        }
        feed->bytes = grown;
        feed->size = size;
    }
    memcpy(feed->bytes + feed->len, bytes, len);
    feed->len += len;
}

static void append_number(struct feed *feed, uint32_t number)
{
    number = htonl(number);
    append(feed, &number, sizeof(number));
}

static void append_field(struct feed *feed, const void *bytes, size_t len)
{
    append_number(feed, (uint32_t)len);
    append(feed, bytes, len);
}

static void append_word(struct feed *feed, const char *word)
{
    append_field(feed, word, strlen(word));
}

static void append_uuid(struct feed *feed, const uint8_t uuid[16], bool known)
{
    if (known)
        append_field(feed, uuid, 16);
    else
        append_number(feed, UINT32_MAX); /* null */
}

/* The columns in the order of the statement in feed_new(). */
static void append_row(struct feed *feed, const struct delivery_event *waiting)
{
    const uint16_t columns = htons(COLUMNS);
    const char jsonb_version = 1;
    const struct oh_event *event = waiting->event;
    const struct delivery *delivery = waiting->delivery;
    const int64_t at = (int64_t)htobe64((uint64_t)(event->occurred_at_us - POSTGRES_EPOCH_US));
    append(feed, &columns, sizeof(columns));
    append_field(feed, &at, sizeof(at));
    append_uuid(feed, delivery->id, true);
    append_uuid(feed, event->instance_id, event->has_instance);
    append_uuid(feed, event->enrollment_id, event->has_enrollment);
    append_word(feed, delivery->source->name);
    append_word(feed, delivery->source->provider);
    append_field(feed, event->key.data, event->key.len);
    append_field(feed, waiting->scope.data, waiting->scope.len);
    append_word(feed, "id");
    append_word(feed, oh_event_type_name(event->type));
    append_field(feed, event->provider_type.data, event->provider_type.len);
    append_number(feed, (uint32_t)event->payload.len + 1);
    append(feed, &jsonb_version, 1);
    append(feed, event->payload.data, event->payload.len);
    append_number(feed, UINT32_MAX); /* payload_bytes */
}

/* ---- COPY ----------------------------------------------------------------------------------- */

/* Reads until nothing is left. True if the last command did what was asked. */
static bool finish(struct feed *feed)
{
    bool good = true;
    for (PGresult *result; (result = PQgetResult(feed->connection));) {
        good = good && PQresultStatus(result) == PGRES_COMMAND_OK;
        PQclear(result);
    }
    return good;
}

static bool copy(struct feed *feed, struct delivery_event *const *events, size_t count)
{
    static const char head[] = "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0"; /* flags and extension: none */
    const uint16_t end = UINT16_MAX;
    PGresult *begun = PQexec(feed->connection, feed->sql);
    bool good = PQresultStatus(begun) == PGRES_COPY_IN;
    PQclear(begun);
    if (!good)
        return false;
    append(feed, head, 19);
    for (size_t i = 0; i < count; i++)
        append_row(feed, events[i]);
    append(feed, &end, sizeof(end));
    return PQputCopyData(feed->connection, feed->bytes, (int)feed->len) == 1 &&
           PQputCopyEnd(feed->connection, feed->is_short ? "no memory" : NULL) == 1 && finish(feed);
}

/* ---- keys ----------------------------------------------------------------------------------- */

/* The ids are UUIDs (maker.h): nothing in them has to be quoted. */
static bool insert_keys(struct feed *feed, struct delivery_event *const *events, size_t count)
{
    char scope[256];
    snprintf(scope, sizeof(scope), "%.*s", (int)events[0]->scope.len, events[0]->scope.data);
    append(feed, "{", 1);
    for (size_t i = 0; i < count; i++) {
        append(feed, i ? "," : "", i > 0);
        append(feed, events[i]->event->key.data, events[i]->event->key.len);
    }
    append(feed, "}", 2); /* with its end */
    const char *const values[] = {feed->bytes, scope};
    return !feed->is_short &&
           PQsendQueryPrepared(feed->connection, "keys", 2, values, NULL, NULL, 0) == 1 &&
           finish(feed);
}

/* ---- the connection ------------------------------------------------------------------------- */

enum oh_status feed_write(struct feed *feed, struct delivery_event *const *events, size_t count,
                          struct oh_error *err)
{
    feed->len = 0;
    feed->is_short = false;
    bool good =
        feed->kind == FEED_COPY ? copy(feed, events, count) : insert_keys(feed, events, count);
    return good ? OH_OK : database_fail(feed, err);
}

static bool prepare(struct feed *feed, const char *schema)
{
    if (feed->kind == FEED_COPY) {
        snprintf(feed->sql, sizeof(feed->sql),
                 "COPY %s.campaign_events (\"timestamp\", delivery_id, instance_id, "
                 "enrollment_id, source, provider, provider_event_id, key_scope, key_grade, "
                 "event_type, provider_event_type, payload, payload_bytes) "
                 "FROM STDIN (FORMAT binary)",
                 schema);
        return true;
    }
    snprintf(feed->sql, sizeof(feed->sql),
             "INSERT INTO %s.event_keys (provider_event_id, key_scope) "
             "SELECT k, $2 FROM unnest($1::text[]) k",
             schema);
    PGresult *prepared = PQprepare(feed->connection, "keys", feed->sql, 2, NULL);
    bool good = PQresultStatus(prepared) == PGRES_COMMAND_OK;
    PQclear(prepared);
    return good;
}

enum oh_status feed_new(const char *url, const char *schema, enum feed_kind kind, struct feed **out,
                        struct oh_error *err)
{
    const char *const words[] = {"dbname", "connect_timeout", "application_name", NULL};
    const char *const values[] = {url, "10", "oncehook bench", NULL};
    struct feed *feed = calloc(1, sizeof(*feed));
    *out = feed;
    if (!feed || !(feed->bytes = malloc(BUFFER_BYTES)))
        return oh_fail(err, OH_NO_MEMORY, "no memory");
    feed->size = BUFFER_BYTES;
    feed->kind = kind;
    feed->connection = PQconnectdbParams(words, values, 1);
    if (PQstatus(feed->connection) != CONNECTION_OK)
        return database_fail(feed, err);
    char *quoted = PQescapeIdentifier(feed->connection, schema, strlen(schema));
    bool good = quoted && prepare(feed, quoted);
    PQfreemem(quoted);
    return good ? OH_OK : database_fail(feed, err);
}

void feed_free(struct feed *feed)
{
    if (!feed)
        return;
    PQfinish(feed->connection);
    free(feed->bytes);
    free(feed);
}
