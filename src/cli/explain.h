/* SPDX-License-Identifier: Apache-2.0 */
/* Why a recorded request was refused, in words for the person who has to fix it. */
#ifndef CLI_EXPLAIN_H
#define CLI_EXPLAIN_H

#include "oncehook/verify.h"

#include <stdio.h>

/* Prints indented lines to `to`: what is missing, the time and its window, the secrets that were
 * tried (`secrets`: their names, NULL = not known), and what is signed: its bytes where `to` is a
 * terminal, since they hold the delivery, else only how many they are. */
void explain_print(FILE *to, enum oh_verdict verdict, const struct oh_explanation *told,
                   int64_t now_ms, const char *secrets);

#endif
