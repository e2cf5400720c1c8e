/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of the record's format and of the marks: what is written is read again, whatever was cut
 * off is noticed, credentials are not kept, a record does not verify in another's place, a torn
 * mark gives the number before; and how long a disk that does not read is waited for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/slice.h"
#include "spool/mark.h"
#include "spool/patience.h"
#include "spool/record.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct config_source source = {
    .name = "shop", .provider = "hmac", .scope_id = "source:shop", .scope_other = "source:shop"};

struct bench {
    struct oh_arena *arena;
    struct delivery *delivery;
    struct record_buffer buffer;
    struct record record;
    struct oh_error err;
};

static int setup(void **state)
{
    static const struct oh_header headers[] = {
        {SLICE_LITERAL("Content-Type"), SLICE_LITERAL("text/plain")},
        {SLICE_LITERAL("Authorization"), SLICE_LITERAL("Bearer PLANTED")},
        {SLICE_LITERAL("X-Api-Key"), SLICE_LITERAL("PLANTED")},
    };
    struct bench *bench = calloc(1, sizeof(*bench));
    struct oh_request request = {.method = SLICE_LITERAL("POST"),
                                 .url = SLICE_LITERAL("/in/shop?a=1&token=PLANTED"),
                                 .headers = headers,
                                 .header_count = 3,
                                 .body = SLICE_LITERAL("[\0\xff]")};
    bench->arena = oh_arena_new(4096, 1 << 20);
    bench->delivery = delivery_new(bench->arena, &source, &request, 1700000000000000, 5);
    *state = bench;
    return 0;
}

static int teardown(void **state)
{
    struct bench *bench = *state;
    record_buffer_free(&bench->buffer);
    oh_arena_free(bench->arena);
    free(bench);
    return 0;
}

static enum oh_status encode_and_decode(struct bench *bench)
{
    assert_int_equal(record_encode(&bench->buffer, &bench->delivery->events[0]), OH_OK);
    return record_decode(slice_of(bench->buffer.bytes, bench->buffer.len), bench->arena,
                         &bench->record, &bench->err);
}

static void take_event(struct bench *bench, struct oh_slice payload)
{
    struct oh_event *event = oh_arena_alloc(bench->arena, sizeof(*event));
    *event = (struct oh_event){.key = SLICE_LITERAL("composite:12"),
                               .grade = OH_GRADE_COMPOSITE,
                               .type = OH_EVENT_OTHER,
                               .channel = OH_CHANNEL_PHONE,
                               .provider_type = SLICE_LITERAL(""),
                               .occurred_at_us = -5,
                               .enrollment_id = {1, 2, 3},
                               .has_enrollment = true,
                               .raw = SLICE_LITERAL("a=1&b=2"),
                               .payload = payload};
    struct oh_extraction extraction = {event, 1};
    assert_int_equal(delivery_take_events(bench->delivery, &extraction), OH_OK);
}

static void record_keeps_an_event(void **state)
{
    static const struct oh_slice payloads[] = {
        {NULL, 0}, SLICE_LITERAL("a=1&b=2"), SLICE_LITERAL("{\"a\":1,\"b\":2}"), SLICE_LITERAL("")};
    struct bench *bench = *state;
    for (size_t i = 0; i < sizeof(payloads) / sizeof(payloads[0]); i++) {
        take_event(bench, payloads[i]);
        assert_int_equal(encode_and_decode(bench), OH_OK);
        const struct delivery *delivery = bench->record.delivery;
        const struct oh_event *event = delivery->events[0].event;
        assert_true(slice_equals(bench->record.source, SLICE_LITERAL("shop")));
        assert_true(slice_equals(bench->record.provider, SLICE_LITERAL("hmac")));
        assert_memory_equal(delivery->id, bench->delivery->id, 16);
        assert_int_equal(delivery->accepted_wall_us, 1700000000000000);
        assert_true(slice_equals(delivery->events[0].scope, SLICE_LITERAL("source:shop")));
        assert_int_equal(delivery->events[0].key_hash, bench->delivery->events[0].key_hash);
        assert_true(slice_equals(event->key, SLICE_LITERAL("composite:12")));
        assert_int_equal(event->grade, OH_GRADE_COMPOSITE);
        assert_int_equal(event->type, OH_EVENT_OTHER);
        assert_int_equal(event->channel, OH_CHANNEL_PHONE);
        assert_non_null(event->provider_type.data);
        assert_int_equal(event->occurred_at_us, -5);
        assert_true(event->has_enrollment && !event->has_instance);
        assert_int_equal(event->enrollment_id[2], 3);
        assert_true(slice_equals(event->raw, SLICE_LITERAL("a=1&b=2")));
        assert_true(slice_equals(event->payload, payloads[i]));
        assert_int_equal(event->payload.data == NULL, payloads[i].data == NULL);
    }
}

static void record_keeps_an_unreadable_delivery_without_credentials(void **state)
{
    struct bench *bench = *state;
    assert_int_equal(delivery_take_unreadable(bench->delivery, "no JSON"), OH_OK);
    assert_int_equal(encode_and_decode(bench), OH_OK);
    const struct delivery *delivery = bench->record.delivery;
    assert_null(delivery->events[0].event);
    assert_string_equal(delivery->unreadable, "no JSON");
    assert_true(slice_equals(delivery->request.method, SLICE_LITERAL("POST")));
    assert_true(slice_equals(delivery->request.body, SLICE_LITERAL("[\0\xff]")));
    assert_true(slice_equals(delivery->request.url, SLICE_LITERAL("/in/shop?a=1&token=****")));
    assert_int_equal(delivery->request.header_count, 3);
    assert_true(slice_equals(delivery->request.headers[0].value, SLICE_LITERAL("text/plain")));
    assert_null(memmem(bench->buffer.bytes, bench->buffer.len, "PLANTED", 7));
}

static void record_that_is_cut_or_longer_is_unreadable(void **state)
{
    struct bench *bench = *state;
    take_event(bench, SLICE_LITERAL("{}"));
    assert_int_equal(encode_and_decode(bench), OH_OK);
    for (size_t len = 0; len < bench->buffer.len; len++) {
        char *cut = malloc(len + 1); /* exact, so that a read beyond is seen */
        memcpy(cut, bench->buffer.bytes, len);
        char *exact = realloc(cut, len ? len : 1);
        assert_int_equal(
            record_decode(slice_of(exact, len), bench->arena, &bench->record, &bench->err),
            OH_UNREADABLE);
        free(exact);
    }
    char *longer = calloc(1, bench->buffer.len + 1);
    memcpy(longer, bench->buffer.bytes, bench->buffer.len);
    assert_int_equal(record_decode(slice_of(longer, bench->buffer.len + 1), bench->arena,
                                   &bench->record, &bench->err),
                     OH_UNREADABLE);
    free(longer);
}

static void record_of_another_version_is_named(void **state)
{
    struct bench *bench = *state;
    take_event(bench, SLICE_LITERAL("{}"));
    assert_int_equal(encode_and_decode(bench), OH_OK);
    bench->buffer.bytes[0] = 2;
    assert_int_equal(record_decode(slice_of(bench->buffer.bytes, bench->buffer.len), bench->arena,
                                   &bench->record, &bench->err),
                     OH_UNREADABLE);
    assert_non_null(strstr(bench->err.text, "format 2"));
}

static void record_does_not_verify_in_another_place(void **state)
{
    (void)state;
    uint8_t one[RECORD_HASH_BYTES], two[RECORD_HASH_BYTES];
    record_hash(1, SLICE_LITERAL("same"), one);
    record_hash(2, SLICE_LITERAL("same"), two);
    assert_memory_not_equal(one, two, sizeof(one));
    record_hash(1, SLICE_LITERAL("same"), two);
    assert_memory_equal(one, two, sizeof(one));
}

/* A new directory with a mark "m" that says 10. */
static int make_mark(char *path, struct mark *mark)
{
    assert_non_null(mkdtemp(path));
    int directory = open(path, O_RDONLY | O_DIRECTORY);
    assert_int_equal(mark_load(mark, directory, "m"), MARK_ABSENT);
    assert_true(mark_save(mark, 10));
    return directory;
}

/* On a full disk nothing new can be made, and the drain must still be able to say how far it is:
 * else what is drained is never deleted, and the disk stays full. */
static void mark_loaded_is_saved_where_no_file_can_be_made(void **state)
{
    (void)state;
    char path[] = "/tmp/oncehook-mark-XXXXXX";
    struct mark mark;
    int directory = make_mark(path, &mark);
    mark_close(&mark);
    assert_int_equal(mkdirat(directory, "m.new", 0700), 0); /* stands in the way of a new file */
    assert_int_equal(mark_load(&mark, directory, "m"), MARK_FINE);
    assert_true(mark_save(&mark, 11));
    assert_true(mark_save(&mark, 12));
    mark_close(&mark);
    assert_int_equal(mark_load(&mark, directory, "m"), MARK_FINE);
    assert_int_equal(mark.number, 12);
    mark_close(&mark);
    assert_int_equal(unlinkat(directory, "m.new", AT_REMOVEDIR), 0);
    assert_int_equal(unlinkat(directory, "m", 0), 0);
    close(directory);
    rmdir(path);
}

static void mark_torn_gives_the_number_before(void **state)
{
    (void)state;
    char path[] = "/tmp/oncehook-mark-XXXXXX";
    struct mark mark;
    int directory = make_mark(path, &mark);
    assert_true(mark_save(&mark, 20));
    assert_true(mark_save(&mark, 30));
    off_t newest = (off_t)(mark.sequence % 2) * 4096;
    mark_close(&mark);
    assert_int_equal(mark_load(&mark, directory, "m"), MARK_FINE);
    assert_int_equal(mark.number, 30);
    mark_close(&mark);

    int fd = openat(directory, "m", O_RDWR);
    assert_int_equal(pwrite(fd, "\0\0\0\0", 4, newest + 16), 4); /* in its number */
    close(fd);
    assert_int_equal(mark_load(&mark, directory, "m"), MARK_DOUBTFUL);
    assert_int_equal(mark.number, 20);
    assert_true(mark_save(&mark, 31)); /* a new file: both slots verify again */
    mark_close(&mark);
    assert_int_equal(mark_load(&mark, directory, "m"), MARK_FINE);
    assert_int_equal(mark.number, 31);
    mark_close(&mark);
    assert_int_equal(unlinkat(directory, "m", 0), 0);
    close(directory);
    rmdir(path);
}

/* ---- patience -------------------------------------------------------------------------------- */

enum { MOST_US = 1000 };

static bool tries(struct patience *patience, enum segment_result result, uint64_t number,
                  int64_t now_us)
{
    return patience_tries_again(patience, result, number, now_us, MOST_US);
}

/* How many tries more number `number` has at now_us. */
static int tries_left(struct patience *patience, enum segment_result result, uint64_t number,
                      int64_t now_us)
{
    int count = 0;
    while (tries(patience, result, number, now_us))
        assert_true(++count < 100);
    return count;
}

static void patience_waits_out_an_error_without_a_record_in_between(void **state)
{
    (void)state;
    struct patience patience = {0};
    for (int64_t now_us = 1; now_us <= MOST_US; now_us++)
        assert_true(tries(&patience, SEGMENT_FAILED, 7, now_us));
    patience_note_record(&patience);
    for (int64_t now_us = 1; now_us <= MOST_US; now_us++)
        assert_true(tries(&patience, SEGMENT_FAILED, 7, MOST_US + now_us));
    assert_int_equal(tries_left(&patience, SEGMENT_FAILED, 7, 2 * MOST_US + 1), PATIENCE_TRIES);
}

static void patience_that_is_over_stays_so_and_a_stretch_costs_it_once(void **state)
{
    (void)state;
    struct patience patience = {0};
    assert_true(tries(&patience, SEGMENT_FAILED, 7, 1));
    assert_int_equal(tries_left(&patience, SEGMENT_FAILED, 7, 1 + MOST_US), PATIENCE_TRIES);
    patience.given_up = 7;
    for (uint64_t number = 8; number < 20; number++) {
        assert_int_equal(tries_left(&patience, SEGMENT_FAILED, number, 1 + MOST_US), 0);
        patience.given_up = number;
    }
    patience_note_record(&patience);
    assert_int_equal(tries_left(&patience, SEGMENT_FAILED, 21, 2 + MOST_US), PATIENCE_TRIES);
}

/* A disk that is away for seconds would cost all that is left of a segment. */
static void patience_gives_up_few_without_a_try(void **state)
{
    (void)state;
    struct patience patience = {.is_over = true};
    for (unsigned i = 0; i < 3 * (PATIENCE_STRETCH + 1); i++) {
        assert_int_equal(tries_left(&patience, SEGMENT_FAILED, 7 + i, 1),
                         i % (PATIENCE_STRETCH + 1) == 0 ? PATIENCE_TRIES : 0);
        patience.given_up = 7 + i;
    }
}

/* The drain reads nothing while PostgreSQL is away: that is no time in which the disk was tried. */
static void patience_counts_no_time_in_which_nothing_is_tried(void **state)
{
    (void)state;
    const int64_t hour_us = 3600 * (int64_t)1000000;
    struct patience patience = {0};
    for (int i = 0; i < 10; i++)
        assert_true(patience_tries_again(&patience, SEGMENT_FAILED, 7, 1 + i * hour_us,
                                         10 * (int64_t)PATIENCE_GAP_US));
    assert_false(patience.is_over);
}

static void patience_for_a_bad_page_is_none_for_a_disk_that_is_away(void **state)
{
    (void)state;
    struct patience patience = {.is_over = true, .given_up = 6};
    patience_note_record(&patience);
    for (int64_t now_us = 1; now_us <= MOST_US; now_us++) {
        patience_note_unopened(&patience);
        assert_true(tries(&patience, SEGMENT_FAILED, 8, now_us));
    }
    patience_note_unopened(&patience);
    assert_int_equal(tries_left(&patience, SEGMENT_FAILED, 8, 1 + MOST_US), PATIENCE_TRIES);
}

static void patience_has_no_end_for_what_says_nothing_of_the_segment(void **state)
{
    (void)state;
    static const enum segment_result results[] = {SEGMENT_AGAIN, SEGMENT_FULL};
    for (int i = 0; i < 2; i++) {
        struct patience patience = {0};
        assert_true(tries(&patience, SEGMENT_FAILED, 7, 1));
        assert_true(tries(&patience, results[i], 7, 1 + 100 * MOST_US));
        assert_true(tries(&patience, SEGMENT_FAILED, 7, 1 + 100 * MOST_US)); /* begins anew */
    }
}

static void patience_looks_at_damage_twice(void **state)
{
    (void)state;
    struct patience patience = {0};
    assert_int_equal(tries_left(&patience, SEGMENT_DAMAGED, 7, 1), PATIENCE_LOOKS);
    assert_int_equal(tries_left(&patience, SEGMENT_DAMAGED, 8, 1), PATIENCE_LOOKS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(record_keeps_an_event, setup, teardown),
        cmocka_unit_test_setup_teardown(record_keeps_an_unreadable_delivery_without_credentials,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(record_that_is_cut_or_longer_is_unreadable, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(record_of_another_version_is_named, setup, teardown),
        cmocka_unit_test(record_does_not_verify_in_another_place),
        cmocka_unit_test(mark_loaded_is_saved_where_no_file_can_be_made),
        cmocka_unit_test(mark_torn_gives_the_number_before),
        cmocka_unit_test(patience_waits_out_an_error_without_a_record_in_between),
        cmocka_unit_test(patience_that_is_over_stays_so_and_a_stretch_costs_it_once),
        cmocka_unit_test(patience_gives_up_few_without_a_try),
        cmocka_unit_test(patience_counts_no_time_in_which_nothing_is_tried),
        cmocka_unit_test(patience_for_a_bad_page_is_none_for_a_disk_that_is_away),
        cmocka_unit_test(patience_has_no_end_for_what_says_nothing_of_the_segment),
        cmocka_unit_test(patience_looks_at_damage_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
