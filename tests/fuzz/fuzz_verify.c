/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any headers in front of a body that was not signed. The first byte chooses the recipe
 * and which headers there are; a line feed parts the signature from the timestamp. Nothing but a
 * forgery could be accepted. Run: build/fuzz/tests/fuzz/fuzz_verify CORPUS_DIRECTORY */
#include "base/slice.h"
#include "oncehook/verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static const struct {
    const char *provider, *secret, *signature, *timestamp;
} schemes[] = {
    {"github", "secret", "x-hub-signature-256", "x-none"},
    {"stripe", "secret", "stripe-signature", "x-none"},
    {"sendgrid",
     "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+"
     "2fNNRaINXvVpiglSI8eNEc6wEA3F+g==",
     "x-twilio-email-event-webhook-signature", "x-twilio-email-event-webhook-timestamp"},
};
enum { SCHEMES = sizeof(schemes) / sizeof(schemes[0]) };

static const struct oh_recipe *recipes[SCHEMES];
static struct oh_keyring *rings[SCHEMES];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static struct oh_catalog *catalog;
    struct oh_error err;
    (void)argc, (void)argv;
    if (oh_catalog_new(&catalog, &err))
        abort();
    for (size_t i = 0; i < SCHEMES; i++) {
        recipes[i] = oh_catalog_find(catalog, schemes[i].provider, NULL);
        rings[i] = oh_keyring_new(recipes[i]);
        if (!rings[i] || oh_keyring_add(rings[i], slice_of_text(schemes[i].secret), &err))
            abort();
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    size_t which = data[0] % SCHEMES;
    struct oh_slice rest = slice_of((const char *)data + 1, size - 1), ts = slice_of("", 0);
    const char *feed = rest.len ? memchr(rest.data, '\n', rest.len) : NULL;
    if (feed) {
        ts = slice_of(feed + 1, rest.len - (size_t)(feed + 1 - rest.data));
        rest.len = (size_t)(feed - rest.data);
    }
    const struct oh_header headers[] = {
        {slice_of(NULL, 0), rest},
        {slice_of_text(schemes[which].timestamp), ts},
        {slice_of_text(schemes[which].signature), rest},
        {slice_of_text(schemes[which].signature), ts},
    };
    struct oh_request request = {.headers = headers,
                                 .header_count = 1 + (data[0] >> 4) % 4,
                                 .body = SLICE_LITERAL("nobody signed this")};
    struct oh_verify_result result;
    int64_t now_ms = INT64_C(1766000000000);
    enum oh_verdict verdict =
        oh_verify(recipes[which], rings[which], &request, now_ms, -1, NULL, &result);
    if (verdict == OH_ACCEPTED || verdict == OH_STALE || !result.because || ERR_peek_error()) {
        fprintf(stderr, "broken promise: %s\n", oh_verdict_name(verdict));
        abort();
    }
    return 0;
}
