/* SPDX-License-Identifier: Apache-2.0 */
/* bench/spool: the spool without HTTP and without PostgreSQL.
 *
 *   spool put DIRECTORY [--events N] [--lanes L] [--payload BYTES] [--rate N] [--log FILE]
 *   spool get DIRECTORY [--chunk N] [--log FILE]
 *
 * `put` hands events over from L threads, as lanes do, and says how many a second were spooled;
 * `get` reads and finishes everything, compares every byte with what was put, and says how many
 * records a second that were, how many were lost, and how many were wrong (exit 1 if any was). With
 * --log, the key of each event that is SPOOLED, or comes back, is appended to FILE (one write(2) a
 * group: it is there after a kill), so tests can break anything in between. `put` exits 1 when an
 * event was left undecided. */
#include "base/clock.h"
#include "base/slice.h"
#include "number.h"
#include "spool/spool.h"

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { EXIT_FINE = 0, EXIT_NO = 1, EXIT_USAGE = 2 };
enum {
    LANES_MAX = 64,
    HAND_MAX = 100,     /* events handed over at once */
    WINDOW_MAX = 20000, /* events on their way, as queue.events bounds them */
    PAYLOAD_MAX = 65536,
    KEY_BYTES = 24,
    CHUNK_MAX = 1000000,
    CHUNK_BYTES = 8 * 1024 * 1024,
    RATE_MAX = 1000000000,
    DEADLINE_MAX_MS = 3600000,
    ARENA_BYTES = 2048,
};

#define NUMBER_MAX 1e12 /* of events, and of bytes */

struct options {
    const char *action, *directory, *log;
    uint64_t events, bytes, start, rate;
    unsigned lanes, payload, chunk;
    int64_t deadline_ms;
};

static struct options options = {.events = 200000,
                                 .bytes = UINT64_C(10) << 30,
                                 .lanes = 2,
                                 .payload = 600,
                                 .chunk = 1000,
                                 .deadline_ms = 3000};
static struct config_source source = {
    .name = "shop", .provider = "hmac", .scope_id = "source:shop", .scope_other = "source:shop"};
static uint32_t slots[2];
static struct config config = {
    .sources = &source, .source_count = 1, .source_slots = slots, .source_slot_mask = 1};
static struct spool *spool;
static _Atomic uint64_t next_event, spooled, undecided;
static int log_fd = -1;
static int64_t started_us; /* monotonic */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t decided_some = PTHREAD_COND_INITIALIZER;
static uint64_t in_flight; /* guarded by mutex */

/* ---- events: everything follows from the number ---------------------------------------------- */

static size_t write_payload(uint64_t number, char *out)
{
    size_t len = options.payload;
    int head =
        snprintf(out, PAYLOAD_MAX, "{\"id\":%" PRIu64 ",\"event\":\"delivered\",\"x\":\"", number);
    uint64_t random = number * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (size_t i = (size_t)head; i + 2 < len; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        out[i] = (char)('a' + random % 26);
    }
    if (len < (size_t)head + 2)
        len = (size_t)head + 2;
    memcpy(out + len - 2, "\"}", 2);
    return len;
}

static struct delivery *make_delivery(uint64_t number)
{
    char payload[PAYLOAD_MAX];
    struct oh_request request = {.method = SLICE_LITERAL("POST"), .url = SLICE_LITERAL("/in/shop")};
    request.body = slice_of(payload, write_payload(number, payload));
    struct oh_arena *arena = oh_arena_new(request.body.len + ARENA_BYTES, PAYLOAD_MAX * 2);
    struct delivery *delivery =
        arena ? delivery_new(arena, &source, &request, clock_wall_us(), clock_mono_us()) : NULL;
    struct oh_event *event = arena ? oh_arena_alloc(arena, sizeof(*event) + KEY_BYTES) : NULL;
    if (!delivery || !event) {
        oh_arena_free(arena);
        return NULL;
    }
    char *key = (char *)(event + 1);
    int len = snprintf(key, KEY_BYTES, "%" PRIu64, number);
    *event = (struct oh_event){.key = slice_of(key, (size_t)len),
                               .type = OH_EVENT_DELIVERED,
                               .provider_type = SLICE_LITERAL("delivered"),
                               .occurred_at_us = 1700000000000000,
                               .has_enrollment = true,
                               .raw = delivery->request.body,
                               .payload = delivery->request.body};
    memcpy(event->enrollment_id, &number, sizeof(number));
    struct oh_extraction extraction = {event, 1};
    if (delivery_take_events(delivery, &extraction) != OH_OK) {
        oh_arena_free(arena);
        return NULL;
    }
    delivery->deadline_mono_us = clock_mono_us() + options.deadline_ms * 1000;
    return delivery;
}

/* Whether the record is what make_delivery() made; *number of it. */
static bool is_as_put(const struct delivery *delivery, uint64_t *number)
{
    static char payload[PAYLOAD_MAX];
    const struct oh_event *event = delivery->events[0].event;
    char key[KEY_BYTES];
    *number = 0;
    if (!event || event->key.len >= sizeof(key))
        return false;
    memcpy(key, event->key.data, event->key.len);
    key[event->key.len] = '\0';
    *number = strtoull(key, NULL, 10);
    struct oh_slice raw = slice_of(payload, write_payload(*number, payload));
    return slice_equals(event->raw, raw) && slice_equals(event->payload, raw) &&
           event->has_enrollment && memcmp(event->enrollment_id, number, sizeof(*number)) == 0 &&
           slice_equals(event->provider_type, SLICE_LITERAL("delivered"));
}

/* ---- the log --------------------------------------------------------------------------------- */

struct lines {
    char bytes[HAND_MAX * KEY_BYTES];
    size_t len;
};

static void flush_lines(struct lines *lines)
{
    if (log_fd >= 0 && lines->len > 0 && write(log_fd, lines->bytes, lines->len) < 0)
        perror("spool: --log");
    lines->len = 0;
}

static void add_line(struct lines *lines, uint64_t number)
{
    if (lines->len + KEY_BYTES > sizeof(lines->bytes))
        flush_lines(lines);
    lines->len += (size_t)snprintf(lines->bytes + lines->len, KEY_BYTES, "%" PRIu64 "\n", number);
}

/* ---- put ------------------------------------------------------------------------------------- */

static void on_decided(void *context, struct delivery *decided)
{
    struct lines lines = {.len = 0};
    uint64_t count = 0;
    (void)context;
    while (decided) {
        struct delivery *next = decided->next_decided;
        if (decided->outcomes[DELIVERY_SPOOLED]) {
            add_line(&lines, strtoull(decided->events[0].event->key.data, NULL, 10));
            atomic_fetch_add(&spooled, 1);
        } else {
            atomic_fetch_add(&undecided, 1);
        }
        count++;
        delivery_free(decided);
        decided = next;
    }
    flush_lines(&lines);
    pthread_mutex_lock(&mutex);
    in_flight -= count;
    pthread_cond_broadcast(&decided_some);
    pthread_mutex_unlock(&mutex);
}

/* Sleeps until event number `number` is due. */
static void pace(uint64_t number)
{
    if (options.rate == 0)
        return;
    int64_t due_us = started_us + (int64_t)((number - options.start) * 1000000 / options.rate);
    int64_t left_us = due_us - clock_mono_us();
    struct timespec pause = {.tv_sec = left_us / 1000000, .tv_nsec = left_us % 1000000 * 1000};
    if (left_us > 0)
        nanosleep(&pause, NULL);
}

static void *run_lane(void *unused)
{
    (void)unused;
    for (;;) {
        struct list events;
        size_t count = 0;
        list_init(&events);
        uint64_t first = atomic_fetch_add(&next_event, HAND_MAX);
        for (uint64_t i = first; i < first + HAND_MAX && i < options.start + options.events; i++) {
            struct delivery *delivery = make_delivery(i);
            if (!delivery)
                return NULL;
            list_push_tail(&events, &delivery->events[0].link);
            count++;
        }
        if (count == 0)
            return NULL;
        pace(first);
        pthread_mutex_lock(&mutex);
        while (in_flight + count > WINDOW_MAX)
            pthread_cond_wait(&decided_some, &mutex);
        in_flight += count;
        pthread_mutex_unlock(&mutex);
        spool_put(spool, &events, count);
    }
}

static int put(void)
{
    pthread_t threads[LANES_MAX];
    started_us = clock_mono_us();
    atomic_store(&next_event, options.start);
    for (unsigned i = 0; i < options.lanes; i++)
        if (pthread_create(&threads[i], NULL, run_lane, NULL) != 0)
            return EXIT_USAGE;
    for (unsigned i = 0; i < options.lanes; i++)
        pthread_join(threads[i], NULL);
    pthread_mutex_lock(&mutex);
    while (in_flight > 0)
        pthread_cond_wait(&decided_some, &mutex);
    pthread_mutex_unlock(&mutex);
    double seconds = (double)(clock_mono_us() - started_us) / 1e6;
    struct spool_state state;
    spool_get_state(spool, &state);
    printf("put spooled=%" PRIu64 " undecided=%" PRIu64
           " seconds=%.3f per_second=%.0f bytes=%" PRIu64 " acknowledged=%" PRIu64 "\n",
           spooled, undecided, seconds, (double)spooled / seconds, state.bytes,
           state.last_acknowledged);
    return undecided ? EXIT_NO : EXIT_FINE;
}

/* ---- get ------------------------------------------------------------------------------------- */

static int get(void)
{
    uint64_t records = 0, wrong = 0;
    struct lines lines = {.len = 0};
    struct spool_state state;
    started_us = clock_mono_us();
    for (;;) {
        struct spool_chunk *chunk = spool_read(spool, options.chunk, CHUNK_BYTES);
        if (!chunk) {
            spool_get_state(spool, &state);
            if (state.waiting == 0)
                break;
            (void)spool_wait(spool, 20);
            continue;
        }
        for (size_t i = 0; i < chunk->count; i++) {
            uint64_t number;
            bool right = is_as_put(chunk->deliveries[i], &number);
            wrong += !right;
            if (right)
                add_line(&lines, number);
        }
        flush_lines(&lines);
        records += chunk->count;
        spool_finish(spool, chunk);
    }
    double seconds = (double)(clock_mono_us() - started_us) / 1e6;
    printf("get records=%" PRIu64 " wrong=%" PRIu64 " lost=%" PRIu64
           " seconds=%.3f per_second=%.0f\n",
           records, wrong, state.lost, seconds, (double)records / seconds);
    return wrong || state.lost ? EXIT_NO : EXIT_FINE;
}

/* ---- command line ---------------------------------------------------------------------------- */

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    switch (key) {
    case 'n':
        options.events = count_or_usage(state, "events", text, 1, NUMBER_MAX);
        return 0;
    case 's':
        options.start = count_or_usage(state, "start", text, 0, NUMBER_MAX);
        return 0;
    case 'l':
        options.lanes = (unsigned)count_or_usage(state, "lanes", text, 1, LANES_MAX);
        return 0;
    case 'p':
        options.payload = (unsigned)count_or_usage(state, "payload", text, 64, PAYLOAD_MAX - 1);
        return 0;
    case 'c':
        options.chunk = (unsigned)count_or_usage(state, "chunk", text, 1, CHUNK_MAX);
        return 0;
    case 'r':
        options.rate = count_or_usage(state, "rate", text, 1, RATE_MAX);
        return 0;
    case 'b':
        options.bytes = count_or_usage(state, "bytes", text, 1 << 20, NUMBER_MAX);
        return 0;
    case 'd':
        options.deadline_ms = (int64_t)count_or_usage(state, "deadline", text, 0, DEADLINE_MAX_MS);
        return 0;
    case 'o':
        options.log = text;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0)
            options.action = text;
        else if (state->arg_num == 1)
            options.directory = text;
        else
            return ARGP_ERR_UNKNOWN;
        return 0;
    case ARGP_KEY_END:
        if (!options.directory ||
            (strcmp(options.action, "put") != 0 && strcmp(options.action, "get") != 0))
            argp_error(state, "`put DIRECTORY` or `get DIRECTORY`");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp_option rows[] = {
        {"events", 'n', "N", 0, "how many are put (200000)", 0},
        {"start", 's', "N", 0, "number of the first (0)", 0},
        {"lanes", 'l', "L", 0, "threads that hand over (2)", 0},
        {"payload", 'p', "BYTES", 0, "of one event (600)", 0},
        {"rate", 'r', "N", 0, "events a second (as fast as it goes)", 0},
        {"chunk", 'c', "N", 0, "records read at once (1000)", 0},
        {"bytes", 'b', "BYTES", 0, "spool.bytes (10 GiB)", 0},
        {"deadline", 'd', "MS", 0, "of a delivery (3000)", 0},
        {"log", 'o', "FILE", 0, "append the numbers of events spooled, or read", 0},
        {0},
    };
    static const struct argp argp = {.options = rows,
                                     .parser = parse_option,
                                     .args_doc = "put|get DIRECTORY",
                                     .doc = "The spool without HTTP and PostgreSQL."};
    static const char *const names[] = {"shop"};
    struct oh_error err = {.text = ""};
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, NULL);
    slots[XXH3_64bits("shop", 4) & 1] = 1;
    config.spool.directory = (char *)options.directory;
    config.spool.bytes = options.bytes;
    config.spool.age_s = 30 * 24 * 3600;
    struct metrics *metrics = metrics_new(names, 1, 1);
    if (options.log)
        log_fd = open(options.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int64_t opening_us = clock_mono_us();
    if (!metrics || (options.log && log_fd < 0) ||
        spool_open(&config, metrics_shard_at(metrics, 0), on_decided, NULL, &spool, &err) !=
            OH_OK) {
        fprintf(stderr, "spool: %s\n", err.text[0] ? err.text : strerror(errno));
        metrics_free(metrics);
        return EXIT_USAGE;
    }
    printf("open seconds=%.6f\n", (double)(clock_mono_us() - opening_us) / 1e6);
    fflush(stdout);
    int code = strcmp(options.action, "put") == 0 ? put() : get();
    fflush(stdout);
    spool_close(spool);
    metrics_free(metrics);
    if (log_fd >= 0)
        close(log_fd);
    return code;
}
