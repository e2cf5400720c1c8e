/* SPDX-License-Identifier: Apache-2.0 */
/* The spool and its drain: two keys, up to three records, chunks of one record of which two are on
 * their way at once; PostgreSQL answers, does not, or commits unheard; the gateway is killed, the
 * machine loses its power.
 *
 * Promised: after a 202 an event is on the disk or in PostgreSQL at every moment, and in PostgreSQL in
 * the end, once. */

#ifndef ARRIVALS
#define ARRIVALS 3
#endif
#ifndef FAULTS
#define FAULTS 3
#endif
#define RECORDS 3
#define NO_KEY  9

#define HAS(keys, k) (((keys) >> (k)) & 1)

/* PostgreSQL */
byte ledger;
byte events[2];

/* the disk: record n lies in key_of[n - 1] */
byte key_of[RECORDS] = NO_KEY;
byte written;   /* records in the files; those after `synced` are gone when the power fails */
byte synced;
byte position;  /* saved: these are in PostgreSQL */

/* the gateway's memory */
chan queue = [1] of { byte };        /* spool_put() */
byte group = NO_KEY;                 /* what the spool's thread has taken out of it */
byte read_to;                        /* spool_read() */
byte chunk[2];                       /* numbers of the chunks on their way, in order; 0 = none */
bool is_done[2];

byte arrivals, faults;
byte acknowledged;                   /* keys with a 200 or 202 */
byte drained;                        /* records that were committed: only for the witness */

#define WITNESS(what) if :: (what) -> skip :: else fi

#define ON_DISK(n, k) (position < (n) && (n) <= synced && key_of[(n) - 1] == (k))
#define IS_SAFE(k)    (HAS(ledger, k) || ON_DISK(1, k) || ON_DISK(2, k) || ON_DISK(3, k))

inline check()
{
    assert(!HAS(acknowledged, 0) || IS_SAFE(0)); /* LOST */
    assert(!HAS(acknowledged, 1) || IS_SAFE(1));
    assert(events[0] <= 1 && events[1] <= 1)     /* DUPLICATED */
}

/* capture_v1() commits the key. */
inline commit(k)
{
    if
    :: !HAS(ledger, k) -> ledger = ledger | (1 << (k)); events[k]++
    :: else
    fi
}

/* A lane. */
proctype lane()
{
    byte k;
end:
    do
    :: atomic {
        arrivals < ARRIVALS && empty(queue) ->
        arrivals++;
        if :: k = 0 :: k = 1 fi;
        if
        :: true -> /* committed and heard: 200 */
            commit(k);
            acknowledged = acknowledged | (1 << k);
            check()
        :: true -> /* committed, and the answer lost: unknown, so to the spool */
            commit(k);
            queue ! k
        :: true -> queue ! k /* PostgreSQL is away */
        fi;
        k = 0
       }
    od
}

inline acknowledge_202()
{
    acknowledged = acknowledged | (1 << group);
    check()
}

/* The spool's thread, run_group(). */
proctype writer()
{
end:
    do
    :: atomic { group == NO_KEY && nempty(queue) -> queue ? group }
    :: atomic { /* write_group(): INSERT */
        group != NO_KEY && written == synced && written < RECORDS ->
        key_of[written] = group;
        written++
#ifdef MUTANT_ACK_BEFORE_FSYNC
        ; acknowledge_202()
#endif
       }
    :: atomic { /* its COMMIT, synchronous=FULL; then acknowledge_group(): 202 */
        group != NO_KEY && written > synced ->
        synced = written;
        acknowledge_202();
        group = NO_KEY
       }
    :: atomic { group != NO_KEY && written == RECORDS && synced == RECORDS -> group = NO_KEY } /* full */
    od
}

/* mark_save() of the drained number. */
inline save_position(n)
{
    position = (n > position -> n : position);
    check()
}

/* The drain: chunks are read in order, captured by any lanes in any order, finished in order. */
proctype drain()
{
    byte i;
end:
    do
    :: atomic { /* spool_read() */
        read_to < synced && chunk[1] == 0 ->
        read_to++;
        i = (chunk[0] == 0 -> 0 : 1);
        chunk[i] = read_to;
        is_done[i] = false;
#ifdef MUTANT_POSITION_AT_READ
        save_position(read_to);
#endif
        i = 0
       }
    :: atomic { /* store_capture() of either; unheard, it is sent again */
        (chunk[0] != 0 && !is_done[0]) || (chunk[1] != 0 && !is_done[1]) ->
        if
        :: chunk[0] != 0 && !is_done[0] -> i = 0
        :: chunk[1] != 0 && !is_done[1] -> i = 1
        fi;
        WITNESS(HAS(drained, chunk[i] - 1));                            /* drained twice */
        WITNESS(HAS(ledger, key_of[chunk[i] - 1]) && drained == 0);     /* the unknown commit was one */
#ifdef MUTANT_DRAIN_WITHOUT_LEDGER
        ledger = ledger & ~(1 << key_of[chunk[i] - 1]);
#endif
        commit(key_of[chunk[i] - 1]);
        drained = drained | (1 << (chunk[i] - 1));
        check();
        if
        :: true -> is_done[i] = true
        :: faults < FAULTS -> faults++ /* connection lost after the commit */
        fi;
        i = 0
       }
    :: atomic { /* finish_chunks(): spool_finish() of the first */
        chunk[0] != 0 && is_done[0] ->
        save_position(chunk[0]);
        chunk[0] = chunk[1]; is_done[0] = is_done[1];
        chunk[1] = 0; is_done[1] = false
       }
#ifdef MUTANT_FINISH_IN_ANY_ORDER
    :: atomic {
        chunk[1] != 0 && is_done[1] ->
        save_position(chunk[1]);
        chunk[1] = 0; is_done[1] = false
       }
#endif
#ifdef MUTANT_POSITION_BEFORE_COMMIT
    :: atomic { chunk[0] != 0 && !is_done[0] && position < chunk[0] -> save_position(chunk[0]) }
#endif
    od
}

/* What the gateway had in memory is gone; it starts again from the saved position. */
inline restart()
{
    do
    :: queue ? _
    :: empty(queue) -> break
    od;
    group = NO_KEY;
    read_to = position;
    chunk[0] = 0; chunk[1] = 0;
    is_done[0] = false; is_done[1] = false
}

proctype misfortune()
{
    do
    :: atomic { /* kill -9: what was written stays, with or without an fsync */
        faults < FAULTS ->
        faults++;
        WITNESS(written > synced);
        WITNESS(is_done[0]); /* between the commit and the position */
        synced = written;
        restart();
        check()
       }
    :: atomic { /* power: what was not synced is gone */
        faults < FAULTS ->
        faults++;
        if
        :: written > synced -> written--; key_of[written] = NO_KEY
        :: else
        fi;
        restart();
        check()
       }
    :: timeout -> /* all is quiet */
        assert((acknowledged & ~ledger) == 0);
        assert(position == synced && arrivals == ARRIVALS && group == NO_KEY);
        break
    od
}

init { atomic { run lane(); run writer(); run drain(); run misfortune() } }
