/* SPDX-License-Identifier: Apache-2.0 */
/* body/time.h: no strtod, no timegm, no locale. Numbers are read as decimal text, so that no
 * exponent is too large and no microsecond is lost to a double. */
#include "body/time.h"

#include "base/slice.h"

#include <stdio.h>

enum {
    US_DIGITS = 6,           /* microseconds in a second, as a power of ten */
    SECONDS_DIGITS_MAX = 11, /* a number from 1e11 on is milliseconds, when the unit is open */
    VALUE_DIGITS_MAX = 18,   /* fit an int64_t whatever they are */
    EXPONENT_BOUND = 100000, /* beyond it no text of a request's size has a value in range */
};

static const int64_t us_per_second = 1000000;
static const int64_t window_start_us = INT64_C(946684800) * 1000000; /* 2000-01-01 */
static const int64_t window_ahead_us = INT64_C(86400) * 1000000;

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A decimal number: `digits` hold its significant digits, and the value is
 * 0.DIGITS times ten to the `point`. */
struct decimal {
    char digits[VALUE_DIGITS_MAX]; /* values 0 … 9; what comes behind is cut */
    int count;
    long point;
    bool negative;
};

static bool decimal_read_exponent(struct oh_slice text, size_t i, long *exponent)
{
    bool negative = i < text.len && text.data[i] == '-';
    if (i < text.len && (text.data[i] == '-' || text.data[i] == '+'))
        i++;
    if (i == text.len)
        return false;
    long value = 0;
    for (; i < text.len; i++) {
        if (!is_digit(text.data[i]))
            return false;
        if (value < EXPONENT_BOUND)
            value = value * 10 + (text.data[i] - '0');
    }
    *exponent = negative ? -value : value;
    return true;
}

static bool decimal_read(struct oh_slice text, struct decimal *number)
{
    *number = (struct decimal){.negative = text.len > 0 && text.data[0] == '-'};
    bool behind_point = false, any = false;
    size_t i = number->negative;
    for (; i < text.len; i++) {
        char c = text.data[i];
        if (c == '.' && !behind_point) {
            behind_point = true;
        } else if (is_digit(c)) {
            any = true;
            if (number->count > 0 || c != '0') {
                if (number->count < VALUE_DIGITS_MAX)
                    number->digits[number->count++] = (char)(c - '0');
                number->point += !behind_point;
            } else {
                number->point -= behind_point;
            }
        } else {
            break;
        }
    }
    long exponent = 0;
    if (i < text.len) {
        if ((text.data[i] != 'e' && text.data[i] != 'E') ||
            !decimal_read_exponent(text, i + 1, &exponent))
            return false;
    }
    number->point += exponent;
    return any;
}

/* number * 10^shift, cut to an integer; false when that has too many digits. */
static bool decimal_to_int64(const struct decimal *number, int shift, int64_t *out)
{
    long places = number->point + shift;
    if (number->count == 0 || places <= 0) {
        *out = 0;
        return true;
    }
    if (places > VALUE_DIGITS_MAX)
        return false;
    int64_t value = 0;
    for (long i = 0; i < places; i++)
        value = value * 10 + (i < number->count ? number->digits[i] : 0);
    *out = number->negative ? -value : value;
    return true;
}

static bool parse_number(struct oh_slice text, enum recipe_time_unit unit, int64_t *unix_us)
{
    struct decimal number;
    if (!decimal_read(text, &number))
        return false;
    bool is_ms = unit == RECIPE_UNIT_MS;
    if (unit == RECIPE_UNIT_AUTO || unit == RECIPE_UNIT_ISO)
        is_ms = number.count > 0 && number.point > SECONDS_DIGITS_MAX;
    return decimal_to_int64(&number, is_ms ? US_DIGITS - 3 : US_DIGITS, unix_us);
}

/* Reads exactly `count` digits at *at and moves behind them. */
static bool take_digits(struct oh_slice text, size_t *at, int count, int *value)
{
    *value = 0;
    for (int i = 0; i < count; i++, (*at)++) {
        if (*at >= text.len || !is_digit(text.data[*at]))
            return false;
        *value = *value * 10 + (text.data[*at] - '0');
    }
    return true;
}

static bool take(struct oh_slice text, size_t *at, char c)
{
    if (*at >= text.len || text.data[*at] != c)
        return false;
    (*at)++;
    return true;
}

/* Days from 1970-01-01 to a day of the proleptic Gregorian calendar: whole 400-year eras since
 * 0000-03-01, with March as the first month, so that the leap day is the last of its year. */
static int64_t days_from_civil(int year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

static int days_in_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap);
}

static bool take_date(struct oh_slice text, size_t *at, int64_t *days)
{
    int year, month, day;
    if (!take_digits(text, at, 4, &year) || !take(text, at, '-') ||
        !take_digits(text, at, 2, &month) || !take(text, at, '-') ||
        !take_digits(text, at, 2, &day))
        return false;
    if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month))
        return false;
    *days = days_from_civil(year, month, day);
    return true;
}

/* HH:MM[:SS[.fraction]]; second 60 is the leap second, the one after 59. */
static bool take_clock(struct oh_slice text, size_t *at, int64_t *us)
{
    int hour, minute, second = 0;
    if (!take_digits(text, at, 2, &hour) || !take(text, at, ':') ||
        !take_digits(text, at, 2, &minute))
        return false;
    if (take(text, at, ':') && !take_digits(text, at, 2, &second))
        return false;
    if (hour > 23 || minute > 59 || second > 60)
        return false;
    *us = ((int64_t)hour * 3600 + minute * 60 + second) * us_per_second;
    if (take(text, at, '.') || take(text, at, ',')) {
        int64_t worth = us_per_second / 10;
        if (*at >= text.len || !is_digit(text.data[*at]))
            return false;
        for (; *at < text.len && is_digit(text.data[*at]); (*at)++, worth /= 10)
            *us += worth * (text.data[*at] - '0');
    }
    return true;
}

/* The rest of the text: how far local time is ahead of UTC. */
static bool take_zone(struct oh_slice text, size_t *at, int64_t *ahead_us)
{
    *ahead_us = 0;
    struct oh_slice rest = slice_of(text.data + *at, text.len - *at);
    if (rest.len > 0 && rest.data[0] == ' ')
        rest = slice_of(rest.data + 1, rest.len - 1);
    if (rest.len == 0 || slice_equals_nocase(rest, SLICE_LITERAL("Z")) ||
        slice_equals_nocase(rest, SLICE_LITERAL("UTC")) ||
        slice_equals_nocase(rest, SLICE_LITERAL("GMT")))
        return true;
    size_t i = 0;
    bool west = take(rest, &i, '-');
    if (!west && !take(rest, &i, '+'))
        return false;
    int hours, minutes = 0;
    if (!take_digits(rest, &i, 2, &hours))
        return false;
    bool colon = take(rest, &i, ':');
    if ((colon || i < rest.len) && !take_digits(rest, &i, 2, &minutes))
        return false;
    if (i < rest.len || hours > 23 || minutes > 59)
        return false;
    *ahead_us = ((int64_t)hours * 3600 + minutes * 60) * us_per_second * (west ? -1 : 1);
    return true;
}

static bool parse_iso(struct oh_slice text, int64_t *unix_us)
{
    size_t at = 0;
    int64_t days, clock_us = 0, ahead_us = 0;
    if (!take_date(text, &at, &days))
        return false;
    if (at < text.len) {
        if (!take(text, &at, 'T') && !take(text, &at, 't') && !take(text, &at, ' '))
            return false;
        if (!take_clock(text, &at, &clock_us) || !take_zone(text, &at, &ahead_us))
            return false;
    }
    *unix_us = days * 86400 * us_per_second + clock_us - ahead_us;
    return true;
}

/* "Tue, 14 Apr 2026 03:50:12 GMT"; the day of the week is not looked at. */
static bool parse_mail_date(struct oh_slice text, int64_t *unix_us)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    int day, year;
    size_t at = 4, month = 0;
    int64_t clock_us, ahead_us;
    if (!take(text, &at, ' ') || !take_digits(text, &at, 2, &day) || !take(text, &at, ' ') ||
        text.len - at < 3)
        return false;
    while (month < 12 && memcmp(months + 3 * month, text.data + at, 3) != 0)
        month++;
    at += 3;
    if (month == 12 || !take(text, &at, ' ') || !take_digits(text, &at, 4, &year) ||
        !take(text, &at, ' ') || day < 1 || day > days_in_month(year, (int)month + 1) ||
        !take_clock(text, &at, &clock_us) || !take_zone(text, &at, &ahead_us))
        return false;
    *unix_us =
        days_from_civil(year, (int)month + 1, day) * 86400 * us_per_second + clock_us - ahead_us;
    return true;
}

bool time_parse(struct oh_slice text, enum recipe_time_unit unit, int64_t *unix_us)
{
    while (text.len > 0 && text.data[0] == ' ')
        text = slice_of(text.data + 1, text.len - 1);
    while (text.len > 0 && text.data[text.len - 1] == ' ')
        text.len--;
    if (text.len > 4 && text.data[4] == '-')
        return parse_iso(text, unix_us);
    if (text.len > 4 && text.data[3] == ',')
        return parse_mail_date(text, unix_us);
    return parse_number(text, unit, unix_us);
}

int64_t time_within_window(int64_t unix_us, int64_t now_us)
{
    if (unix_us < window_start_us)
        return now_us;
    /* Not now_us + a day, which a hostile clock could overflow. */
    return unix_us - window_ahead_us > now_us ? now_us : unix_us;
}

/* Days since 1970-01-01 to a date of the Gregorian calendar: years begin in March here, so that the
 * day that some years have more is their last. */
void time_format(int64_t unix_ms, char out[TIME_ISO_BYTES])
{
    int64_t day_ms = ((unix_ms % 86400000) + 86400000) % 86400000;
    int64_t days = (unix_ms - day_ms) / 86400000 + 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097, of_era = days - era * 146097;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year + year / 4 - year / 100),
            month = (5 * of_year + 2) / 153;
    char text[64];
    snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
             (int)((year + era * 400 + (month >= 10)) % 10000),
             (int)(month < 10 ? month + 3 : month - 9), (int)(of_year - (153 * month + 2) / 5 + 1),
             (int)(day_ms / 3600000), (int)(day_ms / 60000 % 60), (int)(day_ms / 1000 % 60),
             (int)(day_ms % 1000));
    memcpy(out, text, TIME_ISO_BYTES);
}
