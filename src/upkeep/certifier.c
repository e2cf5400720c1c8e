/* SPDX-License-Identifier: Apache-2.0 */
/* upkeep/certifier.h: a table of URLs, each wanted, held or refused; one thread that works on it.
 */
#include "upkeep/certifier.h"

#include "base/clock.h"
#include "base/slice.h"
#include "base/thread.h"
#include "log/log.h"
#include "recipe/recipe.h"

#include <curl/curl.h>
#include <errno.h>
#include <fts.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

enum {
    SLOTS = 32,
    URL_MAX = 1024,
    CERTIFICATE_URL_MAX = 512,
    VISITS_MAX = 12, /* tries */
    FILE_BYTES_MAX = 64 * 1024,
    CHAIN_MAX = 8,
    CONNECT_MS = 3000,
    FETCH_MS = 5000,
    FAILED_S = 5,          /* the network's fault: soon again, if somebody asks */
    REFUSED_S = 60,        /* the certificate's */
    HELD_S = 12 * 3600,    /* then it is fetched again, before anybody waits for it */
    STALE_S = 600,         /* if that fails */
    CURL_BUFFER_MAX = 256, /* words of an error */
};

enum state { FREE, WANTED, HELD, REFUSED, FAILED };

struct slot {
    enum state state;
    char url[URL_MAX];
    const struct oh_recipe *recipe; /* NULL: from the directory, for good */
    char *pem;                      /* in use; NULL = none */
    time_t not_after_s;
    int64_t until_us; /* of this state: monotonic */
    int visits;       /* not 0: no certificate but a page to ask for, so many times more */
};

struct certifier {
    const struct config *config;
    struct vault *vault;
    CURL *curl; /* the thread's */
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t mutex; /* guards the slots */
    pthread_cond_t wake;
    struct slot slots[SLOTS];
    atomic_bool is_stopping;
};

/* What a fetch brings. */
struct fetched {
    enum state state;
    char *pem; /* HELD: of the certificate alone; malloc'ed */
    time_t not_after_s;
    char reason[CURL_BUFFER_MAX];
    size_t len;
    char bytes[FILE_BYTES_MAX + 1];
};

/* ---- judging --------------------------------------------------------------------------------- */

static int no_pass_phrase(char *buffer, int size, int writing, void *user)
{
    (void)buffer, (void)size, (void)writing, (void)user;
    return -1;
}

/* The PEM of this certificate alone; the caller frees it. */
static char *write_pem(X509 *certificate)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *bytes, *copy = NULL;
    long len = bio && PEM_write_bio_X509(bio, certificate) == 1 ? BIO_get_mem_data(bio, &bytes) : 0;
    if (len > 0)
        copy = strndup(bytes, (size_t)len);
    BIO_free(bio);
    return copy;
}

static bool is_made_out_to(X509 *certificate, const struct recipe_names *subjects)
{
    for (size_t i = 0; i < subjects->count; i++)
        if (X509_check_host(certificate, subjects->items[i].data, subjects->items[i].len, 0,
                            NULL) == 1)
            return true;
    return false;
}

/* By what came with it, up to a root that we trust. */
static bool has_chain(const struct certifier *certifier, X509 *certificate, STACK_OF(X509) * others)
{
    const char *roots = certifier->config->certificates.ca_file;
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *context = X509_STORE_CTX_new();
    bool done =
        store && context &&
        (roots ? X509_STORE_load_file(store, roots) : X509_STORE_set_default_paths(store)) == 1;
    done = done && X509_STORE_CTX_init(context, store, certificate, others) == 1 &&
           X509_verify_cert(context) == 1;
    X509_STORE_CTX_free(context);
    X509_STORE_free(store);
    return done;
}

/* The certificate of `bytes` and those behind it; NULL when there is none. */
static X509 *read_certificates(const struct fetched *fetched, STACK_OF(X509) * others)
{
    BIO *bio = BIO_new_mem_buf(fetched->bytes, (int)fetched->len);
    X509 *first = bio ? PEM_read_bio_X509(bio, NULL, no_pass_phrase, NULL) : NULL, *next;
    while (first && sk_X509_num(others) < CHAIN_MAX &&
           (next = PEM_read_bio_X509(bio, NULL, no_pass_phrase, NULL)))
        if (sk_X509_push(others, next) == 0)
            X509_free(next);
    BIO_free(bio);
    return first;
}

/* True if a ring takes it. */
static bool is_usable(const struct oh_recipe *recipe, const char *pem)
{
    struct oh_keyring *ring = oh_keyring_new(recipe);
    bool usable = ring && pem &&
                  oh_keyring_add_certificate(ring, SLICE_LITERAL("https://x"), slice_of_text(pem),
                                             NULL) == OH_OK;
    oh_keyring_free(ring);
    return usable;
}

/* Fills what `bytes` is worth. is_ours: a file that the configuration names needs no proof. */
static void judge(const struct certifier *certifier, const struct oh_recipe *recipe, bool is_ours,
                  struct fetched *fetched)
{
    STACK_OF(X509) *others = sk_X509_new_null();
    X509 *certificate = others ? read_certificates(fetched, others) : NULL;
    const struct recipe_certificate *asked = &recipe->certificate;
    const char *wrong = NULL;
    struct tm end;
    if (!certificate)
        wrong = "it is no certificate";
    else if (X509_cmp_current_time(X509_get0_notBefore(certificate)) >= 0 ||
             X509_cmp_current_time(X509_get0_notAfter(certificate)) <= 0)
        wrong = "it has expired, or is not valid yet";
    else if (!is_ours && !is_made_out_to(certificate, &asked->subjects))
        wrong = "it is made out to another host than the provider's";
    else if (!is_ours && asked->has_chain && !has_chain(certifier, certificate, others))
        wrong = "no trusted root confirms it";
    else if (!is_usable(recipe, fetched->pem = write_pem(certificate)))
        wrong = "its key is not RSA of 2048 to 4096 bits";
    else if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end) == 1)
        fetched->not_after_s = timegm(&end);
    fetched->state = wrong ? REFUSED : HELD;
    if (wrong) {
        snprintf(fetched->reason, sizeof(fetched->reason), "%s", wrong);
        free(fetched->pem);
        fetched->pem = NULL;
    }
    X509_free(certificate);
    sk_X509_pop_free(others, X509_free);
    ERR_clear_error();
}

/* ---- fetching -------------------------------------------------------------------------------- */

static size_t on_bytes(char *bytes, size_t size, size_t count, void *user)
{
    struct fetched *fetched = user;
    size_t len = size * count;
    if (len > FILE_BYTES_MAX - fetched->len)
        return 0; /* ends the transfer */
    memcpy(fetched->bytes + fetched->len, bytes, len);
    fetched->len += len;
    return len;
}

static int on_progress(void *user, curl_off_t down_total, curl_off_t down, curl_off_t up_total,
                       curl_off_t up)
{
    const struct certifier *certifier = user;
    (void)down_total, (void)down, (void)up_total, (void)up;
    return atomic_load(&certifier->is_stopping);
}

/* What holds for every fetch. */
static bool set_up(struct certifier *certifier)
{
    const struct config *config = certifier->config;
    CURL *curl = certifier->curl = curl_easy_init();
    if (!curl)
        return false;
    CURLcode rc = curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "https");
    rc |= curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    rc |= curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 1L);
    rc |= curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 2L);
    rc |= curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    rc |= curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    rc |= curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)FETCH_MS);
    rc |= curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    rc |= curl_easy_setopt(curl, CURLOPT_FORBID_REUSE, 1L);
    rc |= curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes);
    rc |= curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    rc |= curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    rc |= curl_easy_setopt(curl, CURLOPT_XFERINFODATA, certifier);
    rc |= curl_easy_setopt(curl, CURLOPT_PROXY,
                           config->certificates.proxy ? config->certificates.proxy : "");
    if (config->certificates.ca_file)
        rc |= curl_easy_setopt(curl, CURLOPT_CAINFO, config->certificates.ca_file);
    return rc == CURLE_OK;
}

static void fetch(struct certifier *certifier, const struct slot *work, struct fetched *out)
{
    CURL *curl = certifier->curl;
    long status = 0;
    *out = (struct fetched){.state = FAILED};
    curl_easy_setopt(curl, CURLOPT_URL, work->url);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, out);
    CURLcode rc = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    if (rc == CURLE_OK && status == 200) {
        out->state = HELD;
        if (!work->visits)
            judge(certifier, work->recipe, false, out);
        return;
    }
    bool is_final = rc == CURLE_OK ? status < 500 && status != 429 : rc == CURLE_WRITE_ERROR;
    out->state = is_final ? REFUSED : FAILED;
    if (rc == CURLE_OK)
        snprintf(out->reason, sizeof(out->reason), "the answer is %ld", status);
    else
        snprintf(out->reason, sizeof(out->reason), "%s",
                 rc == CURLE_WRITE_ERROR ? "it is too large" : curl_easy_strerror(rc));
}

/* ---- the table ------------------------------------------------------------------------------- */

static void drop(struct slot *slot)
{
    free(slot->pem);
    *slot = (struct slot){.state = FREE};
}

/* Gives the vault what there is. */
static void publish(struct certifier *certifier)
{
    struct vault_certificate list[SLOTS];
    struct oh_error err = {.text = ""};
    size_t count = 0;
    pthread_mutex_lock(&certifier->mutex);
    for (size_t i = 0; i < SLOTS; i++)
        if (certifier->slots[i].pem)
            list[count++] = (struct vault_certificate){strdup(certifier->slots[i].url),
                                                       strdup(certifier->slots[i].pem)};
    pthread_mutex_unlock(&certifier->mutex);
    bool complete = true;
    for (size_t i = 0; i < count; i++)
        complete &= list[i].url && list[i].pem;
    if (!complete || vault_certify(certifier->vault, list, count, &err) != OH_OK)
        LOG_LINE(LOG_ERROR, "upkeep", "certificates could not be taken",
                 log_text("reason", err.text[0] ? err.text : "out of memory"));
    for (size_t i = 0; i < count; i++) {
        free((char *)list[i].url);
        free((char *)list[i].pem);
    }
}

static struct slot *find_slot(struct certifier *certifier, struct oh_slice url)
{
    for (size_t i = 0; i < SLOTS; i++)
        if (certifier->slots[i].state != FREE &&
            slice_equals(slice_of_text(certifier->slots[i].url), url))
            return &certifier->slots[i];
    return NULL;
}

/* A free slot; else that of the oldest refusal, else of the certificate that was fetched first.
 * NULL: all wait to be fetched, or are from the directory. */
static struct slot *make_room(struct certifier *certifier)
{
    struct slot *oldest = NULL;
    for (size_t i = 0; i < SLOTS; i++) {
        struct slot *slot = &certifier->slots[i];
        if (slot->state == FREE)
            return slot;
        if (slot->state == WANTED || (slot->state == HELD && !slot->recipe))
            continue;
        if (!oldest || (!slot->pem && oldest->pem) ||
            (!slot->pem == !oldest->pem && slot->until_us < oldest->until_us))
            oldest = slot;
    }
    if (oldest)
        drop(oldest);
    return oldest;
}

/* Host and path in plain letters: no port, user, query, escape or way up. `more`: further letters
 * behind the host. */
static bool is_plain(struct oh_slice url, const char *more)
{
    const struct oh_slice scheme = SLICE_LITERAL("https://");
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/";
    bool is_host = true;
    if (url.len >= URL_MAX || !slice_has_prefix(url, scheme) || memmem(url.data, url.len, "..", 2))
        return false;
    for (size_t i = scheme.len; i < url.len; i++) {
        is_host &= url.data[i] != '/';
        if (!url.data[i] ||
            !(strchr(letters, url.data[i]) || (!is_host && strchr(more, url.data[i]))))
            return false;
    }
    return true;
}

bool certifier_want(struct certifier *certifier, const struct config_source *source,
                    struct oh_slice url)
{
    if (!certifier || !is_plain(url, "") || url.len > CERTIFICATE_URL_MAX)
        return false;
    pthread_mutex_lock(&certifier->mutex);
    struct slot *slot = find_slot(certifier, url);
    bool is_new = !slot && (slot = make_room(certifier));
    if (is_new)
        memcpy(slot->url, url.data, url.len);
    bool is_over = slot && (slot->state == REFUSED || slot->state == FAILED) &&
                   clock_mono_us() >= slot->until_us;
    if (is_new || is_over) {
        slot->state = WANTED;
        slot->recipe = source->recipe;
        pthread_cond_signal(&certifier->wake);
    }
    bool may_come = !slot || slot->state != REFUSED;
    pthread_mutex_unlock(&certifier->mutex);
    return may_come;
}

void certifier_visit(struct certifier *certifier, const struct config_source *source,
                     struct oh_slice url)
{
    if (!certifier || !is_plain(url, "?&=:%+~"))
        return;
    pthread_mutex_lock(&certifier->mutex);
    struct slot *slot = find_slot(certifier, url) ? NULL : make_room(certifier);
    if (slot) {
        memcpy(slot->url, url.data, url.len);
        slot->state = WANTED;
        slot->recipe = source->recipe;
        slot->visits = VISITS_MAX;
        pthread_cond_signal(&certifier->wake);
    }
    pthread_mutex_unlock(&certifier->mutex);
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* The slot that is to be fetched next, copied; false at the end. */
static bool next_work(struct certifier *certifier, struct slot *out)
{
    struct slot *work = NULL;
    pthread_mutex_lock(&certifier->mutex);
    while (!atomic_load(&certifier->is_stopping)) {
        int64_t now_us = clock_mono_us(), next_us = now_us + HELD_S * 1000000LL;
        for (size_t i = 0; i < SLOTS && !(work && work->state == WANTED); i++) {
            struct slot *slot = &certifier->slots[i];
            bool is_kept = (slot->state == HELD && slot->recipe) ||
                           (slot->state == FAILED && slot->visits > 0);
            if (slot->state == WANTED || (is_kept && slot->until_us <= now_us))
                work = slot;
            else if (is_kept && slot->until_us < next_us)
                next_us = slot->until_us;
        }
        if (work)
            break;
        struct timespec until = {.tv_sec = next_us / 1000000, .tv_nsec = next_us % 1000000 * 1000};
        pthread_cond_timedwait(&certifier->wake, &certifier->mutex, &until);
    }
    if (work)
        *out = *work;
    pthread_mutex_unlock(&certifier->mutex);
    return work;
}

/* A certificate that is in use stays until its own end while the network fails. */
static void settle(struct certifier *certifier, const struct slot *work, struct fetched *fetched)
{
    int64_t now_us = clock_mono_us();
    pthread_mutex_lock(&certifier->mutex);
    struct slot *slot = find_slot(certifier, slice_of_text(work->url));
    bool stays = slot && slot->pem && fetched->state == FAILED &&
                 slot->not_after_s > clock_wall_us() / 1000000;
    bool had = slot && slot->pem;
    if (stays) {
        slot->until_us = now_us + STALE_S * 1000000LL;
    } else if (slot) {
        free(slot->pem);
        slot->pem = fetched->pem;
        fetched->pem = NULL;
        slot->not_after_s = fetched->not_after_s;
        slot->until_us = now_us + 1000000LL * (fetched->state == HELD      ? HELD_S
                                               : fetched->state == REFUSED ? REFUSED_S
                                                                           : FAILED_S);
    }
    pthread_mutex_unlock(&certifier->mutex);
    free(fetched->pem);
    if (!stays && (had || fetched->state == HELD))
        publish(certifier);
    pthread_mutex_lock(&certifier->mutex);
    if ((slot = find_slot(certifier, slice_of_text(work->url))) && !stays)
        slot->state = fetched->state;
    pthread_mutex_unlock(&certifier->mutex);
    if (fetched->state == HELD && !had)
        LOG_LINE(LOG_INFO, "upkeep", "a provider's certificate is in use",
                 log_text("url", work->url));
    else if (fetched->state != HELD)
        LOG_LINE(LOG_WARNING, "upkeep",
                 fetched->state == REFUSED ? "a provider's certificate is refused"
                                           : "a provider's certificate could not be fetched",
                 log_text("url", work->url), log_text("reason", fetched->reason));
}

/* A page that was asked for goes, unless it is asked for again. Its URL has a token, so the log has
 * none of it. */
static void settle_visit(struct certifier *certifier, const struct slot *work,
                         const struct fetched *fetched)
{
    bool again = fetched->state == FAILED && work->visits > 1;
    pthread_mutex_lock(&certifier->mutex);
    struct slot *slot = find_slot(certifier, slice_of_text(work->url));
    if (slot && again) {
        slot->state = FAILED;
        slot->visits--;
        slot->until_us = clock_mono_us() + FAILED_S * 1000000LL;
    } else if (slot) {
        drop(slot);
    }
    pthread_mutex_unlock(&certifier->mutex);
    if (fetched->state == HELD)
        LOG_LINE(LOG_INFO, "upkeep", "a subscription is confirmed",
                 log_text("provider", work->recipe->info.provider));
    else
        LOG_LINE(LOG_WARNING, "upkeep",
                 again ? "a subscription could not be confirmed yet"
                       : "a subscription could not be confirmed",
                 log_text("provider", work->recipe->info.provider),
                 log_text("reason", fetched->reason));
}

static void *run(void *argument)
{
    struct certifier *certifier = argument;
    static struct fetched fetched; /* one thread's */
    struct slot work;
    thread_set_name("certifier", THREAD_NO_NUMBER);
    while (next_work(certifier, &work)) {
        fetch(certifier, &work, &fetched);
        if (work.visits)
            settle_visit(certifier, &work, &fetched);
        else if (!atomic_load(&certifier->is_stopping))
            settle(certifier, &work, &fetched);
        else
            free(fetched.pem);
    }
    return NULL;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* One file of the directory; `name` is its path there. */
static enum oh_status load_file(struct certifier *certifier, const struct oh_recipe *recipe,
                                const char *path, const char *name, struct oh_error *err)
{
    static struct fetched fetched; /* before there are threads */
    struct slot *slot = make_room(certifier);
    FILE *file = fopen(path, "re");
    fetched = (struct fetched){.state = REFUSED, .reason = "it cannot be read"};
    if (file) {
        fetched.len = fread(fetched.bytes, 1, FILE_BYTES_MAX, file);
        fclose(file);
        judge(certifier, recipe, true, &fetched);
    }
    if (!slot || fetched.state != HELD ||
        snprintf(slot->url, URL_MAX, "https://%s", name) >= URL_MAX) {
        free(fetched.pem);
        return oh_fail(err, OH_INVALID, "certificates.directory: %s: %s", path,
                       slot ? fetched.reason : "more certificates than there is room for");
    }
    slot->state = HELD;
    slot->pem = fetched.pem;
    return OH_OK;
}

static enum oh_status load_directory(struct certifier *certifier, const struct oh_recipe *recipe,
                                     struct oh_error *err)
{
    char *directory = certifier->config->certificates.directory;
    char *const paths[] = {directory, NULL};
    enum oh_status status = OH_OK;
    FTS *walk = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    FTSENT *entry;
    if (!walk)
        return oh_fail(err, OH_SYSTEM, "certificates.directory: %s", strerror(errno));
    while (status == OH_OK && (entry = fts_read(walk))) {
        if (entry->fts_info == FTS_F)
            status = load_file(certifier, recipe, entry->fts_path,
                               entry->fts_path + strlen(directory) +
                                   strspn(entry->fts_path + strlen(directory), "/"),
                               err);
        else if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_NS ||
                 entry->fts_info == FTS_ERR)
            status = oh_fail(err, OH_INVALID, "certificates.directory: %s: %s", entry->fts_path,
                             strerror(entry->fts_errno));
    }
    fts_close(walk);
    return status;
}

/* ---- life ------------------------------------------------------------------------------------ */

enum oh_status certifier_start(const struct config *config, struct vault *vault,
                               struct certifier **out, struct oh_error *err)
{
    const struct oh_recipe *recipe = NULL;
    *out = NULL;
    for (size_t i = 0; i < config->source_count; i++)
        if (config->sources[i].recipe->key_form == RECIPE_KEY_CERT_URL)
            recipe = config->sources[i].recipe;
    if (!recipe)
        return OH_OK;
    struct certifier *certifier = calloc(1, sizeof(*certifier));
    if (!certifier)
        return oh_fail(err, OH_NO_MEMORY, "no memory for certificates");
    certifier->config = config;
    certifier->vault = vault;
    pthread_mutex_init(&certifier->mutex, NULL);
    thread_cond_init(&certifier->wake);
    enum oh_status status = OH_OK;
    if (config->certificates.directory)
        status = load_directory(certifier, recipe, err);
    if (status == OH_OK)
        publish(certifier);
    certifier->has_thread = status == OH_OK && curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK &&
                            set_up(certifier) &&
                            pthread_create(&certifier->thread, NULL, run, certifier) == 0;
    if (status == OH_OK && !certifier->has_thread)
        status = oh_fail(err, OH_SYSTEM, "the thread for certificates could not be started");
    if (status == OH_OK)
        *out = certifier;
    else
        certifier_stop(certifier);
    return status;
}

void certifier_stop(struct certifier *certifier)
{
    if (!certifier)
        return;
    pthread_mutex_lock(&certifier->mutex);
    atomic_store(&certifier->is_stopping, true);
    pthread_cond_broadcast(&certifier->wake);
    pthread_mutex_unlock(&certifier->mutex);
    if (certifier->has_thread)
        pthread_join(certifier->thread, NULL);
    if (certifier->curl)
        curl_easy_cleanup(certifier->curl);
    for (size_t i = 0; i < SLOTS; i++)
        drop(&certifier->slots[i]);
    pthread_cond_destroy(&certifier->wake);
    pthread_mutex_destroy(&certifier->mutex);
    free(certifier);
}
