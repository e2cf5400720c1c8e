/* SPDX-License-Identifier: Apache-2.0 */
/* What doctor sees beside the database: the running gateway through its own /metrics, read twice so
 * that shares of time can be told; the spool's directory; the disks, where they are on this node.
 */
#include "base/clock.h"
#include "cli/client.h"
#include "cli/doctor.h"
#include "spool/spool.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { LOOK_MS = 2000 };

/* ---- the gateway's metrics ------------------------------------------------------------------- */

/* The page, malloc'ed; NULL: doctor->no_metrics says why. */
static char *fetch(struct doctor *doctor)
{
    return doctor->no_metrics[0]
               ? NULL
               : client_get(doctor->address, doctor->no_metrics, sizeof(doctor->no_metrics));
}

void doctor_ask_gateway(struct doctor *doctor)
{
    doctor->first_us = clock_mono_us();
    doctor->first = fetch(doctor);
}

void doctor_ask_gateway_again(struct doctor *doctor)
{
    int64_t left_us = doctor->first_us + LOOK_MS * 1000 - clock_mono_us();
    if (!doctor->first)
        return;
    if (left_us > 0)
        usleep((useconds_t)left_us);
    doctor->second_us = clock_mono_us();
    doctor->second = fetch(doctor);
}

/* The sum of the metric's series that carry `label` (may be NULL); NAN if there is none. */
static double read_metric(const char *page, const char *name, const char *label)
{
    double sum = NAN;
    size_t len = strlen(name);
    for (const char *line = page; *line;) {
        size_t line_len = strcspn(line, "\n");
        const char *at = line + len;
        if (strncmp(line, name, len) == 0 && (*at == '{' || *at == ' ') &&
            (!label || memmem(line, line_len, label, strlen(label)))) {
            const char *blank = memrchr(line, ' ', line_len);
            if (blank)
                sum = (isnan(sum) ? 0 : sum) + strtod(blank, NULL);
        }
        line += line_len + (line[line_len] != '\0');
    }
    return sum;
}

/* Says that it was not looked at, where there are no metrics. */
static bool has_metrics(const struct doctor *doctor, struct doctor_finding *finding)
{
    if (!doctor->second)
        doctor_not_known(finding, doctor->no_metrics[0] ? doctor->no_metrics : "no metrics");
    return doctor->second != NULL;
}

/* One number of the gateway; `none`: the words for 0. */
static void take_number(struct doctor *doctor, struct doctor_finding *finding, const char *name,
                        const char *none, const char *words)
{
    if (!has_metrics(doctor, finding))
        return;
    double value = read_metric(doctor->second, name, NULL);
    if (isnan(value))
        doctor_not_known(finding, "the gateway does not tell it (yet)");
    else
        doctor_add(finding, value, NULL, value == 0 ? none : words);
}

void doctor_take_gateway(struct doctor *doctor, struct doctor_finding *finding)
{
    if (!has_metrics(doctor, finding))
        return;
    bool is_up = read_metric(doctor->second, "oncehook_database_up", NULL) == 1;
    doctor_add(finding, !is_up, NULL,
               is_up ? "it can commit events" : "not every lane can commit events");
}

static double difference(const struct doctor *doctor, const char *name)
{
    return read_metric(doctor->second, name, NULL) - read_metric(doctor->first, name, NULL);
}

/* While one batch commits the next one gathers, so a lane is busy all the time long before it is at
 * its end: its batches grow. What a batch takes however few events it has is therefore no use of
 * the lane; what its events take is. */
void doctor_take_lanes(struct doctor *doctor, struct doctor_finding *finding)
{
    char words[160], subject[32];
    if (!has_metrics(doctor, finding))
        return;
    double lanes = read_metric(doctor->second, "oncehook_lanes", NULL);
    double seconds = (double)(doctor->second_us - doctor->first_us) / 1e6;
    double busy = difference(doctor, "oncehook_lane_busy_seconds_total") / (seconds * lanes);
    double fixed = difference(doctor, "oncehook_lane_fixed_seconds_total") / (seconds * lanes);
    if (!isfinite(busy) || !isfinite(fixed)) {
        doctor_not_known(finding, "this gateway does not tell how busy its lanes are");
        return;
    }
    snprintf(
        words, sizeof(words),
        "of their time on events; busy for %.0f %% of %.1f s, %.0f %% of it with what a larger "
        "batch would share",
        busy * 100, seconds, busy > 0 ? fixed / busy * 100 : 0);
    snprintf(subject, sizeof(subject), "%.0f lanes", lanes);
    doctor_add(finding, busy - fixed, subject, words);
}

void doctor_take_waiting(struct doctor *doctor, struct doctor_finding *finding)
{
    take_number(doctor, finding, "oncehook_waiting_batches", "no full batch waits for a lane",
                "full batches wait for a lane");
}

/* The report's p50 < 10 ms, p95 < 100 ms, p99 < 500 ms, each as the share that is slower ÷ the
 * share that may be: all three are bounds of buckets, so nothing is interpolated. */
void doctor_take_answers(struct doctor *doctor, struct doctor_finding *finding)
{
    static const struct {
        const char *subject, *label;
        int ms;
        double slower_max;
    } limits[] = {{"p50", "le=\"0.01\"", 10, 0.5},
                  {"p95", "le=\"0.1\"", 100, 0.05},
                  {"p99", "le=\"0.5\"", 500, 0.01}};
    if (!has_metrics(doctor, finding))
        return;
    double count = read_metric(doctor->second, "oncehook_ack_seconds_count", NULL);
    for (size_t i = 0; count > 0 && i < sizeof(limits) / sizeof(limits[0]); i++) {
        char words[120];
        double slower =
            1 - read_metric(doctor->second, "oncehook_ack_seconds_bucket", limits[i].label) / count;
        snprintf(words, sizeof(words),
                 "%.2f %% of %.0f answers since the gateway's start took longer than %d ms; up to "
                 "%.0f %% may",
                 slower * 100, count, limits[i].ms, limits[i].slower_max * 100);
        doctor_add(finding, slower / limits[i].slower_max, limits[i].subject, words);
    }
    if (!(count > 0))
        doctor_not_known(finding, "the gateway has answered nothing yet");
}

void doctor_take_drift(struct doctor *doctor, struct doctor_finding *finding)
{
    take_number(doctor, finding, "oncehook_counter_drift", "every counter is what its events are",
                "counters differ from their events");
    if (doctor->has_detached)
        finding->todo =
            "Attach the detached months: their events are counted, and are not where audit looks.";
}

void doctor_take_slow(struct doctor *doctor, struct doctor_finding *finding)
{
    take_number(doctor, finding, "oncehook_slow_statements_total", "none since the gateway's start",
                "since the gateway's start");
}

void doctor_take_deadlocks(struct doctor *doctor, struct doctor_finding *finding)
{
    take_number(doctor, finding, "oncehook_deadlocks_total", "none since the gateway's start",
                "since the gateway's start");
}

/* ---- the spool ------------------------------------------------------------------------------- */

/* Reads where the spool stands; false: there is none, or *finding says why it cannot be read. */
static bool look_at_spool(const struct doctor *doctor, struct doctor_finding *finding,
                          struct spool_state *state)
{
    const struct config *config = doctor->database->config;
    struct spool *spool = NULL;
    struct oh_error error;
    pid_t owner;
    if (!config)
        doctor_not_known(finding, "the spool is known with -c FILE alone");
    else if (config->outage != CONFIG_OUTAGE_SPOOL)
        doctor_add(finding, 0, NULL, "outage: refuse keeps nothing on disk");
    else if (spool_look(config, &spool, &owner, &error) != OH_OK)
        doctor_not_known(finding, error.text);
    else {
        spool_get_state(spool, state);
        spool_close(spool);
        return true;
    }
    return false;
}

void doctor_take_spool_size(struct doctor *doctor, struct doctor_finding *finding)
{
    struct spool_state state;
    if (look_at_spool(doctor, finding, &state))
        doctor_add(finding, (double)state.bytes, NULL, "on disk");
}

void doctor_take_spool_age(struct doctor *doctor, struct doctor_finding *finding)
{
    struct spool_state state;
    char words[64];
    if (!look_at_spool(doctor, finding, &state))
        return;
    snprintf(words, sizeof(words), "old is the oldest of %llu events",
             (unsigned long long)state.waiting);
    doctor_add(finding, (double)state.oldest_s, NULL, state.waiting ? words : "nothing waits");
}

void doctor_take_spool_lost(struct doctor *doctor, struct doctor_finding *finding)
{
    struct spool_state state;
    if (look_at_spool(doctor, finding, &state))
        doctor_add(finding, (double)state.lost, NULL,
                   state.lost ? "events were acknowledged and cannot be read" : "nothing is lost");
}

/* ---- disks ----------------------------------------------------------------------------------- */

static bool add_disk(struct doctor_finding *finding, const char *path)
{
    struct statvfs disk;
    char words[80];
    if (statvfs(path, &disk) != 0 || disk.f_blocks == 0)
        return false;
    snprintf(words, sizeof(words), "free, %.1f of %.1f GiB",
             (double)disk.f_bavail * (double)disk.f_frsize / (1024.0 * 1024 * 1024),
             (double)disk.f_blocks * (double)disk.f_frsize / (1024.0 * 1024 * 1024));
    doctor_add(finding, (double)disk.f_bavail / (double)disk.f_blocks, path, words);
    return true;
}

/* A server on this node says where its directory is, to those who may read its settings. */
void doctor_take_disks(struct doctor *doctor, struct doctor_finding *finding)
{
    const struct config *config = doctor->database->config;
    PGresult *row = PQexec(
        doctor->connection,
        "SELECT CASE WHEN coalesce(inet_server_addr() <<= '127.0.0.0/8' OR inet_server_addr() = "
        "'::1', true) THEN (SELECT setting FROM pg_settings WHERE name = 'data_directory') END,"
        " coalesce(inet_server_addr() <<= '127.0.0.0/8' OR inet_server_addr() = '::1', true)");
    bool done = PQresultStatus(row) == PGRES_TUPLES_OK;
    bool is_here = done && PQgetvalue(row, 0, 1)[0] == 't';
    if (config && config->outage == CONFIG_OUTAGE_SPOOL)
        add_disk(finding, config->spool.directory);
    if (!is_here)
        doctor_not_known(finding, "the server's disk is not on this node");
    else if (PQgetisnull(row, 0, 0))
        doctor_not_known(finding, "the server's data_directory may not be read: GRANT "
                                  "pg_read_all_settings to this role");
    else if (!add_disk(finding, PQgetvalue(row, 0, 0)))
        doctor_not_known(finding, "the server's data_directory cannot be seen from here");
    PQclear(row);
}
