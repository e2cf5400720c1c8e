/* SPDX-License-Identifier: Apache-2.0 */
/* The lock order (docs/lock-order.md): captures of two gateways, the binding of orphans by two
 * sweepers, a repair and new enrollments by plain SQL, on two instances, an enrollment in each, two
 * keys and an orphan.
 *
 * Promised: nobody waits for ever. Each process is one transaction, which is enough: a circle of
 * waiters has each of them in one. A circle is an invalid end state for Spin. lock_timeout is left
 * out, since it would hide one. */

#define NOBODY     9
#define INSTANCE   0 /* place 2: rows 0 and 1 */
#define ENROLLMENT 2 /* place 3 */
#define KEY        4 /* place 4 */
#define ORPHAN     6 /* place 5 */
#define ROWS       7

byte owner[ROWS] = NOBODY; /* who has it FOR NO KEY UPDATE, or has inserted the key */
byte shared[2];            /* who has KEY SHARE on the instance, a bit for each process */

#define WITNESS(what) if :: (what) -> skip :: else fi

#define IS_MINE(row) (owner[row] == NOBODY || owner[row] == self)
#ifdef MUTANT_FOR_UPDATE
/* FOR UPDATE and KEY SHARE exclude each other. */
#define IS_OPEN(row)   (IS_MINE(row) && ((row) > 1 || (shared[(row) & 1] & ~(1 << self)) == 0))
#define MAY_SHARE(row) IS_MINE(row)
#else
#define IS_OPEN(row)   IS_MINE(row)
#define MAY_SHARE(row) true
#endif

/* SELECT … FOR NO KEY UPDATE of a row, INSERT of a key. */
inline lock(row)
{
    atomic { IS_OPEN(row) -> owner[row] = self }
}

/* The check of a new enrollment's foreign key. */
inline share(row)
{
    atomic { MAY_SHARE(row) -> shared[row] = shared[row] | (1 << self) }
}

/* COMMIT or ROLLBACK gives everything back at once. */
inline end_transaction()
{
    atomic {
        row = 0;
        do
        :: row < ROWS && owner[row] == self -> owner[row] = NOBODY; row++
        :: row < ROWS && owner[row] != self -> row++
        :: row == ROWS -> break
        od;
        shared[0] = shared[0] & ~(1 << self);
        shared[1] = shared[1] & ~(1 << self)
    }
}

inline lock_keys()
{
#ifdef MUTANT_KEYS_AS_THEY_COME
    if
    :: self == 0 -> lock(KEY); lock(KEY + 1)
    :: else -> lock(KEY + 1); lock(KEY)
    fi
#else
    lock(KEY); lock(KEY + 1)
#endif
}

/* capture_v1(), in two gateways: one batch names enrollments, another none. */
proctype capture(byte self)
{
    byte row;
    if
    :: true -> lock(INSTANCE); lock(INSTANCE + 1); lock(ENROLLMENT); lock(ENROLLMENT + 1)
    :: true -> lock(INSTANCE + 1); lock(ENROLLMENT + 1)
    :: true -> skip
    fi;
    WITNESS(owner[KEY] != NOBODY && owner[KEY] != self); /* it has to wait */
    lock_keys();
    end_transaction()
}

/* bind_v1(): instances, enrollments, then the orphans themselves. */
proctype binding(byte self)
{
    byte row;
#ifdef MUTANT_BINDING_IN_REVERSE
    lock(ORPHAN); lock(ENROLLMENT); lock(INSTANCE); lock(INSTANCE + 1);
#else
    lock(INSTANCE); lock(INSTANCE + 1); lock(ENROLLMENT); lock(ORPHAN);
#endif
    end_transaction()
}

/* repair_v1(): the counters of both instances, then of their enrollments. */
proctype repair(byte self)
{
    byte row;
    lock(INSTANCE); lock(INSTANCE + 1); lock(ENROLLMENT); lock(ENROLLMENT + 1);
    end_transaction()
}

/* INSERT INTO campaign_enrollments of two rows, the second instance's first: a foreign key's check a
 * row, then oncehook_count_enrolled() once for the statement. */
proctype enrollment(byte self)
{
    byte row;
#ifdef MUTANT_TRIGGER_FOR_EACH_ROW
    share(1); lock(INSTANCE + 1);
    share(0); lock(INSTANCE);
#else
    share(1); share(0);
    WITNESS(owner[INSTANCE] != NOBODY);
    lock(INSTANCE); lock(INSTANCE + 1);
#endif
    end_transaction()
}

init {
    atomic {
        run capture(0); run capture(1);
        run binding(2); run binding(3);
        run repair(4);
        run enrollment(5); run enrollment(6)
    }
}
