/* SPDX-License-Identifier: Apache-2.0 */
/* admin/route.h: the table first, then how a request is held against it. */
#include "admin/route.h"

#include "base/encode.h"
#include "base/slice.h"
#include "body/text.h"
#include "body/time.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES_MAX = 255, ZONE_BYTES_MAX = 64, UUID_BYTES = 36 };

/* 0001-01-01 to 9999-12-31, in PostgreSQL's range with room to add days. */
static const int64_t time_min_us = INT64_C(-62135596800) * 1000000;
static const int64_t time_max_us = INT64_C(253402300800) * 1000000;

#define EVENT_TYPES                                                          \
    "sent delivered opened clicked replied bounced unsubscribed complained " \
    "failed connected viewed completed other"

const struct route route_table[] = {
    {"GET",
     "/v1/templates",
     "get_templates.sql",
     0,
     {{"limit", ROUTE_NUMBER, "50", 100, NULL},
      {"cursor", ROUTE_CURSOR, NULL, 0, "t-u"},
      {"active", ROUTE_WORD, NULL, 0, "true false"}}},
    {"GET",
     "/v1/instances",
     "get_instances.sql",
     0,
     {{"limit", ROUTE_NUMBER, "50", 1000, NULL},
      {"cursor", ROUTE_UUID, NULL, 0, NULL},
      {"template_id", ROUTE_UUID, NULL, 0, NULL},
      {"status", ROUTE_TEXT, NULL, 0, NULL}}},
    {"POST",
     "/v1/instances/{instance_id}/enrollments",
     "post_enrollments.sql",
     ROUTE_WRITES,
     {{"instance_id", ROUTE_UUID, NULL, 0, NULL}, {"body", ROUTE_BODY, NULL, 0, NULL}}},
    {"GET",
     "/v1/contacts",
     "get_contacts.sql",
     0,
     {{"limit", ROUTE_NUMBER, "50", 1000, NULL},
      {"cursor", ROUTE_CURSOR, NULL, 0, "t-u"},
      {"source", ROUTE_TEXT, NULL, 0, NULL},
      {"domain", ROUTE_TEXT, NULL, 0, NULL}}},
    {"GET",
     "/v1/events",
     "get_events.sql",
     0,
     {{"limit", ROUTE_NUMBER, "50", 1000, NULL},
      {"cursor", ROUTE_CURSOR, NULL, 0, "t-n"},
      {"type", ROUTE_WORD, NULL, 0, EVENT_TYPES},
      {"source", ROUTE_TEXT, NULL, 0, NULL},
      {"enrollment_id", ROUTE_UUID, NULL, 0, NULL},
      {"instance_id", ROUTE_UUID, NULL, 0, NULL},
      {"from", ROUTE_TIME, NULL, 0, NULL},
      {"to", ROUTE_TIME, NULL, 0, NULL}}},
    {"GET",
     "/v1/events/after/{cursor}",
     "get_feed.sql",
     ROUTE_LINES | ROUTE_WAITS,
     {{"cursor", ROUTE_POSITION, NULL, 0, "n-n-n-n"},
      {"limit", ROUTE_NUMBER, "500", 1000, NULL},
      {"source", ROUTE_TEXT, NULL, 0, NULL},
      {"type", ROUTE_WORD, NULL, 0, EVENT_TYPES},
      {"wait", ROUTE_SECONDS, "0", 60, NULL}}},
    {"GET",
     "/v1/analytics/rates",
     "get_rates.sql",
     0,
     {{"from", ROUTE_DATE, NULL, 0, NULL},
      {"to", ROUTE_DATE, NULL, 0, NULL},
      {"tz", ROUTE_ZONE, "UTC", 0, NULL},
      {"instance_id", ROUTE_UUID, NULL, 0, NULL}}},
    {"POST",
     "/v1/enrollments/{enrollment_id}/references",
     "post_references.sql",
     ROUTE_WRITES,
     {{"enrollment_id", ROUTE_UUID, NULL, 0, NULL}, {"body", ROUTE_BODY, NULL, 0, NULL}}},
    {0},
};

/* ---- the path ---------------------------------------------------------------------------------
 */

/* Compares the path with the row's, segment by segment; `values` gets what stands for each {name},
 * in their order. A segment is never empty. */
static bool path_fits(const char *pattern, const char *path, struct oh_slice *values)
{
    for (size_t count = 0; *pattern || *path; pattern++, path++) {
        if (*pattern == '{') {
            size_t len = strcspn(path, "/");
            if (len == 0 || count == ROUTE_SEGMENTS_MAX)
                return false;
            values[count++] = slice_of(path, len);
            path += len;
            pattern += strcspn(pattern, "}") + 1;
            if (*pattern != *path)
                return false;
            if (!*pattern)
                return true;
        }
        if (*pattern != *path)
            return false;
    }
    return true;
}

/* The number of the {name} in the row's path, -1 if it has none of that name. */
static int place_in_path(const struct route *route, const char *name)
{
    size_t len = strlen(name);
    int number = 0;
    for (const char *at = route->path; (at = strchr(at, '{')) != NULL; at++, number++)
        if (strncmp(at + 1, name, len) == 0 && at[1 + len] == '}')
            return number;
    return -1;
}

static bool is_method(const struct route *route, const char *method)
{
    return strcmp(method, route->method) == 0 ||
           (strcmp(method, "HEAD") == 0 && strcmp(route->method, "GET") == 0);
}

bool route_takes_body(const char *method, const char *path)
{
    struct oh_slice values[ROUTE_SEGMENTS_MAX];
    for (const struct route *route = route_table; route->path; route++)
        if (is_method(route, method) && path_fits(route->path, path, values))
            for (const struct route_param *param = route->params; param->name; param++)
                if (param->type == ROUTE_BODY)
                    return true;
    return false;
}

/* ---- one parameter ----------------------------------------------------------------------------
 */

/* A whole number that PostgreSQL's bigint can hold. */
static bool is_number(struct oh_slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
    return text.len >= 1 && text.len <= 18;
}

/* Microseconds since 1970, after "b" before it; "z", "a": infinity after all others, before them.
 * No more than PostgreSQL has: 4713 BC to 294247. */
static bool is_moment(struct oh_slice text)
{
    const uint64_t min_us = UINT64_C(210866803200000000), max_us = INT64_MAX;
    bool is_before = text.len > 0 && text.data[0] == 'b';
    char digits[20] = "";
    if (text.len == 1 && (text.data[0] == 'z' || text.data[0] == 'a'))
        return true;
    if (is_before)
        text = slice_of(text.data + 1, text.len - 1);
    if (text.len < 1 || text.len >= sizeof(digits))
        return false;
    memcpy(digits, text.data, text.len);
    return strspn(digits, "0123456789") == text.len &&
           strtoull(digits, NULL, 10) <= (is_before ? min_us : max_us);
}

/* Times ("t"), numbers ("n") and a UUID ("u") joined by "-". */
static bool is_cursor(struct oh_slice text, const char *form)
{
    uint8_t uuid[16];
    for (; *form; form++) {
        if (*form == 'u')
            return uuid_parse(text, uuid);
        if (*form == '-')
            continue;
        const char *dash = memchr(text.data, '-', text.len);
        size_t len = dash ? (size_t)(dash - text.data) : text.len;
        bool is_last = !form[1];
        bool is_good = *form == 't' ? is_moment(slice_of(text.data, len))
                                    : is_number(slice_of(text.data, len));
        if (!is_good || is_last != !dash)
            return false;
        text.data += len + !is_last;
        text.len -= len + !is_last;
    }
    return true;
}

static bool is_word(struct oh_slice text, const char *words)
{
    for (size_t len; *words; words += len + (words[len] == ' ')) {
        len = strcspn(words, " ");
        if (slice_equals(text, slice_of(words, len)))
            return true;
    }
    return false;
}

static bool is_zone(struct oh_slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-/",
                    text.data[i]))
            return false;
    return text.len >= 1 && text.len <= ZONE_BYTES_MAX;
}

/* RFC 3339, and not one of the numbers that time_parse() knows too. */
static bool read_time(struct oh_slice text, int64_t *unix_us)
{
    return text.len >= 10 && text.data[4] == '-' && time_parse(text, RECIPE_UNIT_ISO, unix_us) &&
           *unix_us >= time_min_us && *unix_us < time_max_us;
}

static bool read_number(struct oh_slice text, int64_t min, int64_t max, int64_t *number)
{
    if (!is_number(text))
        return false;
    *number = strtoll(text.data, NULL, 10); /* what follows is no digit */
    return *number >= min && *number <= max;
}

/* Writes the parameter as SQL takes it to call->texts[i]; false: it is not of its type. */
static bool read_value(struct route_call *call, int i, const struct route_param *param,
                       struct oh_slice text)
{
    char *out = call->texts[i];
    uint8_t uuid[16];
    int64_t number = 0;
    bool good = false;
    snprintf(out, ROUTE_VALUE_BYTES, "%.*s", (int)text.len, text.data);
    switch (param->type) {
    case ROUTE_UUID:
        good = uuid_parse(text, uuid);
        break;
    case ROUTE_TEXT:
        good = text.len >= 1 && text.len <= TEXT_BYTES_MAX && text_is_storable(text);
        break;
    case ROUTE_WORD:
        good = is_word(text, param->words);
        break;
    case ROUTE_NUMBER:
        good = read_number(text, 1, param->max, &number);
        break;
    case ROUTE_SECONDS:
        good = read_number(text, 0, param->max, &call->wait_s);
        break;
    case ROUTE_TIME:
        good = read_time(text, &number);
        snprintf(out, ROUTE_VALUE_BYTES, "%" PRId64, number);
        break;
    case ROUTE_DATE:
        good = text.len == 10 && read_time(text, &number);
        break;
    case ROUTE_ZONE:
        good = is_zone(text);
        break;
    case ROUTE_CURSOR:
        good = is_cursor(text, param->words);
        break;
    case ROUTE_POSITION:
        good = is_cursor(text, param->words) || is_word(text, "first now");
        if (!good && (good = read_time(text, &number)))
            snprintf(out, ROUTE_VALUE_BYTES, "@%" PRId64, number);
        break;
    case ROUTE_BODY:
        break;
    }
    return good;
}

/* What a parameter must be, for people. */
static const char *words_for(const struct route_param *param, char *words, size_t size)
{
    switch (param->type) {
    case ROUTE_UUID:
        return "a UUID";
    case ROUTE_TEXT:
        return "1 to 255 bytes of UTF-8";
    case ROUTE_WORD:
        snprintf(words, size, "one of: %s", param->words);
        return words;
    case ROUTE_NUMBER:
    case ROUTE_SECONDS:
        snprintf(words, size, "a whole number from %d to %" PRId64, param->type == ROUTE_NUMBER,
                 param->max);
        return words;
    case ROUTE_TIME:
        return "a time as 2026-01-31T00:00:00Z";
    case ROUTE_DATE:
        return "a day as 2026-01-31";
    case ROUTE_ZONE:
        return "the name of a time zone, as Europe/Berlin";
    case ROUTE_CURSOR:
        return "a cursor from an earlier answer";
    case ROUTE_POSITION:
        return "a cursor from an earlier answer, \"first\", \"now\", or a time as "
               "2026-01-31T00:00:00Z";
    case ROUTE_BODY:
        break;
    }
    return "JSON";
}

/* ---- a request --------------------------------------------------------------------------------
 */

/* The argument of that name; *times says how often it is there. */
static const struct route_argument *find_argument(const struct route_request *request,
                                                  const char *name, int *times)
{
    const struct route_argument *found = NULL;
    *times = 0;
    for (size_t i = 0; i < request->argument_count; i++)
        if (strcmp(request->arguments[i].name, name) == 0) {
            found = &request->arguments[i];
            (*times)++;
        }
    return found;
}

static bool read_param(const struct route_request *request, const struct oh_slice *in_path, int i,
                       struct route_call *call, struct reply *reply)
{
    const struct route_param *param = &call->route->params[i];
    int place = place_in_path(call->route, param->name), times;
    const struct route_argument *argument = find_argument(request, param->name, &times);
    struct oh_slice text = {0};
    if (place >= 0)
        text = in_path[place];
    else if (argument)
        text = argument->value;
    char words[256];
    call->values[i] = param->fallback;
    if (param->type == ROUTE_BODY) {
        call->values[i] = request->body.data;
        if (text_is_storable(request->body))
            return true;
        *reply = reply_problem(400, param->name, "The body is not UTF-8, or holds a NUL byte.");
        return false;
    }
    if (times > 1 || (place >= 0 && argument)) {
        *reply = reply_problem(400, param->name, "%s is given more than once.", param->name);
        return false;
    }
    if (!text.data && !argument)
        return true;
    if (text.data && read_value(call, i, param, text)) {
        call->values[i] = call->texts[i];
        return true;
    }
    *reply = reply_problem(400, param->name, "%s must be %s.", param->name,
                           words_for(param, words, sizeof(words)));
    return false;
}

static bool read_params(const struct route_request *request, const struct oh_slice *in_path,
                        struct route_call *call, struct reply *reply)
{
    const struct route_param *params = call->route->params;
    for (size_t a = 0; a < request->argument_count; a++) {
        const char *name = request->arguments[a].name;
        int i = 0;
        while (params[i].name && strcmp(params[i].name, name) != 0)
            i++;
        if (params[i].name && params[i].type != ROUTE_BODY)
            continue;
        *reply = reply_problem(400, text_is_storable(slice_of_text(name)) ? name : NULL,
                               "This path has no such parameter; GET /v1 lists them.");
        return false;
    }
    for (int i = 0; params[i].name; i++) {
        if (!read_param(request, in_path, i, call, reply))
            return false;
        if (params[i].type != ROUTE_SECONDS)
            call->value_count = i + 1;
    }
    return true;
}

bool route_read(const struct route_request *request, struct route_call *call, struct reply *reply)
{
    struct oh_slice in_path[ROUTE_SEGMENTS_MAX] = {{0}};
    char allow[sizeof(reply->allow)] = "";
    memset(call, 0, sizeof(*call));
    for (const struct route *route = route_table; route->path; route++) {
        if (!path_fits(route->path, request->path, in_path))
            continue;
        if (is_method(route, request->method)) {
            call->route = route;
            return read_params(request, in_path, call, reply);
        }
        snprintf(allow + strlen(allow), sizeof(allow) - strlen(allow), "%s%s", allow[0] ? ", " : "",
                 strcmp(route->method, "GET") == 0 ? "GET, HEAD" : "POST");
    }
    if (allow[0]) {
        *reply = reply_problem(405, NULL, "This path knows only %s.", allow);
        memcpy(reply->allow, allow, sizeof(allow));
    } else {
        *reply = reply_problem(404, NULL, "There is nothing at this path.");
    }
    return false;
}

json_t *route_list(void)
{
    json_t *routes = json_array();
    for (const struct route *route = route_table; route->path; route++) {
        json_t *params = json_array();
        for (const struct route_param *param = route->params; param->name; param++) {
            char words[256];
            json_array_append_new(params, json_pack("{s:s, s:s, s:s*}", "name", param->name, "is",
                                                    words_for(param, words, sizeof(words)),
                                                    "default", param->fallback));
        }
        json_array_append_new(routes, json_pack("{s:s, s:s, s:o}", "method", route->method, "path",
                                                route->path, "parameters", params));
    }
    return json_pack("{s:o}", "routes", routes);
}
