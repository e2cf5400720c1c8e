/* SPDX-License-Identifier: Apache-2.0 */
/* Of every recorded request that is accepted: no byte of its body, signature, time or secret can be
 * another one. Where a provider does not sign something, the table says so, and has to be right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "vector_support.h"

#include "base/slice.h"
#include "recipe/recipe.h"
#include "verify/claim.h"

#include <stdio.h>
#include <stdlib.h>

enum what { BODY, SIGNATURE, TIME, SECRET, WHATS };
static const char *const what_names[] = {"body", "signature", "time", "secret"};

/* What is not bound, by scheme or algorithm, and only between `from` and `to` where they are given
 * (and behind the body's end).
 * docs/providers.md says the same for people. */
static const struct exception {
    const char *name;
    enum what what;
    const char *from, *to;
} exceptions[] = {
    {"token", BODY, NULL, NULL}, /* nothing is signed */
    {"basic", BODY, NULL, NULL},
    {"adyen", BODY, NULL, NULL}, /* eight fields of an item are */
    {"aws_sns", BODY, "UnsubscribeURL", "Signature\": "},
    {"braintree", BODY, "bt_signature=", NULL}, /* whose key it is; further pairs */
    {"mailgun", BODY, "event-data", NULL},
    {"mailgun_legacy_form", BODY, "event=", "signature="},
    {"monday", BODY, NULL, NULL},   /* the token does not name the body */
    {"plivo_v2", BODY, NULL, NULL}, /* URL and nonce only */
    {"heygen", TIME, NULL, NULL},
    {"plaid", SECRET, NULL, NULL}, /* members of the JWK beside kty, crv, x, y and kid */
};
enum { EXCEPTIONS = sizeof(exceptions) / sizeof(exceptions[0]) };

struct counts {
    size_t tried[WHATS];
    bool seen[EXCEPTIONS];
};

/* Where a text of the body begins; its end when it is not there. */
static size_t place_of(struct oh_slice body, const char *text)
{
    const char *at = text ? memmem(body.data, body.len, text, strlen(text)) : NULL;
    return at ? (size_t)(at - body.data) : body.len;
}

static bool is_excepted(const struct vector *vector, enum what what, size_t at,
                        struct counts *counts)
{
    const struct oh_recipe_info *info = &vector->recipe->info;
    struct oh_slice body = vector->body;
    for (size_t i = 0; i < EXCEPTIONS; i++) {
        const struct exception *row = &exceptions[i];
        if (row->what == what &&
            (strcmp(row->name, info->scheme) == 0 || strcmp(row->name, info->algorithm) == 0) &&
            (!row->from || at > body.len ||
             (at >= place_of(body, row->from) && (!row->to || at < place_of(body, row->to)))))
            return counts->seen[i] = true;
    }
    return false;
}

static bool accepts(const struct vector *vector, const struct oh_keyring *ring)
{
    struct oh_arena *arena = oh_arena_new(16384, 16 << 20);
    bool accepted = oh_verify(vector->recipe, ring, &vector->request, vector->now_s * 1000,
                              OH_TOLERANCE_OF_SCHEME, arena, NULL) == OH_ACCEPTED;
    oh_arena_free(arena);
    return accepted;
}

static void check(const struct vector *vector, const struct oh_keyring *ring, enum what what,
                  size_t at, struct counts *counts)
{
    counts->tried[what]++;
    if (accepts(vector, ring) && !is_excepted(vector, what, at, counts))
        fail_msg("%s: accepted with another %s, at byte %zu", vector->id, what_names[what], at);
}

/* The other case of an escape's digit (%2B, %2b) is the same byte of a form that is decoded. */
static bool is_escape_digit(struct oh_slice body, size_t at)
{
    return (at >= 1 && body.data[at - 1] == '%') || (at >= 2 && body.data[at - 2] == '%');
}

/* Each byte another one, in two ways; one more, one less, none. */
static void alter_body(struct vector *vector, const struct oh_keyring *ring, struct counts *counts)
{
    struct oh_slice body = vector->request.body;
    char *changed = malloc(body.len + 1);
    assert_non_null(changed);
    memcpy(changed, body.data, body.len);
    changed[body.len] = '\n';
    vector->request.body = slice_of(changed, body.len);
    for (size_t i = 0; i < body.len; i++) {
        static const char masks[] = {1, 0x20}; /* another letter; the other case */
        for (size_t m = 0; m < (is_escape_digit(body, i) ? 1 : sizeof(masks)); m++) {
            changed[i] = (char)(body.data[i] ^ masks[m]);
            check(vector, ring, BODY, i, counts);
        }
        changed[i] = body.data[i];
    }
    static const int lengths[] = {1, -1};
    for (size_t i = 0; i < 2 && body.len > 1; i++) {
        vector->request.body.len = body.len + (size_t)lengths[i];
        check(vector, ring, BODY, vector->request.body.len, counts);
    }
    vector->request.body.len = 0;
    if (body.len > 0)
        check(vector, ring, BODY, 0, counts);
    vector->request.body = body;
    free(changed);
}

/* The same text, at its place in the copy of a text that holds it. */
static bool is_in(struct oh_slice part, struct oh_slice whole)
{
    return part.len > 0 && part.data >= whole.data &&
           part.data + part.len <= whole.data + whole.len;
}

/* A request of which every text is ours to write. */
static void own_texts(struct vector *vector)
{
    struct oh_request *request = &vector->request;
    struct oh_slice *texts[VECTOR_HEADERS_MAX + 2] = {&request->body, &request->url};
    for (size_t i = 0; i < request->header_count; i++)
        texts[2 + i] = &vector->headers[i].value;
    for (size_t i = 0; i < request->header_count + 2; i++) {
        char *copy = malloc(texts[i]->len + 1);
        assert_non_null(copy);
        memcpy(copy, texts[i]->len ? texts[i]->data : "", texts[i]->len);
        *texts[i] = slice_of(copy, texts[i]->len);
    }
}

static void free_texts(struct vector *vector)
{
    free((char *)vector->request.body.data);
    free((char *)vector->request.url.data);
    for (size_t i = 0; i < vector->request.header_count; i++)
        free((char *)vector->headers[i].value.data);
}

/* Where a claimed text stands in the request; decoded ones are looked for. */
static char *find_place(const struct vector *vector, struct oh_slice text)
{
    const struct oh_request *request = &vector->request;
    if (is_in(text, request->body) || is_in(text, request->url))
        return (char *)text.data;
    for (size_t i = 0; i < request->header_count; i++)
        if (is_in(text, request->headers[i].value))
            return (char *)text.data;
    char *at = text.len ? memmem(request->url.data, request->url.len, text.data, text.len) : NULL;
    return at || !text.len ? at
                           : memmem(request->body.data, request->body.len, text.data, text.len);
}

/* Each character of all these texts at once. */
static void alter_texts(struct vector *vector, const struct oh_keyring *ring,
                        const struct oh_slice *texts, size_t count, enum what what,
                        struct counts *counts)
{
    char *places[CANDIDATES_MAX];
    size_t longest = 0;
    for (size_t i = 0; i < count; i++) {
        places[i] = find_place(vector, texts[i]);
        if (!places[i])
            fail_msg("%s: the %s is not found", vector->id, what_names[what]);
        longest = texts[i].len > longest ? texts[i].len : longest;
    }
    for (size_t at = 0; at < longest; at++) {
        for (int way = 0; way < 2; way++) {
            char old[CANDIDATES_MAX];
            for (size_t i = 0; i < count; i++) {
                char *c = at < texts[i].len ? places[i] + at : NULL;
                if (!c)
                    continue;
                old[i] = *c;
                *c = (char)(way == 0 ? *c ^ 1 : *c == '0' ? '7' : '0');
            }
            check(vector, ring, what, at, counts);
            for (size_t i = 0; i < count; i++)
                if (at < texts[i].len)
                    places[i][at] = old[i];
        }
    }
}

/* Where signature and time stand, as the engine itself finds them. */
static void alter_claim(struct vector *vector, const struct oh_keyring *ring, struct counts *counts)
{
    struct oh_arena *arena = oh_arena_new(16384, 16 << 20);
    const struct oh_recipe *recipe = vector->recipe;
    struct scan_plan plan = {.want_count = recipe->json_count};
    struct scan_result found = {.first = NULL};
    struct message_source from = {.recipe = recipe, .request = &vector->request, .arena = arena};
    struct claim claim;
    for (size_t i = 0; i < recipe->json_count; i++)
        plan.wants[i] = (struct scan_want){recipe->json[i], true};
    if (recipe->json_count > 0 && !recipe->each_item &&
        scan_body(&plan, vector->request.body, 1000, arena, &found, NULL) == OH_OK)
        from.json = found.body_values;
    if (!recipe->each_item) {
        if (!claim_read(&from, &claim))
            fail_msg("%s: %s", vector->id, claim.because);
        alter_texts(vector, ring, claim.candidates, claim.count, SIGNATURE, counts);
        if (claim.ts.data)
            alter_texts(vector, ring, &claim.ts, 1, TIME, counts);
    }
    oh_arena_free(arena);
}

/* Each character of every secret at once. */
static void alter_secrets(const struct vector *vector, struct counts *counts)
{
    struct oh_slice secrets[VECTOR_SECRETS_MAX];
    char *texts[VECTOR_SECRETS_MAX];
    size_t longest = 0;
    for (size_t i = 0; i < vector->secret_count; i++) {
        secrets[i] = vector->secrets[i];
        longest = secrets[i].len > longest ? secrets[i].len : longest;
        texts[i] = malloc(secrets[i].len + 1);
        assert_non_null(texts[i]);
        memcpy(texts[i], secrets[i].data, secrets[i].len);
        secrets[i].data = texts[i];
    }
    for (size_t at = 0; at < longest; at++) {
        for (size_t i = 0; i < vector->secret_count; i++)
            if (at < secrets[i].len)
                texts[i][at] = strchr("bB", texts[i][at]) ? 'C' : 'B';
        struct oh_keyring *ring = vector_ring(vector, secrets);
        check(vector, ring, SECRET, at, counts);
        oh_keyring_free(ring);
        for (size_t i = 0; i < vector->secret_count; i++)
            if (at < secrets[i].len)
                texts[i][at] = vector->secrets[i].data[at];
    }
    for (size_t i = 0; i < vector->secret_count; i++)
        free(texts[i]);
}

static void nothing_altered_is_accepted(void **state)
{
    (void)state;
    json_t *list = vectors_load(), *item;
    struct oh_catalog *catalog;
    struct oh_error err;
    struct counts counts = {.tried = {0}};
    size_t i, accepted = 0;
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    json_array_foreach(list, i, item)
    {
        struct vector vector;
        struct oh_arena *arena = oh_arena_new(4096, 1 << 20);
        vector_read(catalog, item, arena, &vector);
        if (vector.is_accepted) {
            struct oh_keyring *ring = vector_ring(&vector, vector.secrets);
            assert_true(accepts(&vector, ring));
            own_texts(&vector);
            alter_body(&vector, ring, &counts);
            alter_claim(&vector, ring, &counts);
            alter_secrets(&vector, &counts);
            free_texts(&vector);
            oh_keyring_free(ring);
            accepted++;
        }
        oh_arena_free(arena);
    }
    print_message("%zu requests:", accepted);
    for (size_t w = 0; w < WHATS; w++)
        print_message(" %s %zu", what_names[w], counts.tried[w]);
    print_message("\n");
    for (size_t e = 0; e < EXCEPTIONS; e++)
        if (!counts.seen[e])
            fail_msg("%s is no exception: take it out of the table", exceptions[e].name);
    oh_catalog_free(catalog);
    json_decref(list);
}

/* Of every recorded request: oh_explain() decides as oh_verify() does, for the same reason, and
 * shows bytes or names what is missing whenever it refuses a signature. No secret is among what it
 * shows.
 */
static void what_is_explained_is_what_was_decided(void **state)
{
    (void)state;
    json_t *list = vectors_load(), *item;
    struct oh_catalog *catalog;
    struct oh_error err;
    size_t i;
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    json_array_foreach(list, i, item)
    {
        struct vector vector;
        struct oh_verify_result result;
        struct oh_explanation told;
        struct oh_arena *arena = oh_arena_new(16384, 64 << 20);
        vector_read(catalog, item, arena, &vector);
        struct oh_keyring *ring = vector_ring(&vector, vector.secrets);
        enum oh_verdict verdict =
            oh_verify(vector.recipe, ring, &vector.request, vector.now_s * 1000,
                      OH_TOLERANCE_OF_SCHEME, arena, &result);
        assert_int_equal(verdict,
                         oh_explain(vector.recipe, ring, &vector.request, vector.now_s * 1000,
                                    OH_TOLERANCE_OF_SCHEME, arena, &told));
        assert_string_equal(result.because, told.result.because);
        assert_int_equal(result.secret_index, told.result.secret_index);
        assert_true(verdict != OH_STALE || told.has_time || vector.recipe->algorithm == RECIPE_JWT);
        bool is_signed = vector.recipe->algorithm < RECIPE_TOKEN;
        if (verdict != OH_SIGNATURE_MISSING && is_signed && told.message_count == 0 &&
            !strstr(told.result.because, "token") &&
            !strstr(told.result.because, "a part of what the scheme signs"))
            fail_msg("%s: no bytes are shown", vector.id);
        for (size_t m = 0; m < told.message_count; m++)
            for (size_t s = 0; s < vector.secret_count; s++) {
                struct oh_slice secret = vector.secrets[s], shown = told.messages[m];
                bool is_named = vector.certs || secret.len < 8; /* a topic is no secret */
                if (!is_named && memmem(shown.data, shown.len, secret.data, secret.len))
                    fail_msg("%s: shows its secret", vector.id);
            }
        oh_keyring_free(ring);
        oh_arena_free(arena);
    }
    oh_catalog_free(catalog);
    json_decref(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_altered_is_accepted),
        cmocka_unit_test(what_is_explained_is_what_was_decided),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
