/* SPDX-License-Identifier: Apache-2.0 */
/* The spool: decided events on this node's disk while PostgreSQL is away. A 202 means that they are
 * in there.
 *
 * A directory of SQLite files (segments, WAL, synchronous=FULL), one owner at a time. One thread
 * writes: it groups what all lanes hand over into one transaction. SQLite gives atomic commits; it
 * does not notice a flipped byte or a lost tail, so each record carries a running number and the
 * XXH3-128 of its bytes, and the last acknowledged number is kept beside the segments. Another
 * thread drains: it reads in the order of the numbers and says when a chunk is in PostgreSQL. The
 * format of a record is in spool/record.h. */
#ifndef SPOOL_SPOOL_H
#define SPOOL_SPOOL_H

#include "delivery/delivery.h"
#include "metrics/metrics.h"

#include <sys/types.h>

struct spool;

/* Called by the spool's thread with the deliveries whose last event is decided, chained by
 * next_decided. May not block. */
typedef void spool_on_decided(void *context, struct delivery *decided);

/* Takes the directory (made with mode 0700 when it is not there) and reads where it stands, without
 * reading the records: the time does not depend on what it holds. Everything given must outlive the
 * spool. Errors: OH_SYSTEM with a reason a person can act on (another owner, no rights, …). */
enum oh_status spool_open(const struct config *config, struct metrics_shard *shard,
                          spool_on_decided *on_decided, void *context, struct spool **out,
                          struct oh_error *err) OH_MUST_CHECK;

/* Hands over `count` events, linked by their `link`. Each is decided by the spool's thread:
 * DELIVERY_SPOOLED once it is on disk, DELIVERY_UNDECIDED when it cannot be put there in time
 * (full, disk error, deadline passed). Never waits for the disk. Thread: any. */
void spool_put(struct spool *spool, struct list *events, size_t count);

/* True if what is put now is likely to be kept: there is room and the disk works. Thread: any. */
bool spool_accepts(const struct spool *spool);

struct spool_state {
    uint64_t waiting;           /* records that are not in PostgreSQL yet */
    uint64_t last_acknowledged; /* number */
    uint64_t segments;
    uint64_t bytes;   /* on disk */
    uint64_t lost;    /* records that were acknowledged and cannot be read, since the first start */
    int64_t oldest_s; /* age of the oldest record; 0 = none */
    bool accepts;
    char problem[256]; /* why not, or why nothing is drained; "" = neither */
};
void spool_get_state(struct spool *spool, struct spool_state *state);

/* Records on their way back, each as a delivery of one event of its own (delivery->chunk is set),
 * all in one arena. A record that is older than spool.age, and one that was a quarantined body, is
 * a delivery with `unreadable` set. */
struct spool_chunk {
    struct spool_chunk *next; /* the drain's own */
    struct delivery **deliveries;
    size_t count;             /* 0: only lost records in this range */
    uint64_t first, last;     /* numbers; what is missing between them has been reported */
    _Atomic size_t undecided; /* the drain's own */
};

/* The next records after those read before, up to the bounds; NULL when there are none now. The
 * deadline of each delivery is far away. Thread: the one that drains. */
struct spool_chunk *spool_read(struct spool *spool, size_t events_max, size_t bytes_max);

/* Everything in the chunk is decided in PostgreSQL: the position is saved, then what is read whole
 * is deleted, then the chunk is freed. In the order of spool_read(). Thread: the one that drains.
 */
void spool_finish(struct spool *spool, struct spool_chunk *chunk);

/* Frees a chunk that is not decided to its end, when the drain stops: it is read again after the
 * next spool_open(). No delivery of it may be on its way. Thread: the one that drains, or the one
 * that joined it. */
void spool_release(struct spool *spool, struct spool_chunk *chunk);

/* Waits up to timeout_ms for something to read. Thread: the one that drains. */
bool spool_wait(struct spool *spool, int64_t timeout_ms);

/* A spool that nobody owns, or somebody else: reads where it stands and changes nothing on disk.
 * *owner: the process that owns it, 0 = none. spool_get_state(), spool_read(), spool_release() and
 * spool_close() work; losses are not written down. Errors: as spool_open(). */
enum oh_status spool_look(const struct config *config, struct spool **out, pid_t *owner,
                          struct oh_error *err) OH_MUST_CHECK;

/* Takes a spool that nobody owns for a moment, and has every record that names a person lose what
 * it says (record_encode_bare()): it is drained and counted as before. True from `names`: it does.
 * May be called again after an error. Errors: as spool_open(), and a segment that cannot be
 * rewritten. */
typedef bool spool_names(void *context, const struct delivery *delivery);
struct spool_forgotten {
    uint64_t changed;    /* records */
    uint64_t unreadable; /* records that cannot be judged, and stay */
    uint64_t set_aside;  /* `damaged-…` segments, which are not looked into */
};
enum oh_status spool_forget(const struct config *config, spool_names *names, void *context,
                            struct spool_forgotten *out, struct oh_error *err) OH_MUST_CHECK;

/* Calls `each` for every range of lost records since the first start. `words`: reason, segment and
 * time. */
typedef void spool_on_loss(void *context, uint64_t first, uint64_t last, const char *words);
void spool_each_loss(const struct spool *spool, spool_on_loss *each, void *context);

/* Writes what was handed over, ends the thread, gives the directory back. No drain may be running.
 */
void spool_close(struct spool *spool);

#endif
