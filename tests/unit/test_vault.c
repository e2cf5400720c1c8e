/* SPDX-License-Identifier: Apache-2.0 */
/* Promises of the vault: a reader sees one set as a whole, a reload loses no evidence, what is
 * wrong changes nothing, what handshakes brought outlives a reload, and what waits for a restart is
 * named.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/slice.h"
#include "config/vault.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BASE                                                               \
    "listen: {http: \"127.0.0.1:0\", public_url: \"https://h.example\"}\n" \
    "database: {url: \"postgresql://g@/x\"}\n"                             \
    "sources:\n"

static struct config *load(const char *text)
{
    char path[] = "/tmp/oncehook-test-vault-XXXXXX";
    struct config *config;
    struct config_mistakes mistakes;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    if (config_load(path, CONFIG_ALL, &config, &mistakes) != OH_OK) {
        config_mistakes_print("unexpected", &mistakes);
        fail();
    }
    unlink(path);
    return config;
}

static struct vault *vault_of(const struct config *config)
{
    struct vault *vault;
    struct oh_error err = {.text = ""};
    if (vault_new(config, &vault, &err))
        fail_msg("%s", err.text);
    return vault;
}

static void take(struct vault *vault, const char *text)
{
    struct oh_error err = {.text = ""};
    struct config *fresh = load(text);
    if (vault_reload(vault, fresh, &err))
        fail_msg("%s", err.text);
    config_free(fresh); /* nothing of it is kept */
}

static void assert_page(struct vault *vault, const char *wanted)
{
    char *text = NULL;
    size_t len;
    FILE *page = open_memstream(&text, &len);
    assert_non_null(page);
    vault_print_matches(vault, page, "m");
    fclose(page);
    assert_string_equal(text, wanted);
    free(text);
}

/* ---- where secrets stand ---- */

static void secrets_come_from_everywhere_with_their_terms(void **state)
{
    (void)state;
    char directory[] = "/tmp/oncehook-test-credentials-XXXXXX", path[64];
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/stripe", directory);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fputs("of-systemd\n", file);
    fclose(file);
    setenv("CREDENTIALS_DIRECTORY", directory, 1);
    setenv("A", "of-environment", 1);
    struct config *config;
    config = load(BASE "  - name: s\n    provider: stripe\n    secrets:\n"
                       "      - ${A}\n      - {credential: stripe, name: cred}\n"
                       "      - {value: \"${A}2\", not_before: 2026-01-01T00:00:00Z, "
                       "not_after: 2026-01-02T00:00:00.5+01:00}\n      - text\n"
                       "  - {name: a, provider: asana}\n"
                       "  - {name: b, provider: notion, handshake: {arm_until: 2026-01-01}}\n");
    static const struct {
        const char *text, *name, *from;
        int64_t not_before_ms, not_after_ms;
    } rows[] = {
        {"of-environment", "1", "environment", INT64_MIN, INT64_MAX},
        {"of-systemd", "cred", "credential", INT64_MIN, INT64_MAX},
        {"of-environment2", "3", "environment", INT64_C(1767225600000), INT64_C(1767308400500)},
        {"text", "4", "configuration", INT64_MIN, INT64_MAX},
    };
    const struct config_source *source = &config->sources[0];
    assert_int_equal(source->secret_count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_memory_equal(source->secrets[i].bytes.data, rows[i].text, strlen(rows[i].text));
        assert_string_equal(source->terms[i].name, rows[i].name);
        assert_string_equal(config_origin_word(source->terms[i].origin), rows[i].from);
        assert_int_equal(source->terms[i].not_before_ms, rows[i].not_before_ms);
        assert_int_equal(source->terms[i].not_after_ms, rows[i].not_after_ms);
    }
    assert_int_equal(config->sources[1].secret_count, 0);
    assert_int_equal(config->sources[2].arm_until_ms, INT64_C(1767225600000));
    config_free(config);
    unlink(path);
    rmdir(directory);
    unsetenv("CREDENTIALS_DIRECTORY");
}

/* ---- evidence -------------------------------------------------------------------------------- */

static void a_reload_keeps_when_a_secret_last_matched(void **state)
{
    (void)state;
    struct config *config = load(BASE "  - {name: s, provider: stripe, secrets: [old, gone]}\n"
                                      "  - {name: t, provider: stripe, secrets: [old]}\n");
    struct vault *vault = vault_of(config);
    const struct vault_set *held = vault_get(vault, NULL);
    vault_note_match(&held->doors[0], 0, 100);
    vault_note_match(&held->doors[0], 1, 200);
    vault_note_match(&held->doors[0], 0, 90); /* another thread was later */
    vault_note_match(&held->doors[0], -1, 300);
    vault_note_match(&held->doors[0], 2, 300);
    assert_page(vault, "m{source=\"s\",secret=\"1\"} 100\nm{source=\"s\",secret=\"2\"} 200\n"
                       "m{source=\"t\",secret=\"1\"} 0\n");

    take(vault, BASE "  - {name: t, provider: stripe, secrets: [old]}\n"
                     "  - {name: s, provider: stripe,\n"
                     "     secrets: [{value: new, name: next}, {value: old, name: first}]}\n");
    assert_page(vault, "m{source=\"s\",secret=\"next\"} 0\nm{source=\"s\",secret=\"first\"} 100\n"
                       "m{source=\"t\",secret=\"1\"} 0\n");
    /* A thread that still has the old set: what it sees counts too, once it moves on. */
    vault_note_match(&held->doors[0], 0, 500);
    held = vault_get(vault, held);
    assert_page(vault, "m{source=\"s\",secret=\"next\"} 0\nm{source=\"s\",secret=\"first\"} 500\n"
                       "m{source=\"t\",secret=\"1\"} 0\n");
    vault_leave(vault, held);
    vault_free(vault);
    config_free(config);
}

static void a_source_that_is_gone_keeps_its_secrets_until_the_restart(void **state)
{
    (void)state;
    struct config *config =
        load(BASE "  - {name: s, provider: stripe, secrets: [old]}\n"
                  "  - {name: m, provider: meta, secrets: [x], verify_token: v}\n");
    struct vault *vault = vault_of(config);
    take(vault, BASE "  - {name: new, provider: stripe, secrets: [x]}\n");
    const struct vault_set *set = vault_get(vault, NULL);
    assert_int_equal(set->doors[0].secret_count, 1);
    assert_string_equal(set->doors[1].verify_token, "v");
    vault_leave(vault, set);
    vault_free(vault);
    config_free(config);
}

static void a_source_of_another_provider_keeps_its_secrets(void **state)
{
    (void)state;
    struct config *config =
        load(BASE "  - {name: s, provider: stripe, secrets: [old]}\n"
                  "  - {name: t, provider: hubspot, scheme: hubspot_v3, secrets: [old]}\n"
                  "  - {name: u, provider: stripe, secrets: [old]}\n");
    struct vault *vault = vault_of(config);
    take(vault, BASE "  - {name: s, provider: github, secrets: [new]}\n"
                     "  - {name: t, provider: hubspot, scheme: hubspot_v2, secrets: [new]}\n"
                     "  - {name: u, provider: stripe, secrets: [new]}\n");
    const struct vault_set *set = vault_get(vault, NULL);
    static const char *const wanted[] = {"old", "old", "new"};
    for (int i = 0; i < 3; i++)
        assert_memory_equal(set->doors[i].secrets[0].text.bytes.data, wanted[i], 3);
    vault_leave(vault, set);
    vault_free(vault);
    config_free(config);
}

/* Two recipes of one name, that take different keys. */
#define OWN(key)                                                                              \
    "providers:\n"                                                                            \
    "  - {provider: own, title: O, confidence: high, proof: unconfirmed, id_scope: source,\n" \
    "     ack_budget: unknown, retries: {schedule: none, horizon: unknown},\n"                \
    "     schemes: [{id: own, algorithm: hmac-sha256, key: " key ", message: [body],\n"       \
    "       signature: {in: header, name: x, parse: plain, encoding: hex}}],\n"               \
    "     events: {id: /id}}\n"

static void what_a_scheme_does_not_take_changes_nothing(void **state)
{
    (void)state;
    struct config *config = load(OWN("hex") BASE "  - {name: s, provider: stripe, secrets: [old]}\n"
                                                 "  - {name: t, provider: own, secrets: [00ff]}\n");
    struct vault *vault = vault_of(config);
    const struct vault_set *held = vault_get(vault, NULL);
    struct config *fresh =
        load(OWN("utf8") BASE "  - {name: s, provider: stripe, secrets: [new]}\n"
                              "  - {name: t, provider: own, secrets: [secret-text]}\n");
    struct oh_error err = {.text = ""};
    assert_int_equal(vault_reload(vault, fresh, &err), OH_INVALID);
    assert_non_null(strstr(err.text, "source t: "));
    assert_null(strstr(err.text, "secret-text"));
    assert_ptr_equal(vault_get(vault, held), held);
    vault_leave(vault, held);
    config_free(fresh);
    vault_free(vault);
    config_free(config);
}

static void the_secret_of_the_moment_is_the_first_that_is_taken(void **state)
{
    (void)state;
    struct config *config = load(BASE "  - name: s\n    provider: stripe\n    secrets:\n"
                                      "      - {value: a, not_after: 2026-01-01T00:00:00Z}\n"
                                      "      - {value: b, not_before: 2026-01-02T00:00:00Z}\n");
    struct vault *vault = vault_of(config);
    const struct vault_set *set = vault_get(vault, NULL);
    const int64_t first_ms = INT64_C(1767225600000);
    static const struct {
        int64_t after_ms;
        const char *secret;
    } rows[] = {{-1, "a"}, {0, "a"}, {1, NULL}, {86399999, NULL}, {86400000, "b"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct oh_slice at = vault_secret_at(&set->doors[0], first_ms + rows[i].after_ms);
        struct oh_slice same = config_secret_at(&config->sources[0], first_ms + rows[i].after_ms);
        assert_true(rows[i].secret ? at.data && at.data[0] == rows[i].secret[0] : !at.data);
        assert_true(slice_equals(at, same));
    }
    vault_leave(vault, set);
    vault_free(vault);
    config_free(config);
}

/* ---- handshakes' secrets --------------------------------------------------------------------- */

static void learned_secrets_outlive_a_reload_and_are_bounded(void **state)
{
    (void)state;
    struct config *config = load(BASE "  - {name: a, provider: asana, secrets: [mine]}\n"
                                      "  - {name: b, provider: asana}\n");
    struct vault *vault = vault_of(config);
    struct vault_learned learned[VAULT_LEARNED_MAX + 2];
    struct oh_error err = {.text = ""};
    bool changed;
    learned[0] = (struct vault_learned){7, "b", SLICE_LITERAL("of-b")};
    for (int i = 1; i < VAULT_LEARNED_MAX + 2; i++)
        learned[i] = (struct vault_learned){100 + i, "a", SLICE_LITERAL("of-a")};
    assert_int_equal(vault_learn(vault, learned, VAULT_LEARNED_MAX + 2, &changed, &err), OH_OK);
    assert_true(changed);
    const struct vault_set *set = vault_get(vault, NULL);
    assert_int_equal(set->doors[0].secret_count, 1 + VAULT_LEARNED_MAX);
    assert_string_equal(set->doors[0].secrets[0].terms.name, "1");
    assert_string_equal(set->doors[0].secrets[1].terms.name,
                        "learned-102"); /* the oldest is left out */
    assert_string_equal(set->doors[1].secrets[0].terms.name, "learned-7");
    assert_int_equal(oh_keyring_count(set->doors[1].keyring), 1);
    assert_int_equal(vault_learn(vault, learned, VAULT_LEARNED_MAX + 2, &changed, &err), OH_OK);
    assert_false(changed);
    assert_ptr_equal(vault_get(vault, set), set);

    take(vault, BASE "  - {name: a, provider: asana, secrets: [other]}\n"
                     "  - {name: b, provider: asana, handshake: {arm_until: 2030-01-01}}\n");
    set = vault_get(vault, set);
    assert_int_equal(set->doors[0].secret_count, 1 + VAULT_LEARNED_MAX);
    assert_string_equal(set->doors[1].secrets[0].terms.name, "learned-7");
    assert_true(set->doors[1].arm_until_ms > 0);
    vault_leave(vault, set);
    vault_free(vault);
    config_free(config);
}

/* ---- readers --------------------------------------------------------------------------------- */

enum { READERS = 4, RELOADS = 150 };

static struct vault *shared;
static _Atomic bool is_over;

/* Both sources' secrets always come from one configuration. */
static void *read_on(void *argument)
{
    uint64_t *mixed = argument;
    const struct vault_set *held = NULL;
    while (!atomic_load(&is_over)) {
        held = vault_get(shared, held);
        const struct vault_secret *a = held->doors[0].secrets, *b = held->doors[1].secrets;
        *mixed += !slice_equals(a->text.bytes, b->text.bytes);
        vault_note_match(&held->doors[0], 0, 1);
    }
    vault_leave(shared, held);
    return NULL;
}

static void readers_see_one_configuration_as_a_whole(void **state)
{
    (void)state;
    struct config *config = load(BASE "  - {name: a, provider: stripe, secrets: [s-0]}\n"
                                      "  - {name: b, provider: stripe, secrets: [s-0]}\n");
    shared = vault_of(config);
    pthread_t threads[READERS];
    uint64_t mixed[READERS] = {0};
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_on, &mixed[i]), 0);
    struct config *fresh[2] = {load(BASE "  - {name: a, provider: stripe, secrets: [s-1]}\n"
                                         "  - {name: b, provider: stripe, secrets: [s-1]}\n"),
                               config};
    struct oh_error err;
    for (int i = 0; i < RELOADS; i++)
        assert_int_equal(vault_reload(shared, fresh[i % 2], &err), OH_OK);
    atomic_store(&is_over, true);
    for (int i = 0; i < READERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(mixed[i], 0);
    }
    vault_free(shared);
    config_free(fresh[0]);
    config_free(config);
}

/* ---- what waits for a restart ---------------------------------------------------------------- */

static void changes_that_wait_are_named(void **state)
{
    (void)state;
    static const char old[] = "listen: {http: \"127.0.0.1:0\"}\n"
                              "database: {url: \"postgresql://g@/x\", lanes: 2}\n"
                              "admin: {listen: \"127.0.0.1:9090\"}\n"
                              "sources:\n"
                              "  - {name: s, provider: stripe, secrets: [a], tolerance: 300s}\n"
                              "  - {name: h, provider: hmac, header: X, secrets: [a]}\n"
                              "  - {name: t, provider: stripe, secrets: [a]}\n";
    static const char fresh[] =
        "database: {lanes: 3, url: \"postgresql://g:planted@/y\"}\n"
        "admin: {listen: \"127.0.0.1:9090\"}\n"
        "listen: {http: \"127.0.0.1:0\"}\n"
        "sources:\n"
        "  - {name: h, provider: hmac, header: X, secrets: [a], algorithm: sha512}\n"
        "  - {name: new, provider: stripe, secrets: [planted]}\n"
        "  - {name: s, provider: stripe, secrets: [{value: planted, name: n}]}\n";
    struct config *a = load(old), *b = load(fresh), *same = load(old);
    char *text = config_changes(a, b);
    assert_string_equal(text, "database.url, database.lanes, s: tolerance, h: algorithm, source t "
                              "is gone, source new is new");
    free(text);
    text = config_changes(a, same);
    assert_string_equal(text, "");
    free(text);
    config_free(a);
    config_free(b);
    config_free(same);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(secrets_come_from_everywhere_with_their_terms),
        cmocka_unit_test(a_reload_keeps_when_a_secret_last_matched),
        cmocka_unit_test(a_source_that_is_gone_keeps_its_secrets_until_the_restart),
        cmocka_unit_test(a_source_of_another_provider_keeps_its_secrets),
        cmocka_unit_test(what_a_scheme_does_not_take_changes_nothing),
        cmocka_unit_test(the_secret_of_the_moment_is_the_first_that_is_taken),
        cmocka_unit_test(learned_secrets_outlive_a_reload_and_are_bounded),
        cmocka_unit_test(readers_see_one_configuration_as_a_whole),
        cmocka_unit_test(changes_that_wait_are_named),
    };
    return cmocka_run_group_tests_name("vault", tests, NULL, NULL);
}
