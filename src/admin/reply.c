/* SPDX-License-Identifier: Apache-2.0 */
/* admin/reply.h: answers made of JSON values. */
#include "admin/reply.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

json_t *reply_real(double value)
{
    return isfinite(value) ? json_real(round(value * 1e6) / 1e6) : json_null();
}

struct reply reply_json(unsigned status, const char *content_type, json_t *value)
{
    struct reply reply = {.status = status, .content_type = content_type};
    reply.body = value ? json_dumps(value, JSON_COMPACT | REPLY_REALS) : NULL;
    reply.len = reply.body ? strlen(reply.body) : 0;
    json_decref(value);
    return reply;
}

static const char *title_of(unsigned status)
{
    static const struct {
        unsigned status;
        const char *title;
    } titles[] = {
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {409, "Conflict"},
        {410, "Gone"},
        {413, "Content Too Large"},
        {415, "Unsupported Media Type"},
        {422, "Unprocessable Content"},
        {503, "Service Unavailable"},
    };
    for (size_t i = 0; i < sizeof(titles) / sizeof(titles[0]); i++)
        if (titles[i].status == status)
            return titles[i].title;
    return "Error";
}

struct reply reply_problem_members(unsigned status, const char *members)
{
    json_t *problem = json_pack("{s:s, s:s, s:i}", "type", "about:blank", "title", title_of(status),
                                "status", (int)status);
    json_t *further = json_loads(members, 0, NULL);
    if (problem && json_object_update_missing(problem, further) != 0) {
        json_decref(problem);
        problem = NULL;
    }
    json_decref(further);
    return reply_json(status, "application/problem+json", problem);
}

struct reply reply_problem(unsigned status, const char *parameter, const char *format, ...)
{
    char detail[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(detail, sizeof(detail), format, arguments);
    va_end(arguments);
    return reply_json(status, "application/problem+json",
                      json_pack("{s:s, s:s, s:i, s:s, s:s*}", "type", "about:blank", "title",
                                title_of(status), "status", (int)status, "detail", detail,
                                "parameter", parameter));
}
