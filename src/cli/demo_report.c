/* SPDX-License-Identifier: Apache-2.0 */
/* Tables first, a verdict, then what to look at next; nothing is computed here that is not shown.
 */
#include "cli/demo_report.h"

#include "base/clock.h"
#include "cli/post.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BOLD  "\033[1m"
#define GREEN "\033[32m"
#define RED   "\033[31m"
#define DIM   "\033[2m"
#define PLAIN "\033[0m"

enum { PROGRESS_EVERY_US = 100 * 1000 };

const char *const demo_kind_words[DEMO_KIND_COUNT] = {
#define X(name, words, status, refusal) words,
    DEMO_KINDS(X)
#undef X
};

const int demo_kind_status[DEMO_KIND_COUNT] = {
#define X(name, words, status, refusal) status,
    DEMO_KINDS(X)
#undef X
};

const char *const demo_kind_refusals[DEMO_KIND_COUNT] = {
#define X(name, words, status, refusal) refusal,
    DEMO_KINDS(X)
#undef X
};

/* "12,400"; lives to the end of the expression it is made in. */
struct digits {
    char text[32];
};

static struct digits digits(int64_t value)
{
    char plain[24];
    int len = snprintf(plain, sizeof(plain), "%lld", (long long)value), first = value < 0;
    struct digits grouped;
    char *end = grouped.text;
    for (int i = 0; i < len; i++) {
        if (i > first && (len - i) % 3 == 0)
            *end++ = ',';
        *end++ = plain[i];
    }
    *end = '\0';
    return grouped;
}

void report_init(struct report *report, FILE *to)
{
    const char *term = getenv("TERM"), *no_colour = getenv("NO_COLOR");
    *report = (struct report){.to = to, .terminal = isatty(fileno(to))};
    report->colour =
        report->terminal && term && strcmp(term, "dumb") != 0 && !(no_colour && *no_colour);
}

static const char *paint(const struct report *report, const char *colour)
{
    return report->colour ? colour : "";
}

static void heading(const struct report *report, const char *text)
{
    fprintf(report->to, "\n%s%s%s\n", paint(report, BOLD), text, paint(report, PLAIN));
}

void report_progress(struct report *report, enum demo_kind kind, uint64_t done, uint64_t all,
                     int64_t elapsed_us)
{
    int64_t now_us = clock_mono_us();
    bool last = done >= all;
    if (!last && (!report->terminal || now_us - report->last_progress_us < PROGRESS_EVERY_US))
        return;
    report->last_progress_us = now_us;
    fprintf(report->to, "%s  %-26s %9s of %9s events", report->terminal ? "\r\033[K" : "",
            demo_kind_words[kind], digits((int64_t)done).text, digits((int64_t)all).text);
    if (elapsed_us > 500 * 1000)
        fprintf(report->to, "  %9s/s",
                digits((int64_t)((double)done * 1e6 / (double)elapsed_us)).text);
    if (report->terminal && last)
        fputs("\r\033[K", report->to);
    else if (!report->terminal)
        fputs("\n", report->to);
    fflush(report->to);
}

void report_check(struct report *report, bool holds, const char *format, ...)
{
    report->checks++;
    if (holds)
        return;
    report->missed++;
    va_list args;
    va_start(args, format);
    fprintf(report->to, "  %sMISS%s  ", paint(report, RED), paint(report, PLAIN));
    vfprintf(report->to, format, args);
    fputs("\n", report->to);
    va_end(args);
}

void report_head(struct report *report, const struct demo_options *options,
                 const struct demo_numbers *numbers)
{
    heading(report, "oncehook demo");
    fprintf(report->to,
            "  a template, %d active instances and %s enrollments are in PostgreSQL;\n"
            "  now signed deliveries, as each provider sends them, over %u connections\n"
            "  to %s\n\n",
            CAMPAIGN_INSTANCES, digits(CAMPAIGN_ENROLLMENTS).text, numbers->connections,
            options->https_url);
}

/* ---- tables ---------------------------------------------------------------------------------- */

static void print_sources(const struct report *report, const struct demo_numbers *numbers)
{
    uint64_t total[4] = {0};
    heading(report, "Events by source");
    fprintf(report->to, "  %s%-18s %11s %11s %11s %11s%s\n", paint(report, DIM), "source", "sent",
            "captured", "duplicates", "refused", paint(report, PLAIN));
    for (size_t i = 0; i <= numbers->source_count; i++) {
        const struct demo_source_numbers *source = &numbers->sources[i];
        uint64_t row[4] = {0};
        for (int kind = 0; kind < DEMO_KIND_COUNT; kind++) {
            row[0] += source->sent[kind];
            row[3] += source->refused[kind];
        }
        if (i < numbers->source_count) /* what is captured is what PostgreSQL says */
            row[1] = (uint64_t)(numbers->after.sources[i].rows - numbers->before.sources[i].rows);
        row[2] = source->duplicates;
        fprintf(report->to, "  %-18.18s", source->name);
        for (int column = 0; column < 4; column++) {
            fprintf(report->to, " %11s", digits((int64_t)row[column]).text);
            total[column] += row[column];
        }
        fputs("\n", report->to);
    }
    fprintf(report->to, "  %s%-18s", paint(report, BOLD), "total");
    for (int column = 0; column < 4; column++)
        fprintf(report->to, " %11s", digits((int64_t)total[column]).text);
    fprintf(report->to, "%s\n", paint(report, PLAIN));
}

static void print_refusals(const struct report *report, const struct demo_numbers *numbers)
{
    heading(report, "Refused, and why");
    for (int kind = 0; kind < DEMO_KIND_COUNT; kind++) {
        if (!demo_kind_refusals[kind])
            continue;
        uint64_t refused = 0;
        char names[CAMPAIGN_SOURCES_MAX * 24] = "";
        size_t len = 0;
        for (size_t i = 0; i <= numbers->source_count; i++) {
            if (!numbers->sources[i].refused[kind])
                continue;
            refused += numbers->sources[i].refused[kind];
            int more = snprintf(names + len, sizeof(names) - len, "%s%.18s", len ? ", " : "",
                                numbers->sources[i].name);
            len += (size_t)more;
        }
        fprintf(report->to, "  %-27s %4s x %d  %s\n", demo_kind_refusals[kind],
                digits((int64_t)refused).text, demo_kind_status[kind], names);
    }
}

static void print_specials(const struct report *report, const struct demo_numbers *numbers)
{
    uint64_t twice = 0, hung_up = 0, arrived = 0, again = 0;
    for (size_t i = 0; i < numbers->source_count; i++) {
        twice += numbers->sources[i].sent[DEMO_TWICE];
        again += numbers->sources[i].sent[DEMO_AGAIN];
        hung_up += numbers->sources[i].hung_up;
        arrived += (uint64_t)(numbers->after.sources[i].rows - numbers->before.sources[i].rows) -
                   numbers->sources[i].captured;
    }
    heading(report, "Sent more than once, captured once");
    fprintf(report->to, "  %s events were delivered again, signed anew\n",
            digits((int64_t)again).text);
    fprintf(report->to, "  %s stood in arrays that hold one id twice\n",
            digits((int64_t)twice).text);
    fprintf(report->to,
            "  %s were sent by clients that hung up before the answer, and then again:\n"
            "     %s of them had been captured the first time",
            digits((int64_t)hung_up).text, digits((int64_t)arrived).text);
    if (arrived < hung_up)
        fprintf(report->to, "; %s first attempts never arrived",
                digits((int64_t)(hung_up - arrived)).text);
    fputs("\n", report->to);
    if (numbers->retried)
        fprintf(report->to,
                "  %s deliveries got a 503 with Retry-After first, and were sent again\n",
                digits((int64_t)numbers->retried).text);
}

static void print_counter_row(const struct report *report, const char *words, const char *colour,
                              const int64_t values[CAMPAIGN_COUNTERS])
{
    fprintf(report->to, "    %s%-9s", paint(report, colour), words);
    for (int i = 0; i < CAMPAIGN_COUNTERS; i++)
        fprintf(report->to, " %7s", digits(values[i]).text);
    fprintf(report->to, "%s\n", paint(report, PLAIN));
}

/* Of campaign_counters, in the width of their columns. */
static const char *const counter_heads[CAMPAIGN_COUNTERS] = {
    "sent", "deliv.", "opened", "clicked", "replied", "bounced", "unsub.", "compl.",
};

static void print_counters(const struct report *report, const struct demo_numbers *numbers)
{
    heading(report, "Counters of each instance before and after, beside count(*) of its events");
    fprintf(report->to, "    %s%-9s", paint(report, DIM), "");
    for (int i = 0; i < CAMPAIGN_COUNTERS; i++)
        fprintf(report->to, " %7s", counter_heads[i]);
    fprintf(report->to, "%s\n", paint(report, PLAIN));
    for (int i = 0; i < CAMPAIGN_INSTANCES; i++) {
        const struct campaign_instance *after = &numbers->after.instances[i];
        bool same = memcmp(after->totals, after->events, sizeof(after->totals)) == 0;
        fprintf(report->to, "  %s, %s enrolled\n", after->name, digits(after->enrolled).text);
        print_counter_row(report, "before", DIM, numbers->before.instances[i].totals);
        print_counter_row(report, "after", PLAIN, after->totals);
        print_counter_row(report, "count(*)", same ? GREEN : RED, after->events);
    }
}

static void print_speed(const struct report *report, const struct demo_numbers *numbers)
{
    double seconds = (double)numbers->first_us / 1e6;
    heading(report, "Speed");
    fprintf(report->to,
            "  %s%s events/s%s: %s events in %s deliveries, %.2f s\n"
            "  answers after p50 %.1f ms, p99 %.1f ms; %u connections; %ld cores, shared by\n"
            "  this client, the gateway and PostgreSQL\n",
            paint(report, BOLD), digits((int64_t)((double)numbers->first_events / seconds)).text,
            paint(report, PLAIN), digits((int64_t)numbers->first_events).text,
            digits((int64_t)numbers->first_deliveries).text, seconds,
            (double)numbers->p50_us / 1000, (double)numbers->p99_us / 1000, numbers->connections,
            numbers->cores);
}

void report_tables(struct report *report, const struct demo_numbers *numbers)
{
    print_sources(report, numbers);
    print_refusals(report, numbers);
    print_specials(report, numbers);
    print_counters(report, numbers);
    print_speed(report, numbers);
}

void report_verdict(struct report *report)
{
    if (report->missed == 0)
        fprintf(report->to,
                "\n%sAll %s checks hold%s: each event is in PostgreSQL once, and every counter "
                "equals\nthe number of its events.\n",
                paint(report, GREEN), digits((int64_t)report->checks).text, paint(report, PLAIN));
    else
        fprintf(report->to, "\n%s%s of %s checks do not hold.%s\n", paint(report, RED),
                digits((int64_t)report->missed).text, digits((int64_t)report->checks).text,
                paint(report, PLAIN));
}

void report_next(struct report *report, const struct demo_options *options, const char *source)
{
    char program[4096];
    ssize_t len = readlink("/proc/self/exe", program, sizeof(program) - 1);
    program[len > 0 ? len : 0] = '\0';
    heading(report, "What to look at next");
    if (options->once) { /* it stops now, and starts again on what is there */
        fputs("  ", report->to);
        post_print_word(report->to, program);
        fputs(" dev --dir ", report->to);
        post_print_word(report->to, options->directory);
        fputs(" &\n", report->to);
    }
    fputs("  . ", report->to);
    post_print_word(report->to, options->directory);
    fputs("/env\n"
          "  psql \"$DATABASE_URL\" -c '\n"
          "    SELECT received_at, source, event_type, provider_event_id\n"
          "      FROM campaign_events ORDER BY id DESC LIMIT 10'\n"
          "  psql \"$DATABASE_URL\" -c '\n"
          "    SELECT name, total_enrolled, total_sent, total_delivered, total_opened\n"
          "      FROM campaign_instances'\n"
          "  curl -s ",
          report->to);
    post_print_word(report->to, options->admin_url);
    fputs("/metrics\n  ", report->to);
    post_print_word(report->to, program);
    fputs(" send -c ", report->to);
    post_print_word(report->to, options->config);
    fprintf(report->to, " --source %s\n", source);
    heading(report, "A delivery of your own, signed; sent twice, it is a duplicate");
}
