/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of delivery and of the recent filter: equal keys are found whatever their place, the
 * last decision is told once, bounds hold, a key is known only after its commit and not after a
 * reconnect. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/slice.h"
#include "delivery/delivery.h"
#include "lane/recent.h"

#include <stdio.h>
#include <stdlib.h>

static struct config_source source = {
    .name = "s", .scope_id = "provider:p", .scope_other = "source:s", .ack_deadline_ms = 3000};

static struct delivery *new_delivery(const char *body)
{
    struct oh_arena *arena = oh_arena_new(256, 1 << 20);
    struct oh_header header = {SLICE_LITERAL("X-Id"), SLICE_LITERAL("7")};
    struct oh_request request = {.method = SLICE_LITERAL("POST"),
                                 .url = SLICE_LITERAL("/in/s"),
                                 .headers = &header,
                                 .header_count = 1,
                                 .body = slice_of_text(body)};
    struct delivery *delivery = delivery_new(arena, &source, &request, 1, 2);
    assert_non_null(delivery);
    return delivery;
}

static void take_keys(struct delivery *delivery, const char *const *keys,
                      const enum oh_key_grade *grades, uint32_t count)
{
    struct oh_event *events = oh_arena_alloc(delivery->arena, count * sizeof(*events));
    memset(events, 0, count * sizeof(*events));
    for (uint32_t i = 0; i < count; i++) {
        events[i].key = slice_of_text(keys[i]);
        events[i].grade = grades ? grades[i] : OH_GRADE_ID;
    }
    struct oh_extraction extraction = {events, count};
    assert_int_equal(delivery_take_events(delivery, &extraction), OH_OK);
}

static void delivery_copies_the_request(void **state)
{
    (void)state;
    char body[] = "{\"a\":1}";
    struct delivery *delivery = new_delivery(body);
    memset(body, 'x', sizeof(body) - 1);
    assert_memory_equal(delivery->request.body.data, "{\"a\":1}", 7);
    assert_memory_equal(delivery->request.headers[0].name.data, "X-Id", 4);
    assert_int_equal(delivery->deadline_mono_us, 2 + 3000 * 1000);
    delivery_free(delivery);
}

static void delivery_finds_equal_keys_of_one_scope(void **state)
{
    (void)state;
    const char *keys[] = {"a", "b", "a", "c", "b", "a"};
    struct delivery *delivery = new_delivery("[]");
    take_keys(delivery, keys, NULL, 6);
    assert_int_equal(delivery->duplicates_within, 3);
    assert_int_equal(atomic_load(&delivery->waiting), 3);
    assert_int_equal(delivery->events[2].outcome, DELIVERY_DUPLICATE);
    assert_int_equal(delivery->events[0].outcome, DELIVERY_UNDECIDED);
    assert_int_equal(atomic_load(&delivery->outcomes[DELIVERY_DUPLICATE]), 3);
    delivery_free(delivery);
}

static void delivery_keeps_equal_keys_of_two_scopes_apart(void **state)
{
    (void)state;
    const char *keys[] = {"a", "a"};
    const enum oh_key_grade grades[] = {OH_GRADE_ID, OH_GRADE_COMPOSITE};
    struct delivery *delivery = new_delivery("[]");
    take_keys(delivery, keys, grades, 2);
    assert_int_equal(delivery->duplicates_within, 0);
    assert_string_equal(delivery->events[0].scope.data, "provider:p");
    assert_string_equal(delivery->events[1].scope.data, "source:s");
    delivery_free(delivery);
}

static void delivery_finds_equal_keys_among_many(void **state)
{
    (void)state;
    enum { N = 5000 };
    char(*texts)[16] = calloc(N, sizeof(*texts));
    const char **keys = calloc(N, sizeof(*keys));
    for (int i = 0; i < N; i++) {
        snprintf(texts[i], sizeof(texts[i]), "k%d", i % 1700);
        keys[i] = texts[i];
    }
    struct oh_arena *arena = oh_arena_new(1024, 16 << 20);
    struct oh_request request = {.body = SLICE_LITERAL("[]")};
    struct delivery *delivery = delivery_new(arena, &source, &request, 1, 2);
    take_keys(delivery, keys, NULL, N);
    assert_int_equal(delivery->duplicates_within, N - 1700);
    delivery_free(delivery);
    free(texts);
    free(keys);
}

static void delivery_tells_the_last_decision_once(void **state)
{
    (void)state;
    const char *keys[] = {"a", "b", "c"};
    struct delivery *delivery = new_delivery("[]");
    take_keys(delivery, keys, NULL, 3);
    assert_false(delivery_decide(&delivery->events[1], DELIVERY_CAPTURED));
    assert_false(delivery_decide(&delivery->events[0], DELIVERY_ORPHAN));
    assert_true(delivery_decide(&delivery->events[2], DELIVERY_UNDECIDED));
    assert_int_equal(atomic_load(&delivery->outcomes[DELIVERY_CAPTURED]), 1);
    assert_int_equal(atomic_load(&delivery->outcomes[DELIVERY_UNDECIDED]), 1);
    delivery_free(delivery);
}

static void admission_keeps_its_bounds(void **state)
{
    (void)state;
    struct config config = {.source_count = 1, .sources = &source};
    config.queue.events = 10;
    config.queue.bytes = 1 << 20;
    config.queue.share_percent = 50;
    struct admission *admission = admission_new(&config);
    struct delivery delivery = {.source = &source, .event_count = 3, .bytes = 100};
    assert_int_equal(admission_enter(admission, &delivery), ADMISSION_OK);
    assert_int_equal(admission_enter(admission, &delivery), ADMISSION_SHARE);
    assert_int_equal(admission_events(admission), 3);
    admission_leave(admission, &delivery);
    assert_int_equal(admission_events(admission), 0);
    delivery.event_count = 9; /* beyond the share, but its source holds nothing else */
    assert_int_equal(admission_enter(admission, &delivery), ADMISSION_OK);
    assert_int_equal(admission_enter(admission, &delivery), ADMISSION_FULL);
    delivery.event_count = 11;
    assert_int_equal(admission_enter(admission, &delivery), ADMISSION_TOO_LARGE);
    admission_free(admission);
}

static void admission_bounds_bytes(void **state)
{
    (void)state;
    struct config config = {.source_count = 1, .sources = &source};
    config.queue.events = 1000;
    config.queue.bytes = 1000;
    config.queue.share_percent = 100;
    struct admission *admission = admission_new(&config);
    struct delivery delivery = {.source = &source, .event_count = 1, .bytes = 5000};
    assert_int_equal(admission_enter(admission, &delivery), ADMISSION_OK); /* alone it passes */
    assert_int_equal(admission_enter(admission, &delivery), ADMISSION_FULL);
    admission_free(admission);
}

static void recent_knows_whole_keys_after_learning_only(void **state)
{
    (void)state;
    const char *keys[] = {"a", "b"};
    struct delivery *delivery = new_delivery("[]");
    take_keys(delivery, keys, NULL, 2);
    struct recent *recent = recent_new();
    assert_false(recent_has(recent, &delivery->events[0], 100));
    recent_learn(recent, recent_generation(recent), &delivery->events[0], 100);
    assert_true(recent_has(recent, &delivery->events[0], 100));
    assert_false(recent_has(recent, &delivery->events[1], 100));
    delivery->events[1].key_hash = delivery->events[0].key_hash; /* a collision of hashes */
    assert_false(recent_has(recent, &delivery->events[1], 100));
    struct delivery_event other_scope = delivery->events[0];
    other_scope.scope = SLICE_LITERAL("source:t");
    assert_false(recent_has(recent, &other_scope, 100));
    assert_false(recent_has(recent, &delivery->events[0], 100 + RECENT_SECONDS));
    recent_free(recent);
    delivery_free(delivery);
}

static void recent_forgets_at_a_reconnect(void **state)
{
    (void)state;
    const char *keys[] = {"a"};
    struct delivery *delivery = new_delivery("[]");
    take_keys(delivery, keys, NULL, 1);
    struct recent *recent = recent_new();
    uint64_t before = recent_generation(recent);
    recent_learn(recent, before, &delivery->events[0], 1);
    recent_forget(recent);
    assert_false(recent_has(recent, &delivery->events[0], 1));
    /* A batch that was sent before the reconnect and answered after it teaches nothing. */
    recent_learn(recent, before, &delivery->events[0], 1);
    assert_false(recent_has(recent, &delivery->events[0], 1));
    recent_free(recent);
    delivery_free(delivery);
}

static void recent_notices_a_composite_under_a_new_id(void **state)
{
    (void)state;
    const char *keys[] = {"first", "second", "first"};
    struct delivery *delivery = new_delivery("[]");
    take_keys(delivery, keys, NULL, 3);
    for (int i = 0; i < 3; i++) {
        struct oh_event *event = (struct oh_event *)(uintptr_t)delivery->events[i].event;
        event->has_composite = true;
        event->composite[0] = 5;
        event->composite[1] = 6;
    }
    struct recent *recent = recent_new();
    uint64_t generation = recent_generation(recent);
    assert_false(recent_learn(recent, generation, &delivery->events[0], 1));
    assert_false(recent_learn(recent, generation, &delivery->events[2], 1)); /* the same id */
    assert_true(recent_learn(recent, generation, &delivery->events[1], 1));
    recent_free(recent);
    delivery_free(delivery);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delivery_copies_the_request),
        cmocka_unit_test(delivery_finds_equal_keys_of_one_scope),
        cmocka_unit_test(delivery_keeps_equal_keys_of_two_scopes_apart),
        cmocka_unit_test(delivery_finds_equal_keys_among_many),
        cmocka_unit_test(delivery_tells_the_last_decision_once),
        cmocka_unit_test(admission_keeps_its_bounds),
        cmocka_unit_test(admission_bounds_bytes),
        cmocka_unit_test(recent_knows_whole_keys_after_learning_only),
        cmocka_unit_test(recent_forgets_at_a_reconnect),
        cmocka_unit_test(recent_notices_a_composite_under_a_new_id),
    };
    return cmocka_run_group_tests_name("delivery", tests, NULL, NULL);
}
