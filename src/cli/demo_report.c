/* SPDX-License-Identifier: Apache-2.0 */
/* Tables first, the checks and their verdict, then what to look at next; nothing is computed here
 * that is not shown. */
#include "cli/demo_plan.h"

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/client.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BOLD  "\033[1m"
#define GREEN "\033[32m"
#define RED   "\033[31m"
#define DIM   "\033[2m"
#define PLAIN "\033[0m"

enum { PROGRESS_EVERY_US = 100 * 1000, RATE_AFTER_US = 500 * 1000 };

/* "12,400"; lives to the end of the expression it is made in. */
struct digits {
    char text[32];
};

static struct digits digits(int64_t value)
{
    char plain[24];
    int len = snprintf(plain, sizeof(plain), "%" PRId64, value), first = value < 0;
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

/* A number's sum over a source, over a kind; -1 = over all. */
static uint64_t sum_of(const struct demo *demo, int source, int kind, int number)
{
    uint64_t sum = 0;
    for (int s = 0; s <= (int)demo->source_count; s++)
        for (int k = 0; k < DEMO_KIND_COUNT; k++)
            if ((source < 0 || s == source) && (kind < 0 || k == kind))
                sum += demo->groups[s][k].numbers[number];
    return sum;
}

static int64_t seen(const PGresult *look, int row, int column)
{
    return strtoll(PQgetvalue(look, row, column), NULL, 10);
}

/* How far a number rose from before to after. */
static int64_t rise(const struct demo *demo, int row, int column)
{
    return seen(demo->after, row, column) - seen(demo->before, row, column);
}

static const char *paint(const struct demo *demo, const char *colour)
{
    return demo->colour ? colour : "";
}

static void print_heading(const struct demo *demo, const char *text)
{
    printf("\n%s%s%s\n", paint(demo, BOLD), text, paint(demo, PLAIN));
}

void demo_report_start(struct demo *demo)
{
    const char *term = getenv("TERM"), *no_colour = getenv("NO_COLOR");
    demo->terminal = isatty(STDOUT_FILENO);
    demo->colour =
        demo->terminal && term && strcmp(term, "dumb") != 0 && !(no_colour && *no_colour);
    print_heading(demo, "oncehook demo");
    printf("  a template, %d active instances and %s enrollments are in PostgreSQL;\n"
           "  now signed deliveries, as each provider sends them, over %d connections\n"
           "  to %s\n\n",
           DEMO_INSTANCES, digits(DEMO_ENROLLMENTS).text, CLIENT_CONNECTIONS_MAX,
           demo->options->https_url);
}

void demo_report_progress(struct demo *demo, enum demo_kind kind, uint64_t all, int64_t elapsed_us)
{
    int64_t now_us = clock_mono_us();
    uint64_t done = sum_of(demo, -1, (int)kind, DEMO_SENT);
    bool last = done >= all;
    if (!last && (!demo->terminal || now_us - demo->last_progress_us < PROGRESS_EVERY_US))
        return;
    demo->last_progress_us = now_us;
    printf("%s  %-26s %9s of %9s events", demo->terminal ? "\r\033[K" : "", demo_kinds[kind].words,
           digits((int64_t)done).text, digits((int64_t)all).text);
    if (elapsed_us > RATE_AFTER_US)
        printf("  %9s/s", digits((int64_t)((double)done * 1e6 / (double)elapsed_us)).text);
    fputs(!demo->terminal ? "\n" : last ? "\r\033[K" : "", stdout);
    fflush(stdout);
}

/* ---- tables ---------------------------------------------------------------------------------- */

static void print_sources(const struct demo *demo)
{
    int64_t total[4] = {0};
    print_heading(demo, "Events by source");
    printf("  %s%-18s %11s %11s %11s %11s%s\n", paint(demo, DIM), "source", "sent", "captured",
           "duplicates", "refused", paint(demo, PLAIN));
    for (int source = 0; source <= (int)demo->source_count; source++) {
        bool there = source < (int)demo->source_count;
        const int64_t row[4] = {
            (int64_t)sum_of(demo, source, -1, DEMO_SENT),
            /* What is captured is what PostgreSQL says. */
            there ? rise(demo, DEMO_SOURCE_ROWS + source, LOOK_COUNTER) : 0,
            (int64_t)sum_of(demo, source, -1, POST_DUPLICATES),
            (int64_t)sum_of(demo, source, -1, DEMO_REFUSED),
        };
        printf("  %-18.18s", demo->names[source]);
        for (int column = 0; column < 4; column++) {
            printf(" %11s", digits(row[column]).text);
            total[column] += row[column];
        }
        putchar('\n');
    }
    printf("  %s%-18s", paint(demo, BOLD), "total");
    for (int column = 0; column < 4; column++)
        printf(" %11s", digits(total[column]).text);
    printf("%s\n", paint(demo, PLAIN));
}

static void print_refusals(const struct demo *demo)
{
    print_heading(demo, "Refused, and why");
    for (int kind = 0; kind < DEMO_KIND_COUNT; kind++) {
        if (!demo_kinds[kind].refusal)
            continue;
        printf("  %-27s %4s x %d ", demo_kinds[kind].refusal,
               digits((int64_t)sum_of(demo, -1, kind, DEMO_REFUSED)).text, demo_kinds[kind].status);
        const char *comma = " ";
        for (size_t source = 0; source <= demo->source_count; source++)
            if (demo->groups[source][kind].numbers[DEMO_REFUSED]) {
                printf("%s%.18s", comma, demo->names[source]);
                comma = ", ";
            }
        putchar('\n');
    }
}

static void print_specials(const struct demo *demo)
{
    int64_t hung_up = (int64_t)sum_of(demo, -1, -1, DEMO_HUNG_UP);
    int64_t arrived = -(int64_t)sum_of(demo, -1, -1, POST_CAPTURED);
    for (int source = 0; source < (int)demo->source_count; source++)
        arrived += rise(demo, DEMO_SOURCE_ROWS + source, LOOK_COUNTER);
    print_heading(demo, "Sent more than once, captured once");
    printf("  %s events were delivered again, signed anew\n",
           digits((int64_t)sum_of(demo, -1, DEMO_AGAIN, DEMO_SENT)).text);
    printf("  %s stood in arrays that hold one id twice\n",
           digits((int64_t)sum_of(demo, -1, DEMO_TWICE, DEMO_SENT)).text);
    printf("  %s were sent by clients that hung up before the answer, and then again:\n"
           "     %s of them had been captured the first time",
           digits(hung_up).text, digits(arrived).text);
    if (arrived < hung_up)
        printf("\n     %s first attempts never arrived", digits(hung_up - arrived).text);
    putchar('\n');
    if (demo->retried)
        printf("  %s deliveries got a 503 with Retry-After first, and were sent again\n",
               digits((int64_t)demo->retried).text);
}

/* The totals of one instance, one column of a look. */
static void print_totals(const struct demo *demo, const char *words, const char *colour,
                         const PGresult *look, int row, int column)
{
    printf("    %s%-9s", paint(demo, colour), words);
    for (int i = 0; i < DEMO_TOTALS; i++)
        printf(" %7s", digits(seen(look, row + i, column)).text);
    printf("%s\n", paint(demo, PLAIN));
}

static void print_counters(const struct demo *demo)
{
    print_heading(demo,
                  "Counters of each instance before and after, beside count(*) of its events");
    printf("    %s%-9s %7s %7s %7s %7s %7s %7s %7s %7s%s\n", paint(demo, DIM), "", "sent", "deliv.",
           "opened", "clicked", "replied", "bounced", "unsub.", "compl.", paint(demo, PLAIN));
    for (int row = 0; row < DEMO_SOURCE_ROWS; row += DEMO_COUNTERS) {
        bool same = true;
        for (int i = row; i < row + DEMO_TOTALS; i++)
            same = same && seen(demo->after, i, LOOK_COUNTER) == seen(demo->after, i, LOOK_EVENTS);
        printf("  %s, %s enrolled\n", PQgetvalue(demo->after, row, LOOK_SUBJECT),
               digits(seen(demo->after, row + DEMO_ENROLLED, LOOK_COUNTER)).text);
        print_totals(demo, "before", DIM, demo->before, row, LOOK_COUNTER);
        print_totals(demo, "after", PLAIN, demo->after, row, LOOK_COUNTER);
        print_totals(demo, "count(*)", same ? GREEN : RED, demo->after, row, LOOK_EVENTS);
    }
}

static int compare_latencies(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void print_speed(struct demo *demo)
{
    double seconds = (double)demo->first_us / 1e6;
    uint64_t events = sum_of(demo, -1, DEMO_FIRST, DEMO_SENT);
    size_t count = demo->latency_count;
    qsort(demo->latencies_us, count, sizeof(demo->latencies_us[0]), compare_latencies);
    size_t median = count / 2, slow = count ? count - 1 - count / 100 : 0;
    print_heading(demo, "Speed");
    printf("  %s%s events/s%s: %s events in %s deliveries, %.2f s\n"
           "  answers after p50 %.1f ms, p99 %.1f ms; %d connections; %ld cores, shared by\n"
           "  this client, the gateway and PostgreSQL\n",
           paint(demo, BOLD), digits((int64_t)((double)events / seconds)).text, paint(demo, PLAIN),
           digits((int64_t)events).text, digits((int64_t)count).text, seconds,
           demo->latencies_us[median] / 1e3, demo->latencies_us[slow] / 1e3, CLIENT_CONNECTIONS_MAX,
           sysconf(_SC_NPROCESSORS_ONLN));
}

void demo_report_tables(struct demo *demo)
{
    print_sources(demo);
    print_refusals(demo);
    print_specials(demo);
    print_counters(demo);
    print_speed(demo);
}

/* ---- checks ---------------------------------------------------------------------------------- */

/* Counts a check; says it in words when it does not hold. */
static void OH_PRINTF(3, 4) check(struct demo *demo, bool holds, const char *format, ...)
{
    demo->checks++;
    if (holds)
        return;
    demo->missed++;
    va_list args;
    va_start(args, format);
    printf("  %sMISS%s  ", paint(demo, RED), paint(demo, PLAIN));
    vprintf(format, args);
    putchar('\n');
    va_end(args);
}

/* One check a kind and source: every delivery got the answer that it must get. */
static void check_answers(struct demo *demo, const struct demo_group *group)
{
    int wanted = demo_kinds[group->kind].status, other = wanted;
    uint32_t right = 0;
    for (uint32_t i = 0; i < group->count; i++)
        if (group->jobs[i].answered && group->jobs[i].status == wanted)
            right++;
        else
            other = group->jobs[i].status;
    if (group->count)
        check(demo, right == group->count, "%s, %s: %u of %u answers are %d, another is %d",
              demo->names[group->source], demo_kinds[group->kind].words, right, group->count,
              wanted, other);
}

/* The answers' sums. Where a client hung up or was told 503, its events may have been captured
 * without an answer that said so: then the next answer calls them duplicates. */
static void check_sums(struct demo *demo, int source)
{
    int64_t sums[DEMO_NUMBERS], rows = demo->rises[DEMO_SOURCE_ROWS + source];
    for (int i = 0; i < DEMO_NUMBERS; i++)
        sums[i] = (int64_t)sum_of(demo, source, -1, i);
    check(demo,
          sums[POST_CAPTURED] <= rows &&
              (demo->retried || sums[POST_CAPTURED] + sums[DEMO_HUNG_UP] >= rows),
          "%s: answers say %" PRId64 " events captured, sent were %" PRId64 " new ones",
          demo->names[source], sums[POST_CAPTURED], rows);
    check(demo, sums[POST_CAPTURED] + sums[POST_DUPLICATES] == demo->decided[source],
          "%s: answers say %" PRId64 " captured and %" PRId64 " duplicates, together must be "
          "%" PRId64,
          demo->names[source], sums[POST_CAPTURED], sums[POST_DUPLICATES], demo->decided[source]);
    for (int i = POST_ORPHANS; i < POST_OUTCOMES; i++)
        check(demo, sums[i] == 0, "%s: answers say %" PRId64 " %s, must be none",
              demo->names[source], sums[i], post_outcome_names[i]);
}

void demo_report_checks(struct demo *demo)
{
    for (int source = 0; source <= (int)demo->source_count; source++)
        for (int kind = 0; kind < DEMO_KIND_COUNT; kind++)
            check_answers(demo, &demo->groups[source][kind]);
    for (int source = 0; source < (int)demo->source_count; source++)
        check_sums(demo, source);
    for (int row = 0; row < PQntuples(demo->after); row++) {
        int64_t counter = rise(demo, row, LOOK_COUNTER), events = rise(demo, row, LOOK_EVENTS);
        bool planned = row >= DEMO_SOURCE_ROWS || row % DEMO_COUNTERS != DEMO_ENROLLED;
        int64_t wanted = planned ? demo->rises[row] : events;
        check(demo, counter == wanted && events == wanted,
              "%s: %s rose by %" PRId64 ", %s by %" PRId64 ", both must by %" PRId64,
              PQgetvalue(demo->after, row, LOOK_SUBJECT), PQgetvalue(demo->after, row, LOOK_WHAT),
              counter, PQgetvalue(demo->after, row, LOOK_BESIDE), events, wanted);
    }
    if (demo->missed)
        printf("\n%s%s of %s checks do not hold.%s\n", paint(demo, RED),
               digits((int64_t)demo->missed).text, digits((int64_t)demo->checks).text,
               paint(demo, PLAIN));
    else
        printf("\n%sAll %s checks hold%s: each event is in PostgreSQL once, and every counter "
               "equals\nthe number of its events.\n",
               paint(demo, GREEN), digits((int64_t)demo->checks).text, paint(demo, PLAIN));
}

void demo_report_next(const struct demo *demo)
{
    const struct demo_options *options = demo->options;
    char program[4096];
    ssize_t len = readlink("/proc/self/exe", program, sizeof(program) - 1);
    program[len > 0 ? len : 0] = '\0';
    print_heading(demo, "What to look at next");
    if (options->once) { /* it stops now, and starts again on what is there */
        fputs("  ", stdout);
        cli_print_word(stdout, program);
        fputs(" dev --dir ", stdout);
        cli_print_word(stdout, options->directory);
        fputs(" &\n", stdout);
    }
    fputs("  . ", stdout);
    cli_print_word(stdout, options->directory);
    fputs("/env\n"
          "  psql \"$DATABASE_URL\" -c '\n"
          "    SELECT received_at, source, event_type, provider_event_id\n"
          "      FROM campaign_events ORDER BY id DESC LIMIT 10'\n"
          "  psql \"$DATABASE_URL\" -c '\n"
          "    SELECT name, total_enrolled, total_sent, total_delivered, total_opened\n"
          "      FROM campaign_instances'\n"
          "  curl -s ",
          stdout);
    cli_print_word(stdout, options->admin_url);
    fputs("/metrics\n  ", stdout);
    cli_print_word(stdout, program);
    fputs(" send -c ", stdout);
    cli_print_word(stdout, options->config);
    printf(" --source %s\n", demo->names[0]);
    print_heading(demo, "A delivery of your own, signed; sent twice, it is a duplicate");
}
