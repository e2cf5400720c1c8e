/* SPDX-License-Identifier: Apache-2.0 */
/* When an event happened, from whatever text the provider has for it. */
#ifndef BODY_TIME_H
#define BODY_TIME_H

#include "recipe/recipe.h"

/* Unix microseconds of `text`: a JSON number's exact text (sign, fraction and exponent allowed), or
 * ISO 8601 / RFC 3339 (YYYY-MM-DD, then optionally 'T' or a space, HH:MM[:SS[.fraction]] and Z,
 * UTC, GMT, +HH, +HHMM or +HH:MM; no zone means UTC), or a date of HTTP and mail ("Tue, 14 Apr 2026
 * 03:50:12 GMT"). What the text looks like decides; `unit` is only the scale of a number. False
 * when it is none of them, or does not fit. */
bool time_parse(struct oh_slice text, enum recipe_time_unit unit, int64_t *unix_us);

/* The moment to store: unix_us, or now_us where that is before 2000-01-01 or more than 24 hours
 * after now_us. */
int64_t time_within_window(int64_t unix_us, int64_t now_us);

#define TIME_ISO_BYTES 24

/* Writes the moment as RFC 3339 in UTC with milliseconds ("2025-12-17T19:33:20.000Z"), no NUL; from
 * 0000 to 9999. */
void time_format(int64_t unix_ms, char out[TIME_ISO_BYTES]);

#endif
