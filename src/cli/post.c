/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of a delivery before it leaves, and the reading of its answer. No network here. */
#include "cli/post.h"

#include "base/encode.h"
#include "base/slice.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

enum {
    KEY_BYTES_MAX = 64 * 1024,
    STALE_MARGIN_S = 3600,
    ARGUMENT_BYTES_MAX = 100 * 1024, /* Linux takes 128 KiB for one argument */
};

enum oh_status post_read_file(const char *path, size_t max_bytes, char **out, size_t *len,
                              struct oh_error *err)
{
    *out = NULL;
    FILE *file = fopen(path, "rbe");
    if (!file)
        return oh_fail(err, OH_SYSTEM, "%s: %s", path, strerror(errno));
    enum oh_status status = OH_OK;
    char *bytes = malloc(max_bytes + 1);
    size_t got = bytes ? fread(bytes, 1, max_bytes + 1, file) : 0;
    if (!bytes)
        status = oh_fail(err, OH_NO_MEMORY, "out of memory");
    else if (ferror(file))
        status = oh_fail(err, OH_SYSTEM, "%s: %s", path, strerror(errno));
    else if (got > max_bytes)
        status = oh_fail(err, OH_TOO_MANY, "%s: longer than %zu bytes", path, max_bytes);
    fclose(file);
    if (!bytes || status != OH_OK) {
        free(bytes);
        return status;
    }
    bytes[got] = '\0';
    *out = bytes;
    *len = got;
    return OH_OK;
}

enum oh_status post_open_signer(const struct config_source *source, const char *key_file,
                                const char *directory, struct oh_signer **out, struct oh_error *err)
{
    *out = NULL;
    struct oh_recipe_info info;
    oh_recipe_describe(source->recipe, &info);
    if (!info.has_private_key && !key_file) {
        if (source->secret_count == 0)
            return oh_fail(err, OH_INVALID, "source %s has no secret", source->name);
        return oh_signer_new(source->recipe, source->secrets[0].bytes, out, err);
    }
    char *path = NULL, *pem = NULL;
    size_t len = 0;
    int formatted = key_file ? asprintf(&path, "%s", key_file)
                             : asprintf(&path, "%s/keys/%s.pem", directory, source->name);
    if (formatted < 0)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    enum oh_status status = post_read_file(path, KEY_BYTES_MAX, &pem, &len, err);
    if (status == OH_OK)
        status = oh_signer_new(source->recipe, slice_of(pem, len), out, err);
    if (pem)
        explicit_bzero(pem, len);
    free(pem);
    free(path);
    return status;
}

enum oh_status post_sign(const struct oh_signer *signer, const char *signed_url, int64_t now_ms,
                         struct oh_arena *arena, struct sample_delivery *delivery,
                         struct oh_error *err)
{
    struct oh_request request = {
        .method = SLICE_LITERAL("POST"),
        .url = slice_of_text(signed_url),
        .headers = delivery->headers,
        .header_count = delivery->header_count,
        .body = delivery->body,
    };
    struct oh_header added[OH_SIGN_HEADERS_MAX];
    size_t count = 0;
    enum oh_status status = oh_sign(signer, &request, now_ms, arena, added, &count, err);
    for (size_t i = 0; status == OH_OK && i < count; i++)
        delivery->headers[delivery->header_count++] = added[i];
    return status;
}

enum oh_status post_tamper(struct oh_arena *arena, struct sample_delivery *delivery,
                           struct oh_error *err)
{
    struct oh_slice body = delivery->body;
    if (body.len == 0)
        return oh_fail(err, OH_INVALID, "an empty body has no byte to change");
    char *copy = oh_arena_alloc(arena, body.len + 1);
    if (!copy)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    memcpy(copy, body.data, body.len);
    copy[body.len] = '\0';
    /* The last letter or digit, so that the body most often still reads as JSON. */
    size_t at = body.len - 1;
    for (size_t i = body.len; i > 0; i--)
        if (isalnum((unsigned char)copy[i - 1])) {
            at = i - 1;
            break;
        }
    copy[at] ^= 1;
    delivery->body = slice_of(copy, body.len);
    return OH_OK;
}

int64_t post_stale_s(const struct config_source *source)
{
    return source->tolerance_s < 0 ? -1 : source->tolerance_s + STALE_MARGIN_S;
}

/* ---- curl ------------------------------------------------------------------------------------ */

/* Nothing inside single quotes is special but the quote itself. */
static void print_quoted(FILE *to, struct oh_slice text)
{
    putc('\'', to);
    for (size_t i = 0; i < text.len; i++)
        if (text.data[i] == '\'')
            fputs("'\\''", to);
        else
            putc(text.data[i], to);
    putc('\'', to);
}

void post_print_word(FILE *to, const char *text)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                "%+,-./:=@_";
    if (*text && text[strspn(text, plain)] == '\0')
        fputs(text, to);
    else
        print_quoted(to, slice_of_text(text));
}

/* A body that no argument can hold, or that copy and paste may change (SendGrid's CRLF, bytes that
 * are no text), goes through a pipe. */
static bool needs_pipe(struct oh_slice body)
{
    for (size_t i = 0; i < body.len; i++)
        if (body.data[i] < 0x20 || body.data[i] > 0x7e)
            return true;
    return body.len > ARGUMENT_BYTES_MAX;
}

static void print_base64(FILE *to, struct oh_slice body)
{
    char text[BASE64_BYTES(3 * 256)];
    for (size_t at = 0; at < body.len; at += sizeof(text) / 4 * 3) {
        size_t piece = body.len - at < sizeof(text) / 4 * 3 ? body.len - at : sizeof(text) / 4 * 3;
        fwrite(text, 1, base64_encode(body.data + at, piece, text), to);
    }
}

void post_print_curl(FILE *to, const char *ca, const char *url,
                     const struct sample_delivery *delivery)
{
    bool pipe = needs_pipe(delivery->body);
    if (pipe) {
        fputs("printf %s ", to);
        print_base64(to, delivery->body);
        fputs(" | base64 -d | ", to);
    }
    fputs("curl -sS", to);
    if (ca) {
        fputs(" --cacert ", to);
        post_print_word(to, ca);
    }
    for (size_t i = 0; i < delivery->header_count; i++) {
        const struct oh_header *header = &delivery->headers[i];
        char *line = NULL;
        int len =
            asprintf(&line, "%.*s%s%.*s", (int)header->name.len, header->name.data,
                     header->value.len ? ": " : ";", (int)header->value.len, header->value.data);
        if (len < 0)
            continue;
        fputs(" \\\n  -H ", to);
        print_quoted(to, slice_of(line, (size_t)len));
        free(line);
    }
    fputs(" \\\n  ", to);
    if (pipe) {
        fputs("--data-binary @-", to);
    } else {
        fputs("--data-raw ", to);
        print_quoted(to, delivery->body);
    }
    fputs(" \\\n  ", to);
    post_print_word(to, url);
    putc('\n', to);
}

/* ---- answers --------------------------------------------------------------------------------- */

bool post_read_outcome(struct oh_slice body, struct post_outcome *out)
{
    json_int_t captured, duplicates, orphans, quarantined, spooled;
    json_t *root = json_loadb(body.data, body.len, 0, NULL);
    bool ok = root && json_unpack(root, "{s:I,s:I,s:I,s:I,s:I}", "captured", &captured,
                                  "duplicates", &duplicates, "orphans", &orphans, "quarantined",
                                  &quarantined, "spooled", &spooled) == 0;
    json_decref(root);
    if (ok)
        *out = (struct post_outcome){(uint64_t)captured, (uint64_t)duplicates, (uint64_t)orphans,
                                     (uint64_t)quarantined, (uint64_t)spooled};
    return ok;
}
