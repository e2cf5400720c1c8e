/* SPDX-License-Identifier: Apache-2.0 */
/* body/text.h: one pass over the bytes each, no tables, no locale. */
#include "body/text.h"

#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

/* The first byte at or after `at` that is not ASCII, or `end`. Eight bytes a step: nearly all of
 * what providers send is ASCII. */
static const char *skip_ascii(const char *at, const char *end)
{
    uint64_t eight;
    while ((size_t)(end - at) >= sizeof(eight)) {
        memcpy(&eight, at, sizeof(eight));
        if (eight & UINT64_C(0x8080808080808080))
            break;
        at += sizeof(eight);
    }
    while (at < end && (unsigned char)*at < 0x80)
        at++;
    return at;
}

bool text_is_utf8(struct oh_slice text)
{
    if (text.len == 0)
        return true;
    const char *at = text.data, *end = at + text.len;
    while ((at = skip_ascii(at, end)) < end) {
        size_t length = utf8_length(at, (size_t)(end - at));
        if (length == 0)
            return false;
        at += length;
    }
    return true;
}

bool text_is_storable(struct oh_slice text)
{
    return text_is_utf8(text) && (text.len == 0 || !memchr(text.data, 0, text.len));
}

struct oh_slice text_cut(struct oh_slice text, size_t max)
{
    if (text.len <= max)
        return text;
    size_t len = max;
    while (len > 0 && ((unsigned char)text.data[len] & 0xc0) == 0x80)
        len--;
    return (struct oh_slice){text.data, len};
}

/* The four hex digits after "\u"; the parser has checked that they are there. */
static unsigned hex4(const char *at)
{
    unsigned value = 0;
    for (int i = 0; i < 4; i++) {
        unsigned char c = (unsigned char)at[i];
        value = value << 4 | (c <= '9' ? c - 0x30u : (c | 0x20u) - 'a' + 10u);
    }
    return value & 0xffff;
}

bool text_jsonb_takes_string(struct oh_slice inside)
{
    if (!text_is_utf8(inside))
        return false;
    if (inside.len == 0)
        return true;
    const char *at = inside.data, *end = at + inside.len;
    while ((at = memchr(at, '\\', (size_t)(end - at))) != NULL && end - at >= 2) {
        if (at[1] != 'u' || end - at < 6) {
            at += 2;
            continue;
        }
        unsigned unit = hex4(at + 2);
        at += 6;
        if (unit == 0 || (unit >= 0xdc00 && unit <= 0xdfff))
            return false;
        if (unit < 0xd800 || unit > 0xdbff)
            continue;
        /* The first half of a pair: the other must follow at once. */
        if (end - at < 6 || at[0] != '\\' || at[1] != 'u')
            return false;
        unit = hex4(at + 2);
        if (unit < 0xdc00 || unit > 0xdfff)
            return false;
        at += 6;
    }
    return true;
}

bool text_jsonb_takes_number(struct oh_slice number)
{
    size_t i = 0;
    while (i < number.len && number.data[i] != 'e' && number.data[i] != 'E')
        i++;
    if (i > TEXT_NUMBER_DIGITS_MAX)
        return false;
    if (i == number.len)
        return true;
    i++;
    if (i < number.len && (number.data[i] == '-' || number.data[i] == '+'))
        i++;
    int exponent = 0;
    for (; i < number.len && exponent <= TEXT_NUMBER_EXPONENT_MAX; i++)
        exponent = exponent * 10 + (number.data[i] - '0');
    return exponent <= TEXT_NUMBER_EXPONENT_MAX;
}
