/* SPDX-License-Identifier: Apache-2.0 */
/* Hex, base64 and UUID text (base/encode.h). Decoders accept exactly one text for each value. */
#include "base/encode.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const char HEX_DIGITS[] = "0123456789abcdef";
static const char BASE64_SYMBOLS[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char BASE64URL_SYMBOLS[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void hex_encode(const void *bytes, size_t len, char *out)
{
    const uint8_t *in = bytes;
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = HEX_DIGITS[in[i] >> 4];
        out[2 * i + 1] = HEX_DIGITS[in[i] & 15];
    }
}

static int hex_digit(char c, bool any_case)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (any_case && c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool hex_decode(struct oh_slice text, bool any_case, uint8_t *out, size_t out_size, size_t *out_len)
{
    if (text.len % 2 != 0 || text.len / 2 > out_size)
        return false;
    for (size_t i = 0; i < text.len / 2; i++) {
        int high = hex_digit(text.data[2 * i], any_case);
        int low = hex_digit(text.data[2 * i + 1], any_case);
        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    *out_len = text.len / 2;
    return true;
}

/* Writes the symbols of `len` bytes, without padding; returns how many. */
static size_t encode_symbols(const uint8_t *in, size_t len, const char *symbols, char *out)
{
    size_t n = 0;
    uint32_t bits = 0;
    unsigned held = 0; /* bits not yet written */
    for (size_t i = 0; i < len; i++) {
        bits = bits << 8 | in[i];
        held += 8;
        while (held >= 6) {
            held -= 6;
            out[n++] = symbols[bits >> held & 63];
        }
    }
    if (held > 0)
        out[n++] = symbols[bits << (6 - held) & 63];
    return n;
}

size_t base64_encode(const void *bytes, size_t len, char *out)
{
    size_t n = encode_symbols(bytes, len, BASE64_SYMBOLS, out);
    while (n % 4 != 0)
        out[n++] = '=';
    return n;
}

size_t base64url_encode(const void *bytes, size_t len, char *out)
{
    return encode_symbols(bytes, len, BASE64URL_SYMBOLS, out);
}

static int base64_symbol(char c, bool url)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == (url ? '-' : '+'))
        return 62;
    if (c == (url ? '_' : '/'))
        return 63;
    return -1;
}

/* The number of symbols before the padding; false when the padding is not what `flags` allow. */
static bool strip_padding(struct oh_slice text, unsigned flags, size_t *symbols)
{
    size_t n = text.len;
    while (n > 0 && text.len - n < 2 && text.data[n - 1] == '=')
        n--;
    if (n % 4 == 1)
        return false;
    size_t wanted = (4 - n % 4) % 4, found = text.len - n;
    *symbols = n;
    return found == wanted || (found == 0 && (flags & BASE64_PADDING_OPTIONAL));
}

bool base64_decode(struct oh_slice text, unsigned flags, uint8_t *out, size_t out_size,
                   size_t *out_len)
{
    size_t symbols, n = 0;
    if (!strip_padding(text, flags, &symbols))
        return false;
    uint32_t bits = 0;
    unsigned held = 0;
    for (size_t i = 0; i < symbols; i++) {
        int value = base64_symbol(text.data[i], flags & BASE64_URL);
        if (value < 0)
            return false;
        bits = bits << 6 | (uint32_t)value;
        held += 6;
        if (held >= 8) {
            held -= 8;
            if (n == out_size)
                return false;
            out[n++] = (uint8_t)(bits >> held);
        }
    }
    /* Bits that no byte takes must be zero, or two texts would mean the same bytes. */
    if (bits & ((1u << held) - 1))
        return false;
    *out_len = n;
    return true;
}

/* Where the hyphens of a UUID stand. */
static bool uuid_hyphen_at(size_t i)
{
    return i == 8 || i == 13 || i == 18 || i == 23;
}

bool uuid_parse(struct oh_slice text, uint8_t out[16])
{
    if (text.len != 36)
        return false;
    size_t n = 0;
    for (size_t i = 0; i < 36;) {
        if (uuid_hyphen_at(i)) {
            if (text.data[i++] != '-')
                return false;
            continue;
        }
        int high = hex_digit(text.data[i], true), low = hex_digit(text.data[i + 1], true);
        if (high < 0 || low < 0)
            return false;
        out[n++] = (uint8_t)(high << 4 | low);
        i += 2;
    }
    return true;
}

void uuid_format(const uint8_t uuid[16], char out[36])
{
    size_t at = 0;
    for (size_t i = 0; i < 16; i++) {
        if (uuid_hyphen_at(at))
            out[at++] = '-';
        out[at++] = HEX_DIGITS[uuid[i] >> 4];
        out[at++] = HEX_DIGITS[uuid[i] & 15];
    }
}

void uuid_random(uint8_t out[16])
{
    /* getrandom gives up to 256 bytes at once and uninterrupted: 16 UUIDs a system call. */
    static _Thread_local uint8_t pool[256];
    static _Thread_local size_t left;
    if (left == 0) {
        if (getrandom(pool, sizeof(pool), 0) != (ssize_t)sizeof(pool))
            abort(); /* only before the kernel's pool is seeded or with a broken libc */
        left = sizeof(pool);
    }
    left -= 16;
    memcpy(out, pool + left, 16);
    out[6] = (uint8_t)((out[6] & 0x0f) | 0x40);
    out[8] = (uint8_t)((out[8] & 0x3f) | 0x80);
}
