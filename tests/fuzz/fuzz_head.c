/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any bytes behind a request line as the head of a request. What stands behind the head
 * changes nothing. */
#include "fuzz_support.h"

#include "http/head.h"

#include <stdlib.h>

#define REQUEST_LINE "POST /in/a HTTP/1.1\r\n"

/* Bytes up to and with the empty line; 0 = there is none. */
static size_t head_end(const char *bytes, size_t len)
{
    for (size_t i = 1; i < len; i++) {
        size_t before = bytes[i - 1] == '\r' ? i - 1 : i; /* of "LF LF" or "LF CR LF" */
        if (bytes[i] == '\n' && before > 0 && bytes[before - 1] == '\n')
            return i + 1;
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t first = sizeof(REQUEST_LINE) - 1, len = first + size;
    char *copy = malloc(len); /* of its very size, so that a byte too far is seen */
    if (!copy)
        abort();
    memcpy(copy, REQUEST_LINE, first);
    if (size > 0)
        memcpy(copy + first, data, size);
    bool one_way = head_is_unambiguous(copy, len);
    size_t end = head_end(copy, len);
    if (end > 0)
        demand(one_way == head_is_unambiguous(copy, end), "what stands behind");
    free(copy);
    return 0;
}
