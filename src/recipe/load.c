/* SPDX-License-Identifier: Apache-2.0 */
/* The loader: one recipe file (docs/providers.md has its form) -> immutable recipes, one a scheme.
 *
 * Every mapping is a table of keys. What the form knows and this program does not do yet is refused
 * in the same way as what the form does not know: nothing is ever silently left out. */
#include "recipe/load.h"

#include "base/slice.h"

#define DAY_S             86400
#define UNKNOWN_HORIZON_S (7 * DAY_S) /* CONTRACT, Configuration: where retries are not known */

/* ---- the signature of a scheme -----------------------------------------------------------------
 */

static enum oh_status read_scheme_id(struct load *load, struct fy_node *node, void *into)
{
    (void)into;
    struct oh_slice text;
    enum oh_status status = load_text(load, node, "`id`", &text);
    load->recipe->info.scheme = status ? NULL : text.data;
    return status;
}

static const struct load_word algorithm_words[] = {
    {"hmac-sha1", RECIPE_HMAC_SHA1},
    {"hmac-sha256", RECIPE_HMAC_SHA256},
    {"hmac-sha512", RECIPE_HMAC_SHA512},
    {"ecdsa-p256-sha256", RECIPE_ECDSA_P256_SHA256},
    {"sha1", LOAD_LATER},
    {"sha256", LOAD_LATER},
    {"ed25519", LOAD_LATER},
    {"rsa-sha1", LOAD_LATER},
    {"rsa-sha256", LOAD_LATER},
    {"jwt", LOAD_LATER},
    {"token", LOAD_LATER},
    {"basic", LOAD_LATER},
};

static enum oh_status read_algorithm(struct load *load, struct fy_node *node, void *into)
{
    struct oh_recipe *recipe = into;
    int value = 0;
    enum oh_status status =
        load_word(load, node, "`algorithm`", algorithm_words, LOAD_COUNT(algorithm_words), &value);
    recipe->algorithm = (enum recipe_algorithm)value;
    recipe->info.algorithm = algorithm_words[0].text;
    for (size_t i = 0; i < LOAD_COUNT(algorithm_words); i++)
        if (algorithm_words[i].value == value)
            recipe->info.algorithm = algorithm_words[i].text;
    return status;
}

static enum oh_status read_key(struct load *load, struct fy_node *node, void *into)
{
    static const struct load_word words[] = {
        {"utf8", RECIPE_KEY_UTF8}, {"spki-b64", RECIPE_KEY_SPKI_B64},
        {"whsec", LOAD_LATER},     {"hex", LOAD_LATER},
        {"base64", LOAD_LATER},    {"sha1", LOAD_LATER},
        {"pem", LOAD_LATER},       {"raw-b64", LOAD_LATER},
        {"raw-hex", LOAD_LATER},   {"whpk", LOAD_LATER},
        {"cert-url", LOAD_LATER},  {"jwk-by-kid", LOAD_LATER},
    };
    int value = 0;
    enum oh_status status = load_word(load, node, "`key`", words, LOAD_COUNT(words), &value);
    ((struct oh_recipe *)into)->key_form = (enum recipe_key_form)value;
    return status;
}

/* Names of headers: one, or aliases of which the first that is there counts. */
static enum oh_status read_names(struct load *load, struct fy_node *node, struct recipe_names *out)
{
    size_t count = load_list_count(node);
    if (count == 0 || count > RECIPE_LIST_MAX)
        return load_fail(load, node, "`name` has to be a name or a list of 1 to %d",
                         RECIPE_LIST_MAX);
    struct oh_slice *names = load_alloc(load, count * sizeof(*names));
    if (!names)
        return OH_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        struct fy_node *item = load_list_at(node, i);
        enum oh_status status =
            recipe_header_name(yaml_text(item), load->recipe->arena, &names[i], load->err);
        if (status)
            return load_place(load, item, status);
    }
    *out = (struct recipe_names){names, count};
    return OH_OK;
}

static enum oh_status read_signature_in(struct load *load, struct fy_node *node, void *into)
{
    (void)into;
    static const struct load_word words[] = {{"header", 0},
                                             {"json", LOAD_LATER},
                                             {"query", LOAD_LATER},
                                             {"form", LOAD_LATER},
                                             {"body", LOAD_LATER}};
    int value;
    return load_word(load, node, "`in`", words, LOAD_COUNT(words), &value);
}

static enum oh_status read_signature_name(struct load *load, struct fy_node *node, void *into)
{
    return read_names(load, node, &((struct recipe_signature *)into)->names);
}

static enum oh_status read_signature_parse(struct load *load, struct fy_node *node, void *into)
{
    static const struct load_word words[] = {
        {"plain", RECIPE_PARSE_PLAIN}, {"kv", RECIPE_PARSE_KV},  {"tagged", LOAD_LATER},
        {"positional", LOAD_LATER},    {"numbered", LOAD_LATER}, {"pipepairs", LOAD_LATER},
    };
    int value = 0;
    enum oh_status status = load_word(load, node, "`parse`", words, LOAD_COUNT(words), &value);
    ((struct recipe_signature *)into)->parse = (enum recipe_parse)value;
    return status;
}

static enum oh_status read_signature_encoding(struct load *load, struct fy_node *node, void *into)
{
    static const struct load_word words[] = {
        {"hex", RECIPE_HEX},     {"base64", RECIPE_BASE64}, {"base64url", LOAD_LATER},
        {"hex-any", LOAD_LATER}, {"raw", LOAD_LATER},
    };
    int value = 0;
    enum oh_status status = load_word(load, node, "`encoding`", words, LOAD_COUNT(words), &value);
    ((struct recipe_signature *)into)->encoding = (enum recipe_encoding)value;
    return status;
}

static enum oh_status read_signature_prefix(struct load *load, struct fy_node *node, void *into)
{
    return load_text(load, node, "`prefix`", &((struct recipe_signature *)into)->prefix);
}

static enum oh_status read_signature_separator(struct load *load, struct fy_node *node, void *into)
{
    struct oh_slice text = yaml_text(node);
    if (!text.data || text.len != 1 || text.data[0] <= ' ' || text.data[0] == '=')
        return load_fail(load, node, "`separator` has to be one character such as \",\" or \";\"");
    ((struct recipe_signature *)into)->separator = text.data[0];
    return OH_OK;
}

static enum oh_status read_signature_key(struct load *load, struct fy_node *node, void *into)
{
    return load_text(load, node, "`key`", &((struct recipe_signature *)into)->key);
}

static enum oh_status read_later(struct load *load, struct fy_node *node, void *into)
{
    (void)into;
    return load_fail(load, node, "this key is not built yet");
}

static enum oh_status read_signature(struct load *load, struct fy_node *node, void *into)
{
    static const struct load_key keys[] = {
        {"in", true, read_signature_in},
        {"name", true, read_signature_name},
        {"parse", true, read_signature_parse},
        {"encoding", true, read_signature_encoding},
        {"prefix", false, read_signature_prefix},
        {"separator", false, read_signature_separator},
        {"key", false, read_signature_key},
        {"tag", false, read_later},
        {"group", false, read_later},
        {"also", false, read_later},
        {"max", false, read_later},
        {"several_headers", false, read_later},
    };
    struct recipe_signature *signature = &((struct oh_recipe *)into)->signature;
    enum oh_status status =
        load_mapping(load, node, "`signature`", keys, LOAD_COUNT(keys), signature);
    if (status)
        return status;
    bool kv = signature->parse == RECIPE_PARSE_KV;
    if (kv && (!signature->separator || !signature->key.data))
        return load_fail(load, node, "`parse: kv` needs `separator` and `key`");
    if (kv && signature->prefix.data)
        return load_fail(load, node, "`prefix` goes with `parse: plain`");
    if (!kv && (signature->separator || signature->key.data))
        return load_fail(load, node, "`separator` and `key` go with `parse: kv`");
    return OH_OK;
}

/* ---- what is signed ----------------------------------------------------------------------------
 */

static enum oh_status read_part(struct load *load, struct fy_node *node, struct recipe_part *out)
{
    static const struct load_word words[] = {
        {"body", RECIPE_PART_BODY},  {"ts", RECIPE_PART_TS},       {"url", LOAD_LATER},
        {"method", LOAD_LATER},      {"secret", LOAD_LATER},       {"sha256:body", LOAD_LATER},
        {"form_sorted", LOAD_LATER}, {"query_sorted", LOAD_LATER}, {"url_nopath_query", LOAD_LATER},
    };
    struct oh_slice text;
    enum oh_status status = load_text(load, node, "a part of `message`", &text);
    if (status)
        return status;
    if (slice_has_prefix(text, SLICE_LITERAL("lit:")) && text.len > 4) {
        out->kind = RECIPE_PART_LITERAL;
        out->literal = slice_of(text.data + 4, text.len - 4);
        return OH_OK;
    }
    static const char *const later[] = {"header:", "json:", "form:"};
    for (size_t i = 0; i < LOAD_COUNT(later); i++)
        if (slice_has_prefix(text, slice_of_text(later[i])))
            return load_fail(load, node, "a part of `message`: '%s' is not built yet", later[i]);
    int kind = 0;
    status = load_word(load, node, "a part of `message` (besides lit:TEXT)", words,
                       LOAD_COUNT(words), &kind);
    out->kind = (enum recipe_part_kind)kind;
    return status;
}

static enum oh_status read_message(struct load *load, struct fy_node *node, void *into)
{
    struct oh_recipe *recipe = into;
    size_t count = load_list_count(node);
    bool has_body = false;
    if (count == 0 || count > RECIPE_PARTS_MAX)
        return load_fail(load, node, "`message` has to be a list of 1 to %d parts",
                         RECIPE_PARTS_MAX);
    for (size_t i = 0; i < count; i++) {
        enum oh_status status = read_part(load, load_list_at(node, i), &recipe->parts[i]);
        if (status)
            return status;
        has_body |= recipe->parts[i].kind == RECIPE_PART_BODY;
    }
    recipe->part_count = count;
    if (!has_body)
        return load_fail(load, node, "`message` without `body`: anyone could change the events");
    return OH_OK;
}

/* ---- its timestamp -----------------------------------------------------------------------------
 */

static enum oh_status read_ts_in(struct load *load, struct fy_node *node, void *into)
{
    static const struct load_word words[] = {
        {"header", RECIPE_TS_HEADER}, {"sigfield", RECIPE_TS_SIGFIELD}, {"json", LOAD_LATER}};
    int value = 0;
    enum oh_status status = load_word(load, node, "`in`", words, LOAD_COUNT(words), &value);
    ((struct recipe_timestamp *)into)->in = (enum recipe_ts_in)value;
    return status;
}

static enum oh_status read_ts_name(struct load *load, struct fy_node *node, void *into)
{
    struct recipe_timestamp *timestamp = into;
    if (timestamp->in == RECIPE_TS_HEADER)
        return read_names(load, node, &timestamp->names);
    return load_text(load, node, "`name`", &timestamp->key);
}

static enum oh_status read_ts_unit(struct load *load, struct fy_node *node, void *into)
{
    static const struct load_word words[] = {
        {"s", RECIPE_UNIT_S}, {"ms", RECIPE_UNIT_MS}, {"iso", LOAD_LATER}};
    int value = 0;
    enum oh_status status = load_word(load, node, "`unit`", words, LOAD_COUNT(words), &value);
    ((struct recipe_timestamp *)into)->unit = (enum recipe_time_unit)value;
    return status;
}

static enum oh_status read_window(struct load *load, struct fy_node *node, const char *what,
                                  int64_t *out)
{
    *out = -1;
    if (slice_equals(yaml_text(node), SLICE_LITERAL("none")))
        return OH_OK;
    return load_duration(load, node, what, out);
}

static enum oh_status read_ts_past(struct load *load, struct fy_node *node, void *into)
{
    return read_window(load, node, "`past` (or none)", &((struct recipe_timestamp *)into)->past_s);
}

static enum oh_status read_ts_future(struct load *load, struct fy_node *node, void *into)
{
    return read_window(load, node, "`future` (or none)",
                       &((struct recipe_timestamp *)into)->future_s);
}

static enum oh_status read_ts_signed(struct load *load, struct fy_node *node, void *into)
{
    (void)into;
    static const struct load_word words[] = {{"true", 1}, {"false", LOAD_LATER}};
    int value;
    return load_word(load, node, "`signed`", words, LOAD_COUNT(words), &value);
}

static enum oh_status read_timestamp(struct load *load, struct fy_node *node, void *into)
{
    static const struct load_key keys[] = {
        /* `in` before `name`: it says what a name is */
        {"in", true, read_ts_in},         {"name", true, read_ts_name},
        {"unit", true, read_ts_unit},     {"past", true, read_ts_past},
        {"future", true, read_ts_future}, {"signed", false, read_ts_signed},
    };
    return load_mapping(load, node, "`timestamp`", keys, LOAD_COUNT(keys),
                        &((struct oh_recipe *)into)->timestamp);
}

/* serve_tolerance: -2 = not given. */
enum { SERVE_NOT_GIVEN = -2 };

static enum oh_status read_serve_tolerance(struct load *load, struct fy_node *node, void *into)
{
    return read_window(load, node, "`serve_tolerance` (or none)",
                       &((struct oh_recipe *)into)->timestamp.serve_past_s);
}

/* ---- one scheme --------------------------------------------------------------------------------
 */

/* What `serve` has to allow so that every retry passes; 0 = nothing beyond the scheme's window. */
static int64_t retry_window_s(const struct oh_recipe_info *info)
{
    if (info->retries_signed_anew)
        return 0;
    return info->retry_horizon_s < 0 ? UNKNOWN_HORIZON_S : info->retry_horizon_s;
}

static enum oh_status check_scheme(struct load *load, struct fy_node *node)
{
    const struct oh_recipe *recipe = load->recipe;
    const struct recipe_timestamp *ts = &recipe->timestamp;
    bool ecdsa = recipe->algorithm == RECIPE_ECDSA_P256_SHA256;
    bool signs_ts = false;
    for (size_t i = 0; i < recipe->part_count; i++)
        signs_ts |= recipe->parts[i].kind == RECIPE_PART_TS;
    if (ecdsa != (recipe->key_form == RECIPE_KEY_SPKI_B64))
        return load_fail(load, node, "`key` does not fit `algorithm`: %s",
                         ecdsa ? "ecdsa-p256-sha256 takes spki-b64" : "HMAC takes utf8");
    if (signs_ts != (ts->in != RECIPE_TS_NONE))
        return load_fail(load, node,
                         signs_ts ? "`ts` in `message` needs `timestamp`"
                                  : "`timestamp` without `ts` in `message`: not signed");
    if (ts->in == RECIPE_TS_SIGFIELD && recipe->signature.parse != RECIPE_PARSE_KV)
        return load_fail(load, node, "`timestamp: {in: sigfield}` needs `parse: kv`");
    if (ts->serve_past_s != SERVE_NOT_GIVEN && ts->in == RECIPE_TS_NONE)
        return load_fail(load, node, "`serve_tolerance` needs `timestamp`");
    if (ts->serve_past_s >= 0 &&
        (ts->serve_past_s < retry_window_s(&recipe->info) || ts->serve_past_s < ts->past_s))
        return load_fail(load, node,
                         "`serve_tolerance` is shorter than the scheme's window or the retries");
    return OH_OK;
}

static enum oh_status read_scheme(struct load *load, struct fy_node *node)
{
    static const struct load_key keys[] = {
        {"id", true, read_scheme_id},
        {"algorithm", true, read_algorithm},
        {"key", true, read_key},
        {"signature", true, read_signature},
        {"message", true, read_message},
        {"timestamp", false, read_timestamp},
        {"serve_tolerance", false, read_serve_tolerance},
        {"events", false, load_events},
    };
    enum oh_status status =
        load_mapping(load, node, "a scheme", keys, LOAD_COUNT(keys), load->recipe);
    return status ? status : check_scheme(load, node);
}

/* ---- the file ----------------------------------------------------------------------------------
 */

static bool recipe_name_is_valid(struct oh_slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.data[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
              (i > 0 && (c == '_' || c == '-'))))
            return false;
    }
    return name.len > 0 && name.len <= 63;
}

static enum oh_status read_provider(struct load *load, struct fy_node *node, void *into)
{
    struct oh_slice text;
    enum oh_status status = load_text(load, node, "`provider`", &text);
    if (status)
        return status;
    if (!recipe_name_is_valid(text))
        return load_fail(load, node, "`provider` has to be a name of a-z, 0-9, _ and -");
    ((struct oh_recipe_info *)into)->provider = text.data;
    return OH_OK;
}

static enum oh_status read_title(struct load *load, struct fy_node *node, void *into)
{
    struct oh_slice text;
    enum oh_status status = load_text(load, node, "`title`", &text);
    ((struct oh_recipe_info *)into)->title = status ? NULL : text.data;
    return status;
}

static enum oh_status read_confidence(struct load *load, struct fy_node *node, void *into)
{
    static const struct load_word words[] = {{"low", 0}, {"medium", 1}, {"high", 2}};
    int value = 0;
    enum oh_status status = load_word(load, node, "`confidence`", words, LOAD_COUNT(words), &value);
    ((struct oh_recipe_info *)into)->confidence = words[value].text;
    return status;
}

static enum oh_status read_proof(struct load *load, struct fy_node *node, void *into)
{
    static const struct load_word words[] = {{"unconfirmed", 0}, {"sdk", 1}, {"published", 2}};
    int value = 0;
    enum oh_status status = load_word(load, node, "`proof`", words, LOAD_COUNT(words), &value);
    ((struct oh_recipe_info *)into)->proof = words[value].text;
    return status;
}

static enum oh_status read_id_scope(struct load *load, struct fy_node *node, void *into)
{
    static const struct load_word words[] = {{"source", OH_SCOPE_SOURCE},
                                             {"provider", OH_SCOPE_PROVIDER}};
    int value = 0;
    enum oh_status status = load_word(load, node, "`id_scope`", words, LOAD_COUNT(words), &value);
    ((struct oh_recipe_info *)into)->id_scope = (enum oh_id_scope)value;
    return status;
}

static enum oh_status read_ack_budget(struct load *load, struct fy_node *node, void *into)
{
    int64_t seconds = 0;
    enum oh_status status = OH_OK;
    if (!slice_equals(yaml_text(node), SLICE_LITERAL("unknown")))
        status = load_duration(load, node, "`ack_budget` (or unknown)", &seconds);
    ((struct oh_recipe_info *)into)->ack_budget_ms = seconds * 1000;
    return status;
}

static enum oh_status read_handshake(struct load *load, struct fy_node *node, void *into)
{
    struct oh_slice text;
    enum oh_status status = load_text(load, node, "`handshake`", &text);
    ((struct oh_recipe_info *)into)->handshake = status ? NULL : text.data;
    return status;
}

static enum oh_status read_retry_words(struct load *load, struct fy_node *node, void *into)
{
    struct oh_slice text;
    enum oh_status status = load_text(load, node, "`schedule`", &text);
    ((struct oh_recipe_info *)into)->retries = status ? NULL : text.data;
    return status;
}

static enum oh_status read_retry_horizon(struct load *load, struct fy_node *node, void *into)
{
    int64_t *horizon_s = &((struct oh_recipe_info *)into)->retry_horizon_s;
    struct oh_slice text = yaml_text(node);
    *horizon_s = slice_equals(text, SLICE_LITERAL("never")) ? 0 : -1;
    if (*horizon_s == 0 || slice_equals(text, SLICE_LITERAL("unknown")))
        return OH_OK;
    return load_duration(load, node, "`horizon` (or never, unknown)", horizon_s);
}

static enum oh_status read_retry_signed_anew(struct load *load, struct fy_node *node, void *into)
{
    return load_bool(load, node, "`signed_anew`",
                     &((struct oh_recipe_info *)into)->retries_signed_anew);
}

static enum oh_status read_retries(struct load *load, struct fy_node *node, void *into)
{
    static const struct load_key keys[] = {
        {"schedule", true, read_retry_words},
        {"horizon", true, read_retry_horizon},
        {"signed_anew", false, read_retry_signed_anew},
    };
    return load_mapping(load, node, "`retries`", keys, LOAD_COUNT(keys), into);
}

static enum oh_status read_events(struct load *load, struct fy_node *node, void *into)
{
    (void)into;
    return load_events(load, node, NULL);
}

static enum oh_status read_schemes(struct load *load, struct fy_node *node, void *into)
{
    (void)into;
    load->schemes = node;
    return OH_OK;
}

static const struct load_key file_keys[] = {
    {"provider", true, read_provider},     {"title", true, read_title},
    {"confidence", true, read_confidence}, {"proof", true, read_proof},
    {"id_scope", true, read_id_scope},     {"ack_budget", true, read_ack_budget},
    {"retries", true, read_retries},       {"handshake", false, read_handshake},
    {"answer", false, read_later},         {"schemes", true, read_schemes},
    {"events", true, read_events},
};

enum oh_status load_scheme_count(struct fy_node *root, size_t *count, struct oh_error *err)
{
    struct load load = {.err = err, .line = 1};
    struct fy_node *schemes =
        fy_node_is_mapping(root) ? fy_node_mapping_lookup_by_string(root, "schemes", 7) : NULL;
    if (!schemes || !fy_node_is_sequence(schemes))
        return load_fail(&load, root, "a recipe file needs `schemes`, a list");
    *count = load_list_count(schemes);
    if (*count == 0 || *count > RECIPE_SCHEME_MAX)
        return load_fail(&load, schemes, "`schemes` has to be a list of 1 to %d",
                         RECIPE_SCHEME_MAX);
    return OH_OK;
}

enum oh_status load_recipe(struct fy_node *root, size_t index, struct oh_recipe **out,
                           struct oh_error *err)
{
    struct oh_recipe *recipe = recipe_new();
    if (!recipe)
        return oh_fail(err, OH_NO_MEMORY, "out of memory");
    struct load load = {.recipe = recipe, .err = err, .line = 1};
    recipe->timestamp.serve_past_s = SERVE_NOT_GIVEN;
    enum oh_status status =
        load_mapping(&load, root, "a recipe file", file_keys, LOAD_COUNT(file_keys), &recipe->info);
    if (!status)
        status = read_scheme(&load, load_list_at(load.schemes, index));
    if (status) {
        recipe_free(recipe);
        return status;
    }
    recipe_finish(recipe);
    *out = recipe;
    return OH_OK;
}

/* ---- making a recipe ---------------------------------------------------------------------------
 */

struct oh_recipe *recipe_new(void)
{
    struct oh_arena *arena = oh_arena_new(4096, 1 << 20);
    struct oh_recipe *recipe = arena ? oh_arena_alloc(arena, sizeof(*recipe)) : NULL;
    if (!recipe) {
        oh_arena_free(arena);
        return NULL;
    }
    *recipe = (struct oh_recipe){.arena = arena};
    recipe->info.handshake = "none";
    recipe->timestamp.past_s = recipe->timestamp.future_s = -1;
    recipe->timestamp.serve_past_s = SERVE_NOT_GIVEN;
    return recipe;
}

void recipe_free(struct oh_recipe *recipe)
{
    if (recipe)
        oh_arena_free(recipe->arena);
}

void recipe_finish(struct oh_recipe *recipe)
{
    struct oh_recipe_info *info = &recipe->info;
    struct recipe_timestamp *ts = &recipe->timestamp;
    if (ts->serve_past_s == SERVE_NOT_GIVEN) {
        int64_t retries_s = retry_window_s(info);
        ts->serve_past_s = ts->past_s > retries_s ? ts->past_s : retries_s;
        if (ts->in == RECIPE_TS_NONE || (ts->past_s < 0 && retries_s == 0))
            ts->serve_past_s = -1;
    }
    info->tolerance_past_s = ts->past_s;
    info->tolerance_future_s = ts->future_s;
    info->serve_tolerance_s = ts->serve_past_s;
    info->has_private_key = recipe->algorithm == RECIPE_ECDSA_P256_SHA256;
    info->key_grade = recipe->events.id.count          ? "id"
                      : recipe->events.composite.count ? "composite"
                                                       : "hash";
}
