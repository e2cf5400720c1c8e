/* SPDX-License-Identifier: Apache-2.0 */
/* Inside `oncehook doctor`: a look, what it found, and where from. doctor.c holds the table of
 * looks and asks PostgreSQL, doctor_node.c asks the running gateway and this node's disks,
 * doctor_report.c prints. */
#ifndef CLI_DOCTOR_H
#define CLI_DOCTOR_H

#include "cli/database.h"

#include <jansson.h>

/* From the best to the worst, but for what was not looked at. */
enum doctor_state { DOCTOR_FINE, DOCTOR_UNKNOWN, DOCTOR_WATCH, DOCTOR_PERSON };

enum doctor_unit {
    UNIT_COUNT,
    UNIT_FLAG,
    UNIT_SHARE,
    UNIT_TIMES,
    UNIT_SECONDS,
    UNIT_MS,
    UNIT_BYTES
};

struct doctor {
    const struct cli_database *database;
    PGconn *connection;
    bool has_schema;
    bool has_detached;    /* a month is: then drift must not be repaired */
    char address[300];    /* of /metrics; "" = not known */
    char *first, *second; /* the gateway's metrics, at two times; NULL = not had */
    int64_t first_us, second_us;
    char no_metrics[200];  /* why not */
    double database_bytes; /* the limit */
};

struct doctor_look;

/* What a look found. */
struct doctor_finding {
    const struct doctor_look *look;
    enum doctor_state state;
    double watch, person; /* the limits; NAN = none */
    const char *todo;     /* the look's, or another */
    json_t *rows;         /* [{"state","value","subject","words"}], the worst first */
    char unknown[256];    /* why it was not looked at */
};

/* A row of the table: what is looked at, from where to where it is fine, what to do when it is not.
 */
struct doctor_look {
    const char *name;
    const char *file; /* of sql/; or NULL and … */
    void (*take)(struct doctor *doctor, struct doctor_finding *finding);
    enum doctor_unit unit;
    bool at_least;        /* the limits are the least that is fine; else they are too much */
    double watch, person; /* NAN = none */
    const char *todo;
    const char *needs; /* when it cannot be looked at; may be NULL */
};

/* Adds a row, judged by the look's limits. subject may be NULL. */
void doctor_add(struct doctor_finding *finding, double value, const char *subject,
                const char *words);
void doctor_not_known(struct doctor_finding *finding, const char *why);

/* The gateway's /metrics into *first, then, LOOK_MS later, into *second. */
void doctor_ask_gateway(struct doctor *doctor);
void doctor_ask_gateway_again(struct doctor *doctor);

/* Looks at the gateway, the spool, the disks. */
void doctor_take_gateway(struct doctor *doctor, struct doctor_finding *finding);
void doctor_take_lanes(struct doctor *doctor, struct doctor_finding *finding);
void doctor_take_waiting(struct doctor *doctor, struct doctor_finding *finding);
void doctor_take_answers(struct doctor *doctor, struct doctor_finding *finding);
void doctor_take_drift(struct doctor *doctor, struct doctor_finding *finding);
void doctor_take_slow(struct doctor *doctor, struct doctor_finding *finding);
void doctor_take_deadlocks(struct doctor *doctor, struct doctor_finding *finding);
void doctor_take_spool_size(struct doctor *doctor, struct doctor_finding *finding);
void doctor_take_spool_age(struct doctor *doctor, struct doctor_finding *finding);
void doctor_take_spool_lost(struct doctor *doctor, struct doctor_finding *finding);
void doctor_take_disks(struct doctor *doctor, struct doctor_finding *finding);

/* Prints all findings to stdout, as text for people or as one JSON object. Returns the worst state;
 * what could not be looked at counts as fine. */
enum doctor_state doctor_report(const struct doctor *doctor, const struct doctor_finding *findings,
                                size_t count, bool json);

#endif
