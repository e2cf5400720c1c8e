/* SPDX-License-Identifier: Apache-2.0 */
/* The private PostgreSQL of `oncehook dev`: made once, durable, never run as root, started or taken
 * over, watched, stopped. It listens on 127.0.0.1 for passwords (SCRAM) and on a socket in a
 * directory that only its own user and root can enter.
 *
 * D/postgres (or what it links to) holds: data (the cluster), run (the socket), log. */
#ifndef CLI_DEV_POSTGRES_H
#define CLI_DEV_POSTGRES_H

#include "cli/dev_exec.h"

#include <limits.h>

struct dev_postgres {
    struct dev_user user;
    char base[PATH_MAX];     /* D/postgres, links resolved */
    char data[PATH_MAX];     /* PGDATA */
    char binaries[PATH_MAX]; /* the directory with pg_ctl */
    int port;
    int pidfd; /* readable when the server has ended; -1 = it does not run */
};

/* Finds or makes the cluster that belongs to `directory` (absolute, links resolved). Says on stderr
 * what takes time. Errors: OH_SYSTEM, OH_INVALID. */
enum oh_status dev_postgres_prepare(struct dev_postgres *pg, const char *directory,
                                    struct oh_error *err) OH_MUST_CHECK;

/* Starts the server, or takes over the one that runs on this cluster; may_move: take another port
 * when the last one is not free. Returns when it answers. Errors: OH_SYSTEM. */
enum oh_status dev_postgres_start(struct dev_postgres *pg, bool may_move,
                                  struct oh_error *err) OH_MUST_CHECK;

/* Makes what is missing of the roles oncehook_owner and oncehook_gateway and of the owner's
 * database `oncehook`, and sets both passwords. */
enum oh_status dev_postgres_set_up(const struct dev_postgres *pg, const char *owner_password,
                                   const char *gateway_password,
                                   struct oh_error *err) OH_MUST_CHECK;

/* True if the server was shut down in order, which nobody does by accident: it stays down then. */
bool dev_postgres_was_shut_down(const struct dev_postgres *pg);

/* Stops the server if it runs. */
enum oh_status dev_postgres_stop(struct dev_postgres *pg, struct oh_error *err) OH_MUST_CHECK;

/* A TCP port of 127.0.0.1 that is free now; 0 when none was found. */
int dev_free_port(void);

/* True if `port` of 127.0.0.1 can be bound. */
bool dev_port_is_free(int port);

#endif
