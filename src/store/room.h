/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share; nobody else includes it. */
#ifndef STORE_ROOM_H
#define STORE_ROOM_H

#include "store/params.h"
#include "store/store.h"

#include <libpq-fe.h>

/* The parameters of capture_v1, in its order. */
enum {
    P_SOURCE,
    P_PROVIDER,
    P_ID,
    P_SCOPE,
    P_GRADE,
    P_TYPE,
    P_PROVIDER_TYPE,
    P_CHANNEL,
    P_ENROLLMENT,
    P_INSTANCE,
    P_AT,
    P_DELIVERY,
    P_PAYLOAD,
    P_BYTES,
    PARAM_COUNT
};

struct store {
    const struct config *config;
    char *url;
    char *hosts, *addresses, *ports; /* the URL's, comma-separated; NULL = not given */
    uint32_t host_count;             /* at least 1 */
    char name[48];                   /* application_name */
    PGconn *connection;
    bool durability_warning; /* the running statement's commit was not confirmed by its standbys */
    int64_t statement_ms;    /* how long a statement may take on the server at most */
    int64_t limit_ms;        /* the session's statement_timeout now */
    const atomic_bool *stop; /* or NULL; see store_set_patience() */
    struct param_array params[PARAM_COUNT];
};

/* Fills *error; text ends at its first line. */
void store_set_error(struct store_error *error, const char *sqlstate, const char *text);

/* Waits for `events` (poll(2)) on the connection's socket; false at the deadline. */
bool store_wait_socket(const struct store *store, short events, int64_t deadline_mono_us);

/* libpq's notice receiver; context: the store. */
void store_on_notice(void *context, const PGresult *notice);

/* Prepares the capture of a new connection. */
bool store_prepare(struct store *store, int64_t deadline_mono_us,
                   struct store_error *error) OH_MUST_CHECK;

/* Takes the hosts out of the URL of a new store (store/connect.c). */
void store_read_hosts(struct store *store);

#endif
