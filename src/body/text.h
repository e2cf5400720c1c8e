/* SPDX-License-Identifier: Apache-2.0 */
/* What PostgreSQL's text and jsonb can hold, decided on bytes before they get there. */
#ifndef BODY_TEXT_H
#define BODY_TEXT_H

#include "oncehook/types.h"

#include <stdbool.h>

/* Largest number that is given to jsonb, in significant characters and in decimal exponent. jsonb
 * takes far larger ones and writes them out in full ("1e131071" has 131,072 digits), so a few bytes
 * would be megabytes for every reader. Every IEEE double stays below. */
#define TEXT_NUMBER_DIGITS_MAX   400
#define TEXT_NUMBER_EXPONENT_MAX 400

/* UTF-8 as RFC 3629 and PostgreSQL have it: no overlong forms, no surrogates, nothing beyond
 * U+10FFFF. */
bool text_is_utf8(struct oh_slice text);

/* UTF-8 without NUL: what a PostgreSQL text can hold. */
bool text_is_storable(struct oh_slice text);

/* The longest prefix of valid UTF-8 `text` of at most `max` bytes that cuts no character. */
struct oh_slice text_cut(struct oh_slice text, size_t max);

/* The inside of a JSON string token, without its quotes, that a JSON parser has accepted: may jsonb
 * hold it? False for bad UTF-8, \u0000 and half a surrogate pair. */
bool text_jsonb_takes_string(struct oh_slice inside);

/* A JSON number token: is it within the limits above? */
bool text_jsonb_takes_number(struct oh_slice number);

#endif
