/* SPDX-License-Identifier: Apache-2.0 */
/* Changing a configuration that somebody wrote, for `oncehook dev`. Nothing is written to disk
 * here: each function gives the new text. `${VAR}` stays as it is. Values may be secrets; the
 * caller wipes. */
#ifndef CONFIG_EDIT_H
#define CONFIG_EDIT_H

#include "config/config.h"

/* One value: its keys from the root with '/' between them ("listen/tls/key"), and its text. path
 * NULL ends a list. */
struct config_setting {
    const char *path;
    const char *value;
    bool is_yaml; /* `value` is YAML such as a list; else plain text, without control characters */
};

/* Replaces one scalar (by text) of the file at `path` and leaves every other byte alone. *out
 * belongs to the caller: free(); it stays NULL when the scalar stands there already, or when
 * nothing stands there. Errors: OH_INVALID with *mistakes filled (config_mistakes_free()),
 * OH_NO_MEMORY. */
enum oh_status config_replace(const char *path, const struct config_setting *setting, char **out,
                              struct config_mistakes *mistakes) OH_MUST_CHECK;

/* A copy of the file at `path` without the keys `dropped` (NULL-terminated, of the root) and with
 * `settings`, for a place in another directory: `secrets: [{file: PATH}]` become absolute. *out and
 * errors as above; comments are lost. */
enum oh_status config_derive(const char *path, const char *const dropped[],
                             const struct config_setting *settings, char **out,
                             struct config_mistakes *mistakes) OH_MUST_CHECK;

#endif
