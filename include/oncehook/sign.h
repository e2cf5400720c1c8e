/* SPDX-License-Identifier: Apache-2.0 */
/* Signing as the provider would: the inverse of oncehook/verify.h, for `send`, the demo, the
 * benchmark and tests. Pure: no I/O, no clock. */
#ifndef ONCEHOOK_SIGN_H
#define ONCEHOOK_SIGN_H

#include "oncehook/verify.h"

/* A key to sign with: the secret itself for MACs and tokens, a PEM private key for ECDSA, RSA,
 * Ed25519 and JWTs that are signed with one. Where a certificate signs (SNS, PayPal), what the
 * source has as its secret stands on a line before the PEM. */
struct oh_signer;

/* *out belongs to the caller: oh_signer_free(). `recipe` must outlive it. Errors: OH_INVALID when
 * the key does not fit the recipe; *err never repeats it. */
enum oh_status oh_signer_new(const struct oh_recipe *recipe, struct oh_slice key,
                             struct oh_signer **out, struct oh_error *err) OH_MUST_CHECK;
void oh_signer_free(struct oh_signer *signer);

/* Most headers that a signature of any recipe adds. */
#define OH_SIGN_HEADERS_MAX 8

/* What has to be sent; all of it lives in the arena, the request, the recipe or the signer. */
struct oh_signed {
    struct oh_header headers[OH_SIGN_HEADERS_MAX]; /* to be added to the request's own */
    size_t count;
    struct oh_slice url;  /* the request's, or with the token of a scheme that puts it there */
    struct oh_slice body; /* the request's, or with the signature of a scheme that puts it there */
};

/* Signs `request` (method, url, headers and body as they will be sent) at now_ms (unix time in
 * milliseconds). Fields that a scheme wants and the request lacks are added with values of their
 * own: ids, nonces, the certificate's URL. Errors: OH_INVALID (the body has no place for the
 * signature), OH_SYSTEM, OH_NO_MEMORY. Thread: any, one signer may serve several threads. */
enum oh_status oh_sign(const struct oh_signer *signer, const struct oh_request *request,
                       int64_t now_ms, struct oh_arena *arena, struct oh_signed *out,
                       struct oh_error *err) OH_MUST_CHECK;

/* A fresh secret or key pair as the provider would make it. */
struct oh_made_key {
    char shown[1024];        /* NUL-terminated: what stands in a source's `secrets` */
    char private_half[4096]; /* likewise: for oh_signer_new(); "" = `shown` signs too */
};

/* Errors: OH_SYSTEM. The caller wipes *out. */
enum oh_status oh_key_make(const struct oh_recipe *recipe, struct oh_made_key *out,
                           struct oh_error *err) OH_MUST_CHECK;

#endif
