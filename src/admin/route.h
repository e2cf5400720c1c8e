/* SPDX-License-Identifier: Apache-2.0 */
/* The routes below /v1 as a table: path, SQL file, typed parameters. A request becomes a row and
 * the texts of its SQL parameters, or an answer that names the parameter that is wrong. No I/O.
 *
 * An SQL file gives one row: `status` integer; `body` text: JSON, JSON lines, or from 400 on the
 * problem's detail or a JSON object of its members; and, where it has one, `cursor` text: where a
 * feed goes on. Status 204 of a ROUTE_WAITS means "nothing yet", and is asked again while the
 * client waits. */
#ifndef ADMIN_ROUTE_H
#define ADMIN_ROUTE_H

#include "admin/reply.h"
#include "oncehook/types.h"

#include <stdbool.h>
#include <stdint.h>

enum { ROUTE_PARAMS_MAX = 10, ROUTE_SEGMENTS_MAX = 8, ROUTE_VALUE_BYTES = 320 };

enum route_type {
    ROUTE_UUID,
    ROUTE_TEXT,     /* 1 to 255 bytes of UTF-8 */
    ROUTE_WORD,     /* one of `words` */
    ROUTE_NUMBER,   /* 1 to `max` */
    ROUTE_TIME,     /* RFC 3339; to SQL as Unix microseconds */
    ROUTE_DATE,     /* YYYY-MM-DD */
    ROUTE_ZONE,     /* a time zone's name; SQL knows whether there is one */
    ROUTE_CURSOR,   /* times (get_events.sql), numbers and a UUID, joined by "-", as `words` shows:
                       "t-n", "t-u" */
    ROUTE_POSITION, /* of the feed: a cursor, or "first", "now", or a time (as ROUTE_TIME) */
    ROUTE_SECONDS,  /* 0 to `max`: how long the client waits; not for SQL, stands last */
    ROUTE_BODY,     /* the request's body, JSON; its name is "body" */
};

enum route_flags {
    ROUTE_WRITES = 1, /* runs on the connection that may write */
    ROUTE_LINES = 2,  /* the body is JSON lines */
    ROUTE_WAITS = 4,  /* long poll; its first parameter is the position */
};

struct route_param {
    const char *name; /* NULL ends the list */
    enum route_type type;
    const char *fallback; /* when it is not given; NULL = SQL null, or refused in a path */
    int64_t max;
    const char *words;
};

/* SQL gets the parameters in their order, as text: $1 is the first. */
struct route {
    const char *method; /* GET (and so HEAD) or POST */
    const char *path;   /* {name} stands for a parameter */
    const char *sql;    /* file of sql/ */
    unsigned flags;
    struct route_param params[ROUTE_PARAMS_MAX];
};

extern const struct route route_table[]; /* ends with a path of NULL */

/* A request below /v1. Everything lives for the call. */
struct route_request {
    const char *method;
    const char *path; /* decoded, without the query */
    const struct route_argument {
        const char *name;
        struct oh_slice value; /* data NULL = "name" without "=" */
    } * arguments;
    size_t argument_count;
    struct oh_slice body; /* data NULL = none */
    int fd;               /* of the client's connection; -1 = unknown */
};

/* A request that fits its row. */
struct route_call {
    const struct route *route;
    const char *values[ROUTE_PARAMS_MAX]; /* for SQL; NULL = SQL null */
    int value_count;
    int64_t wait_s;
    char texts[ROUTE_PARAMS_MAX][ROUTE_VALUE_BYTES]; /* what values point to */
};

/* True if a row of that method has that path and takes a body. */
bool route_takes_body(const char *method, const char *path);

/* Finds the row and reads the parameters. False: *reply is the answer (404, 405, 400). */
bool route_read(const struct route_request *request, struct route_call *call, struct reply *reply);

/* The table as JSON, what GET /v1 says and what the docs are held against; a new reference. */
json_t *route_list(void);

#endif
