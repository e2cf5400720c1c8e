/* SPDX-License-Identifier: Apache-2.0 */
/* Counting framing lines in a raw request head. See head.h. */
#include "http/head.h"

#include <string.h>
#include <strings.h>

/* True if `line` is a field line of this name. */
static bool is_field(const char *line, size_t len, const char *name)
{
    size_t name_len = strlen(name);
    return len > name_len && line[name_len] == ':' && strncasecmp(line, name, name_len) == 0;
}

bool head_is_unambiguous(const char *bytes, size_t len)
{
    unsigned framing_lines = 0;
    bool is_first = true;
    while (len > 0) {
        const char *end = memchr(bytes, '\n', len);
        size_t line_len = end ? (size_t)(end - bytes) : len;
        size_t text_len = line_len > 0 && bytes[line_len - 1] == '\r' ? line_len - 1 : line_len;
        if (text_len == 0 && !is_first)
            break; /* the empty line that ends the head */
        if (!is_first && (bytes[0] == ' ' || bytes[0] == '\t'))
            return false; /* obs-fold */
        framing_lines += is_field(bytes, text_len, "content-length") ||
                         is_field(bytes, text_len, "transfer-encoding");
        if (text_len > 0)
            is_first = false; /* empty lines before the request line are allowed */
        size_t step = end ? line_len + 1 : line_len;
        bytes += step;
        len -= step;
    }
    return framing_lines <= 1;
}
