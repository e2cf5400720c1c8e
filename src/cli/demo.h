/* SPDX-License-Identifier: Apache-2.0 */
/* The demo of `oncehook dev --demo`: a campaign in PostgreSQL, then real signed deliveries over
 * HTTPS as providers send them, good ones and bad ones, and a report in which every number is
 * checked against what was sent and against count(*) of the rows. */
#ifndef CLI_DEMO_H
#define CLI_DEMO_H

#include <stdbool.h>

/* A gateway that serves; all strings belong to the caller. */
struct demo_options {
    const char *config;    /* the configuration that the gateway runs with: sources and secrets */
    const char *https_url; /* "https://localhost:8443", without a slash at its end */
    const char *admin_url; /* "http://127.0.0.1:9090", likewise */
    const char *ca;        /* PEM file that the gateway's certificate is checked against */
    const char *owner_url; /* PostgreSQL as the owner of the schema */
    const char *directory; /* of `dev`: private halves are DIRECTORY/keys/SOURCE.pem */
    bool once;             /* everything stops when the demo ends: what to look at needs a start */
};

/* Runs the demo and prints its report to stdout. Can be run again on the same database: events get
 * fresh ids, and counters are compared as differences. Returns an exit code of cli/cli.h: CLI_NO
 * when any number was not as expected (said in words), CLI_USAGE when it could not run. */
int demo_run(const struct demo_options *options);

#endif
