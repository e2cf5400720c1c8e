/* SPDX-License-Identifier: Apache-2.0 */
/* config/vault.h. Two locks: `build` orders those who make a new set, `mutex` guards which set is
 * in use and who holds what, for moments only. */
#include "config/vault.h"

#include "base/slice.h"
#include "config/loader.h"
#include "recipe/recipe.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

struct vault {
    const struct config *config;
    pthread_mutex_t build, mutex;
    struct vault_set *_Atomic current;
    struct vault_certificate *certificates; /* with `build` held */
    size_t certificate_count;
};

/* ---- making a set ---------------------------------------------------------------------------- */

static void clear_door(struct vault_door *door)
{
    for (size_t i = 0; i < door->secret_count; i++)
        secret_free(&door->secrets[i].text);
    free(door->secrets);
    oh_keyring_free(door->keyring);
    text_free_wiped(door->verify_token);
    text_free_wiped(door->public_key);
}

static void free_set(const struct vault *vault, struct vault_set *set)
{
    for (size_t i = 0; set && i < vault->config->source_count; i++)
        clear_door(&set->doors[i]);
    free(set);
}

static struct vault_set *new_set(const struct vault *vault)
{
    struct vault_set *set =
        calloc(1, sizeof(*set) + vault->config->source_count * sizeof(set->doors[0]));
    if (set)
        set->users = 1;
    return set;
}

/* Room for `count` secrets, and the certificates that the source's requests may name. */
static enum oh_status open_door(const struct vault *vault, struct vault_door *door,
                                const struct config_source *source, size_t count,
                                struct oh_error *err)
{
    enum oh_status status = OH_OK;
    door->keyring = oh_keyring_new(source->recipe);
    door->secrets = calloc(count + 1, sizeof(*door->secrets));
    if (!door->keyring || !door->secrets)
        return oh_fail(err, OH_NO_MEMORY, "no memory for secrets");
    bool names_one = source->recipe->key_form == RECIPE_KEY_CERT_URL;
    for (size_t i = 0; names_one && i < vault->certificate_count && status != OH_NO_MEMORY; i++)
        status =
            oh_keyring_add_certificate(door->keyring, slice_of_text(vault->certificates[i].url),
                                       slice_of_text(vault->certificates[i].pem), err);
    return status == OH_NO_MEMORY ? status : OH_OK;
}

/* A copy of `text` under these terms. */
static enum oh_status put_secret(struct vault_door *door, struct oh_slice text,
                                 const struct config_terms *terms, bool is_learned,
                                 struct oh_error *err)
{
    struct vault_secret *secret = &door->secrets[door->secret_count];
    enum oh_status status = oh_keyring_add(door->keyring, text, err);
    if (status != OH_OK)
        return status;
    char *bytes = malloc(text.len);
    if (!bytes)
        return oh_fail(err, OH_NO_MEMORY, "no memory for secrets");
    memcpy(bytes, text.data, text.len);
    oh_keyring_limit(door->keyring, terms->not_before_ms, terms->not_after_ms);
    secret->terms = *terms;
    secret->text.bytes = slice_of(bytes, text.len);
    secret->is_learned = is_learned;
    door->secret_count++;
    return OH_OK;
}

static bool copy_text(char **to, const char *from)
{
    *to = from ? strdup(from) : NULL;
    return !from || *to;
}

static enum oh_status put_options(struct vault_door *door, const char *verify_token,
                                  const char *public_key, int64_t arm_until_ms,
                                  struct oh_error *err)
{
    door->arm_until_ms = arm_until_ms;
    return copy_text(&door->verify_token, verify_token) && copy_text(&door->public_key, public_key)
               ? OH_OK
               : oh_fail(err, OH_NO_MEMORY, "no memory for secrets");
}

/* The secrets of `from` that handshakes brought, or the others. */
static enum oh_status put_kept(struct vault_door *door, const struct vault_door *from, bool learned,
                               struct oh_error *err)
{
    enum oh_status status = OH_OK;
    for (size_t i = 0; from && i < from->secret_count && status == OH_OK; i++) {
        const struct vault_secret *secret = &from->secrets[i];
        if (secret->is_learned == learned)
            status = put_secret(door, secret->text.bytes, &secret->terms, learned, err);
        if (learned && status == OH_INVALID)
            status = OH_OK; /* the ring is full: what is configured goes first */
    }
    return status;
}

/* All that is configured, as it was. */
static enum oh_status put_was(struct vault_door *door, const struct vault_door *was,
                              struct oh_error *err)
{
    enum oh_status status =
        put_options(door, was->verify_token, was->public_key, was->arm_until_ms, err);
    return status == OH_OK ? put_kept(door, was, false, err) : status;
}

static enum oh_status put_configured(struct vault_door *door, const struct config_source *source,
                                     struct oh_error *err)
{
    enum oh_status status =
        put_options(door, source->verify_token, source->public_key, source->arm_until_ms, err);
    for (size_t i = 0; i < source->secret_count && status == OH_OK; i++)
        status = put_secret(door, source->secrets[i].bytes, &source->terms[i], false, err);
    return status;
}

/* ---- when a secret last matched -------------------------------------------------------------- */

static void note_later(struct vault_secret *secret, int64_t unix_s)
{
    int64_t known = atomic_load_explicit(&secret->matched_s, memory_order_relaxed);
    while (unix_s > known &&
           !atomic_compare_exchange_weak_explicit(&secret->matched_s, &known, unix_s,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

void vault_note_match(const struct vault_door *door, int index, int64_t unix_s)
{
    if (index >= 0 && (size_t)index < door->secret_count)
        note_later(&door->secrets[index], unix_s);
}

/* The same secret is known by its bytes: its place and name may have changed. */
static void carry_matches(const struct vault *vault, const struct vault_set *from,
                          struct vault_set *to)
{
    for (size_t i = 0; i < vault->config->source_count; i++)
        for (size_t k = 0; k < from->doors[i].secret_count; k++) {
            const struct vault_secret *old = &from->doors[i].secrets[k];
            struct oh_slice text = old->text.bytes;
            for (size_t n = 0; n < to->doors[i].secret_count; n++) {
                struct vault_secret *fresh = &to->doors[i].secrets[n];
                if (fresh->text.bytes.len == text.len &&
                    CRYPTO_memcmp(fresh->text.bytes.data, text.data, text.len) == 0)
                    note_later(fresh, atomic_load_explicit(&old->matched_s, memory_order_relaxed));
            }
        }
}

void vault_print_matches(void *context, FILE *page, const char *metric)
{
    struct vault *vault = context;
    const struct vault_set *set = vault_get(vault, NULL);
    for (size_t i = 0; i < vault->config->source_count; i++)
        for (size_t k = 0; k < set->doors[i].secret_count; k++)
            fprintf(page, "%s{source=\"%s\",secret=\"%s\"} %lld\n", metric,
                    vault->config->sources[i].name, set->doors[i].secrets[k].terms.name,
                    (long long)atomic_load(&set->doors[i].secrets[k].matched_s));
    vault_leave(vault, set);
}

/* ---- the set in use -------------------------------------------------------------------------- */

/* With the mutex held; true if nobody holds it any more: then it is the caller's to free. */
static bool end_use(struct vault *vault, struct vault_set *set)
{
    if (!set || --set->users > 0)
        return false;
    struct vault_set *now = atomic_load_explicit(&vault->current, memory_order_relaxed);
    if (now && now != set)
        carry_matches(vault, set, now); /* what it saw since it was replaced */
    return true;
}

const struct vault_set *vault_get(struct vault *vault, const struct vault_set *held)
{
    if (held && atomic_load_explicit(&vault->current, memory_order_acquire) == held)
        return held;
    struct vault_set *old = (struct vault_set *)held; /* only the vault changes `users` */
    pthread_mutex_lock(&vault->mutex);
    struct vault_set *now = atomic_load_explicit(&vault->current, memory_order_relaxed);
    now->users++;
    bool is_last = end_use(vault, old);
    pthread_mutex_unlock(&vault->mutex);
    if (is_last)
        free_set(vault, old);
    return now;
}

void vault_leave(struct vault *vault, const struct vault_set *held)
{
    struct vault_set *set = (struct vault_set *)held;
    pthread_mutex_lock(&vault->mutex);
    bool is_last = end_use(vault, set);
    pthread_mutex_unlock(&vault->mutex);
    if (is_last)
        free_set(vault, set);
}

static void use(struct vault *vault, struct vault_set *fresh)
{
    pthread_mutex_lock(&vault->mutex);
    struct vault_set *old = atomic_load_explicit(&vault->current, memory_order_relaxed);
    if (old)
        carry_matches(vault, old, fresh);
    atomic_store_explicit(&vault->current, fresh, memory_order_release);
    bool is_last = end_use(vault, old);
    pthread_mutex_unlock(&vault->mutex);
    if (is_last)
        free_set(vault, old);
}

struct oh_slice vault_secret_at(const struct vault_door *door, int64_t now_ms)
{
    for (size_t i = 0; i < door->secret_count; i++)
        if (now_ms >= door->secrets[i].terms.not_before_ms &&
            now_ms <= door->secrets[i].terms.not_after_ms)
            return door->secrets[i].text.bytes;
    return slice_of(NULL, 0);
}

/* The source of that name, if it is still one of this provider and scheme: another one's secrets
 * would only refuse what comes until the restart. */
static const struct config_source *find_same(const struct config *fresh,
                                             const struct config_source *source)
{
    const struct config_source *said = config_find_source(fresh, slice_of_text(source->name));
    struct oh_recipe_info was, is;
    if (!said)
        return NULL;
    oh_recipe_describe(source->recipe, &was);
    oh_recipe_describe(said->recipe, &is);
    return strcmp(was.provider, is.provider) == 0 && strcmp(was.scheme, is.scheme) == 0 ? said
                                                                                        : NULL;
}

/* ---- changes --------------------------------------------------------------------------------- */

/* With `build` held. */
static enum oh_status replace(struct vault *vault, const struct config *fresh, struct oh_error *err)
{
    const struct vault_set *old = atomic_load(&vault->current);
    struct vault_set *set = new_set(vault);
    enum oh_status status = set ? OH_OK : oh_fail(err, OH_NO_MEMORY, "no memory for secrets");
    for (size_t i = 0; i < vault->config->source_count && status == OH_OK; i++) {
        const struct config_source *source = &vault->config->sources[i];
        const struct config_source *said = find_same(fresh, source);
        const struct vault_door *was = old ? &old->doors[i] : NULL;
        struct vault_door *door = &set->doors[i];
        status = open_door(vault, door, source,
                           (said ? said->secret_count : 0) + (was ? was->secret_count : 0), err);
        if (status == OH_OK && said)
            status = put_configured(door, said, err);
        else if (status == OH_OK && was) /* the source itself goes with the next restart */
            status = put_was(door, was, err);
        if (status == OH_OK)
            status = put_kept(door, was, true, err);
        if (status != OH_OK && err->text[0]) {
            struct oh_error why = *err;
            (void)oh_fail(err, status, "source %s: %s", source->name, why.text);
        }
    }
    if (status == OH_OK)
        use(vault, set);
    else
        free_set(vault, set);
    return status;
}

enum oh_status vault_reload(struct vault *vault, const struct config *fresh, struct oh_error *err)
{
    pthread_mutex_lock(&vault->build);
    enum oh_status status = replace(vault, fresh, err);
    pthread_mutex_unlock(&vault->build);
    return status;
}

/* The last ones of this source; one that its scheme does not take is left out. */
static enum oh_status put_learned(struct vault_door *door, const struct config_source *source,
                                  const struct vault_learned *learned, size_t count,
                                  struct oh_error *err)
{
    size_t mine = 0;
    enum oh_status status = OH_OK;
    for (size_t i = 0; i < count; i++)
        mine += strcmp(learned[i].source, source->name) == 0;
    for (size_t i = 0; i < count && status == OH_OK; i++) {
        struct config_terms terms = {.not_before_ms = INT64_MIN, .not_after_ms = INT64_MAX};
        if (strcmp(learned[i].source, source->name) != 0 || mine-- > VAULT_LEARNED_MAX)
            continue;
        snprintf(terms.name, sizeof(terms.name), "learned-%lld", (long long)learned[i].id);
        status = put_secret(door, learned[i].secret, &terms, true, err);
        if (status == OH_INVALID)
            status = OH_OK;
    }
    return status;
}

static bool same_secrets(const struct vault_door *a, const struct vault_door *b)
{
    bool same = a->secret_count == b->secret_count;
    for (size_t i = 0; same && i < a->secret_count; i++)
        same = strcmp(a->secrets[i].terms.name, b->secrets[i].terms.name) == 0;
    return same;
}

enum oh_status vault_learn(struct vault *vault, const struct vault_learned *learned, size_t count,
                           bool *changed, struct oh_error *err)
{
    pthread_mutex_lock(&vault->build);
    const struct vault_set *old = atomic_load(&vault->current);
    struct vault_set *set = new_set(vault);
    enum oh_status status = set ? OH_OK : oh_fail(err, OH_NO_MEMORY, "no memory for secrets");
    *changed = false;
    for (size_t i = 0; i < vault->config->source_count && status == OH_OK; i++) {
        const struct config_source *source = &vault->config->sources[i];
        const struct vault_door *was = &old->doors[i];
        struct vault_door *door = &set->doors[i];
        status = open_door(vault, door, source, was->secret_count + VAULT_LEARNED_MAX, err);
        if (status == OH_OK)
            status = put_was(door, was, err);
        if (status == OH_OK)
            status = put_learned(door, source, learned, count, err);
        *changed |= status == OH_OK && !same_secrets(door, was);
    }
    if (status == OH_OK && *changed)
        use(vault, set);
    else
        free_set(vault, set);
    pthread_mutex_unlock(&vault->build);
    return status;
}

static void free_certificates(struct vault_certificate *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free((char *)list[i].url);
        free((char *)list[i].pem);
    }
    free(list);
}

static struct vault_certificate *copy_certificates(const struct vault_certificate *list,
                                                   size_t count)
{
    struct vault_certificate *copy = calloc(count + 1, sizeof(*copy));
    bool done = copy;
    for (size_t i = 0; done && i < count; i++) {
        copy[i] = (struct vault_certificate){strdup(list[i].url), strdup(list[i].pem)};
        done = copy[i].url && copy[i].pem;
    }
    if (done)
        return copy;
    if (copy)
        free_certificates(copy, count);
    return NULL;
}

enum oh_status vault_certify(struct vault *vault, const struct vault_certificate *list,
                             size_t count, struct oh_error *err)
{
    struct vault_certificate *copy = copy_certificates(list, count);
    if (!copy)
        return oh_fail(err, OH_NO_MEMORY, "no memory for certificates");
    pthread_mutex_lock(&vault->build);
    const struct vault_set *old = atomic_load(&vault->current);
    struct vault_set *set = new_set(vault);
    enum oh_status status = set ? OH_OK : oh_fail(err, OH_NO_MEMORY, "no memory for secrets");
    free_certificates(vault->certificates, vault->certificate_count);
    vault->certificates = copy;
    vault->certificate_count = count;
    for (size_t i = 0; i < vault->config->source_count && status == OH_OK; i++) {
        const struct vault_door *was = &old->doors[i];
        struct vault_door *door = &set->doors[i];
        status = open_door(vault, door, &vault->config->sources[i], was->secret_count, err);
        if (status == OH_OK)
            status = put_was(door, was, err);
        if (status == OH_OK)
            status = put_kept(door, was, true, err);
    }
    if (status == OH_OK)
        use(vault, set);
    else
        free_set(vault, set);
    pthread_mutex_unlock(&vault->build);
    return status;
}

/* ---- life ------------------------------------------------------------------------------------ */

enum oh_status vault_new(const struct config *config, struct vault **out, struct oh_error *err)
{
    struct vault *vault = calloc(1, sizeof(*vault));
    *out = vault;
    if (!vault)
        return oh_fail(err, OH_NO_MEMORY, "no memory for secrets");
    vault->config = config;
    pthread_mutex_init(&vault->build, NULL);
    pthread_mutex_init(&vault->mutex, NULL);
    enum oh_status status = vault_reload(vault, config, err);
    if (status == OH_OK)
        return OH_OK;
    vault_free(vault);
    *out = NULL;
    return status;
}

void vault_free(struct vault *vault)
{
    if (!vault)
        return;
    free_set(vault, atomic_load(&vault->current));
    free_certificates(vault->certificates, vault->certificate_count);
    pthread_mutex_destroy(&vault->build);
    pthread_mutex_destroy(&vault->mutex);
    free(vault);
}
