/* SPDX-License-Identifier: Apache-2.0 */
/* bench/engine: what liboncehook costs by itself, on one thread: the catalog's loading, and for a
 * 1 KiB event of several schemes verification, extraction and the steps in them, beside OpenSSL's
 * own functions for the same bytes. Allocations are counted: every malloc() of the process, and
 * those of them that OpenSSL made.
 *
 *   engine [--seconds S]     how long each row is measured, by turns with the others (default 1) */
#include "base/slice.h"
#include "body/scan.h"
#include "event/plan.h"
#include "number.h"
#include "oncehook/sign.h"
#include "verify/crypto.h"

#include <argp.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>

/* ---- counting -------------------------------------------------------------------------------- */

static uint64_t mallocs, openssl_mallocs;

/* glibc's own names: these take the place of malloc() for the program and its libraries. */
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

void *malloc(size_t bytes)
{
    mallocs++;
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    mallocs++;
    return __libc_calloc(count, bytes);
}

void *realloc(void *old, size_t bytes)
{
    mallocs++;
    return __libc_realloc(old, bytes);
}

static void *openssl_malloc(size_t bytes, const char *file, int line)
{
    (void)file, (void)line;
    openssl_mallocs++;
    return malloc(bytes);
}

static void *openssl_realloc(void *old, size_t bytes, const char *file, int line)
{
    (void)file, (void)line;
    openssl_mallocs++;
    return realloc(old, bytes);
}

static void openssl_free(void *old, const char *file, int line)
{
    (void)file, (void)line;
    free(old);
}

/* ---- cases ----------------------------------------------------------------------------------- */

#define NOW_S INT64_C(1766000000)

enum { BODY_BYTES = 1024, ROUNDS = 7 };

struct bench {
    const char *provider;
    const struct oh_recipe *recipe;
    struct oh_keyring *ring;
    struct oh_mapping *mapping;
    struct crypto_key key; /* the ring's, once more: for the steps */
    struct oh_header headers[OH_SIGN_HEADERS_MAX + 1];
    struct oh_request request;
    struct message message;
    uint8_t signature[CRYPTO_SIGNATURE_BYTES_MAX];
    size_t signature_len;
    struct oh_made_key made;
    char body[BODY_BYTES + 1];
};

static void demand(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "engine: %s\n", what);
        exit(1);
    }
}

/* An event as payment and mail providers have them: nested, a dozen fields, 1,024 bytes. */
static void make_body(struct bench *b)
{
    int n = snprintf(
        b->body, sizeof(b->body),
        "{\"id\":\"evt_1NG8Du2eZvKYlo2CUI79vXWy\",\"object\":\"event\",\"api_version\":\"2024-06-"
        "20\","
        "\"created\":1766000000,\"type\":\"delivered\",\"event\":\"delivered\",\"timestamp\":"
        "1766000000,"
        "\"enrollment_id\":\"0b8f8d2e-5f0a-4f5e-9d7e-1f4f6f0e2a11\","
        "\"instance_id\":\"4e4f63a5-9a7c-4a0f-8f51-0d3a4ed3f6c2\",\"livemode\":true,\"pending\":2,"
        "\"data\":{\"object\":{\"id\":\"pi_1\",\"amount\":2000,\"currency\":\"eur\",\"email\":"
        "\"jane.doe@example.com\",\"tags\":[\"a\",\"b\",\"c\"],\"address\":{\"city\":"
        "\"K\\u00f6ln\","
        "\"zip\":\"50667\"}}},\"note\":\"");
    demand(n > 0 && n < BODY_BYTES - 2, "the body's head");
    memset(b->body + n, 'x', (size_t)(BODY_BYTES - 2 - n));
    memcpy(b->body + BODY_BYTES - 2, "\"}", 3);
}

static void prepare(struct bench *b, const struct oh_catalog *catalog)
{
    static const struct oh_map map = {"/enrollment_id", "/instance_id", NULL, NULL};
    struct oh_error err = {.text = ""};
    struct oh_signer *signer;
    struct oh_signed made;
    struct oh_arena *arena = oh_arena_new(1 << 16, 1 << 20); /* lives on: the headers are in it */
    b->recipe = oh_catalog_find(catalog, b->provider, NULL);
    demand(b->recipe && arena, b->provider);
    demand(!oh_key_make(b->recipe, &b->made, &err), err.text);
    struct oh_slice shown = slice_of_text(b->made.shown);
    struct oh_slice half = b->made.private_half[0] ? slice_of_text(b->made.private_half) : shown;
    b->ring = oh_keyring_new(b->recipe);
    demand(b->ring && !oh_keyring_add(b->ring, shown, &err), err.text);
    demand(!crypto_key_parse(b->recipe, shown, &b->key, &err), err.text);
    demand(!oh_mapping_new(b->recipe, &map, &b->mapping, &err), err.text);
    demand(!oh_signer_new(b->recipe, half, &signer, &err), err.text);
    make_body(b);
    b->headers[0] =
        (struct oh_header){SLICE_LITERAL("content-type"), SLICE_LITERAL("application/json")};
    b->request = (struct oh_request){.method = SLICE_LITERAL("POST"),
                                     .url = SLICE_LITERAL("https://hooks.example.com/in/x"),
                                     .headers = b->headers,
                                     .header_count = 1,
                                     .body = {b->body, BODY_BYTES}};
    demand(!oh_sign(signer, &b->request, NOW_S * 1000, arena, &made, &err), err.text);
    memcpy(b->headers + 1, made.headers, made.count * sizeof(made.headers[0]));
    b->request.header_count += made.count;
    const struct message_source from = {.recipe = b->recipe,
                                        .request = &b->request,
                                        .arena = arena,
                                        .ts = SLICE_LITERAL("1766000000")};
    if (b->recipe->part_count > 0)
        demand(message_build(&from, &b->message), "message");
    struct crypto_key private_key;
    if (b->key.pkey) {
        demand(!crypto_key_parse_private(b->recipe, half, &private_key, &err), err.text);
        demand(crypto_sign(&private_key, &b->message, arena, b->signature, &b->signature_len),
               "signature");
        crypto_key_clear(&private_key);
    }
    oh_signer_free(signer);
}

/* ---- what is measured ------------------------------------------------------------------------ */

static void run_whole(const struct bench *b)
{
    struct oh_extraction out;
    struct oh_error err;
    struct oh_arena *arena = oh_arena_new(16384, 1 << 20);
    demand(oh_verify(b->recipe, b->ring, &b->request, NOW_S * 1000, -1, arena, NULL) == OH_ACCEPTED,
           b->provider);
    demand(
        !oh_extract(b->recipe, b->mapping, &b->request, NOW_S * 1000000, 1000, arena, &out, &err) &&
            out.count == 1 && out.events[0].has_enrollment,
        "extraction");
    oh_arena_free(arena);
}

static void run_arena(const struct bench *b)
{
    (void)b;
    oh_arena_free(oh_arena_new(16384, 1 << 20));
}

static void run_verify(const struct bench *b)
{
    struct oh_arena *arena = oh_arena_new(16384, 1 << 20);
    demand(oh_verify(b->recipe, b->ring, &b->request, NOW_S * 1000, -1, arena, NULL) == OH_ACCEPTED,
           b->provider);
    oh_arena_free(arena);
}

static void run_extract(const struct bench *b)
{
    struct oh_extraction out;
    struct oh_error err;
    struct oh_arena *arena = oh_arena_new(16384, 1 << 20);
    demand(
        !oh_extract(b->recipe, b->mapping, &b->request, NOW_S * 1000000, 1000, arena, &out, &err),
        "extraction");
    oh_arena_free(arena);
}

/* The JSON scan of the extraction alone: parser, the wanted values, and what jsonb can hold. */
static void run_scan(const struct bench *b)
{
    struct scan_result found;
    struct oh_arena *arena = oh_arena_new(16384, 1 << 20);
    demand(!scan_body(&b->mapping->scan, b->request.body, 1000, arena, &found, NULL), "scan");
    oh_arena_free(arena);
}

/* The cryptography of the verification alone, through the engine's prepared key. */
static void run_crypto(const struct bench *b)
{
    uint8_t mac[CRYPTO_MAC_BYTES_MAX];
    size_t len;
    if (b->key.mac)
        demand(crypto_mac(&b->key, &b->message, mac, &len), "MAC");
    else if (b->key.pkey) {
        struct oh_arena *arena = oh_arena_new(16384, 1 << 20);
        demand(crypto_verify(&b->key, &b->message, b->signature, b->signature_len, arena),
               "signature");
        oh_arena_free(arena);
    }
}

/* What OpenSSL takes by itself, with a key that is parsed and a message in one piece. */
static void run_openssl(const struct bench *b)
{
    static char whole[2 * BODY_BYTES];
    uint8_t mac[CRYPTO_MAC_BYTES_MAX];
    unsigned len;
    size_t n = 0;
    for (size_t i = 0; i < b->message.count; i++) {
        memcpy(whole + n, b->message.parts[i].data, b->message.parts[i].len);
        n += b->message.parts[i].len;
    }
    if (b->key.mac) {
        demand(HMAC(EVP_sha256(), b->key.secret.data, (int)b->key.secret.len,
                    (const unsigned char *)whole, n, mac, &len) != NULL,
               "HMAC");
    } else if (b->key.pkey) {
        const char *digest = EVP_PKEY_is_a(b->key.pkey, "ED25519") ? NULL : "SHA256";
        EVP_MD_CTX *context = EVP_MD_CTX_new();
        demand(EVP_DigestVerifyInit_ex(context, NULL, digest, NULL, NULL, b->key.pkey, NULL) == 1 &&
                   EVP_DigestVerify(context, b->signature, b->signature_len,
                                    (const unsigned char *)whole, n) == 1,
               "OpenSSL's verification");
        EVP_MD_CTX_free(context);
    }
}

/* OpenSSL's verification of a digest that is there already: the curve's arithmetic alone. */
static void run_curve(const struct bench *b)
{
    static uint8_t digest[32];
    static bool made;
    if (!made) {
        EVP_MD_CTX *context = EVP_MD_CTX_new();
        unsigned len;
        demand(EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1, "digest");
        for (size_t i = 0; i < b->message.count; i++)
            EVP_DigestUpdate(context, b->message.parts[i].data, b->message.parts[i].len);
        EVP_DigestFinal_ex(context, digest, &len);
        EVP_MD_CTX_free(context);
        made = true;
    }
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(b->key.pkey, NULL);
    demand(EVP_PKEY_verify_init(context) == 1 &&
               EVP_PKEY_verify(context, b->signature, b->signature_len, digest, sizeof(digest)) ==
                   1,
           "the curve");
    EVP_PKEY_CTX_free(context);
}

static void run_catalog(const struct bench *b)
{
    struct oh_catalog *catalog;
    struct oh_error err = {.text = ""};
    (void)b;
    demand(!oh_catalog_new(&catalog, &err), err.text);
    oh_catalog_free(catalog);
}

/* ---- measuring ------------------------------------------------------------------------------- */

static struct bench benches[] = {
    {.provider = "github"}, {.provider = "stripe"},   {.provider = "standard_webhooks"},
    {.provider = "vonage"}, {.provider = "sendgrid"}, {.provider = "discord"}};
enum { GITHUB, STRIPE, STANDARD, VONAGE, SENDGRID, DISCORD };

static const struct row {
    const char *name;
    void (*run)(const struct bench *b);
    size_t bench;
} rows[] = {
    {"load the catalog and free it", run_catalog, GITHUB},
    {"github: verify and extract", run_whole, GITHUB},
    {"  verify", run_verify, GITHUB},
    {"    HMAC-SHA256, key prepared", run_crypto, GITHUB},
    {"    (OpenSSL's HMAC())", run_openssl, GITHUB},
    {"  extract", run_extract, GITHUB},
    {"    JSON scan", run_scan, GITHUB},
    {"  an arena (in each row)", run_arena, GITHUB},
    {"stripe: verify and extract", run_whole, STRIPE},
    {"standard_webhooks: verify and extract", run_whole, STANDARD},
    {"vonage (JWT): verify and extract", run_whole, VONAGE},
    {"sendgrid (ECDSA): verify and extract", run_whole, SENDGRID},
    {"  verify", run_verify, SENDGRID},
    {"    ECDSA, key prepared", run_crypto, SENDGRID},
    {"    (OpenSSL's DigestVerify)", run_openssl, SENDGRID},
    {"    (OpenSSL's PKEY_verify, no digest)", run_curve, SENDGRID},
    {"discord (Ed25519): verify", run_verify, DISCORD},
    {"    (OpenSSL's DigestVerify)", run_openssl, DISCORD},
};
static const struct {
    const char *name;
    struct row a, b;
} pairs[] = {
    {"ECDSA: verify / OpenSSL's DigestVerify",
     {"", run_verify, SENDGRID},
     {"", run_openssl, SENDGRID}},
    {"Ed25519: verify / OpenSSL's DigestVerify",
     {"", run_verify, DISCORD},
     {"", run_openssl, DISCORD}},
    {"HMAC: verify / OpenSSL's HMAC()", {"", run_verify, GITHUB}, {"", run_openssl, GITHUB}},
};
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

static int64_t now_ns(void)
{
    struct timespec at;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
    return at.tv_sec * INT64_C(1000000000) + at.tv_nsec;
}

static double measure_us(const struct row *row, int64_t for_ns)
{
    int64_t start = now_ns(), end;
    uint64_t count = 0;
    unsigned step = row->run == run_catalog ? 1 : 64;
    do {
        for (unsigned i = 0; i < step; i++)
            row->run(&benches[row->bench]);
        count += step;
        end = now_ns();
    } while (end - start < for_ns);
    return (double)(end - start) / 1000.0 / (double)count;
}

/* How much longer `a` takes than `b`: both by turns, a few calls each, so that both meet the same
 * machine. */
static double measure_ratio(const struct row *a, const struct row *b, int64_t for_ns)
{
    int64_t spent[2] = {0, 0};
    while (spent[0] + spent[1] < for_ns)
        for (size_t side = 0; side < 2; side++) {
            const struct row *row = side ? b : a;
            int64_t start = now_ns();
            for (unsigned i = 0; i < 16; i++)
                row->run(&benches[row->bench]);
            spent[side] += now_ns() - start;
        }
    return (double)spent[0] / (double)spent[1];
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double seconds = 1;

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    if (key != 's')
        return ARGP_ERR_UNKNOWN;
    seconds = number_or_usage(state, "seconds", arg, 0.001, 1000);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct argp_option argp_options[] = {
        {"seconds", 's', "S", 0, "How long each row is measured (1)", 0}, {0}};
    static const struct argp argp = {argp_options, parse_option, NULL, NULL, NULL, NULL, NULL};
    static double us[ROWS][ROUNDS];
    struct oh_catalog *catalog;
    struct oh_error err = {.text = ""};
    demand(CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free) == 1,
           "OpenSSL has allocated already");
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, NULL);
    demand(!oh_catalog_new(&catalog, &err), err.text);
    for (size_t i = 0; i < sizeof(benches) / sizeof(benches[0]); i++)
        prepare(&benches[i], catalog);
    for (size_t round = 0; round < ROUNDS; round++) /* by turns: the machine's speed changes */
        for (size_t i = 0; i < ROWS; i++)
            us[i][round] = measure_us(&rows[i], (int64_t)(seconds * 1e9 / ROUNDS));
    printf("%-42s %10s %8s %8s\n", "median of 7, one thread's CPU time", "us", "malloc", "OpenSSL");
    for (size_t i = 0; i < ROWS; i++) {
        uint64_t before = mallocs, openssl_before = openssl_mallocs;
        rows[i].run(&benches[rows[i].bench]);
        uint64_t all = mallocs - before, of_openssl = openssl_mallocs - openssl_before;
        qsort(us[i], ROUNDS, sizeof(us[i][0]), by_value);
        printf("%-42s %10.2f %8" PRIu64 " %8" PRIu64 "\n", rows[i].name, us[i][ROUNDS / 2], all,
               of_openssl);
    }
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        double ratios[ROUNDS];
        for (size_t round = 0; round < ROUNDS; round++)
            ratios[round] = measure_ratio(&pairs[i].a, &pairs[i].b, (int64_t)(seconds * 1e9 / 3));
        qsort(ratios, ROUNDS, sizeof(ratios[0]), by_value);
        printf("%-42s %10.3f times\n", pairs[i].name, ratios[ROUNDS / 2]);
    }
    return 0;
}
