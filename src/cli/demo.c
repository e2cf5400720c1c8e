/* SPDX-License-Identifier: Apache-2.0 */
/* The demo: drives the plan over HTTPS kind by kind, again after a 503 as providers do, looks at
 * PostgreSQL before and after, and reports.
 *
 * The room promises that every number it prints was measured, and that none of them is right only
 * because it was computed from another one: what must come is counted while planning, what came is
 * read from the answers and from PostgreSQL. */
#include "cli/demo.h"

#include "base/clock.h"
#include "base/embedded.h"
#include "base/slice.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/database.h"
#include "cli/demo_plan.h"

#include <stdlib.h>
#include <unistd.h>

enum {
    TRIES_MAX = 10,  /* of one delivery that gets 503 */
    PAUSE_MAX_S = 5, /* between tries, whatever Retry-After says */
    ARENA_BYTES_MAX = 4 * 1024 * 1024,
};

/* What the callback needs of the kind that is under way. */
struct drive {
    struct demo *demo;
    uint64_t all;  /* events */
    uint64_t open; /* deliveries without an answer */
    int64_t start_us;
    unsigned pause_s; /* before those that got 503 are sent again */
};

static void on_answer(void *context, const struct client_answer *answer)
{
    struct drive *drive = context;
    struct demo *demo = drive->demo;
    struct demo_job *job = answer->tag;
    struct demo_group *group = job->group;
    job->status = answer->status;
    if (job->status == 503 || answer->failure) { /* a later round sends it again */
        if (answer->retry_after_s > drive->pause_s)
            drive->pause_s =
                answer->retry_after_s < PAUSE_MAX_S ? (unsigned)answer->retry_after_s : PAUSE_MAX_S;
        return;
    }
    job->answered = true;
    drive->open--;
    group->numbers[DEMO_SENT] += group->in_body;
    if (!job->status)
        group->numbers[DEMO_HUNG_UP] += group->in_body;
    if (job->status >= 400)
        group->numbers[DEMO_REFUSED] += group->in_body;
    if (group->kind == DEMO_FIRST && demo->latency_count < DEMO_FIRST_MAX)
        demo->latencies_us[demo->latency_count++] = (uint32_t)answer->latency_us;
    if (job->status == 200 || job->status == 202)
        post_add_outcome(answer->body, group->numbers);
    demo_report_progress(demo, group->kind, drive->all, clock_mono_us() - drive->start_us);
}

static enum oh_status post_job(struct demo *demo, struct client *client, struct demo_job *job,
                               struct oh_error *err)
{
    struct oh_arena *arena = oh_arena_new(16 * 1024, ARENA_BYTES_MAX);
    struct sample_delivery delivery = {.header_count = 0};
    char nowhere[512];
    const char *url = demo->doors[job->group->source % DEMO_SOURCES_MAX].url;
    if (job->group->kind == DEMO_NOWHERE) {
        snprintf(nowhere, sizeof(nowhere), "%s/in/%s", demo->options->https_url,
                 demo->names[job->group->source]);
        url = nowhere;
    }
    enum oh_status status = arena ? demo_deliver(demo, job, arena, &delivery, err)
                                  : oh_fail(err, OH_NO_MEMORY, "out of memory");
    demo->retried += job->tries++ > 0;
    if (status == OH_OK)
        status = client_post(client, url, &delivery, job->group->kind == DEMO_HANG_UP, job, err);
    oh_arena_free(arena);
    return status;
}

/* Sends the deliveries of one kind; those that got no answer or 503 again, as providers do. */
static enum oh_status drive_kind(struct drive *drive, struct client *client, enum demo_kind kind,
                                 struct oh_error *err)
{
    struct demo *demo = drive->demo;
    enum oh_status status = OH_OK;
    drive->start_us = clock_mono_us();
    drive->open = drive->all = 0;
    for (size_t source = 0; source <= demo->source_count; source++) {
        const struct demo_group *group = &demo->groups[source][kind];
        drive->open += group->count;
        drive->all += group->count * (uint64_t)group->in_body;
    }
    for (int tries = 0; status == OH_OK && drive->open > 0 && tries < TRIES_MAX; tries++) {
        if (tries > 0)
            sleep(drive->pause_s);
        drive->pause_s = 1;
        for (size_t source = 0; source <= demo->source_count; source++) {
            struct demo_group *group = &demo->groups[source][kind];
            for (uint32_t i = 0; status == OH_OK && i < group->count; i++)
                if (!group->jobs[i].answered)
                    status = post_job(demo, client, &group->jobs[i], err);
        }
        if (status == OH_OK)
            status = client_finish(client, err);
    }
    if (kind == DEMO_FIRST)
        demo->first_us = clock_mono_us() - drive->start_us;
    return status;
}

static enum oh_status drive(struct demo *demo, struct oh_error *err)
{
    struct drive drive = {.demo = demo};
    struct client *client;
    enum oh_status status =
        client_new(demo->options->ca, CLIENT_CONNECTIONS_MAX, on_answer, &drive, &client, err);
    for (int kind = 0; status == OH_OK && kind < DEMO_KIND_COUNT; kind++)
        status = drive_kind(&drive, client, (enum demo_kind)kind, err);
    client_free(client);
    return status;
}

/* ---- PostgreSQL ------------------------------------------------------------------------------ */

/* Runs sql/NAME; $1 of `parameters`: the sources' names. The caller clears the result. */
static enum oh_status run_sql(const struct demo *demo, PGconn *connection, const char *name,
                              int parameters, PGresult **out, struct oh_error *err)
{
    char names[1024] = "{";
    const char *const values[] = {names};
    for (size_t i = 0; i < demo->source_count; i++)
        snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s\"%s\"%s", i ? "," : "",
                 demo->names[i], i + 1 < demo->source_count ? "" : "}");
    const char *sql = embedded_find(embedded_sql, name);
    PGresult *result = parameters
                           ? PQexecParams(connection, sql, parameters, NULL, values, NULL, NULL, 0)
                           : PQexec(connection, sql);
    *out = result;
    if (parameters ? PQntuples(result) == (int)(DEMO_SOURCE_ROWS + demo->source_count)
                   : PQresultStatus(result) == PGRES_COMMAND_OK)
        return OH_OK;
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    return oh_fail(err, OH_SYSTEM, "%s: %s", name, message ? message : "not the rows it must give");
}

/* ---- start and end --------------------------------------------------------------------------- */

/* A curl command that can be pasted; it carries a new event of the last source. */
static enum oh_status print_curl(struct demo *demo, struct oh_error *err)
{
    struct demo_group group = {.source = demo->source_count - 1, .events = 1, .in_body = 1};
    struct demo_job job = {.group = &group, .first_event = demo->next_event};
    struct oh_arena *arena = oh_arena_new(16 * 1024, ARENA_BYTES_MAX);
    struct sample_delivery delivery = {.header_count = 0};
    enum oh_status status = arena ? demo_deliver(demo, &job, arena, &delivery, err)
                                  : oh_fail(err, OH_NO_MEMORY, "out of memory");
    if (status == OH_OK)
        status = post_print_curl(&demo->doors[group.source], demo->options->ca, &delivery, err);
    oh_arena_free(arena);
    return status;
}

static enum oh_status run(struct demo *demo, PGconn *connection, struct oh_error *err)
{
    PGresult *made = NULL;
    enum oh_status status = demo_plan(demo, err);
    if (status == OH_OK)
        status = run_sql(demo, connection, "demo_look.sql", 1, &demo->before, err);
    if (status == OH_OK)
        status = run_sql(demo, connection, "demo_campaign.sql", 0, &made, err);
    PQclear(made);
    if (status != OH_OK)
        return status;
    demo_report_start(demo);
    status = drive(demo, err);
    if (status == OH_OK)
        status = run_sql(demo, connection, "demo_look.sql", 1, &demo->after, err);
    if (status != OH_OK)
        return status;
    demo_report_tables(demo);
    demo_report_checks(demo);
    demo_report_next(demo);
    return print_curl(demo, err);
}

int demo_run(const struct demo_options *options)
{
    struct demo *demo = calloc(1, sizeof(*demo));
    struct oh_error err = {.text = ""};
    PGconn *connection = NULL;
    int code = CLI_USAGE;
    if (demo && (demo->config = cli_load_config(options->config, CONFIG_SECRETS))) {
        const struct cli_database database = {options->owner_url, demo->config->database.schema,
                                              NULL};
        demo->options = options;
        connection = cli_database_connect(&database, "oncehook demo");
        if (connection && run(demo, connection, &err) == OH_OK)
            code = demo->missed ? CLI_NO : CLI_OK;
        else if (err.text[0]) /* else it is said already */
            fprintf(stderr, "oncehook: the demo stopped: %s\n", err.text);
        fflush(stdout);
        PQclear(demo->before);
        PQclear(demo->after);
        PQfinish(connection);
        demo_plan_free(demo);
        config_free(demo->config);
    }
    free(demo);
    return code;
}
