/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of config: what CONTRACT writes loads, every mistake is told at once with its line, no
 * text holds a value, docs and sample agree with the table of options. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "config/config.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- a file to load -------------------------------------------------------------------------- */

struct loaded {
    char path[64];
    enum oh_status status;
    struct config *config;
    struct config_mistakes mistakes;
};

static void load_text(struct loaded *l, const char *text)
{
    snprintf(l->path, sizeof(l->path), "%s", "/tmp/oncehook-test-config-XXXXXX");
    int fd = mkstemp(l->path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    l->status = config_load(l->path, CONFIG_ALL, &l->config, &l->mistakes);
    unlink(l->path);
}

static void load_fine(struct loaded *l, const char *text)
{
    load_text(l, text);
    if (l->status != OH_OK)
        config_mistakes_print("unexpected", &l->mistakes);
    assert_int_equal(l->status, OH_OK);
    assert_int_equal(l->mistakes.count, 0);
    assert_non_null(l->config);
}

static void unload(struct loaded *l)
{
    config_free(l->config);
    config_mistakes_free(&l->mistakes);
}

static struct oh_slice slice(const char *text)
{
    return (struct oh_slice){text, strlen(text)};
}

static bool has_mistake(const struct config_mistakes *mistakes, int line, const char *part)
{
    for (size_t i = 0; i < mistakes->count; i++)
        if (mistakes->items[i].line == line && strstr(mistakes->items[i].text, part))
            return true;
    return false;
}

/* What every configuration needs, on lines 1 to 2; a test's own text begins on line 3. */
#define BASE                                                               \
    "listen: {http: \"127.0.0.1:0\", public_url: \"https://h.example\"}\n" \
    "database: {url: \"postgresql://gateway@/x\"}\n"

/* A recipe in block style, 15 lines: what signs, and `more` on the last but one. */
#define OWN(message, more)                                                    \
    "  - provider: own\n"                                                     \
    "    title: Own\n"                                                        \
    "    confidence: high\n"                                                  \
    "    proof: unconfirmed\n"                                                \
    "    id_scope: source\n"                                                  \
    "    ack_budget: unknown\n"                                               \
    "    retries: {schedule: none, horizon: unknown, signed_anew: false}\n"   \
    "    schemes:\n"                                                          \
    "      - id: own\n"                                                       \
    "        algorithm: hmac-sha256\n"                                        \
    "        key: utf8\n"                                                     \
    "        signature: {in: header, name: x, parse: plain, encoding: hex}\n" \
    "        message: [" message "]\n"                                        \
    "    " more "\n"                                                          \
    "    events: {id: /id}\n"

/* The configuration of CONTRACT.md, to the letter. */
static const char contract[] =
    "listen:\n"
    "  https: 0.0.0.0:8443            # and/or  http: 127.0.0.1:8080  (behind a strict proxy)\n"
    "  tls: {certificate: cert.pem, key: key.pem}\n"
    "  public_url: https://hooks.example.com     # for schemes that sign the URL\n"
    "limits: {body_bytes: 1MiB, connections: 4096, connections_per_ip: 0, request_timeout: 75s, "
    "memory: 512MiB}   # 0 = off\n"
    "admin: {listen: 127.0.0.1:9090, token: ${ONCEHOOK_ADMIN_TOKEN}}\n"
    "database:\n"
    "  url: ${ONCEHOOK_DATABASE_URL}  # the gateway's login\n"
    "  owner_url: ${DATABASE_URL}     # oncehook_owner\n"
    "  schema: public\n"
    "  lanes: auto\n"
    "  connect_timeout: 5s\n"
    "  statement_timeout: 10s\n"
    "  lock_timeout: 1s\n"
    "  idle_in_transaction_session_timeout: 30s\n"
    "  retries: 3\n"
    "batch: {events: 1000, bytes: 8MiB}\n"
    "queue: {events: 50000, bytes: 256MiB, age: 150ms, share: 50%}\n"
    "ack_deadline: 3s\n"
    "outage: refuse                   # or spool\n"
    "spool: {directory: /var/lib/oncehook/spool, bytes: 10GiB, age: 30d}\n"
    "retention: {events: 90d, ledger: 180d, workflows: {completed: 30d, failed: 90d}}\n"
    "sources:\n"
    "  - name: sendgrid-eu            # POST /in/sendgrid-eu\n"
    "    provider: sendgrid           # + scheme: NAME where a provider has several\n"
    "    secrets: [${SENDGRID_PUBLIC_KEY}, {file: %s}]   # any number are live at once\n"
    "    map: {enrollment_id: /enrollment_id, instance_id: /instance_id}\n"
    "    dedup_scope: source          # or provider, or a name\n"
    "    rate_limit: {per_second: 1000, burst: 5000}    # after verification\n"
    "    allow: [192.0.2.0/24]\n"
    "  - {name: stripe, provider: stripe, secrets: [${STRIPE_SECRET}], tolerance: 300s}\n"
    "providers: []                    # further recipes\n";

/* A P-256 public key as SendGrid shows it. */
#define SENDGRID_KEY                                                                               \
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+" \
    "2fNNRaINXvVpiglSI8eNEc6wEA3F+g=="

static void set_environment(void)
{
    setenv("ONCEHOOK_ADMIN_TOKEN", "token: [not yaml", 1);
    setenv("ONCEHOOK_DATABASE_URL", "postgresql://gateway:pw@one,two/db", 1);
    setenv("DATABASE_URL", "postgresql://owner@/db", 1);
    setenv("SENDGRID_PUBLIC_KEY", SENDGRID_KEY, 1);
    setenv("STRIPE_SECRET", "whsec_planted_stripe", 1);
    setenv("SHOP_SECRET", "planted_shop", 1);
    unsetenv("ONCEHOOK_NOT_SET");
}

/* ---- what loads ------------------------------------------------------------------------------ */

static void load_takes_the_contracts_configuration_to_the_letter(void **state)
{
    (void)state;
    set_environment();
    char secret_path[] = "/tmp/oncehook-test-secret-XXXXXX", text[sizeof(contract) + 64];
    int fd = mkstemp(secret_path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, SENDGRID_KEY "\n", sizeof(SENDGRID_KEY)), sizeof(SENDGRID_KEY));
    close(fd);
    const char *hole = strstr(contract, "%s");
    snprintf(text, sizeof(text), "%.*s%s%s", (int)(hole - contract), contract, secret_path,
             hole + 2);
    struct loaded l;
    load_fine(&l, text);
    unlink(secret_path);

    const struct config *c = l.config;
    assert_string_equal(c->listen.https.host, "0.0.0.0");
    assert_int_equal(c->listen.https.port, 8443);
    assert_null(c->listen.http.host);
    assert_string_equal(c->listen.certificate, "/tmp/cert.pem");
    assert_int_equal(c->limits.body_bytes, 1 << 20);
    assert_int_equal(c->limits.request_timeout_ms, 75000);
    assert_int_equal(c->admin.token.bytes.len, strlen("token: [not yaml"));
    assert_memory_equal(c->admin.token.bytes.data, "token: [not yaml", c->admin.token.bytes.len);
    assert_true(c->database.lanes >= 1);
    assert_int_equal(c->queue.age_ms, 150);
    assert_int_equal(c->queue.share_percent, 50);
    assert_int_equal(c->retention.ledger_s, 180 * 86400);
    assert_int_equal(c->retention.workflows_completed_s, 30 * 86400);

    const struct config_source *sendgrid = config_find_source(c, slice("sendgrid-eu"));
    assert_non_null(sendgrid);
    assert_int_equal(sendgrid->secret_count, 2);
    assert_int_equal(sendgrid->secrets[1].bytes.len, strlen(SENDGRID_KEY));
    assert_int_equal(oh_keyring_count(sendgrid->keyring), 2);
    assert_string_equal(sendgrid->scope_id, "source:sendgrid-eu");
    assert_int_equal(sendgrid->rate_burst, 5000);
    assert_int_equal(sendgrid->allow.count, 1);
    assert_int_equal(sendgrid->line, 24);
    const struct config_source *stripe = config_find_source(c, slice("stripe"));
    assert_non_null(stripe);
    assert_int_equal(stripe->number, 1);
    assert_int_equal(stripe->tolerance_s, 300);
    assert_string_equal(stripe->scope_id, "provider:stripe");
    assert_string_equal(stripe->scope_other, "source:stripe");
    unload(&l);
}

static void load_gives_defaults_for_what_is_not_said(void **state)
{
    (void)state;
    struct loaded l;
    load_fine(&l, BASE);
    assert_int_equal(l.config->batch.events, 1000);
    assert_int_equal(l.config->database.statement_timeout_ms, 10000);
    assert_int_equal(l.config->outage, CONFIG_OUTAGE_REFUSE);
    assert_null(l.config->admin.listen.host);
    assert_null(l.config->admin.token.bytes.data);
    assert_int_equal(l.config->source_count, 0);
    assert_null(config_find_source(l.config, slice("x")));
    unload(&l);
}

static void load_puts_variables_into_scalars_only_after_parsing(void **state)
{
    (void)state;
    setenv("A", "a, b: ]}\"'#", 1);
    setenv("EMPTY", "", 1);
    struct loaded l;
    load_fine(&l, BASE "sources:\n"
                       "  - {name: s, provider: hmac, header: X, secrets: [${A}, \"<${A}>\",\n"
                       "     '${EMPTY}$${A}', '$${']}\n");
    const struct secret *secrets = l.config->sources[0].secrets;
    const char *expected[] = {"a, b: ]}\"'#", "<a, b: ]}\"'#>", "${A}", "${"};
    assert_int_equal(l.config->sources[0].secret_count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(secrets[i].bytes.len, strlen(expected[i]));
        assert_memory_equal(secrets[i].bytes.data, expected[i], secrets[i].bytes.len);
    }
    unload(&l);
}

static void load_gives_each_scope_its_key_scopes(void **state)
{
    (void)state;
    static const struct {
        const char *source, *id, *other;
    } rows[] = {
        {"{name: a, provider: stripe, secrets: [x]}", "provider:stripe", "source:a"},
        {"{name: a, provider: stripe, secrets: [x], dedup_scope: source}", "source:a", "source:a"},
        {"{name: a, provider: stripe, secrets: [x], dedup_scope: eu}", "name:eu", "name:eu"},
        {"{name: a, provider: hmac, header: X, secrets: [x]}", "source:a", "source:a"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[512];
        snprintf(text, sizeof(text), BASE "sources:\n  - %s\n", rows[i].source);
        struct loaded l;
        load_fine(&l, text);
        assert_string_equal(l.config->sources[0].scope_id, rows[i].id);
        assert_string_equal(l.config->sources[0].scope_other, rows[i].other);
        unload(&l);
    }
}

static void load_takes_recipes_of_the_file(void **state)
{
    (void)state;
    struct loaded l;
    load_fine(&l, "sources:\n  - {name: a, provider: own, secrets: [x]}\n"
                  "providers: # before the rest\n" OWN("body, 'lit:A'", "") "\n" BASE);
    assert_string_equal(l.config->sources[0].provider, "own");
    unload(&l);
    load_fine(
        &l,
        "{"
        "\"listen\": {\"http\": \"a:0\"}, \"database\": {\"url\": \"postgresql:///x\"},\n"
        "\"sources\": [{\"name\": \"a\", \"provider\": \"own\", \"secrets\": [\"x\"]}],\n"
        "\"providers\": [{\"provider\": \"own\", \"title\": \"Own\", \"confidence\": \"high\",\n"
        "  \"proof\": \"unconfirmed\", \"id_scope\": \"source\", \"ack_budget\": \"10s\",\n"
        "  \"retries\": {\"schedule\": \"none\", \"horizon\": \"unknown\", \"signed_anew\": "
        "false},\n"
        "  \"schemes\": [{\"id\": \"own\", \"algorithm\": \"hmac-sha256\", \"key\": \"utf8\", "
        "\"signature\": "
        "{\"in\":\n"
        "    \"header\", \"name\": \"x\", \"parse\": \"plain\", \"encoding\": \"hex\"},\n"
        "    \"message\": [\"body\"]}], \"events\": {\"id\": \"/id\"}}]}\n");
    assert_string_equal(l.config->sources[0].provider, "own");
    unload(&l);
}

static void load_cuts_the_ack_deadline_to_the_providers_budget(void **state)
{
    (void)state;
    struct loaded l;
    load_fine(&l, BASE "ack_deadline: 60s\n"
                       "sources:\n"
                       "  - {name: a, provider: hmac, header: X, secrets: [x]}\n"
                       "  - {name: b, provider: github, secrets: [x]}\n");
    struct oh_recipe_info info;
    oh_recipe_describe(l.config->sources[1].recipe, &info);
    assert_int_equal(l.config->sources[0].ack_deadline_ms, 60000);
    assert_true(info.ack_budget_ms > 0);
    assert_int_equal(l.config->sources[1].ack_deadline_ms, info.ack_budget_ms * 8 / 10);
    unload(&l);
}

static void find_source_tells_a_thousand_names_apart(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    size_t size = COUNT * 80 + sizeof(BASE) + 16, len;
    char *text = malloc(size);
    assert_non_null(text);
    len = (size_t)snprintf(text, size, BASE "sources:\n");
    for (int i = 0; i < COUNT; i++)
        len += (size_t)snprintf(text + len, size - len,
                                "  - {name: s%d, provider: hmac, header: X, secrets: [x]}\n", i);
    struct loaded l;
    load_fine(&l, text);
    free(text);
    for (int i = 0; i < COUNT; i++) {
        char name[16];
        snprintf(name, sizeof(name), "s%d", i);
        const struct config_source *source = config_find_source(l.config, slice(name));
        assert_non_null(source);
        assert_int_equal(source->number, i);
    }
    static const char *const absent[] = {"", "s", "s1000", "S1", "s01", "s1 ", "hmac"};
    for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++)
        assert_null(config_find_source(l.config, slice(absent[i])));
    assert_null(config_find_source(l.config, (struct oh_slice){"s1\0", 3}));
    unload(&l);
}

/* ---- mistakes ---------------------------------------------------------------------------------
 */

#define SOURCE(text) BASE "sources:\n  - {name: a, " text "}\n"
#define HMAC(text)   SOURCE("provider: hmac, header: X, secrets: [x], " text)

static const struct {
    const char *text;
    int line;
    const char *part;
} bad[] = {
    /* the file */
    {"", 1, "the file is empty"},
    {"- a\n", 1, "must be a block"},
    {"a: [1\n", 2, "flow sequence"},
    {BASE "---\nx: 1\n", 4, "a second document"},
    {BASE "# \xff\n", 3, "no text"},
    {BASE "batch: \x01\n", 3, "no text"},
    /* keys */
    {BASE "nonsense: 1\n", 3, "no option is called nonsense"},
    {BASE "limits:\n  conections: 1\n", 4, "no option is called limits.conections"},
    {BASE "limits:\n  connections: 1\n  memory: 0\n  connections: 2\n", 6,
     "limits.connections stands here again; first on line 4"},
    {BASE "limits: {memory: 0}\nlimits: {memory: 0}\n", 4, "limits stands here again"},
    {BASE "limits: 1\n", 3, "limits must be a block"},
    {BASE "? [a]\n: 1\n", 3, "a key has to be text"},
    /* values */
    {BASE "batch: {events: 0}\n", 3, "batch.events is out of bounds (1 to 10000)"},
    {BASE "batch: {events: 10001}\n", 3, "batch.events is out of bounds"},
    {BASE "batch: {events: -1}\n", 3, "must be a number"},
    {BASE "batch: {events: 99999999999999999999}\n", 3, "must be a number"},
    {BASE "batch: {events: [1]}\n", 3, "must be one value"},
    {BASE "limits: &l {memory: 0}\n", 1, "anchors"},
    {BASE "batch: {events: }\n", 3, "batch.events has no value"},
    {BASE "batch: {bytes: 8MB}\n", 3, "batch.bytes must be a size"},
    {BASE "batch: {bytes: 999999999TiB}\n", 3, "batch.bytes"},
    {BASE "limits: {body_bytes: 16MiB}\n", 3, "limits.body_bytes is out of bounds"},
    {BASE "queue: {age: 150}\n", 3, "queue.age must be a time"},
    {BASE "queue: {share: 0%}\n", 3, "queue.share is out of bounds (1% to 100%)"},
    {BASE "queue: {bytes: 1MiB}\nlimits: {body_bytes: 2MiB}\n", 3, "queue.bytes is less than"},
    {BASE "database: {url: x}\n", 3, "database stands here again"},
    {BASE "admin: {listen: 9090}\n", 3, "admin.listen must be HOST:PORT"},
    {BASE "admin: {listen: \"a:65536\"}\n", 3, "admin.listen must end in a port"},
    {BASE "admin: {listen: \"::1:80\"}\n", 3, "needs [ ]"},
    {BASE "admin: {token: ''}\n", 3, "admin.token is empty"},
    {BASE "admin: {token: \"a\\0b\"}\n", 3, "a NUL in a value"},
    {BASE "outage: explode\n", 3, "outage is none of its choices (refuse, spool)"},
    /* variables */
    {BASE "admin: {token: ${ONCEHOOK_NOT_SET}}\n", 3,
     "the environment variable ONCEHOOK_NOT_SET is not set"},
    {BASE "admin: {token: \"${1}\"}\n", 3, "without a variable's name"},
    /* listeners */
    {"database: {url: x=}\n", 1, "listen.https or listen.http is missing"},
    {"listen: {https: \"a:1\"}\n", 1, "listen.tls.certificate is missing"},
    {"listen: {https: \"a:1\"}\n", 1, "listen.tls.key is missing"},
    {"listen: {http: \"a:1\"}\n", 1, "database.url is missing"},
    {"listen: {http: \"a:1\", public_url: ftp://x}\n", 1, "listen.public_url must be a URL"},
    {"listen: {http: \"a:1\"}\ndatabase: {url: nonsense}\n", 2, "database.url is nothing libpq"},
    {BASE "limits: {connections_per_ip: 5}\n", 3, "needs listen.trusted_proxies"},
    {HMAC("allow: [10.0.0.0/8]"), 4, "needs listen.trusted_proxies"},
    /* networks */
    {HMAC("allow: [10.0.0.1/8]"), 4, "entry 1 has bits beyond"},
    {HMAC("allow: [10.0.0.0/8, 10.0.0.0/33]"), 4, "entry 2 has a wrong number of bits"},
    {HMAC("allow: [\"2001:db8::/129\"]"), 4, "wrong number of bits"},
    {HMAC("allow: [x]"), 4, "is not an address"},
    {HMAC("allow: 10.0.0.0/8"), 4, "must be a list"},
    {HMAC("allow: []"), 4, "is empty"},
    /* times */
    {BASE "retention: {events: 90d,\n ledger: 89d}\n", 4, "shorter than retention.events"},
    {BASE "retention: {ledger: 90d}\nspool: {age: 91d}\noutage: spool\n", 3,
     "shorter than spool.age"},
    {BASE "retention: {events: 1d, ledger: 1d}\nsources:\n"
          "  - {name: a, provider: stripe, secrets: [x]}\n",
     5, "retention.ledger is shorter than this source's provider goes on trying"},
    {BASE "sources:\n  - {name: a, provider: stripe, secrets: [x],\n     tolerance: 181d}\n", 5,
     "retention.ledger is shorter than this source accepts"},
    {HMAC("tolerance: 5m"), 4, "this scheme signs no time"},
    /* sources */
    {BASE "sources: {}\n", 3, "sources must be a list"},
    {BASE "sources: [x]\n", 3, "a source must be a block"},
    {BASE "sources:\n  - {}\n", 3, "sources[].name is missing"},
    {BASE "sources:\n  - name: A\n", 4, "sources[].name must be a name"},
    {SOURCE("provider: nobody, secrets: [x]"), 4, "no such provider"},
    {SOURCE("provider: stripe, scheme: other, secrets: [x]"), 4,
     "no such scheme; this provider has"},
    {SOURCE("provider: stripe"), 4, "sources[].secrets is missing"},
    {SOURCE("provider: stripe, secrets: []"), 4, "there must be 1 to 64"},
    {SOURCE("provider: stripe, secrets: x"), 4, "must be a list"},
    {SOURCE("provider: stripe, secrets: ['']"), 4, "it is empty"},
    {SOURCE("provider: stripe, secrets: [x: y]"), 4, "a text or {file: PATH}"},
    {SOURCE("provider: stripe, secrets: [{file: /nowhere/x}]"), 4, "No such file"},
    {SOURCE("provider: stripe, secrets: [{file: x, value: y}]"), 4, "or another block of"},
    {SOURCE("provider: stripe, secrets: [{value: y, nome: z}]"), 4, "or another block of"},
    {SOURCE("provider: stripe, secrets: [{value: y, name: A}]"), 4, "name must be a name"},
    {SOURCE("provider: stripe, secrets: [{value: y, name: learned-1}]"), 4, "may not begin with"},
    {SOURCE("provider: stripe, secrets: [y, {value: z, name: '1'}]"), 4, "name of secret 1"},
    {SOURCE("provider: stripe, secrets: [{value: y, not_before: soon}]"), 4,
     "not_before must be a moment"},
    {SOURCE("provider: stripe, secrets: [{value: y, not_after: '1766000000'}]"), 4,
     "not_after must be a moment"},
    {SOURCE("provider: stripe, secrets: [{value: y, not_before: 2026-01-02T00:00:00Z, "
            "not_after: 2026-01-01T00:00:00Z}]"),
     4, "not_after comes before"},
    {SOURCE("provider: stripe, secrets: [{credential: ../x}]"), 4, "no name of a credential"},
    {SOURCE("provider: stripe, secrets: [{credential: x}]"), 4, "CREDENTIALS_DIRECTORY is not set"},
    {SOURCE("provider: stripe, secrets: [x], handshake: {arm_until: 2026-01-01T00:00:00Z}"), 4,
     "handshake brings no secret"},
    {SOURCE("provider: asana, handshake: {arm_until: 12}"), 4, "must be a moment"},
    {SOURCE("provider: stripe, secrets: [{file: /tmp}]"), 4, "not a regular file"},
    {SOURCE("provider: sendgrid, secrets: [nokey]"), 4, "sources[].secrets: secret 1:"},
    {SOURCE("provider: stripe, secrets: [x], header: X"), 4,
     "sources[].header is for provider hmac"},
    {SOURCE("provider: hmac, secrets: [x]"), 4, "sources[].header is missing"},
    {HMAC("scheme: x"), 4, "provider hmac has no schemes"},
    {HMAC("algorithm: md5"), 4, "none of its choices (sha256, sha1, sha512)"},
    {HMAC("map: {enrollment_id: x}"), 4, "sources[].map:"},
    {HMAC("rate_limit: {burst: 5}"), 4, "per_second is missing"},
    {HMAC("rate_limit: {per_second: 0}"), 4, "out of bounds"},
    {HMAC("dedup_scope: provider"), 4, "share no ids"},
    {BASE "sources:\n  - {name: a, provider: stripe, secrets: [x]}\n"
          "  - {name: a, provider: stripe, secrets: [x]}\n",
     5, "the source on line 4 has this name already"},
    {BASE "sources:\n  - {name: a, provider: stripe, secrets: [x], dedup_scope: eu}\n"
          "  - {name: b, provider: github, secrets: [x], dedup_scope: eu}\n",
     5, "the source on line 4 shares it"},
    /* recipes: the lines of the file, wherever the entry stands */
    {BASE "providers: x\n", 3, "providers must be a list"},
    {BASE "providers:\n" OWN("body", "nonsense: 1"), 17, "nonsense"},
    {BASE "providers:\n" OWN("body", "") "  # next\n\n" OWN("body",
                                                            "nonsense: 1") "batch: {events: 5}\n",
     34, "nonsense"},
    {BASE "providers:\n\n  # a comment\n  -\n    nonsense: 1\nbatch: {events: 5}\n", 7, ""},
    {BASE "providers: [{nonsense: 1}]\n", 3, ""},
    {BASE "providers:\n" OWN("body, 'lit:${A}'", ""), 4, "has no place in a recipe"},
    {BASE "providers:\n" OWN("body", "title: Twice"), 17, "duplicate"},
};

static void load_tells_each_mistake_with_its_line(void **state)
{
    (void)state;
    set_environment();
    size_t failed = 0;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct loaded l;
        load_text(&l, bad[i].text);
        if (l.status != OH_INVALID || !has_mistake(&l.mistakes, bad[i].line, bad[i].part)) {
            print_message("case %zu: expected line %d, \"%s\" of:\n%s", i, bad[i].line, bad[i].part,
                          bad[i].text);
            config_mistakes_print("got", &l.mistakes);
            failed++;
        }
        assert_null(l.config);
        unload(&l);
    }
    assert_int_equal(failed, 0);
}

static void load_tells_all_mistakes_at_once_in_order(void **state)
{
    (void)state;
    struct loaded l;
    load_text(&l, "limits: {connections: 0}\n"
                  "outage: queue\n"
                  "sources:\n"
                  "  - {name: a, provider: nobody, secrets: [x]}\n"
                  "  - {name: a, provider: hmac, secrets: [], rate_limit: {burst: x}}\n"
                  "nonsense: 1\n");
    assert_int_equal(l.status, OH_INVALID);
    static const struct {
        int line;
        const char *part;
    } all[] = {{1, "limits.connections"},
               {1, "database.url is missing"},
               {1, "listen.https or"},
               {2, "none of its choices"},
               {4, "no such provider"},
               {5, "has this name already"},
               {5, "header is missing"},
               {5, "secrets"},
               {5, "burst"},
               {6, "nonsense"}};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        assert_true(has_mistake(&l.mistakes, all[i].line, all[i].part));
    for (size_t i = 1; i < l.mistakes.count; i++)
        assert_true(l.mistakes.items[i - 1].line <= l.mistakes.items[i].line);
    unload(&l);
}

static void load_never_repeats_a_value(void **state)
{
    (void)state;
    setenv("PLANTED", "whsec_PLANTED0", 1);
    static const char *const texts[] = {
        "admin: {token: {whsec_PLANTED0: 1}}",
        "admin: {whsec_PLANTED0: 1}",
        "whsec_PLANTED0: 1",
        "outage: ${PLANTED}",
        "listen: {http: ${PLANTED}, public_url: ${PLANTED}}",
        "database: {url: ${PLANTED}, lanes: ${PLANTED}}",
        "database: {url: 'postgresql://u:whsec_PLANTED0@h:x:y/%zz'}",
        "limits: {memory: ${PLANTED}, connections: whsec_PLANTED0}",
        "sources: whsec_PLANTED0",
        "sources: [whsec_PLANTED0]",
        "sources: [{name: 'WHSEC whsec_PLANTED0', provider: whsec_PLANTED0, secrets: "
        "whsec_PLANTED0}]",
        "sources: [{name: a, provider: sendgrid, secrets: [whsec_PLANTED0, {whsec_PLANTED0: 1}]}]",
        "sources: [{name: a, provider: stripe, scheme: ${PLANTED}, secrets: [{file: ${PLANTED}}]}]",
        "sources: [{name: a, provider: hmac, header: X, secrets: [{file: x, whsec_PLANTED0: y}],"
        " algorithm: ${PLANTED}, allow: [${PLANTED}], tolerance: ${PLANTED}}]",
        "admin: {token: whsec_PLANTED0",
        "admin: whsec_PLANTED0: x",
        "admin: \"whsec_PLANTED0\\q\"",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct loaded l;
        load_text(&l, texts[i]);
        assert_int_equal(l.status, OH_INVALID);
        assert_true(l.mistakes.count > 0);
        for (size_t j = 0; j < l.mistakes.count; j++)
            if (strstr(l.mistakes.items[j].text, "PLANTED0"))
                fail_msg("repeated: %s", l.mistakes.items[j].text);
        unload(&l);
    }
}

static void load_refuses_a_file_that_is_not_there(void **state)
{
    (void)state;
    struct config *config;
    struct config_mistakes mistakes;
    assert_int_equal(config_load("/nowhere/oncehook.yaml", CONFIG_ALL, &config, &mistakes),
                     OH_INVALID);
    assert_int_equal(mistakes.count, 1);
    assert_non_null(strstr(mistakes.items[0].text, "No such file"));
    config_mistakes_free(&mistakes);
}

/* ---- networks ---------------------------------------------------------------------------------
 */

static struct in6_addr address(const char *text)
{
    struct in6_addr a;
    struct in_addr v4;
    if (inet_pton(AF_INET, text, &v4) == 1) {
        char mapped[64];
        snprintf(mapped, sizeof(mapped), "::ffff:%s", text);
        assert_int_equal(inet_pton(AF_INET6, mapped, &a), 1);
    } else {
        assert_int_equal(inet_pton(AF_INET6, text, &a), 1);
    }
    return a;
}

static void networks_contain_what_lies_in_them(void **state)
{
    (void)state;
    struct loaded l;
    load_fine(&l, "listen: {http: \"a:0\", trusted_proxies: [192.0.2.0/25, 198.51.100.7, "
                  "\"2001:db8::/33\", \"::1\"]}\n"
                  "database: {url: \"postgresql:///x\"}\n");
    static const struct {
        const char *text;
        bool inside;
    } rows[] = {
        {"192.0.2.0", true},
        {"192.0.2.127", true},
        {"192.0.2.128", false},
        {"192.0.1.255", false},
        {"198.51.100.7", true},
        {"198.51.100.6", false},
        {"2001:db8::1", true},
        {"2001:db8:7fff::1", true},
        {"2001:db8:8000::", false},
        {"2001:db9::", false},
        {"::1", true},
        {"::2", false},
        {"::192.0.2.1", false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct in6_addr a = address(rows[i].text);
        if (config_networks_contain(&l.config->listen.trusted_proxies, &a) != rows[i].inside)
            fail_msg("%s", rows[i].text);
    }
    unload(&l);
}

/* ---- docs and sample ---------------------------------------------------------------------------
 */

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 20) - 1, file) > 0);
    fclose(file);
    return text;
}

static char *options_text(void)
{
    static char
        *text; /* static: gcc 12 takes what points into *text for a pointer to text itself */
    size_t len;
    FILE *to = open_memstream(&text, &len);
    assert_non_null(to);
    config_options_print(to);
    fclose(to);
    return text;
}

static void docs_hold_the_table_of_options(void **state)
{
    (void)state;
    char *docs = read_text(CONFIG_DOCS), *table = options_text();
    if (!strstr(docs, table))
        fail_msg("docs/configuration.md has not what `oncehook check --options` prints");
    free(table);
    free(docs);
}

static void sample_loads_and_names_every_option(void **state)
{
    (void)state;
    set_environment();
    struct config *config;
    struct config_mistakes mistakes;
    enum oh_status status = config_load(CONFIG_SAMPLE, CONFIG_ALL, &config, &mistakes);
    if (status != OH_OK)
        config_mistakes_print(CONFIG_SAMPLE, &mistakes);
    assert_int_equal(status, OH_OK);
    config_free(config);
    config_mistakes_free(&mistakes);

    char *sample = read_text(CONFIG_SAMPLE), *table = options_text();
    size_t count = 0;
    for (char *row = strstr(table, "| `"); row; row = strstr(row, "\n| `")) {
        char name[128], key[132];
        assert_int_equal(sscanf(strchr(row, '`'), "`%127[^`]`", name), 1);
        const char *dot = strrchr(name, '.');
        snprintf(key, sizeof(key), " %s:", dot ? dot + 1 : name);
        if (!dot)
            key[0] = '\n';
        if (!strstr(sample, key))
            fail_msg("the sample has no %s", name);
        row++;
        count++;
    }
    assert_true(count > 50);
    free(table);
    free(sample);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(load_takes_the_contracts_configuration_to_the_letter),
        cmocka_unit_test(load_gives_defaults_for_what_is_not_said),
        cmocka_unit_test(load_puts_variables_into_scalars_only_after_parsing),
        cmocka_unit_test(load_gives_each_scope_its_key_scopes),
        cmocka_unit_test(load_takes_recipes_of_the_file),
        cmocka_unit_test(load_cuts_the_ack_deadline_to_the_providers_budget),
        cmocka_unit_test(find_source_tells_a_thousand_names_apart),
        cmocka_unit_test(load_tells_each_mistake_with_its_line),
        cmocka_unit_test(load_tells_all_mistakes_at_once_in_order),
        cmocka_unit_test(load_never_repeats_a_value),
        cmocka_unit_test(load_refuses_a_file_that_is_not_there),
        cmocka_unit_test(networks_contain_what_lies_in_them),
        cmocka_unit_test(docs_hold_the_table_of_options),
        cmocka_unit_test(sample_loads_and_names_every_option),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
