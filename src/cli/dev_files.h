/* SPDX-License-Identifier: Apache-2.0 */
/* The files that `oncehook dev` makes in its directory D, each only where it is missing:
 * certificate, private halves of keys, the configuration with a source for every recipe; and D/env,
 * new at each start. What holds a secret has mode 0600. */
#ifndef CLI_DEV_FILES_H
#define CLI_DEV_FILES_H

#include "oncehook/recipe.h"

#include <limits.h>
#include <sys/types.h>

enum { DEV_SECRET_BYTES = 24, DEV_SECRET_TEXT = DEV_SECRET_BYTES * 2 + 1 };

/* D/secrets: what outlives a run of dev. Texts are hex. */
struct dev_secrets {
    char owner_password[DEV_SECRET_TEXT];
    char gateway_password[DEV_SECRET_TEXT];
    char admin_token[DEV_SECRET_TEXT];
};

/* One line of D/env. */
struct dev_variable {
    const char *name; /* NULL ends a list */
    const char *value;
};

/* Writes the file as a whole or not at all (another name, then rename). */
enum oh_status dev_write_file(const char *path, mode_t mode, const char *text,
                              struct oh_error *err) OH_MUST_CHECK;

/* Makes `directory` with its parents; *out gets its absolute path without links. */
enum oh_status dev_make_directory(const char *directory, char out[PATH_MAX],
                                  struct oh_error *err) OH_MUST_CHECK;

/* Makes what is missing in D of: secrets, cert.pem and key.pem (openssl), keys/, spool/. */
enum oh_status dev_files_prepare(const char *directory, struct dev_secrets *secrets,
                                 struct oh_error *err) OH_MUST_CHECK;

/* Makes D/oncehook.yaml with a source for each recipe, D/keys/SOURCE.pem where one signs with a
 * private half, and certificates/ for those that sign with a certificate. Addresses and database
 * are left for dev_config_apply(). Not called when it exists.
 */
enum oh_status dev_files_make_config(const char *directory, const char *path,
                                     const struct dev_secrets *secrets,
                                     struct oh_error *err) OH_MUST_CHECK;

/* Writes D/env: NAME=VALUE lines for a shell, and one that exports them. */
enum oh_status dev_files_write_env(const char *path, const struct dev_variable *variables,
                                   struct oh_error *err) OH_MUST_CHECK;

#endif
