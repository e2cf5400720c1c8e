/* SPDX-License-Identifier: Apache-2.0 */
/* Every option of the configuration, in one table: the loader is driven by it, and so are the
 * release of memory and docs/configuration.md (a test compares them). A new option is a member of a
 * struct and a row here.
 *
 * Rules between options stand in config.c, what a source means in sources.c. */
#include "config/options.h"

#include <stdlib.h>
#include <string.h>

/* ---- the table ----------------------------------------------------------------------------- */

#define CONFIG(member) .place = IN_CONFIG, .offset = offsetof(struct config, member)
#define SOURCE(member) .place = IN_SOURCE, .offset = offsetof(struct source_form, member)

static const char *const unsafe_servers[] = {"refuse", "warn", NULL};
static const char *const outages[] = {"refuse", "spool", NULL};
static const char *const algorithms[] = {"sha256", "sha1", "sha512", NULL};
static const char *const encodings[] = {"hex", "base64", NULL};

const struct option config_options[] = {
    {"listen.https", CONFIG(listen.https), .type = OPTION_ADDRESS,
     .words = "Where providers connect, with TLS. Port 0 takes any free one."},
    {"listen.http", CONFIG(listen.http), .type = OPTION_ADDRESS,
     .words = "The same without TLS, for use behind a proxy that is strict about HTTP."},
    {"listen.tls.certificate", CONFIG(listen.certificate), .type = OPTION_PATH,
     .words = "Certificate chain, PEM. Required with `listen.https`."},
    {"listen.tls.key", CONFIG(listen.key), .type = OPTION_PATH,
     .words = "Its private key, PEM. Required with `listen.https`."},
    {"listen.public_url", CONFIG(listen.public_url), .type = OPTION_URL, .max = 2048,
     .words = "What stands before `/in/SOURCE` in the URL that providers were given. Required by "
              "schemes that sign the URL."},
    {"listen.trusted_proxies", CONFIG(listen.trusted_proxies), .type = OPTION_NETWORKS,
     .words = "Proxies whose `X-Forwarded-For` is believed. Required when `listen.http` meets "
              "`allow` or `connections_per_ip`."},

    {"limits.body_bytes", CONFIG(limits.body_bytes), .type = OPTION_BYTES, .by_default = "1MiB",
     .min = KIB, .max = 16 * MIB - 1, .words = "Largest request body; beyond it: 413."},
    {"limits.connections", CONFIG(limits.connections), .type = OPTION_INTEGER, .by_default = "4096",
     .min = 1, .max = 1000000, .words = "Most connections at once."},
    {"limits.connections_per_ip", CONFIG(limits.connections_per_ip), .type = OPTION_INTEGER,
     .by_default = "0", .min = 0, .max = 1000000,
     .words = "Most connections of one address. 0 = off."},
    {"limits.request_timeout", CONFIG(limits.request_timeout_ms), .type = OPTION_DURATION_MS,
     .by_default = "75s", .min = SECOND_MS, .max = HOUR_MS,
     .words = "From the last answer to the last byte of the next request; then the connection is "
              "closed. Keep it above the time that senders reuse a connection."},
    {"limits.memory", CONFIG(limits.memory_bytes), .type = OPTION_BYTES, .by_default = "512MiB",
     .min = 0, .max = TIB,
     .words = "Memory that requests may take together; beyond it: 503. 0 = off."},

    {"admin.listen", CONFIG(admin.listen), .type = OPTION_ADDRESS,
     .words = "Where health and metrics are served, without TLS. Not set = nowhere."},
    {"admin.token", CONFIG(admin.token), .type = OPTION_SECRET, .max = 4096,
     .words = "Bearer token of `/v1/…`. Not set = `/v1` is off."},

    {"database.url", CONFIG(database.url), .type = OPTION_DATABASE, .required = true, .max = 8192,
     .words = "The gateway's login, a libpq URI; several hosts are allowed."},
    {"database.owner_url", CONFIG(database.owner_url), .type = OPTION_DATABASE, .max = 8192,
     .words = "The schema owner's login, for `migrate`. The gateway does not use it."},
    {"database.schema", CONFIG(database.schema), .type = OPTION_STRING, .by_default = "public",
     .max = 63, .words = "Schema of the tables."},
    {"database.lanes", CONFIG(database.lanes), .type = OPTION_LANES, .by_default = "auto", .min = 1,
     .max = 256,
     .words = "Connections that write; an instance belongs to one. `auto` = one per core."},
    {"database.connect_timeout", CONFIG(database.connect_timeout_ms), .type = OPTION_DURATION_MS,
     .by_default = "5s", .min = SECOND_MS, .max = 5 * MINUTE_MS,
     .words = "How long a connection may take to come about."},
    {"database.statement_timeout", CONFIG(database.statement_timeout_ms),
     .type = OPTION_DURATION_MS, .by_default = "10s", .min = 100, .max = 10 * MINUTE_MS,
     .words = "How long a statement may take. A lane uses the lesser of this and what is left of "
              "the oldest deadline."},
    {"database.lock_timeout", CONFIG(database.lock_timeout_ms), .type = OPTION_DURATION_MS,
     .by_default = "1s", .min = 10, .max = 10 * MINUTE_MS,
     .words = "How long a statement may wait for a lock."},
    {"database.idle_in_transaction_session_timeout",
     CONFIG(database.idle_in_transaction_session_timeout_ms), .type = OPTION_DURATION_MS,
     .by_default = "30s", .min = SECOND_MS, .max = HOUR_MS,
     .words = "When the server ends a session that forgot its transaction."},
    {"database.retries", CONFIG(database.retries), .type = OPTION_INTEGER, .by_default = "3",
     .min = 0, .max = 20,
     .words = "How often a batch is tried again after a deadlock or a lost race."},
    {"database.unsafe_server", CONFIG(database.unsafe_server), .type = OPTION_CHOICE,
     .by_default = "refuse", .choices = unsafe_servers,
     .words = "What to do with a server that may lose what it has committed (fsync, "
              "full_page_writes or synchronous_commit off): `refuse` it, or `warn` and use it."},

    {"batch.events", CONFIG(batch.events), .type = OPTION_INTEGER, .by_default = "1000", .min = 1,
     .max = 10000, .words = "Most events in one transaction."},
    {"batch.bytes", CONFIG(batch.bytes), .type = OPTION_BYTES, .by_default = "8MiB",
     .min = 64 * KIB, .max = 256 * MIB, .words = "Most payload in one transaction."},

    {"queue.events", CONFIG(queue.events), .type = OPTION_INTEGER, .by_default = "50000", .min = 1,
     .max = 10000000, .words = "Most events that wait; beyond it: 503."},
    {"queue.bytes", CONFIG(queue.bytes), .type = OPTION_BYTES, .by_default = "256MiB", .min = MIB,
     .max = TIB, .words = "Most payload that waits; beyond it: 503."},
    {"queue.age", CONFIG(queue.age_ms), .type = OPTION_DURATION_MS, .by_default = "150ms", .min = 1,
     .max = MINUTE_MS,
     .words = "How long the oldest event may have waited before new ones are refused."},
    {"queue.share", CONFIG(queue.share_percent), .type = OPTION_PERCENT, .by_default = "50%",
     .min = 1, .max = 100, .words = "The most of the queue that one source may hold."},

    {"ack_deadline", CONFIG(ack_deadline_ms), .type = OPTION_DURATION_MS, .by_default = "3s",
     .min = 100, .max = MINUTE_MS,
     .words = "When a delivery that is still undecided is answered 503. Effective: the lesser of "
              "this and 0.8 of the provider's own time budget."},
    {"outage", CONFIG(outage), .type = OPTION_CHOICE, .by_default = "refuse", .choices = outages,
     .words = "What happens while PostgreSQL is away: `refuse` = 503. (`spool` is not in this "
              "release.)"},
    {"spool.directory", CONFIG(spool.directory), .type = OPTION_PATH,
     .by_default = "/var/lib/oncehook/spool", .words = "Where the spool lives."},
    {"spool.bytes", CONFIG(spool.bytes), .type = OPTION_BYTES, .by_default = "10GiB", .min = MIB,
     .max = 1024 * TIB, .words = "Its largest size."},
    {"spool.age", CONFIG(spool.age_s), .type = OPTION_DURATION_S, .by_default = "30d",
     .min = HOUR_S, .max = 3650 * DAY_S, .words = "The oldest event it may hold."},

    {"retention.events", CONFIG(retention.events_s), .type = OPTION_DURATION_S, .by_default = "90d",
     .min = DAY_S, .max = 3650 * DAY_S, .words = "How long events are kept."},
    {"retention.ledger", CONFIG(retention.ledger_s), .type = OPTION_DURATION_S,
     .by_default = "180d", .min = DAY_S, .max = 3650 * DAY_S,
     .words = "How long an event's id is remembered. At least `retention.events`, and as long as "
              "a source's signatures and retries live."},
    {"retention.workflows.completed", CONFIG(retention.workflows_completed_s),
     .type = OPTION_DURATION_S, .by_default = "30d", .min = DAY_S, .max = 365 * DAY_S,
     .words = "How long completed workflows are kept."},
    {"retention.workflows.failed", CONFIG(retention.workflows_failed_s), .type = OPTION_DURATION_S,
     .by_default = "90d", .min = DAY_S, .max = 365 * DAY_S,
     .words = "How long failed workflows are kept."},

    {"providers", .place = IN_CONFIG, .type = OPTION_RECIPES,
     .words = "Further recipes, each in the form of the catalog's own files. One that is known "
              "already is replaced."},
    {"sources", .place = IN_CONFIG, .type = OPTION_SOURCES,
     .words = "The doors: each is `POST /in/NAME`."},

    {"sources[].name", SOURCE(name), .type = OPTION_NAME, .required = true,
     .words = "Its name, unique: `[a-z0-9][a-z0-9._-]{0,62}`."},
    {"sources[].provider", SOURCE(provider), .type = OPTION_STRING, .required = true, .max = 64,
     .words = "A name that `oncehook providers` lists, or `hmac`."},
    {"sources[].scheme", SOURCE(scheme), .type = OPTION_STRING, .max = 64,
     .words = "Which of the provider's schemes. Required where it has several."},
    {"sources[].secrets", SOURCE(secrets), .type = OPTION_SECRETS, .required = true,
     .words = "Secrets or public keys, as the provider shows them, up to 64, all live at once. "
              "Each is a text or `{file: PATH}`."},
    {"sources[].map.enrollment_id", SOURCE(map_enrollment), .type = OPTION_STRING, .max = 1024,
     .words = "JSON pointer to the enrollment's id in one event, or `header:NAME`. Not set = the "
              "recipe's own."},
    {"sources[].map.instance_id", SOURCE(map_instance), .type = OPTION_STRING, .max = 1024,
     .words = "The same for the instance's id."},
    {"sources[].dedup_scope", SOURCE(dedup_scope), .type = OPTION_NAME,
     .words = "Who an id is unique for: `source`, `provider`, or a name that the doors to one "
              "account share. Not set = as the recipe says."},
    {"sources[].rate_limit.per_second", SOURCE(rate_per_second), .type = OPTION_INTEGER, .min = 1,
     .max = 1000000, .words = "Verified deliveries a second; beyond it: 429."},
    {"sources[].rate_limit.burst", SOURCE(rate_burst), .type = OPTION_INTEGER, .min = 1,
     .max = 10000000, .words = "Deliveries above the rate at once. Not set = one second's worth."},
    {"sources[].allow", SOURCE(allow), .type = OPTION_NETWORKS,
     .words = "Addresses it may be called from. Not set = all."},
    {"sources[].tolerance", SOURCE(tolerance_s), .type = OPTION_DURATION_S, .min = 1,
     .max = 365 * DAY_S,
     .words = "How old a signed time may be. Not set = the provider's retry horizon."},
    {"sources[].header", SOURCE(header), .type = OPTION_STRING, .max = 128,
     .words = "`hmac` only, required: the header with the signature."},
    {"sources[].algorithm", SOURCE(algorithm), .type = OPTION_CHOICE, .choices = algorithms,
     .by_default = "sha256", .words = "`hmac` only: the hash."},
    {"sources[].encoding", SOURCE(encoding), .type = OPTION_CHOICE, .choices = encodings,
     .by_default = "hex", .words = "`hmac` only: how the signature is written."},
    {"sources[].prefix", SOURCE(prefix), .type = OPTION_STRING, .max = 64,
     .words = "`hmac` only: text before the signature, such as `sha256=`."},
    {"sources[].event_id", SOURCE(event_id), .type = OPTION_STRING, .max = 1024,
     .words = "`hmac` only: JSON pointer or `header:NAME` of the event's id."},
    {"sources[].event_type", SOURCE(event_type), .type = OPTION_STRING, .max = 1024,
     .words = "`hmac` only: the same of its type."},
    {"sources[].occurred_at", SOURCE(occurred_at), .type = OPTION_STRING, .max = 1024,
     .words = "`hmac` only: the same of its time."},
    {"sources[].events", SOURCE(events), .type = OPTION_STRING, .max = 1024,
     .words = "`hmac` only: JSON pointer to the array of events. Not set = a body that is an array "
              "is split, anything else is one event."},
};

enum { OPTION_COUNT = sizeof(config_options) / sizeof(config_options[0]) };
_Static_assert((int)OPTION_COUNT <= (int)CONFIG_OPTIONS_MAX, "lines[] must hold every option");
const size_t config_option_count = OPTION_COUNT;

int option_index(const char *name)
{
    for (int i = 0; i < OPTION_COUNT; i++)
        if (strcmp(config_options[i].name, name) == 0)
            return i;
    abort(); /* a name that is not in the table: a mistake of ours, found by any test */
}

const char *const *option_choices(const char *name)
{
    return config_options[option_index(name)].choices;
}

/* ---- all rows at once ---- */

void config_options_print(FILE *to)
{
    fprintf(to, "| option | type | default | meaning |\n|---|---|---|---|\n");
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *option = &config_options[i];
        fprintf(to, "| `%s` | ", option->name);
        option_print_type(to, option);
        if (option->by_default)
            fprintf(to, " | `%s`", option->by_default);
        else
            fprintf(to, " | %s", option->required ? "required" : "");
        fprintf(to, " | %s |\n", option->words);
    }
}

void options_set_defaults(struct loader *loader, enum option_place place, void *base)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *option = &config_options[i];
        if (option->place != place || !option->by_default)
            continue;
        if (option_parse(loader, option, option->by_default, (char *)base + option->offset))
            abort(); /* a default that its own row refuses; every test would find it */
    }
}

void options_free(enum option_place place, void *base)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (config_options[i].place != place)
            continue;
        void *member = (char *)base + config_options[i].offset;
        switch (config_options[i].type) {
        case OPTION_ADDRESS:
            free(((struct config_address *)member)->host);
            break;
        case OPTION_PATH:
        case OPTION_STRING:
        case OPTION_NAME:
        case OPTION_URL:
        case OPTION_DATABASE:
            text_free_wiped(*(char **)member);
            break;
        case OPTION_SECRET:
            secret_free(member);
            break;
        case OPTION_NETWORKS:
            free(((struct config_networks *)member)->items);
            break;
        default: /* numbers; lists with an owner of their own */
            break;
        }
    }
}
