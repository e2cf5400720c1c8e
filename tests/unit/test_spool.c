/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of the spool on a disk that works: what was SPOOLED comes back whole and in order, also
 * after a restart; what is drained is deleted; bounds, deadlines and the lock hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/slice.h"
#include "spool_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void spool_gives_back_what_was_put(void **state)
{
    struct bed *bed = *state;
    bed_open(bed);
    bed_put(bed, 0, 2500);
    assert_int_equal(bed->spooled, 2500);
    assert_int_equal(bed_drain(bed), 2500);
    assert_int_equal(bed->wrong, 0);
    bed_close(bed);
}

static void spool_keeps_records_over_a_restart(void **state)
{
    struct bed *bed = *state;
    bed_open(bed);
    bed_put(bed, 0, 1000);
    bed_close(bed);
    bed_open(bed);
    struct spool_state now;
    spool_get_state(bed->spool, &now);
    assert_int_equal(now.waiting, 1000);
    assert_true(now.oldest_s >= 0);
    bed_put(bed, 1000, 500);
    bed_close(bed);
    bed_open(bed);
    assert_int_equal(bed_drain(bed), 1500);
    assert_int_equal(bed->wrong, 0);
    spool_get_state(bed->spool, &now);
    assert_int_equal(now.waiting, 0);
    bed_close(bed);
    bed_open(bed);
    assert_int_equal(bed_drain(bed), 0);
    bed_close(bed);
}

static void spool_deletes_what_is_drained(void **state)
{
    struct bed *bed = *state;
    bed->config.spool.bytes = 4 << 20; /* segments of 256 KiB */
    bed_open(bed);
    struct spool_state now;
    for (unsigned round = 0; round < 12; round++) { /* together more than fits */
        bed_put(bed, round * 1000, 1000);
        assert_int_equal(bed->spooled, (round + 1) * 1000);
        assert_int_equal(bed_drain(bed), 1000);
    }
    for (int i = 0; i < 100; i++) {
        (void)spool_wait(bed->spool, 50);
        spool_get_state(bed->spool, &now);
        if (now.segments == 0)
            break;
    }
    assert_int_equal(now.segments, 0);
    assert_int_equal(now.bytes, 0);
    assert_int_equal(bed->wrong, 0);
    bed_close(bed);
}

static void spool_refuses_beyond_its_bytes_and_goes_on(void **state)
{
    struct bed *bed = *state;
    bed->config.spool.bytes = 1 << 20;
    bed_open(bed);
    for (unsigned i = 0; i < 40; i++)
        bed_put(bed, i * 100, 100);
    assert_true(bed->spooled > 0 && bed->spooled < 4000);
    assert_int_equal(bed->spooled + bed->undecided, 4000);
    assert_false(spool_accepts(bed->spool));
    struct spool_state now;
    spool_get_state(bed->spool, &now);
    assert_string_equal(now.problem, "spool.bytes is reached");
    assert_true(now.bytes <= 1 << 20);
    size_t before = bed->spooled;
    assert_int_equal(bed_drain(bed), before);
    for (int i = 0; i < 200 && !spool_accepts(bed->spool); i++)
        (void)spool_wait(bed->spool, 20);
    assert_true(spool_accepts(bed->spool));
    bed_put(bed, 5000, 100);
    assert_int_equal(bed->spooled, before + 100);
    bed_close(bed);
}

static void spool_leaves_expired_events_undecided(void **state)
{
    struct bed *bed = *state;
    bed_open(bed);
    bed->deadline_mono_us = clock_mono_us() - 1;
    bed_put(bed, 0, 10);
    assert_int_equal(bed->undecided, 10);
    assert_int_equal(bed_drain(bed), 0);
    bed_close(bed);
}

static void spool_refuses_a_second_owner(void **state)
{
    struct bed *bed = *state;
    struct spool *second;
    struct oh_error err;
    char expected[64];
    bed_open(bed);
    assert_int_equal(spool_open(&bed->config, NULL, NULL, NULL, &second, &err), OH_SYSTEM);
    snprintf(expected, sizeof(expected), "belongs to process %d", (int)getpid());
    assert_non_null(strstr(err.text, expected));
    pid_t owner;
    assert_int_equal(spool_look(&bed->config, &second, &owner, &err), OH_OK);
    assert_int_equal(owner, getpid());
    spool_close(second);
    bed_close(bed);
    assert_int_equal(spool_look(&bed->config, &second, &owner, &err), OH_OK);
    assert_int_equal(owner, 0);
    spool_close(second);
}

static void spool_is_for_its_owner_only(void **state)
{
    struct bed *bed = *state;
    struct stat status;
    bed_open(bed);
    bed_put(bed, 0, 1);
    assert_int_equal(stat(bed->directory, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    char path[4200];
    snprintf(path, sizeof(path), "%s/spool-00000000000000000001.db-wal", bed->directory);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    bed_close(bed);
}

static void spool_turns_old_records_into_quarantine(void **state)
{
    struct bed *bed = *state;
    bed_open(bed);
    bed->accepted_wall_us = clock_wall_us() - (bed->config.spool.age_s + 10) * 1000000;
    bed_put(bed, 0, 3);
    struct spool_chunk *chunk = spool_read(bed->spool, 10, 1 << 20);
    assert_int_equal(chunk->count, 3);
    for (size_t i = 0; i < chunk->count; i++) {
        assert_string_equal(chunk->deliveries[i]->unreadable, "older than spool.age");
        assert_null(chunk->deliveries[i]->events[0].event);
        assert_true(chunk->deliveries[i]->request.body.len > 0);
    }
    spool_finish(bed->spool, chunk);
    bed_close(bed);
}

static void spool_reads_ahead_and_releases(void **state)
{
    struct bed *bed = *state;
    bed_open(bed);
    bed_put(bed, 0, 300);
    struct spool_chunk *first = spool_read(bed->spool, 100, 1 << 20);
    struct spool_chunk *second = spool_read(bed->spool, 100, 1 << 20);
    assert_int_equal(first->last + 1, second->first);
    spool_finish(bed->spool, first);
    spool_release(bed->spool, second);
    bed_close(bed);
    bed_open(bed); /* what was not finished comes again */
    assert_int_equal(bed_drain(bed), 200);
    bed_close(bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(spool_gives_back_what_was_put, bed_setup, bed_teardown),
        cmocka_unit_test_setup_teardown(spool_keeps_records_over_a_restart, bed_setup,
                                        bed_teardown),
        cmocka_unit_test_setup_teardown(spool_deletes_what_is_drained, bed_setup, bed_teardown),
        cmocka_unit_test_setup_teardown(spool_refuses_beyond_its_bytes_and_goes_on, bed_setup,
                                        bed_teardown),
        cmocka_unit_test_setup_teardown(spool_leaves_expired_events_undecided, bed_setup,
                                        bed_teardown),
        cmocka_unit_test_setup_teardown(spool_refuses_a_second_owner, bed_setup, bed_teardown),
        cmocka_unit_test_setup_teardown(spool_is_for_its_owner_only, bed_setup, bed_teardown),
        cmocka_unit_test_setup_teardown(spool_turns_old_records_into_quarantine, bed_setup,
                                        bed_teardown),
        cmocka_unit_test_setup_teardown(spool_reads_ahead_and_releases, bed_setup, bed_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
