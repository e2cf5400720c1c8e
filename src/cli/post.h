/* SPDX-License-Identifier: Apache-2.0 */
/* A delivery on its way to POST /in/SOURCE: signed as the provider would, spoilt on purpose, or
 * printed as the curl command that sends the same. For `send` and the demo. */
#ifndef CLI_POST_H
#define CLI_POST_H

#include "cli/client.h"
#include "cli/sample.h"
#include "config/config.h"

#include <stdio.h>

/* Reads a whole file of at most max_bytes; *out belongs to the caller: free(). The bytes end with a
 * NUL that *len does not count. Errors: OH_SYSTEM, OH_TOO_MANY, OH_NO_MEMORY. */
enum oh_status post_read_file(const char *path, size_t max_bytes, char **out, size_t *len,
                              struct oh_error *err) OH_MUST_CHECK;

/* The signer of `source`: its first secret, or where the scheme needs a private half, the PEM in
 * key_file (NULL: DIRECTORY/keys/NAME.pem). *out belongs to the caller: oh_signer_free().
 * Errors: OH_INVALID, OH_SYSTEM. */
enum oh_status post_open_signer(const struct config_source *source, const char *key_file,
                                const char *directory, struct oh_signer **out,
                                struct oh_error *err) OH_MUST_CHECK;

/* Adds the headers of the signature; signed_url: what the provider was given. */
enum oh_status post_sign(const struct oh_signer *signer, const char *signed_url, int64_t now_ms,
                         struct oh_arena *arena, struct sample_delivery *delivery,
                         struct oh_error *err) OH_MUST_CHECK;

/* Changes one byte of the body, which is copied; OH_INVALID for an empty one. */
enum oh_status post_tamper(struct oh_arena *arena, struct sample_delivery *delivery,
                           struct oh_error *err) OH_MUST_CHECK;

/* How far in the past a timestamp must be for the gateway to call it stale; -1: the scheme signs no
 * time. Seconds. */
int64_t post_stale_s(const struct config_source *source);

/* Prints one word for a POSIX shell, quoted where it must be. */
void post_print_word(FILE *to, const char *text);

/* Prints a shell command (POSIX quoting) that sends the delivery. ca NULL: the system's. */
void post_print_curl(FILE *to, const char *ca, const char *url,
                     const struct sample_delivery *delivery);

/* What the gateway said of one delivery: the numbers of its answer. */
struct post_outcome {
    uint64_t captured, duplicates, orphans, quarantined, spooled;
};

/* False when the body is not the contract's object (providers that demand their own words). */
bool post_read_outcome(struct oh_slice body, struct post_outcome *out);

#endif
