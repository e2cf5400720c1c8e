/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of base: arenas keep their bound and alignment, errors keep their reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "oncehook/types.h"

#include <string.h>

static void arena_gives_aligned_memory_up_to_its_bound(void **state)
{
    (void)state;
    struct oh_arena *arena = oh_arena_new(64, 4096);
    assert_non_null(arena);
    size_t given = 0;
    for (;;) {
        char *p = oh_arena_alloc(arena, 24);
        if (!p)
            break;
        assert_int_equal((uintptr_t)p % 16, 0);
        memset(p, 0xa5, 24);
        given += 32;
        assert_true(given <= 4096 + 64);
    }
    assert_true(given > 3000);
    oh_arena_free(arena);
}

static void arena_refuses_one_allocation_beyond_its_bound(void **state)
{
    (void)state;
    struct oh_arena *arena = oh_arena_new(64, 1024);
    assert_non_null(arena);
    assert_null(oh_arena_alloc(arena, 2000));
    assert_null(oh_arena_alloc(arena, SIZE_MAX));
    assert_non_null(oh_arena_alloc(arena, 100));
    assert_non_null(oh_arena_alloc(arena, 0));
    oh_arena_free(arena);
    oh_arena_free(NULL);
}

static void fail_keeps_the_reason_and_cuts_it(void **state)
{
    (void)state;
    struct oh_error err = {.line = 7};
    char text[2000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    assert_int_equal(oh_fail(&err, OH_INVALID, "%s", text), OH_INVALID);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_int_equal(err.line, 7);
    assert_int_equal(oh_fail(NULL, OH_SYSTEM, "nobody listens"), OH_SYSTEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_gives_aligned_memory_up_to_its_bound),
        cmocka_unit_test(arena_refuses_one_allocation_beyond_its_bound),
        cmocka_unit_test(fail_keeps_the_reason_and_cuts_it),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
