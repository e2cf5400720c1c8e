/* SPDX-License-Identifier: Apache-2.0 */
/* Two direct-mapped tables behind striped locks: a newer key takes its slot from the older one, so
 * the memory is fixed and a miss only costs the round trip that there would have been anyway. */
#include "lane/recent.h"

#include "base/slice.h"

#include <pthread.h>
#include <stdlib.h>

enum {
    SLOT_COUNT = 131072, /* power of two; two thirds of a minute of 2,000 a second; 26 MiB */
    STRIPE_COUNT = 64,
    KEY_BYTES = 120, /* longer keys are not learned; nearly all ids are shorter */
};

struct key_slot {
    uint64_t hash, generation;
    int64_t at_s;
    const char *scope; /* belongs to the configuration */
    uint16_t scope_len;
    uint8_t key_len; /* 0 = empty slot */
    char key[KEY_BYTES];
};

struct composite_slot {
    uint64_t composite[2], key_hash, generation;
    int64_t at_s;
    uint32_t source;
};

struct recent {
    _Atomic uint64_t generation; /* starts at 1, so that a zeroed slot is never of today */
    pthread_mutex_t stripes[STRIPE_COUNT];
    struct key_slot keys[SLOT_COUNT];
    struct composite_slot composites[SLOT_COUNT];
};

struct recent *recent_new(void)
{
    struct recent *recent = calloc(1, sizeof(*recent)); /* pages are touched as they are used */
    if (!recent)
        return NULL;
    for (int i = 0; i < STRIPE_COUNT; i++)
        pthread_mutex_init(&recent->stripes[i], NULL);
    atomic_init(&recent->generation, 1);
    return recent;
}

void recent_free(struct recent *recent)
{
    if (!recent)
        return;
    for (int i = 0; i < STRIPE_COUNT; i++)
        pthread_mutex_destroy(&recent->stripes[i]);
    free(recent);
}

uint64_t recent_generation(const struct recent *recent)
{
    return atomic_load(&recent->generation);
}

void recent_forget(struct recent *recent)
{
    atomic_fetch_add(&recent->generation, 1);
}

static bool is_fresh(uint64_t generation, uint64_t now_generation, int64_t at_s, int64_t now_s)
{
    return generation == now_generation && now_s - at_s < RECENT_SECONDS;
}

bool recent_has(struct recent *recent, const struct delivery_event *event, int64_t now_s)
{
    struct oh_slice key = event->event->key;
    if (key.len > KEY_BYTES)
        return false;
    struct key_slot *slot = &recent->keys[event->key_hash % SLOT_COUNT];
    pthread_mutex_t *stripe = &recent->stripes[event->key_hash % STRIPE_COUNT];
    pthread_mutex_lock(stripe);
    bool has = slot->hash == event->key_hash && slot->key_len == key.len &&
               is_fresh(slot->generation, recent_generation(recent), slot->at_s, now_s) &&
               memcmp(slot->key, key.data, key.len) == 0 &&
               slice_equals(slice_of(slot->scope, slot->scope_len), event->scope);
    pthread_mutex_unlock(stripe);
    return has;
}

static void learn_key(struct recent *recent, uint64_t generation,
                      const struct delivery_event *event, int64_t now_s)
{
    struct oh_slice key = event->event->key;
    if (key.len > KEY_BYTES)
        return;
    struct key_slot *slot = &recent->keys[event->key_hash % SLOT_COUNT];
    pthread_mutex_t *stripe = &recent->stripes[event->key_hash % STRIPE_COUNT];
    pthread_mutex_lock(stripe);
    slot->hash = event->key_hash;
    slot->generation = generation;
    slot->at_s = now_s;
    slot->scope = event->scope.data;
    slot->scope_len = (uint16_t)event->scope.len;
    slot->key_len = (uint8_t)key.len;
    memcpy(slot->key, key.data, key.len);
    pthread_mutex_unlock(stripe);
}

bool recent_learn(struct recent *recent, uint64_t generation, const struct delivery_event *event,
                  int64_t now_s)
{
    learn_key(recent, generation, event, now_s);
    const struct oh_event *e = event->event;
    if (!e->has_composite || e->grade != OH_GRADE_ID)
        return false;
    uint32_t source = event->delivery->source->number;
    struct composite_slot *slot = &recent->composites[e->composite[0] % SLOT_COUNT];
    pthread_mutex_t *stripe = &recent->stripes[e->composite[0] % STRIPE_COUNT];
    pthread_mutex_lock(stripe);
    bool changed = slot->composite[0] == e->composite[0] && slot->composite[1] == e->composite[1] &&
                   slot->source == source && slot->key_hash != event->key_hash &&
                   is_fresh(slot->generation, recent_generation(recent), slot->at_s, now_s);
    slot->composite[0] = e->composite[0];
    slot->composite[1] = e->composite[1];
    slot->key_hash = event->key_hash;
    slot->generation = generation;
    slot->at_s = now_s;
    slot->source = source;
    pthread_mutex_unlock(stripe);
    return changed;
}
