/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of the spool on a disk that lies: whatever byte of whatever file is flipped, wherever a
 * file is cut or a block is zero, each acknowledged event is drained as it was put or reported lost
 * by its number; none is changed, none is missing in silence, and the queue goes on.
 *
 * The image that is damaged is what kill -9 leaves: a file with settled pages and a WAL with more.
 * A sample of places by default (the seed is printed; SPOOL_SEED repeats it); SPOOL_EVERY=1 takes
 * every byte of every file, which takes minutes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "spool/room.h"
#include "spool_support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { EVENTS = 64, DRAINED = 10, SAMPLES = 150, FILES_MAX = 8, HANG_S = 30 };

struct image_file {
    char name[256];
    char *bytes;
    size_t len;
};

static struct image_file image[FILES_MAX];
static size_t image_count;
static uint64_t seed;

static uint64_t draw(uint64_t below)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed % below;
}

/* ---- the image ------------------------------------------------------------------------------- */

static void path_of(const struct bed *bed, const char *name, char *out, size_t out_bytes)
{
    int len = snprintf(out, out_bytes, "%s/%s", bed->directory, name);
    assert_true(len > 0 && (size_t)len < out_bytes);
}

static void read_image(const struct bed *bed)
{
    DIR *directory = opendir(bed->directory);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char path[600];
        struct stat status;
        path_of(bed, entry->d_name, path, sizeof(path));
        if (stat(path, &status) != 0 || !S_ISREG(status.st_mode) || strstr(path, "-shm") ||
            strstr(path, "lock"))
            continue;
        struct image_file *file = &image[image_count++];
        assert_true(image_count <= FILES_MAX);
        snprintf(file->name, sizeof(file->name), "%s", entry->d_name);
        file->len = (size_t)status.st_size;
        file->bytes = malloc(file->len + 1);
        int fd = open(path, O_RDONLY);
        assert_int_equal(read(fd, file->bytes, file->len), file->len);
        close(fd);
    }
    closedir(directory);
}

static void clear_directory(const struct bed *bed)
{
    DIR *directory = opendir(bed->directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char path[600];
        path_of(bed, entry->d_name, path, sizeof(path));
        unlink(path);
    }
    closedir(directory);
}

static void write_image(const struct bed *bed)
{
    clear_directory(bed);
    for (size_t i = 0; i < image_count; i++) {
        char path[600];
        path_of(bed, image[i].name, path, sizeof(path));
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        assert_int_equal(write(fd, image[i].bytes, image[i].len), image[i].len);
        close(fd);
    }
}

/* Two groups are settled, three are in the WAL; ten records are drained. */
static void make_image(struct bed *bed)
{
    bed->config.spool.bytes = 4 << 20; /* settles every 64 KiB */
    bed_open(bed);
    for (unsigned i = 0; i < EVENTS; i += 8)
        bed_put(bed, i, 8);
    struct spool_chunk *chunk = spool_read(bed->spool, DRAINED, 1 << 20);
    assert_int_equal(chunk->count, DRAINED);
    spool_finish(bed->spool, chunk);
    read_image(bed);
    bed_close(bed);
    assert_int_equal(image_count, 4); /* file, WAL, two marks */
}

static int setup(void **state)
{
    const char *text = getenv("SPOOL_SEED");
    seed = text ? strtoull(text, NULL, 10) : (uint64_t)clock_wall_us();
    printf("SPOOL_SEED=%" PRIu64 "\n", seed);
    seed |= 1;
    log_set_level((enum log_level)(LOG_ERROR + 1)); /* tens of thousands of losses */
    bed_setup_in(state, "/dev/shm"); /* thousands of directories: nothing here needs a disk */
    struct bed *bed = *state;
    bed->seen = calloc(EVENTS, sizeof(bool));
    bed->seen_max = EVENTS;
    make_image(bed);
    return 0;
}

static int teardown(void **state)
{
    struct bed *bed = *state;
    for (size_t i = 0; i < image_count; i++)
        free(image[i].bytes);
    image_count = 0;
    free(bed->seen);
    return bed_teardown(state);
}

/* ---- the check ------------------------------------------------------------------------------- */

struct losses {
    bool lost[EVENTS];
    uint64_t count;
    bool beyond; /* a number that was never given */
};

static void take_loss(void *context, uint64_t first, uint64_t last, const char *words)
{
    struct losses *losses = context;
    assert_true(strlen(words) > 0);
    for (uint64_t number = first; number <= last; number++) {
        if (number < 1 || number > EVENTS || losses->lost[number - 1])
            losses->beyond = true;
        else
            losses->lost[number - 1] = true;
        losses->count++;
    }
}

static bool is_kept_aside(const struct bed *bed)
{
    bool found = false;
    DIR *directory = opendir(bed->directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        found |= strncmp(entry->d_name, "damaged-spool-", 14) == 0;
    closedir(directory);
    return found;
}

/* Opens what lies there and drains it, then puts one more; NULL = every promise was kept. */
static const char *check(struct bed *bed)
{
    struct losses losses = {.count = 0};
    struct spool_state state;
    alarm(HANG_S);
    memset(bed->seen, 0, EVENTS * sizeof(bool));
    bed->wrong = 0;
    bed_open(bed);
    bed_drain(bed);
    spool_each_loss(bed->spool, take_loss, &losses);
    spool_get_state(bed->spool, &state);
    size_t before = bed->spooled;
    bed_put(bed, EVENTS, 1);
    size_t one = bed->spooled - before == 1 ? bed_drain(bed) : 0;
    bed_close(bed);
    alarm(0);
    if (bed->wrong)
        return "a changed record was given back";
    if (losses.beyond || losses.count != state.lost)
        return "the report of losses is wrong";
    for (unsigned i = 0; i < EVENTS; i++) {
        if (i >= DRAINED && !bed->seen[i] && !losses.lost[i])
            return "an event is missing in silence";
        if (bed->seen[i] && losses.lost[i])
            return "an event that came back was reported lost";
    }
    if (one != 1)
        return "nothing can be put or drained after it";
    if (losses.count > 0 && !is_kept_aside(bed))
        return "the damaged segment is not kept aside";
    return NULL;
}

static void demand(struct bed *bed, const char *what, const char *name, size_t at, unsigned value)
{
    const char *broken = check(bed);
    if (broken)
        fail_msg("%s: %s of %s at %zu (%u)", broken, what, name, at, value);
}

static size_t places_in(size_t len)
{
    return getenv("SPOOL_EVERY") ? len : SAMPLES;
}

static void spool_survives_a_flipped_byte(void **state)
{
    struct bed *bed = *state;
    write_image(bed);
    demand(bed, "nothing", "nothing", 0, 0);
    for (size_t f = 0; f < image_count; f++) {
        struct image_file *file = &image[f];
        size_t places = places_in(file->len);
        for (size_t i = 0; i < places; i++) {
            size_t at = places == file->len ? i : draw(file->len);
            /* Marks are small, and mostly hole: half of the samples go to the slots. */
            if (places != file->len && file->len < 8192 && i % 2)
                at = (at & 4096) + at % 40 < file->len ? (at & 4096) + at % 40 : at;
            unsigned flip = 1 + (unsigned)draw(255);
            file->bytes[at] = (char)(file->bytes[at] ^ (char)flip);
            write_image(bed);
            file->bytes[at] = (char)(file->bytes[at] ^ (char)flip);
            demand(bed, "a flipped byte", file->name, at, flip);
        }
    }
}

/* Flips a byte of the payload wherever it lies: in the file and, in older versions, in the WAL. */
static void flip_payload(unsigned number)
{
    char start[32];
    int len = snprintf(start, sizeof(start), "{\"n\":%u,", number), found = 0;
    for (size_t f = 0; f < image_count; f++) {
        char *at = image[f].bytes, *end = at + image[f].len;
        for (; (at = memmem(at, (size_t)(end - at), start, (size_t)len)); at += len, found++)
            at[1] ^= 1;
    }
    assert_true(found > 0);
}

static void spool_tells_what_lies_between_two_losses(void **state)
{
    struct bed *bed = *state;
    for (unsigned number = 20; number <= 24; number += 2)
        flip_payload(number);
    write_image(bed);
    demand(bed, "changed payloads", "20, 22 and 24", 0, 0);
    assert_false(bed->seen[20] || bed->seen[22] || bed->seen[24]);
    assert_true(bed->seen[21] && bed->seen[23]);
}

static void spool_survives_a_cut_file(void **state)
{
    struct bed *bed = *state;
    for (size_t f = 0; f < image_count; f++) {
        struct image_file *file = &image[f];
        size_t len = file->len;
        for (size_t i = 0; i < SAMPLES / 2; i++) {
            file->len = i == 0 ? 0 : draw(len);
            write_image(bed);
            demand(bed, "a cut", file->name, file->len, 0);
        }
        file->len = len;
    }
}

static void spool_survives_a_zeroed_block(void **state)
{
    struct bed *bed = *state;
    enum { BLOCK = 512 };
    char kept[BLOCK];
    for (size_t f = 0; f < image_count; f++) {
        struct image_file *file = &image[f];
        for (size_t at = 0; at + 40 <= file->len; at += BLOCK) {
            size_t len = file->len - at < BLOCK ? file->len - at : BLOCK;
            memcpy(kept, file->bytes + at, len);
            memset(file->bytes + at, 0, len);
            write_image(bed);
            memcpy(file->bytes + at, kept, len);
            demand(bed, "a zeroed block", file->name, at, 0);
        }
    }
}

static void spool_survives_a_missing_file(void **state)
{
    struct bed *bed = *state;
    for (size_t f = 0; f < image_count; f++) {
        char path[600];
        write_image(bed);
        path_of(bed, image[f].name, path, sizeof(path));
        assert_int_equal(unlink(path), 0);
        const char *broken = check(bed);
        /* Without its mark, a segment and its name say what was acknowledged; without the segment,
         * nothing can be kept aside. */
        if (broken && strcmp(broken, "the damaged segment is not kept aside") != 0)
            fail_msg("%s: without %s", broken, image[f].name);
    }
}

/* ---- a disk that does not read --------------------------------------------------------------- */

/* Of this thread: reads of a page that fail from now on, and how many succeed before each; whether
 * only those of a page of records fail; whether no file can be made. */
enum { PAGE_BYTES = 8192, LEAF = 0x0d };
static _Thread_local int failing_reads, reads_between, reads_left;
static _Thread_local bool fails_leaves, is_read_only, fails_opening;

ssize_t pread64(int fd, void *buf, size_t nbytes, off64_t offset);
ssize_t pread64(int fd, void *buf, size_t nbytes, off64_t offset)
{
    ssize_t len = syscall(SYS_pread64, fd, buf, nbytes, offset);
    if (failing_reads == 0 || nbytes != PAGE_BYTES || len <= 0 ||
        (fails_leaves && ((offset & (PAGE_BYTES - 1)) != 0 || *(char *)buf != LEAF)) ||
        reads_left-- > 0)
        return len;
    failing_reads--;
    reads_left = reads_between;
    errno = EIO;
    return -1;
}

int open64(const char *file, int oflag, ...);
int open64(const char *file, int oflag, ...)
{
    va_list list;
    va_start(list, oflag);
    int mode = oflag & O_CREAT ? va_arg(list, int) : 0;
    va_end(list);
    if (fails_opening || (is_read_only && oflag & O_CREAT)) {
        errno = fails_opening ? EIO : EROFS;
        return -1;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, file, oflag, mode);
}

/* Drains the image while `count` reads fail, each after `between` that do not. */
static void drain_failing(struct bed *bed, int count, int between, int64_t patience_ms)
{
    write_image(bed);
    alarm(HANG_S);
    memset(bed->seen, 0, EVENTS * sizeof(bool));
    bed_open(bed);
    bed->spool->read_patience_ms = patience_ms;
    failing_reads = count, reads_left = reads_between = between;
    bed_drain(bed);
    alarm(0);
}

static void spool_waits_for_a_disk_that_does_not_read(void **state)
{
    struct bed *bed = *state;
    for (int between = 0; between <= 2; between++) { /* as it is opened; by a statement */
        struct losses losses = {.count = 0};
        drain_failing(bed, 5, between, 600000);
        assert_in_range(failing_reads, 0, between ? 4 : 0);
        failing_reads = 0;
        spool_each_loss(bed->spool, take_loss, &losses);
        bed_close(bed);
        assert_int_equal(losses.count, 0);
        assert_int_equal(bed->wrong, 0);
        for (unsigned i = DRAINED; i < EVENTS; i++)
            assert_true(bed->seen[i]);
        assert_false(is_kept_aside(bed));
    }
}

/* A page of the file that a statement reads first: SQLite calls it damage, each time. */
static void spool_waits_for_a_page_that_does_not_read(void **state)
{
    struct bed *bed = *state;
    struct losses losses = {.count = 0};
    fails_leaves = true;
    drain_failing(bed, 5, 0, 600000);
    fails_leaves = false;
    assert_int_equal(failing_reads, 0);
    spool_each_loss(bed->spool, take_loss, &losses);
    bed_close(bed);
    assert_int_equal(losses.count, 0);
}

/* The index of a WAL cannot be made, and is not there: that says nothing of the segment. */
static void spool_waits_for_a_disk_that_is_read_only(void **state)
{
    struct bed *bed = *state;
    struct losses losses = {.count = 0};
    char path[600];
    write_image(bed);
    alarm(HANG_S);
    bed_open(bed);
    bed_put(bed, EVENTS, 1); /* the writer has looked for the oldest */
    path_of(bed, "spool-00000000000000000001.db-shm", path, sizeof(path));
    assert_int_equal(unlink(path), 0);
    is_read_only = true;
    for (int i = 0; i < 3; i++) {
        assert_null(spool_read(bed->spool, 400, 1 << 20));
        bed->spool->reader.retry_at_mono_us = 0;
    }
    is_read_only = false;
    bed_drain(bed);
    alarm(0);
    spool_each_loss(bed->spool, take_loss, &losses);
    bed_close(bed);
    assert_int_equal(losses.count, 0);
}

static void spool_says_why_nothing_is_drained(void **state)
{
    struct bed *bed = *state;
    struct spool_state now;
    write_image(bed);
    bed_open(bed);
    spool_get_state(bed->spool, &now);
    assert_string_equal(now.problem, "");
    failing_reads = 2, reads_left = reads_between = 0;
    assert_null(spool_read(bed->spool, EVENTS, 1 << 20));
    spool_get_state(bed->spool, &now);
    assert_non_null(strstr(now.problem, "a segment cannot be read: disk I/O error"));
    assert_true(now.accepts);
    bed_drain(bed);
    spool_get_state(bed->spool, &now);
    assert_string_equal(now.problem, "");
    bed_close(bed);
}

static void spool_goes_on(struct bed *bed)
{
    struct losses losses = {.count = 0};
    spool_each_loss(bed->spool, take_loss, &losses);
    assert_int_equal(losses.count, EVENTS - DRAINED);
    assert_true(is_kept_aside(bed));
    bed_put(bed, EVENTS, 1);
    assert_int_equal(bed_drain(bed), 1);
    bed_close(bed);
}

static void spool_goes_on_when_the_disk_never_reads(void **state)
{
    drain_failing(*state, 1000000, 0, 300);
    assert_in_range(failing_reads, 1, 1000000 - 4); /* it was tried, for the 300 ms and after */
    failing_reads = 0;
    spool_goes_on(*state);
}

static void spool_goes_on_when_a_file_never_opens(void **state)
{
    fails_opening = true; /* by open64(), as SQLite opens */
    drain_failing(*state, 0, 0, 300);
    fails_opening = false;
    spool_goes_on(*state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(spool_survives_a_flipped_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(spool_tells_what_lies_between_two_losses, setup, teardown),
        cmocka_unit_test_setup_teardown(spool_survives_a_cut_file, setup, teardown),
        cmocka_unit_test_setup_teardown(spool_survives_a_zeroed_block, setup, teardown),
        cmocka_unit_test_setup_teardown(spool_survives_a_missing_file, setup, teardown),
        cmocka_unit_test_setup_teardown(spool_waits_for_a_disk_that_does_not_read, setup, teardown),
        cmocka_unit_test_setup_teardown(spool_waits_for_a_page_that_does_not_read, setup, teardown),
        cmocka_unit_test_setup_teardown(spool_waits_for_a_disk_that_is_read_only, setup, teardown),
        cmocka_unit_test_setup_teardown(spool_says_why_nothing_is_drained, setup, teardown),
        cmocka_unit_test_setup_teardown(spool_goes_on_when_the_disk_never_reads, setup, teardown),
        cmocka_unit_test_setup_teardown(spool_goes_on_when_a_file_never_opens, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
