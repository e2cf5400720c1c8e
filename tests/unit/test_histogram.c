/* SPDX-License-Identifier: Apache-2.0 */
/* The benchmark's histogram: exact to 1/128, never below what was noted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "../../bench/histogram.h"

static struct histogram *fresh(void)
{
    struct histogram *histogram = calloc(1, sizeof(*histogram));
    assert_non_null(histogram);
    return histogram;
}

static void histogram_is_exact_to_one_in_128(void **state)
{
    (void)state;
    for (int64_t value = 0; value < (int64_t)1 << HISTOGRAM_VALUE_BITS; value += 1 + value / 50) {
        struct histogram *histogram = fresh();
        histogram_record(histogram, value);
        histogram_record(histogram, INT64_MAX); /* so that the greatest value cuts nothing off */
        int64_t told = histogram_at(histogram, 0.5);
        assert_true(told >= value && told - value <= value / 128);
        free(histogram);
    }
}

static void histogram_gives_the_value_that_a_fraction_does_not_pass(void **state)
{
    (void)state;
    struct histogram *histogram = fresh();
    for (int64_t value = 1; value <= 100; value++)
        histogram_record(histogram, value);
    assert_int_equal(histogram_at(histogram, 0), 1);
    assert_int_equal(histogram_at(histogram, 0.5), 50);
    assert_int_equal(histogram_at(histogram, 0.99), 99);
    assert_int_equal(histogram_at(histogram, 1), 100);
    free(histogram);
}

static void histogram_takes_any_value_and_empty(void **state)
{
    (void)state;
    struct histogram *histogram = fresh();
    assert_int_equal(histogram_at(histogram, 0.99), 0);
    histogram_record(histogram, -5);
    assert_int_equal(histogram_at(histogram, 1), 0);
    histogram_record(histogram, INT64_MAX);
    assert_int_equal(histogram_at(histogram, 1), ((int64_t)1 << HISTOGRAM_VALUE_BITS) - 1);
    free(histogram);
}

static void histogram_add_is_as_if_all_were_noted_in_one(void **state)
{
    (void)state;
    struct histogram *one = fresh(), *two = fresh(), *all = fresh();
    for (int64_t value = 1; value < 1000000; value = value * 3 + 1) {
        histogram_record(value % 2 ? one : two, value);
        histogram_record(all, value);
    }
    histogram_add(one, two);
    assert_memory_equal(one, all, sizeof(*all));
    free(one);
    free(two);
    free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(histogram_is_exact_to_one_in_128),
        cmocka_unit_test(histogram_gives_the_value_that_a_fraction_does_not_pass),
        cmocka_unit_test(histogram_takes_any_value_and_empty),
        cmocka_unit_test(histogram_add_is_as_if_all_were_noted_in_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
