/* SPDX-License-Identifier: Apache-2.0 */
/* bench/pg_direct: PostgreSQL fed as the gateway feeds it, without HTTP, TLS or signatures. One
 * thread and connection a lane, the gateway's own store room and capture_v1(), full batches back to
 * back, each instance in one lane: the most that PostgreSQL gives on this machine. --feed copy and
 * --feed keys write the same rows, or the same keys, by COPY and INSERT instead (feed.h).
 *
 *   pg_direct -c FILE --source S --seconds T [--feed capture|copy|keys] [--warmup T] [--json F]
 *             [--name N] [--watch postgres=PID]
 */
#include "base/clock.h"
#include "base/encode.h"
#include "feed.h"
#include "maker.h"
#include "measure.h"
#include "number.h"
#include "store/store.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { EXIT_FINE = 0, EXIT_NO = 1, EXIT_USAGE = 2 };
enum { PAIRS_MAX = 100000, CONNECT_US = 10000000, STATEMENT_US = 30000000 };

struct options {
    const char *config, *source, *json, *name;
    double seconds, warmup;
    enum feed_kind kind;
    struct measure measure;
};

/* One event of a batch with all that it points to. */
struct item {
    struct delivery_event waiting;
    struct delivery delivery;
    struct oh_event event;
    char id[UUID_TEXT];
};

struct lane {
    pthread_t thread;
    const struct config *config;
    const struct config_source *source;
    struct pairs pairs; /* of the instances that are this lane's */
    struct maker_plan *plan;
    struct store *store;
    struct feed *feed; /* instead of the store, or NULL */
    uint32_t batch;    /* events */
    struct item *items;
    char *texts; /* batch times the longest event */
    struct delivery_event **events;
    enum delivery_outcome *outcomes;
    uint64_t next_event;
    _Atomic uint64_t committed;
    uint64_t counts[DELIVERY_OUTCOME_COUNT];
    struct histogram latencies; /* of batches */
    struct store_error error;
    atomic_bool *stop;
    atomic_bool failed;
};

/* ---- one lane ------------------------------------------------------------------------------- */

static enum oh_event_type type_of_word(const char *word)
{
    for (enum oh_event_type type = 0; type < OH_EVENT_TYPE_COUNT; type++)
        if (strcmp(word, oh_event_type_name(type)) == 0)
            return type;
    return OH_EVENT_OTHER;
}

static void fill_item(struct lane *lane, uint32_t place, int64_t now_us)
{
    struct item *item = &lane->items[place];
    uint64_t number = lane->next_event++;
    const struct pair *pair = maker_event_pair(lane->plan, number);
    const char *word = maker_event_type(lane->plan, number);
    char *text = lane->texts + place * maker_event_bytes(lane->plan);
    size_t len = maker_write_event(lane->plan, number, text);
    maker_event_id(lane->plan, number, item->id);
    item->event = (struct oh_event){.key = {item->id, UUID_TEXT},
                                    .grade = OH_GRADE_ID,
                                    .type = type_of_word(word),
                                    .provider_type = {word, strlen(word)},
                                    .occurred_at_us = now_us,
                                    .raw = {text, len},
                                    .payload = {text, len}};
    item->event.has_enrollment =
        uuid_parse((struct oh_slice){pair->enrollment, UUID_TEXT}, item->event.enrollment_id);
    item->event.has_instance =
        uuid_parse((struct oh_slice){pair->instance, UUID_TEXT}, item->event.instance_id);
    item->delivery.source = lane->source;
    uuid_random(item->delivery.id);
    item->waiting.delivery = &item->delivery;
    item->waiting.event = &item->event;
    item->waiting.scope = (struct oh_slice){lane->source->scope_id, strlen(lane->source->scope_id)};
    lane->events[place] = &item->waiting;
}

/* One batch by COPY or INSERT. */
static enum store_action lane_feed(struct lane *lane)
{
    struct oh_error err = {0};
    if (feed_write(lane->feed, lane->events, lane->batch, &err) != OH_OK) {
        snprintf(lane->error.text, sizeof(lane->error.text), "%.200s", err.text);
        return STORE_REFUSED;
    }
    for (uint32_t i = 0; i < lane->batch; i++)
        lane->outcomes[i] = DELIVERY_CAPTURED;
    return STORE_COMMITTED;
}

static void *lane_run(void *context)
{
    struct lane *lane = context;
    while (!atomic_load_explicit(lane->stop, memory_order_relaxed)) {
        int64_t now_us = clock_wall_us();
        for (uint32_t i = 0; i < lane->batch; i++)
            fill_item(lane, i, now_us);
        int64_t sent_us = clock_mono_us();
        enum store_action action =
            lane->feed ? lane_feed(lane)
                       : store_capture(lane->store, lane->events, lane->batch, lane->outcomes,
                                       sent_us + STATEMENT_US, INT64_MAX, &lane->error);
        if (action == STORE_RETRY)
            continue; /* the batch is lost, fresh ones follow: their ids are never reused */
        if (action != STORE_COMMITTED) {
            atomic_store(&lane->failed, true);
            return NULL;
        }
        histogram_record(&lane->latencies, clock_mono_us() - sent_us);
        for (uint32_t i = 0; i < lane->batch; i++)
            lane->counts[lane->outcomes[i]]++;
        atomic_fetch_add_explicit(&lane->committed, lane->batch, memory_order_relaxed);
    }
    return NULL;
}

/* The pairs of the instances that fall to this lane, as the gateway's lanes share them out. */
static enum oh_status lane_take_pairs(struct lane *lane, const struct pairs *all, uint32_t number,
                                      uint32_t lanes, struct oh_error *err)
{
    lane->pairs.items = calloc(all->count, sizeof(*all->items));
    if (!lane->pairs.items)
        return oh_fail(err, OH_NO_MEMORY, "no memory");
    for (size_t i = 0; i < all->count; i++) {
        uint8_t instance[16];
        if (uuid_parse((struct oh_slice){all->items[i].instance, UUID_TEXT}, instance) &&
            XXH3_64bits(instance, sizeof(instance)) % lanes == number)
            lane->pairs.items[lane->pairs.count++] = all->items[i];
    }
    return lane->pairs.count > 0
               ? OH_OK
               : oh_fail(err, OH_INVALID, "too few instances for %u lanes", lanes);
}

static enum oh_status lane_connect(struct lane *lane, enum feed_kind kind, struct oh_error *err)
{
    const struct config *config = lane->config;
    struct store_error error = {0};
    if (kind != FEED_CAPTURE)
        return feed_new(config->database.url, config->database.schema, kind, &lane->feed, err);
    lane->store = store_new(config, config->database.url, "pg_direct");
    if (!lane->store)
        return oh_fail(err, OH_NO_MEMORY, "no memory");
    return store_connect(lane->store, clock_mono_us() + CONNECT_US, &error)
               ? OH_OK
               : oh_fail(err, OH_SYSTEM, "database: %s", error.text);
}

static enum oh_status lane_init(struct lane *lane, const struct pairs *all, uint32_t number,
                                enum feed_kind kind, struct oh_error *err)
{
    const struct config *config = lane->config;
    enum oh_status status = lane_take_pairs(lane, all, number, config->database.lanes, err);
    if (status != OH_OK)
        return status;
    struct maker_options maker = {.provider = lane->source->provider,
                                  .pairs = &lane->pairs,
                                  .url = "",
                                  .host = "",
                                  .path = "",
                                  .events_per_delivery = 1,
                                  .now_us = clock_wall_us()};
    status = maker_plan_new(&maker, &lane->plan, err);
    if (status != OH_OK)
        return status;
    lane->batch = config->batch.events;
    lane->items = calloc(lane->batch, sizeof(*lane->items));
    lane->texts = malloc(lane->batch * maker_event_bytes(lane->plan));
    lane->events = calloc(lane->batch, sizeof(struct delivery_event *));
    lane->outcomes = calloc(lane->batch, sizeof(*lane->outcomes));
    if (!lane->items || !lane->texts || !lane->events || !lane->outcomes)
        return oh_fail(err, OH_NO_MEMORY, "no memory");
    return lane_connect(lane, kind, err);
}

static void lane_free(struct lane *lane)
{
    store_free(lane->store);
    feed_free(lane->feed);
    maker_plan_free(lane->plan);
    pairs_free(&lane->pairs);
    free(lane->items);
    free(lane->texts);
    free(lane->events);
    free(lane->outcomes);
}

/* ---- the run -------------------------------------------------------------------------------- */

static uint64_t committed_by(const struct lane *lanes, uint32_t count)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += atomic_load_explicit(&lanes[i].committed, memory_order_relaxed);
    return sum;
}

static void sleep_seconds(double seconds)
{
    struct timespec left = {.tv_sec = (time_t)seconds,
                            .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

static int tell(struct options *options, const struct lane *lanes, uint32_t count, uint64_t events)
{
    static struct histogram latencies;
    uint64_t counts[DELIVERY_OUTCOME_COUNT] = {0};
    for (uint32_t i = 0; i < count; i++) {
        histogram_add(&latencies, &lanes[i].latencies);
        for (int outcome = 0; outcome < DELIVERY_OUTCOME_COUNT; outcome++)
            counts[outcome] += lanes[i].counts[outcome];
    }
    double seconds = (double)(options->measure.until_us - options->measure.from_us) / 1e6;
    struct measure_result result = {options->name, (double)events / seconds, events, &latencies};
    measure_print(&options->measure, &result);
    if (!options->json)
        return EXIT_FINE;
    json_t *json = measure_to_json(&options->measure, &result);
    json_object_set_new(json, "connections", json_integer(count));
    json_object_set_new(json, "totals",
                        json_pack("{s:I, s:I, s:I}", "captured",
                                  (json_int_t)(counts[DELIVERY_CAPTURED] + counts[DELIVERY_ORPHAN]),
                                  "orphans", (json_int_t)counts[DELIVERY_ORPHAN], "duplicates",
                                  (json_int_t)counts[DELIVERY_DUPLICATE]));
    if (measure_write(options->json, json))
        return EXIT_FINE;
    fprintf(stderr, "pg_direct: cannot write %s\n", options->json);
    return EXIT_USAGE;
}

static int run(struct options *options, struct lane *lanes, uint32_t count, atomic_bool *stop)
{
    uint32_t started = 0;
    while (started < count &&
           pthread_create(&lanes[started].thread, NULL, lane_run, &lanes[started]) == 0)
        started++;
    sleep_seconds(options->warmup);
    measure_begin(&options->measure);
    uint64_t before = committed_by(lanes, count);
    sleep_seconds(options->seconds);
    uint64_t events = committed_by(lanes, count) - before;
    measure_end(&options->measure);
    atomic_store(stop, true);
    for (uint32_t i = 0; i < started; i++)
        pthread_join(lanes[i].thread, NULL);
    for (uint32_t i = 0; i < count; i++) {
        if (i < started && !atomic_load(&lanes[i].failed))
            continue;
        fprintf(stderr, "pg_direct: lane %u: %s\n", i,
                i < started ? lanes[i].error.text : "no thread");
        return EXIT_NO;
    }
    return events > 0 ? tell(options, lanes, count, events) : EXIT_NO;
}

static int prepare(struct options *options, const struct config *config)
{
    uint32_t count = config->database.lanes;
    struct oh_error err = {0};
    struct pairs pairs = {0};
    atomic_bool stop = false;
    int result = EXIT_USAGE;
    const struct config_source *source =
        config_find_source(config, (struct oh_slice){options->source, strlen(options->source)});
    struct lane *lanes = calloc(count, sizeof(*lanes));
    if (!source || !lanes) {
        fprintf(stderr, "pg_direct: %s has no source '%s'\n", options->config, options->source);
        free(lanes);
        return EXIT_USAGE;
    }
    enum oh_status status =
        pairs_read(config->database.url, config->database.schema, PAIRS_MAX, &pairs, &err);
    for (uint32_t i = 0; status == OH_OK && i < count; i++) {
        lanes[i].config = config;
        lanes[i].source = source;
        lanes[i].stop = &stop;
        status = lane_init(&lanes[i], &pairs, i, options->kind, &err);
    }
    if (status == OH_OK)
        result = run(options, lanes, count, &stop);
    else
        fprintf(stderr, "pg_direct: %s\n", err.text);
    for (uint32_t i = 0; i < count; i++)
        lane_free(&lanes[i]);
    free(lanes);
    pairs_free(&pairs);
    return result;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case 'c':
        options->config = text;
        break;
    case 's':
        options->source = text;
        break;
    case 't':
        options->seconds = number_or_usage(state, "seconds", text, 0.1, 86400);
        break;
    case 'w':
        options->warmup = number_or_usage(state, "warmup", text, 0, 3600);
        break;
    case 'j':
        options->json = text;
        break;
    case 'n':
        options->name = text;
        break;
    case 'f':
        options->kind = feed_kind_of(text);
        if (options->kind == FEED_KIND_COUNT)
            argp_error(state, "--feed: capture, copy or keys");
        break;
    case 'p':
        if (!measure_watch(&options->measure, text))
            argp_error(state, "--watch: postgres=PID");
        break;
    case ARGP_KEY_END:
        if (!options->config || !options->source || options->seconds <= 0)
            argp_error(state, "-c, --source and --seconds are needed");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const struct argp_option rows[] = {
        {"config", 'c', "FILE", 0, "the gateway's configuration", 0},
        {"source", 's', "S", 0, "whose events they are", 0},
        {"seconds", 't', "T", 0, "how long to measure", 0},
        {"warmup", 'w', "T", 0, "how long to run before (default 1)", 0},
        {"json", 'j', "F", 0, "write the result to F (-: stdout)", 0},
        {"name", 'n', "NAME", 0, "name of the result", 0},
        {"feed", 'f', "HOW", 0,
         "capture: capture_v1() (default); copy: COPY into the events alone; keys: INSERT into the "
         "ledger alone",
         0},
        {"watch", 'p', "postgres=PID", 0, "measure the postmaster's CPU time too", 0},
        {0},
    };
    static const struct argp argp = {
        .options = rows, .parser = parse_option, .doc = "PostgreSQL fed without a gateway."};
    struct options options = {.warmup = 1, .name = "pg_direct"};
    struct config *config = NULL;
    struct config_mistakes mistakes = {0};
    int result = EXIT_USAGE;
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    signal(SIGPIPE, SIG_IGN);
    if (config_load(options.config, CONFIG_URL, &config, &mistakes) == OH_OK)
        result = prepare(&options, config);
    else
        config_mistakes_print(options.config, &mistakes);
    config_mistakes_free(&mistakes);
    config_free(config);
    return result;
}
