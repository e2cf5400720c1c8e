/* SPDX-License-Identifier: Apache-2.0 */
/* Hex, base64 and UUID text, strictly: nothing is skipped, nothing is guessed. */
#ifndef BASE_ENCODE_H
#define BASE_ENCODE_H

#include "oncehook/types.h"

#include <stdbool.h>

/* Bytes that encoding `len` bytes takes, without a NUL. */
#define HEX_BYTES(len)    ((len)*2)
#define BASE64_BYTES(len) ((((len) + 2) / 3) * 4)

/* Lower-case hex of `len` bytes to out[HEX_BYTES(len)]; no NUL is written. */
void hex_encode(const void *bytes, size_t len, char *out);

/* Decodes hex (`any_case`: else lower-case only) to out[], *out_len = bytes written. False when the
 * text is odd, holds another symbol or needs more than out_size bytes. */
bool hex_decode(struct oh_slice text, bool any_case, uint8_t *out, size_t out_size,
                size_t *out_len);

/* Standard (RFC 4648) base64 with padding to out[BASE64_BYTES(len)]; no NUL. Returns the length. */
size_t base64_encode(const void *bytes, size_t len, char *out);

/* Unpadded base64url likewise. */
size_t base64url_encode(const void *bytes, size_t len, char *out);

enum base64_flags {
    BASE64_URL = 1,              /* '-' and '_' instead of '+' and '/' */
    BASE64_PADDING_OPTIONAL = 2, /* "=" at the end may be left out */
};

/* Decodes canonical base64 only: white space, missing padding (unless optional) and discarded bits
 * that are not zero are refused, since two texts must never mean the same signature. */
bool base64_decode(struct oh_slice text, unsigned flags, uint8_t *out, size_t out_size,
                   size_t *out_len);

/* A UUID in its usual form (8-4-4-4-12 hex, any case) to 16 bytes; false for anything else. */
bool uuid_parse(struct oh_slice text, uint8_t out[16]);

/* 16 bytes to 36 characters, lower-case, no NUL. */
void uuid_format(const uint8_t uuid[16], char out[36]);

/* A random (version 4) UUID from the kernel's generator, buffered per thread. Thread: any. */
void uuid_random(uint8_t out[16]);

#endif
