/* SPDX-License-Identifier: Apache-2.0 */
/* Running other programs for `oncehook dev`: as an unprivileged user where dev is root, with a
 * clean environment for PostgreSQL's tools, and never with a shell. */
#ifndef CLI_DEV_EXEC_H
#define CLI_DEV_EXEC_H

#include "oncehook/types.h"

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

/* Who PostgreSQL runs as: `postgres` where dev runs as root, else whoever runs dev. */
struct dev_user {
    bool drops_root; /* false: uid and gid are our own */
    uid_t uid;
    gid_t gid;
};

/* Errors: OH_SYSTEM when dev runs as root and there is no user `postgres`. */
enum oh_status dev_user_find(struct dev_user *user, struct oh_error *err) OH_MUST_CHECK;

/* DIRECTORY/NAME in `out`, which it returns. Directories are DEV_DIRECTORY_MAX bytes at most. */
enum { DEV_DIRECTORY_MAX = 3000 };
const char *dev_path(char out[PATH_MAX], const char *directory, const char *name);

/* What a program wrote; of long output the end. */
struct dev_output {
    char text[8192];
};

/* Runs argv (NULL-terminated, found through PATH) in `directory` to its end. user NULL: as we are.
 * output may be NULL. Errors: OH_SYSTEM when it cannot be run or gives anything but 0; *err then
 * holds the last line it wrote. */
enum oh_status dev_exec(const struct dev_user *user, const char *directory,
                        const char *const argv[], struct dev_output *output,
                        struct oh_error *err) OH_MUST_CHECK;

/* What a child of dev does first: signals unblocked, a process group of its own (Ctrl-C reaches dev
 * alone, which then ends its children in order), and `death_signal` when dev, pid `parent`, dies.
 */
void dev_child_begin(pid_t parent, int death_signal);

#endif
