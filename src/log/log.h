/* SPDX-License-Identifier: Apache-2.0 */
/* Logs: one JSON object a line on stderr, one write(2) each, so lines of threads never mix.
 *
 *   {"time":"2026-11-23T18:20:02.123Z","level":"info","room":"lane","message":"connected","lane":0}
 *
 * A decision is logged once, where it is decided. No payload, signature, header value or secret is
 * ever given to a log call; a value that is secret has the type struct secret, which only
 * log_secret() takes and which prints as ****. Call sites that can repeat under load use
 * LOG_RATE_LIMITED. A line is at most 4,096 bytes (PIPE_BUF: longer writes to a pipe may mix);
 * fields that do not fit are left out and the line says "cut":true. Thread: any. */
#ifndef LOG_LOG_H
#define LOG_LOG_H

#include "oncehook/types.h"

#include <pthread.h>
#include <stdbool.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };

/* A configured secret: bytes that must never be printed. */
struct secret {
    struct oh_slice bytes;
};

/* One field of a log line; made by the functions below, lives for the call. */
struct log_field {
    const char *name; /* NULL = left out */
    enum { LOG_FIELD_TEXT, LOG_FIELD_INT, LOG_FIELD_REAL, LOG_FIELD_BOOL, LOG_FIELD_SECRET } kind;
    struct oh_slice text;
    int64_t integer;
    double real;
};

struct log_field log_text(const char *name, const char *value); /* NULL prints as null */
struct log_field log_slice(const char *name, struct oh_slice value);
struct log_field log_int(const char *name, int64_t value);
struct log_field log_real(const char *name, double value);
struct log_field log_bool(const char *name, bool value);
struct log_field log_secret(const char *name,
                            const struct secret *value); /* "****", or null if none */

/* Lines below `level` are dropped. Default LOG_INFO. */
void log_set_level(enum log_level level);

/* Writes one line. `room` and `message` are literals. Values are escaped as JSON; bytes that are
 * not UTF-8 become U+FFFD; texts are cut at 1 KiB. Never fails, never waits but for write(2). */
void log_write(enum log_level level, const char *room, const char *message,
               const struct log_field *fields, size_t count);

#define LOG_LINE(level, room, message, ...)                      \
    do {                                                         \
        const struct log_field log_fields_[] = {__VA_ARGS__};    \
        log_write((level), (room), (message), log_fields_,       \
                  sizeof(log_fields_) / sizeof(log_fields_[0])); \
    } while (0)

/* State of one rate-limited call site. Lines that say the same (message and texts; numbers may
 * differ) are of one kind: the first is written at once, then one a second, with "suppressed":N for
 * those between. A site knows so many kinds; beyond, they wait for a place. */
enum { LOG_KINDS_MAX = 16 };
struct log_rate {
    pthread_mutex_t mutex;
    struct log_kind {
        uint32_t hash, suppressed;
        int64_t due_us;
    } kinds[LOG_KINDS_MAX];
};

/* Writes the line if its kind is due. */
void log_write_limited(struct log_rate *rate, enum log_level level, const char *room,
                       const char *message, const struct log_field *fields, size_t count);

#define LOG_RATE_LIMITED(level, room, message, ...)                              \
    do {                                                                         \
        static struct log_rate log_rate_ = {.mutex = PTHREAD_MUTEX_INITIALIZER}; \
        const struct log_field log_fields_[] = {__VA_ARGS__};                    \
        log_write_limited(&log_rate_, (level), (room), (message), log_fields_,   \
                          sizeof(log_fields_) / sizeof(log_fields_[0]));         \
    } while (0)

#endif
