/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses as people write them: host:port, networks, and the names of sources. */
#include "config/loader.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

/* 1 to 5 digits up to `max`; -1 otherwise. */
static int parse_small(const char *text, int max)
{
    size_t len = strlen(text);
    if (len < 1 || len > 5 || strspn(text, "0123456789") != len)
        return -1;
    long n = strtol(text, NULL, 10);
    return n <= max ? (int)n : -1;
}

const char *network_parse(const char *text, struct config_network *network)
{
    char host[INET6_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : strlen(text);
    if (len >= sizeof(host))
        return "is not an address";
    memcpy(host, text, len);
    host[len] = 0;
    struct in_addr v4;
    int family_bits = 128;
    if (inet_pton(AF_INET, host, &v4) == 1) {
        family_bits = 32;
        memset(&network->address, 0, 10);
        memset(network->address.s6_addr + 10, 0xff, 2);
        memcpy(network->address.s6_addr + 12, &v4, 4);
    } else if (inet_pton(AF_INET6, host, &network->address) != 1) {
        return "is not an address";
    }
    int bits = slash ? parse_small(slash + 1, family_bits) : family_bits;
    if (bits < 0)
        return "has a wrong number of bits after the slash";
    network->prefix_bits = (uint8_t)(128 - family_bits + bits);
    for (int bit = network->prefix_bits; bit < 128; bit++)
        if (network->address.s6_addr[bit / 8] & (0x80 >> bit % 8))
            return "has bits beyond its network: write the network's own address";
    return NULL;
}

bool config_networks_contain(const struct config_networks *networks, const struct in6_addr *address)
{
    for (size_t i = 0; i < networks->count; i++) {
        const struct config_network *n = &networks->items[i];
        size_t bytes = n->prefix_bits / 8;
        unsigned rest = n->prefix_bits % 8;
        if (memcmp(n->address.s6_addr, address->s6_addr, bytes) != 0)
            continue;
        if (rest == 0 || (n->address.s6_addr[bytes] ^ address->s6_addr[bytes]) >> (8 - rest) == 0)
            return true;
    }
    return false;
}

const char *address_parse(struct loader *loader, const char *text, struct config_address *address)
{
    const char *colon = strrchr(text, ':');
    if (!colon)
        return "must be HOST:PORT";
    int port = parse_small(colon + 1, 65535);
    if (port < 0)
        return "must end in a port, 0 to 65535";
    const char *host = text;
    size_t len = (size_t)(colon - text);
    bool bracketed = len >= 2 && text[0] == '[' && text[len - 1] == ']';
    if (bracketed) {
        host++;
        len -= 2;
    } else if (memchr(text, ':', len)) {
        return "needs [ ] around an IPv6 address";
    }
    if (len == 0 || len > 253 || memchr(host, '[', len) || memchr(host, ']', len) ||
        memchr(host, '/', len) || memchr(host, ' ', len))
        return "must be HOST:PORT";
    char *copy = loader_copy(loader, host, len);
    if (!copy)
        return "needs memory";
    struct in6_addr ignored;
    if (bracketed && inet_pton(AF_INET6, copy, &ignored) != 1) {
        free(copy);
        return "has no IPv6 address between [ and ]";
    }
    free(address->host);
    *address = (struct config_address){.host = copy, .port = (uint16_t)port};
    return NULL;
}

bool name_is_valid(const char *text)
{
    static const char first[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    static const char further[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t len = strlen(text);
    return len >= 1 && len <= CONFIG_NAME_BYTES_MAX && strchr(first, text[0]) &&
           strspn(text, further) == len;
}
