/* SPDX-License-Identifier: Apache-2.0 */
/* The load-making client: a loop for each worker turns the clock and epoll into moves of its
 * connections; the rest starts the workers and adds up what they saw. */
#include "worker.h"

#include "base/clock.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum {
    EVENTS_MAX = 256,           /* epoll events a turn */
    CONNECTING_MAX = 64,        /* handshakes at a time and thread, kind to the server's backlog */
    TURN_MAX_US = 100000,       /* longest sleep of the loop */
    TURN_MIN_US = 100,          /* shortest sleep of the open loop: a finer clock costs more CPU */
    BACKLOG_GRACE_US = 5000000, /* open loop: how long late requests are still sent after the end */
};

/* ---- a worker's loop ------------------------------------------------------------------------ */

/* When this worker's request number k is due: the workers take turns. */
static int64_t due_at(const struct worker *worker, int64_t start_us, uint64_t k)
{
    const struct client_options *options = &worker->client->options;
    double turn = (double)(k * options->threads + worker->index);
    return start_us + (int64_t)(turn * 1e6 / options->rate);
}

/* Starts all requests that are due. Returns the µs until there is more to do. */
static int64_t start_due(struct worker *worker, int64_t start_us, int64_t now_us)
{
    const struct client *client = worker->client;
    struct connection *connection;
    if (now_us < start_us)
        return start_us - now_us;
    while ((connection = first_of(&worker->idle))) {
        int64_t due_us = now_us;
        if (client->options.rate > 0) {
            due_us = due_at(worker, start_us, worker->next_due);
            if (due_us >= client->until_us || now_us >= client->until_us + BACKLOG_GRACE_US)
                return TURN_MAX_US;
            if (due_us > now_us)
                return due_us - now_us > TURN_MIN_US ? due_us - now_us : TURN_MIN_US;
            worker->next_due++;
        } else if (now_us >= client->until_us) {
            return TURN_MAX_US;
        }
        connection_start(worker, connection, due_us, now_us);
        if (atomic_load_explicit(&worker->client->stop, memory_order_relaxed))
            return 0;
    }
    return TURN_MAX_US;
}

static void wake_rested(struct worker *worker, int64_t now_us)
{
    struct connection *connection;
    while ((connection = first_of(&worker->resting)) && connection->since_us <= now_us) {
        if (connection->state == CONNECTION_IDLE || worker->client->options.new_connections)
            move_to(connection, &worker->idle, now_us);
        else if (worker->opening < CONNECTING_MAX)
            connection_open(worker, connection, false, now_us);
        else
            return;
    }
}

static void expire_busy(struct worker *worker, int64_t now_us)
{
    struct connection *connection;
    int64_t timeout_us = worker->client->options.timeout_us;
    while ((connection = first_of(&worker->busy)) && connection->since_us + timeout_us <= now_us)
        connection_expire(worker, connection, now_us);
}

/* Nothing more is due, and nothing is on its way. */
static bool is_finished(const struct worker *worker, int64_t start_us, int64_t now_us)
{
    const struct client *client = worker->client;
    if (atomic_load_explicit(&client->stop, memory_order_relaxed))
        return true;
    if (start_us == 0 || now_us < client->until_us || !list_is_empty(&worker->busy))
        return false;
    return client->options.rate == 0 || now_us >= client->until_us + BACKLOG_GRACE_US ||
           due_at(worker, start_us, worker->next_due) >= client->until_us;
}

/* What was due and never sent has waited at least until now. */
static void count_unsent(struct worker *worker, int64_t start_us, int64_t now_us)
{
    if (worker->client->options.rate == 0 || start_us == 0)
        return;
    for (;; worker->next_due++) {
        int64_t due_us = due_at(worker, start_us, worker->next_due);
        if (due_us >= worker->client->until_us)
            return;
        worker->totals.unsent++;
        if (in_window(worker->client, due_us, now_us))
            histogram_record(&worker->latencies, now_us - due_us);
    }
}

static void *worker_run(void *context)
{
    struct worker *worker = context;
    struct epoll_event events[EVENTS_MAX];
    int64_t now_us = clock_mono_us(), start_us = 0;
    while (!is_finished(worker, start_us, now_us)) {
        start_us = atomic_load_explicit(&worker->client->start_us, memory_order_acquire);
        wake_rested(worker, now_us);
        expire_busy(worker, now_us);
        int64_t sleep_us = start_us ? start_due(worker, start_us, now_us) : REST_US / 5;
        if (!list_is_empty(&worker->resting) && sleep_us > REST_US / 5)
            sleep_us = REST_US / 5;
        if (sleep_us > TURN_MAX_US)
            sleep_us = TURN_MAX_US;
        struct timespec sleep = {.tv_nsec = sleep_us * 1000};
        int count = epoll_pwait2(worker->epoll, events, EVENTS_MAX, &sleep, NULL);
        now_us = clock_mono_us();
        for (int i = 0; i < count; i++)
            connection_ready(worker, events[i].data.ptr, events[i].events, now_us);
    }
    count_unsent(worker, start_us, now_us);
    return NULL;
}

/* ---- the whole ------------------------------------------------------------------------------ */

static enum oh_status worker_init(struct worker *worker, struct client *client, uint32_t index,
                                  struct oh_error *err)
{
    const struct client_options *options = &client->options;
    worker->client = client;
    worker->index = index;
    worker->random = 0x9e3779b97f4a7c15u * (index + 1);
    worker->connection_count =
        options->connections / options->threads + (index < options->connections % options->threads);
    worker->connections = calloc(worker->connection_count, sizeof(*worker->connections));
    worker->maker = maker_new(options->plan);
    worker->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!worker->connections || !worker->maker || worker->epoll < 0)
        return oh_fail(err, OH_NO_MEMORY, "no memory or descriptors for %u connections",
                       options->connections);
    for (uint32_t i = 0; i < worker->connection_count; i++) {
        struct connection *connection = &worker->connections[i];
        bool open_now = !options->new_connections || i == 0;
        connection->wire.fd = -1;
        list_push_tail(open_now ? &worker->resting : &worker->idle, &connection->link);
    }
    if (options->new_connections) /* one, to see that it can be done */
        connection_open(worker, first_of(&worker->resting), false, clock_mono_us());
    return OH_OK;
}

enum oh_status client_start(const struct client_options *options, struct client **out,
                            struct oh_error *err)
{
    struct client *client = calloc(1, sizeof(*client));
    *out = client;
    if (!client)
        return oh_fail(err, OH_NO_MEMORY, "no memory");
    client->options = *options;
    pthread_mutex_init(&client->problem_lock, NULL);
    client->workers = calloc(options->threads, sizeof(*client->workers));
    if (!client->workers)
        return oh_fail(err, OH_NO_MEMORY, "no memory");
    for (uint32_t i = 0; i < options->threads; i++) {
        struct worker *worker = &client->workers[i];
        worker->epoll = -1;
        list_init(&worker->idle);
        list_init(&worker->busy);
        list_init(&worker->resting);
    }
    for (uint32_t i = 0; i < options->threads; i++) {
        struct worker *worker = &client->workers[i];
        enum oh_status status = worker_init(worker, client, i, err);
        if (status != OH_OK)
            return status;
        if (pthread_create(&worker->thread, NULL, worker_run, worker) != 0)
            return oh_fail(err, OH_SYSTEM, "cannot start a thread");
        worker->running = true;
    }
    return OH_OK;
}

enum oh_status client_wait_connected(struct client *client, struct oh_error *err)
{
    const struct client_options *options = &client->options;
    uint32_t wanted = options->new_connections ? options->threads : options->connections;
    int64_t deadline_us = clock_mono_us() + options->timeout_us;
    struct oh_error problem;
    for (;;) {
        uint32_t ready = 0;
        for (uint32_t i = 0; i < options->threads; i++)
            ready += atomic_load_explicit(&client->workers[i].ready, memory_order_relaxed);
        if (ready >= wanted)
            return OH_OK;
        if (clock_mono_us() > deadline_us) {
            pthread_mutex_lock(&client->problem_lock);
            problem = client->problem;
            pthread_mutex_unlock(&client->problem_lock);
            return oh_fail(err, OH_SYSTEM,
                           "%u of %u connections could be made; first problem: %.200s", ready,
                           wanted, problem.text);
        }
        usleep(2000);
    }
}

void client_begin(struct client *client, int64_t start_us, int64_t from_us, int64_t until_us)
{
    client->from_us = from_us;
    client->until_us = until_us;
    atomic_store_explicit(&client->start_us, start_us, memory_order_release);
}

static uint64_t sum_of(const struct client *client, bool acknowledged)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < client->options.threads; i++) {
        const struct worker *worker = &client->workers[i];
        sum += atomic_load_explicit(acknowledged ? &worker->acknowledged : &worker->failed,
                                    memory_order_relaxed);
    }
    return sum;
}

uint64_t client_acknowledged(const struct client *client)
{
    return sum_of(client, true);
}

uint64_t client_failed(const struct client *client)
{
    return sum_of(client, false);
}

static void totals_add(struct client_totals *to, const struct client_totals *from)
{
    /* a struct of nothing but uint64_t is an array of them */
    _Static_assert(sizeof(*to) % sizeof(uint64_t) == 0, "totals are counters only");
    uint64_t *sum = (uint64_t *)(void *)to;
    const uint64_t *add = (const uint64_t *)(const void *)from;
    for (size_t i = 0; i < sizeof(*to) / sizeof(uint64_t); i++)
        sum[i] += add[i];
}

void client_finish(struct client *client, struct client_totals *totals,
                   struct client_latencies *latencies, struct oh_error *problem)
{
    for (uint32_t i = 0; i < client->options.threads; i++) {
        struct worker *worker = &client->workers[i];
        if (worker->running)
            pthread_join(worker->thread, NULL);
        worker->running = false;
        totals_add(totals, &worker->totals);
        histogram_add(&latencies->all, &worker->latencies);
        histogram_add(&latencies->accepted, &worker->accepted);
        histogram_add(&latencies->accepted_sent, &worker->accepted_sent);
    }
    *problem = client->problem;
}

void client_free(struct client *client)
{
    if (!client)
        return;
    atomic_store(&client->stop, true);
    for (uint32_t i = 0; client->workers && i < client->options.threads; i++) {
        struct worker *worker = &client->workers[i];
        if (worker->running)
            pthread_join(worker->thread, NULL);
        for (uint32_t j = 0; worker->connections && j < worker->connection_count; j++) {
            wire_close(&worker->connections[j].wire);
            free(worker->connections[j].unsent);
        }
        if (worker->epoll >= 0)
            close(worker->epoll);
        maker_free(worker->maker);
        free(worker->connections);
    }
    pthread_mutex_destroy(&client->problem_lock);
    free(client->workers);
    free(client);
}
