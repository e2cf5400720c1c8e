/* SPDX-License-Identifier: Apache-2.0 */
/* An event that names an enrollment, and that enrollment, which comes into being at the same time by
 * plain SQL or by the enrollment routine; two sweepers; READ COMMITTED, so each statement sees what was
 * committed when it began. Every transaction may be undone before its commit.
 *
 * Promised: the event is counted when it is bound, once; and it is bound in the end (the formula
 * below, with weak fairness). */

#ifndef FAULTS
#define FAULTS 2 /* transactions that are undone */
#endif
#define NOBODY 9

mtype = { ABSENT, ORPHAN, BOUND };

/* committed */
mtype event = ABSENT;
bool is_enrolled;
byte counter;

byte instance_owner = NOBODY; /* row lock of the instance: it comes first, so it stands for both */
byte faults;

#define WITNESS(what) if :: (what) -> skip :: else fi

ltl bound_in_the_end { [] ((event != ABSENT && is_enrolled) -> <> (event == BOUND)) }

inline lock_instance()
{
    atomic { instance_owner == NOBODY -> instance_owner = self }
}

inline give_back()
{
    if :: instance_owner == self -> instance_owner = NOBODY :: else fi
}

/* bind_v1(), inside the transaction of `self`. Found: by the statement's snapshot, which is
 * older than the lock. */
inline bind()
{
    found = (event == ORPHAN && (is_enrolled || has_inserted));
    if
    :: found ->
        lock_instance();
        atomic {
#ifdef MUTANT_WITHOUT_NULL_CHECK
            returned = true
#else
            returned = (event == ORPHAN) /* UPDATE … WHERE instance_id IS NULL RETURNING */
#endif
        }
    :: else -> returned = false
    fi
}

/* COMMIT of what bind() did. */
inline commit_bound()
{
    if
    :: returned -> event = BOUND; counter++
    :: else
    fi;
    assert(counter == (event == BOUND));
    found = false; returned = false
}

/* capture_v1() of the event, until it is in. */
proctype capture(byte self)
{
    bool is_locked, is_bound;
    do
    :: atomic { is_locked = is_enrolled; is_bound = false } /* "Which instances": the first look */
       if
       :: is_locked -> skip
       :: true -> is_locked = true /* another event of the batch wants the same instance */
       :: else -> skip
       fi;
       if
       :: is_locked -> lock_instance(); is_bound = is_enrolled /* place 3: its own, later look */
       :: else -> skip
       fi;
       atomic {
           WITNESS(!is_bound && is_enrolled); /* they have missed each other */
           WITNESS(is_bound);
           if
           :: true ->
               event = (is_bound -> BOUND : ORPHAN);
               counter = counter + is_bound;
               give_back();
               assert(counter == (event == BOUND));
               break
           :: faults < FAULTS -> faults++; give_back()
           fi
       }
    od
}

/* The enrollment appears: by plain SQL, or by the routine, which binds in the same transaction. */
proctype enrollment(byte self)
{
    bool found, returned;
    bool has_inserted = true;
    do
    :: if
       :: true -> skip
       :: true -> bind()
       fi;
       atomic {
           if
           :: true -> is_enrolled = true; commit_bound(); give_back(); break
           :: faults < FAULTS -> faults++; found = false; returned = false; give_back()
           fi
       }
    od
}

/* The upkeep's chore, every few seconds, in each gateway: unbound_v1(), then bind_v1(). */
proctype sweeper(byte self)
{
    bool found, returned;
    bool has_inserted = false;
    do
    :: event == ORPHAN && is_enrolled ->
       bind();
       atomic {
           WITNESS(found && !returned); /* the other one was faster */
           if
           :: true -> commit_bound(); give_back()
           :: faults < FAULTS -> faults++; found = false; returned = false; give_back()
           fi
       }
    :: event == BOUND -> break
    od
}

init {
    atomic {
        run capture(0); run enrollment(1);
#ifndef MUTANT_WITHOUT_SWEEPER
        run sweeper(2); run sweeper(3)
#endif
    }
}
