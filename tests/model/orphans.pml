/* SPDX-License-Identifier: Apache-2.0 */
/* An event that names an enrollment, and that enrollment, which comes into being at the same time by
 * plain SQL or by the enrollment routine; two sweepers; READ COMMITTED, so each statement sees what was
 * committed when it began. A sweep looks only at what its last one could not see. Every transaction may be undone before its commit.
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

/* whether the transaction that makes the row runs or has run: it has its number by then */
bool event_has_tx, enrollment_has_tx;
/* what stood in the snapshot of a sweeper's last finished look: not looked at again */
bool seen_event[2], seen_enrollment[2];

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

/* A new transaction, with a new number, in nobody's snapshot. */
inline begin(has_tx, seen_0, seen_1)
{
    atomic { has_tx = true; seen_0 = false; seen_1 = false }
}

/* bind_v1(), inside the transaction of `self`, of what an earlier statement has found. */
inline bind()
{
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
    :: begin(event_has_tx, seen_event[0], seen_event[1]);
       atomic { is_locked = is_enrolled; is_bound = false } /* "Which instances": the first look */
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
    do
    :: begin(enrollment_has_tx, seen_enrollment[0], seen_enrollment[1]);
       if
       :: true -> skip
       :: true -> found = (event == ORPHAN); bind()
       fi;
       atomic {
           if
           :: true -> is_enrolled = true; commit_bound(); give_back(); break
           :: faults < FAULTS -> faults++; found = false; returned = false; give_back()
           fi
       }
    od
}

#ifdef MUTANT_SEEN_IS_ALL_BELOW_XMAX
#define SEEN_EVENT      event_has_tx
#define SEEN_ENROLLMENT enrollment_has_tx
#else /* running ones are in the snapshot's xip: they are looked at again */
#define SEEN_EVENT      (event != ABSENT)
#define SEEN_ENROLLMENT is_enrolled
#endif

/* The upkeep's chore, every few seconds, in each gateway: unbound_v1() finds what its last look could
 * not see, bind_v1() binds it; the look counts as finished once that is committed. */
proctype sweeper(byte self)
{
    bool found, returned, will_see_event, will_see_enrollment;
    do
    :: event != BOUND ->
       atomic {
           found = (event == ORPHAN && is_enrolled &&
                    !(seen_event[self - 2] && seen_enrollment[self - 2]));
           WITNESS(found && seen_event[self - 2]);      /* the enrollment came later */
           WITNESS(found && seen_enrollment[self - 2]); /* the event did */
           will_see_event = SEEN_EVENT;
           will_see_enrollment = SEEN_ENROLLMENT
       }
#ifdef MUTANT_SEEN_TOO_EARLY
       atomic { seen_event[self - 2] = will_see_event; seen_enrollment[self - 2] = will_see_enrollment }
#endif
       bind();
       atomic {
           WITNESS(found && !returned); /* the other one was faster */
           if
           :: true ->
               commit_bound();
               seen_event[self - 2] = will_see_event;
               seen_enrollment[self - 2] = will_see_enrollment
           :: faults < FAULTS -> faults++; found = false; returned = false
           fi;
           give_back();
           will_see_event = false; will_see_enrollment = false
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
