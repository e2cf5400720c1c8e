/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates that providers sign with (Amazon SNS, PayPal): their requests name one by URL. What
 * is not there is fetched by a thread of its own, never on the way of a request, and kept.
 * Nothing runs where no source's provider does so. docs/adr/0014-certificates.md says what is
 * trusted and why. */
#ifndef UPKEEP_CERTIFIER_H
#define UPKEEP_CERTIFIER_H

#include "config/vault.h"

struct certifier;

/* Puts the certificates of `certificates.directory` into the vault and starts the thread. config
 * and vault must outlive it. *out = NULL: not needed; the other calls take that. Call before other
 * threads run. Errors: OH_INVALID (a file that is no certificate, or one too many), OH_NO_MEMORY,
 * OH_SYSTEM. */
enum oh_status certifier_start(const struct config *config, struct vault *vault,
                               struct certifier **out, struct oh_error *err) OH_MUST_CHECK;

/* A request that may be right names this certificate (oh_verify_result.certificate_url), which the
 * vault does not have: true = it is being fetched, or will be; false = there is none. Never blocks.
 * Thread: any. */
bool certifier_want(struct certifier *certifier, const struct config_source *source,
                    struct oh_slice url) OH_MUST_CHECK;

/* A verified handshake wants this URL to be asked for (oh_handshake_answer.visit): it is, without
 * redirects, and again for a minute while the network fails. Never blocks. Thread: any. */
void certifier_visit(struct certifier *certifier, const struct config_source *source,
                     struct oh_slice url);

void certifier_stop(struct certifier *certifier);

#endif
