/* SPDX-License-Identifier: Apache-2.0 */
/* One PostgreSQL connection: connect, capture, and what a SQLSTATE means.
 *
 * Plain blocking flow with deadlines, no callbacks: send, poll(2), read until PQgetResult gives
 * NULL. Rows arrive *before* the commit and a failed commit arrives as a second result, so a batch
 * is committed only when the connection is idle, no result was an error and no durability warning
 * came (research: libpq 15 protocol; "canceling wait for synchronous replication"). Thread: a store
 * belongs to one thread. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "delivery/delivery.h"

#include <stdatomic.h>

/* What a result asks the lane to do. The table is in store/sqlstate.c. */
enum store_action {
    STORE_COMMITTED, /* known: committed */
    STORE_RETRY,     /* the same batch again on this connection */
    STORE_RECONNECT, /* outcome unknown or connection gone: again on a new connection */
    STORE_POISON,    /* a row cannot be stored: find it by bisection, quarantine it */
    STORE_REFUSED, /* a constraint or trigger of the user's own refuses a row: find it by bisection,
                      leave it undecided (503), commit the others */
    STORE_MAKE_MONTH,  /* no month for now(): have it made, then retry */
    STORE_OUR_FAULT,   /* schema or program wrong: 503 and an alarm */
    STORE_STOP_INTAKE, /* the server is out of something: 503, back off */
};

struct store_error {
    char sqlstate[6];      /* "" = none: the outcome is unknown */
    char text[256];        /* server's primary message, never a detail (it may quote a row) */
    bool names_constraint; /* the server named the constraint that was violated */
    const char *part;      /* what is not well, see store_error_part(); NULL: as sqlstate says */
};

struct store;

/* A store that is not connected. Settings are read from config (which must outlive it); `name` goes
 * to application_name. NULL when memory is gone. */
struct store *store_new(const struct config *config, const char *url,
                        const char *name) OH_MUST_CHECK;
void store_free(struct store *store);

/* A statement may take statement_ms, whatever the deliveries' deadlines are (0: as they are), and
 * once *stop is set (by any thread; NULL: never) nothing is waited for any more and the connection
 * is given up. Before store_connect(). */
void store_set_patience(struct store *store, int64_t statement_ms, const atomic_bool *stop);

/* Connects and prepares, until deadline (monotonic µs). Also the start-up checks: schema version,
 * fsync, full_page_writes, synchronous_commit, the role's rights. False: *error says why. */
bool store_connect(struct store *store, int64_t deadline_mono_us,
                   struct store_error *error) OH_MUST_CHECK;
bool store_is_connected(const struct store *store);
void store_disconnect(struct store *store);

/* Looks, without waiting, whether the server has closed an idle connection; false when it has (or
 * there is none). Lets a lane notice a lost database without sending. */
bool store_check_idle(struct store *store);

/* Captures events[0..count) in one transaction; count >= 1. The server gives the statement up when
 * statement_timeout or what is left of oldest_deadline (the events' first, monotonic µs) has
 * passed, in steps of an eighth of statement_timeout, at least one; the client does at give_up
 * (monotonic µs), or some time after the server should have. On STORE_COMMITTED outcomes[i] is
 * DELIVERY_CAPTURED, _ORPHAN or _DUPLICATE for each. Otherwise *error is filled. */
enum store_action store_capture(struct store *store, struct delivery_event *const *events,
                                size_t count, enum delivery_outcome *outcomes,
                                int64_t oldest_deadline_mono_us, int64_t give_up_mono_us,
                                struct store_error *error) OH_MUST_CHECK;

/* Keeps bytes that cannot be captured in quarantined_deliveries, once: the delivery's whole body,
 * or one event's bytes (`raw`). reason: static or server's words. */
enum store_action store_quarantine(struct store *store, const struct delivery *delivery,
                                   struct oh_slice raw, const char *reason,
                                   int64_t deadline_mono_us,
                                   struct store_error *error) OH_MUST_CHECK;

/* True if a header or query parameter of that name holds a credential, which is kept as ****. Pure.
 */
bool store_names_credential(struct oh_slice name);

/* The URL with **** for user info and for the values of query parameters that name a credential.
 * malloc'ed, NULL when memory is gone. */
char *store_mask_url(struct oh_slice url) OH_MUST_CHECK;

/* Has the months made: this one and `ahead` more. */
enum store_action store_make_months(struct store *store, int ahead, int64_t deadline_mono_us,
                                    struct store_error *error) OH_MUST_CHECK;

/* Runs one statement with text parameters (NULL = SQL null); it begins with its name, or is a file
 * of sql/ (store_name_statement). *rows (may be NULL) gets the result on
 * STORE_COMMITTED; the caller clears it with PQclear(). */
struct pg_result;
enum store_action store_query(struct store *store, const char *sql, int count,
                              const char *const *values, int64_t deadline_mono_us,
                              struct pg_result **rows, struct store_error *error) OH_MUST_CHECK;

/* Statements of this process that took longer than database.slow_statement; each is also a line of
 * the log, with its name and never with a parameter. Thread: any. */
uint64_t store_slow_statements(void);

/* The name of a statement: the comment that it begins with, so that pg_stat_activity and
 * pg_stat_statements show it too; of an embedded file its name; else "unnamed". Pure. */
void store_name_statement(const char *sql, char *name, size_t size);

/* What a SQLSTATE asks for; "" or NULL = unknown outcome. names_constraint tells a violated CHECK
 * from a missing month, which shares its state; messages are translated and tell nothing. Pure. */
enum store_action store_action_for(const char *sqlstate, bool names_constraint);

/* What a log or a page may say of the error: its text, or static words where the server's message
 * may quote a row (data errors, and whatever a trigger of the user's own raises). Pure. */
const char *store_error_words(const struct store_error *error);

/* What of the database keeps events out, for /readyz: static words that begin with "database", and
 * only for a server that is not there or does not answer are no more than that. Pure. */
const char *store_error_part(const struct store_error *error);

#endif
