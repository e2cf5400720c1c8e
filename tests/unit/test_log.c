/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of log: one well-formed JSON line a call, whatever the bytes; secrets stay ****; a call
 * site is limited and says how much it left out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "log/log.h"

#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* stderr of the test, caught in a pipe while a case runs. */
struct capture {
    int saved, pipe[2];
};

static int capture_start(void **state)
{
    static struct capture capture;
    assert_int_equal(pipe(capture.pipe), 0);
    capture.saved = dup(STDERR_FILENO);
    dup2(capture.pipe[1], STDERR_FILENO);
    log_set_level(LOG_INFO);
    *state = &capture;
    return 0;
}

static int capture_stop(void **state)
{
    struct capture *capture = *state;
    dup2(capture->saved, STDERR_FILENO);
    close(capture->saved);
    close(capture->pipe[0]);
    close(capture->pipe[1]);
    return 0;
}

/* Everything logged so far: one read, so one write(2) must have brought the line. */
static size_t captured(struct capture *capture, char *text, size_t size)
{
    if (write(capture->pipe[1], "", 1) != 1) /* a mark, so that the read never waits */
        return 0;
    ssize_t n = read(capture->pipe[0], text, size - 1);
    assert_true(n > 0);
    text[n - 1] = 0;
    return (size_t)n - 1;
}

static json_t *captured_json(struct capture *capture)
{
    char text[8192];
    size_t len = captured(capture, text, sizeof(text));
    assert_true(len > 0 && len <= 4096);
    assert_int_equal(text[len - 1], '\n');
    assert_ptr_equal(strchr(text, '\n'), text + len - 1);
    json_error_t error;
    json_t *line = json_loads(text, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!line)
        fail_msg("not JSON: %s: %s", error.text, text);
    return line;
}

static const char *text_of(const json_t *line, const char *name)
{
    return json_string_value(json_object_get(line, name));
}

static void log_writes_one_json_line(void **state)
{
    LOG_LINE(LOG_WARNING, "lane", "connected", log_int("lane", -7), log_real("seconds", 0.25),
             log_bool("tls", true), log_text("host", "a"), log_text("none", NULL),
             log_real("nan", NAN), log_int("least", INT64_MIN));
    json_t *line = captured_json(*state);
    assert_string_equal(text_of(line, "level"), "warning");
    assert_string_equal(text_of(line, "room"), "lane");
    assert_string_equal(text_of(line, "message"), "connected");
    assert_int_equal(json_integer_value(json_object_get(line, "lane")), -7);
    assert_true(json_integer_value(json_object_get(line, "least")) == INT64_MIN);
    assert_true(json_real_value(json_object_get(line, "seconds")) == 0.25);
    assert_true(json_is_true(json_object_get(line, "tls")));
    assert_true(json_is_null(json_object_get(line, "none")));
    assert_true(json_is_null(json_object_get(line, "nan")));
    const char *time = text_of(line, "time");
    assert_int_equal(strlen(time), strlen("2026-11-23T18:20:02.123Z"));
    assert_int_equal(time[10], 'T');
    assert_int_equal(time[19], '.');
    assert_int_equal(time[23], 'Z');
    json_decref(line);
}

static void log_escapes_what_json_forbids(void **state)
{
    LOG_LINE(LOG_ERROR, "log", "x", log_text("t", "a\"b\\c\n\t\x01\x7f/\xc3\xa9\xf0\x9f\x98\x80"));
    json_t *line = captured_json(*state);
    assert_string_equal(text_of(line, "t"), "a\"b\\c\n\t\x01\x7f/\xc3\xa9\xf0\x9f\x98\x80");
    json_decref(line);
}

static void log_replaces_bytes_that_are_not_utf8(void **state)
{
    static const struct {
        const char *bytes;
        int replaced;
    } cases[] = {
        {"\xff", 1},
        {"\xc0\xaf", 2},
        {"\xe0\x80\xaf", 3},
        {"\xed\xa0\x80", 3},
        {"\xf4\x90\x80\x80", 4},
        {"\xf0\x80\x80\x80", 4},
        {"\xe2\x82", 2},
        {"\x80", 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        LOG_LINE(LOG_INFO, "log", "x", log_text("t", cases[i].bytes));
        json_t *line = captured_json(*state);
        const char *text = text_of(line, "t");
        assert_int_equal(strlen(text), 3 * (size_t)cases[i].replaced);
        for (const char *p = text; *p; p += 3)
            assert_memory_equal(p, "\xef\xbf\xbd", 3);
        json_decref(line);
    }
}

static void log_survives_every_byte_in_any_place(void **state)
{
    unsigned seed = 20240607;
    print_message("seed %u\n", seed);
    for (int round = 0; round < 500; round++) {
        char bytes[1500];
        for (size_t i = 0; i < sizeof(bytes); i++) {
            seed = seed * 1103515245u + 12345u;
            bytes[i] = (char)(seed >> 16);
        }
        size_t len = (seed >> 8) % sizeof(bytes);
        LOG_LINE(LOG_INFO, "log", "x", log_slice("t", (struct oh_slice){bytes, len}));
        json_decref(captured_json(*state));
    }
}

static void log_cuts_long_texts_between_characters(void **state)
{
    char text[3001];
    for (size_t i = 0; i + 2 < sizeof(text); i += 2) {
        text[i] = '\xc3';
        text[i + 1] = '\xa9';
    }
    text[3000] = 0;
    LOG_LINE(LOG_INFO, "log", "x", log_text("t", text), log_int("after", 1));
    json_t *line = captured_json(*state);
    assert_int_equal(strlen(text_of(line, "t")), 1024);
    assert_int_equal(json_integer_value(json_object_get(line, "after")), 1);
    json_decref(line);
}

static void log_leaves_out_fields_that_do_not_fit(void **state)
{
    char text[2001];
    memset(text, '\x01', 2000); /* six bytes each when escaped */
    text[2000] = 0;
    LOG_LINE(LOG_INFO, "log", "x", log_text("big", text), log_int("small", 1));
    json_t *line = captured_json(*state);
    assert_null(json_object_get(line, "big"));
    assert_true(json_is_true(json_object_get(line, "cut")));
    assert_int_equal(json_integer_value(json_object_get(line, "small")), 1);
    json_decref(line);
}

static void log_never_prints_a_secret(void **state)
{
    struct secret secret = {{"hunter2", 7}};
    LOG_LINE(LOG_INFO, "log", "x", log_secret("token", &secret), log_secret("none", NULL));
    char text[4096];
    captured(*state, text, sizeof(text));
    assert_null(strstr(text, "hunter2"));
    assert_non_null(strstr(text, "\"token\":\"****\""));
    assert_non_null(strstr(text, "\"none\":null"));
}

static void log_drops_lines_below_its_level(void **state)
{
    char text[4096];
    LOG_LINE(LOG_DEBUG, "log", "quiet");
    assert_int_equal(captured(*state, text, sizeof(text)), 0);
    log_set_level(LOG_DEBUG);
    LOG_LINE(LOG_DEBUG, "log", "loud");
    assert_true(captured(*state, text, sizeof(text)) > 0);
}

/* The lines of `count` turns of the same site, as an array. */
static json_t *lines_of(struct capture *capture, const char *reason, int count)
{
    char text[65536];
    json_t *lines = json_array();
    for (int i = 0; i < count; i++)
        LOG_RATE_LIMITED(LOG_INFO, "log", "again", log_int("i", i), log_text("reason", reason));
    captured(capture, text, sizeof(text));
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        json_array_append_new(lines, json_loads(line, 0, NULL));
    }
    return lines;
}

static void log_says_the_same_once_a_second_with_how_often(void **state)
{
    json_t *lines = lines_of(*state, "a", 1000);
    assert_in_range(json_array_size(lines), 1, 3); /* it may take seconds under a sanitizer */
    const json_t *first = json_array_get(lines, 0);
    assert_int_equal(json_integer_value(json_object_get(first, "i")), 0);
    assert_null(json_object_get(first, "suppressed"));
    json_int_t said = 0, turns = 1000;
    size_t index, count = json_array_size(lines);
    const json_t *line;
    json_array_foreach(lines, index, line) said +=
        1 + json_integer_value(json_object_get(line, "suppressed"));
    json_decref(lines);
    /* The next that gets through tells of all since. */
    for (size_t size = 0; size == 0; json_decref(lines)) {
        usleep(1000);
        lines = lines_of(*state, "a", 1);
        turns++;
        if ((size = json_array_size(lines)))
            said += 1 + json_integer_value(json_object_get(json_array_get(lines, 0), "suppressed"));
    }
    assert_true(count > 0);
    assert_int_equal(said, turns);
}

static void log_holds_no_other_kind_back(void **state)
{
    static const char *const reasons[] = {"one", "two", "three"};
    for (int i = 0; i < 3; i++) {
        json_t *lines = lines_of(*state, reasons[i], 5);
        assert_int_not_equal(json_array_size(lines), 0);
        assert_string_equal(text_of(json_array_get(lines, 0), "reason"), reasons[i]);
        json_decref(lines);
    }
}

static void log_bounds_a_site_whatever_it_says(void **state)
{
    size_t all = 0;
    for (int i = 0; i < 2000; i++) {
        char reason[16];
        snprintf(reason, sizeof(reason), "%d", i);
        json_t *lines = lines_of(*state, reason, 1);
        all += json_array_size(lines);
        json_decref(lines);
    }
    assert_in_range(all, 1, 160); /* 16 kinds a second */
}

static void *hammer(void *context)
{
    for (int i = 0; i < 10000; i++)
        LOG_RATE_LIMITED(LOG_INFO, "log", "again", log_int("i", i));
    return context;
}

static void log_limits_threads_together(void **state)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, NULL), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    char text[65536];
    captured(*state, text, sizeof(text));
    int lines = 0;
    for (const char *p = text; (p = strchr(p, '\n')); p++)
        lines++;
    /* One a second; a slow machine may take a few seconds, a broken limit gives thousands. */
    assert_in_range(lines, 1, 20);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, capture_start, capture_stop)
    const struct CMUnitTest tests[] = {
        CASE(log_writes_one_json_line),
        CASE(log_escapes_what_json_forbids),
        CASE(log_replaces_bytes_that_are_not_utf8),
        CASE(log_survives_every_byte_in_any_place),
        CASE(log_cuts_long_texts_between_characters),
        CASE(log_leaves_out_fields_that_do_not_fit),
        CASE(log_never_prints_a_secret),
        CASE(log_drops_lines_below_its_level),
        CASE(log_says_the_same_once_a_second_with_how_often),
        CASE(log_holds_no_other_kind_back),
        CASE(log_bounds_a_site_whatever_it_says),
        CASE(log_limits_threads_together),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
