/* SPDX-License-Identifier: Apache-2.0 */
/* Signing as the provider would: the inverse of oncehook/verify.h, for `send`, the demo, the
 * benchmark and tests. Pure: no I/O, no clock. */
#ifndef ONCEHOOK_SIGN_H
#define ONCEHOOK_SIGN_H

#include "oncehook/verify.h"

/* A key to sign with: the secret itself for MACs, a PEM private key for ECDSA, RSA, Ed25519. */
struct oh_signer;

/* *out belongs to the caller: oh_signer_free(). `recipe` must outlive it. Errors: OH_INVALID when
 * the key does not fit the recipe; *err never repeats it. */
enum oh_status oh_signer_new(const struct oh_recipe *recipe, struct oh_slice key,
                             struct oh_signer **out, struct oh_error *err) OH_MUST_CHECK;
void oh_signer_free(struct oh_signer *signer);

/* Most headers that a signature of any recipe adds. */
#define OH_SIGN_HEADERS_MAX 8

/* Signs `request` (method, url, headers and body as they will be sent) at now_ms (unix time in
 * milliseconds): fills headers[] with up to OH_SIGN_HEADERS_MAX lines to add and *count with their
 * number; their bytes live in `arena`. Thread: any, one signer may serve several threads. */
enum oh_status oh_sign(const struct oh_signer *signer, const struct oh_request *request,
                       int64_t now_ms, struct oh_arena *arena,
                       struct oh_header headers[OH_SIGN_HEADERS_MAX], size_t *count,
                       struct oh_error *err) OH_MUST_CHECK;

#endif
