/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of what a lane decides without a clock: batches are as long as they should be on a fast
 * and on a slow commit, a stall is forgotten, sources take turns, what is late leaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lane/pace.h"
#include "lane/spread.h"
#include "lane/turns.h"

#include <stdlib.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* ---- pace ------------------------------------------------------------------------------------ */

enum { MOST = 1000 };

/* A server whose batches take a fixed part and a part for each event. */
struct server {
    int64_t fixed_us, event_us;
};

/* Runs batches while more waits than one can hold; returns the size it comes to. */
static size_t run_full(struct pace *pace, struct server server, bool is_shared, int batches)
{
    size_t count = 0;
    for (int i = 0; i < batches; i++) {
        count = pace_batch_events(pace, is_shared, MOST);
        pace_note(pace, count, server.fixed_us + (int64_t)count * server.event_us);
    }
    return count;
}

static void pace_batches_are_whole_until_something_is_known(void **state)
{
    (void)state;
    struct pace pace = {0};
    assert_int_equal(pace_batch_events(&pace, false, MOST), MOST);
    assert_int_equal(pace_batch_events(&pace, false, 5), 5);
    pace_note(&pace, 3, 900); /* a small batch says nothing about what an event takes */
    assert_int_equal(pace_batch_events(&pace, false, MOST), MOST);
}

static void pace_batches_of_a_fast_commit_are_short(void **state)
{
    (void)state;
    struct pace pace = {0};
    size_t count = run_full(&pace, (struct server){1000, 100}, false, 50);
    assert_in_range(1000 + count * 100, PACE_BATCH_US / 2, PACE_BATCH_US * 3 / 2);
}

/* Without the fixed part a slow commit would make batches smaller, each event dearer, and batches
 * smaller again. */
static void pace_batches_of_a_slow_commit_stay_large(void **state)
{
    (void)state;
    const struct server slow = {50000, 100};
    struct pace calm_before = {0}, never_calm = {0};
    for (int i = 0; i < 20; i++)
        pace_note(&calm_before, 2, slow.fixed_us + 2 * slow.event_us);
    size_t counts[] = {run_full(&calm_before, slow, false, 200),
                       run_full(&never_calm, slow, false, 200)};
    for (int i = 0; i < 2; i++) {
        int64_t events_us = (int64_t)counts[i] * slow.event_us;
        assert_true(events_us * 3 >
                    slow.fixed_us * 2); /* at least 40 % of the time is for events */
    }
}

/* While several sources wait, each waits for the rest of a batch and for its own. */
static void pace_batches_are_shorter_while_several_sources_wait(void **state)
{
    (void)state;
    const struct server servers[] = {{1000, 50}, {1000, 400}, {0, 100}};
    for (size_t i = 0; i < sizeof(servers) / sizeof(servers[0]); i++) {
        struct pace pace = {0};
        for (int calm = 1; calm < 20; calm++)
            pace_note(&pace, (size_t)calm, servers[i].fixed_us + calm * servers[i].event_us);
        size_t alone = run_full(&pace, servers[i], false, 50);
        size_t shared = run_full(&pace, servers[i], true, 200);
        assert_true(shared < alone);
        int64_t least_us = servers[i].fixed_us + PACE_LARGE_BATCH * servers[i].event_us;
        int64_t most_us = least_us > PACE_SHARED_US ? least_us : PACE_SHARED_US;
        assert_in_range(servers[i].fixed_us + (int64_t)shared * servers[i].event_us, 1, most_us);
    }
    /* Where the commit itself is slow they stay large all the same. */
    struct pace distant = {0};
    const struct server slow = {50000, 100};
    size_t shared = run_full(&distant, slow, true, 200);
    assert_true((int64_t)shared * slow.event_us * 3 > slow.fixed_us);
}

/* An event that takes long is no slow commit: large batches gain nothing there. */
static void pace_tells_slow_events_from_a_slow_commit(void **state)
{
    (void)state;
    struct pace pace = {0};
    (void)run_full(&pace, (struct server){500, 1000}, true, 200);
    assert_in_range(pace.fixed_us, 0, 5000);
    struct pace distant = {0};
    (void)run_full(&distant, (struct server){80000, 10}, true, 200);
    assert_in_range(distant.fixed_us, 70000, 90000);
}

static void pace_of_a_stall_is_forgotten(void **state)
{
    (void)state;
    struct pace pace = {0};
    (void)run_full(&pace, (struct server){1000, 100}, false, 20);
    pace_note(&pace, 300, 5000000); /* five seconds */
    assert_true(pace.event_ns > 1000000);
    (void)run_full(&pace, (struct server){1000, 100}, false, 60);
    assert_in_range(pace.event_ns, 100000, 130000);
    pace_note(&pace, 300, 5000000);
    for (int i = 0; i < 60; i++) /* in calm, too */
        pace_note(&pace, 1, 900);
    assert_in_range(pace.event_ns, 0, 900000);
}

/* The first batch of a connection plans and reads catalogs. Nothing but single events follows. */
static void pace_of_a_cold_start_is_forgotten(void **state)
{
    (void)state;
    struct pace pace = {0};
    pace_note(&pace, 1, 30000);
    assert_int_equal(pace.fixed_us, 30000);
    for (int i = 0; i < 40; i++)
        pace_note(&pace, 1, 900);
    assert_in_range(pace.fixed_us, 900, 2000);
    for (int i = 0; i < 40; i++) /* a standby is waited for from now on */
        pace_note(&pace, 1, 20900);
    assert_in_range(pace.fixed_us, 19000, 20900);
    for (int i = 0; i < 40; i++) /* batches of one size tell only what it cannot be */
        pace_note(&pace, 10, 1500);
    assert_in_range(pace.fixed_us, 1, 2000);
}

/* A lane that was held up once, and then rested, does not refuse what comes hours later. */
static void pace_of_a_stall_is_forgotten_at_rest(void **state)
{
    (void)state;
    struct pace pace = {0};
    pace_note(&pace, 40, 1000000);
    assert_int_equal(pace.event_ns, 25000000);
    for (int i = 0; i < 120; i++) /* a minute */
        pace_rest(&pace);
    assert_int_equal(pace_batch_events(&pace, false, MOST), PACE_LARGE_BATCH);
    pace_note(&pace, 40, 4000);
    assert_in_range(pace.event_ns, 90000, 110000);
}

/* What is left of the batch, what is before a newcomer, its own batch, and half as much more. */
static void pace_wait_is_what_stands_before_a_newcomer(void **state)
{
    (void)state;
    enum { EVENT_NS = 100000, BATCH = 200 }; /* 20 ms */
    assert_int_equal(pace_wait_us(EVENT_NS, 0, 0, 0, 0), 0);
    assert_int_equal(pace_wait_us(EVENT_NS, 0, BATCH, 0, 0), 60000);
    assert_int_equal(pace_wait_us(EVENT_NS, 0, BATCH, 15000, 0), 37500);
    assert_int_equal(pace_wait_us(EVENT_NS, 0, BATCH, 15000, 400), 97500);
}

/* A batch that does not come back is not one that comes back now. */
static void pace_wait_grows_while_a_batch_is_late(void **state)
{
    (void)state;
    enum { EVENT_NS = 100000, BATCH = 200, EXPECTED_US = 20000 };
    int64_t in_time_us = pace_wait_us(EVENT_NS, 1000, BATCH, EXPECTED_US, 100);
    int64_t before_us = in_time_us;
    for (int64_t late_us = 10000; late_us <= 200000; late_us += 10000) {
        int64_t wait_us = pace_wait_us(EVENT_NS, 1000, BATCH, EXPECTED_US + late_us, 100);
        assert_true(wait_us > before_us);
        assert_int_equal(wait_us - in_time_us, late_us);
        before_us = wait_us;
    }
}

/* A distant server, or one that waits for a standby, is not an overloaded one: what waits there is
 * taken however long a batch has been away, as long as it is not late. */
static void pace_wait_of_a_distant_server_is_no_overload(void **state)
{
    (void)state;
    enum { AGE_US = 150000 }; /* queue.age */
    struct pace small = {0}, large = {0};
    for (int i = 0; i < 40; i++)
        pace_note(&small, (size_t)(2 + i % 4), 120000);
    for (int64_t elapsed_us = 0; elapsed_us <= 130000; elapsed_us += 10000)
        assert_in_range(pace_wait_us(small.event_ns, small.fixed_us, 4, elapsed_us, 3), 0, AGE_US);
    /* Nothing is learned yet, or not what a batch takes beside its events. */
    assert_int_equal(pace_wait_us(0, 0, 1, 130000, 3), 0);
    assert_in_range(pace_wait_us(50000, 0, 10, 130000, 3), 0, 2000);
    for (int i = 0; i < 80; i++)
        pace_note(&large, (size_t)(100 + 20 * (i % 6)), 55000 + 10 * (i % 6));
    for (size_t ms = 0; ms <= 55; ms += 5) /* as many come as it takes */
        assert_in_range(
            pace_wait_us(large.event_ns, large.fixed_us, 150, (int64_t)ms * 1000, 150 * ms / 55), 0,
            AGE_US);
}

/* The spool is drained in large batches while nobody waits and they lock nothing, and in small ones
 * else. */
static void pace_shares_a_batch_with_the_spool(void **state)
{
    (void)state;
    static const struct {
        size_t batches_without_locks, most;
        bool has_fresh, has_drained;
        struct pace_shares want;
    } cases[] = {
        {9, 400, true, false, {400, 128}},   {9, 400, true, true, {374, 128}},
        {9, 32, true, true, {29, 128}},      {9, 1, true, true, {1, 128}},
        {9, 400, false, true, {400, 400}},   {9, 1000, false, true, {1000, 512}},
        {9, 32, false, true, {32, 128}},     {0, 1000, false, true, {1000, 128}},
        {1, 1000, false, true, {1000, 256}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pace pace = {0};
        for (int n = 0; n < 9; n++)
            pace_note_locks(&pace, false);
        pace_note_locks(&pace, true);
        for (size_t n = 0; n < cases[i].batches_without_locks; n++)
            pace_note_locks(&pace, false);
        struct pace_shares got =
            pace_share(&pace, cases[i].most, cases[i].has_fresh, cases[i].has_drained);
        assert_int_equal(got.fresh, cases[i].want.fresh);
        assert_int_equal(got.drained, cases[i].want.drained);
    }
}

/* ---- spread ---------------------------------------------------------------------------------- */

static uint32_t lanes_in_use(struct spread *spread)
{
    return spread->in_use;
}

/* The first lane's batches, of so many events of instances 1, 2, 3 … */
static void gather(struct spread *spread, int batches, size_t events)
{
    uint64_t hashes[SPREAD_LOAD_MAX];
    for (size_t i = 0; i < events; i++)
        hashes[i] = XXH3_64bits(&i, sizeof(i));
    for (int i = 0; i < batches; i++)
        spread_note(spread, hashes, events, 0, false, 1000);
}

static void spread_is_over_one_while_events_are_few(void **state)
{
    (void)state;
    for (uint32_t lanes = 2; lanes <= 256; lanes *= 2) {
        struct spread spread = {.lanes = lanes, .in_use = lanes};
        gather(&spread, 1, SPREAD_JOIN_EVENTS - 1);
        assert_int_equal(lanes_in_use(&spread), 1);
        for (uint64_t i = 0; i < 1000; i++)
            assert_int_equal(spread_choose(&spread, XXH3_64bits(&i, sizeof(i)), 1, 0), 0);
        gather(&spread, 1, SPREAD_EVENTS - 1); /* one lane makes larger ones of the same */
        assert_int_equal(lanes_in_use(&spread), 1);
        gather(&spread, 1, SPREAD_EVENTS);
        assert_int_equal(lanes_in_use(&spread), lanes);
        /* Some small ones, not the first, and soon, whatever there was. */
        gather(&spread, 1, SPREAD_LOAD_MAX);
        int batches = 0;
        while (lanes_in_use(&spread) != 1 && batches < 1000) {
            gather(&spread, 1, 1);
            batches++;
        }
        assert_in_range(batches, 4, 40);
    }
}

/* Each reason by itself, and each stays for some batches. */
static void spread_is_over_all_when_one_is_not_enough(void **state)
{
    (void)state;
    for (int reason = 0; reason < 6; reason++) {
        struct spread spread = {.lanes = 2, .in_use = 2};
        uint64_t hash = 7;
        gather(&spread, 1, 1);
        assert_int_equal(lanes_in_use(&spread), 1);
        if (reason == 0)
            spread_note(&spread, &hash, 1, 0, true, 1000);
        else if (reason == 1)
            spread_note(&spread, &hash, 1, SPREAD_EVENTS, false, 1000);
        else if (reason == 2)
            spread_note(&spread, &hash, 1, 0, false, SPREAD_FIXED_US);
        else if (reason == 3)
            spread_let_go(&spread);
        else
            (void)spread_choose(&spread, hash, reason == 4 ? SPREAD_EVENTS : 1,
                                reason == 5 ? SPREAD_HELD_UP_US + 1 : 0);
        assert_int_equal(lanes_in_use(&spread), 2);
        if (reason < 4) {
            gather(&spread, 1, 1);
            assert_int_equal(lanes_in_use(&spread), 2);
        }
        gather(&spread, 40, 1);
        assert_int_equal(lanes_in_use(&spread), 1);
    }
}

static size_t count_elsewhere(struct spread *spread, uint64_t instances)
{
    size_t count = 0;
    for (uint64_t i = 0; i < instances; i++)
        count += spread_choose(spread, XXH3_64bits(&i, sizeof(i)), 1, 0) != 0;
    return count;
}

/* Which instances go elsewhere while the first lane is held up: none of those that it is held up
 * with, nearly all others whose hash says so; and all of these once it is free. */
static void spread_keeps_what_is_held_up_in_one_lane(void **state)
{
    (void)state;
    enum { HELD = 40, ALL = 4000 };
    struct spread spread = {.lanes = 2, .in_use = 2};
    gather(&spread, 2, HELD);
    size_t elsewhere = 0;
    for (uint64_t i = 0; i < ALL; i++) {
        uint64_t hash = XXH3_64bits(&i, sizeof(i));
        uint32_t lane = spread_choose(&spread, hash, 1, SPREAD_HELD_UP_US + 1);
        assert_true(i >= HELD || lane == 0);
        elsewhere += lane == 1;
    }
    assert_in_range(elsewhere, ALL * 2 / 5, ALL / 2 + 100);
    /* What was left in the queue is kept in the next batch, and nothing after it: else what comes
       while it is would never leave the first lane. */
    struct spread never = {.lanes = 2, .in_use = 2};
    uint64_t one = HELD + 1, hash = XXH3_64bits(&one, sizeof(one));
    spread_note(&spread, &hash, 1, 0, true, 1000);
    assert_int_equal(spread_choose(&spread, hash, 1, 0), 0);
    spread_note(&spread, &hash, 1, 0, true, 1000);
    assert_int_equal(count_elsewhere(&spread, ALL), count_elsewhere(&never, ALL));
    /* Nothing of a lost connection is kept. */
    gather(&spread, 100, 1);
    gather(&spread, 1, HELD);
    assert_int_equal(lanes_in_use(&spread), 1);
    spread_let_go(&spread);
    assert_int_equal(count_elsewhere(&spread, ALL), count_elsewhere(&never, ALL));
}

/* ---- turns ----------------------------------------------------------------------------------- */

enum { SOURCES = 3 };

struct fixture {
    struct turns turns;
    struct delivery deliveries[16];
    struct delivery_event events[16];
    int count;
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    *state = fixture;
    return fixture && turns_init(&fixture->turns, SOURCES) ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    turns_free(&fixture->turns);
    free(fixture);
    return 0;
}

/* Event number n of the fixture, accepted at n and late at 100 + n. */
static void put(struct fixture *fixture, uint32_t source, int count)
{
    struct list events;
    list_init(&events);
    for (int i = 0; i < count; i++) {
        int n = fixture->count++;
        struct delivery_event *event = &fixture->events[n];
        event->delivery = &fixture->deliveries[n];
        fixture->deliveries[n].accepted_mono_us = n + 1;
        fixture->deliveries[n].deadline_mono_us = 100 + n;
        list_push_tail(&events, &event->link);
    }
    turns_put(&fixture->turns, source, &events, (size_t)count);
}

static int take(struct fixture *fixture)
{
    struct delivery_event *event = turns_next(&fixture->turns);
    if (!event)
        return -1;
    turns_take(&fixture->turns);
    return (int)(event - fixture->events);
}

static void turns_go_round(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, 0, 4); /* 0 1 2 3 */
    put(fixture, 2, 2); /* 4 5 */
    put(fixture, 1, 1); /* 6 */
    const int expected[] = {0, 4, 6, 1, 5, 2, 3, -1};
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
        assert_int_equal(take(fixture), expected[i]);
    assert_true(turns_is_empty(&fixture->turns));
}

static void turns_say_what_comes_before(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, 0, 10);
    put(fixture, 1, 2);
    assert_int_equal(turns_before(&fixture->turns, 2), 0);
    assert_int_equal(turns_before(&fixture->turns, 1), 4);
    assert_int_equal(turns_before(&fixture->turns, 0), 12);
    assert_int_equal(turns_oldest_us(&fixture->turns, 50), 49);
    assert_int_equal(take(fixture), 0);
    assert_int_equal(turns_oldest_us(&fixture->turns, 50), 48);
    while (take(fixture) >= 0)
        continue;
    assert_int_equal(turns_before(&fixture->turns, 0), 0);
    assert_int_equal(turns_oldest_us(&fixture->turns, 50), 0);
}

static void turns_let_go_what_is_late(void **state)
{
    struct fixture *fixture = *state;
    struct list late;
    list_init(&late);
    put(fixture, 0, 3); /* late at 100 101 102 */
    put(fixture, 1, 2); /* late at 103 104 */
    turns_expire(&fixture->turns, false, 101, &late);
    assert_ptr_equal(list_pop_head(&late), &fixture->events[0].link);
    assert_ptr_equal(list_pop_head(&late), &fixture->events[1].link);
    assert_null(list_pop_head(&late));
    assert_int_equal(take(fixture), 2);
    turns_expire(&fixture->turns, true, 0, &late);
    assert_ptr_equal(list_pop_head(&late), &fixture->events[3].link);
    assert_true(turns_is_empty(&fixture->turns));
    assert_int_equal(fixture->turns.events, 0);
    assert_int_equal(fixture->turns.waiting, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pace_batches_are_whole_until_something_is_known),
        cmocka_unit_test(pace_batches_of_a_fast_commit_are_short),
        cmocka_unit_test(pace_batches_of_a_slow_commit_stay_large),
        cmocka_unit_test(pace_batches_are_shorter_while_several_sources_wait),
        cmocka_unit_test(pace_tells_slow_events_from_a_slow_commit),
        cmocka_unit_test(pace_of_a_stall_is_forgotten),
        cmocka_unit_test(pace_of_a_cold_start_is_forgotten),
        cmocka_unit_test(pace_of_a_stall_is_forgotten_at_rest),
        cmocka_unit_test(pace_wait_is_what_stands_before_a_newcomer),
        cmocka_unit_test(pace_wait_grows_while_a_batch_is_late),
        cmocka_unit_test(pace_wait_of_a_distant_server_is_no_overload),
        cmocka_unit_test(pace_shares_a_batch_with_the_spool),
        cmocka_unit_test(spread_is_over_one_while_events_are_few),
        cmocka_unit_test(spread_is_over_all_when_one_is_not_enough),
        cmocka_unit_test(spread_keeps_what_is_held_up_in_one_lane),
        cmocka_unit_test_setup_teardown(turns_go_round, set_up, tear_down),
        cmocka_unit_test_setup_teardown(turns_say_what_comes_before, set_up, tear_down),
        cmocka_unit_test_setup_teardown(turns_let_go_what_is_late, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
