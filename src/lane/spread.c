/* SPDX-License-Identifier: Apache-2.0 */
/* Relaxed atomics: who reads an old value sends an event to a wrong lane, which is only slower. */
#include "lane/spread.h"

enum {
    BITS = SPREAD_KEPT_WORDS * 64,
    LANE_BITS = 32, /* of a hash; the others choose its bit */
    FADE_PARTS = 16,
};

static void use(struct spread *spread, uint32_t count)
{
    if (atomic_load_explicit(&spread->in_use, memory_order_relaxed) != count)
        atomic_store_explicit(&spread->in_use, count, memory_order_relaxed);
}

static bool is_kept(struct spread *spread, uint64_t hash)
{
    uint64_t bit = (hash >> LANE_BITS) % BITS;
    return atomic_load_explicit(&spread->kept[bit / 64], memory_order_relaxed) >> bit % 64 & 1;
}

uint32_t spread_choose(struct spread *spread, uint64_t hash, size_t events, int64_t busy_us)
{
    if (events >= SPREAD_EVENTS || busy_us > SPREAD_HELD_UP_US)
        use(spread, spread->lanes);
    uint32_t in_use = atomic_load_explicit(&spread->in_use, memory_order_relaxed);
    uint32_t lane = (uint32_t)hash % in_use;
    return lane != 0 && is_kept(spread, hash) ? 0 : lane;
}

static void keep(struct spread *spread, const uint64_t *hashes, size_t count)
{
    uint64_t kept[SPREAD_KEPT_WORDS] = {0};
    for (size_t i = 0; i < count; i++) {
        uint64_t bit = (hashes[i] >> LANE_BITS) % BITS;
        kept[bit / 64] |= UINT64_C(1) << bit % 64;
    }
    for (int i = 0; i < SPREAD_KEPT_WORDS; i++)
        atomic_store_explicit(&spread->kept[i], kept[i], memory_order_relaxed);
}

static size_t fade(size_t load, size_t events)
{
    if (events >= load)
        return events < SPREAD_LOAD_MAX ? events : SPREAD_LOAD_MAX;
    return load - (load - events + FADE_PARTS - 1) / FADE_PARTS;
}

static void need_all(struct spread *spread)
{
    if (spread->load < SPREAD_EVENTS)
        spread->load = SPREAD_EVENTS;
    use(spread, spread->lanes);
}

void spread_note(struct spread *spread, const uint64_t *hashes, size_t count, size_t in_flight,
                 bool needs_all, int64_t fixed_us)
{
    bool is_alone = atomic_load_explicit(&spread->in_use, memory_order_relaxed) == 1;
    keep(spread, hashes, is_alone || spread->was_alone ? count : 0);
    spread->was_alone = is_alone;
    spread->load = fade(spread->load, count + in_flight);
    if (needs_all || fixed_us >= SPREAD_FIXED_US || spread->load >= SPREAD_EVENTS)
        need_all(spread);
    else if (spread->load < SPREAD_JOIN_EVENTS)
        use(spread, 1);
}

void spread_let_go(struct spread *spread)
{
    keep(spread, NULL, 0);
    need_all(spread);
}
