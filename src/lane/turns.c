/* SPDX-License-Identifier: Apache-2.0 */
/* A list of queues in the order of their turns; see turns.h. */
#include "lane/turns.h"

#include <stdlib.h>

bool turns_init(struct turns *turns, size_t source_count)
{
    list_init(&turns->order);
    turns->queues = calloc(source_count + 1, sizeof(*turns->queues));
    for (size_t i = 0; turns->queues && i < source_count; i++) {
        list_init(&turns->queues[i].events);
        list_init(&turns->queues[i].link);
    }
    return turns->queues != NULL;
}

void turns_free(struct turns *turns)
{
    free(turns->queues);
}

bool turns_is_empty(const struct turns *turns)
{
    return list_is_empty(&turns->order);
}

static struct delivery_event *first_of(const struct source_queue *queue)
{
    return LIST_ENTRY(queue->events.next, struct delivery_event, link);
}

static struct source_queue *next_queue(const struct turns *turns)
{
    return LIST_ENTRY(turns->order.next, struct source_queue, link);
}

static void note_oldest(struct source_queue *queue)
{
    int64_t oldest_us =
        list_is_empty(&queue->events) ? 0 : first_of(queue)->delivery->accepted_mono_us;
    atomic_store_explicit(&queue->oldest_mono_us, oldest_us, memory_order_relaxed);
}

void turns_put(struct turns *turns, uint32_t source, struct list *events, size_t count)
{
    struct source_queue *queue = &turns->queues[source];
    bool was_empty = list_is_empty(&queue->events);
    list_splice_tail(&queue->events, events);
    queue->count += count;
    turns->events += count;
    if (!was_empty)
        return;
    note_oldest(queue);
    list_push_tail(&turns->order, &queue->link);
    turns->waiting++;
}

struct delivery_event *turns_next(const struct turns *turns)
{
    return turns_is_empty(turns) ? NULL : first_of(next_queue(turns));
}

/* Takes the first event of a queue. True: the queue is empty now, and has no turn. */
static bool take_first(struct turns *turns, struct source_queue *queue)
{
    list_remove(&first_of(queue)->link);
    queue->count--;
    turns->events--;
    note_oldest(queue);
    if (!list_is_empty(&queue->events))
        return false;
    list_remove(&queue->link);
    turns->waiting--;
    return true;
}

void turns_take(struct turns *turns)
{
    struct source_queue *queue = next_queue(turns);
    if (take_first(turns, queue))
        return;
    list_remove(&queue->link);
    list_push_tail(&turns->order, &queue->link);
}

void turns_expire(struct turns *turns, bool all, int64_t now_mono_us, struct list *taken)
{
    for (struct list *turn = turns->order.next, *next; turn != &turns->order; turn = next) {
        struct source_queue *queue = LIST_ENTRY(turn, struct source_queue, link);
        next = turn->next;
        while (!list_is_empty(&queue->events)) {
            struct delivery_event *item = first_of(queue);
            if (!all && item->delivery->deadline_mono_us > now_mono_us)
                break; /* the rest is younger */
            (void)take_first(turns, queue);
            list_push_tail(taken, &item->link);
        }
    }
}

size_t turns_before(const struct turns *turns, uint32_t source)
{
    size_t own = atomic_load_explicit(&turns->queues[source].count, memory_order_relaxed);
    size_t before = own * atomic_load_explicit(&turns->waiting, memory_order_relaxed);
    size_t all = atomic_load_explicit(&turns->events, memory_order_relaxed);
    return before < all ? before : all;
}

int64_t turns_oldest_us(const struct turns *turns, int64_t now_mono_us)
{
    int64_t oldest_us = 0;
    for (const struct list *turn = turns->order.next; turn != &turns->order; turn = turn->next) {
        const struct source_queue *queue = LIST_ENTRY(turn, struct source_queue, link);
        int64_t age_us =
            now_mono_us - atomic_load_explicit(&queue->oldest_mono_us, memory_order_relaxed);
        if (age_us > oldest_us)
            oldest_us = age_us;
    }
    return oldest_us;
}
