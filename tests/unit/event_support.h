/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the event room share: an arena for each test, plans and recipes written as
 * text, and bodies that end where their heap block ends. */
#ifndef TESTS_EVENT_SUPPORT_H
#define TESTS_EVENT_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/slice.h"
#include "body/scan.h"
#include "oncehook/event.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define NO_SPLIT      NULL
#define NOW_US        (INT64_C(1700000000) * 1000000)
#define EVENTS_MAX    100
#define UUID_A        "5f0c2a9e-7f5e-4f0e-8d0a-0b6f6a1f3c11"
#define UUID_B        "00000000-0000-0000-0000-00000000000b"
#define FORM_TYPE     "content-type: application/x-www-form-urlencoded\n"

/* Of the running test. */
extern struct oh_arena *arena;
extern const struct oh_recipe *recipe;
extern struct oh_mapping *mapping;
extern struct oh_error failure; /* of the last extract_bytes() */

/* One row of a group: every test has its own arena and leaves no recipe behind. */
#define EVENT_TEST(test) cmocka_unit_test_setup_teardown(test, event_setup, event_teardown)
int event_setup(void **state);
int event_teardown(void **state);

/* Seeds random() with $ONCEHOOK_SEED, or with the clock; says so, that a failure can be repeated.
 */
void seed_random(void);
size_t random_below(size_t bound);

/* A copy for free(), of exactly that size: ASan sees one byte read too far. */
char *exact_copy(const char *data, size_t len);

/* The slice as NUL-terminated text in the arena. */
const char *text_of(struct oh_slice s);

/* printf into the arena. */
char *format(const char *form, ...) OH_PRINTF(1, 2);

/* A plan of a split (or NO_SPLIT) and of wants that end in NULL, those in events before those in
 * the body ("body:/…"). */
struct scan_plan plan_of(const char *split, const char *const wants[]);

/* Makes `recipe` and `mapping` of an `events:` section (a YAML flow mapping), or of a provider's
 * own. */
void use_recipe(const char *events);
void use_builtin(const char *provider);

/* oh_extract() at NOW_US, of a request with these headers ("name: value" lines that end in '\n'
 * each) and this body. The second demands OH_OK, the third also that it is one event. */
enum oh_status extract_bytes(const char *header_lines, struct oh_slice body,
                             struct oh_extraction *out);
struct oh_extraction extract(const char *header_lines, const char *body);
struct oh_event extract_one(const char *header_lines, const char *body);

/* Fills headers[] from such lines; they point into them. */
size_t parse_headers(const char *lines, struct oh_header *headers, size_t max);

#endif
