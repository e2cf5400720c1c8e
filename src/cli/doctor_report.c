/* SPDX-License-Identifier: Apache-2.0 */
/* What doctor prints: first what needs a person, then what to watch, what could not be looked at,
 * and what is fine. Names and words come from the database: no control character reaches a
 * terminal. */
#include "cli/doctor.h"

#include "admin/reply.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const state_words[] = {"fine", "unknown", "watch", "person"};

/* ---- text ------------------------------------------------------------------------------------ */

static void put(const char *text)
{
    for (; *text; text++)
        putchar(iscntrl((unsigned char)*text) ? '?' : *text);
}

static void format_seconds(double s, char *text, size_t size)
{
    if (s >= 2 * 86400)
        snprintf(text, size, "%.0f days", s / 86400);
    else if (s >= 2 * 3600)
        snprintf(text, size, "%.0f h", s / 3600);
    else if (s >= 120)
        snprintf(text, size, "%.0f min", s / 60);
    else
        snprintf(text, size, "%.0f s", s);
}

static void format_value(enum doctor_unit unit, double value, char *text, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t step = 0;
    text[0] = '\0';
    if (!isfinite(value) || value < 0 || unit == UNIT_FLAG || unit == UNIT_TIMES)
        return; /* words say it */
    for (; unit == UNIT_BYTES && value >= 1024 && step < 4; step++)
        value /= 1024;
    if (unit == UNIT_BYTES)
        snprintf(text, size, "%.*f %s", step ? 1 : 0, value, units[step]);
    else if (unit == UNIT_SECONDS)
        format_seconds(value, text, size);
    else if (unit == UNIT_SHARE)
        snprintf(text, size, "%.1f %%", value * 100);
    else
        snprintf(text, size, unit == UNIT_COUNT ? "%.0f" : "%.0f ms", value);
}

static double row_value(const json_t *row)
{
    const json_t *value = json_object_get(row, "value");
    return json_is_real(value) ? json_real_value(value) : NAN;
}

/* A limit of one is no news beside a count of two. */
static void print_limit(const struct doctor_finding *finding, enum doctor_state state)
{
    char text[48];
    double limit = state == DOCTOR_PERSON ? finding->person : finding->watch;
    format_value(finding->look->unit, limit, text, sizeof(text));
    if (text[0] && limit != 1)
        printf(" (limit: %s%s)", finding->look->at_least ? "at least " : "", text);
}

/* SUBJECT: VALUE words; words go on from the value. */
static void print_row(const struct doctor_finding *finding, const json_t *row, bool is_first)
{
    const char *subject = json_string_value(json_object_get(row, "subject"));
    const char *words = json_string_value(json_object_get(row, "words"));
    enum doctor_state state = (enum doctor_state)json_integer_value(json_object_get(row, "state"));
    char value[48];
    value[0] = '\0';
    if (subject || row_value(row) != 0)
        format_value(finding->look->unit, row_value(row), value, sizeof(value));
    printf("  %-16s ", is_first ? finding->look->name : "");
    if (subject) {
        put(subject);
        fputs(": ", stdout);
    }
    printf("%s%s", value, value[0] && words && words[0] ? " " : "");
    if (words)
        put(words);
    if (state >= DOCTOR_WATCH)
        print_limit(finding, state);
    putchar('\n');
}

/* `before`: why the one above was not looked at, or NULL. */
static void print_finding(const struct doctor_finding *finding, enum doctor_state state,
                          const char *before)
{
    const struct doctor_look *look = finding->look;
    size_t i, printed = 0;
    const json_t *row;
    if (state == DOCTOR_UNKNOWN) {
        bool is_same = before && !look->needs && strcmp(before, finding->unknown) == 0;
        printf("  %-16s ", look->name);
        put(is_same ? "as above" : finding->unknown);
        printf("%s%s\n", look->needs ? ": " : "", look->needs ? look->needs : "");
        return;
    }
    json_array_foreach(finding->rows, i, row)
    {
        bool is_worth = json_integer_value(json_object_get(row, "state")) >= DOCTOR_WATCH;
        if (is_worth || (state == DOCTOR_FINE && printed == 0))
            print_row(finding, row, printed++ == 0);
    }
    if (state >= DOCTOR_WATCH)
        printf("  %-16s   -> %s\n", "", finding->todo);
}

static void print_text(const struct doctor *doctor, const struct doctor_finding *findings,
                       size_t count, const size_t counts[])
{
    static const struct {
        enum doctor_state state;
        const char *title;
    } parts[] = {{DOCTOR_PERSON, "A person is needed"},
                 {DOCTOR_WATCH, "To watch"},
                 {DOCTOR_UNKNOWN, "Not looked at"},
                 {DOCTOR_FINE, "Fine"}};
    int version = PQserverVersion(doctor->connection);
    printf("oncehook doctor: database %s, schema %s, PostgreSQL %d.%d\n", PQdb(doctor->connection),
           doctor->database->schema, version / 10000, version % 10000);
    for (size_t part = 0; part < sizeof(parts) / sizeof(parts[0]); part++) {
        if (counts[parts[part].state] == 0)
            continue;
        printf("\n%s\n", parts[part].title);
        const char *before = NULL;
        for (size_t i = 0; i < count; i++) {
            if (findings[i].state != parts[part].state)
                continue;
            print_finding(&findings[i], findings[i].state, before);
            before = findings[i].unknown;
        }
    }
    printf("\n%zu looks: %zu for a person, %zu to watch, %zu not taken, %zu fine\n", count,
           counts[DOCTOR_PERSON], counts[DOCTOR_WATCH], counts[DOCTOR_UNKNOWN],
           counts[DOCTOR_FINE]);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *finding_json(const struct doctor_finding *finding)
{
    static const char *const unit_words[] = {"count",   "flag", "share", "times",
                                             "seconds", "ms",   "bytes"};
    const struct doctor_look *look = finding->look;
    size_t i;
    json_t *row, *rows = json_deep_copy(finding->rows);
    json_array_foreach(rows, i, row)
    {
        json_int_t state = json_integer_value(json_object_get(row, "state"));
        json_object_set_new(row, "state", json_string(state_words[state]));
    }
    return json_pack("{s:s, s:s, s:s, s:b, s:o, s:o, s:o, s:s*, s:s*}", "name", look->name, "state",
                     state_words[finding->state], "unit", unit_words[look->unit], "at_least",
                     look->at_least, "watch", reply_real(finding->watch), "person",
                     reply_real(finding->person), "rows", rows, "unknown",
                     finding->unknown[0] ? finding->unknown : NULL, "todo",
                     finding->state >= DOCTOR_WATCH ? finding->todo : NULL);
}

static void print_json(const struct doctor *doctor, const struct doctor_finding *findings,
                       size_t count, enum doctor_state worst, const size_t counts[])
{
    json_t *checks = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(checks, finding_json(&findings[i]));
    json_t *all =
        json_pack("{s:s, s:s, s:s, s:{s:I, s:I, s:I, s:I}, s:o}", "state", state_words[worst],
                  "database", PQdb(doctor->connection), "schema", doctor->database->schema,
                  "counts", "person", (json_int_t)counts[DOCTOR_PERSON], "watch",
                  (json_int_t)counts[DOCTOR_WATCH], "unknown", (json_int_t)counts[DOCTOR_UNKNOWN],
                  "fine", (json_int_t)counts[DOCTOR_FINE], "checks", checks);
    json_dumpf(all, stdout, JSON_INDENT(2) | REPLY_REALS);
    putchar('\n');
    json_decref(all);
}

enum doctor_state doctor_report(const struct doctor *doctor, const struct doctor_finding *findings,
                                size_t count, bool json)
{
    size_t counts[DOCTOR_PERSON + 1] = {0};
    for (size_t i = 0; i < count; i++)
        counts[findings[i].state]++;
    enum doctor_state worst = counts[DOCTOR_PERSON]  ? DOCTOR_PERSON
                              : counts[DOCTOR_WATCH] ? DOCTOR_WATCH
                                                     : DOCTOR_FINE;
    if (json)
        print_json(doctor, findings, count, worst, counts);
    else
        print_text(doctor, findings, count, counts);
    return worst;
}
