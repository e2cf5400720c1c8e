/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any bytes as the head of a request. What stands behind the head changes nothing. */
#include "fuzz_support.h"

#include "http/head.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = malloc(size + 1); /* of its very size, so that a byte too far is seen */
    demand(copy != NULL, "memory");
    if (size > 0)
        memcpy(copy, data, size);
    bool one_way = head_is_unambiguous(copy, size);
    const char *end = size > 0 ? memmem(copy, size, "\r\n\r\n", 4) : NULL;
    if (end)
        demand(one_way == head_is_unambiguous(copy, (size_t)(end + 4 - copy)),
               "what stands behind");
    free(copy);
    return 0;
}
