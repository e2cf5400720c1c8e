/* SPDX-License-Identifier: Apache-2.0 */
/* Whom the events are about. */
#include "pairs.h"

#include <libpq-fe.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ENROLLMENTS_PER_INSTANCE = 100 };

static enum oh_status pairs_alloc(struct pairs *pairs, size_t count, struct oh_error *err)
{
    pairs->items = calloc(count, sizeof(*pairs->items));
    pairs->count = count;
    return pairs->items ? OH_OK
                        : oh_fail(err, OH_NO_MEMORY, "no memory for %zu enrollments", count);
}

/* The server's message, or libpq's, without its end of line. */
static enum oh_status database_fail(PGconn *connection, struct oh_error *err)
{
    const char *text = PQerrorMessage(connection);
    return oh_fail(err, OH_SYSTEM, "database: %.*s", (int)strcspn(text, "\n"), text);
}

static enum oh_status pairs_take_rows(const PGresult *rows, struct pairs *out, struct oh_error *err)
{
    int count = PQntuples(rows);
    if (count == 0)
        return oh_fail(err, OH_INVALID, "there are no enrollments in the database");
    enum oh_status status = pairs_alloc(out, (size_t)count, err);
    for (int i = 0; status == OH_OK && out->items && i < count; i++) {
        if (PQgetlength(rows, i, 0) != UUID_TEXT || PQgetlength(rows, i, 1) != UUID_TEXT)
            return oh_fail(err, OH_SYSTEM, "database: an id is not a uuid");
        memcpy(out->items[i].enrollment, PQgetvalue(rows, i, 0), UUID_TEXT);
        memcpy(out->items[i].instance, PQgetvalue(rows, i, 1), UUID_TEXT);
    }
    return status;
}

enum oh_status pairs_read(const char *url, const char *schema, size_t max, struct pairs *out,
                          struct oh_error *err)
{
    *out = (struct pairs){0};
    const char *const words[] = {"dbname", "connect_timeout", "application_name", NULL};
    const char *const values[] = {url, "5", "oncehook bench", NULL};
    PGconn *connection = PQconnectdbParams(words, values, 1);
    char *quoted = NULL, sql[512];
    PGresult *rows = NULL;
    enum oh_status status = OH_OK;
    if (PQstatus(connection) != CONNECTION_OK) {
        status = database_fail(connection, err);
        goto out;
    }
    quoted = PQescapeIdentifier(connection, schema, strlen(schema));
    /* ids are random, so their order spreads the enrollments over all instances */
    snprintf(sql, sizeof(sql),
             "SELECT id, instance_id FROM %s.campaign_enrollments ORDER BY id LIMIT %zu",
             quoted ? quoted : "public", max);
    rows = PQexec(connection, sql);
    status = PQresultStatus(rows) == PGRES_TUPLES_OK ? pairs_take_rows(rows, out, err)
                                                     : database_fail(connection, err);
out:
    PQclear(rows);
    PQfreemem(quoted);
    PQfinish(connection);
    if (status != OH_OK)
        pairs_free(out);
    return status;
}

/* A random UUID as text. */
static bool invent_uuid(char out[UUID_TEXT])
{
    unsigned char bytes[16];
    char text[UUID_TEXT + 1];
    if (RAND_bytes(bytes, sizeof(bytes)) != 1)
        return false;
    size_t at = 0;
    for (size_t i = 0; i < sizeof(bytes); i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            text[at++] = '-';
        snprintf(text + at, 3, "%02x", bytes[i]);
        at += 2;
    }
    text[14] = '4'; /* version 4 and its variant, RFC 4122 section 4.4 */
    text[19] = "89ab"[bytes[8] & 3];
    memcpy(out, text, UUID_TEXT);
    return true;
}

enum oh_status pairs_invent(size_t count, struct pairs *out, struct oh_error *err)
{
    enum oh_status status = pairs_alloc(out, count, err);
    for (size_t i = 0; status == OH_OK && out->items && i < count; i++) {
        struct pair *pair = &out->items[i];
        if (!invent_uuid(pair->enrollment))
            return oh_fail(err, OH_SYSTEM, "no random bytes");
        if (i % ENROLLMENTS_PER_INSTANCE != 0)
            memcpy(pair->instance, pair[-1].instance, UUID_TEXT);
        else if (!invent_uuid(pair->instance))
            return oh_fail(err, OH_SYSTEM, "no random bytes");
    }
    return status;
}

/* Whether `instance` is one of the first `count` pairs' instances. */
static bool is_among(const struct pairs *pairs, size_t count, const char instance[UUID_TEXT])
{
    for (size_t i = 0; i < count; i++)
        if (memcmp(pairs->items[i].instance, instance, UUID_TEXT) == 0)
            return true;
    return false;
}

void pairs_keep_instances(struct pairs *pairs, uint32_t instances)
{
    size_t first = 0, kept;
    /* to the front: one pair of each of the instances that stay */
    for (size_t i = 0; i < pairs->count && first < instances; i++) {
        if (is_among(pairs, first, pairs->items[i].instance))
            continue;
        struct pair pair = pairs->items[i];
        pairs->items[i] = pairs->items[first];
        pairs->items[first++] = pair;
    }
    kept = first;
    for (size_t i = first; i < pairs->count; i++)
        if (is_among(pairs, first, pairs->items[i].instance))
            pairs->items[kept++] = pairs->items[i];
    pairs->count = kept;
}

void pairs_free(struct pairs *pairs)
{
    free(pairs->items);
    *pairs = (struct pairs){0};
}
