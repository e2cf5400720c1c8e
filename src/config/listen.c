/* SPDX-License-Identifier: Apache-2.0 */
/* A configured address becomes a listening socket. */
#include "config/config.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int config_listen(const struct config_address *address, int backlog, uint16_t *port,
                  struct oh_error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char service[8];
    snprintf(service, sizeof(service), "%u", address->port);
    int status = getaddrinfo(address->host, service, &hints, &found);
    if (status != 0) {
        oh_fail(err, OH_SYSTEM, "listen address %s: %s", address->host, gai_strerror(status));
        return -1;
    }
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } bound = {.v6 = {0}};
    socklen_t len = sizeof(bound);
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) != 0 ||
        bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, backlog) != 0 ||
        getsockname(fd, &bound.any, &len) != 0) {
        oh_fail(err, OH_SYSTEM, "cannot listen on %s:%s: %s", address->host, service,
                strerror(errno));
        if (fd >= 0)
            close(fd);
        fd = -1;
    } else {
        *port = ntohs(bound.any.sa_family == AF_INET6 ? bound.v6.sin6_port : bound.v4.sin_port);
    }
    freeaddrinfo(found);
    return fd;
}
