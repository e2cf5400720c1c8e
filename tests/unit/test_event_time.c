/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of event/time.h: what providers write is read to the microsecond, what nobody could mean
 * is refused, and nothing overflows. */
#include "event_support.h"

#include "body/time.h"

#include <stdlib.h>
#include <time.h>

#define S    RECIPE_UNIT_S
#define MS   RECIPE_UNIT_MS
#define ISO  RECIPE_UNIT_ISO
#define AUTO RECIPE_UNIT_AUTO
#define SEC  INT64_C(1000000)

static const struct readable {
    const char *text;
    enum recipe_time_unit unit;
    int64_t unix_us;
} readable[] = {
    {"1700000000", S, 1700000000 * SEC},
    {"1700000000.25", S, 1700000000 * SEC + 250000},
    {"1700000000.1234569", S, 1700000000 * SEC + 123456},
    {"1.7e9", S, 1700000000 * SEC},
    {"17000000000E-1", S, 1700000000 * SEC},
    {"0.0000000017e18", S, 1700000000 * SEC},
    {"-1", S, -SEC},
    {"-1.5", S, -1500000},
    {"0", S, 0},
    {"-0.0", S, 0},
    {"0e999999999999999999999", S, 0},
    {"1e-999999999999999999999", S, 0},
    {"1700000000123", MS, 1700000000 * SEC + 123000},
    {"1700000000123.5", MS, 1700000000 * SEC + 123500},
    {"1700000000", MS, 1700000 * SEC},
    {"1700000000", AUTO, 1700000000 * SEC},
    {"99999999999", AUTO, 99999999999 * SEC},
    {"100000000000", AUTO, 100000000 * SEC},
    {"1700000000123", AUTO, 1700000000 * SEC + 123000},
    {"1700000000123", ISO, 1700000000 * SEC + 123000},
    {"-1700000000123", AUTO, -(1700000000 * SEC + 123000)},
    {"0000001700000000", AUTO, 1700000000 * SEC},
    {" 1700000000 ", S, 1700000000 * SEC},
    {"1700000000.", S, 1700000000 * SEC},
    {".5", S, 500000},
    {"2023-11-14T22:13:20Z", ISO, 1700000000 * SEC},
    {"2023-11-14T22:13:20Z", S, 1700000000 * SEC},
    {"2023-11-14T22:13:20Z", MS, 1700000000 * SEC},
    {"2023-11-14t22:13:20z", AUTO, 1700000000 * SEC},
    {"2023-11-14 22:13:20", ISO, 1700000000 * SEC},
    {"2023-11-14 22:13:20 UTC", ISO, 1700000000 * SEC},
    {"2023-11-14 22:13:20 gmt", ISO, 1700000000 * SEC},
    {"2023-11-14 22:13:20 +0000", ISO, 1700000000 * SEC},
    {"2023-11-14T23:13:20+01:00", ISO, 1700000000 * SEC},
    {"2023-11-14T23:13:20+0100", ISO, 1700000000 * SEC},
    {"2023-11-14T23:13:20+01", ISO, 1700000000 * SEC},
    {"2023-11-14T16:43:20-05:30", ISO, 1700000000 * SEC},
    {"2023-11-14T22:13:20.5Z", ISO, 1700000000 * SEC + 500000},
    {"2023-11-14T22:13:20,123456789Z", ISO, 1700000000 * SEC + 123456},
    {"2023-11-14T22:13:20.000001+00:00", ISO, 1700000000 * SEC + 1},
    {"2023-11-14T22:13Z", ISO, 1699999980 * SEC},
    {"2023-11-14", ISO, 1699920000 * SEC},
    {"2024-02-29T00:00:00Z", ISO, 1709164800 * SEC},
    {"2000-02-29", ISO, 951782400 * SEC},
    {"2016-12-31T23:59:60Z", ISO, 1483228800 * SEC},
    {"1970-01-01T00:00:00Z", ISO, 0},
    {"1969-12-31T23:59:59.5Z", ISO, -500000},
    {"0000-01-01T00:00:00Z", ISO, -62167219200 * SEC},
    {"0001-01-01T00:00:00Z", ISO, -62135596800 * SEC},
    {"9999-12-31T23:59:59.999999Z", ISO, 253402300799 * SEC + 999999},
    {"9999-12-31T23:59:59-23:59", ISO, 253402300799 * SEC + 86340 * SEC},
    {"Tue, 14 Nov 2023 22:13:20 GMT", ISO, 1700000000 * SEC},
    {"Tue, 14 Nov 2023 22:13:20 GMT", AUTO, 1700000000 * SEC},
    {"Tue, 14 Nov 2023 23:13:20 +0100", S, 1700000000 * SEC},
    {"Thu, 29 Feb 2024 00:00:00 UTC", MS, 1709164800 * SEC},
};

static void time_reads_what_providers_write(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(readable); i++) {
        int64_t unix_us = 42;
        if (!time_parse(slice_of_text(readable[i].text), readable[i].unit, &unix_us) ||
            unix_us != readable[i].unix_us)
            fail_msg("row %zu: \"%s\" gives %lld", i, readable[i].text, (long long)unix_us);
    }
}

static const char *const unreadable[] = {
    "Tue, 14 Nov 2023 22:13:20 CET",
    "Tue, 14 nov 2023 22:13:20 GMT",
    "Tue, 31 Nov 2023 22:13:20 GMT",
    "Tue, 0 Nov 2023 22:13:20 GMT",
    "Tue, 14 Nov 2023",
    "Tue, 14 No",
    "Tue,14 Nov 2023 22:13:20 GMT",
    "Tue,  ",
    "",
    " ",
    "-",
    "+",
    ".",
    "e5",
    "1e",
    "1e+",
    "1e5x",
    "1.2.3",
    "abc",
    "null",
    "true",
    "NaN",
    "Infinity",
    "0x10",
    "1 2",
    "+1700000000",
    "1e999",
    "1e99999999999999999999",
    "9223372036854775807",
    "-9223372036854775809",
    "99999999999999999999999999999999",
    "2023-13-01",
    "2023-00-01",
    "2023-02-29",
    "1900-02-29",
    "2023-04-31",
    "2023-11-00",
    "2023-11-14T24:00:00Z",
    "2023-11-14T22:60:00Z",
    "2023-11-14T22:13:61Z",
    "2023-11-14T22:13:20.Z",
    "2023-11-14T22:13:20+",
    "2023-11-14T22:13:20+1",
    "2023-11-14T22:13:20+24:00",
    "2023-11-14T22:13:20+01:60",
    "2023-11-14T22:13:20+01:",
    "2023-11-14T22:13:20+010",
    "2023-11-14T22:13:20 CET",
    "2023-11-14T22",
    "2023-11-14T",
    "2023-11-14X22:13:20Z",
    "2023-11",
    "2023-1-14",
    "2023-11-14T22:13:20ZZ",
    "12023-11-14T22:13:20Z",
    "-2023-11-14T22:13:20Z",
};

static void time_refuses_what_is_no_time(void **state)
{
    (void)state;
    static const enum recipe_time_unit units[] = {S, MS, ISO, AUTO};
    for (size_t i = 0; i < LENGTH(unreadable); i++)
        for (size_t u = 0; u < 4; u++) {
            int64_t unix_us;
            if (time_parse(slice_of_text(unreadable[i]), units[u], &unix_us))
                fail_msg("\"%s\" gives %lld", unreadable[i], (long long)unix_us);
        }
}

static void time_keeps_only_the_contracts_window(void **state)
{
    (void)state;
    const int64_t now = 1700000000 * SEC, day = 86400 * SEC, y2k = 946684800 * SEC;
    assert_int_equal(time_within_window(now - 1, now), now - 1);
    assert_int_equal(time_within_window(y2k, now), y2k);
    assert_int_equal(time_within_window(y2k - 1, now), now);
    assert_int_equal(time_within_window(-1, now), now);
    assert_int_equal(time_within_window(INT64_MIN, now), now);
    assert_int_equal(time_within_window(now + day, now), now + day);
    assert_int_equal(time_within_window(now + day + 1, now), now);
    assert_int_equal(time_within_window(INT64_MAX, now), now);
    assert_int_equal(time_within_window(now, INT64_MAX), now);
    assert_int_equal(time_within_window(now, INT64_MIN), INT64_MIN);
}

/* Any moment that the C library can write down is read back. */
static void time_agrees_with_gmtime(void **state)
{
    (void)state;
    seed_random();
    for (int i = 0; i < 20000; i++) {
        time_t t = (time_t)(((int64_t)random() << 8 | (random() & 255)) % INT64_C(253402300800));
        struct tm tm;
        char text[64];
        assert_non_null(gmtime_r(&t, &tm));
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
        int64_t unix_us;
        if (!time_parse(slice_of_text(text), ISO, &unix_us) || unix_us != (int64_t)t * SEC)
            fail_msg("%s", text);
    }
}

/* No text whatever makes it read beyond its end or overflow (the sanitizers watch). */
static void time_survives_any_bytes(void **state)
{
    (void)state;
    seed_random();
    static const char symbols[] = "0123456789--::TZ+.eE 0099, NovGMT";
    for (int i = 0; i < 200000; i++) {
        size_t len = (size_t)random() % 40;
        char *text = malloc(len + 1); /* of exactly that size, so that ASan sees one byte more */
        assert_non_null(text);
        const char *base = readable[(size_t)random() % LENGTH(readable)].text;
        for (size_t j = 0; j < len; j++)
            text[j] = symbols[(size_t)random() % (sizeof(symbols) - 1)];
        if (random() % 2)
            memcpy(text, base, strlen(base) < len ? strlen(base) : len);
        int64_t unix_us = 0;
        (void)time_parse(slice_of(text, len), (enum recipe_time_unit)(random() % 4), &unix_us);
        (void)time_within_window(unix_us, (int64_t)random() * SEC);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_reads_what_providers_write),
        cmocka_unit_test(time_refuses_what_is_no_time),
        cmocka_unit_test(time_keeps_only_the_contracts_window),
        cmocka_unit_test(time_agrees_with_gmtime),
        cmocka_unit_test(time_survives_any_bytes),
    };
    return cmocka_run_group_tests_name("event_time", tests, NULL, NULL);
}
