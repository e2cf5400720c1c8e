/* SPDX-License-Identifier: Apache-2.0 */
/* limits.memory, held. libh2o keeps the head and the body of a request in memory before any handler
 * sees it, so a client that withholds its last byte holds a whole body. Each thread has an equal
 * share of the ceiling, sums what its connections and deliveries hold, and closes the connections
 * that hold most. Never one that waits for its commit: those are bounded before they are admitted.
 *
 * docs/adr/0005-memory.md says why it looks between two turns of the loop and not at each read. */
#include "http/room.h"

#include "base/clock.h"
#include "log/log.h"

#include <malloc.h>
#include <sys/socket.h>

enum {
    CONNECTION_BYTES = 8 * 1024,  /* libh2o's and our structs, its pool's first chunk, an answer */
    TLS_BYTES = 32 * 1024,        /* OpenSSL's state, with a record that is not complete */
    HEAD_COPIES = 2,              /* of a head in the request's pool: names as they came, values */
    FILL_BYTES_PER_US = 4096,     /* no thread reads faster */
    MMAP_THRESHOLD = 1024 * 1024, /* larger blocks go back to the kernel when they are freed */
    TRIM_THRESHOLD = 8 * 1024 * 1024,
    CLASSES = 64,
};

static size_t input_bytes(const struct http_connection *connection)
{
    const h2o_buffer_t *input = connection->socket->input;
    size_t head = input->size < H2O_MAX_REQLEN ? input->size : H2O_MAX_REQLEN;
    return input->capacity + HEAD_COPIES * head;
}

static size_t held_bytes(const struct http_connection *connection)
{
    return CONNECTION_BYTES + (connection->socket->ssl ? TLS_BYTES : 0) + input_bytes(connection);
}

/* ---- what waits for its commit --------------------------------------------------------------- */

bool memory_lend(struct http_connection *connection, struct delivery *delivery)
{
    struct http_thread *thread = connection->thread;
    size_t arena = oh_arena_bytes(delivery->arena), input = input_bytes(connection);
    size_t sum = thread->lent_bytes + thread->waiting_bytes;
    /* A delivery larger than that still passes while nothing else waits. */
    if (thread->memory_max && sum > 0 && sum + arena + input > thread->memory_max / 2)
        return false;
    delivery->memory = arena;
    thread->lent_bytes += arena;
    connection->waiting_bytes = input;
    thread->waiting_bytes += input;
    return true;
}

void memory_end_waiting(struct http_connection *connection)
{
    connection->thread->waiting_bytes -= connection->waiting_bytes;
    connection->waiting_bytes = 0;
}

/* ---- closing --------------------------------------------------------------------------------- */

/* h2o closes a connection of its own when its read fails; one that still writes an answer is not
 * read, but its write fails next. Without a shutdown, TLS would wait for room for its last word. */
static void close_connection(struct http_connection *connection)
{
    h2o_socket_t *socket = connection->socket;
    connection->is_closing = true;
    shutdown(h2o_socket_get_fd(socket), SHUT_RDWR);
    if (h2o_socket_is_reading(socket))
        socket->_cb.read(socket, h2o_socket_error_closed); /* the connection may be gone */
}

static bool is_closable(const struct http_connection *connection)
{
    return !connection->is_closing && connection->waiting_bytes == 0;
}

static int class_of(size_t bytes)
{
    return CLASSES - 1 - __builtin_clzll(bytes);
}

/* Closes until `excess` bytes are free, the largest class of sizes (by powers of two) first, in a
 * class the oldest connection first. Returns how many; *held_sum loses what they held. */
static uint32_t close_biggest(struct http_thread *thread, size_t excess, size_t *held_sum)
{
    size_t in_class[CLASSES] = {0}, freed = 0;
    uint32_t closed = 0;
    for (struct list *node = thread->connections.next; node != &thread->connections;
         node = node->next) {
        struct http_connection *connection = LIST_ENTRY(node, struct http_connection, link);
        if (is_closable(connection))
            in_class[class_of(held_bytes(connection))]++;
    }
    for (int class = CLASSES - 1; class >= 0 && freed < excess; class --) {
        struct list *node = thread->connections.next;
        while (in_class[class] > 0 && freed < excess && node != &thread->connections) {
            struct http_connection *connection = LIST_ENTRY(node, struct http_connection, link);
            node = node->next;
            size_t held = held_bytes(connection);
            if (!is_closable(connection) || class_of(held) != class)
                continue;
            close_connection(connection);
            in_class[class]--;
            freed += held;
            closed++;
        }
    }
    *held_sum -= freed;
    return closed;
}

/* ---- looking --------------------------------------------------------------------------------- */

void memory_init(void)
{
    /* Without this glibc raises the threshold with each large block that is freed, and keeps what
     * an attack has taken. */
    mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD);
    /* A fixed threshold also ends the growth of this one: at 128 KiB a busy heap would be trimmed
     * and faulted in again all the time. */
    mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD);
}

bool memory_look(struct http_thread *thread)
{
    int64_t now_us = clock_mono_us();
    if (thread->memory_max == 0 || now_us < thread->memory_look_us)
        return false;
    size_t held = thread->lent_bytes;
    for (struct list *node = thread->connections.next; node != &thread->connections;
         node = node->next)
        held += held_bytes(LIST_ENTRY(node, struct http_connection, link));

    /* A quarter is for what one turn can read, another is freed so that not each look closes. */
    size_t high = thread->memory_max / 4 * 3, low = thread->memory_max / 2;
    uint32_t closed = 0;
    if (held > high) {
        closed = close_biggest(thread, held - low, &held);
        metrics_count_memory_closed(thread->shard, closed);
        LOG_RATE_LIMITED(LOG_WARNING, "http", "limits.memory: closed what held most",
                         log_int("connections", closed), log_int("left_bytes", (int64_t)held),
                         log_int("share_bytes", (int64_t)thread->memory_max));
    }
    if (closed) {
        thread->trim = true;
    } else if (thread->trim && held < low / 2) {
        thread->trim = false;
        malloc_trim(0);
    }
    atomic_store_explicit(&thread->memory_held, held, memory_order_relaxed);
    thread->memory_look_us =
        now_us + (held < high ? (int64_t)((high - held) / FILL_BYTES_PER_US) : 0);
    return closed > 0;
}
