/* SPDX-License-Identifier: Apache-2.0 */
/* Reading what a server answered: status, length, whether it closes, and the gateway's numbers. */
#ifndef BENCH_ANSWER_H
#define BENCH_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ANSWER_BYTES = 4096, ANSWER_STATUS_MAX = 600 };

struct answer {
    int status; /* < ANSWER_STATUS_MAX */
    size_t head_len;
    bool closes; /* "Connection: close" */
};

/* Reads the answer in text[0..len), which has a NUL after it. 1: complete, 0: more must come,
 * -1: not understood, or longer than ANSWER_BYTES. */
int answer_parse(char *text, size_t len, struct answer *out);

/* The number after `"name":` in the NUL-terminated `body`; 0 when it is not there. */
uint64_t answer_number(const char *body, const char *name);

#endif
