/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of http/head: a request that frames its body in two ways is noticed, an honest one
 * never. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "http/head.h"

#include <stdlib.h>
#include <string.h>

struct row {
    const char *head;
    bool is_unambiguous;
};

static const struct row rows[] = {
    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", true},
    {"GET / HTTP/1.1\r\n\r\n", true},
    {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true},
    {"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", false},
    {"POST / HTTP/1.1\r\ncontent-length: 5\r\nCONTENT-LENGTH: 5\r\n\r\n", false},
    {"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", false},
    {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", false},
    {"POST / HTTP/1.1\r\nX-A: 1\r\n folded\r\n\r\n", false},
    {"POST / HTTP/1.1\r\nX-A: 1\r\n\tfolded\r\n\r\n", false},
    {"POST / HTTP/1.1\nContent-Length: 5\nContent-Length: 5\n\n", false},
    /* What looks like a second framing line but stands in the body, or in the next request. */
    {"POST / HTTP/1.1\r\nContent-Length: 40\r\n\r\nContent-Length: 5\r\nTransfer-Encoding: x",
     true},
    {"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx",
     true},
    {"\r\nPOST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", true},
    {"\r\nPOST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", false},
    {"POST / HTTP/1.1\r\nX-Content-Length: 5\r\nContent-Length: 5\r\n\r\n", true},
    {"POST / HTTP/1.1\r\nContent-Length-X: 5\r\nContent-Length: 5\r\n\r\n", true},
    {"", true},
    {"POST", true},
};

static void head_is_unambiguous_tells_two_framings_from_one(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t len = strlen(rows[i].head);
        char *exact =
            malloc(len + 1); /* exactly as long, so that a sanitizer sees one byte too far */
        memcpy(exact, rows[i].head, len);
        if (head_is_unambiguous(exact, len) != rows[i].is_unambiguous)
            fail_msg("row %zu: %s", i, rows[i].head);
        free(exact);
    }
}

static void head_is_unambiguous_takes_every_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (size_t len = 0; len <= strlen(rows[i].head); len++) {
            char *exact = malloc(len ? len : 1);
            memcpy(exact, rows[i].head, len);
            (void)head_is_unambiguous(exact, len);
            free(exact);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(head_is_unambiguous_tells_two_framings_from_one),
        cmocka_unit_test(head_is_unambiguous_takes_every_cut),
    };
    return cmocka_run_group_tests_name("head", tests, NULL, NULL);
}
