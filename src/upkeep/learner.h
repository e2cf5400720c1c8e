/* SPDX-License-Identifier: Apache-2.0 */
/* Secrets that handshakes bring: kept in the database before the provider hears 200, and read from
 * it by every gateway. A thread and a connection of their own, since a provider waits meanwhile.
 * Nothing runs where no source's handshake brings one. */
#ifndef UPKEEP_LEARNER_H
#define UPKEEP_LEARNER_H

#include "config/vault.h"

struct learner;

/* Reads what is known into the vault, at once and again as long as that fails, then every 30 s.
 * config and vault must outlive it. *out = NULL: not needed; the other calls take that. Errors:
 * OH_NO_MEMORY, OH_SYSTEM. */
enum oh_status learner_start(const struct config *config, struct vault *vault, struct learner **out,
                             struct oh_error *err) OH_MUST_CHECK;

/* Has a copy of `secret` kept. *lesson is VAULT_LESSON_WAITS when this returns true, and becomes
 * another one exactly once; it must live until then. False: too many wait. Never blocks. Thread:
 * any. */
bool learner_keep(struct learner *learner, const struct config_source *source,
                  struct oh_slice secret, _Atomic int *lesson) OH_MUST_CHECK;

/* Reads again, soon and not more than once a second: another gateway may have learned. Never
 * blocks. Thread: any. */
void learner_look(struct learner *learner);

/* Ends the thread: what still waits becomes VAULT_LESSON_FAILED, and learner_keep() is false from
 * now on. Others may go on calling until learner_free(). */
void learner_stop(struct learner *learner);
void learner_free(struct learner *learner);

#endif
