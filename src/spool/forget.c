/* SPDX-License-Identifier: Apache-2.0 */
/* A person leaves the spool: records that name them are written anew without what they say, under
 * their number and with the hash of what is left. Every step is a transaction of SQLite, so a crash
 * leaves each record as it was or as it shall be; which records there are is not touched. Then the
 * file is rebuilt from its rows and its WAL is emptied: nothing of what was is left in either. */
#include "base/slice.h"
#include "spool/room.h"

#include <stdio.h>
#include <string.h>

enum { ARENA_FIRST_BYTES = 4096 };

struct forgetting {
    spool_names *names;
    void *context;
    struct record_buffer buffer;
    struct spool_forgotten *out;
};

/* Writes row `row` anew into the buffer if it names the person; *named says whether it does. */
static enum oh_status strip_row(struct forgetting *it, const struct segment_row *row, bool *named)
{
    uint8_t hash[RECORD_HASH_BYTES];
    struct record record;
    struct oh_error err;
    *named = false;
    if (row->hash.len != sizeof(hash) || !row->bytes.data)
        return OH_UNREADABLE;
    record_hash(row->number, row->bytes, hash);
    if (memcmp(hash, row->hash.data, sizeof(hash)) != 0)
        return OH_UNREADABLE;
    struct oh_arena *arena = oh_arena_new(ARENA_FIRST_BYTES, ARENA_FIRST_BYTES + row->bytes.len);
    if (!arena)
        return OH_NO_MEMORY;
    enum oh_status status = record_decode(row->bytes, arena, &record, &err);
    *named = status == OH_OK && it->names(it->context, record.delivery);
    if (*named)
        status = record_encode_bare(&it->buffer, &record);
    oh_arena_free(arena);
    return status;
}

/* One transaction over all rows of a segment. */
static enum segment_result strip_rows(struct forgetting *it, struct segment *segment, uint64_t next,
                                      bool *any, struct oh_error *err)
{
    struct segment_row row;
    enum segment_result result = segment_begin(segment, err);
    if (result == SEGMENT_OK)
        result = segment_seek(segment, next, INT64_MAX, err);
    while (result == SEGMENT_OK && (result = segment_next(segment, &row, err)) == SEGMENT_OK) {
        bool named;
        uint64_t number = row.number;
        enum oh_status status = strip_row(it, &row, &named);
        if (status == OH_NO_MEMORY)
            return SEGMENT_AGAIN;
        it->out->unreadable += status != OH_OK;
        *any |= named;
        struct oh_slice bare = slice_of(it->buffer.bytes, it->buffer.len);
        if (!named || status != OH_OK || slice_equals(bare, row.bytes))
            continue;
        segment_rest(segment); /* the row is no longer read */
        result = segment_add(segment, number, bare, err);
        if (result == SEGMENT_OK)
            result = segment_seek(segment, number + 1, INT64_MAX, err);
        it->out->changed++;
    }
    segment_rest(segment);
    return result == SEGMENT_END ? segment_commit(segment, err) : result;
}

static enum oh_status strip_segment(struct forgetting *it, const struct spool *spool,
                                    uint64_t first, struct oh_error *err)
{
    char path[4096];
    struct segment *segment = NULL;
    struct oh_error why = {.text = ""};
    bool any = false;
    directory_path(spool, first, path, sizeof(path));
    enum segment_result result = segment_open_to_change(path, &segment, &why);
    if (result == SEGMENT_OK)
        result = strip_rows(it, segment, first, &any, &why);
    /* Also when nothing changed now: the run before may have ended before this. */
    if (result == SEGMENT_OK && any)
        result = segment_rebuild(segment, &why);
    segment_close(segment, result == SEGMENT_OK);
    return result == SEGMENT_OK ? OH_OK : oh_fail(err, OH_SYSTEM, "%s: %s", path, why.text);
}

enum oh_status spool_forget(const struct config *config, spool_names *names, void *context,
                            struct spool_forgotten *out, struct oh_error *err)
{
    pid_t owner;
    struct forgetting it = {.names = names, .context = context, .out = out};
    *out = (struct spool_forgotten){0};
    struct spool *spool = spool_new(config);
    if (!spool)
        return oh_fail(err, OH_NO_MEMORY, "no memory for the spool");
    enum oh_status status = directory_open(spool, &owner, err);
    for (size_t i = 0; status == OH_OK && i < spool->segment_count; i++)
        status = strip_segment(&it, spool, spool->segments[i].first, err);
    if (status == OH_OK)
        out->set_aside = directory_count_aside(spool);
    record_buffer_free(&it.buffer);
    spool_close(spool);
    return status;
}
