/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of a delivery before it leaves, and the reading of its answer. No network here. */
#include "cli/post.h"

#include "base/clock.h"
#include "base/slice.h"
#include "cli/cli.h"
#include "recipe/recipe.h"

#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>

enum {
    KEY_BYTES_MAX = 64 * 1024,
    STALE_MARGIN_S = 3600,
    ARGUMENT_BYTES_MAX = 100 * 1024, /* Linux takes 128 KiB for one argument */
};

static enum oh_status open_signer(struct post_door *door, const char *key_file,
                                  const char *directory, struct oh_error *err)
{
    const struct config_source *source = door->source;
    struct oh_recipe_info info;
    struct oh_slice pem = {NULL, 0};
    char path[4096];
    oh_recipe_describe(source->recipe, &info);
    struct oh_slice secret = config_secret_at(source, clock_wall_us() / 1000);
    if (!info.has_private_key && !key_file)
        return secret.data ? oh_signer_new(source->recipe, secret, &door->signer, err)
                           : oh_fail(err, OH_INVALID, "source %s has no secret that is taken now",
                                     source->name);
    if (!key_file && snprintf(path, sizeof(path), "%s/keys/%s.pem", directory, source->name) >=
                         (int)sizeof(path))
        return oh_fail(err, OH_INVALID, "%s: too long a path", directory);
    enum oh_status status = cli_read_file(key_file ? key_file : path, KEY_BYTES_MAX, &pem, err);
    if (status != OH_OK)
        return status;
    status = oh_signer_new(source->recipe, pem, &door->signer, err);
    explicit_bzero((char *)pem.data, pem.len);
    free((char *)pem.data);
    return status;
}

enum oh_status post_open(struct post_door *door, const struct config *config,
                         const struct config_source *source, const char *base_url,
                         const char *key_file, const char *directory, struct oh_error *err)
{
    const char *public_url = config->listen.public_url ? config->listen.public_url : base_url;
    int len = (int)strlen(base_url), public_len = (int)strlen(public_url);
    while (len > 0 && base_url[len - 1] == '/')
        len--;
    while (public_len > 0 && public_url[public_len - 1] == '/')
        public_len--;
    *door = (struct post_door){.source = source};
    if (asprintf(&door->url, "%.*s/in/%s", len, base_url, source->name) < 0 ||
        asprintf(&door->signed_url, "%.*s/in/%s", public_len, public_url, source->name) < 0)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    return open_signer(door, key_file, directory, err);
}

void post_close(struct post_door *door)
{
    oh_signer_free(door->signer);
    free(door->url);
    free(door->signed_url);
}

bool post_can_be_stale(const struct config_source *source)
{
    /* A body that is a token has what times the caller gave it. */
    return source->tolerance_s >= 0 && source->recipe->signature.in != RECIPE_IN_BODY;
}

bool post_can_be_tampered(const struct config_source *source)
{
    const struct oh_recipe *recipe = source->recipe;
    bool binds = recipe->signature.in == RECIPE_IN_BODY || recipe->jwt.body_claim.len > 0;
    for (size_t i = 0; i < recipe->part_count; i++) {
        enum recipe_part_kind kind = recipe->parts[i].kind;
        binds |= kind == RECIPE_PART_BODY || kind == RECIPE_PART_LINE ||
                 (kind >= RECIPE_PART_FORM_SORTED && kind <= RECIPE_PART_CRC32_BODY &&
                  kind != RECIPE_PART_QUERY_SORTED);
    }
    return binds;
}

static enum oh_status sign(const struct post_door *door, int64_t now_ms, struct oh_arena *arena,
                           struct sample_delivery *delivery, struct oh_error *err)
{
    struct oh_request request = {
        .method = SLICE_LITERAL("POST"),
        .url = slice_of_text(door->signed_url),
        .headers = delivery->headers,
        .header_count = delivery->header_count,
        .body = delivery->body,
    };
    struct oh_signed done;
    enum oh_status status = oh_sign(door->signer, &request, now_ms, arena, &done, err);
    if (status != OH_OK)
        return status;
    memcpy(delivery->headers + delivery->header_count, done.headers,
           done.count * sizeof(done.headers[0]));
    delivery->header_count += done.count;
    delivery->body = done.body;
    delivery->query = slice_of(done.url.data + request.url.len, done.url.len - request.url.len);
    return OH_OK;
}

/* Changes one byte of a copy of the body. */
static enum oh_status tamper(struct oh_arena *arena, struct oh_slice *body, struct oh_error *err)
{
    if (body->len == 0)
        return oh_fail(err, OH_INVALID, "an empty body has no byte to change");
    char *copy = oh_arena_alloc(arena, body->len);
    if (!copy)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    memcpy(copy, body->data, body->len);
    /* The last letter or digit, so that the body most often still reads as JSON. */
    size_t at = body->len - 1;
    while (at > 0 && !isalnum((unsigned char)copy[at]))
        at--;
    copy[at] ^= 1;
    body->data = copy;
    return OH_OK;
}

enum oh_status post_make(const struct post_door *door, const struct sample_event *events,
                         size_t count, int64_t now_us, struct oh_slice body, unsigned flags,
                         struct oh_arena *arena, struct sample_delivery *out, struct oh_error *err)
{
    enum oh_status status = sample_make(door->source, events, count, now_us, arena, out, err);
    int64_t signed_ms = clock_wall_us() / 1000;
    if (flags & POST_STALE)
        signed_ms -= (door->source->tolerance_s + STALE_MARGIN_S) * 1000;
    if (body.data)
        out->body = body;
    if (status == OH_OK && !(flags & POST_UNSIGNED))
        status = sign(door, signed_ms, arena, out, err);
    if (status == OH_OK && flags & POST_TAMPERED)
        status = tamper(arena, &out->body, err);
    return status;
}

/* ---- curl ------------------------------------------------------------------------------------ */

enum oh_status post_print_curl(const struct post_door *door, const char *ca,
                               const struct sample_delivery *delivery, struct oh_error *err)
{
    struct oh_slice body = delivery->body;
    if (body.len > ARGUMENT_BYTES_MAX || memchr(body.data, '\0', body.len))
        return oh_fail(err, OH_INVALID,
                       "no shell takes an argument with NUL or of more than %d "
                       "bytes: such a body needs a file",
                       ARGUMENT_BYTES_MAX);
    fputs("curl -sS", stdout);
    if (ca) {
        fputs(" --cacert ", stdout);
        cli_print_word(stdout, ca);
    }
    for (size_t i = 0; i < delivery->header_count; i++) {
        fputs(" \\\n  -H '", stdout);
        cli_print_quoted(stdout, delivery->headers[i].name);
        fputs(delivery->headers[i].value.len ? ": " : ";", stdout);
        cli_print_quoted(stdout, delivery->headers[i].value);
        putchar('\'');
    }
    fputs(" \\\n  --data-raw '", stdout);
    cli_print_quoted(stdout, body);
    fputs("' \\\n  ", stdout);
    char *url;
    if (asprintf(&url, "%s%.*s", door->url, (int)delivery->query.len,
                 delivery->query.data ? delivery->query.data : "") < 0)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    cli_print_word(stdout, url);
    putchar('\n');
    free(url);
    return OH_OK;
}

/* ---- answers --------------------------------------------------------------------------------- */

const char *const post_outcome_names[POST_OUTCOMES] = {"captured", "duplicates", "orphans",
                                                       "quarantined", "spooled"};

bool post_add_outcome(struct oh_slice body, uint64_t sums[POST_OUTCOMES])
{
    json_t *root = json_loadb(body.data, body.len, 0, NULL);
    bool ok = true;
    for (int i = 0; i < POST_OUTCOMES; i++)
        ok = ok && json_is_integer(json_object_get(root, post_outcome_names[i]));
    for (int i = 0; ok && i < POST_OUTCOMES; i++)
        sums[i] += (uint64_t)json_integer_value(json_object_get(root, post_outcome_names[i]));
    json_decref(root);
    return ok;
}
