/* SPDX-License-Identifier: Apache-2.0 */
/* Every option of the configuration, in one table: the loader is driven by it, and so are the
 * release of memory and docs/configuration.md (a test compares them). A new option is a member of a
 * struct and a row here.
 *
 * Rules between options stand in config.c, what a source means in sources.c. */
#include "config/loader.h"

#include <stdlib.h>
#include <string.h>

#define KIB       INT64_C(1024)
#define MIB       (1024 * KIB)
#define TIB       (1024 * 1024 * MIB)
#define SECOND_MS INT64_C(1000)
#define MINUTE_MS (60 * SECOND_MS)
#define HOUR_MS   (60 * MINUTE_MS)
#define HOUR_S    INT64_C(3600)
#define DAY_S     (24 * HOUR_S)

/* Part, place, struct; then in every row: name, member, type, default, least, most (of a text:
 * bytes), choices, words. */
#define P(part, place, of, name, member, type, ...)                                \
    {                                                                              \
        name, part, place, OPTION_##type, offsetof(struct of, member), __VA_ARGS__ \
    }
#define C(...) P(0, IN_CONFIG, config, __VA_ARGS__)
#define S(...) P(0, IN_SOURCE, source_form, __VA_ARGS__)
#define L(...) P(CONFIG_SECRETS, IN_SOURCE, source_form, __VA_ARGS__)

const char option_required[] = "required";

const struct option config_options[] = {
    C("listen.https", listen.https, ADDRESS, NULL, 0, 0, NULL,
      "Where providers connect, with TLS. Port 0 takes any free one."),
    C("listen.http", listen.http, ADDRESS, NULL, 0, 0, NULL,
      "The same without TLS, for use behind a proxy that is strict about HTTP."),
    C("listen.tls.certificate", listen.certificate, PATH, NULL, 0, 0, NULL,
      "Certificate chain, PEM. Required with `listen.https`."),
    C("listen.tls.key", listen.key, PATH, NULL, 0, 0, NULL,
      "Its private key, PEM. Required with `listen.https`."),
    C("listen.public_url", listen.public_url, URL, NULL, 0, 2048, NULL,
      "What stands before `/in/SOURCE` in the URL that providers were given. Required by schemes "
      "that sign the URL."),
    C("listen.trusted_proxies", listen.trusted_proxies, NETWORKS, NULL, 0, 0, NULL,
      "Proxies whose `X-Forwarded-For` is believed. Required when `listen.http` meets `allow` or "
      "`connections_per_ip`."),
    C("limits.body_bytes", limits.body_bytes, BYTES, "1MiB", KIB, 16 * MIB - 1, NULL,
      "Largest request body; beyond it: 413."),
    C("limits.connections", limits.connections, INTEGER, "4096", 1, 1000000, NULL,
      "Most connections at once."),
    C("limits.connections_per_ip", limits.connections_per_ip, INTEGER, "0", 0, 1000000, NULL,
      "Most connections of one address. 0 = off."),
    C("limits.request_timeout", limits.request_timeout_ms, DURATION_MS, "75s", SECOND_MS, HOUR_MS,
      NULL,
      "From the last answer to the last byte of the next request; then the connection is closed. "
      "Keep it above the time that senders reuse a connection."),
    C("limits.memory", limits.memory_bytes, BYTES, "512MiB", 0, TIB, NULL,
      "Memory that connections and deliveries may take together; beyond it the connections that "
      "hold most are closed, never one that waits for its commit. 0 = off."),
    C("admin.listen", admin.listen, ADDRESS, NULL, 0, 0, NULL,
      "Where health and metrics are served, without TLS. Not set = nowhere."),
    P(CONFIG_TOKEN, IN_CONFIG, config, "admin.token", admin.token, SECRET, NULL, 0, 4096, NULL,
      "Bearer token of `/v1/…`. Not set = `/v1` is off."),
    P(CONFIG_URL, IN_CONFIG, config, "database.url", database.url, DATABASE, option_required, 0,
      8192, NULL, "The gateway's login, a libpq URI; several hosts are allowed."),
    P(CONFIG_OWNER, IN_CONFIG, config, "database.owner_url", database.owner_url, DATABASE, NULL, 0,
      8192, NULL, "The schema owner's login, for `migrate`. The gateway does not use it."),
    C("database.schema", database.schema, STRING, "public", 0, 63, NULL, "Schema of the tables."),
    C("database.lanes", database.lanes, LANES, "auto", 1, 256, NULL,
      "Connections that write; while batches are small the first alone. `auto` = one per core."),
    C("database.connect_timeout", database.connect_timeout_ms, DURATION_MS, "5s", SECOND_MS,
      5 * MINUTE_MS, NULL, "How long a connection may take to come about."),
    C("database.statement_timeout", database.statement_timeout_ms, DURATION_MS, "10s", 100,
      10 * MINUTE_MS, NULL,
      "How long a statement may take. A lane uses the lesser of this and what is left of the "
      "oldest deadline."),
    C("database.lock_timeout", database.lock_timeout_ms, DURATION_MS, "1s", 10, 10 * MINUTE_MS,
      NULL, "How long a statement may wait for a lock."),
    C("database.idle_in_transaction_session_timeout",
      database.idle_in_transaction_session_timeout_ms, DURATION_MS, "30s", SECOND_MS, HOUR_MS, NULL,
      "When the server ends a session that forgot its transaction."),
    C("database.slow_statement", database.slow_statement_ms, DURATION_MS, "1s", 1, 10 * MINUTE_MS,
      NULL,
      "A statement that takes longer is counted, and logged by its name, never with a parameter."),
    C("database.retries", database.retries, INTEGER, "3", 0, 20, NULL,
      "How often a batch is tried again after a deadlock or a lost race."),
    C("database.unsafe_server", database.unsafe_server, CHOICE, "refuse", 0, 0, "refuse, warn",
      "What to do with a server that may lose what it has committed (fsync, full_page_writes or "
      "synchronous_commit off): `refuse` it, or `warn` and use it."),
    C("batch.events", batch.events, INTEGER, "1000", 1, 10000, NULL,
      "Most events in one transaction."),
    C("batch.bytes", batch.bytes, BYTES, "8MiB", 64 * KIB, 256 * MIB, NULL,
      "Most payload in one transaction."),
    C("queue.events", queue.events, INTEGER, "50000", 1, 10000000, NULL,
      "Most events that wait; beyond it: 503."),
    C("queue.bytes", queue.bytes, BYTES, "256MiB", MIB, TIB, NULL,
      "Most payload that waits; beyond it: 503."),
    C("queue.age", queue.age_ms, DURATION_MS, "150ms", 1, MINUTE_MS, NULL,
      "How long the oldest event may have waited before new ones are refused."),
    C("queue.share", queue.share_percent, PERCENT, "50%", 1, 100, NULL,
      "The most of the queue that one source may hold."),
    C("ack_deadline", ack_deadline_ms, DURATION_MS, "3s", 100, MINUTE_MS, NULL,
      "When a delivery that is still undecided is answered 503. Effective: the lesser of this and "
      "0.8 of the provider's own time budget."),
    C("outage", outage, CHOICE, "refuse", 0, 0, "refuse, spool",
      "What happens while PostgreSQL is away: `refuse` = 503, the provider keeps the event; "
      "`spool` "
      "= 202, it is kept on this node's disk and captured later."),
    C("spool.directory", spool.directory, PATH, "/var/lib/oncehook/spool", 0, 0, NULL,
      "Where the spool lives: a directory of its own on a local disk, one gateway each."),
    C("spool.bytes", spool.bytes, BYTES, "10GiB", MIB, 1024 * TIB, NULL,
      "Its largest size; beyond it: 503."),
    C("spool.age", spool.age_s, DURATION_S, "30d", HOUR_S, 3650 * DAY_S, NULL,
      "An event that is older when it is drained goes to quarantine: the ledger may have forgotten "
      "its id."),
    C("retention.events", retention.events_s, DURATION_S, "90d", DAY_S, 3650 * DAY_S, NULL,
      "How long events are kept."),
    C("retention.ledger", retention.ledger_s, DURATION_S, "180d", DAY_S, 3650 * DAY_S, NULL,
      "How long an event's id is remembered. At least `retention.events`, and as long as a "
      "source's signatures and retries live."),
    C("retention.workflows.completed", retention.workflows_completed_s, DURATION_S, "30d", DAY_S,
      365 * DAY_S, NULL, "How long completed workflows are kept."),
    C("retention.workflows.failed", retention.workflows_failed_s, DURATION_S, "90d", DAY_S,
      365 * DAY_S, NULL, "How long failed workflows are kept."),
    C("retention.by", retention.by, CHOICE, "gateway", 0, 0, "gateway, command",
      "Who lets go of what is old: `gateway` = it does, once a day; `command` = only `oncehook "
      "retention`, for instance with `--archive`."),
    C("certificates.directory", certificates.directory, PATH, NULL, 0, 0, NULL,
      "Certificates of providers (Amazon SNS, PayPal) that are there from the start: `HOST/PATH` "
      "of "
      "their URLs. Others are fetched when a delivery names them."),
    C("certificates.ca_file", certificates.ca_file, PATH, NULL, 0, 0, NULL,
      "The roots that providers' servers and certificates are checked against, PEM; default: the "
      "system's."),
    C("certificates.proxy", certificates.proxy, URL, NULL, 0, 2048, NULL,
      "The HTTP proxy that certificates are fetched through; the proxies of the environment are "
      "not used."),
    C("watch.database_bytes", watch.database_bytes, BYTES, "10GiB", MIB, 1024 * TIB, NULL,
      "Beyond this size of the database `oncehook doctor` calls for a person."),
    C("watch.unseen_sources", watch.unseen_sources, CHOICE, "tell", 0, 0, "tell, ignore",
      "Whether `oncehook doctor` tells of configured sources that no event has come from. `ignore` "
      "where most are there to be tried, as in what `oncehook dev` makes."),
    C("providers", sources, RECIPES, NULL, 0, 0, NULL,
      "Further recipes, each in the form of the catalog's own files. One that is known already is "
      "replaced."),
    C("sources", sources, SOURCES, NULL, 0, 0, NULL, "The doors: each is `POST /in/NAME`."),
    S("sources[].name", source.name, NAME, option_required, 0, 0, NULL,
      "Its name, unique: `[a-z0-9][a-z0-9._-]{0,62}`."),
    S("sources[].provider", source.provider, STRING, option_required, 0, 64, NULL,
      "A name that `oncehook providers` lists, or `hmac`."),
    S("sources[].scheme", scheme, STRING, NULL, 0, 64, NULL,
      "Which of the provider's schemes. Required where it has several and none is called as the "
      "provider is."),
    L("sources[].secrets", source.secrets, SECRETS, option_required, 0, 0, NULL,
      "Secrets or public keys, as the provider shows them, up to 64, all live at once. Each is a "
      "text or a block, see [secrets](#secrets). Not required where a handshake brings one."),
    S("sources[].map.enrollment_id", source.map_enrollment, STRING, NULL, 0, 1024, NULL,
      "JSON pointer to the enrollment's id in one event, or `header:NAME`. Not set = the recipe's "
      "own."),
    S("sources[].map.instance_id", source.map_instance, STRING, NULL, 0, 1024, NULL,
      "The same for the instance's id."),
    S("sources[].map.reference", source.map_reference, POINTERS, NULL, 0, 1024, NULL,
      "The same for the provider's own id of what it tells about, where it echoes no enrollment's: "
      "rows of `enrollment_references` say whose it is. Several are joined by `:`. See "
      "[references](enrollments.md#references)."),
    L("sources[].verify_token", source.verify_token, STRING, NULL, 0, 1024, NULL,
      "The token that the provider's handshake must bring (Meta)."),
    L("sources[].public_key", source.public_key, STRING, NULL, 0, 1024, NULL,
      "The public key that the answer to a handshake names (Braintree)."),
    L("sources[].handshake.arm_until", source.arm_until_ms, MOMENT, NULL, 0, 0, NULL,
      "Until when a handshake may bring a secret (Asana, Notion). Not set = it is refused."),
    S("sources[].dedup_scope", dedup_scope, NAME, NULL, 0, 0, NULL,
      "Who an id is unique for: `source`, `provider`, or a name that the doors to one account "
      "share. Not set = as the recipe says."),
    S("sources[].rate_limit.per_second", source.rate_per_second, INTEGER, NULL, 1, 1000000, NULL,
      "Verified deliveries a second; beyond it: 429."),
    S("sources[].rate_limit.burst", source.rate_burst, INTEGER, NULL, 1, 10000000, NULL,
      "Deliveries above the rate at once. Not set = one second's worth."),
    S("sources[].allow", source.allow, NETWORKS, NULL, 0, 0, NULL,
      "Addresses it may be called from. Not set = all."),
    S("sources[].tolerance", source.tolerance_s, DURATION_S, NULL, 1, 365 * DAY_S, NULL,
      "How old a signed time may be. Not set = the provider's retry horizon."),
    S("sources[].header", header, STRING, NULL, 0, 128, NULL,
      "`hmac` only, required: the header with the signature."),
    S("sources[].algorithm", algorithm, WORD, "sha256", 0, 0, "sha256, sha1, sha512",
      "`hmac` only: the hash."),
    S("sources[].encoding", encoding, WORD, "hex", 0, 0, "hex, base64",
      "`hmac` only: how the signature is written."),
    S("sources[].prefix", prefix, STRING, NULL, 0, 64, NULL,
      "`hmac` only: text before the signature, such as `sha256=`."),
    S("sources[].event_id", event_id, STRING, NULL, 0, 1024, NULL,
      "`hmac` only: JSON pointer or `header:NAME` of the event's id."),
    S("sources[].event_type", event_type, STRING, NULL, 0, 1024, NULL,
      "`hmac` only: the same of its type."),
    S("sources[].occurred_at", occurred_at, STRING, NULL, 0, 1024, NULL,
      "`hmac` only: the same of its time."),
    S("sources[].events", events, STRING, NULL, 0, 1024, NULL,
      "`hmac` only: JSON pointer to the array of events. Not set = a body that is an array is "
      "split, anything else is one event."),
};

enum { OPTION_COUNT = sizeof(config_options) / sizeof(config_options[0]) };
_Static_assert((int)OPTION_COUNT <= (int)CONFIG_OPTIONS_MAX, "lines[] must hold every option");
const size_t config_option_count = OPTION_COUNT;

/* ---- all rows at once ------------------------------------------------------------------------ */

int option_line(const int lines[], const char *name, int otherwise)
{
    for (int i = 0; i < OPTION_COUNT; i++)
        if (strcmp(config_options[i].name, name) == 0)
            return lines[i] ? lines[i] : otherwise;
    abort(); /* a name that is not in the table: a mistake of ours, found by any test */
}

void config_options_print(FILE *to)
{
    fprintf(to, "| option | type | default | meaning |\n|---|---|---|---|\n");
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *option = &config_options[i];
        const char *quote = option->by_default && option->by_default != option_required ? "`" : "";
        const char *by_default = option->by_default ? option->by_default : "";
        fprintf(to, "| `%s` | %s%s", option->name, option_type_word(option),
                option->type < OPTION_CHOICE ? ", " : "");
        option_print_bounds(to, option);
        fprintf(to, " | %s%s%s | %s |\n", quote, by_default, quote, option->words);
    }
}

void options_set_defaults(struct loader *loader, enum option_place place, void *base)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *option = &config_options[i];
        const char *text = option->place == place ? option->by_default : NULL;
        if (text && text != option_required &&
            option_parse(loader, option, text, (char *)base + option->offset))
            abort(); /* a default that its own row refuses; every test would find it */
    }
}

void options_free(enum option_place place, void *base)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *option = &config_options[i];
        void *member = (char *)base + option->offset;
        if (option->place != place)
            continue;
        if (option->type == OPTION_ADDRESS)
            free(((struct config_address *)member)->host);
        else if (option->type == OPTION_SECRET)
            secret_free(member);
        else if (option->type == OPTION_NETWORKS)
            free(((struct config_networks *)member)->items);
        else if (option->type > OPTION_SECRET && option->type < OPTION_NETWORKS)
            text_free_wiped(*(char **)member);
    }
}
