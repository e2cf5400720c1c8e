/* SPDX-License-Identifier: Apache-2.0 */
/* Capture and its answer: two lanes, of one gateway or of two, and two keys; connections break, gateways and
 * PostgreSQL crash, statements fail, at any moment. docs/model.md maps it to the code.
 *
 * Promised: a 200 is given only for keys that are committed, once, with their counter; the counter
 * is the number of committed events, always; nobody waits for ever.
 *
 * Processes are guarded commands on global state, so that a crash is an assignment. A provider's
 * retry is the same key arriving again at any lane, also while an earlier try is in flight (its 503
 * was given at the deadline): who answers whom needs no state of its own. */

#ifndef ARRIVALS
#define ARRIVALS 3 /* batches that arrive, in all */
#endif
#ifndef FAULTS
#define FAULTS 2   /* cuts of a connection, failed statements and crashes, in all */
#endif
#define TRIES    2 /* 1 + database.retries */
#ifndef GATEWAYS
#define GATEWAYS 1
#endif
#define LANES    2
#define BACKENDS 3 /* PostgreSQL may still work for a connection that its lane has given up */
#define NOBODY   9

#define GATEWAY(lane) ((lane) % GATEWAYS)
#define HAS(keys, k)  (((keys) >> (k)) & 1)
#define IS_FREE(b)    (backend_is[b] == IDLE && backend_of[0] != (b) && backend_of[1] != (b))

mtype = { IDLE, INSERTING, COMMITTING };       /* a backend */
mtype = { AWAY, READY, SENT, HAS_ROWS };       /* a lane */
mtype = { ROWS, COMMITTED, FAILED };           /* an answer; COMMITTED stands for ReadyForQuery */

/* What is durable in PostgreSQL … */
byte ledger;               /* keys in event_keys */
byte events[2];            /* rows in campaign_events, of each key */
byte counter;              /* the instance's total */
/* … and what is not: one transaction a backend. */
mtype backend_is[BACKENDS] = IDLE;
byte rows[BACKENDS];       /* keys of its statement */
byte at_key[BACKENDS];     /* those below are inserted, or found there */
byte fresh[BACKENDS];      /* keys it has inserted */
byte inserter[2] = NOBODY; /* the backend whose open transaction has inserted the key */
bool is_cut[BACKENDS];     /* its connection is gone */
chan answers[BACKENDS] = [2] of { mtype };

/* The gateways. */
mtype lane_is[LANES] = READY; /* connected at the start, to the first backends */
byte backend_of[LANES];
byte batch[LANES];         /* keys gathered and undecided; 0 = none */
byte tries[LANES];
byte learned[GATEWAYS];    /* keys in the recent filter */

/* Bounds, and what only the witnesses look at. */
byte arrivals, faults;
byte asker[BACKENDS] = NOBODY; /* the lane whose present batch it works on */
byte written[LANES];           /* keys of the present batch that a try of its own has committed */

/* Must be reached: tests/integration/test_model.py looks for it in Spin's list of what was not. */
#define WITNESS(what) if :: (what) -> skip :: else fi

/* 200 for these keys. Nothing of it may be LOST or there twice. */
inline answer_200(keys)
{
    assert((ledger & (keys)) == (keys));
    assert(!HAS(keys, 0) || events[0] == 1);
    assert(!HAS(keys, 1) || events[1] == 1)
}

inline end_transaction(b)
{
    if :: inserter[0] == b -> inserter[0] = NOBODY :: else fi;
    if :: inserter[1] == b -> inserter[1] = NOBODY :: else fi;
    rows[b] = 0; fresh[b] = 0; at_key[b] = 0; asker[b] = NOBODY;
    backend_is[b] = IDLE
}

inline send_answer(b, what)
{
    if :: !is_cut[b] -> answers[b] ! what :: else fi
}

inline count_committed(b)
{
    counter = counter + HAS(fresh[b], 0) + HAS(fresh[b], 1)
}

#ifdef MUTANT_DUPLICATE_WITHOUT_WAIT
#define MAY_INSERT(keys, k) true
#else
#define MAY_INSERT(keys, k) (!HAS(keys, k) || inserter[k] == NOBODY)
#endif
#ifdef MUTANT_WITHOUT_LEDGER
#define IN_LEDGER(k) false
#else
#define IN_LEDGER(k) HAS(ledger, k)
#endif

/* One server process: capture_v1() and its COMMIT. */
proctype backend(byte b)
{
end:
    do
    /* INSERT INTO event_keys … ORDER BY key … ON CONFLICT DO NOTHING: a key that another open
     * transaction has inserted is waited for. */
    :: atomic {
        backend_is[b] == INSERTING && at_key[b] < 2 && MAY_INSERT(rows[b], at_key[b]) ->
        if
        :: HAS(rows[b], at_key[b]) && inserter[at_key[b]] == NOBODY && !IN_LEDGER(at_key[b]) ->
            inserter[at_key[b]] = b;
            fresh[b] = fresh[b] | (1 << at_key[b])
        :: else
        fi;
        at_key[b]++
       }
    /* The rows of SELECT capture_v1(…) are sent before the commit. */
    :: atomic {
        backend_is[b] == INSERTING && at_key[b] == 2 ->
#ifdef MUTANT_COUNTERS_OUTSIDE
        count_committed(b);
#endif
        send_answer(b, ROWS);
        backend_is[b] = COMMITTING
       }
    /* Keys, events and counters become durable together. */
    :: atomic {
        backend_is[b] == COMMITTING ->
        ledger = ledger | fresh[b];
        events[0] = events[0] + HAS(fresh[b], 0);
        events[1] = events[1] + HAS(fresh[b], 1);
#ifndef MUTANT_COUNTERS_OUTSIDE
        count_committed(b);
#endif
        if
        :: asker[b] != NOBODY -> written[asker[b]] = written[asker[b]] | fresh[b]
        :: else
        fi;
        WITNESS(is_cut[b] && fresh[b]); /* a commit that nobody hears of */
        send_answer(b, COMMITTED);
        end_transaction(b);
        assert(events[0] <= 1 && events[1] <= 1);
        assert(counter == events[0] + events[1])
       }
    /* lock_timeout, a deferred constraint, a full disk …: an error, before the rows or after them. */
    :: atomic {
        backend_is[b] != IDLE && faults < FAULTS ->
        faults++;
        WITNESS(backend_is[b] == COMMITTING && fresh[b]);
        end_transaction(b);
        send_answer(b, FAILED);
        assert(counter == events[0] + events[1])
       }
    od
}

inline end_batch(l)
{
    batch[l] = 0; tries[l] = 0; written[l] = 0;
    if :: asker[0] == l -> asker[0] = NOBODY :: else fi;
    if :: asker[1] == l -> asker[1] = NOBODY :: else fi;
    if :: asker[2] == l -> asker[2] = NOBODY :: else fi
}

/* Nobody reads this connection any more; its backend works on. */
inline disconnect(l)
{
    if
    :: backend_of[l] != NOBODY ->
        is_cut[backend_of[l]] = true;
        do
        :: answers[backend_of[l]] ? _
        :: empty(answers[backend_of[l]]) -> break
        od
    :: else
    fi;
    backend_of[l] = NOBODY;
    lane_is[l] = AWAY
}

inline kill_lane(l)
{
    disconnect(l);
    end_batch(l)
}

/* What batch.c does after an answer that is no commit: again, or 503. */
inline try_again(l)
{
    if
    :: tries[l] == TRIES -> end_batch(l)
    :: else
    fi
}

/* run_lane(): one lane thread. */
proctype lane(byte l)
{
end:
    do
    /* The keeper's try_link(): store_connect(), then recent_forget(). */
    :: atomic {
        lane_is[l] == AWAY && (IS_FREE(0) || IS_FREE(1) || IS_FREE(2)) ->
        if
        :: IS_FREE(0) -> backend_of[l] = 0
        :: else -> if :: IS_FREE(1) -> backend_of[l] = 1 :: else -> backend_of[l] = 2 fi
        fi;
        is_cut[backend_of[l]] = false;
        learned[GATEWAY(l)] = 0;
        lane_is[l] = READY
       }
    /* gather(), select_rows(): what the filter knows is a duplicate at once. */
    :: atomic {
        lane_is[l] == READY && batch[l] == 0 && arrivals < ARRIVALS ->
        arrivals++;
        if
        :: batch[l] = 1 /* the first key */
        :: batch[l] = 3 /* both */
        fi;
        WITNESS(batch[l] & learned[GATEWAY(l)]);
        answer_200(batch[l] & learned[GATEWAY(l)]);
        batch[l] = batch[l] & ~learned[GATEWAY(l)];
        if :: batch[l] == 0 -> end_batch(l) :: else fi
       }
    /* store_capture() sends. */
    :: atomic {
        lane_is[l] == READY && batch[l] != 0 && !is_cut[backend_of[l]] ->
        WITNESS(tries[l] == 1 && written[l]); /* a retry of what was committed */
        tries[l]++;
        rows[backend_of[l]] = batch[l];
        asker[backend_of[l]] = l;
        backend_is[backend_of[l]] = INSERTING;
#ifdef MUTANT_LEARN_BEFORE_COMMIT
        learned[GATEWAY(l)] = learned[GATEWAY(l)] | batch[l];
#endif
#ifdef MUTANT_ACK_BEFORE_COMMIT
        answer_200(batch[l]);
#endif
        lane_is[l] = SENT
       }
    /* store_finish(): PGRES_TUPLES_OK is not the end. */
    :: atomic {
        lane_is[l] == SENT && answers[backend_of[l]] ? [ROWS] ->
        answers[backend_of[l]] ? ROWS;
#ifdef MUTANT_ACK_AT_FIRST_RESULT
        answer_200(batch[l]);
#endif
        lane_is[l] = HAS_ROWS
       }
    /* take_commit(): the filter learns, batch_decide(): 200. */
    :: atomic {
        lane_is[l] == HAS_ROWS && answers[backend_of[l]] ? [COMMITTED] ->
        answers[backend_of[l]] ? COMMITTED;
        answer_200(batch[l]);
        learned[GATEWAY(l)] = learned[GATEWAY(l)] | batch[l];
        end_batch(l);
        lane_is[l] = READY
       }
    /* STORE_RETRY: known not to be committed; the same connection serves on. */
    :: atomic {
        (lane_is[l] == SENT || lane_is[l] == HAS_ROWS) && answers[backend_of[l]] ? [FAILED] ->
        answers[backend_of[l]] ? FAILED;
        lane_is[l] = READY;
        try_again(l)
       }
    /* STORE_RECONNECT: nobody said what became of it. Answers on their way may be lost with it. */
    :: atomic {
        lane_is[l] != AWAY && is_cut[backend_of[l]] ->
        WITNESS(written[l]);                                     /* it was committed */
        WITNESS(batch[l] && inserter[0] == backend_of[l]);       /* it may yet be */
        WITNESS(lane_is[l] == HAS_ROWS && fresh[backend_of[l]]); /* rows came, no commit */
#ifdef MUTANT_UNKNOWN_IS_COMMITTED
        if :: lane_is[l] == HAS_ROWS -> answer_200(batch[l]); end_batch(l) :: else fi;
#endif
        disconnect(l);
        try_again(l)
       }
    od
}

proctype misfortune()
{
    byte b;
    do
    /* A lane's connection breaks; its backend works on. */
    :: atomic {
        faults < FAULTS ->
        faults++;
        if
        :: backend_of[0] != NOBODY -> is_cut[backend_of[0]] = true
        :: backend_of[1] != NOBODY -> is_cut[backend_of[1]] = true
        :: else
        fi
       }
    /* PostgreSQL crashes: open transactions are gone, what was committed stays. */
    :: atomic {
        faults < FAULTS ->
        faults++;
        do
        :: b < BACKENDS -> end_transaction(b); is_cut[b] = true; b++
        :: else -> b = 0; break
        od
       }
    /* kill -9 of a gateway, and its next start: lanes and filter forget everything. */
    :: atomic {
        faults < FAULTS ->
        faults++;
#if GATEWAYS == 1
        kill_lane(0); kill_lane(1);
        learned[0] = 0
#else
        if
        :: true -> kill_lane(0); learned[0] = 0
        :: true -> kill_lane(1); learned[1] = 0
        fi
#endif
       }
    /* Nothing can happen any more: then nothing is left undone. */
    :: timeout ->
        assert(arrivals == ARRIVALS && batch[0] == 0 && batch[1] == 0);
        assert(inserter[0] == NOBODY && inserter[1] == NOBODY);
        break
    od
}

init {
    atomic {
        backend_of[1] = 1;
        run backend(0); run backend(1); run backend(2);
        run lane(0); run lane(1);
        run misfortune()
    }
}
