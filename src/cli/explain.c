/* SPDX-License-Identifier: Apache-2.0 */
/* cli/explain.h. Bytes of a delivery are escaped, so that none steers the terminal. */
#include "cli/explain.h"

#include "base/slice.h"

#include <inttypes.h>
#include <time.h>
#include <unistd.h>

enum { BYTES_MAX = 65536 }; /* of one message on the terminal */

/* "300 s", "2.5 h": one unit, that a person can compare. */
static void print_span(FILE *to, int64_t ms)
{
    if (ms < 120 * 1000)
        fprintf(to, ms % 1000 ? "%.3f s" : "%.0f s", (double)ms / 1e3);
    else if (ms < 7200 * 1000)
        fprintf(to, "%.0f s (%.1f min)", (double)ms / 1e3, (double)ms / 60e3);
    else
        fprintf(to, "%.0f s (%.1f h)", (double)ms / 1e3, (double)ms / 3600e3);
}

static void print_time(FILE *to, const struct oh_explanation *told, int64_t now_ms)
{
    char text[32] = "?";
    time_t seconds = (time_t)(told->time_ms / 1000);
    struct tm utc;
    if (!told->has_time)
        return;
    if (gmtime_r(&seconds, &utc))
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
    int64_t age_ms = now_ms - told->time_ms;
    int64_t allowed_s = age_ms < 0 ? told->future_s : told->past_s;
    fprintf(to, "  time: %s, ", text);
    print_span(to, age_ms < 0 ? -age_ms : age_ms);
    fputs(age_ms < 0 ? " after the request came; allowed: " : " before the request came; allowed: ",
          to);
    if (allowed_s < 0)
        fputs("any", to);
    else
        print_span(to, allowed_s * 1000);
    putc('\n', to);
}

/* As a C string, with UTF-8 as it is but for control characters. */
static void print_bytes(FILE *to, struct oh_slice bytes)
{
    putc('"', to);
    for (size_t i = 0; i < bytes.len && i < BYTES_MAX; i++) {
        unsigned char c = (unsigned char)bytes.data[i];
        if (c == '\n')
            fputs("\\n", to);
        else if (c == '\r')
            fputs("\\r", to);
        else if (c == '"' || c == '\\')
            fprintf(to, "\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            fprintf(to, "\\x%02x", c);
        else
            putc(c, to);
    }
    fputs(bytes.len > BYTES_MAX ? "\" and more\n" : "\"\n", to);
}

static void print_messages(FILE *to, const struct oh_explanation *told)
{
    bool shown = isatty(fileno(to));
    for (size_t i = 0; i < told->message_count; i++) {
        fprintf(to, "  signed%s: %zu bytes", i ? ", or" : "", told->messages[i].len);
        fputs(shown ? ": " : " (they are shown on a terminal only)\n", to);
        if (shown)
            print_bytes(to, told->messages[i]);
    }
}

void explain_print(FILE *to, enum oh_verdict verdict, const struct oh_explanation *told,
                   int64_t now_ms, const char *secrets)
{
    int matched = told->result.secret_index;
    if (told->missing.len > 0)
        fprintf(to, "  missing: %.*s\n", (int)told->missing.len, told->missing.data);
    print_time(to, told, now_ms);
    if (matched >= 0)
        fprintf(to, "  signature: right, by secret %d\n", matched + 1);
    if (secrets && verdict != OH_SIGNATURE_MISSING)
        fprintf(to, "  secrets: %s\n", secrets[0] ? secrets : "none");
    print_messages(to, told);
}
