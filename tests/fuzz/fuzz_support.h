/* SPDX-License-Identifier: Apache-2.0 */
/* What the targets share: a whole request in one input, as tests/fuzz/seeds writes it. Lines:
 *
 *     PROVIDER SCHEME NOW            of the catalog; unknown words choose by their hash
 *     key TEXT | cert URL PEM | token TEXT | armed      any number; 0x1f stands for a line feed
 *     METHOD URL                     a method begins with a capital
 *     NAME: VALUE                    any number
 *
 * an empty line, the body. What is not there is empty: every input is some request. */
#ifndef FUZZ_SUPPORT_H
#define FUZZ_SUPPORT_H

#include "base/slice.h"
#include "oncehook/event.h"

enum { INPUT_HEADERS_MAX = 40, INPUT_KEYS_MAX = 8 };

struct input {
    const struct oh_recipe *recipe;
    struct oh_slice provider;
    int64_t now_s;
    struct oh_slice keys[INPUT_KEYS_MAX];
    size_t key_count;
    struct oh_slice urls[INPUT_KEYS_MAX], certificates[INPUT_KEYS_MAX];
    size_t certificate_count;
    struct oh_slice token;
    bool armed;
    struct oh_header headers[INPUT_HEADERS_MAX];
    struct oh_request request;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* Ends the program, which libFuzzer takes for a finding. */
void demand(bool holds, const char *what);

/* The catalog that all inputs choose from; made at the first call. */
const struct oh_catalog *input_catalog(void);

/* Texts point into data, or to copies in `arena`. False when memory is gone. */
bool input_read(const uint8_t *data, size_t size, struct oh_arena *arena, struct input *out);

/* What every decided event promises. */
void check_event(const struct oh_event *event, int64_t now_us);

#endif
