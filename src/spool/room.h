/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share. directory.c: the directory and what is written beside the
 * segments; writer.c: the thread that puts records in; reader.c: the way back; spool.c: life. */
#ifndef SPOOL_ROOM_H
#define SPOOL_ROOM_H

#include "spool/mark.h"
#include "spool/patience.h"
#include "spool/segment.h"
#include "spool/spool.h"

#include <pthread.h>
#include <sys/types.h>

enum { SEGMENT_NAME_BYTES = 64 };

/* A file of the directory. It holds the numbers from `first` to before the next one's; all of them
 * were acknowledged, so a number that is not there is lost. */
struct spool_segment {
    uint64_t first;
    uint64_t bytes; /* with its WAL, as last looked at */
    bool damaged;   /* a record of it was lost: kept aside in the end, never deleted */
};

/* The writer's own. */
struct spool_writer {
    pthread_t thread;
    bool has_thread;
    struct segment *segment; /* NULL: the next group makes one */
    bool is_new;             /* its name may not be on disk yet */
    struct record_buffer buffer;
    struct delivery_event **group;
    size_t group_count;
    uint64_t group_bytes;
    struct delivery *decided;
    int64_t retry_at_mono_us; /* no try before it; 0 = none failed */
    uint64_t room_bytes;      /* what the disk must have for the next try */
};

/* The drain's own. */
struct spool_reader {
    struct segment *segment; /* NULL = none open */
    uint64_t segment_first;
    uint64_t next;   /* number to read */
    bool one_by_one; /* this segment is damaged: each number is looked up by itself */
    struct patience patience;
    bool has_trouble; /* spool->trouble is set */
    int64_t retry_at_mono_us;
    uint64_t loss_first, loss_last; /* a stretch that the log has not yet; 0 = none */
    const char *loss_reason;
    uint64_t reported_to; /* losses up to here are counted, and in the file */
    struct standin *standins;
};

struct spool {
    const struct config *config;
    struct metrics_shard *shard;
    spool_on_decided *on_decided;
    void *context;
    bool only_looks;          /* nothing on disk is changed */
    int64_t read_patience_ms; /* a segment that the disk does not read is tried for so long */
    int directory, lock;
    uint64_t segment_bytes_max, settle_bytes;
    struct mark acknowledged, drained; /* the writer's, the drain's */

    pthread_mutex_t mutex; /* guards the next ones up to `trouble` */
    pthread_cond_t filled, readable;
    struct list queue;
    size_t queued;
    bool stopping;
    struct spool_segment *segments; /* by first number */
    size_t segment_count, segment_size;
    bool writing; /* the last segment is the writer's */
    bool retire;  /* the writer shall end its segment: it is drained, or damaged */
    char problem[256];
    char trouble[256]; /* the reader's: why nothing is drained; "" = it reads */

    _Atomic uint64_t last_acknowledged, last_drained;
    _Atomic uint64_t bytes, lost;
    _Atomic int64_t oldest_wall_us;     /* of the first record that waits, or a little before */
    _Atomic int64_t busy_since_mono_us; /* a group is with the disk since then; 0 = none */
    _Atomic bool accepts;
    struct spool_writer writer;
    struct spool_reader reader;
};

/* ---- spool.c ---- */

/* Not open yet. NULL: no memory. */
struct spool *spool_new(const struct config *config);

/* ---- directory.c ---- */

/* Opens the directory, takes the lock (unless it only looks; *owner: who holds it, 0 = nobody),
 * reads marks, names and losses. */
enum oh_status directory_open(struct spool *spool, pid_t *owner, struct oh_error *err);
void directory_close(struct spool *spool);

/* `spool-NUMBER.db` + suffix, in the directory or as a whole path. */
void directory_name(uint64_t first, const char *suffix, char out[SEGMENT_NAME_BYTES]);
void directory_path(const struct spool *spool, uint64_t first, char *out, size_t out_bytes);

/* Looks how large a segment is now, and the sum. Called with the mutex. */
void directory_measure(struct spool *spool, struct spool_segment *segment);

/* Adds a segment at the end, or takes segment `i` out of the list and off the disk: deleted, or
 * kept aside under `damaged-…` when it is. Called with the mutex. */
bool directory_add(struct spool *spool, uint64_t first);
void directory_drop(struct spool *spool, size_t i);

/* Appends a line to `losses`, on disk. segment_first: of the segment, 0 = none covers the range. */
void directory_note_loss(struct spool *spool, uint64_t first, uint64_t last, const char *reason,
                         uint64_t segment_first);

/* Calls `each` for every line of `losses`. */
void directory_read_losses(const struct spool *spool, spool_on_loss *each, void *context);

/* How many `damaged-…` segments are kept for people. */
size_t directory_count_aside(const struct spool *spool);

/* ---- writer.c ---- */
enum oh_status writer_start(struct spool *spool, struct oh_error *err);
void writer_stop(struct spool *spool);

/* ---- reader.c ---- */
/* When the first record that waits was accepted, 0 = cannot be told. */
int64_t reader_oldest_wall_us(struct spool *spool);
void reader_free(struct spool *spool);

#endif
