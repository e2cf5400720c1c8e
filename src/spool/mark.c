/* SPDX-License-Identifier: Apache-2.0 */
/* spool/mark.h. A slot: "oncehook", sequence and number (u64, little-endian), XXH3-128 of these. */
#include "spool/mark.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
    SLOT_COUNT = 2,
    SLOT_STEP_BYTES = 4096, /* apart: one sector's failure takes one slot */
};

struct slot {
    char magic[8];
    uint64_t sequence, number;
    XXH128_canonical_t checksum;
};

static const char slot_magic[8] = {'o', 'n', 'c', 'e', 'h', 'o', 'o', 'k'};

static void seal(struct slot *slot, XXH128_canonical_t *checksum)
{
    XXH128_canonicalFromHash(checksum, XXH3_128bits(slot, offsetof(struct slot, checksum)));
}

static struct slot make_slot(uint64_t sequence, uint64_t number)
{
    struct slot slot = {.sequence = htole64(sequence), .number = htole64(number)};
    memcpy(slot.magic, slot_magic, sizeof(slot.magic));
    seal(&slot, &slot.checksum);
    return slot;
}

static bool write_slot(int fd, uint64_t sequence, uint64_t number)
{
    struct slot slot = make_slot(sequence, number);
    off_t at = (off_t)(sequence % SLOT_COUNT) * SLOT_STEP_BYTES;
    errno = EIO; /* a short write */
    return pwrite(fd, &slot, sizeof(slot), at) == (ssize_t)sizeof(slot);
}

enum mark_state mark_load(struct mark *mark, int directory, const char *name)
{
    *mark = (struct mark){.directory = directory, .name = name, .fd = -1};
    /* Open for writing where that is allowed: the next save then takes no room on a full disk. */
    int fd = openat(directory, name, O_RDWR | O_CLOEXEC);
    bool is_writable = fd >= 0;
    if (!is_writable)
        fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? MARK_ABSENT : MARK_UNREAD;
    int fine = 0;
    bool is_read = true;
    for (int i = 0; i < SLOT_COUNT; i++) {
        struct slot slot;
        XXH128_canonical_t checksum;
        ssize_t len = pread(fd, &slot, sizeof(slot), (off_t)i * SLOT_STEP_BYTES);
        is_read &= len >= 0;
        if (len != (ssize_t)sizeof(slot))
            continue;
        seal(&slot, &checksum);
        if (memcmp(slot.magic, slot_magic, sizeof(slot_magic)) != 0 ||
            memcmp(&checksum, &slot.checksum, sizeof(checksum)) != 0)
            continue;
        fine++;
        if (le64toh(slot.sequence) >= mark->sequence) {
            mark->sequence = le64toh(slot.sequence);
            mark->number = le64toh(slot.number);
        }
    }
    if (is_writable && fine == SLOT_COUNT)
        mark->fd = fd;
    else
        close(fd);
    return fine == SLOT_COUNT ? MARK_FINE : is_read ? MARK_DOUBTFUL : MARK_UNREAD;
}

/* A new file in the place of the old one, both slots with the number. */
static bool replace_file(struct mark *mark, uint64_t number)
{
    char temporary[64];
    snprintf(temporary, sizeof(temporary), "%s.new", mark->name);
    int fd = openat(mark->directory, temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    if (write_slot(fd, mark->sequence + 1, number) && write_slot(fd, mark->sequence + 2, number) &&
        fsync(fd) == 0 && renameat(mark->directory, temporary, mark->directory, mark->name) == 0 &&
        fsync(mark->directory) == 0) {
        mark->fd = fd;
        mark->sequence += 2;
        mark->number = number;
        return true;
    }
    int number_of_error = errno;
    close(fd);
    errno = number_of_error;
    return false;
}

bool mark_save(struct mark *mark, uint64_t number)
{
    if (mark->fd < 0)
        return replace_file(mark, number);
    if (write_slot(mark->fd, mark->sequence + 1, number) && fdatasync(mark->fd) == 0) {
        mark->sequence++;
        mark->number = number;
        return true;
    }
    /* A second fsync of this descriptor would say nothing about the first: the next save makes a
     * new file. Until then the old one should not promise what was not; on a disk that fails now
     * that is all that can be done, and an error on the side of too much is a false alarm only. */
    int number_of_error = errno;
    (void)!write_slot(mark->fd, mark->sequence + 1, mark->number);
    mark_close(mark);
    errno = number_of_error;
    return false;
}

void mark_close(struct mark *mark)
{
    if (mark->fd >= 0)
        close(mark->fd);
    mark->fd = -1;
}
