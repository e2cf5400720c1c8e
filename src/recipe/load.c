/* SPDX-License-Identifier: Apache-2.0 */
/* The loader: every mapping of a recipe file is a table of keys, and the tables stand at the end of
 * this file, where they read like docs/providers.md. Errors carry the line they are about.
 *
 * What the form knows and this program does not do yet is refused in the same way as what the form
 * does not know: nothing is ever silently left out. */
#include "recipe/load.h"

#include "base/slice.h"

#include <stdarg.h>
#include <stdio.h>

enum {
    LIST_MAX = 32,   /* longest list of values */
    WORDS_MAX = 512, /* longest map of type words */
    TEXT_MAX = 1024, /* longest text, bytes */
    DAY_S = 86400,
    UNKNOWN_HORIZON_S = 7 * DAY_S, /* CONTRACT, Configuration: where retries are not known */
    SERVE_NOT_GIVEN = -2,          /* of `serve_tolerance` */
};

/* Reads one scheme of a file into a recipe. */
struct load {
    struct oh_recipe *recipe;
    struct oh_error *err;
    const struct key *key; /* that is being read */
    int line;              /* where things without a place of their own are reported */
    struct fy_node *schemes;
};

/* One key of a mapping. A table ends with a row without a name, whose `more` lists the keys that
 * are not built yet. */
struct key {
    const char *name;
    bool required;
    /* Sets the key's member at `out` to what `node` says. */
    enum oh_status (*read)(struct load *load, struct fy_node *node, void *out);
    size_t offset;    /* of the member, in what the mapping's reader was given */
    const void *more; /* what `read` has to know: words, a table of keys, a struct list */
};

/* A sequence, or a scalar standing for a list of one. It is kept as a pointer with its count behind
 * it, as in struct recipe_values. */
struct list {
    struct key item; /* how one is read */
    size_t item_bytes;
};

_Static_assert(offsetof(struct recipe_events, type_count) ==
                       offsetof(struct recipe_events, type) + sizeof(void *) &&
                   offsetof(struct recipe_events, occurred_at_count) ==
                       offsetof(struct recipe_events, occurred_at) + sizeof(void *),
               "counts stand behind their pointers");

/* ---- errors and memory ----------------------------------------------------------------------- */

static enum oh_status OH_PRINTF(3, 4)
    fail(struct load *load, struct fy_node *node, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (load->err) {
        vsnprintf(load->err->text, sizeof(load->err->text), format, args);
        load->err->line = yaml_line(node, load->line);
    }
    va_end(args);
    return OH_INVALID;
}

/* Puts the line of `node` to an error that a callee has filled. */
static enum oh_status place(struct load *load, struct fy_node *node, enum oh_status status)
{
    if (status && load->err)
        load->err->line = yaml_line(node, load->line);
    return status;
}

/* Zeroed memory of the recipe's arena. */
static void *alloc(struct load *load, size_t bytes)
{
    void *p = oh_arena_alloc(load->recipe->arena, bytes);
    if (p)
        memset(p, 0, bytes);
    else
        oh_fail(load->err, OH_NO_MEMORY, "out of memory");
    return p;
}

/* ---- mappings and lists ---------------------------------------------------------------------- */

static enum oh_status read_as(struct load *load, const struct key *key, struct fy_node *node,
                              void *out)
{
    const struct key *outer = load->key;
    load->key = key;
    enum oh_status status = key->read(load, node, out);
    load->key = outer;
    return status;
}

/* `keys` NULL: any. */
static enum oh_status check_keys(struct load *load, struct fy_node *node, const struct key *keys)
{
    void *at = NULL;
    struct fy_node_pair *pair;
    if (!node || !fy_node_is_mapping(node) || fy_node_mapping_item_count(node) > WORDS_MAX)
        return fail(load, node, "`%s` has to be a mapping of at most %d keys", load->key->name,
                    WORDS_MAX);
    while ((pair = fy_node_mapping_iterate(node, &at))) {
        struct fy_node *at_key = fy_node_pair_key(pair);
        struct oh_slice name = yaml_text(at_key);
        int shown = (int)(name.len > 64 ? 64 : name.len);
        const struct key *row = keys;
        while (row && row->name && !slice_equals(slice_of_text(row->name), name))
            row++;
        if (row && !row->name && recipe_find_word(row->more, name) >= 0)
            return fail(load, at_key, "the key '%.*s' is not built yet", shown, name.data);
        if (row && !row->name)
            return fail(load, at_key, "`%s` has no key '%.*s'", load->key->name, shown, name.data);
        if (yaml_find(node, name) != pair)
            return fail(load, at_key, "the key '%.*s' is a duplicate", shown, name.data);
    }
    return OH_OK;
}

/* In the order of the table, whatever the order of the file. */
static enum oh_status read_mapping(struct load *load, struct fy_node *node, void *out)
{
    int outer = load->line;
    enum oh_status status = check_keys(load, node, load->key->more);
    for (const struct key *row = load->key->more; !status && row->name; row++) {
        struct fy_node_pair *pair = yaml_find(node, slice_of_text(row->name));
        if (pair) {
            load->line = yaml_line(fy_node_pair_key(pair), outer);
            status = read_as(load, row, fy_node_pair_value(pair), (char *)out + row->offset);
            load->line = outer;
        } else if (row->required) {
            status = fail(load, node, "`%s` needs the key '%s'", load->key->name, row->name);
        }
    }
    return status;
}

/* The number of items, 1 for a scalar; none or more than `max` is an error. */
static enum oh_status count_items(struct load *load, struct fy_node *node, int max, size_t *count)
{
    int n = !node ? 0 : fy_node_is_sequence(node) ? fy_node_sequence_item_count(node) : 1;
    *count = (size_t)n;
    if (n < 1 || n > max)
        return fail(load, node, "`%s` has to be a value or a list of 1 to %d", load->key->name,
                    max);
    return OH_OK;
}

static struct fy_node *item_at(struct fy_node *node, size_t index)
{
    return fy_node_is_sequence(node) ? fy_node_sequence_get_by_index(node, (int)index) : node;
}

static enum oh_status read_list(struct load *load, struct fy_node *node, void *out)
{
    const struct list *list = load->key->more;
    size_t count = 0;
    enum oh_status status = count_items(load, node, LIST_MAX, &count);
    if (status)
        return status;
    char *items = alloc(load, count * list->item_bytes);
    if (!items)
        return OH_NO_MEMORY;
    for (size_t i = 0; !status && i < count; i++)
        status = read_as(load, &list->item, item_at(node, i), items + i * list->item_bytes);
    memcpy(out, &items, sizeof(items));
    memcpy((char *)out + sizeof(items), &count, sizeof(count));
    return status;
}

/* ---- scalars --------------------------------------------------------------------------------- */

/* A text that is not empty, copied. */
static enum oh_status read_slice(struct load *load, struct fy_node *node, void *out)
{
    struct oh_slice text = yaml_text(node);
    if (!text.data || text.len == 0)
        return fail(load, node, "`%s` has to be a text", load->key->name);
    if (text.len > TEXT_MAX)
        return fail(load, node, "`%s` is longer than %d bytes", load->key->name, TEXT_MAX);
    return place(load, node, recipe_copy(text, load->recipe->arena, out, load->err));
}

static enum oh_status read_text(struct load *load, struct fy_node *node, void *out)
{
    struct oh_slice text = {NULL, 0};
    enum oh_status status = read_slice(load, node, &text);
    *(const char **)out = text.data;
    return status;
}

static enum oh_status read_provider(struct load *load, struct fy_node *node, void *out)
{
    static const char letters[] = "_-abcdefghijklmnopqrstuvwxyz0123456789";
    enum oh_status status = read_text(load, node, out);
    const char *name = *(const char **)out;
    if (!status && name &&
        (strspn(name, letters) != strlen(name) || strlen(name) > 63 ||
         strspn(name, letters + 2) == 0))
        status = fail(load, node, "`provider` has to be a name of a-z, 0-9, _ and -");
    return status;
}

/* A word of `more`, "BUILT, … | LATER, …", as its number: an enum's, in the same order. */
static enum oh_status read_word(struct load *load, struct fy_node *node, void *out)
{
    const char *words = load->key->more;
    const char *later = strchr(words, '|');
    struct oh_slice text = yaml_text(node);
    size_t built = later ? (size_t)(later - words) : strlen(words);
    while (strchr(", ", words[built - 1]))
        built--;
    int value = recipe_find_word(words, text);
    *(unsigned *)out = (unsigned)value;
    if (later && recipe_find_word(later, text) >= 0)
        return fail(load, node, "`%s`: '%.*s' is not built yet", load->key->name, (int)text.len,
                    text.data);
    if (value < 0)
        return fail(load, node, "`%s` has to be one of: %.*s", load->key->name, (int)built, words);
    return OH_OK;
}

/* A word that is kept as it is. */
static enum oh_status read_word_text(struct load *load, struct fy_node *node, void *out)
{
    unsigned value = 0;
    enum oh_status status = read_word(load, node, &value);
    return status ? status : read_text(load, node, out);
}

/* A key of which only one word is built. */
static enum oh_status read_only_word(struct load *load, struct fy_node *node, void *out)
{
    (void)out;
    unsigned value = 0;
    return read_word(load, node, &value);
}

static enum oh_status read_bool(struct load *load, struct fy_node *node, void *out)
{
    unsigned value = 0;
    enum oh_status status = read_word(load, node, &value);
    *(bool *)out = value == 1;
    return status;
}

static enum oh_status read_algorithm(struct load *load, struct fy_node *node, void *out)
{
    enum oh_status status = read_word(load, node, out);
    return status ? status : read_text(load, node, &load->recipe->info.algorithm);
}

/* "300s", "15m", "24h", "7d" -> seconds; or one of the words in `more`. */
static enum oh_status read_time(struct load *load, struct fy_node *node, void *out)
{
    static const int64_t seconds[] = {1, 60, 3600, DAY_S};
    static const char units[] = "smhd";
    struct oh_slice text = yaml_text(node);
    int64_t n = 0;
    size_t digits = 0;
    *(int64_t *)out = slice_equals(text, SLICE_LITERAL("never")) ? 0 : -1;
    if (recipe_find_word(load->key->more, text) >= 0)
        return OH_OK;
    while (digits < text.len && digits < 9 && text.data[digits] >= '0' && text.data[digits] <= '9')
        n = n * 10 + (text.data[digits++] - '0');
    const char *unit = digits > 0 && digits + 1 == text.len
                           ? memchr(units, text.data[digits], sizeof(units) - 1)
                           : NULL;
    if (!unit)
        return fail(load, node, "`%s` has to be a time such as 300s, 15m, 24h or 7d, or: %s",
                    load->key->name, (const char *)load->key->more);
    *(int64_t *)out = n * seconds[unit - units];
    return OH_OK;
}

static enum oh_status read_budget(struct load *load, struct fy_node *node, void *out)
{
    int64_t seconds = 0;
    enum oh_status status = read_time(load, node, &seconds);
    *(int64_t *)out = seconds < 0 ? 0 : seconds * 1000;
    return status;
}

/* ---- events ---------------------------------------------------------------------------------- */

/* `more` not NULL: lit:TEXT has its place here. */
static enum oh_status read_value(struct load *load, struct fy_node *node, void *out)
{
    struct oh_slice text = {0};
    enum oh_status status = read_slice(load, node, &text);
    if (status)
        return status;
    return place(
        load, node,
        recipe_value_parse(text, load->key->more != NULL, load->recipe->arena, out, load->err));
}

static enum oh_status read_split(struct load *load, struct fy_node *node, void *out)
{
    struct oh_slice text = yaml_text(node);
    if (!text.data)
        return fail(load, node, "`split` has to be a JSON pointer");
    load->recipe->events.has_split = true;
    return place(load, node,
                 pointer_parse(text, POINTER_EACH, load->recipe->arena, out, load->err));
}

/* The provider's type words to our words (`more`). */
static enum oh_status read_word_map(struct load *load, struct fy_node *node, void *out)
{
    struct recipe_word_map *map = out;
    void *at = NULL;
    struct fy_node_pair *pair;
    enum oh_status status = check_keys(load, node, NULL);
    if (status)
        return status;
    struct recipe_word *words =
        alloc(load, (size_t)fy_node_mapping_item_count(node) * sizeof(*words));
    if (!words)
        return OH_NO_MEMORY;
    *map = (struct recipe_word_map){words, 0};
    while (!status && (pair = fy_node_mapping_iterate(node, &at))) {
        struct recipe_word *word = &words[map->count++];
        status = read_slice(load, fy_node_pair_key(pair), &word->word);
        if (!status)
            status = read_word(load, fy_node_pair_value(pair), &word->value);
    }
    return status;
}

/* One default of `map`; its text goes to the recipe's info. */
static enum oh_status read_map_value(struct load *load, struct fy_node *node, void *out)
{
    struct recipe_events *events = &load->recipe->events;
    struct oh_recipe_info *info = &load->recipe->info;
    bool enrollment = out == &events->map_enrollment;
    *(enrollment ? &events->has_map_enrollment : &events->has_map_instance) = true;
    enum oh_status status =
        read_text(load, node, enrollment ? &info->map_enrollment : &info->map_instance);
    return status ? status : read_value(load, node, out);
}

/* Those of a scheme take the place of the file's. */
static enum oh_status read_events(struct load *load, struct fy_node *node, void *out)
{
    struct recipe_events *events = &load->recipe->events;
    *events = (struct recipe_events){0};
    load->recipe->info.map_enrollment = load->recipe->info.map_instance = NULL;
    enum oh_status status = read_mapping(load, node, out);
    if (!status && events->composite_optional.count > 0 && events->composite.count == 0)
        status = fail(load, node, "`composite_optional` needs `composite`");
    if (!status && events->type_count == 0 && (events->types.count || events->pings.count))
        status = fail(load, node, "`type_map` and `pings` need `type`");
    return status;
}

/* ---- the signature --------------------------------------------------------------------------- */

static enum oh_status read_header(struct load *load, struct fy_node *node, void *out)
{
    return place(load, node,
                 recipe_header_name(yaml_text(node), load->recipe->arena, out, load->err));
}

static enum oh_status read_separator(struct load *load, struct fy_node *node, void *out)
{
    struct oh_slice text = yaml_text(node);
    if (!text.data || text.len != 1 || text.data[0] <= ' ' || text.data[0] == '=')
        return fail(load, node, "`separator` has to be one character such as \",\" or \";\"");
    *(char *)out = text.data[0];
    return OH_OK;
}

static enum oh_status read_signature(struct load *load, struct fy_node *node, void *out)
{
    const struct recipe_signature *signature = &load->recipe->signature;
    enum oh_status status = read_mapping(load, node, out);
    if (status)
        return status;
    bool kv = signature->parse == RECIPE_PARSE_KV;
    if (kv && (!signature->separator || !signature->key.data))
        return fail(load, node, "`parse: kv` needs `separator` and `key`");
    if (kv && signature->prefix.data)
        return fail(load, node, "`prefix` goes with `parse: plain`");
    if (!kv && (signature->separator || signature->key.data))
        return fail(load, node, "`separator` and `key` go with `parse: kv`");
    return OH_OK;
}

static enum oh_status read_message(struct load *load, struct fy_node *node, void *out)
{
    (void)out;
    struct oh_recipe *recipe = load->recipe;
    bool has_body = false;
    enum oh_status status = count_items(load, node, RECIPE_PARTS_MAX, &recipe->part_count);
    for (size_t i = 0; !status && i < recipe->part_count; i++) {
        struct recipe_part *part = &recipe->parts[i];
        struct oh_slice text = yaml_text(item_at(node, i));
        if (text.len > 4 && slice_has_prefix(text, SLICE_LITERAL("lit:"))) {
            part->kind = RECIPE_PART_LITERAL;
            text = slice_of(text.data + 4, text.len - 4);
            status = recipe_copy(text, recipe->arena, &part->literal, load->err);
        } else {
            status = read_word(load, item_at(node, i), &part->kind);
        }
        has_body |= part->kind == RECIPE_PART_BODY;
    }
    if (!status && !has_body)
        status = fail(load, node, "`message` without `body`: anyone could change the events");
    return status;
}

/* What a name is depends on `in`, which is read before. */
static enum oh_status read_timestamp_name(struct load *load, struct fy_node *node, void *out)
{
    struct recipe_timestamp *timestamp = out;
    return timestamp->in == RECIPE_TS_HEADER ? read_list(load, node, &timestamp->names)
                                             : read_slice(load, node, &timestamp->key);
}

static enum oh_status read_schemes(struct load *load, struct fy_node *node, void *out)
{
    (void)out;
    size_t count = 0;
    load->schemes = node;
    return count_items(load, node, RECIPE_SCHEME_MAX, &count);
}

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
        return fail(load, node, "`key` does not fit `algorithm`: %s",
                    ecdsa ? "ecdsa-p256-sha256 takes spki-b64" : "HMAC takes utf8");
    if (signs_ts != (ts->in != RECIPE_TS_NONE))
        return fail(load, node,
                    signs_ts ? "`ts` in `message` needs `timestamp`"
                             : "`timestamp` without `ts` in `message`: not signed");
    if (ts->in == RECIPE_TS_SIGFIELD && recipe->signature.parse != RECIPE_PARSE_KV)
        return fail(load, node, "`timestamp: {in: sigfield}` needs `parse: kv`");
    if (ts->serve_past_s != SERVE_NOT_GIVEN && ts->in == RECIPE_TS_NONE)
        return fail(load, node, "`serve_tolerance` needs `timestamp`");
    if (ts->serve_past_s >= 0 &&
        (ts->serve_past_s < retry_window_s(&recipe->info) || ts->serve_past_s < ts->past_s))
        return fail(load, node,
                    "`serve_tolerance` is shorter than the scheme's window or the retries");
    return OH_OK;
}

/* ---- the form -------------------------------------------------------------------------------- */

#define AT(name) offsetof(struct oh_recipe, name)
#define END(later)                  \
    {                               \
        NULL, false, NULL, 0, later \
    }

/* The contract's words. */
#define CHANNELS "none, email, linkedin, video, sms, phone"

static const struct list header_list = {{"name", true, read_header, 0, NULL},
                                        sizeof(struct oh_slice)};

static const struct key signature_keys[] = {
    {"in", true, read_only_word, 0, "header | json, query, form, body"},
    {"name", true, read_list, AT(signature.names), &header_list},
    {"parse", true, read_word, AT(signature.parse),
     "plain, kv | tagged, positional, numbered, pipepairs"},
    {"encoding", true, read_word, AT(signature.encoding),
     RECIPE_ENCODINGS " | base64url, hex-any, raw"},
    {"prefix", false, read_slice, AT(signature.prefix), NULL},
    {"separator", false, read_separator, AT(signature.separator), NULL},
    {"key", false, read_slice, AT(signature.key), NULL},
    END("tag, group, also, max, several_headers"),
};

static const struct key timestamp_keys[] = {
    {"in", true, read_word, AT(timestamp.in), "header, sigfield | json"},
    {"name", true, read_timestamp_name, AT(timestamp), &header_list},
    {"unit", true, read_word, AT(timestamp.unit), "s, ms | iso"},
    {"past", true, read_time, AT(timestamp.past_s), "none"},
    {"future", true, read_time, AT(timestamp.future_s), "none"},
    {"signed", false, read_only_word, 0, "true | false"},
    END(""),
};

static const struct key time_keys[] = {
    {"from", true, read_value, offsetof(struct recipe_time, from), NULL},
    {"unit", true, read_word, offsetof(struct recipe_time, unit), "s, ms, iso, auto"},
    END(""),
};

static const struct key map_keys[] = {
    {"enrollment_id", false, read_map_value, AT(events.map_enrollment), NULL},
    {"instance_id", false, read_map_value, AT(events.map_instance), NULL},
    END(""),
};

/* `type`: alternatives; each is a value, or a list of values that stand one after the other. */
static const struct list
    value_list = {{"a value", true, read_value, 0, NULL}, sizeof(struct recipe_value)},
    type_parts = {{"type", true, read_value, 0, "lit:"}, sizeof(struct recipe_value)},
    type_list = {{"type", true, read_list, 0, &type_parts}, sizeof(struct recipe_values)},
    ping_list = {{"pings", true, read_slice, 0, NULL}, sizeof(struct oh_slice)},
    time_list = {{"occurred_at", true, read_mapping, 0, time_keys}, sizeof(struct recipe_time)};

static const struct key events_keys[] = {
    {"split", false, read_split, AT(events.split), NULL},
    {"form_json_field", false, read_text, AT(events.form_json_field), NULL},
    {"id", false, read_list, AT(events.id), &value_list},
    {"composite", false, read_list, AT(events.composite), &value_list},
    {"composite_optional", false, read_list, AT(events.composite_optional), &value_list},
    {"type", false, read_list, AT(events.type), &type_list},
    {"type_map", false, read_word_map, AT(events.types), RECIPE_TYPES},
    {"canonical_types", false, read_bool, AT(events.canonical_types), "false, true"},
    {"pings", false, read_list, AT(events.pings), &ping_list},
    {"channel", false, read_word, AT(events.channel), CHANNELS},
    {"channel_map", false, read_word_map, AT(events.channels), CHANNELS},
    {"occurred_at", false, read_list, AT(events.occurred_at), &time_list},
    {"map", false, read_mapping, 0, map_keys},
    END(""),
};

static const struct key scheme_keys[] = {
    {"id", true, read_text, AT(info.scheme), NULL},
    {"algorithm", true, read_algorithm, AT(algorithm),
     "hmac-sha1, hmac-sha256, hmac-sha512, ecdsa-p256-sha256 | sha1, sha256, ed25519, rsa-sha1, "
     "rsa-sha256, jwt, token, basic"},
    {"key", true, read_word, AT(key_form),
     "utf8, spki-b64 | whsec, hex, base64, sha1, pem, raw-b64, raw-hex, whpk, cert-url, "
     "jwk-by-kid"},
    {"signature", true, read_signature, 0, signature_keys},
    {"message", true, read_message, 0,
     "body, ts, lit:TEXT | header:, json:, form:, url, method, secret, sha256:, form_sorted, "
     "query_sorted, url_nopath_query"},
    {"timestamp", false, read_mapping, 0, timestamp_keys},
    {"serve_tolerance", false, read_time, AT(timestamp.serve_past_s), "none"},
    {"events", false, read_events, 0, events_keys},
    END(""),
};

static const struct key retries_keys[] = {
    {"schedule", true, read_text, AT(info.retries), NULL},
    {"horizon", true, read_time, AT(info.retry_horizon_s), "never, unknown"},
    {"signed_anew", false, read_bool, AT(info.retries_signed_anew), "false, true"},
    END(""),
};

static const struct key file_keys[] = {
    {"provider", true, read_provider, AT(info.provider), NULL},
    {"title", true, read_text, AT(info.title), NULL},
    {"confidence", true, read_word_text, AT(info.confidence), "low, medium, high"},
    {"proof", true, read_word_text, AT(info.proof), "unconfirmed, sdk, published"},
    {"id_scope", true, read_word, AT(info.id_scope), "source, provider"},
    {"ack_budget", true, read_budget, AT(info.ack_budget_ms), "unknown"},
    {"retries", true, read_mapping, 0, retries_keys},
    {"handshake", false, read_text, AT(info.handshake), NULL},
    {"schemes", true, read_schemes, 0, NULL},
    {"events", true, read_events, 0, events_keys},
    END("answer"),
};

/* ---- making recipes -------------------------------------------------------------------------- */

static enum oh_status load_scheme(struct load *load, struct fy_node *root, size_t index)
{
    static const struct key file = {"recipe", true, read_mapping, 0, file_keys};
    static const struct key scheme = {"schemes", true, read_mapping, 0, scheme_keys};
    load->recipe = recipe_new();
    if (!load->recipe)
        return oh_fail(load->err, OH_NO_MEMORY, "out of memory");
    enum oh_status status = read_as(load, &file, root, load->recipe);
    struct fy_node *node = status ? NULL : item_at(load->schemes, index);
    if (!status)
        status = read_as(load, &scheme, node, load->recipe);
    if (!status)
        status = check_scheme(load, node);
    if (!status)
        recipe_finish(load->recipe);
    return status;
}

enum oh_status load_recipes(struct fy_node *root, struct oh_recipe *made[RECIPE_SCHEME_MAX],
                            size_t *count, struct oh_error *err)
{
    struct load load = {.err = err, .line = 1};
    enum oh_status status = OH_OK;
    bool more = true;
    for (*count = 0; !status && more; ++*count) {
        status = load_scheme(&load, root, *count);
        made[*count] = load.recipe;
        more = !status && fy_node_is_sequence(load.schemes) &&
               fy_node_sequence_item_count(load.schemes) > (int)*count + 1;
    }
    while (status && *count > 0)
        recipe_free(made[--*count]);
    return status;
}

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
    recipe->timestamp.in = RECIPE_TS_NONE;
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
