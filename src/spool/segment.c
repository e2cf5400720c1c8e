/* SPDX-License-Identifier: Apache-2.0 */
/* spool/segment.h, on SQLite. Checkpoints are ours (wal_autocheckpoint=0): SQLite would hide a
 * failing one, and it would come before the group is acknowledged. */
#include "spool/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    PAGE_BYTES = 8192, /* 8 records of 600 bytes of payload; what one flipped byte may cost */
    BUSY_MS = 1000,    /* readers hold no lock that a writer waits for; `status` may, for moments */
};

struct segment {
    sqlite3 *db;
    sqlite3_stmt *begin, *add, *commit, *range, *greatest;
    uint64_t wal_pages, settled_pages;
};

/* ---- results --------------------------------------------------------------------------------- */

/* The disk fails, as open(2) and read(2) say it. */
static bool is_disk_error(int number)
{
    return number == EIO || number == ENXIO || number == EUCLEAN || number == EBADMSG;
}

/* Whether the system failed to read the file or its WAL since they were opened: a statement that
 * meets EIO says SQLITE_CORRUPT, as for a page that is not what it was. */
static bool has_read_error(sqlite3 *db)
{
    sqlite3_file *wal = NULL;
    int of_file = 0, of_wal = 0;
    sqlite3_file_control(db, NULL, SQLITE_FCNTL_LAST_ERRNO, &of_file);
    sqlite3_file_control(db, NULL, SQLITE_FCNTL_JOURNAL_POINTER, &wal);
    if (wal && wal->pMethods)
        wal->pMethods->xFileControl(wal, SQLITE_FCNTL_LAST_ERRNO, &of_wal);
    return is_disk_error(of_file) || is_disk_error(of_wal);
}

static enum segment_result result_of(sqlite3 *db, int code)
{
    switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_DONE:
    case SQLITE_ROW:
        return SEGMENT_OK;
    case SQLITE_FULL:
        return SEGMENT_FULL;
    case SQLITE_NOMEM:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PERM:
    case SQLITE_READONLY:
        return SEGMENT_AGAIN;
    case SQLITE_CANTOPEN:
    case SQLITE_IOERR: {
        int number = db ? sqlite3_system_errno(db) : 0;
        if (code == SQLITE_IOERR_NOMEM || number == EMFILE || number == ENFILE || number == ENOMEM)
            return SEGMENT_AGAIN;
        if (number == ENOSPC || number == EDQUOT)
            return SEGMENT_FULL;
        if (code == SQLITE_IOERR_SHORT_READ)
            return SEGMENT_DAMAGED;
        return (code & 0xff) == SQLITE_CANTOPEN && !is_disk_error(number) ? SEGMENT_AGAIN
                                                                          : SEGMENT_FAILED;
    }
    case SQLITE_CORRUPT:
        return db && has_read_error(db) ? SEGMENT_FAILED : SEGMENT_DAMAGED;
    default:
        return SEGMENT_DAMAGED;
    }
}

/* What `code` means, with its words in *err. SQLite's messages name no content. */
static enum segment_result fail(sqlite3 *db, int code, struct oh_error *err)
{
    enum segment_result result = result_of(db, code);
    if (result == SEGMENT_FAILED && (code & 0xff) == SQLITE_CORRUPT)
        code = SQLITE_IOERR; /* it is the disk that people shall look at */
    int number = db && result != SEGMENT_DAMAGED ? sqlite3_system_errno(db) : 0;
    if (result != SEGMENT_OK)
        (void)oh_fail(err, OH_SYSTEM, "%s%s%s", sqlite3_errstr(code), number ? ": " : "",
                      number ? strerror(number) : "");
    return result;
}

static enum segment_result run(struct segment *segment, const char *sql, struct oh_error *err)
{
    return fail(segment->db, sqlite3_exec(segment->db, sql, NULL, NULL, NULL), err);
}

static enum segment_result prepare(struct segment *segment, const char *sql, sqlite3_stmt **out,
                                   struct oh_error *err)
{
    return fail(segment->db,
                sqlite3_prepare_v3(segment->db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL),
                err);
}

static enum segment_result step(struct segment *segment, sqlite3_stmt *statement,
                                struct oh_error *err)
{
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    return fail(segment->db, code, err);
}

/* ---- life ------------------------------------------------------------------------------------ */

/* Every commit tells how long the WAL is. */
static int note_wal(void *context, sqlite3 *db, const char *name, int pages)
{
    struct segment *segment = context;
    (void)db;
    (void)name;
    segment->wal_pages = (uint64_t)pages;
    return SQLITE_OK;
}

static enum segment_result open_file(const char *path, int flags, struct segment **out,
                                     struct oh_error *err)
{
    struct segment *segment = calloc(1, sizeof(*segment));
    *out = NULL;
    if (!segment) {
        (void)oh_fail(err, OH_NO_MEMORY, "out of memory");
        return SEGMENT_AGAIN;
    }
    int code = sqlite3_open_v2(path, &segment->db, flags | SQLITE_OPEN_NOMUTEX, NULL);
    enum segment_result result = fail(segment->db, code, err);
    /* Of the file alone: on a disk that became read-only there is no -shm either. */
    if (code == SQLITE_CANTOPEN && segment->db && sqlite3_system_errno(segment->db) == ENOENT)
        result = SEGMENT_DAMAGED;
    if (result == SEGMENT_OK) {
        sqlite3_extended_result_codes(segment->db, 1);
        sqlite3_busy_timeout(segment->db, BUSY_MS);
        /* Until it is closed well: no file is touched by closing. */
        sqlite3_db_config(segment->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        sqlite3_db_config(segment->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
        sqlite3_db_config(segment->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
        result = run(segment, "PRAGMA mmap_size=0; PRAGMA cell_size_check=ON", err);
    }
    if (result != SEGMENT_OK) {
        segment_close(segment, false);
        return result;
    }
    *out = segment;
    return SEGMENT_OK;
}

/* The table is made before WAL is switched on, so that it is in the file itself. A crash meanwhile
 * leaves a file in which nothing was acknowledged, so no journal is needed for it. */
static enum segment_result make_table(struct segment *segment, struct oh_error *err)
{
    char sql[320];
    sqlite3_snprintf(sizeof(sql), sql,
                     "PRAGMA page_size=%d; PRAGMA synchronous=FULL; PRAGMA cache_size=-8192; "
                     "PRAGMA journal_mode=MEMORY; "
                     "CREATE TABLE records(number INTEGER PRIMARY KEY, hash BLOB, bytes BLOB);"
                     "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0",
                     PAGE_BYTES);
    return run(segment, sql, err);
}

enum segment_result segment_create(const char *path, struct segment **out, struct oh_error *err)
{
    *out = NULL;
    /* SQLite would take the umask's mode; the WAL takes the file's. */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        enum segment_result why = errno == ENOSPC || errno == EDQUOT   ? SEGMENT_FULL
                                  : errno == EMFILE || errno == ENFILE ? SEGMENT_AGAIN
                                                                       : SEGMENT_FAILED;
        (void)oh_fail(err, OH_SYSTEM, "%s", strerror(errno));
        return why;
    }
    close(fd);
    struct segment *segment;
    enum segment_result result = open_file(path, SQLITE_OPEN_READWRITE, &segment, err);
    if (result == SEGMENT_OK)
        result = make_table(segment, err);
    if (result == SEGMENT_OK)
        result = prepare(segment, "BEGIN IMMEDIATE", &segment->begin, err);
    if (result == SEGMENT_OK)
        result = prepare(segment, "INSERT INTO records VALUES(?1, ?2, ?3)", &segment->add, err);
    if (result == SEGMENT_OK)
        result = prepare(segment, "COMMIT", &segment->commit, err);
    if (result != SEGMENT_OK) {
        segment_close(segment, false);
        return result;
    }
    sqlite3_wal_hook(segment->db, note_wal, segment);
    *out = segment;
    return SEGMENT_OK;
}

/* `alone`: without the WAL's index beside the file, which nobody else may read then. */
static enum segment_result open_to_read(const char *path, bool alone, struct segment **out,
                                        struct oh_error *err)
{
    /* READWRITE: a WAL without its index can only be read by who may make one. */
    struct segment *segment;
    enum segment_result result = open_file(path, SQLITE_OPEN_READWRITE, &segment, err);
    *out = NULL;
    if (result == SEGMENT_OK && alone)
        result = run(segment, "PRAGMA locking_mode=EXCLUSIVE", err);
    if (result == SEGMENT_OK)
        result = prepare(segment,
                         "SELECT number, hash, bytes FROM records WHERE number BETWEEN ?1 AND ?2 "
                         "ORDER BY number",
                         &segment->range, err);
    if (result == SEGMENT_OK)
        result = prepare(segment, "SELECT number FROM records ORDER BY number DESC LIMIT 1",
                         &segment->greatest, err);
    if (result != SEGMENT_OK) {
        segment_close(segment, false);
        return result;
    }
    *out = segment;
    return SEGMENT_OK;
}

enum segment_result segment_open(const char *path, struct segment **out, struct oh_error *err)
{
    enum segment_result result = open_to_read(path, false, out, err);
    /* On a disk that is full of segments there would never be room for the index. */
    return result == SEGMENT_FULL ? open_to_read(path, true, out, err) : result;
}

enum segment_result segment_open_to_change(const char *path, struct segment **out,
                                           struct oh_error *err)
{
    struct segment *segment;
    enum segment_result result = segment_open(path, &segment, err);
    *out = NULL;
    if (result != SEGMENT_OK)
        return result;
    result = run(segment,
                 "PRAGMA synchronous=FULL; PRAGMA secure_delete=ON; PRAGMA temp_store=MEMORY; "
                 "PRAGMA wal_autocheckpoint=0",
                 err);
    if (result == SEGMENT_OK)
        result = prepare(segment, "BEGIN IMMEDIATE", &segment->begin, err);
    if (result == SEGMENT_OK)
        result = prepare(segment, "UPDATE records SET hash=?2, bytes=?3 WHERE number=?1",
                         &segment->add, err);
    if (result == SEGMENT_OK)
        result = prepare(segment, "COMMIT", &segment->commit, err);
    if (result != SEGMENT_OK) {
        segment_close(segment, false);
        return result;
    }
    *out = segment;
    return SEGMENT_OK;
}

enum segment_result segment_rebuild(struct segment *segment, struct oh_error *err)
{
    enum segment_result result = run(segment, "VACUUM", err);
    return result != SEGMENT_OK
               ? result
               : fail(segment->db,
                      sqlite3_wal_checkpoint_v2(segment->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL,
                                                NULL),
                      err);
}

void segment_close(struct segment *segment, bool well)
{
    if (!segment)
        return;
    if (well)
        sqlite3_db_config(segment->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    sqlite3_finalize(segment->begin);
    sqlite3_finalize(segment->add);
    sqlite3_finalize(segment->commit);
    sqlite3_finalize(segment->range);
    sqlite3_finalize(segment->greatest);
    sqlite3_close_v2(segment->db);
    free(segment);
}

/* ---- writing --------------------------------------------------------------------------------- */

enum segment_result segment_begin(struct segment *segment, struct oh_error *err)
{
    return step(segment, segment->begin, err);
}

enum segment_result segment_add(struct segment *segment, uint64_t number, struct oh_slice bytes,
                                struct oh_error *err)
{
    uint8_t hash[RECORD_HASH_BYTES];
    record_hash(number, bytes, hash);
    sqlite3_bind_int64(segment->add, 1, (sqlite3_int64)number);
    sqlite3_bind_blob(segment->add, 2, hash, sizeof(hash), SQLITE_STATIC);
    sqlite3_bind_blob64(segment->add, 3, bytes.data, bytes.len, SQLITE_STATIC);
    return step(segment, segment->add, err);
}

enum segment_result segment_commit(struct segment *segment, struct oh_error *err)
{
    return step(segment, segment->commit, err);
}

uint64_t segment_unsettled_bytes(const struct segment *segment)
{
    /* The WAL starts anew after it was settled whole: then it is shorter than it was. */
    uint64_t settled = segment->settled_pages <= segment->wal_pages ? segment->settled_pages : 0;
    return (segment->wal_pages - settled) * PAGE_BYTES;
}

enum segment_result segment_settle(struct segment *segment, bool shrink, struct oh_error *err)
{
    int pages = 0;
    if (!sqlite3_get_autocommit(segment->db)) /* what has failed is left out */
        (void)sqlite3_exec(segment->db, "ROLLBACK", NULL, NULL, NULL);
    enum segment_result result =
        fail(segment->db,
             sqlite3_wal_checkpoint_v2(
                 segment->db, NULL, shrink ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE,
                 &pages, NULL),
             err);
    if (result == SEGMENT_AGAIN && shrink) /* it is being read: it is settled, and stays as long */
        result = SEGMENT_OK;
    if (result == SEGMENT_OK)
        segment->settled_pages = segment->wal_pages;
    return result;
}

/* ---- reading --------------------------------------------------------------------------------- */

enum segment_result segment_seek(struct segment *segment, uint64_t first, uint64_t last,
                                 struct oh_error *err)
{
    sqlite3_reset(segment->range);
    sqlite3_bind_int64(segment->range, 1, (sqlite3_int64)first);
    return fail(segment->db, sqlite3_bind_int64(segment->range, 2, (sqlite3_int64)last), err);
}

enum segment_result segment_next(struct segment *segment, struct segment_row *row,
                                 struct oh_error *err)
{
    int code = sqlite3_step(segment->range);
    if (code == SQLITE_DONE)
        return SEGMENT_END;
    if (code != SQLITE_ROW)
        return fail(segment->db, code, err);
    row->number = (uint64_t)sqlite3_column_int64(segment->range, 0);
    const char *hash = sqlite3_column_blob(segment->range, 1);
    row->hash = (struct oh_slice){hash, (size_t)sqlite3_column_bytes(segment->range, 1)};
    const char *bytes = sqlite3_column_blob(segment->range, 2);
    row->bytes = (struct oh_slice){bytes, (size_t)sqlite3_column_bytes(segment->range, 2)};
    return SEGMENT_OK;
}

void segment_rest(struct segment *segment)
{
    sqlite3_reset(segment->range);
}

enum segment_result segment_greatest(struct segment *segment, uint64_t *number,
                                     struct oh_error *err)
{
    int code = sqlite3_step(segment->greatest);
    if (code == SQLITE_ROW)
        *number = (uint64_t)sqlite3_column_int64(segment->greatest, 0);
    sqlite3_reset(segment->greatest);
    return code == SQLITE_DONE ? SEGMENT_END : fail(segment->db, code, err);
}
