/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration: YAML -> one immutable struct, or every error at once with file and line.
 *
 * The options are one table (config.c): name, type, bounds, default, where it goes, one line of
 * words. docs/configuration.md and `check` are held against it by a test. */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include "log/log.h"
#include "oncehook/event.h"

#include <netinet/in.h>
#include <stdio.h>

/* host:port as configured; port 0 = any free. */
struct config_address {
    char *host; /* numeric or name; NULL = not configured */
    uint16_t port;
};

/* An address range, IPv4 mapped into IPv6 form. */
struct config_network {
    struct in6_addr address;
    uint8_t prefix_bits; /* of 128 */
};

struct config_networks {
    struct config_network *items;
    size_t count;
};

/* Where a secret comes from. */
enum config_origin {
    CONFIG_FROM_TEXT,
    CONFIG_FROM_ENVIRONMENT,
    CONFIG_FROM_FILE,
    CONFIG_FROM_CREDENTIAL
};

/* What is said of a secret beside itself. */
struct config_terms {
    char name[64]; /* as configured, else its place in the list, from 1 */
    enum config_origin origin;
    int64_t not_before_ms, not_after_ms; /* unix time, both included; INT64_MIN, INT64_MAX = none */
};

/* One source: POST /in/NAME. Immutable; its number is its place in config.sources. */
struct config_source {
    uint32_t number;
    char *name;
    const struct oh_recipe *recipe; /* belongs to config.catalog */
    char *provider; /* what goes into the provider column, "hmac" for the own scheme */
    struct oh_keyring *keyring;
    struct secret *secrets;     /* as configured, for `send`; same order as in the ring */
    struct config_terms *terms; /* of each */
    size_t secret_count;
    struct oh_mapping *mapping;
    char *map_enrollment; /* as configured, for `send`; NULL = the recipe's default */
    char *map_instance;
    char *map_reference; /* its pointers, one a line; NULL = none */
    char *scope_id;      /* key_scope of the id rung: "source:NAME", "provider:NAME", "name:NAME" */
    char *scope_other;   /* key_scope of the lower rungs: the source or the shared name */
    int64_t tolerance_s; /* into the past, as `serve` uses it; -1 = scheme without timestamp */
    int64_t
        ack_deadline_ms; /* effective: lesser of ack_deadline and 0.8 of the provider's budget */
    uint32_t rate_per_second; /* 0 = no limit */
    uint32_t rate_burst;
    struct config_networks allow; /* count 0 = everybody */
    char *verify_token;           /* what a handshake must know; NULL = not given */
    char *public_key;             /* what a handshake's answer names; NULL = not given */
    int64_t arm_until_ms;         /* until when a handshake may bring a secret; 0 = never */
    uint64_t *written;            /* see struct config */
    bool is_asked;                /* the provider's POST may be a handshake */
    int answer_status;            /* of a committed delivery, where the provider wants its own */
    const char *answer_body;      /* the recipe's; NULL = none */
    int line;                     /* where it stands in the file */
};

/* A file that the configuration names: for config_check(). */
enum config_file_kind { CONFIG_FILE_CERTIFICATE, CONFIG_FILE_KEY, CONFIG_FILE_SECRET };

struct config_file {
    enum config_file_kind kind;
    char *path;
    int line;
};

enum config_unsafe_server { CONFIG_UNSAFE_SERVER_REFUSE, CONFIG_UNSAFE_SERVER_WARN };
enum config_unseen_sources { CONFIG_UNSEEN_SOURCES_TELL, CONFIG_UNSEEN_SOURCES_IGNORE };
enum config_outage { CONFIG_OUTAGE_REFUSE, CONFIG_OUTAGE_SPOOL };

struct config {
    char *path; /* the file */
    struct {
        struct config_address https, http;
        char *certificate, *key; /* paths, relative ones from the file's directory */
        char *public_url;        /* without a slash at its end; NULL = not given */
        struct config_networks trusted_proxies;
    } listen;
    struct {
        size_t body_bytes;
        uint32_t connections;
        uint32_t connections_per_ip; /* 0 = off */
        int64_t request_timeout_ms;
        size_t memory_bytes; /* 0 = off */
    } limits;
    struct {
        struct config_address listen; /* host NULL = no admin listener */
        struct secret token;          /* bytes.data NULL = no /v1 */
    } admin;
    struct {
        char *url;       /* gateway's login */
        char *owner_url; /* schema owner, NULL = not given */
        char *schema;
        uint32_t lanes; /* auto is already resolved: one per core */
        int64_t connect_timeout_ms, statement_timeout_ms, lock_timeout_ms,
            idle_in_transaction_session_timeout_ms, slow_statement_ms;
        uint32_t retries;
        enum config_unsafe_server unsafe_server;
    } database;
    struct {
        uint32_t events;
        size_t bytes;
    } batch;
    struct {
        uint32_t events;
        size_t bytes;
        int64_t age_ms;
        uint32_t share_percent;
    } queue;
    int64_t ack_deadline_ms;
    enum config_outage outage;
    struct {
        char *directory;
        size_t bytes;
        int64_t age_s;
    } spool;
    struct {
        int64_t events_s, ledger_s, workflows_completed_s, workflows_failed_s;
        enum { CONFIG_RETENTION_BY_GATEWAY, CONFIG_RETENTION_BY_COMMAND } by;
    } retention;
    struct {
        char *directory, *ca_file, *proxy; /* NULL = not given */
    } certificates;
    struct {
        size_t database_bytes;
        enum config_unseen_sources unseen_sources;
    } watch;
    struct oh_catalog *catalog; /* built-in recipes, then `providers:` */
    struct config_source *sources;
    size_t source_count;
    uint32_t *source_slots; /* number + 1 by XXH3 of the name, open addressing; 0 = free */
    size_t source_slot_mask;
    struct config_file *files;
    size_t file_count;
    int64_t threads;   /* http threads: one per core */
    uint64_t *written; /* of each option a hash of what stands in the file; 0 = nothing */
};

/* One mistake, as `check` prints it: "FILE:LINE: TEXT". */
struct config_mistake {
    int line; /* from 1; 0 = about the whole file */
    char *text;
};

struct config_mistakes {
    struct config_mistake *items;
    size_t count;
};

/* What not every command uses: of sources what SIGHUP takes, admin.token, database.url and
 * database.owner_url. Options of a part that is not asked for stay as if they had no value: for
 * them no variable must be set and no file be there. */
enum { CONFIG_SECRETS = 1, CONFIG_TOKEN = 2, CONFIG_URL = 4, CONFIG_OWNER = 8, CONFIG_ALL = 15 };

/* Reads `path` with these parts, `${VAR}` from the environment. *out belongs to the caller:
 * config_free(). On OH_INVALID every mistake is in *mistakes (config_mistakes_free()), *out is
 * NULL. Texts never hold a secret or the value of an environment variable. */
enum oh_status config_load(const char *path, unsigned parts, struct config **out,
                           struct config_mistakes *mistakes) OH_MUST_CHECK;
void config_mistakes_free(struct config_mistakes *mistakes);
void config_free(struct config *config);

/* Prints "path:line: text" a mistake to stderr; for a load that failed. */
void config_mistakes_print(const char *path, const struct config_mistakes *mistakes);

/* What `check` says: config_load() of all, and what only costs a look: certificate and key load and
 * belong together, whatever else is wrong. *warnings: files with secrets that are open to
 * everybody. Both lists are the caller's: config_mistakes_free(). */
enum oh_status config_check(const char *path, struct config **out, struct config_mistakes *mistakes,
                            struct config_mistakes *warnings) OH_MUST_CHECK;

/* Prints the table of all options as Markdown: docs/configuration.md holds this very text. */
void config_options_print(FILE *to);

/* The first of the source's secrets that is taken at this moment; data NULL: none is. */
struct oh_slice config_secret_at(const struct config_source *source, int64_t now_ms);

/* "environment", "file" …, for people. */
const char *config_origin_word(enum config_origin origin);

/* What stands otherwise in `fresh` than in `old` and is not taken while the gateway runs: names of
 * options and sources, ", " between; "" = nothing. malloc'ed; NULL when memory is gone. */
char *config_changes(const struct config *old, const struct config *fresh) OH_MUST_CHECK;

/* The source of that name, or NULL. Thread: any. */
const struct config_source *config_find_source(const struct config *config, struct oh_slice name);

/* True if `address` (IPv4 mapped) lies in one of the networks. */
bool config_networks_contain(const struct config_networks *networks,
                             const struct in6_addr *address);

/* Opens a listening TCP socket on `address`, non-blocking and close-on-exec; *port is the port that
 * was bound. Returns the descriptor, or -1 with *err. Thread: any. */
int config_listen(const struct config_address *address, int backlog, uint16_t *port,
                  struct oh_error *err) OH_MUST_CHECK;

#endif
