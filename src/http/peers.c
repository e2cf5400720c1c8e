/* SPDX-License-Identifier: Apache-2.0 */
/* limits.connections_per_ip: how many connections each address has open. A table twice as large as
 * there can be connections, so it never fills; one lock, taken at accept and close only. */
#include "http/room.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

struct peer {
    struct in6_addr address;
    uint32_t count; /* 0 = free slot */
};

struct peers {
    pthread_mutex_t mutex;
    uint32_t per_ip_max, slot_count; /* a power of two */
    struct peer slots[];
};

struct peers *peers_new(uint32_t connections_max, uint32_t per_ip_max)
{
    uint32_t slot_count = 16;
    while (slot_count < connections_max * 2)
        slot_count *= 2;
    struct peers *peers = calloc(1, sizeof(*peers) + slot_count * sizeof(peers->slots[0]));
    if (!peers)
        return NULL;
    pthread_mutex_init(&peers->mutex, NULL);
    peers->per_ip_max = per_ip_max;
    peers->slot_count = slot_count;
    return peers;
}

void peers_map_ipv4(const struct in_addr *from, struct in6_addr *to)
{
    memset(to, 0, sizeof(*to));
    to->s6_addr[10] = to->s6_addr[11] = 0xff;
    memcpy(&to->s6_addr[12], from, 4);
}

bool peers_address(h2o_socket_t *socket, struct in6_addr *address)
{
    struct sockaddr_storage name;
    if (h2o_socket_getpeername(socket, (struct sockaddr *)(void *)&name) == 0)
        return false;
    if (name.ss_family == AF_INET6)
        *address = ((const struct sockaddr_in6 *)(const void *)&name)->sin6_addr;
    else if (name.ss_family == AF_INET)
        peers_map_ipv4(&((const struct sockaddr_in *)(const void *)&name)->sin_addr, address);
    else
        return false;
    return true;
}

static uint32_t home_of(const struct peers *peers, const struct in6_addr *address)
{
    return (uint32_t)XXH3_64bits(address, sizeof(*address)) & (peers->slot_count - 1);
}

static struct peer *find_peer(struct peers *peers, const struct in6_addr *address)
{
    uint32_t at = home_of(peers, address);
    while (peers->slots[at].count &&
           memcmp(&peers->slots[at].address, address, sizeof(*address)) != 0)
        at = (at + 1) & (peers->slot_count - 1);
    return &peers->slots[at];
}

bool peers_enter(struct peers *peers, const struct in6_addr *address)
{
    pthread_mutex_lock(&peers->mutex);
    struct peer *peer = find_peer(peers, address);
    bool is_allowed = peer->count < peers->per_ip_max;
    if (is_allowed) {
        peer->address = *address;
        peer->count++;
    }
    pthread_mutex_unlock(&peers->mutex);
    return is_allowed;
}

/* Linear probing without tombstones: what stands behind a freed slot moves up. */
static void close_gap(struct peers *peers, uint32_t gap)
{
    uint32_t mask = peers->slot_count - 1, at = gap;
    for (;;) {
        at = (at + 1) & mask;
        if (!peers->slots[at].count)
            return;
        uint32_t home = home_of(peers, &peers->slots[at].address);
        if (((at - home) & mask) >= ((at - gap) & mask)) {
            peers->slots[gap] = peers->slots[at];
            peers->slots[at].count = 0;
            gap = at;
        }
    }
}

void peers_leave(struct peers *peers, const struct in6_addr *address)
{
    pthread_mutex_lock(&peers->mutex);
    struct peer *peer = find_peer(peers, address);
    if (peer->count && --peer->count == 0)
        close_gap(peers, (uint32_t)(peer - peers->slots));
    pthread_mutex_unlock(&peers->mutex);
}

void peers_free(struct peers *peers)
{
    if (!peers)
        return;
    pthread_mutex_destroy(&peers->mutex);
    free(peers);
}
