/* SPDX-License-Identifier: Apache-2.0 */
/* Wiring. Start: secrets, metrics, spool, lanes, http, drain, upkeep, admin. Stop, so that nothing
 * accepted is lost: the drain feeds no more, http takes no more and waits for its deliveries, then
 * the lanes end, then the spool with what they left to it, then the threads that answered. */
#include "app/app.h"

#include "admin/admin.h"
#include "base/clock.h"
#include "http/http.h"
#include "lane/drain.h"
#include "log/log.h"
#include "store/store.h"
#include "upkeep/certifier.h"
#include "upkeep/learner.h"
#include "upkeep/upkeep.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    LEAVE_S = 9,     /* after SIGTERM, whatever happens */
    DRAIN_MS = 7000, /* for what is in flight; the rest is for the threads to end */
    LANES_MS = 1000,
    READY_POLL_MS = 50,
    PROGRESS_MS = 200,
};

enum { MISTAKES_SAID = 20 }; /* of a configuration that is refused */

enum { SHARD_UPKEEP, SHARD_SPOOL, OWN_SHARDS };

struct app {
    const struct config *config;
    struct vault *vault;
    _Atomic int64_t loaded_s; /* when the secrets in use were */
    _Atomic uint64_t reload_failures;
    struct metrics *metrics;
    struct spool *spool; /* NULL: outage: refuse */
    struct lanes *lanes;
    struct drain *drain; /* NULL without a spool */
    struct http *http;
    struct admin *admin;
    struct admin_hooks admin_hooks; /* the admin room keeps a pointer to them */
    struct upkeep *upkeep;
    struct certifier *certifier; /* NULL: no source's requests name a certificate */
    struct learner *learner;     /* NULL: no source's handshake brings a secret */
};

/* ---- what the rooms know of each other ------------------------------------------------------- */

/* A batch holds deliveries of both: each goes back to where it came from. */
static void on_decided(void *context, struct delivery *decided)
{
    struct app *app = context;
    struct delivery *of_http = NULL, *of_drain = NULL;
    while (decided) {
        struct delivery *next = decided->next_decided, **chain = &of_http;
        if (decided->chunk)
            chain = &of_drain;
        decided->next_decided = *chain;
        *chain = decided;
        decided = next;
    }
    if (of_http)
        http_on_decided(app->http, of_http);
    if (of_drain)
        drain_on_decided(app->drain, of_drain);
}

static enum admission_verdict submit(void *context, struct delivery *delivery)
{
    struct app *app = context;
    return lanes_submit(app->lanes, delivery);
}

static enum admission_verdict look(void *context, const struct config_source *source, size_t events)
{
    struct app *app = context;
    return lanes_look(app->lanes, source, events, clock_mono_us());
}

static bool keep(void *context, const struct config_source *source, struct oh_slice secret,
                 _Atomic int *lesson)
{
    struct app *app = context;
    return learner_keep(app->learner, source, secret, lesson);
}

static bool want_certificate(void *context, const struct config_source *source, struct oh_slice url)
{
    struct app *app = context;
    return certifier_want(app->certifier, source, url);
}

static void visit(void *context, const struct config_source *source, struct oh_slice url)
{
    struct app *app = context;
    certifier_visit(app->certifier, source, url);
}

static void look_for_secrets(void *context)
{
    struct app *app = context;
    learner_look(app->learner);
}

static bool is_ready(void *context, const char **part)
{
    struct app *app = context;
    struct lanes_state state;
    if (app->spool && spool_accepts(app->spool))
        return true;
    lanes_get_state(app->lanes, &state);
    *part = app->spool ? "spool and database" : state.part ? state.part : "database";
    return state.connected == state.total && state.stuck == 0;
}

static void get_state(void *context, struct admin_state *state)
{
    struct app *app = context;
    memset(state, 0, sizeof(*state));
    lanes_get_state(app->lanes, &state->lanes);
    state->ready = is_ready(app, &state->not_ready);
    if (state->ready)
        state->not_ready = NULL;
    state->gauges.queue_events = (double)http_queued_events(app->http);
    if (app->spool)
        spool_get_state(app->spool, &state->spool);
    state->gauges.spool_events = (double)state->spool.waiting;
    state->gauges.spool_lost = (double)state->spool.lost;
    state->gauges.spool_bytes = (double)state->spool.bytes;
    state->gauges.oldest_waiting_seconds = (double)state->lanes.oldest_waiting_us / 1e6;
    state->gauges.database_up =
        state->lanes.connected == state->lanes.total && state->lanes.stuck == 0;
    state->gauges.lanes = state->lanes.total;
    state->gauges.waiting_batches = state->lanes.waiting;
    state->gauges.slow_statements = (double)store_slow_statements();
    state->gauges.configuration_loaded = (double)atomic_load(&app->loaded_s);
    state->gauges.reload_failures = (double)atomic_load(&app->reload_failures);
    state->gauges.print_secrets = vault_print_matches;
    state->gauges.secrets = app->vault;
    upkeep_fill_gauges(app->upkeep, &state->gauges);
    state->gauges.connections = (double)http_connections(app->http);
    state->gauges.memory_bytes = (double)http_memory_bytes(app->http);
}

/* ---- start and stop -------------------------------------------------------------------------- */

static enum oh_status start_metrics(struct app *app, struct oh_error *err)
{
    const struct config *config = app->config;
    const char **names = calloc(config->source_count + 1, sizeof(*names));
    if (!names)
        return oh_fail(err, OH_NO_MEMORY, "no memory for metrics");
    for (size_t i = 0; i < config->source_count; i++)
        names[i] = config->sources[i].name;
    app->metrics = metrics_new(names, (uint32_t)config->source_count,
                               config->database.lanes + (uint32_t)config->threads + OWN_SHARDS);
    free(names);
    return app->metrics ? OH_OK : oh_fail(err, OH_NO_MEMORY, "no memory for metrics");
}

/* Metrics shards: lanes, http threads, these. */
static struct metrics_shard *own_shard(const struct app *app, uint32_t number)
{
    return metrics_shard_at(app->metrics,
                            app->config->database.lanes + (uint32_t)app->config->threads + number);
}

/* What brings events to PostgreSQL. */
static enum oh_status start_lanes(struct app *app, bool has_spool, struct oh_error *err)
{
    const struct config *config = app->config;
    enum oh_status status = start_metrics(app, err);
    if (status == OH_OK && has_spool)
        status = spool_open(config, own_shard(app, SHARD_SPOOL), on_decided, app, &app->spool, err);
    if (status == OH_OK)
        status =
            lanes_start(config, app->metrics, 0, app->spool, on_decided, app, &app->lanes, err);
    return status;
}

static enum oh_status start(struct app *app, struct oh_error *err)
{
    const struct config *config = app->config;
    const struct http_hooks http_hooks = {.context = app,
                                          .submit = submit,
                                          .look = look,
                                          .keep = keep,
                                          .want_certificate = want_certificate,
                                          .visit = visit,
                                          .look_for_secrets = look_for_secrets,
                                          .is_ready = is_ready};
    app->admin_hooks = (struct admin_hooks){.context = app, .get_state = get_state};
    enum oh_status status = vault_new(config, &app->vault, err);
    atomic_store(&app->loaded_s, clock_wall_us() / 1000000);
    if (status == OH_OK)
        status = learner_start(config, app->vault, &app->learner, err);
    if (status == OH_OK)
        status = certifier_start(config, app->vault, &app->certifier, err);
    if (status == OH_OK)
        status = start_lanes(app, config->outage == CONFIG_OUTAGE_SPOOL, err);
    if (status == OH_OK)
        status = http_start(config, app->vault, app->metrics, config->database.lanes, &http_hooks,
                            &app->http, err);
    if (status == OH_OK && app->spool)
        status = drain_start(config, app->lanes, app->spool, &app->drain, err);
    if (status == OH_OK)
        status = upkeep_start(config, own_shard(app, SHARD_UPKEEP), &app->upkeep, err);
    if (status == OH_OK && config->admin.listen.host)
        status = admin_start(config, app->metrics, &app->admin_hooks, &app->admin, err);
    return status;
}

/* Everything that could be answered is: what still waits for a server that stands still must not
 * hold up the end. Nothing that was answered 200 depends on it. */
static void leave_now(int signal_number)
{
    static const char line[] = "{\"level\":\"warning\",\"room\":\"app\",\"message\":\"left without "
                               "waiting for PostgreSQL any longer\"}\n";
    (void)signal_number;
    ssize_t written = write(STDERR_FILENO, line, sizeof(line) - 1);
    (void)written;
    _exit(0);
}

static void stop(struct app *app)
{
    signal(SIGALRM, leave_now);
    alarm(LEAVE_S);

    drain_stop(app->drain);
    http_drain(app->http, clock_mono_us() + DRAIN_MS * 1000LL);
    lanes_stop(app->lanes, clock_mono_us() + LANES_MS * 1000LL);
    drain_free(app->drain);
    if (app->spool)
        spool_close(app->spool);
    learner_stop(app->learner); /* its last answers go out */
    http_stop(app->http);
    learner_free(app->learner); /* requests have asked these two until now */
    certifier_stop(app->certifier);
    if (app->admin)
        admin_stop(app->admin);
    upkeep_stop(app->upkeep);
    lanes_free(app->lanes);
    metrics_free(app->metrics);
    vault_free(app->vault);
}

/* ---- reload ---------------------------------------------------------------------------------- */

static void refuse_reload(struct app *app, const struct config_mistakes *mistakes, const char *why)
{
    atomic_fetch_add(&app->reload_failures, 1);
    for (size_t i = 0; i < mistakes->count && i < MISTAKES_SAID; i++)
        LOG_LINE(LOG_ERROR, "app", "a mistake in the configuration",
                 log_int("line", mistakes->items[i].line),
                 log_text("reason", mistakes->items[i].text));
    LOG_LINE(LOG_ERROR, "app", "configuration not reloaded: the old one stays in use",
             log_text("file", app->config->path), log_int("mistakes", (int64_t)mistakes->count),
             log_text("reason", why));
}

/* Requests go on: they pick the new secrets up, each as a whole. */
static void reload(struct app *app)
{
    struct config *fresh = NULL;
    struct config_mistakes mistakes = {NULL, 0};
    struct oh_error err = {.text = ""};
    enum oh_status status = config_load(app->config->path, CONFIG_ALL, &fresh, &mistakes);
    char *changes = status == OH_OK ? config_changes(app->config, fresh) : NULL;
    if (status == OH_OK)
        status = vault_reload(app->vault, fresh, &err);
    if (status != OH_OK) {
        refuse_reload(app, &mistakes,
                      mistakes.count ? "the file has mistakes"
                      : err.text[0]  ? err.text
                                     : "out of memory");
    } else {
        atomic_store(&app->loaded_s, clock_wall_us() / 1000000);
        learner_look(app->learner);
        LOG_LINE(LOG_INFO, "app", "secrets reloaded", log_text("file", app->config->path));
        if (changes && changes[0])
            LOG_LINE(LOG_WARNING, "app", "changes that wait for a restart",
                     log_text("options", changes));
    }
    free(changes);
    config_mistakes_free(&mistakes);
    config_free(fresh);
}

static void wait_for_signal(struct app *app, const sigset_t *signals)
{
    const struct timespec poll = {.tv_nsec = READY_POLL_MS * 1000000};
    bool was_ready = false;
    const char *part;
    for (;;) {
        int number = was_ready ? sigwaitinfo(signals, NULL) : sigtimedwait(signals, NULL, &poll);
        if (number == SIGTERM || number == SIGINT) {
            LOG_LINE(LOG_INFO, "app", "stopping", log_text("signal", strsignal(number)));
            return;
        }
        if (number == SIGHUP)
            reload(app);
        if (!was_ready && is_ready(app, &part)) {
            was_ready = true;
            puts("ready");
            fflush(stdout);
        }
    }
}

static void block_signals(sigset_t *signals)
{
    sigemptyset(signals);
    sigaddset(signals, SIGTERM);
    sigaddset(signals, SIGINT);
    sigaddset(signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, signals, NULL); /* before the first thread, so that all inherit it */
    signal(SIGPIPE, SIG_IGN);
}

enum oh_status app_run(const struct config *config, struct oh_error *err)
{
    /* Static: libh2o's loops cannot be destroyed and stay reachable from here until the process
     * ends. */
    static struct app app;
    sigset_t signals;
    block_signals(&signals);
    app.config = config;
    enum oh_status status = start(&app, err);
    if (status != OH_OK)
        return status;
    uint16_t https = http_port_of_https(app.http), http = http_port_of_http(app.http);
    uint16_t admin = app.admin ? admin_port(app.admin) : 0;
    LOG_LINE(LOG_INFO, "app", "listening", log_int("https", https), log_int("http", http),
             log_int("admin", admin), log_int("lanes", config->database.lanes),
             log_int("sources", (int64_t)config->source_count));
    printf("listening https=%u http=%u admin=%u\n", https, http, admin);
    fflush(stdout);
    wait_for_signal(&app, &signals);
    stop(&app);
    LOG_LINE(LOG_INFO, "app", "stopped", log_bool("clean", true));
    return OH_OK;
}

enum oh_status app_drain(const struct config *config, app_on_progress *on_progress, void *context,
                         uint64_t *left, struct oh_error *err)
{
    const struct timespec poll = {.tv_nsec = PROGRESS_MS * 1000000};
    struct app app = {.config = config};
    struct lanes_state lanes;
    struct spool_state spool = {.waiting = 0};
    sigset_t signals;
    block_signals(&signals);
    enum oh_status status = start_lanes(&app, true, err);
    if (status == OH_OK)
        status = drain_start(config, app.lanes, app.spool, &app.drain, err);
    if (status != OH_OK)
        return status;
    bool is_over = false;
    while (!is_over) {
        int number = sigtimedwait(&signals, NULL, &poll);
        spool_get_state(app.spool, &spool);
        lanes_get_state(app.lanes, &lanes);
        on_progress(context, spool.waiting, lanes.problem[0] ? lanes.problem : spool.problem);
        is_over = spool.waiting == 0 || number == SIGTERM || number == SIGINT;
    }
    signal(SIGALRM, leave_now);
    alarm(LEAVE_S);
    drain_stop(app.drain);
    lanes_stop(app.lanes, clock_mono_us() + LANES_MS * 1000LL);
    drain_free(app.drain);
    spool_get_state(app.spool, &spool);
    *left = spool.waiting;
    spool_close(app.spool);
    lanes_free(app.lanes);
    metrics_free(app.metrics);
    return OH_OK;
}
