/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of admin, over real sockets with a made-up gateway behind: the routes' statuses and
 * words, the token, and that clients who hold connections cannot keep others out for long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "admin/admin.h"
#include "base/clock.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static struct admin_state gateway; /* what the hook gives */

static void give_state(void *context, struct admin_state *state)
{
    (void)context;
    *state = gateway;
}

static struct fixture {
    struct config config;
    struct metrics *metrics;
    struct admin *admin;
} fixture;

static int start(void **state)
{
    static const char *const sources[] = {"stripe"};
    static const struct admin_hooks hooks = {NULL, give_state};
    gateway = (struct admin_state){.ready = true,
                                   .lanes.total = 4,
                                   .lanes.connected = 4,
                                   .lanes.idle = 3,
                                   .gauges = {.database_up = 1, .counter_drift = NAN}};
    fixture.config =
        (struct config){.admin = {.listen = {"127.0.0.1", 0}, .token = {{"right-token", 11}}},
                        .queue = {.events = 100}};
    fixture.metrics = metrics_new(sources, 1, 1);
    struct oh_error err;
    if (admin_start(&fixture.config, fixture.metrics, &hooks, &fixture.admin, &err) != OH_OK)
        fail_msg("%s", err.text);
    assert_true(admin_port(fixture.admin) > 0);
    *state = &fixture;
    return 0;
}

static int stop(void **state)
{
    (void)state;
    admin_stop(fixture.admin);
    metrics_free(fixture.metrics);
    return 0;
}

/* ---- a client ---- */

static int dial(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(admin_port(fixture.admin)),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval patience = {.tv_sec = 30};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

struct answer {
    int status; /* 0 = the connection was closed without one */
    size_t len;
    char *body; /* within text */
    char text[65536];
};

static struct answer *ask_raw(const char *request)
{
    static struct answer answer;
    int fd = dial();
    ssize_t n = send(fd, request, strlen(request), MSG_NOSIGNAL);
    answer.len = 0;
    while (n > 0 &&
           (n = recv(fd, answer.text + answer.len, sizeof(answer.text) - 1 - answer.len, 0)) > 0)
        answer.len += (size_t)n;
    close(fd);
    answer.text[answer.len] = 0;
    answer.status = 0;
    sscanf(answer.text, "HTTP/1.1 %d ", &answer.status);
    char *end = strstr(answer.text, "\r\n\r\n");
    answer.body = end ? end + 4 : answer.text + answer.len;
    return &answer;
}

static struct answer *ask(const char *method, const char *path, const char *headers)
{
    char request[1024];
    snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n", method, path,
             headers);
    return ask_raw(request);
}

static json_t *ask_json(const char *path, int status)
{
    struct answer *answer = ask("GET", path, "");
    if (answer->status != status)
        fail_msg("%s: %s", path, answer->text);
    json_t *value = json_loads(answer->body, 0, NULL);
    assert_non_null(value);
    return value;
}

static const char *word(const json_t *value, const char *name)
{
    const char *text = json_string_value(json_object_get(value, name));
    return text ? text : "(none)";
}

static void assert_problem(const struct answer *answer, int status)
{
    if (answer->status != status || !strstr(answer->text, "Content-Type: application/problem+json"))
        fail_msg("not problem %d: %s", status, answer->text);
    json_t *problem = json_loads(answer->body, 0, NULL);
    assert_non_null(problem);
    assert_int_equal(json_integer_value(json_object_get(problem, "status")), status);
    assert_string_equal(word(problem, "type"), "about:blank");
    assert_string_not_equal(word(problem, "title"), "(none)");
    assert_string_not_equal(word(problem, "detail"), "(none)");
    json_decref(problem);
}

/* ---- cases ---- */

static void admin_tells_alive_and_ready(void **state)
{
    (void)state;
    json_decref(ask_json("/livez", 200));
    json_decref(ask_json("/readyz", 200));
    gateway.ready = false;
    gateway.not_ready = "database";
    json_decref(ask_json("/livez", 200));
    struct answer *answer = ask("GET", "/readyz", "");
    assert_problem(answer, 503);
    assert_non_null(strstr(answer->body, "database"));
}

static void admin_health_is_that_of_the_worst_part(void **state)
{
    (void)state;
    static const struct {
        uint32_t connected, waiting;
        int up;
        uint64_t queued;
        bool ready;
        const char *whole, *part, *status;
    } cases[] = {
        {4, 0, 1, 0, true, "healthy", "lanes", "healthy"},
        {4, 0, 1, 0, true, "healthy", "database", "healthy"},
        {3, 0, 1, 0, true, "degraded", "lanes", "degraded"},
        {4, 6, 1, 0, true, "degraded", "queue", "degraded"},
        {4, 5, 1, 0, true, "healthy", "queue", "healthy"},
        {4, 0, 1, 85, true, "degraded", "queue", "degraded"},
        {4, 0, 1, 100, false, "unhealthy", "queue", "unhealthy"},
        {0, 0, 0, 0, false, "unhealthy", "database", "unhealthy"},
        {0, 0, 0, 0, true, "degraded", "database", "unhealthy"}, /* the spool takes them */
        {4, 0, 1, 0, false, "unhealthy", "gateway", "unhealthy"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        gateway.lanes.connected = cases[i].connected;
        gateway.lanes.waiting = cases[i].waiting;
        gateway.gauges.database_up = cases[i].up;
        gateway.gauges.queue_events = cases[i].queued;
        gateway.ready = cases[i].ready;
        json_t *health = ask_json("/health", 200);
        const json_t *part = json_object_get(health, cases[i].part);
        if (strcmp(word(health, "status"), cases[i].whole) != 0 ||
            strcmp(word(part, "status"), cases[i].status) != 0)
            fail_msg("case %zu: %s, %s %s", i, word(health, "status"), cases[i].part,
                     word(part, "status"));
        json_decref(health);
    }
}

static void admin_health_prints_numbers_as_people_do(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0.05621, "_seconds\":0.05621}"},
                 {1.0000004, "_seconds\":1.0}"},
                 {2.0 / 3, "_seconds\":0.666667}"},
                 {86400.25, "_seconds\":86400.25}"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        gateway.gauges.oldest_waiting_seconds = cases[i].value;
        struct answer *answer = ask("GET", "/health", "");
        if (!strstr(answer->body, cases[i].text))
            fail_msg("not %s: %s", cases[i].text, answer->body);
    }
}

static void admin_database_health_says_saturated_above_five(void **state)
{
    (void)state;
    gateway.lanes.waiting = 6;
    json_t *health = ask_json("/health/database", 200);
    assert_string_equal(word(health, "status"), "degraded");
    assert_string_equal(word(health, "warning"), "Connection pool saturated");
    const json_t *pool = json_object_get(health, "pool");
    assert_int_equal(json_integer_value(json_object_get(pool, "total")), 4);
    assert_int_equal(json_integer_value(json_object_get(pool, "idle")), 3);
    assert_int_equal(json_integer_value(json_object_get(pool, "waiting")), 6);
    assert_true(json_is_array(json_object_get(health, "tables")));
    assert_int_equal(strlen(word(health, "timestamp")), strlen("2026-11-23T18:20:02.123Z"));
    json_decref(health);
}

static void admin_database_health_is_degraded_without_one_lane(void **state)
{
    (void)state;
    gateway.lanes.connected = 3;
    snprintf(gateway.lanes.problem, sizeof(gateway.lanes.problem), "connection refused");
    json_t *health = ask_json("/health/database", 200);
    assert_string_equal(word(health, "status"), "degraded");
    assert_string_equal(word(health, "warning"), "connection refused");
    json_decref(health);
}

static void admin_database_health_answers_at_once_without_database(void **state)
{
    (void)state;
    gateway.gauges.database_up = 0;
    int64_t start_us = clock_mono_us();
    json_t *health = ask_json("/health/database", 200);
    assert_true(clock_mono_us() - start_us < 1000000);
    assert_string_equal(word(health, "status"), "unhealthy");
    assert_non_null(json_object_get(health, "pool"));
    assert_non_null(json_object_get(health, "timestamp"));
    json_decref(health);
}

static void admin_metrics_are_prometheus_text(void **state)
{
    (void)state;
    metrics_count_event(metrics_shard_at(fixture.metrics, 0), 0, METRIC_OUTCOME_CAPTURED, 7);
    struct answer *answer = ask("GET", "/metrics", "");
    assert_int_equal(answer->status, 200);
    assert_non_null(strstr(answer->text, "Content-Type: text/plain; version=0.0.4"));
    assert_non_null(strstr(answer->body,
                           "\noncehook_events_total{source=\"stripe\",outcome=\"captured\"} 7\n"));
}

static void admin_needs_the_token_below_v1(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        "Authorization: right-token\r\n",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer \r\n",
        "Authorization: Bearer right-toke\r\n",
        "Authorization: Bearer right-token2\r\n",
        "Authorization: Bearer Right-token\r\n",
        "Authorization: Basic right-token\r\n",
    };
    static const char *const paths[] = {
        "/v1", "/v1/", "/v1/anything", "/%76%31/anything", "/v1%2fanything", "/v1/../metrics"};
    for (size_t p = 0; p < sizeof(paths) / sizeof(paths[0]); p++) {
        for (size_t w = 0; w < sizeof(wrong) / sizeof(wrong[0]); w++) {
            struct answer *answer = ask("GET", paths[p], wrong[w]);
            assert_problem(answer, 401);
            assert_non_null(strstr(answer->text, "WWW-Authenticate: Bearer"));
        }
        if (p > 0)
            assert_problem(ask("GET", paths[p], "Authorization: Bearer right-token\r\n"), 404);
        else
            assert_int_equal(ask("GET", "/v1", "authorization: bearer right-token\r\n")->status,
                             200);
    }
    fixture.config.admin.token.bytes = (struct oh_slice){"", 0};
    assert_problem(ask("GET", "/v1/anything", "Authorization: Bearer \r\n"), 401);
    fixture.config.admin.token.bytes = (struct oh_slice){NULL, 0};
    assert_problem(ask("GET", "/v1/anything", "Authorization: Bearer right-token\r\n"), 401);
}

static void admin_refuses_what_it_does_not_know(void **state)
{
    (void)state;
    assert_problem(ask("GET", "/", ""), 404);
    assert_problem(ask("GET", "/v1x", ""), 404);
    assert_problem(ask("GET", "/metrics/", ""), 404);
    struct answer *answer = ask("POST", "/metrics", "Content-Length: 0\r\n");
    assert_problem(answer, 405);
    assert_non_null(strstr(answer->text, "Allow: GET, HEAD"));
    assert_problem(ask("DELETE", "/health", ""), 405);
    answer = ask("HEAD", "/metrics", "");
    assert_int_equal(answer->status, 200);
    assert_string_equal(answer->body, "");
}

static void admin_names_no_server(void **state)
{
    (void)state;
    static const char *const paths[] = {"/metrics", "/nowhere", "/v1/x"};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        struct answer *answer = ask("GET", paths[i], "");
        assert_null(strcasestr(answer->text, "\r\nServer:"));
        assert_null(strcasestr(answer->text, "microhttpd"));
    }
    struct answer *answer = ask_raw("\x16\x03\x01 nonsense\r\n\r\n");
    assert_null(strcasestr(answer->text, "microhttpd"));
}

static void admin_bounds_a_requests_head(void **state)
{
    (void)state;
    static char headers[40000];
    int len = snprintf(headers, sizeof(headers), "GET /livez HTTP/1.1\r\nHost: x\r\nX: ");
    memset(headers + len, 'a', 30000);
    memcpy(headers + len + 30000, "\r\n\r\n", 5);
    assert_int_not_equal(ask_raw(headers)->status, 200);
    json_decref(ask_json("/livez", 200));
}

/* 256 connections that send a byte now and then, never a whole request: they are silent too short
 * for the library's timeout. Others get in again once they are 5 s old. */
static void admin_makes_room_when_clients_trickle(void **state)
{
    (void)state;
    enum { CLIENTS = 256 };
    int clients[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = dial();
        assert_true(send(clients[i], "GET /livez HTTP/1.1\r\nX: ", 24, MSG_NOSIGNAL) == 24);
    }
    int64_t start_us = clock_mono_us();
    int refused = 0;
    while (ask("GET", "/livez", "")->status != 200) {
        refused++;
        if (clock_mono_us() - start_us > 30000000)
            fail_msg("no room after 30 s");
        for (int i = 0; i < CLIENTS; i++)
            (void)!send(clients[i], "a", 1, MSG_NOSIGNAL);
        usleep(500000);
    }
    assert_true(refused > 0);
    for (int i = 0; i < CLIENTS; i++)
        close(clients[i]);
}

static void admin_is_absent_when_not_configured(void **state)
{
    (void)state;
    static const struct config none;
    struct admin *admin = (struct admin *)(void *)&gateway;
    assert_int_equal(admin_start(&none, NULL, NULL, &admin, NULL), OH_OK);
    assert_null(admin);
    assert_int_equal(admin_port(NULL), 0);
    admin_stop(NULL);
}

static void admin_says_why_it_cannot_listen(void **state)
{
    (void)state;
    static const struct admin_hooks hooks = {NULL, give_state};
    struct config taken = {.admin = {.listen = {"127.0.0.1", admin_port(fixture.admin)}}};
    struct admin *admin = NULL;
    struct oh_error err;
    assert_int_equal(admin_start(&taken, fixture.metrics, &hooks, &admin, &err), OH_SYSTEM);
    assert_null(admin);
    assert_non_null(strstr(err.text, "Address already in use"));
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, start, stop)
    const struct CMUnitTest tests[] = {
        CASE(admin_tells_alive_and_ready),
        CASE(admin_health_is_that_of_the_worst_part),
        CASE(admin_health_prints_numbers_as_people_do),
        CASE(admin_database_health_says_saturated_above_five),
        CASE(admin_database_health_is_degraded_without_one_lane),
        CASE(admin_database_health_answers_at_once_without_database),
        CASE(admin_metrics_are_prometheus_text),
        CASE(admin_needs_the_token_below_v1),
        CASE(admin_refuses_what_it_does_not_know),
        CASE(admin_names_no_server),
        CASE(admin_bounds_a_requests_head),
        CASE(admin_makes_room_when_clients_trickle),
        cmocka_unit_test(admin_is_absent_when_not_configured),
        CASE(admin_says_why_it_cannot_listen),
    };
    return cmocka_run_group_tests_name("admin", tests, NULL, NULL);
}
