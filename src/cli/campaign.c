/* SPDX-License-Identifier: Apache-2.0 */
/* SQL of the demo, all of it parameterised. Ids are fixed, so that the next demo finds the same
 * campaign and its counters go on. */
#include "cli/campaign.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEMPLATE_ID "de300000-0000-4000-8000-000000000000"

enum { TEXT_MAX = 24 };

const char *const campaign_counters[CAMPAIGN_COUNTERS] = {
    "sent", "delivered", "opened", "clicked", "replied", "bounced", "unsubscribed", "completed"};

struct campaign {
    PGconn *connection;
};

void campaign_instance_id(uint32_t n, char out[37])
{
    snprintf(out, 37, "de310000-0000-4000-8000-%012x", n);
}

void campaign_enrollment_id(uint32_t n, char out[37])
{
    snprintf(out, 37, "de320000-0000-4000-8000-%012x", n);
}

/* ---- statements ------------------------------------------------------------------------------ */

/* Runs one statement with text parameters; NULL with *err filled when it does not succeed. */
static PGresult *run(struct campaign *campaign, struct oh_error *err, const char *sql, int count,
                     const char *const *values)
{
    PGresult *result = PQexecParams(campaign->connection, sql, count, NULL, values, NULL, NULL, 0);
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
        return result;
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    (void)oh_fail(err, OH_SYSTEM, "PostgreSQL: %s",
                  message ? message : PQerrorMessage(campaign->connection));
    PQclear(result);
    return NULL;
}

static enum oh_status run_only(struct campaign *campaign, struct oh_error *err, const char *sql,
                               int count, const char *const *values)
{
    PGresult *result = run(campaign, err, sql, count, values);
    PQclear(result);
    return result ? OH_OK : OH_SYSTEM;
}

static int64_t number(const PGresult *result, int row, int column)
{
    return strtoll(PQgetvalue(result, row, column), NULL, 10);
}

enum oh_status campaign_open(const char *url, const char *schema, struct campaign **out,
                             struct oh_error *err)
{
    *out = NULL;
    struct campaign *campaign = calloc(1, sizeof(*campaign));
    if (!campaign)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    campaign->connection = PQconnectdb(url);
    enum oh_status status = OH_OK;
    if (PQstatus(campaign->connection) != CONNECTION_OK)
        status = oh_fail(err, OH_SYSTEM, "PostgreSQL: %s", PQerrorMessage(campaign->connection));
    else
        status = run_only(campaign, err,
                          "SELECT set_config('search_path', quote_ident($1) || ', pg_temp', false)",
                          1, &schema);
    if (status != OH_OK) {
        campaign_close(campaign);
        return status;
    }
    *out = campaign;
    return OH_OK;
}

void campaign_close(struct campaign *campaign)
{
    if (!campaign)
        return;
    PQfinish(campaign->connection);
    free(campaign);
}

enum oh_status campaign_make(struct campaign *campaign, struct oh_error *err)
{
    static const char *const names[CAMPAIGN_INSTANCES] = {"Spring", "Summer", "Autumn"};
    const char *template[] = {TEMPLATE_ID};
    char enrollments[TEXT_MAX], instances[TEXT_MAX];
    snprintf(enrollments, sizeof(enrollments), "%d", CAMPAIGN_ENROLLMENTS);
    snprintf(instances, sizeof(instances), "%d", CAMPAIGN_INSTANCES);
    /* Lock order: templates, instances, enrollments, each ascending by id. */
    enum oh_status status = run_only(campaign, err,
                                     "INSERT INTO campaign_templates (id, name) VALUES ($1, "
                                     "'oncehook demo') ON CONFLICT (id) DO NOTHING",
                                     1, template);
    for (uint32_t i = 0; status == OH_OK && i < CAMPAIGN_INSTANCES; i++) {
        char id[37];
        campaign_instance_id(i, id);
        const char *values[] = {id, TEMPLATE_ID, names[i]};
        status = run_only(campaign, err,
                          "INSERT INTO campaign_instances (id, template_id, name, status) VALUES "
                          "($1, $2, $3, 'active') ON CONFLICT (id) DO NOTHING",
                          3, values);
    }
    if (status != OH_OK)
        return status;
    const char *values[] = {enrollments, instances};
    return run_only(campaign, err,
                    "INSERT INTO campaign_enrollments (id, instance_id, contact_id) "
                    "SELECT ('de320000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,"
                    " ('de310000-0000-4000-8000-' || lpad(to_hex(n % $2::int), 12, '0'))::uuid,"
                    " ('de330000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid "
                    "FROM generate_series(0, $1::int - 1) n ORDER BY 1 ON CONFLICT DO NOTHING",
                    2, values);
}

/* ---- the look -------------------------------------------------------------------------------- */

static enum oh_status look_at_instances(struct campaign *campaign, struct campaign_snapshot *out,
                                        struct oh_error *err)
{
    static const char sql[] =
        "SELECT i.name, i.total_enrolled,"
        " (SELECT count(*) FROM campaign_enrollments n WHERE n.instance_id = i.id),"
        " i.total_sent, i.total_delivered, i.total_opened, i.total_clicked, i.total_replied,"
        " i.total_bounced, i.total_unsubscribed, i.total_completed, e.* "
        "FROM campaign_instances i CROSS JOIN LATERAL (SELECT"
        " count(*) FILTER (WHERE event_type = 'sent'),"
        " count(*) FILTER (WHERE event_type = 'delivered'),"
        " count(*) FILTER (WHERE event_type = 'opened'),"
        " count(*) FILTER (WHERE event_type = 'clicked'),"
        " count(*) FILTER (WHERE event_type = 'replied'),"
        " count(*) FILTER (WHERE event_type = 'bounced'),"
        " count(*) FILTER (WHERE event_type = 'unsubscribed'),"
        " count(*) FILTER (WHERE event_type = 'completed'),"
        " count(*) FROM campaign_events e WHERE e.instance_id = i.id) e "
        "WHERE i.template_id = $1 ORDER BY i.id";
    const char *values[] = {TEMPLATE_ID};
    PGresult *result = run(campaign, err, sql, 1, values);
    if (!result)
        return OH_SYSTEM;
    enum oh_status status = OH_OK;
    if (PQntuples(result) != CAMPAIGN_INSTANCES)
        status = oh_fail(err, OH_SYSTEM, "the demo's template has %d instances, not %d",
                         PQntuples(result), CAMPAIGN_INSTANCES);
    for (int row = 0; status == OH_OK && row < CAMPAIGN_INSTANCES; row++) {
        struct campaign_instance *instance = &out->instances[row];
        snprintf(instance->name, sizeof(instance->name), "%s", PQgetvalue(result, row, 0));
        instance->enrolled = number(result, row, 1);
        instance->enrollments = number(result, row, 2);
        for (int i = 0; i < CAMPAIGN_COUNTERS; i++) {
            instance->totals[i] = number(result, row, 3 + i);
            instance->events[i] = number(result, row, 3 + CAMPAIGN_COUNTERS + i);
        }
        instance->events_of_all_types = number(result, row, 3 + 2 * CAMPAIGN_COUNTERS);
    }
    PQclear(result);
    return status;
}

static enum oh_status look_at_enrollments(struct campaign *campaign, struct campaign_snapshot *out,
                                          struct oh_error *err)
{
    static const char sql[] =
        "SELECT coalesce(sum(n.total_events), 0),"
        " count(*) FILTER (WHERE n.total_events <> coalesce(e.events, 0)) "
        "FROM campaign_enrollments n JOIN campaign_instances i ON i.id = n.instance_id "
        "LEFT JOIN (SELECT enrollment_id, count(*) AS events FROM campaign_events"
        " WHERE instance_id IN (SELECT id FROM campaign_instances WHERE template_id = $1)"
        " GROUP BY enrollment_id) e ON e.enrollment_id = n.id WHERE i.template_id = $1";
    const char *values[] = {TEMPLATE_ID};
    PGresult *result = run(campaign, err, sql, 1, values);
    if (!result)
        return OH_SYSTEM;
    out->enrollment_totals = number(result, 0, 0);
    out->enrollments_drifted = number(result, 0, 1);
    PQclear(result);
    return OH_OK;
}

enum oh_status campaign_look(struct campaign *campaign, const char *const *sources, size_t count,
                             struct campaign_snapshot *out, struct oh_error *err)
{
    memset(out, 0, sizeof(*out));
    if (count > CAMPAIGN_SOURCES_MAX)
        return oh_fail(err, OH_INVALID, "too many sources");
    enum oh_status status =
        run_only(campaign, err, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", 0, NULL);
    if (status == OH_OK)
        status = look_at_instances(campaign, out, err);
    if (status == OH_OK)
        status = look_at_enrollments(campaign, out, err);
    for (size_t i = 0; status == OH_OK && i < count; i++) {
        PGresult *result = run(campaign, err,
                               "SELECT count(*), count(DISTINCT (key_scope, provider_event_id)) "
                               "FROM campaign_events WHERE source = $1",
                               1, &sources[i]);
        if (!result)
            return OH_SYSTEM;
        out->sources[i].rows = number(result, 0, 0);
        out->sources[i].keys = number(result, 0, 1);
        PQclear(result);
    }
    if (status == OH_OK)
        status = run_only(campaign, err, "COMMIT", 0, NULL);
    return status;
}
