/* SPDX-License-Identifier: Apache-2.0 */
/* The way back. Numbers are read in order, each from the segment whose name covers it; one that is
 * not there, does not verify or cannot be read is lost: logged, counted, written to `losses`.
 * Damage ends neither the segment nor the queue: what can still be found by its number is drained.
 */
#include "base/clock.h"
#include "base/slice.h"
#include "log/log.h"
#include "spool/room.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOOKUPS_MAX = 100000, /* numbers in one chunk, found or not */
    PAUSE_MS = 200,       /* after an error that may pass */
    ARENA_FIRST_BYTES = 64 * 1024,
    YEAR_S = 365 * 24 * 3600,
};

/* A chunk, and where it lives. */
struct owned_chunk {
    struct spool_chunk chunk; /* first: the drain knows this only */
    struct oh_arena *arena;
    size_t bytes, lookups;
};

/* A source of records that the configuration does not have (any more) as they were accepted. Kept
 * to the end: others point to its texts. */
struct standin {
    struct standin *next;
    struct config_source source;
    char texts[];
};

/* ---- losses ---------------------------------------------------------------------------------- */

/* Counts and writes down what of the stretch is not yet: before the drain can pass it. */
static void report_loss(struct spool *spool)
{
    struct spool_reader *reader = &spool->reader;
    uint64_t first = reader->loss_first, last = reader->loss_last;
    if (first <= reader->reported_to) /* a part before this, or before a crash */
        first = reader->reported_to + 1;
    if (!reader->loss_first || first > last)
        return;
    pthread_mutex_lock(&spool->mutex);
    for (size_t i = 0; i < spool->segment_count; i++)
        if (spool->segments[i].first == reader->segment_first)
            spool->segments[i].damaged = true;
    pthread_mutex_unlock(&spool->mutex);
    reader->reported_to = last;
    atomic_fetch_add(&spool->lost, last - first + 1);
    if (!spool->only_looks)
        directory_note_loss(spool, first, last, reader->loss_reason, reader->segment_first);
}

/* The log has one line for a stretch, however often its reading was taken up again. */
static void end_stretch(struct spool *spool)
{
    struct spool_reader *reader = &spool->reader;
    report_loss(spool);
    if (reader->loss_first)
        LOG_LINE(
            LOG_ERROR, "spool", "records are lost", log_int("first", (int64_t)reader->loss_first),
            log_int("last", (int64_t)reader->loss_last), log_text("reason", reader->loss_reason));
    reader->loss_first = 0;
}

/* Notes the next number as lost. */
static void lose_next(struct spool *spool, const char *reason)
{
    struct spool_reader *reader = &spool->reader;
    if (reader->loss_reason != reason || reader->loss_last + 1 != reader->next)
        end_stretch(spool); /* what was found between two losses is no part of them */
    if (!reader->loss_first)
        reader->loss_first = reader->next;
    reader->loss_reason = reason;
    reader->loss_last = reader->next++;
}

/* ---- sources --------------------------------------------------------------------------------- */

static char *keep_text(char **at, struct oh_slice text)
{
    char *kept = memcpy(*at, text.data, text.len);
    kept[text.len] = '\0';
    *at += text.len + 1;
    return kept;
}

static const struct config_source *find_standin(struct spool *spool, const struct record *record,
                                                struct oh_slice scope, uint32_t number)
{
    struct standin **list = &spool->reader.standins;
    for (struct standin *s = *list; s; s = s->next)
        if (slice_equals(record->source, slice_of_text(s->source.name)) &&
            slice_equals(record->provider, slice_of_text(s->source.provider)) &&
            slice_equals(scope, slice_of_text(s->source.scope_id)))
            return &s->source;
    struct standin *made =
        calloc(1, sizeof(*made) + record->source.len + record->provider.len + scope.len + 3);
    if (!made)
        return NULL;
    char *at = made->texts;
    made->source.number = number;
    made->source.name = keep_text(&at, record->source);
    made->source.provider = keep_text(&at, record->provider);
    made->source.scope_id = made->source.scope_other = keep_text(&at, scope);
    made->next = *list;
    *list = made;
    return &made->source;
}

/* The source as it is configured, if the record is still what it would make; else a stand-in that
 * says what the record says. The scope's text lives as long. False: no memory. */
static bool find_source(struct spool *spool, const struct record *record)
{
    struct delivery *delivery = record->delivery;
    struct delivery_event *item = &delivery->events[0];
    struct oh_slice scope = item->event ? item->scope : SLICE_LITERAL("");
    const struct config_source *source = config_find_source(spool->config, record->source);
    if (source && slice_equals(record->provider, slice_of_text(source->provider))) {
        delivery->source = source;
        const char *scopes[] = {source->scope_id, source->scope_other};
        for (int i = 0; i < 2; i++)
            if (!item->event || slice_equals(scope, slice_of_text(scopes[i]))) {
                item->scope = slice_of_text(scopes[i]);
                return true;
            }
    }
    delivery->source = find_standin(spool, record, scope, source ? source->number : UINT32_MAX);
    if (delivery->source)
        item->scope = slice_of_text(delivery->source->scope_id);
    return delivery->source != NULL;
}

/* Why nothing is drained, for those who ask; "" = something is. */
static void set_trouble(struct spool *spool, const char *words)
{
    pthread_mutex_lock(&spool->mutex);
    snprintf(spool->trouble, sizeof(spool->trouble), "%s", words);
    pthread_mutex_unlock(&spool->mutex);
    spool->reader.has_trouble = words[0] != '\0';
}

/* ---- one record ------------------------------------------------------------------------------ */

enum take_result { TAKE_DONE, TAKE_CHANGED, TAKE_NO_MEMORY };

/* Makes the record a delivery of the drain. */
static bool dress(struct spool *spool, struct owned_chunk *owned, const struct record *record)
{
    struct delivery *delivery = record->delivery;
    struct delivery_event *item = &delivery->events[0];
    if (!find_source(spool, record))
        return false;
    int64_t age_us = clock_wall_us() - delivery->accepted_wall_us;
    delivery->arena = owned->arena;
    delivery->chunk = &owned->chunk;
    delivery->accepted_mono_us = clock_mono_us();
    delivery->deadline_mono_us = delivery->accepted_mono_us + (int64_t)YEAR_S * 1000000;
    if (!item->event)
        return true;
    delivery->request.method = SLICE_LITERAL("POST");
    delivery->request.body = item->event->raw;
    if (!spool->only_looks && age_us / 1000000 > spool->config->spool.age_s) {
        /* The ledger may have forgotten its id by now. */
        item->event = NULL;
        delivery->unreadable = "older than spool.age";
    }
    return true;
}

static enum take_result take_row(struct spool *spool, struct owned_chunk *owned,
                                 const struct segment_row *row)
{
    uint8_t hash[RECORD_HASH_BYTES];
    struct record record;
    struct oh_error err;
    if (row->hash.len != sizeof(hash) || !row->bytes.data)
        return TAKE_CHANGED;
    record_hash(row->number, row->bytes, hash);
    if (memcmp(hash, row->hash.data, sizeof(hash)) != 0)
        return TAKE_CHANGED;
    char *bytes = oh_arena_alloc(owned->arena, row->bytes.len);
    if (!bytes)
        return TAKE_NO_MEMORY;
    memcpy(bytes, row->bytes.data, row->bytes.len);
    enum oh_status status =
        record_decode(slice_of(bytes, row->bytes.len), owned->arena, &record, &err);
    if (status == OH_UNREADABLE) /* it verifies: another version's. The segment is kept aside */
        LOG_RATE_LIMITED(LOG_ERROR, "spool", "a record is not for this program",
                         log_text("reason", err.text));
    if (status != OH_OK)
        return status == OH_UNREADABLE ? TAKE_CHANGED : TAKE_NO_MEMORY;
    if (!dress(spool, owned, &record))
        return TAKE_NO_MEMORY;
    patience_note_record(&spool->reader.patience);
    if (spool->reader.has_trouble)
        set_trouble(spool, "");
    owned->chunk.deliveries[owned->chunk.count++] = record.delivery;
    owned->bytes += row->bytes.len;
    return TAKE_DONE;
}

/* ---- reading a segment ----------------------------------------------------------------------- */

static void leave_segment(struct spool_reader *reader)
{
    segment_close(reader->segment, false);
    reader->segment = NULL;
}

static void pause_reading(struct spool_reader *reader, enum segment_result result)
{
    leave_segment(reader);
    if (result != SEGMENT_DAMAGED) /* a second look shows whether it is damage */
        reader->retry_at_mono_us = clock_mono_us() + PAUSE_MS * 1000;
}

/* Whether the segment is opened and read again before anything counts as lost. */
static bool is_tried_again(struct spool *spool, enum segment_result result,
                           const struct oh_error *err)
{
    char words[256];
    struct spool_reader *reader = &spool->reader;
    snprintf(words, sizeof(words), "a segment cannot be read: %.200s", err->text);
    set_trouble(spool, words);
    if (spool->only_looks && result != SEGMENT_DAMAGED)
        result = SEGMENT_FAILED; /* who only looks waits for nothing without end */
    return patience_tries_again(&reader->patience, result, reader->next, clock_mono_us(),
                                spool->read_patience_ms * 1000);
}

/* What an error means for the next number. True: go on; false: this chunk ends here. */
static bool bear(struct spool *spool, enum segment_result result, const struct oh_error *err)
{
    struct spool_reader *reader = &spool->reader;
    LOG_RATE_LIMITED(LOG_ERROR, "spool", "a segment cannot be read in order",
                     log_int("number", (int64_t)reader->next), log_text("reason", err->text));
    if (is_tried_again(spool, result, err)) {
        pause_reading(reader, result);
        return false;
    }
    if (reader->one_by_one) {
        reader->patience.given_up = reader->next;
        lose_next(spool, "unreadable");
    }
    reader->one_by_one = true;
    return true;
}

/* Looks the next number up by itself: of several rows one may verify. False: the chunk ends. */
static bool look_up(struct spool *spool, struct owned_chunk *owned)
{
    struct spool_reader *reader = &spool->reader;
    struct segment_row row;
    struct oh_error err;
    const char *reason = "missing";
    enum segment_result result = segment_seek(reader->segment, reader->next, reader->next, &err);
    while (result == SEGMENT_OK &&
           (result = segment_next(reader->segment, &row, &err)) == SEGMENT_OK) {
        enum take_result taken =
            row.number == reader->next ? take_row(spool, owned, &row) : TAKE_CHANGED;
        if (taken == TAKE_NO_MEMORY) {
            pause_reading(reader, SEGMENT_AGAIN);
            return false;
        }
        if (taken == TAKE_DONE) {
            segment_rest(reader->segment);
            reader->next++;
            return true;
        }
        reason = "changed";
    }
    if (result != SEGMENT_END)
        return bear(spool, result, &err);
    lose_next(spool, reason);
    return true;
}

/* The next row in order. False: the chunk ends. */
static bool read_on(struct spool *spool, struct owned_chunk *owned)
{
    struct spool_reader *reader = &spool->reader;
    struct segment_row row;
    struct oh_error err;
    enum segment_result result = segment_next(reader->segment, &row, &err);
    if (result == SEGMENT_END || (result == SEGMENT_OK && row.number != reader->next)) {
        reader->one_by_one = true; /* something is missing or out of place */
        return true;
    }
    if (result != SEGMENT_OK)
        return bear(spool, result, &err);
    switch (take_row(spool, owned, &row)) {
    case TAKE_DONE:
        reader->next++;
        return true;
    case TAKE_CHANGED:
        reader->one_by_one = true;
        return true;
    default:
        pause_reading(reader, SEGMENT_AGAIN);
        return false;
    }
}

/* Opens the segment that covers the next number; *last: where it ends. False: not now. */
static bool enter_segment(struct spool *spool, uint64_t *last)
{
    struct spool_reader *reader = &spool->reader;
    uint64_t first = 0, acknowledged = atomic_load(&spool->last_acknowledged);
    pthread_mutex_lock(&spool->mutex);
    *last = acknowledged;
    for (size_t i = 0; i < spool->segment_count; i++) {
        if (spool->segments[i].first > reader->next) {
            if (spool->segments[i].first - 1 < *last)
                *last = spool->segments[i].first - 1;
            break;
        }
        first = spool->segments[i].first;
    }
    pthread_mutex_unlock(&spool->mutex);
    if (first != reader->segment_first) {
        leave_segment(reader);
        reader->segment_first = first;
        reader->one_by_one = false;
        reader->patience = (struct patience){0};
    }
    if (reader->segment || !first)
        return true;
    char path[4096];
    struct oh_error err;
    directory_path(spool, first, path, sizeof(path));
    enum segment_result result = segment_open(path, &reader->segment, &err);
    if (result == SEGMENT_OK)
        return true;
    patience_note_unopened(&reader->patience);
    if (is_tried_again(spool, result, &err)) {
        LOG_RATE_LIMITED(LOG_ERROR, "spool", "a segment cannot be opened",
                         log_int("first", (int64_t)first), log_text("reason", err.text));
        pause_reading(reader, result);
        return false;
    }
    LOG_RATE_LIMITED(LOG_ERROR, "spool", "a segment is unreadable",
                     log_int("first", (int64_t)first), log_text("reason", err.text));
    return true;
}

static void read_chunk(struct spool *spool, struct owned_chunk *owned, size_t events_max,
                       size_t bytes_max)
{
    struct spool_reader *reader = &spool->reader;
    struct oh_error err;
    uint64_t last;
    if (!enter_segment(spool, &last))
        return;
    if (reader->segment && !reader->one_by_one &&
        segment_seek(reader->segment, reader->next, last, &err) != SEGMENT_OK)
        reader->one_by_one = true;
    bool goes_on = true;
    while (goes_on && reader->next <= last && owned->chunk.count < events_max &&
           owned->bytes < bytes_max && owned->lookups++ < LOOKUPS_MAX) {
        if (!reader->segment)
            lose_next(spool, reader->segment_first ? "unreadable" : "missing");
        else
            goes_on = reader->one_by_one ? look_up(spool, owned) : read_on(spool, owned);
    }
    if (reader->segment)
        segment_rest(reader->segment);
    report_loss(spool);
    if (reader->next != reader->loss_last + 1)
        end_stretch(spool);
}

/* ---- what the drain calls -------------------------------------------------------------------- */

static struct owned_chunk *chunk_new(size_t events_max)
{
    struct oh_arena *arena =
        oh_arena_new(ARENA_FIRST_BYTES + events_max * sizeof(struct delivery *), SIZE_MAX / 4);
    struct owned_chunk *owned = arena ? oh_arena_alloc(arena, sizeof(*owned)) : NULL;
    struct delivery **deliveries =
        owned ? oh_arena_alloc(arena, events_max * sizeof(struct delivery *)) : NULL;
    if (!deliveries) {
        oh_arena_free(arena);
        return NULL;
    }
    memset(owned, 0, sizeof(*owned));
    owned->arena = arena;
    owned->chunk.deliveries = deliveries;
    return owned;
}

/* What is drained is deleted, but for the segment that is being written: when everything is
 * drained, the writer is asked to end that one. */
static void drop_drained(struct spool *spool)
{
    struct spool_reader *reader = &spool->reader;
    uint64_t drained = atomic_load(&spool->last_drained);
    pthread_mutex_lock(&spool->mutex);
    uint64_t acknowledged = atomic_load(&spool->last_acknowledged);
    while (spool->segment_count > 0) {
        bool is_last = spool->segment_count == 1;
        uint64_t last = is_last ? acknowledged : spool->segments[1].first - 1;
        if (last > drained || (is_last && spool->writing))
            break;
        if (reader->segment_first == spool->segments[0].first) {
            leave_segment(reader);
            reader->segment_first = 0;
        }
        directory_drop(spool, 0);
    }
    bool ask = spool->writing && spool->segment_count == 1 && acknowledged == drained &&
               acknowledged >= spool->segments[0].first;
    if (ask)
        spool->retire = true;
    pthread_mutex_unlock(&spool->mutex);
    if (ask)
        pthread_cond_signal(&spool->filled);
}

/* Drops what is drained, if the position on disk says so too. */
static void tidy(struct spool *spool)
{
    if (!spool->only_looks && spool->drained.number == atomic_load(&spool->last_drained))
        drop_drained(spool);
}

struct spool_chunk *spool_read(struct spool *spool, size_t events_max, size_t bytes_max)
{
    struct spool_reader *reader = &spool->reader;
    if (reader->next > atomic_load(&spool->last_acknowledged)) {
        end_stretch(spool);
        if (reader->has_trouble)
            set_trouble(spool, "");
        tidy(spool);
        return NULL;
    }
    if (clock_mono_us() < reader->retry_at_mono_us)
        return NULL;
    struct owned_chunk *owned = chunk_new(events_max);
    if (!owned)
        return NULL;
    owned->chunk.first = reader->next;
    read_chunk(spool, owned, events_max, bytes_max);
    owned->chunk.last = reader->next - 1;
    if (owned->chunk.last < owned->chunk.first) {
        oh_arena_free(owned->arena);
        return NULL;
    }
    return &owned->chunk;
}

void spool_release(struct spool *spool, struct spool_chunk *chunk)
{
    (void)spool;
    oh_arena_free(((struct owned_chunk *)(void *)chunk)->arena);
}

void spool_finish(struct spool *spool, struct spool_chunk *chunk)
{
    /* Saved before anything is deleted. If it cannot be saved, the records are read again after the
     * next start, as duplicates. */
    if (!mark_save(&spool->drained, chunk->last))
        LOG_RATE_LIMITED(LOG_ERROR, "spool", "the position of the drain cannot be saved",
                         log_text("reason", strerror(errno)));
    if (chunk->count > 0)
        atomic_store(&spool->oldest_wall_us, chunk->deliveries[chunk->count - 1]->accepted_wall_us);
    atomic_store(&spool->last_drained, chunk->last);
    spool_release(spool, chunk);
    tidy(spool);
}

bool spool_wait(struct spool *spool, int64_t timeout_ms)
{
    struct spool_reader *reader = &spool->reader;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t until_us = clock_mono_us() + timeout_ms * 1000;
    until.tv_nsec += (timeout_ms % 1000) * 1000000;
    until.tv_sec += timeout_ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    tidy(spool);
    pthread_mutex_lock(&spool->mutex);
    for (;;) {
        bool paused = clock_mono_us() < reader->retry_at_mono_us;
        if (!paused && reader->next <= atomic_load(&spool->last_acknowledged))
            break;
        struct timespec pause = until;
        if (paused && reader->retry_at_mono_us < until_us)
            pause = (struct timespec){.tv_sec = reader->retry_at_mono_us / 1000000,
                                      .tv_nsec = reader->retry_at_mono_us % 1000000 * 1000};
        if (pthread_cond_timedwait(&spool->readable, &spool->mutex, &pause) == ETIMEDOUT &&
            clock_mono_us() >= until_us)
            break;
    }
    bool readable = reader->next <= atomic_load(&spool->last_acknowledged) &&
                    clock_mono_us() >= reader->retry_at_mono_us;
    pthread_mutex_unlock(&spool->mutex);
    return readable;
}

int64_t reader_oldest_wall_us(struct spool *spool)
{
    char path[4096];
    struct segment *segment = NULL;
    struct segment_row row;
    struct oh_error err;
    struct record record;
    int64_t oldest_us = 0;
    uint64_t next = atomic_load(&spool->last_drained) + 1, first = 0;
    pthread_mutex_lock(&spool->mutex);
    for (size_t i = 0; i < spool->segment_count && spool->segments[i].first <= next; i++)
        first = spool->segments[i].first;
    pthread_mutex_unlock(&spool->mutex);
    struct oh_arena *arena = oh_arena_new(ARENA_FIRST_BYTES, ARENA_FIRST_BYTES * 4);
    directory_path(spool, first, path, sizeof(path));
    if (arena && first && segment_open(path, &segment, &err) == SEGMENT_OK &&
        segment_seek(segment, next, INT64_MAX, &err) == SEGMENT_OK &&
        segment_next(segment, &row, &err) == SEGMENT_OK &&
        record_decode(row.bytes, arena, &record, &err) == OH_OK)
        oldest_us = record.delivery->accepted_wall_us;
    segment_close(segment, false);
    oh_arena_free(arena);
    return oldest_us;
}

void reader_free(struct spool *spool)
{
    end_stretch(spool);
    leave_segment(&spool->reader);
    while (spool->reader.standins) {
        struct standin *next = spool->reader.standins->next;
        free(spool->reader.standins);
        spool->reader.standins = next;
    }
}
