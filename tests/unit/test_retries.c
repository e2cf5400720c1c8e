/* SPDX-License-Identifier: Apache-2.0 */
/* The promise about outages, for every recipe and its own schedule of retries: whatever a provider
 * sends again after an hour in which everything was answered 503 verifies, and counts once.
 *
 * Nothing waits: the clock is an argument. Requests are the recorded ones; a provider that signs
 * each retry anew does so here too, any other sends the same bytes again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "vector_support.h"

#include "base/slice.h"
#include "oncehook/event.h"
#include "oncehook/sign.h"
#include "recipe/recipe.h"

#include <stdio.h>
#include <stdlib.h>

enum { OUTAGE_S = 3600, TRIES_MAX = 400, UNKNOWN_HORIZON_S = 7 * 86400, EVENTS_MAX = 100 };

/* The tries of one delivery, in seconds after the first. Where no pauses are documented: from a
 * minute on twice as long each time, up to an hour, and once more at the very end. */
static size_t plan_tries(const struct oh_recipe_info *info, int64_t *at_s)
{
    int64_t horizon_s = info->retry_horizon_s < 0 ? UNKNOWN_HORIZON_S : info->retry_horizon_s;
    size_t count = 1;
    at_s[0] = 0;
    for (size_t i = 0; i < info->retry_after_count; i++, count++)
        at_s[count] = at_s[count - 1] + info->retry_after_s[i];
    if (info->retry_after_count > 0) {
        if (at_s[count - 1] > horizon_s)
            fail_msg("%s: the horizon is shorter than the pauses together", info->scheme);
        return count;
    }
    for (int64_t pause_s = 60; at_s[count - 1] + pause_s < horizon_s; count++) {
        assert_true(count < TRIES_MAX - 1);
        at_s[count] = at_s[count - 1] + pause_s;
        pause_s = pause_s >= 1800 ? 3600 : 2 * pause_s;
    }
    if (horizon_s > 0)
        at_s[count++] = horizon_s;
    return count;
}

/* What has been captured of one delivery. */
struct ledger {
    char keys[EVENTS_MAX][OH_KEY_BYTES_MAX + 1];
    size_t count, captured, duplicates;
};

static void capture(struct ledger *ledger, const struct oh_extraction *found)
{
    for (size_t i = 0; i < found->count; i++) {
        struct oh_slice key = found->events[i].key;
        size_t k = 0;
        while (k < ledger->count && (strlen(ledger->keys[k]) != key.len ||
                                     memcmp(ledger->keys[k], key.data, key.len) != 0))
            k++;
        if (k < ledger->count) {
            ledger->duplicates++;
            continue;
        }
        assert_true(ledger->count < EVENTS_MAX && key.len <= OH_KEY_BYTES_MAX);
        memcpy(ledger->keys[ledger->count++], key.data, key.len);
        ledger->captured++;
    }
}

/* A provider with one delivery. */
struct play {
    const char *name;
    const struct oh_recipe *recipe;
    struct oh_recipe_info info;
    struct oh_request request;
    struct oh_header headers[VECTOR_HEADERS_MAX + OH_SIGN_HEADERS_MAX];
    struct oh_keyring *ring;
    struct oh_signer *signer; /* not NULL: each try is signed anew */
    struct oh_mapping *mapping;
    int64_t base_ms; /* when it is sent for the first time */
};

static bool is_of_signature(const struct oh_recipe *recipe, struct oh_slice name)
{
    const struct recipe_names *lists[] = {&recipe->signature.names, &recipe->signature.also,
                                          &recipe->timestamp.names};
    for (size_t l = 0; l < 3; l++)
        for (size_t i = 0; i < lists[l]->count; i++)
            if (slice_equals_nocase(lists[l]->items[i], name))
                return true;
    return slice_equals_nocase(name, SLICE_LITERAL("x-contentful-signed-headers"));
}

/* What arrives at this try: ids stay, signature and time may be fresh. */
static void make_try(const struct play *play, int64_t now_ms, struct oh_arena *arena,
                     struct oh_header *headers, struct oh_request *out)
{
    struct oh_signed done;
    struct oh_error err;
    *out = play->request;
    if (!play->signer)
        return;
    out->headers = headers;
    out->header_count = 0;
    for (size_t i = 0; i < play->request.header_count; i++)
        if (!is_of_signature(play->recipe, play->request.headers[i].name))
            headers[out->header_count++] = play->request.headers[i];
    if (oh_sign(play->signer, out, now_ms, arena, &done, &err))
        fail_msg("%s: %s", play->name, err.text);
    memcpy(headers + out->header_count, done.headers, done.count * sizeof(*headers));
    out->header_count += done.count;
}

/* One try outside the outage, as `serve` judges it. */
static void arrive(const struct play *play, int64_t at_s, struct ledger *ledger)
{
    struct oh_header headers[VECTOR_HEADERS_MAX + OH_SIGN_HEADERS_MAX];
    struct oh_arena *arena = oh_arena_new(16384, 16 << 20);
    struct oh_request request;
    struct oh_verify_result result;
    struct oh_extraction found = {.count = 0};
    struct oh_error err;
    int64_t now_ms = play->base_ms + at_s * 1000;
    make_try(play, now_ms, arena, headers, &request);
    if (oh_verify(play->recipe, play->ring, &request, now_ms, play->info.serve_tolerance_s, arena,
                  &result) != OH_ACCEPTED)
        fail_msg("%s: a retry after %lld s: %s", play->name, (long long)at_s, result.because);
    enum oh_status status = oh_extract(play->recipe, play->mapping, &request, now_ms * 1000,
                                       EVENTS_MAX, arena, &found, &err);
    if (status == OH_OK)
        capture(ledger, &found);
    else
        assert_int_equal(status, OH_UNREADABLE); /* kept once by its bytes, which are the same */
    oh_arena_free(arena);
}

/* first_s: when the delivery is made, counted from the beginning of the outage; below 0 it is
 * committed, and the answer is lost. Gives whether any try came through. */
static bool play_delivery(const struct play *play, int64_t first_s)
{
    struct ledger ledger = {.count = 0};
    int64_t at_s[TRIES_MAX];
    size_t count = plan_tries(&play->info, at_s), arrived = 0;
    for (size_t i = 0; i < count; i++) {
        bool is_away = first_s + at_s[i] >= 0 && first_s + at_s[i] < OUTAGE_S;
        if (is_away)
            continue;
        arrive(play, at_s[i], &ledger);
        if (++arrived > 1 || first_s >= 0)
            break; /* it has its 200 */
    }
    if (arrived > 1 && ledger.duplicates != ledger.captured)
        fail_msg("%s: %zu events, %zu of them known at the retry", play->name, ledger.captured,
                 ledger.duplicates);
    return arrived > 0;
}

/* All moments of the outage at which a delivery may be made, and the last one before it. */
static void play_outage(struct play *play)
{
    static const int64_t firsts_s[] = {-1, 0, 1, 600, 1800, 3000, 3599};
    int64_t at_s[TRIES_MAX];
    size_t count = plan_tries(&play->info, at_s);
    for (size_t i = 0; i < sizeof(firsts_s) / sizeof(firsts_s[0]); i++) {
        bool came = play_delivery(play, firsts_s[i]);
        bool has_to = firsts_s[i] < 0 || firsts_s[i] + at_s[count - 1] >= OUTAGE_S;
        assert_int_equal(came, has_to);
    }
}

/* True where a whole hour is longer than the provider goes on. */
static bool gives_up(const struct oh_recipe_info *info)
{
    int64_t at_s[TRIES_MAX];
    if (info->retry_horizon_s < 0)
        return false; /* nobody knows */
    return info->retry_after_count > 0 ? at_s[plan_tries(info, at_s) - 1] < OUTAGE_S
                                       : info->retry_horizon_s <= OUTAGE_S;
}

/* ---- the recorded requests ------------------------------------------------------------------- */

/* A request's own time is when it was sent first. */
static int64_t time_of(const struct play *play, int64_t now_ms, struct oh_arena *arena)
{
    struct oh_explanation told;
    assert_int_equal(oh_explain(play->recipe, play->ring, &play->request, now_ms,
                                OH_TOLERANCE_OF_SCHEME, arena, &told),
                     OH_ACCEPTED);
    return told.has_time ? told.time_ms : now_ms;
}

static void play_vector(const struct vector *vector, struct oh_arena *arena)
{
    struct play play = {.name = vector->id, .recipe = vector->recipe, .request = vector->request};
    struct oh_error err;
    oh_recipe_describe(vector->recipe, &play.info);
    play.ring = vector_ring(vector, vector->secrets);
    play.base_ms = time_of(&play, vector->now_s * 1000, arena);
    if (play.info.retries_signed_anew &&
        oh_signer_new(vector->recipe, vector->secrets[vector->secret_count - 1], &play.signer,
                      &err))
        fail_msg("%s: %s", vector->id, err.text);
    assert_int_equal(oh_mapping_new(vector->recipe, &(struct oh_map){NULL, NULL, NULL, NULL},
                                    &play.mapping, &err),
                     OH_OK);
    play_outage(&play);
    oh_mapping_free(play.mapping);
    oh_signer_free(play.signer);
    oh_keyring_free(play.ring);
}

/* Recipes without a recorded request: one is signed here. */
static void play_made(const struct oh_recipe *recipe)
{
    struct play play = {.recipe = recipe, .base_ms = 1766000000000};
    struct oh_made_key key;
    struct oh_signer *signer;
    struct oh_error err;
    struct oh_signed done;
    struct oh_arena *arena = oh_arena_new(4096, 1 << 20);
    oh_recipe_describe(recipe, &play.info);
    play.name = play.info.scheme;
    play.request = (struct oh_request){.method = SLICE_LITERAL("POST"),
                                       .url = SLICE_LITERAL("https://hooks.example.com/in/a"),
                                       .headers = play.headers,
                                       .body = SLICE_LITERAL("{\"id\":\"a1\",\"type\":\"b\"}")};
    assert_int_equal(oh_key_make(recipe, &key, &err), OH_OK);
    struct oh_slice half = slice_of_text(key.private_half[0] ? key.private_half : key.shown);
    play.ring = oh_keyring_new(recipe);
    assert_int_equal(oh_keyring_add(play.ring, slice_of_text(key.shown), &err), OH_OK);
    assert_int_equal(oh_signer_new(recipe, half, &signer, &err), OH_OK);
    if (oh_sign(signer, &play.request, play.base_ms, arena, &done, &err))
        fail_msg("%s: %s", play.name, err.text);
    memcpy(play.headers, done.headers, done.count * sizeof(play.headers[0]));
    play.request.header_count = done.count;
    play.request.url = done.url;
    play.request.body = done.body;
    if (play.info.retries_signed_anew)
        play.signer = signer;
    assert_int_equal(
        oh_mapping_new(recipe, &(struct oh_map){NULL, NULL, NULL, NULL}, &play.mapping, &err),
        OH_OK);
    play_outage(&play);
    oh_mapping_free(play.mapping);
    oh_signer_free(signer);
    oh_keyring_free(play.ring);
    oh_arena_free(arena);
}

static bool has_vector(const json_t *list, const struct oh_recipe *recipe)
{
    const json_t *item;
    size_t i;
    json_array_foreach(list, i, item)
    {
        const char *scheme = json_string_value(json_object_get(item, "scheme"));
        if (scheme && strcmp(scheme, recipe->info.scheme) == 0)
            return true;
    }
    return false;
}

static void every_retry_after_an_outage_counts_once(void **state)
{
    (void)state;
    json_t *list = vectors_load(), *item;
    struct oh_catalog *catalog;
    struct oh_error err;
    size_t i, recorded = 0, made = 0;
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    json_array_foreach(list, i, item)
    {
        struct vector vector;
        struct oh_arena *arena = oh_arena_new(16384, 16 << 20);
        vector_read(catalog, item, arena, &vector);
        if (vector.is_accepted) {
            play_vector(&vector, arena);
            recorded++;
        }
        oh_arena_free(arena);
    }
    for (i = 0; i < oh_catalog_count(catalog); i++)
        if (!has_vector(list, oh_catalog_at(catalog, i))) {
            play_made(oh_catalog_at(catalog, i));
            made++;
        }
    print_message("%zu recorded requests, %zu made\n", recorded, made);
    assert_int_equal(made, 11); /* the ten, and HighLevel with Ed25519 */
    oh_catalog_free(catalog);
    json_decref(list);
}

/* Who goes on for less than an hour stands in the documentation: there, only `outage: spool` keeps
 * what comes. */
static void who_gives_up_within_the_hour_is_documented(void **state)
{
    (void)state;
    struct oh_catalog *catalog;
    struct oh_error err;
    struct oh_recipe_info info;
    char names[2048] = "", *page;
    const char *last = "";
    size_t len = 0;
    FILE *file = fopen(PROVIDERS_PAGE, "r");
    assert_non_null(file);
    page = calloc(1, 1 << 20);
    assert_true(page && fread(page, 1, (1 << 20) - 1, file) > 0);
    fclose(file);
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    for (size_t i = 0; i < oh_catalog_count(catalog); i++) {
        oh_recipe_describe(oh_catalog_at(catalog, i), &info);
        if (!gives_up(&info) || strcmp(last, info.provider) == 0)
            continue;
        last = info.provider;
        len += (size_t)snprintf(names + len, sizeof(names) - len, "%s`%s`", len ? ", " : "", last);
        assert_true(len < sizeof(names));
    }
    if (!strstr(page, names))
        fail_msg("docs/providers.md does not have: %s", names);
    free(page);
    oh_catalog_free(catalog);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_retry_after_an_outage_counts_once),
        cmocka_unit_test(who_gives_up_within_the_hour_is_documented),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
