/* SPDX-License-Identifier: Apache-2.0 */
/* An answer of the admin listener before libmicrohttpd has it. */
#ifndef ADMIN_REPLY_H
#define ADMIN_REPLY_H

#include <jansson.h>

enum { REPLY_CURSOR_BYTES = 96 };

struct reply {
    unsigned status;
    const char *content_type; /* static */
    char *body;               /* malloc'ed; NULL when memory is gone */
    size_t len;
    char allow[32];                  /* for 405; "" = none */
    unsigned retry_after_s;          /* 0 = none */
    char cursor[REPLY_CURSOR_BYTES]; /* header Oncehook-Cursor; "" = none */
};

/* A number with at most six decimals (null when it is none), and the flag with which json_dump…()
 * prints it so: every real that is shown as JSON is made and printed with these. */
json_t *reply_real(double value);
#define REPLY_REALS JSON_REAL_PRECISION(15)

/* `value` as the body; its reference is taken over. */
struct reply reply_json(unsigned status, const char *content_type, json_t *value);

/* An error as application/problem+json (RFC 9457); its title is the status' own. `parameter`: which
 * of the request's parameters it is about, or NULL. */
struct reply reply_problem(unsigned status, const char *parameter, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same from a JSON object of its members, `detail` and others. */
struct reply reply_problem_members(unsigned status, const char *members);

#endif
