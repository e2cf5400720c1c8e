/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 as RFC 3629 has it. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include "oncehook/types.h"

/* Length of the character at s[0..left), left >= 1: no overlong forms, no surrogates, nothing
 * beyond U+10FFFF. 0 = the bytes are none. */
static inline size_t utf8_length(const char *s, size_t left)
{
    const unsigned char *u = (const unsigned char *)s;
    if (u[0] < 0x80)
        return 1;
    size_t n = u[0] >= 0xf0 ? 4 : u[0] >= 0xe0 ? 3 : 2;
    if (u[0] < 0xc2 || u[0] > 0xf4 || n > left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((u[i] & 0xc0) != 0x80)
            return 0;
    if ((u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xf0 && u[1] < 0x90)) /* overlong */
        return 0;
    if ((u[0] == 0xed && u[1] > 0x9f) || (u[0] == 0xf4 && u[1] > 0x8f)) /* surrogate, too high */
        return 0;
    return n;
}

#endif
