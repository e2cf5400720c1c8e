/* SPDX-License-Identifier: Apache-2.0 */
/* Failover: one key, two lanes of one gateway with their filter of recent duplicates, a primary and its
 * standby; synchronous, or (-DASYNCHRONOUS) not. A wait for the standby may be cancelled, the primary
 * may restart, and it may die: the standby takes over with what it has, and nobody writes to the dead
 * one any more.
 *
 * Promised: with a synchronous standby an acknowledged event survives the failover. Without, it may be
 * lost; then a lane that is connected to the new primary never takes it for a duplicate: the provider's
 * retry is captured again. */

#ifndef ARRIVALS
#define ARRIVALS 4
#endif
#ifndef FAULTS
#define FAULTS 3
#endif

mtype = { AWAY, CONNECTED, READY, CAPTURED, WAITING, COMMITTED, BROKEN };

byte end_of_log, standby_has; /* positions in the WAL */
byte key_at;                  /* where the key's commit lies in it; 0 = the key is not in the ledger */
bool is_open;                 /* … and its transaction has not ended, so that others wait for it */
byte incarnation;             /* of the primary: one more with each failover */

mtype lane_is[2] = READY;
byte connected_to[2];         /* incarnation */
byte wait_for[2];             /* the position that the lane's COMMIT waits for */
bool has_key[2];              /* the open transaction is its own */
byte generation;              /* recent_generation() */
byte read_generation[2];
byte learned = 255;           /* the generation that the key was learned with */

byte arrivals, faults;
bool acknowledged;

#define WITNESS(what) if :: (what) -> skip :: else fi

#ifdef ASYNCHRONOUS
#define IS_REPLICATED(at) true
#else
#define IS_REPLICATED(at) (standby_has >= (at))
#endif

inline answer_200(l)
{
#ifdef ASYNCHRONOUS
    assert(connected_to[l] != incarnation || key_at != 0)
#else
    assert(key_at != 0 && standby_has >= key_at); /* it survives whatever follows */
    acknowledged = true
#endif
}

inline end_wait(l, state)
{
    if :: has_key[l] -> is_open = false :: else fi;
    has_key[l] = false;
    wait_for[l] = 0;
    lane_is[l] = state
}

proctype lane(byte l)
{
end:
    do
    /* select_rows(): recent_has(); else recent_generation(), store_capture(). */
    :: atomic {
        lane_is[l] == READY && arrivals < ARRIVALS ->
        arrivals++;
        if
        :: learned == generation -> answer_200(l)
        :: else ->
            read_generation[l] = generation;
            lane_is[l] = (connected_to[l] == incarnation -> CONNECTED : BROKEN)
        fi
       }
    /* capture_v1(): a new key, or a duplicate once the other transaction has ended. */
    :: atomic {
        lane_is[l] == CONNECTED && !is_open ->
        if
        :: key_at == 0 ->
            end_of_log++; key_at = end_of_log;
            is_open = true; has_key[l] = true;
            wait_for[l] = end_of_log
        :: else ->
            WITNESS(standby_has < key_at); /* the first one's wait was cancelled */
#ifdef MUTANT_DUPLICATE_WITHOUT_WAL
            wait_for[l] = 0
#else
            end_of_log++; /* pg_logical_emit_message() */
            wait_for[l] = end_of_log
#endif
        fi;
        lane_is[l] = WAITING
       }
    /* SyncRepWaitForLSN() has what it waits for. */
    :: atomic { lane_is[l] == WAITING && IS_REPLICATED(wait_for[l]) -> end_wait(l, COMMITTED) }
    /* It is cancelled: a warning, and what was written is visible. */
    :: atomic {
        lane_is[l] == WAITING && !IS_REPLICATED(wait_for[l]) && faults < FAULTS ->
        faults++;
#ifdef MUTANT_WARNING_IS_IGNORED
        end_wait(l, COMMITTED)
#else
        end_wait(l, BROKEN)
#endif
       }
    /* take_commit(): it may be read after the server that sent it has died. */
    :: atomic {
        lane_is[l] == COMMITTED ->
        WITNESS(connected_to[l] != incarnation && generation != read_generation[l]);
#ifdef ASYNCHRONOUS
        skip;
#else
        answer_200(l);
#endif
#ifdef MUTANT_LEARNS_WITH_THE_NEW_GENERATION
        learned = generation;
#else
        learned = read_generation[l];
#endif
        lane_is[l] = READY
       }
    /* STORE_RECONNECT, or an idle connection that is found closed: recent_forget() comes after
     * store_connect(), so that nothing of a former primary is learned in between. */
    :: atomic {
        lane_is[l] == BROKEN || (lane_is[l] == READY && connected_to[l] != incarnation) ->
#ifdef MUTANT_FORGETS_BEFORE_CONNECTING
        generation++;
#endif
        lane_is[l] = AWAY
       }
    :: atomic {
        lane_is[l] == AWAY ->
        connected_to[l] = incarnation;
#if !defined(MUTANT_FORGETS_BEFORE_CONNECTING) && !defined(MUTANT_NEVER_FORGETS)
        generation++;
#endif
        lane_is[l] = READY
       }
    od
}

inline break_connections(l)
{
    if
    :: lane_is[l] == COMMITTED || lane_is[l] == READY || lane_is[l] == AWAY
    :: else -> end_wait(l, BROKEN)
    fi
}

proctype servers()
{
end:
    do
    :: atomic { standby_has < end_of_log -> standby_has++ }
    /* The primary restarts: what it has written is visible, no matter who has it. */
    :: atomic {
        faults < FAULTS ->
        faults++;
        break_connections(0); break_connections(1)
       }
    /* It dies, and the standby takes over. */
    :: atomic {
        faults < FAULTS ->
        faults++;
        incarnation++;
        WITNESS(key_at > standby_has); /* a commit is lost */
        if :: key_at > standby_has -> key_at = 0 :: else fi;
        end_of_log = standby_has;
        break_connections(0); break_connections(1);
        assert(!acknowledged || key_at != 0) /* LOST */
       }
    od
}

init { atomic { run lane(0); run lane(1); run servers() } }
