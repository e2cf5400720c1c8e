/* SPDX-License-Identifier: Apache-2.0 */
/* What a request costs of memory: its arena, and what OpenSSL takes for itself while it runs.
 * Counted with AddressSanitizer's hook, which sees every allocation of the process; without it, not
 * at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "vector_support.h"

#include "base/slice.h"
#include "oncehook/event.h"

#include <stdio.h>
#include <stdlib.h>

#include <openssl/crypto.h>

extern int __sanitizer_install_malloc_and_free_hooks(void (*taken)(const volatile void *, size_t),
                                                     void (*freed)(const volatile void *))
    __attribute__((weak));

static size_t allocations, of_openssl;

static void count(const volatile void *at, size_t bytes)
{
    (void)at, (void)bytes;
    allocations++;
}

static void ignore(const volatile void *at)
{
    (void)at;
}

static void *openssl_malloc(size_t bytes, const char *file, int line)
{
    (void)file, (void)line;
    of_openssl++;
    return malloc(bytes);
}

static void *openssl_realloc(void *old, size_t bytes, const char *file, int line)
{
    (void)file, (void)line;
    of_openssl++;
    return realloc(old, bytes);
}

static void openssl_free(void *old, const char *file, int line)
{
    (void)file, (void)line;
    free(old);
}

/* Allocations of one verification and extraction that are not OpenSSL's. */
static size_t run(const struct vector *vector, const struct oh_keyring *ring,
                  const struct oh_mapping *mapping, struct oh_arena *arena)
{
    struct oh_verify_result result;
    struct oh_extraction out;
    struct oh_error err;
    size_t before = allocations - of_openssl;
    if (oh_verify(vector->recipe, ring, &vector->request, vector->now_s * 1000, -1, arena,
                  &result) == OH_ACCEPTED &&
        oh_extract(vector->recipe, mapping, &vector->request, vector->now_s * 1000000, 1000, arena,
                   &out, &err) == OH_NO_MEMORY)
        fail_msg("%s: no memory", vector->id);
    return allocations - of_openssl - before;
}

static void a_request_takes_its_arena_and_nothing_else(void **state)
{
    (void)state;
    struct oh_catalog *catalog;
    struct oh_error err;
    json_t *list, *item;
    size_t i;
    if (!__sanitizer_install_malloc_and_free_hooks)
        skip();
    assert_true(__sanitizer_install_malloc_and_free_hooks(count, ignore) > 0);
    list = vectors_load();
    assert_int_equal(oh_catalog_new(&catalog, &err), OH_OK);
    json_array_foreach(list, i, item)
    {
        struct vector vector;
        struct oh_mapping *mapping;
        struct oh_arena *texts = oh_arena_new(4096, 4 << 20);
        vector_read(catalog, item, texts, &vector);
        vector.request.headers = vector.headers;
        struct oh_keyring *ring = vector_ring(&vector, vector.secrets);
        assert_int_equal(oh_mapping_new(vector.recipe, NULL, &mapping, &err), OH_OK);
        for (int again = 0; again < 2; again++) { /* the first may fetch what OpenSSL keeps */
            struct oh_arena *arena = oh_arena_new(1 << 20, 1 << 20);
            size_t taken = run(&vector, ring, mapping, arena);
            if (again && taken > 0)
                fail_msg("%s: %zu allocations beside the arena", vector.id, taken);
            oh_arena_free(arena);
        }
        oh_mapping_free(mapping);
        oh_keyring_free(ring);
        oh_arena_free(texts);
    }
    assert_true(of_openssl > 1000); /* both counters count */
    oh_catalog_free(catalog);
    json_decref(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_takes_its_arena_and_nothing_else),
    };
    if (CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_free) != 1)
        return 1;
    return cmocka_run_group_tests_name("allocations", tests, NULL, NULL);
}
