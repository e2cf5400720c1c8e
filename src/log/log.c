/* SPDX-License-Identifier: Apache-2.0 */
/* log/log.h: builds each line in a bounded buffer on the stack and gives it to one write(2). */
#include "log/log.h"

#include "base/clock.h"
#include "base/utf8.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    LINE_MAX_BYTES = 4096, /* PIPE_BUF on Linux: writes up to it are atomic on a pipe too */
    TEXT_MAX_BYTES = 1024,
};

/* What ends every line; a field is taken only if this still fits behind it. */
#define LINE_CUT ",\"cut\":true}\n"

static const char *const level_words[] = {"debug", "info", "warning", "error"};

static _Atomic int least_level = LOG_INFO;

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&least_level, (int)level, memory_order_relaxed);
}

/* ---- fields ---- */

struct log_field log_text(const char *name, const char *value)
{
    return log_slice(name, (struct oh_slice){value, value ? strlen(value) : 0});
}

struct log_field log_slice(const char *name, struct oh_slice value)
{
    return (struct log_field){.name = name, .kind = LOG_FIELD_TEXT, .text = value};
}

struct log_field log_int(const char *name, int64_t value)
{
    return (struct log_field){.name = name, .kind = LOG_FIELD_INT, .integer = value};
}

struct log_field log_real(const char *name, double value)
{
    return (struct log_field){.name = name, .kind = LOG_FIELD_REAL, .real = value};
}

struct log_field log_bool(const char *name, bool value)
{
    return (struct log_field){.name = name, .kind = LOG_FIELD_BOOL, .integer = value};
}

struct log_field log_secret(const char *name, const struct secret *value)
{
    /* The bytes are not even pointed at: only whether there are any. */
    return (struct log_field){
        .name = name, .kind = LOG_FIELD_SECRET, .integer = value && value->bytes.data};
}

/* ---- one line ---- */

struct line {
    size_t used;
    bool cut;
    char bytes[LINE_MAX_BYTES];
};

/* Appends all or nothing. */
static bool line_put(struct line *line, const void *bytes, size_t len)
{
    if (len > sizeof(line->bytes) - (sizeof(LINE_CUT) - 1) - line->used)
        return false;
    memcpy(line->bytes + line->used, bytes, len);
    line->used += len;
    return true;
}

static bool line_put_format(struct line *line, const char *format, ...) OH_PRINTF(2, 3);

static bool line_put_format(struct line *line, const char *format, ...)
{
    char text[64];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return len >= 0 && (size_t)len < sizeof(text) && line_put(line, text, (size_t)len);
}

/* `len` bytes of one character; 0 = the byte there is none. */
static bool line_put_character(struct line *line, const char *s, size_t len)
{
    if (len == 0)
        return line_put(line, "\xef\xbf\xbd", 3);
    if (s[0] == '"' || s[0] == '\\')
        return line_put_format(line, "\\%c", s[0]);
    if (s[0] == '\n')
        return line_put(line, "\\n", 2);
    if ((unsigned char)s[0] < 0x20 || s[0] == 0x7f)
        return line_put_format(line, "\\u%04x", (unsigned)s[0]);
    return line_put(line, s, len);
}

static bool line_put_string(struct line *line, struct oh_slice text)
{
    const char *s = text.data;
    size_t left = text.len < TEXT_MAX_BYTES ? text.len : TEXT_MAX_BYTES;
    if (!line_put(line, "\"", 1))
        return false;
    while (left > 0) {
        /* The character is looked for in the whole text, so that the cut never splits one. */
        size_t len = utf8_length(s, text.len - (size_t)(s - text.data));
        if (len > left)
            break;
        if (!line_put_character(line, s, len))
            return false;
        s += len ? len : 1;
        left -= len ? len : 1;
    }
    return line_put(line, "\"", 1);
}

static bool line_put_value(struct line *line, const struct log_field *field)
{
    switch (field->kind) {
    case LOG_FIELD_TEXT:
        return field->text.data ? line_put_string(line, field->text) : line_put(line, "null", 4);
    case LOG_FIELD_INT:
        return line_put_format(line, "%lld", (long long)field->integer);
    case LOG_FIELD_REAL:
        return isfinite(field->real) ? line_put_format(line, "%.9g", field->real)
                                     : line_put(line, "null", 4);
    case LOG_FIELD_BOOL:
        return line_put_format(line, "%s", field->integer ? "true" : "false");
    case LOG_FIELD_SECRET:
        return line_put_format(line, "%s", field->integer ? "\"****\"" : "null");
    }
    return false;
}

/* Appends ,"name":value or nothing. */
static void line_put_field(struct line *line, const struct log_field *field)
{
    size_t before = line->used;
    if (line_put(line, ",", 1) &&
        line_put_string(line, (struct oh_slice){field->name, strlen(field->name)}) &&
        line_put(line, ":", 1) && line_put_value(line, field))
        return;
    line->used = before;
    line->cut = true;
}

static void line_start(struct line *line, enum log_level level)
{
    int64_t now_us = clock_wall_us();
    time_t now_s = (time_t)(now_us / 1000000);
    struct tm utc;
    gmtime_r(&now_s, &utc);
    char date[32];
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &utc);
    line->used = 0;
    line->cut = false;
    line_put_format(line, "{\"time\":\"%s.%03dZ\"", date, (int)(now_us / 1000 % 1000));
    line_put_format(line, ",\"level\":\"%s\"", level_words[level]);
}

void log_write(enum log_level level, const char *room, const char *message,
               const struct log_field *fields, size_t count)
{
    if ((int)level < atomic_load_explicit(&least_level, memory_order_relaxed))
        return;
    struct line line;
    line_start(&line, level);
    struct log_field room_field = log_text("room", room),
                     message_field = log_text("message", message);
    line_put_field(&line, &room_field);
    line_put_field(&line, &message_field);
    for (size_t i = 0; i < count; i++)
        if (fields[i].name)
            line_put_field(&line, &fields[i]);
    const char *end = line.cut ? LINE_CUT : "}\n";
    memcpy(line.bytes + line.used, end, strlen(end)); /* line_put() kept this room */
    line.used += strlen(end);

    /* A line that cannot be written is lost: there is nowhere to say so. */
    while (write(STDERR_FILENO, line.bytes, line.used) < 0 && errno == EINTR)
        continue;
}

/* ---- rate limiting ---- */

static uint32_t hash_text(uint32_t hash, struct oh_slice text)
{
    for (size_t i = 0; i < text.len; i++)
        hash = (hash ^ (unsigned char)text.data[i]) * 16777619U; /* FNV-1a */
    return hash;
}

static uint32_t hash_line(const char *message, const struct log_field *fields, size_t count)
{
    uint32_t hash = hash_text(2166136261U, (struct oh_slice){message, strlen(message)});
    for (size_t i = 0; i < count; i++)
        if (fields[i].name && fields[i].kind == LOG_FIELD_TEXT)
            hash = hash_text(hash, fields[i].text);
    return hash;
}

/* True if a line of this kind may be written now. One that has no place takes that of the kind
 * which has been due for longest, and its count: no line goes untold. */
static bool rate_allows(struct log_rate *rate, uint32_t hash, uint32_t *suppressed)
{
    int64_t now_us = clock_mono_us();
    pthread_mutex_lock(&rate->mutex);
    struct log_kind *kind = rate->kinds;
    for (int i = 0; i < LOG_KINDS_MAX && kind->hash != hash; i++)
        if (rate->kinds[i].hash == hash || rate->kinds[i].due_us < kind->due_us)
            kind = &rate->kinds[i];
    bool is_due = now_us >= kind->due_us;
    *suppressed = kind->suppressed;
    if (is_due)
        *kind = (struct log_kind){.hash = hash, .due_us = now_us + 1000000};
    else
        kind->suppressed++;
    pthread_mutex_unlock(&rate->mutex);
    return is_due;
}

void log_write_limited(struct log_rate *rate, enum log_level level, const char *room,
                       const char *message, const struct log_field *fields, size_t count)
{
    enum { FIELDS_MAX = 12 };
    uint32_t suppressed = 0;
    if ((int)level < atomic_load_explicit(&least_level, memory_order_relaxed) ||
        !rate_allows(rate, hash_line(message, fields, count), &suppressed))
        return;
    struct log_field all[FIELDS_MAX + 1];
    count = count < FIELDS_MAX ? count : FIELDS_MAX;
    all[0] = log_int(suppressed ? "suppressed" : NULL, suppressed);
    memcpy(all + 1, fields, count * sizeof(*fields));
    log_write(level, room, message, all, count + 1);
}
