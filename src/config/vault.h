/* SPDX-License-Identifier: Apache-2.0 */
/* The secrets that are in use. A set of them is immutable; a reload, or a secret that a handshake
 * brought, makes a new one, which readers pick up by themselves. The old one is freed when its last
 * reader has moved on. When a secret last matched goes over to the new set with it.
 *
 * The sources are those of the start: their recipes and numbers never change. */
#ifndef CONFIG_VAULT_H
#define CONFIG_VAULT_H

#include "config/config.h"

#include <stdatomic.h>

/* Most secrets of one source that handshakes may bring. */
enum { VAULT_LEARNED_MAX = 32 };
#define VAULT_LEARNED_MAX_TEXT "32"

/* What became of a secret that a handshake brought (upkeep/learner.h). */
enum vault_lesson {
    VAULT_LESSON_WAITS,
    VAULT_LESSON_KEPT,    /* known to be committed, and in use */
    VAULT_LESSON_REFUSED, /* the source has VAULT_LEARNED_MAX */
    VAULT_LESSON_FAILED   /* not known to be kept */
};

struct vault;

struct vault_secret {
    struct config_terms terms; /* a learned one's name is learned-ID */
    struct secret text;
    bool is_learned;
    _Atomic int64_t matched_s; /* unix time; 0 = not since the start */
};

/* What verification of one source needs. */
struct vault_door {
    struct oh_keyring *keyring;
    struct vault_secret *secrets; /* in the order of the ring */
    size_t secret_count;
    char *verify_token, *public_key; /* NULL = not given */
    int64_t arm_until_ms;            /* 0 = never */
};

struct vault_set {
    uint32_t users;            /* the vault's own */
    struct vault_door doors[]; /* by the source's number */
};

/* A secret that a handshake brought, as the database has it. */
struct vault_learned {
    int64_t id;
    const char *source;
    struct oh_slice secret;
};

/* A provider's certificate, PEM, and where it is from. */
struct vault_certificate {
    const char *url, *pem;
};

/* The secrets that `config` has; it must outlive the vault. Errors: OH_NO_MEMORY, OH_INVALID. */
enum oh_status vault_new(const struct config *config, struct vault **out,
                         struct oh_error *err) OH_MUST_CHECK;
void vault_free(struct vault *vault);

/* The set in use now; the caller holds it, and no longer `held` (may be NULL), which costs nothing
 * while both are the same. Give it back with vault_leave(). Thread: any. */
const struct vault_set *vault_get(struct vault *vault, const struct vault_set *held);
void vault_leave(struct vault *vault, const struct vault_set *held);

/* Notes that secret `index` of the door signed a request at that time. Thread: any. */
void vault_note_match(const struct vault_door *door, int index, int64_t unix_s);

/* The first secret that is taken at this moment; data NULL: none is. */
struct oh_slice vault_secret_at(const struct vault_door *door, int64_t now_ms);

/* Takes secrets, tokens and arming of the sources that `fresh` still has, with the same provider
 * and scheme; what handshakes brought stays. On an error everything stays as it was. Thread: any,
 * each waits for the others. */
enum oh_status vault_reload(struct vault *vault, const struct config *fresh,
                            struct oh_error *err) OH_MUST_CHECK;

/* Takes these as all that handshakes brought, oldest first; *changed: they are others than before.
 * One that is no key of its source's scheme is left out. Likewise. */
enum oh_status vault_learn(struct vault *vault, const struct vault_learned *learned, size_t count,
                           bool *changed, struct oh_error *err) OH_MUST_CHECK;

/* Takes copies of these as all certificates that there are, for every source whose requests name
 * one. One that cannot be used is left out. Likewise. */
enum oh_status vault_certify(struct vault *vault, const struct vault_certificate *list,
                             size_t count, struct oh_error *err) OH_MUST_CHECK;

/* A line of the metrics page for each secret: METRIC{source="…",secret="NAME"} UNIX_S. context:
 * struct vault. Thread: any. */
void vault_print_matches(void *context, FILE *page, const char *metric);

#endif
