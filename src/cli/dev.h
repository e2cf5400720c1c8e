/* SPDX-License-Identifier: Apache-2.0 */
/* One `oncehook dev`: what it was asked, where everything is, and what runs. dev.c gets it up,
 * dev_run.c keeps it up and brings it down. */
#ifndef CLI_DEV_H
#define CLI_DEV_H

#include "cli/dev_files.h"
#include "cli/dev_postgres.h"

/* The ports in the order of ports[]. */
enum port { PORT_HTTPS, PORT_HTTP, PORT_ADMIN, PORT_COUNT };

struct dev {
    /* as asked */
    const char *dir, *file;
    int wanted_ports[PORT_COUNT];
    bool demo, once;
    /* D and what is in it */
    char directory[PATH_MAX];
    char config_path[PATH_MAX]; /* what the gateway runs with */
    char log_path[PATH_MAX], env_path[PATH_MAX], certificate[PATH_MAX], key[PATH_MAX],
        spool[PATH_MAX];
    struct dev_secrets secrets;
    struct dev_postgres postgres;
    int ports[PORT_COUNT];
    char owner_url[256], gateway_url[256], https_url[64], http_url[64], admin_url[64];
    char admin_token[4097], schema[64];
    /* while it runs */
    int lock_fd, signal_fd, gateway_out_fd; /* -1 = none */
    pid_t gateway, demo_pid;                /* 0 = not running */
    char line[256];                         /* of the gateway's stdout, as far as it came */
    size_t line_len;
    off_t log_start; /* where this gateway's log begins */
    bool is_ready, leaving, gateway_was_killed;
    int exit_code;
    int64_t postgres_since_us, postgres_retry_us; /* 0 = no retry is due */
    int64_t back_off_ms;
};

/* One line on stderr, for a person. */
void dev_say(const char *format, ...) OH_PRINTF(1, 2);

/* Chooses dev->ports as wanted, where 0 any that is free. Errors: OH_INVALID, OH_SYSTEM. */
enum oh_status dev_choose_ports(struct dev *dev, struct oh_error *err) OH_MUST_CHECK;

/* Puts ports and database into D/oncehook.yaml, or makes D/gateway.yaml of the FILE of -c, and
 * reads it as the gateway will. Mistakes go to stderr. */
enum oh_status dev_configure(struct dev *dev, struct oh_error *err) OH_MUST_CHECK;

/* Takes signals and orphans in hand; call it before anything is started. */
void dev_run_open(struct dev *dev);

/* Starts the gateway; its `ready` and its end are handled in dev_run(). */
enum oh_status dev_run_gateway(struct dev *dev, struct oh_error *err) OH_MUST_CHECK;

/* Serves until there is a reason to leave; dev->exit_code is the verdict. */
void dev_run(struct dev *dev);

/* Ends the demo, the gateway (which drains) and PostgreSQL, as far as they run. */
void dev_stop(struct dev *dev);

/* Notes that dev leaves, and its exit code unless that is decided already. */
void dev_leave(struct dev *dev, int exit_code);

#endif
