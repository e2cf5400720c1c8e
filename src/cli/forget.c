/* SPDX-License-Identifier: Apache-2.0 */
/* oncehook forget: a person leaves the database; keys and counters stay (docs/forget.md).
 *
 * First the enrollments are marked, so that nothing new keeps a payload; then events, contacts and
 * quarantine are walked in small transactions; last, this node's spool, if nobody owns it. Ended
 * half-way, it is run again. */
#include "cli/cli.h"

#include "base/embedded.h"
#include "base/encode.h"
#include "base/slice.h"
#include "cli/database.h"
#include "spool/spool.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    EVENTS_MAX = 1000,
    QUARANTINE_MAX = 200,
    CHUNK_EVENTS = 1000,
    CHUNK_BYTES = 8 * 1024 * 1024
};

struct forget {
    PGconn *connection;
    const char *enrollment, *contact, *email; /* as given; NULL = not */
    bool dry_run, is_tty;
    PGresult *who;      /* enrollments, emails: array literals, parameters of the next calls */
    PGresult *workflow; /* its id; NULL = none */
    long long marks, events, contacts, quarantined, in_spool;
    bool is_left_in_spool;
};

static PGresult *ask(struct forget *forget, const char *sql, int count, const char *const *values)
{
    return cli_database_ask(forget->connection, "oncehook forget", sql, count, values);
}

/* The same for a statement that answers one number. */
static bool ask_number(struct forget *forget, const char *sql, int count, const char *const *values,
                       long long *out)
{
    PGresult *result = ask(forget, sql, count, values);
    if (result)
        *out = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
    PQclear(result);
    return result != NULL;
}

static const char *verb(const struct forget *forget, long long count)
{
    return forget->dry_run ? "would be" : count == 1 ? "is" : "are";
}

static void draw(const struct forget *forget, const char *what, long long done, long long all)
{
    if (forget->is_tty)
        cli_draw_bar(done, all, "%lld/%lld %s", done, all, what);
}

/* ---- who ------------------------------------------------------------------------------------- */

static bool find(struct forget *forget)
{
    const char *const whom[] = {forget->enrollment, forget->contact, forget->email};
    forget->who =
        ask(forget, "SELECT enrollments, emails FROM forget_find_v1($1, $2, $3)", 3, whom);
    if (!forget->who)
        return false;
    const char *const found[] = {PQgetvalue(forget->who, 0, 0), forget->contact,
                                 PQgetvalue(forget->who, 0, 1)};
    PGresult *counts =
        ask(forget,
            "SELECT marks, events + (SELECT count(*) FROM campaign_events_retired v WHERE "
            "v.enrollment_id = ANY ($1) AND (v.payload IS NOT NULL OR v.payload_bytes IS NOT "
            "NULL)), contacts + cached FROM forget_count_v1($1, $2, $3)",
            3, found);
    if (counts) {
        forget->marks = strtoll(PQgetvalue(counts, 0, 0), NULL, 10);
        forget->events = strtoll(PQgetvalue(counts, 0, 1), NULL, 10);
        forget->contacts = strtoll(PQgetvalue(counts, 0, 2), NULL, 10);
    }
    PQclear(counts);
    return counts != NULL;
}

/* ---- what ------------------------------------------------------------------------------------ */

static bool walk_quarantine(struct forget *forget)
{
    long long all = 0, looked = 0;
    char after[24] = "0", limit[24];
    snprintf(limit, sizeof(limit), "%d", QUARANTINE_MAX);
    if (!ask_number(forget, "SELECT count(*) FROM quarantined_deliveries", 0, NULL, &all))
        return false;
    for (long long last = QUARANTINE_MAX; last == QUARANTINE_MAX; looked += last) {
        const char *const values[] = {PQgetvalue(forget->who, 0, 0),
                                      forget->contact,
                                      PQgetvalue(forget->who, 0, 1),
                                      after,
                                      limit,
                                      forget->dry_run ? "t" : "f"};
        draw(forget, "quarantined deliveries looked at", looked, all);
        PGresult *row = ask(forget,
                            "SELECT looked, after, coalesce(cardinality(matches), 0) "
                            "FROM forget_quarantine_v1(array_remove($1::uuid[] || $2::uuid, NULL), "
                            "$3, $4, $5, $6)",
                            6, values);
        if (!row)
            return false;
        last = strtoll(PQgetvalue(row, 0, 0), NULL, 10);
        snprintf(after, sizeof(after), "%s", PQgetvalue(row, 0, 1));
        forget->quarantined += strtoll(PQgetvalue(row, 0, 2), NULL, 10);
        PQclear(row);
    }
    return true;
}

/* Retired months last: a month leaves campaign_events and does not come back. */
static bool change_events(struct forget *forget)
{
    char limit[24];
    const char *const values[] = {PQgetvalue(forget->who, 0, 0), limit};
    const char *const steps[] = {"SELECT forget_events_v1($1, $2)",
                                 embedded_find(embedded_sql, "forget_retired.sql")};
    long long expected = forget->events;
    snprintf(limit, sizeof(limit), "%d", EVENTS_MAX);
    forget->events = 0;
    for (int i = 0; i < 2; i++)
        for (long long last = EVENTS_MAX; last == EVENTS_MAX; forget->events += last) {
            draw(forget, "events", forget->events, expected);
            if (!ask_number(forget, steps[i], 2, values, &last))
                return false;
        }
    return true;
}

/* Its record names nobody: how many, and no id. */
static bool begin_workflow(struct forget *forget)
{
    char marks[24];
    const char *const values[] = {marks};
    snprintf(marks, sizeof(marks), "%lld", forget->marks);
    forget->workflow = ask(
        forget, "SELECT workflow_begin_v1('forget', jsonb_build_object('enrollments', $1::bigint))",
        1, values);
    return forget->workflow != NULL;
}

static void end_workflow(struct forget *forget, bool ok)
{
    char events[24], quarantined[24];
    const char *const values[] = {PQgetvalue(forget->workflow, 0, 0),
                                  ok ? NULL : "it was not finished: run it again", events,
                                  quarantined};
    snprintf(events, sizeof(events), "%lld", forget->events);
    snprintf(quarantined, sizeof(quarantined), "%lld", forget->quarantined);
    PQclear(ask(forget,
                "SELECT workflow_end_v1($1, $2, jsonb_build_object('events', $3::bigint, "
                "'quarantined', $4::bigint))",
                4, values));
}

static bool change(struct forget *forget)
{
    const char *const who[] = {PQgetvalue(forget->who, 0, 0), forget->contact,
                               PQgetvalue(forget->who, 0, 1)};
    if (!begin_workflow(forget))
        return false;
    bool ok = ask_number(forget, "SELECT forget_mark_v1($1)", 1, who, &forget->marks) &&
              change_events(forget) && walk_quarantine(forget) &&
              ask_number(forget, embedded_find(embedded_sql, "forget_contact.sql"), 2, who + 1,
                         &forget->contacts);
    end_workflow(forget, ok);
    return ok;
}

/* ---- this node's spool ----------------------------------------------------------------------- */

static bool holds(struct oh_slice bytes, const char *text)
{
    size_t len = strlen(text);
    for (size_t i = 0; bytes.data && i + len <= bytes.len; i++)
        if (strncasecmp(bytes.data + i, text, len) == 0)
            return true;
    return false;
}

/* True if a record names one of the rows of `context`, terms. */
static bool names(void *context, const struct delivery *delivery)
{
    const PGresult *terms = context;
    const struct oh_event *event = delivery->events[0].event;
    const struct oh_request *request = &delivery->request;
    for (int i = 0; i < PQntuples(terms); i++) {
        const char *term = PQgetvalue(terms, i, 0);
        uint8_t uuid[16];
        if (event && event->has_enrollment && uuid_parse(slice_of_text(term), uuid) &&
            memcmp(uuid, event->enrollment_id, sizeof(uuid)) == 0)
            return true;
        if (event ? holds(event->payload, term) || holds(event->raw, term)
                  : holds(request->body, term) || holds(request->url, term))
            return true;
        for (size_t h = 0; !event && h < request->header_count; h++)
            if (holds(request->headers[h].value, term))
                return true;
    }
    return false;
}

static void count_records(struct forget *forget, struct spool *spool, PGresult *terms)
{
    struct spool_state state;
    spool_get_state(spool, &state);
    for (uint64_t done = 0; done < state.waiting;) {
        struct spool_chunk *chunk = spool_read(spool, CHUNK_EVENTS, CHUNK_BYTES);
        if (!chunk) {
            (void)spool_wait(spool, 100);
            continue;
        }
        for (size_t i = 0; i < chunk->count; i++)
            forget->in_spool += names(terms, chunk->deliveries[i]);
        done += chunk->last - chunk->first + 1;
        spool_release(spool, chunk);
        draw(forget, "spooled events looked at", (long long)done, (long long)state.waiting);
    }
}

static bool change_records(struct forget *forget, const struct config *config, PGresult *terms)
{
    struct spool_forgotten done;
    struct oh_error err;
    if (spool_forget(config, names, terms, &done, &err) != OH_OK) {
        fprintf(stderr, "oncehook forget: spool: %s\n", err.text);
        return false;
    }
    forget->in_spool = (long long)done.changed;
    forget->is_left_in_spool = done.unreadable > 0 || done.set_aside > 0;
    if (done.unreadable > 0)
        printf("              %" PRIu64 " records cannot be read, and stay: drain it, then delete "
               "the damaged-… files\n",
               done.unreadable);
    if (done.set_aside > 0)
        printf("              %" PRIu64 " damaged-… files are not looked into: delete them when "
               "nobody needs them\n",
               done.set_aside);
    return true;
}

/* A spool that nobody owns loses the person. One that a gateway owns is not touched: what it drains
 * loses its payload in the database, and its files are deleted as they are drained. */
static bool look_at_spool(struct forget *forget, const struct config *config)
{
    const char *const who[] = {PQgetvalue(forget->who, 0, 0), forget->contact,
                               PQgetvalue(forget->who, 0, 1)};
    const char *directory = config->spool.directory;
    struct spool *spool = NULL;
    struct spool_state state;
    struct oh_error err;
    pid_t owner = 0;
    if (access(directory, F_OK) != 0)
        return true;
    if (spool_look(config, &spool, &owner, &err) != OH_OK) {
        fprintf(stderr, "oncehook forget: spool: %s\n", err.text);
        return false;
    }
    spool_get_state(spool, &state);
    PGresult *terms =
        ask(forget,
            "SELECT unnest(array_remove($1::text[] || $2::text || $3::text[], NULL)) UNION "
            "SELECT r.id::text FROM enrollment_references r WHERE r.enrollment_id = "
            "ANY ($1::text[]::uuid[])",
            3, who);
    bool ok = terms != NULL;
    if (ok && !owner && forget->dry_run)
        count_records(forget, spool, terms);
    spool_close(spool);
    if (ok && !owner && !forget->dry_run)
        ok = change_records(forget, config, terms);
    PQclear(terms);
    if (forget->is_tty)
        cli_clear_bar();
    if (owner && state.waiting > 0) {
        forget->is_left_in_spool = true;
        printf("spool         %" PRIu64
               " event%s in %s, which process %d has: let it drain or stop "
               "it, then run this again\n",
               state.waiting, state.waiting == 1 ? " waits" : "s wait", directory, (int)owner);
    } else if (ok) {
        printf("spool         %lld record%s in %s %s without payload\n", forget->in_spool,
               forget->in_spool == 1 ? "" : "s", directory, verb(forget, forget->in_spool));
    }
    return ok;
}

/* ---- the command ----------------------------------------------------------------------------- */

static void print_ids(const struct forget *forget)
{
    const char *id = PQgetvalue(forget->who, 0, 0) + 1; /* {ID,ID} */
    puts("ids           not found by the contact any more; for a second run:");
    for (size_t len; (len = strcspn(id, ",}")) > 0; id += len + (id[len] == ','))
        printf("              --enrollment %.*s\n", (int)len, id);
}

static void print_report(const struct forget *forget)
{
    if (forget->is_tty)
        cli_clear_bar();
    printf("enrollments   %lld %s marked: nobody's, and nothing new keeps a payload\n",
           forget->marks, verb(forget, forget->marks));
    printf("events        %lld %s without payload\n", forget->events, verb(forget, forget->events));
    printf("quarantine    %lld %s without body, URL and headers\n", forget->quarantined,
           verb(forget, forget->quarantined));
    printf("contact       %lld row%s %s deleted\n", forget->contacts,
           forget->contacts == 1 ? "" : "s", verb(forget, forget->contacts));
    if (!forget->dry_run && forget->contact && forget->marks > 0)
        print_ids(forget);
}

static bool is_usage_right(const struct forget *forget)
{
    uint8_t uuid[16];
    const char *id = forget->enrollment ? forget->enrollment : forget->contact;
    if (!forget->enrollment == !forget->contact)
        fputs("oncehook forget: whom? --enrollment ID or --contact ID\n", stderr);
    else if (!uuid_parse(slice_of_text(id), uuid))
        fprintf(stderr, "oncehook forget: '%s' is not a UUID\n", id);
    else if (forget->email && (strlen(forget->email) < 3 || !strchr(forget->email, '@')))
        fputs("oncehook forget: --email takes one whole address\n", stderr);
    else
        return true;
    return false;
}

static bool run(struct forget *forget, const struct cli_database *database)
{
    PGresult *set = NULL;
    forget->connection = cli_database_connect(database, "oncehook forget");
    if (!forget->connection)
        return false;
    set = PQexec(forget->connection, "SET lock_timeout = '5s'; SET statement_timeout = 0");
    PQclear(set);
    if (!find(forget))
        return false;
    if (!(forget->dry_run ? walk_quarantine(forget) : change(forget))) {
        fputs("oncehook forget: it is not finished: run it again\n", stderr);
        return false;
    }
    print_report(forget);
    if (forget->marks + forget->events + forget->contacts + forget->quarantined == 0)
        fputs("oncehook forget: nothing in the database names them: is the id right, or were they "
              "forgotten before?\n",
              stderr);
    bool ok = !database->config || look_at_spool(forget, database->config);
    if (!ok) /* the lines above are true, and must not pass for the end */
        puts(forget->dry_run
                 ? "spool         not looked at"
                 : "spool         NOT DONE: what waits there may still name the person; "
                   "the rest is done. Mend it, run this again");
    return ok;
}

int cli_forget(int argc, char **argv)
{
    struct cli_database_options where = {0};
    struct cli_database database;
    struct forget forget = {.is_tty = isatty(STDERR_FILENO)};
    const struct cli_option options[] = {
        {"config", 'c', .argument = "FILE", .value = &where.config,
         .words = "Take database.owner_url and database.schema from FILE, and look at its spool"},
        {"database", .argument = "URL", .value = &where.url,
         .words = "The schema owner's login, a libpq URI or conninfo"},
        {"schema", .argument = "NAME", .value = &where.schema,
         .words = "The schema (default: the configured one, else public)"},
        {"enrollment", .argument = "ID", .value = &forget.enrollment,
         .words = "This enrollment alone"},
        {"contact", .argument = "ID", .value = &forget.contact,
         .words = "Every enrollment of this contact, and the contact's own row"},
        {"email", .argument = "ADDRESS", .value = &forget.email,
         .words = "Also look for this address in quarantine, contacts and cache"},
        {"dry-run", .flag = &forget.dry_run, .words = "Count what would change, change nothing"},
        {0},
    };
    cli_read_options(options,
                     "Make a person leave the database: payloads of events, bodies in quarantine, "
                     "the contact's row. Keys and counters stay, and a redelivery is a duplicate. "
                     "It may be run again, and after Ctrl-C goes on where it was.\vExit: 0 done, 1 "
                     "done but for what this node's spool still holds, 2 usage or database.",
                     argc, argv);
    if (!is_usage_right(&forget) || !cli_database_find(&where, true, &database))
        return CLI_USAGE;
    bool ok = run(&forget, &database);
    if (forget.is_tty)
        cli_clear_bar();
    PQclear(forget.who);
    PQclear(forget.workflow);
    PQfinish(forget.connection);
    cli_database_release(&database);
    if (fflush(stdout) != 0 || !ok)
        return CLI_USAGE;
    return forget.is_left_in_spool ? CLI_NO : CLI_OK;
}
