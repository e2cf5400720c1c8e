/* SPDX-License-Identifier: Apache-2.0 */
/* The spool's directory:
 *   spool-NUMBER.db (-wal, -shm)   a segment, named by its first number
 *   damaged-spool-NUMBER.db (-wal) one of which a record was lost, kept for people
 *   acknowledged, drained          the marks
 *   losses                         a line for each range lost: FIRST LAST REASON SEGMENT TIME
 *   lock                           locked (F_OFD_SETLK) by the owner, whose process id it holds
 * Nothing is deleted because a mark looks wrong. */
#include "base/clock.h"
#include "log/log.h"
#include "spool/room.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
enum {
    SUFFIX_COUNT = sizeof(suffixes) / sizeof(suffixes[0]),
    OPEN_PATIENCE_MS = 2000, /* for a disk that does not read at the start */
    OPEN_PAUSE_MS = 100,
};

/* ---- names ----------------------------------------------------------------------------------- */

void directory_name(uint64_t first, const char *suffix, char out[SEGMENT_NAME_BYTES])
{
    snprintf(out, SEGMENT_NAME_BYTES, "spool-%020" PRIu64 ".db%s", first, suffix);
}

void directory_path(const struct spool *spool, uint64_t first, char *out, size_t out_bytes)
{
    char name[SEGMENT_NAME_BYTES];
    directory_name(first, "", name);
    snprintf(out, out_bytes, "%s/%s", spool->config->spool.directory, name);
}

/* The number in a segment's name; false for every other file. */
static bool read_name(const char *name, uint64_t *first)
{
    char again[SEGMENT_NAME_BYTES];
    if (strncmp(name, "spool-", 6) != 0)
        return false;
    *first = strtoull(name + 6, NULL, 10);
    directory_name(*first, "", again);
    return *first > 0 && *first < INT64_MAX && strcmp(name, again) == 0;
}

/* ---- segments -------------------------------------------------------------------------------- */

void directory_measure(struct spool *spool, struct spool_segment *segment)
{
    uint64_t bytes = 0;
    for (int i = 0; i < 2; i++) {
        char name[SEGMENT_NAME_BYTES];
        struct stat status;
        directory_name(segment->first, suffixes[i], name);
        /* By name: closing a descriptor of ours would end SQLite's locks on the file. */
        if (fstatat(spool->directory, name, &status, 0) == 0)
            bytes += (uint64_t)status.st_size;
    }
    atomic_fetch_add(&spool->bytes, bytes - segment->bytes);
    segment->bytes = bytes;
}

bool directory_add(struct spool *spool, uint64_t first)
{
    if (spool->segment_count == spool->segment_size) {
        size_t size = spool->segment_size ? spool->segment_size * 2 : 64;
        struct spool_segment *segments = realloc(spool->segments, size * sizeof(*segments));
        if (!segments)
            return false;
        spool->segments = segments;
        spool->segment_size = size;
    }
    spool->segments[spool->segment_count++] = (struct spool_segment){.first = first};
    return true;
}

static void delete_files(struct spool *spool, uint64_t first)
{
    for (int i = 0; i < SUFFIX_COUNT; i++) {
        char name[SEGMENT_NAME_BYTES];
        directory_name(first, suffixes[i], name);
        if (unlinkat(spool->directory, name, 0) != 0 && errno != ENOENT)
            LOG_LINE(LOG_ERROR, "spool", "a segment cannot be deleted", log_text("file", name),
                     log_text("reason", strerror(errno)));
    }
}

/* Under a name that is free: numbers may come again after a failed write. */
static void set_aside(struct spool *spool, uint64_t first)
{
    char aside[SEGMENT_NAME_BYTES + 32];
    struct stat status;
    int copy = 0;
    do {
        char name[SEGMENT_NAME_BYTES];
        directory_name(first, "", name);
        name[strlen(name) - 3] = '\0'; /* ".db" */
        snprintf(aside, sizeof(aside), copy ? "damaged-%s.%d.db" : "damaged-%s.db", name, copy);
        copy++;
    } while (fstatat(spool->directory, aside, &status, 0) == 0);
    for (int i = 0; i < 2; i++) {
        char from[SEGMENT_NAME_BYTES], to[SEGMENT_NAME_BYTES + 40];
        directory_name(first, suffixes[i], from);
        snprintf(to, sizeof(to), "%s%s", aside, suffixes[i]);
        if (renameat(spool->directory, from, spool->directory, to) != 0 && errno != ENOENT)
            LOG_LINE(LOG_ERROR, "spool", "a damaged segment cannot be kept aside",
                     log_text("file", from), log_text("reason", strerror(errno)));
    }
    LOG_LINE(LOG_WARNING, "spool", "a damaged segment is kept aside", log_text("file", aside));
}

void directory_drop(struct spool *spool, size_t i)
{
    struct spool_segment *segment = &spool->segments[i];
    if (segment->damaged)
        set_aside(spool, segment->first);
    delete_files(spool, segment->first); /* of a damaged one, what has no use: its -shm */
    atomic_fetch_sub(&spool->bytes, segment->bytes);
    spool->segment_count--;
    memmove(segment, segment + 1, (spool->segment_count - i) * sizeof(*segment));
}

static int compare_segments(const void *a, const void *b)
{
    const struct spool_segment *x = a, *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

static enum oh_status find_segments(struct spool *spool, struct oh_error *err)
{
    DIR *directory = opendir(spool->config->spool.directory);
    if (!directory)
        return oh_fail(err, OH_SYSTEM, "%s: %s", spool->config->spool.directory, strerror(errno));
    bool fits = true;
    uint64_t first;
    struct dirent *entry;
    while (fits && (errno = 0, entry = readdir(directory)) != NULL)
        if (read_name(entry->d_name, &first)) {
            fits = directory_add(spool, first);
            if (fits)
                directory_measure(spool, &spool->segments[spool->segment_count - 1]);
        }
    int number = entry ? 0 : errno; /* a segment that is not listed would count as lost */
    closedir(directory);
    if (number)
        return oh_fail(err, OH_SYSTEM, "%s: %s", spool->config->spool.directory, strerror(number));
    if (!fits)
        return oh_fail(err, OH_NO_MEMORY, "no memory for the spool's segments");
    if (spool->segment_count > 0)
        qsort(spool->segments, spool->segment_count, sizeof(*spool->segments), compare_segments);
    return OH_OK;
}

size_t directory_count_aside(const struct spool *spool)
{
    DIR *directory = opendir(spool->config->spool.directory);
    size_t count = 0;
    for (struct dirent *entry; directory && (entry = readdir(directory)) != NULL;) {
        size_t len = strlen(entry->d_name);
        count += strncmp(entry->d_name, "damaged-", 8) == 0 && len > 3 &&
                 strcmp(entry->d_name + len - 3, ".db") == 0;
    }
    if (directory)
        closedir(directory);
    return count;
}

/* ---- losses ---------------------------------------------------------------------------------- */

void directory_note_loss(struct spool *spool, uint64_t first, uint64_t last, const char *reason,
                         uint64_t segment_first)
{
    char line[256], segment[SEGMENT_NAME_BYTES] = "-", date[32];
    time_t now_s = (time_t)(clock_wall_us() / 1000000);
    struct tm utc;
    gmtime_r(&now_s, &utc);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &utc);
    if (segment_first)
        directory_name(segment_first, "", segment);
    int len = snprintf(line, sizeof(line), "%" PRIu64 " %" PRIu64 " %s %s %s\n", first, last,
                       reason, segment, date);
    int fd = openat(spool->directory, "losses", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    bool done = fd >= 0 && write(fd, line, (size_t)len) == len && fsync(fd) == 0;
    if (!done)
        LOG_LINE(LOG_ERROR, "spool", "a loss cannot be written down",
                 log_int("first", (int64_t)first), log_int("last", (int64_t)last),
                 log_text("reason", strerror(errno)));
    if (fd >= 0)
        close(fd);
}

/* REASON and SEGMENT, whatever the TIME behind them. */
static bool is_same_cause(const char *a, const char *b)
{
    const char *a_end = strrchr(a, ' '), *b_end = strrchr(b, ' ');
    return a_end && b_end && a_end - a == b_end - b && memcmp(a, b, (size_t)(a_end - a)) == 0;
}

/* A damaged stretch is read, and written down, in parts: they are given as one. */
void directory_read_losses(const struct spool *spool, spool_on_loss *each, void *context)
{
    uint64_t held_first = 0, held_last = 0; /* 0: none */
    char held[512];
    int fd = openat(spool->directory, "losses", O_RDONLY | O_CLOEXEC);
    FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
    char line[512];
    if (!file) {
        if (fd >= 0)
            close(fd);
        return;
    }
    while (fgets(line, sizeof(line), file)) {
        uint64_t first, last;
        int rest = 0;
        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "%" SCNu64 " %" SCNu64 " %n", &first, &last, &rest) == 2 && rest > 0 &&
            first <= last) {
            if (held_last && first == held_last + 1 && is_same_cause(held, line + rest)) {
                held_last = last;
                continue;
            }
            if (held_last)
                each(context, held_first, held_last, held);
            held_first = first;
            held_last = last;
            snprintf(held, sizeof(held), "%s", line + rest);
        }
    }
    if (held_last)
        each(context, held_first, held_last, held);
    fclose(file);
}

static void take_loss(void *context, uint64_t first, uint64_t last, const char *rest)
{
    struct spool *spool = context;
    (void)rest;
    atomic_fetch_add(&spool->lost, last - first + 1);
    if (last > spool->reader.reported_to)
        spool->reader.reported_to = last;
    for (size_t i = 0; i < spool->segment_count; i++) {
        uint64_t end = i + 1 < spool->segment_count ? spool->segments[i + 1].first : UINT64_MAX;
        if (spool->segments[i].first <= last && first < end)
            spool->segments[i].damaged = true;
    }
}

/* ---- where it stands ------------------------------------------------------------------------- */

/* A disk that does not read as it is opened may do so in a moment: false once it was waited long
 * enough since began_us. */
static bool wait_for_disk(int64_t began_us)
{
    const struct timespec pause = {.tv_nsec = OPEN_PAUSE_MS * 1000000};
    nanosleep(&pause, NULL);
    return clock_mono_us() - began_us < OPEN_PATIENCE_MS * 1000;
}

static enum mark_state load(const struct spool *spool, struct mark *mark, const char *name)
{
    int64_t began_us = clock_mono_us();
    enum mark_state state;
    while ((state = mark_load(mark, spool->directory, name)) == MARK_UNREAD &&
           wait_for_disk(began_us))
        continue;
    return state;
}

/* The greatest number in a segment, 0 = none, on disk before it is trusted: what SQLite recovered
 * may be in memory only. */
static enum segment_result find_greatest(struct spool *spool, uint64_t first, uint64_t *greatest,
                                         bool *opens, struct oh_error *err)
{
    struct segment *segment = NULL;
    char path[4096];
    *greatest = 0;
    directory_path(spool, first, path, sizeof(path));
    enum segment_result result = segment_open(path, &segment, err);
    *opens = segment != NULL;
    if (result == SEGMENT_OK)
        result = segment_greatest(segment, greatest, err);
    if (result == SEGMENT_OK && !spool->only_looks)
        result = segment_settle(segment, false, err);
    segment_close(segment, false);
    return result;
}

static bool is_telling(enum segment_result result)
{
    return result == SEGMENT_OK || result == SEGMENT_END || result == SEGMENT_DAMAGED;
}

/* The last segment holds numbers that its mark does not know of, or the mark cannot be trusted:
 * what the segment says. *is_found = false: it says nothing, and is out of the list. Errors: only
 * the segment could tell what was acknowledged, and the disk does not read it. */
static enum oh_status ask_last_segment(struct spool *spool, uint64_t *acknowledged, bool doubtful,
                                       bool *is_found, struct oh_error *why)
{
    struct spool_segment *last = &spool->segments[spool->segment_count - 1];
    struct oh_error err = {.text = ""};
    int64_t began_us = clock_mono_us();
    uint64_t greatest;
    bool opens;
    enum segment_result result;
    do {
        result = find_greatest(spool, last->first, &greatest, &opens, &err);
    } while (doubtful && !is_telling(result) && wait_for_disk(began_us));
    *is_found = true;
    if (doubtful && !is_telling(result)) {
        char name[SEGMENT_NAME_BYTES];
        directory_name(last->first, "", name);
        return oh_fail(
            why, OH_SYSTEM,
            "%s/%s tells what was acknowledged, and cannot be read: %s; start again when it can%s",
            spool->config->spool.directory, name, err.text,
            result == SEGMENT_FAILED ? "; without it and its -wal its events are lost" : "");
    }
    if (result == SEGMENT_OK && greatest >= last->first) {
        if (greatest > *acknowledged)
            *acknowledged = greatest;
        return OH_OK;
    }
    if (last->first <= *acknowledged)
        return OH_OK; /* the drain will find what is missing */
    bool empty = result == SEGMENT_END || last->bytes == 0;
    if (!empty && !doubtful && !opens) /* killed while it was made: no table yet */
        empty = last->bytes < 65536;
    if (!empty) {
        last->damaged = true;
        LOG_LINE(LOG_ERROR, "spool", "a segment beyond the last acknowledged number is unreadable",
                 log_int("first", (int64_t)last->first), log_text("reason", err.text));
    }
    if (spool->only_looks)
        spool->segment_count--;
    else
        directory_drop(spool, spool->segment_count - 1);
    *is_found = false;
    return OH_OK;
}

/* Numbers go on after the last acknowledged one, so that every number up to it is in the segment
 * whose name covers it. */
static enum oh_status find_numbers(struct spool *spool, struct oh_error *err)
{
    enum mark_state state = load(spool, &spool->acknowledged, "acknowledged");
    enum mark_state drained_state = load(spool, &spool->drained, "drained");
    bool is_first = state == MARK_ABSENT && spool->segment_count == 0;
    bool doubtful = state != MARK_FINE && !is_first;
    uint64_t acknowledged = spool->acknowledged.number, drained = spool->drained.number;

    /* Numbers would begin again, and a loss among those that were lost before is not counted. */
    if (state == MARK_UNREAD && drained_state == MARK_UNREAD && spool->segment_count == 0)
        return oh_fail(err, OH_SYSTEM,
                       "%s: neither `acknowledged` nor `drained` can be read; start again when "
                       "the disk works",
                       spool->config->spool.directory);
    bool is_found = false;
    while (!is_found && spool->segment_count > 0 &&
           (doubtful || spool->segments[spool->segment_count - 1].first > acknowledged))
        if (ask_last_segment(spool, &acknowledged, doubtful, &is_found, err) != OH_OK)
            return OH_SYSTEM;
    if (drained_state != MARK_FINE && drained == 0)
        drained = spool->segment_count > 0 ? spool->segments[0].first - 1 : acknowledged;
    if (acknowledged < drained)
        acknowledged = drained;
    if (doubtful)
        LOG_LINE(LOG_WARNING, "spool",
                 "the last acknowledged number was derived: its file is missing or damaged",
                 log_int("number", (int64_t)acknowledged));
    atomic_init(&spool->last_acknowledged, acknowledged);
    atomic_init(&spool->last_drained, drained);
    spool->reader.next = drained + 1;
    if (spool->only_looks)
        return OH_OK;
    if (((state == MARK_FINE && acknowledged == spool->acknowledged.number) ||
         mark_save(&spool->acknowledged, acknowledged)) &&
        ((drained_state == MARK_FINE && drained == spool->drained.number) ||
         mark_save(&spool->drained, drained)))
        return OH_OK;
    return oh_fail(err, OH_SYSTEM, "%s: %s", spool->config->spool.directory, strerror(errno));
}

/* ---- opening --------------------------------------------------------------------------------- */

static void check_filesystem(const struct spool *spool)
{
    static const struct {
        unsigned long magic;
        const char *name, *why;
    } unfit[] = {
        /* statfs(2) */
        {0x01021994, "tmpfs", "it is memory: a restart of the machine loses it"},
        {0x858458f6, "ramfs", "it is memory: a restart of the machine loses it"},
        {0x794c7630, "overlay", "a container's layer ends with the container"},
        {0x6969, "nfs", "SQLite's WAL needs shared memory and locks that work"},
        {0xff534d42, "cifs", "SQLite's WAL needs shared memory and locks that work"},
        {0xfe534d42, "smb2", "SQLite's WAL needs shared memory and locks that work"},
    };
    struct statfs status;
    if (fstatfs(spool->directory, &status) != 0)
        return;
    for (size_t i = 0; i < sizeof(unfit) / sizeof(unfit[0]); i++)
        if ((unsigned long)status.f_type == unfit[i].magic)
            LOG_LINE(LOG_WARNING, "spool", "the spool's directory is on a filesystem unfit for it",
                     log_text("directory", spool->config->spool.directory),
                     log_text("filesystem", unfit[i].name), log_text("reason", unfit[i].why));
}

static pid_t read_owner(int fd)
{
    char text[32] = "";
    ssize_t len = pread(fd, text, sizeof(text) - 1, 0);
    return len > 0 ? (pid_t)strtol(text, NULL, 10) : 0;
}

static enum oh_status take_lock(struct spool *spool, pid_t *owner, struct oh_error *err)
{
    const char *path = spool->config->spool.directory;
    int flags = spool->only_looks ? O_RDONLY : O_RDWR | O_CREAT;
    spool->lock = openat(spool->directory, "lock", flags | O_CLOEXEC, 0600);
    if (spool->lock < 0)
        return spool->only_looks && errno == ENOENT
                   ? OH_OK
                   : oh_fail(err, OH_SYSTEM, "%s/lock: %s", path, strerror(errno));
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (spool->only_looks) { /* asked only: a gateway that starts now must get it */
        if (fcntl(spool->lock, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK)
            *owner = read_owner(spool->lock);
        return OH_OK;
    }
    if (fcntl(spool->lock, F_OFD_SETLK, &lock) != 0) {
        if (errno != EAGAIN && errno != EACCES)
            return oh_fail(err, OH_SYSTEM, "%s/lock: %s", path, strerror(errno));
        return oh_fail(err, OH_SYSTEM, "the spool %s belongs to process %d; one owner at a time",
                       path, (int)read_owner(spool->lock));
    }
    char text[32];
    int len = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if ((ftruncate(spool->lock, 0) != 0 || pwrite(spool->lock, text, (size_t)len, 0) != len) &&
        errno != ENOSPC && errno != EDQUOT) /* for people only: what a full disk holds is drained */
        return oh_fail(err, OH_SYSTEM, "%s/lock: %s", path, strerror(errno));
    return OH_OK;
}

enum oh_status directory_open(struct spool *spool, pid_t *owner, struct oh_error *err)
{
    const char *path = spool->config->spool.directory;
    struct stat status;
    *owner = 0;
    if (!spool->only_looks && mkdir(path, 0700) != 0 && errno != EEXIST)
        return oh_fail(err, OH_SYSTEM, "%s cannot be made: %s", path, strerror(errno));
    spool->directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (spool->directory < 0 || fstat(spool->directory, &status) != 0)
        return oh_fail(err, OH_SYSTEM, "%s: %s", path, strerror(errno));
    if (!spool->only_looks && status.st_mode & 077)
        LOG_LINE(LOG_WARNING, "spool", "others may look into the spool's directory: chmod 700 it",
                 log_text("directory", path));
    enum oh_status result = take_lock(spool, owner, err);
    if (result == OH_OK && !spool->only_looks)
        check_filesystem(spool);
    if (result == OH_OK)
        result = find_segments(spool, err);
    if (result == OH_OK)
        result = find_numbers(spool, err);
    if (result == OH_OK)
        directory_read_losses(spool, take_loss, spool);
    return result;
}

void directory_close(struct spool *spool)
{
    mark_close(&spool->acknowledged);
    mark_close(&spool->drained);
    if (spool->lock >= 0)
        close(spool->lock);
    if (spool->directory >= 0)
        close(spool->directory);
    free(spool->segments);
}
