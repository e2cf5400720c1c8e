/* SPDX-License-Identifier: Apache-2.0 */
/* The loader: every mapping of a recipe file is a table of keys, and the tables stand at the end of
 * this file, where they read like docs/providers.md. What the form does not know is refused:
 * nothing is ever silently left out. */
#include "recipe/load.h"

#include "base/slice.h"
#include "recipe/read.h"

enum {
    UNKNOWN_HORIZON_S = 7 * DAY_S, /* CONTRACT, Configuration: where retries are not known */
    SERVE_NOT_GIVEN = -2,          /* of `serve_tolerance` */
};

/* ---- events ---------------------------------------------------------------------------------- */

/* `more` not NULL: lit:TEXT has its place here. */
static enum oh_status read_value(struct load *load, struct fy_node *node, void *out)
{
    struct oh_slice text = {0};
    enum oh_status status = read_slice(load, node, &text);
    if (status)
        return status;
    return read_place(
        load, node,
        recipe_value_parse(text, load->key->more != NULL, load->recipe->arena, out, load->err));
}

static enum oh_status read_split(struct load *load, struct fy_node *node, void *out)
{
    struct oh_slice text = yaml_text(node);
    if (!text.data)
        return read_fail(load, node, "`split` has to be a JSON pointer");
    load->recipe->events.has_split = true;
    return read_place(load, node,
                      pointer_parse(text, POINTER_EACH, load->recipe->arena, out, load->err));
}

static enum oh_status read_inner(struct load *load, struct fy_node *node, void *out)
{
    load->recipe->events.has_inner = true;
    return read_value(load, node, out);
}

static enum oh_status read_present(struct load *load, struct fy_node *node, void *out)
{
    load->recipe->events.has_present = true;
    return read_value(load, node, out);
}

/* The provider's type words to our words (`more`). */
static enum oh_status read_word_map(struct load *load, struct fy_node *node, void *out)
{
    struct recipe_word_map *map = out;
    void *at = NULL;
    struct fy_node_pair *pair;
    enum oh_status status = read_check_keys(load, node, NULL);
    if (status)
        return status;
    struct recipe_word *words =
        read_alloc(load, (size_t)fy_node_mapping_item_count(node) * sizeof(*words));
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
        status = read_fail(load, node, "`composite_optional` needs `composite`");
    if (!status && events->type_count == 0 && (events->types.count || events->pings.count))
        status = read_fail(load, node, "`type_map` and `pings` need `type`");
    return status;
}

/* ---- the signature --------------------------------------------------------------------------- */

static enum oh_status read_header(struct load *load, struct fy_node *node, void *out)
{
    return read_place(load, node,
                      recipe_header_name(yaml_text(node), load->recipe->arena, out, load->err));
}

static enum oh_status read_separator(struct load *load, struct fy_node *node, void *out)
{
    struct oh_slice text = yaml_text(node);
    if (!text.data || text.len != 1 || text.data[0] < ' ' || text.data[0] == '=')
        return read_fail(load, node, "`%s` has to be one character such as \",\" or \";\"",
                         load->key->name);
    *(char *)out = text.data[0];
    return OH_OK;
}

static enum oh_status read_number(struct load *load, struct fy_node *node, void *out)
{
    struct oh_slice text = yaml_text(node);
    int64_t n = 0;
    for (size_t i = 0; i < text.len && n <= 1000; i++)
        n = text.data[i] >= '0' && text.data[i] <= '9' ? n * 10 + (text.data[i] - '0') : 1001;
    if (n < 1 || n > 1000)
        return read_fail(load, node, "`%s` has to be a number of 1 to 1000", load->key->name);
    *(int64_t *)out = n;
    return OH_OK;
}

/* A place of a JSON body; *index is its number among those of the scheme. */
static enum oh_status add_json(struct load *load, struct fy_node *node, struct oh_slice text,
                               size_t *index)
{
    struct oh_recipe *recipe = load->recipe;
    struct pointer pointer;
    enum oh_status status = pointer_parse(text, 0, recipe->arena, &pointer, load->err);
    if (status)
        return read_place(load, node, status);
    for (*index = 0; *index < recipe->json_count; ++*index)
        if (pointer_equals(&recipe->json[*index], &pointer))
            return OH_OK;
    if (recipe->json_count == RECIPE_JSON_MAX)
        return read_fail(load, node, "more than %d places of a JSON body", RECIPE_JSON_MAX);
    recipe->json[recipe->json_count++] = pointer;
    return OH_OK;
}

/* What a name is depends on `in`, which is read before. */
static enum oh_status read_signature_name(struct load *load, struct fy_node *node, void *out)
{
    struct recipe_signature *signature = out;
    switch (signature->in) {
    case RECIPE_IN_HEADER:
        return read_list(load, node, &signature->names);
    case RECIPE_IN_JSON:
        return add_json(load, node, yaml_text(node), &signature->json);
    case RECIPE_IN_QUERY:
    case RECIPE_IN_FORM:
        return read_slice(load, node, &signature->name);
    case RECIPE_IN_BODY:
        break;
    }
    return read_fail(load, node, "`name` has no meaning with `in: body`");
}

/* Which of `separator`, `key`, `group` and `max` each way of parsing needs (n) or may have (m). */
static enum oh_status read_signature(struct load *load, struct fy_node *node, void *out)
{
    static const char needs[][5] = {
        [RECIPE_PARSE_PLAIN] = "....",    [RECIPE_PARSE_KV] = "nnm.",
        [RECIPE_PARSE_TAGGED] = ".n..",   [RECIPE_PARSE_POSITIONAL] = "n...",
        [RECIPE_PARSE_NUMBERED] = "...n", [RECIPE_PARSE_PIPEPAIRS] = "...."};
    static const char *const names[] = {"separator", "key", "group", "max"};
    const struct recipe_signature *signature = &load->recipe->signature;
    enum oh_status status = read_mapping(load, node, out);
    if (status)
        return status;
    const bool given[] = {signature->separator != 0, signature->key.data != NULL,
                          signature->group != 0, signature->numbered_max != 0};
    for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++)
        if (needs[signature->parse][i] == 'n' && !given[i])
            return read_fail(load, node, "this way to parse needs `%s`", names[i]);
        else if (needs[signature->parse][i] == '.' && given[i])
            return read_fail(load, node, "`%s` does not go with this way to parse", names[i]);
    if (signature->in != RECIPE_IN_BODY && !yaml_find(node, SLICE_LITERAL("name")))
        return read_fail(load, node, "`signature` needs the key 'name'");
    if (signature->prefix.data && signature->parse != RECIPE_PARSE_PLAIN)
        return read_fail(load, node, "`prefix` goes with `parse: plain`");
    return OH_OK;
}

/* "NAME", or "NAME|NAME": the first that is there counts. */
static enum oh_status read_part_names(struct load *load, struct fy_node *node, struct oh_slice text,
                                      struct recipe_names *names)
{
    struct oh_slice *items = read_alloc(load, 2 * sizeof(*items));
    const char *bar = text.len ? memchr(text.data, '|', text.len) : NULL;
    size_t len = bar ? (size_t)(bar - text.data) : text.len;
    if (!items)
        return OH_NO_MEMORY;
    *names = (struct recipe_names){items, bar ? 2 : 1};
    enum oh_status status =
        recipe_header_name(slice_of(text.data, len), load->recipe->arena, &items[0], load->err);
    if (!status && bar)
        status = recipe_header_name(slice_of(bar + 1, text.len - len - 1), load->recipe->arena,
                                    &items[1], load->err);
    return read_place(load, node, status);
}

/* One part: a word, or a word that ends in ':' and what follows it. */
static enum oh_status read_part(struct load *load, struct fy_node *node, void *out)
{
    struct recipe_part *part = out;
    struct oh_slice text = yaml_text(node);
    enum oh_status status = read_word(load, node, &part->kind);
    if (status || part->kind < RECIPE_PART_LITERAL)
        return status;
    size_t word = (size_t)((const char *)memchr(text.data, ':', text.len) + 1 - text.data);
    text = slice_of(text.data + word, text.len - word);
    if (part->kind == RECIPE_PART_JSON || part->kind == RECIPE_PART_JSON_OPTIONAL ||
        part->kind == RECIPE_PART_LINE)
        return add_json(load, node, text, &part->json);
    if (part->kind == RECIPE_PART_HEADER)
        return read_part_names(load, node, text, &part->names);
    if (text.len == 0)
        return read_fail(load, node, "nothing stands behind the colon");
    return read_place(load, node, recipe_copy(text, load->recipe->arena, &part->text, load->err));
}

static enum oh_status read_message(struct load *load, struct fy_node *node, void *out)
{
    (void)out;
    struct oh_recipe *recipe = load->recipe;
    enum oh_status status = read_count(load, node, RECIPE_PARTS_MAX, &recipe->part_count);
    for (size_t i = 0; !status && i < recipe->part_count; i++)
        status = read_part(load, read_item(node, i), &recipe->parts[i]);
    return status;
}

/* What a name is depends on `in`, which is read before. */
static enum oh_status read_timestamp_name(struct load *load, struct fy_node *node, void *out)
{
    struct recipe_timestamp *timestamp = out;
    if (timestamp->in == RECIPE_TS_HEADER)
        return read_list(load, node, &timestamp->names);
    if (timestamp->in == RECIPE_TS_JSON)
        return add_json(load, node, yaml_text(node), &timestamp->json);
    return read_slice(load, node, &timestamp->key);
}

static enum oh_status read_required(struct load *load, struct fy_node *node, void *out)
{
    (void)out;
    struct oh_recipe *recipe = load->recipe;
    void *at = NULL;
    struct fy_node_pair *pair;
    enum oh_status status = read_check_keys(load, node, NULL);
    if (status)
        return status;
    struct recipe_required *rows =
        read_alloc(load, (size_t)fy_node_mapping_item_count(node) * sizeof(*rows));
    if (!rows)
        return OH_NO_MEMORY;
    recipe->required = rows;
    while (!status && (pair = fy_node_mapping_iterate(node, &at))) {
        struct recipe_required *row = &rows[recipe->required_count++];
        status = read_header(load, fy_node_pair_key(pair), &row->name);
        struct fy_node *value = fy_node_pair_value(pair);
        struct oh_slice text = yaml_text(value);
        row->is_json = text.len > 0 && text.data[0] == '/';
        if (!status && row->is_json)
            status = add_json(load, value, text, &row->json);
        else if (!status)
            status = read_slice(load, value, &row->value);
    }
    return status;
}

static enum oh_status read_json_place(struct load *load, struct fy_node *node, void *out)
{
    return add_json(load, node, yaml_text(node), out);
}

static enum oh_status read_pin(struct load *load, struct fy_node *node, void *out)
{
    load->recipe->certificate.has_pin = true;
    return read_json_place(load, node, out);
}

static enum oh_status read_certificate_name(struct load *load, struct fy_node *node, void *out)
{
    struct recipe_certificate *certificate = out;
    struct oh_slice text = yaml_text(node);
    certificate->in_json = text.len > 0 && text.data[0] == '/';
    return certificate->in_json ? add_json(load, node, text, &certificate->json)
                                : read_header(load, node, &certificate->header);
}

static enum oh_status read_jwt_algorithms(struct load *load, struct fy_node *node, void *out)
{
    size_t count = 0;
    enum oh_status status = read_count(load, node, 8, &count);
    for (size_t i = 0; !status && i < count; i++) {
        unsigned bit = 0;
        status = read_word(load, read_item(node, i), &bit);
        *(unsigned *)out |= 1u << (bit & 7);
    }
    return status;
}

static enum oh_status read_schemes(struct load *load, struct fy_node *node, void *out)
{
    (void)out;
    size_t count = 0;
    load->schemes = node;
    return read_count(load, node, RECIPE_SCHEME_MAX, &count);
}

/* What `serve` has to allow so that every retry passes; 0 = nothing beyond the scheme's window. */
static int64_t retry_window_s(const struct oh_recipe_info *info)
{
    if (info->retries_signed_anew)
        return 0;
    return info->retry_horizon_s < 0 ? UNKNOWN_HORIZON_S : info->retry_horizon_s;
}

/* Which keys each algorithm takes; a bit for each word of `key`. */
static bool key_fits(const struct oh_recipe *recipe)
{
    enum { TEXT = 1 << RECIPE_KEY_UTF8, SPKI = 1 << RECIPE_KEY_SPKI_B64 | 1 << RECIPE_KEY_PEM };
    enum {
        MAC = TEXT | 1 << RECIPE_KEY_WHSEC | 1 << RECIPE_KEY_HEX | 1 << RECIPE_KEY_BASE64 |
              1 << RECIPE_KEY_SHA1,
        CERT = 1 << RECIPE_KEY_CERT_URL,
    };
    static const int fits[] = {
        [RECIPE_HMAC_SHA1] = MAC,
        [RECIPE_HMAC_SHA256] = MAC,
        [RECIPE_HMAC_SHA512] = MAC,
        [RECIPE_SHA1] = TEXT,
        [RECIPE_SHA256] = TEXT,
        [RECIPE_MD5] = TEXT,
        [RECIPE_ECDSA_P256_SHA256] = SPKI,
        [RECIPE_ED25519] =
            SPKI | 1 << RECIPE_KEY_RAW_B64 | 1 << RECIPE_KEY_RAW_HEX | 1 << RECIPE_KEY_WHPK,
        [RECIPE_RSA_SHA1] = SPKI,
        [RECIPE_RSA_SHA256] = SPKI | CERT,
        [RECIPE_RSA_SNS] = CERT,
        [RECIPE_JWT] = TEXT | SPKI | 1 << RECIPE_KEY_JWK,
        [RECIPE_TOKEN] = TEXT,
        [RECIPE_BASIC] = TEXT,
    };
    return fits[recipe->algorithm] >> recipe->key_form & 1;
}

/* Algorithms that prove a message; the others need none. */
static bool signs_message(enum recipe_algorithm algorithm)
{
    return algorithm < RECIPE_JWT;
}

static enum oh_status check_timestamp(struct load *load, struct fy_node *node)
{
    const struct oh_recipe *recipe = load->recipe;
    const struct recipe_timestamp *ts = &recipe->timestamp;
    bool in_pairs = recipe->signature.parse == RECIPE_PARSE_KV ||
                    recipe->signature.parse == RECIPE_PARSE_POSITIONAL;
    bool has_window = ts->in != RECIPE_TS_NONE || recipe->algorithm == RECIPE_JWT;
    bool signs_ts = ts->in == RECIPE_TS_JSON || ts->in == RECIPE_TS_JWT;
    for (size_t i = 0; i < recipe->part_count; i++)
        signs_ts |= recipe->parts[i].kind == RECIPE_PART_TS ||
                    recipe->parts[i].kind == RECIPE_PART_CONTENTFUL;
    if (signs_ts && ts->in == RECIPE_TS_NONE)
        return read_fail(load, node, "`ts` in `message` needs `timestamp`");
    if (signs_ts == ts->is_unsigned && ts->in != RECIPE_TS_NONE)
        return read_fail(load, node,
                         "`timestamp`: `signed: false` goes with a `message` without it");
    if ((ts->in == RECIPE_TS_SIGFIELD && !in_pairs) ||
        (ts->in == RECIPE_TS_JWT && recipe->algorithm != RECIPE_JWT))
        return read_fail(load, node, "`timestamp`: `in` does not fit the signature");
    if (ts->serve_past_s != SERVE_NOT_GIVEN && !has_window)
        return read_fail(load, node, "`serve_tolerance` needs `timestamp`");
    if (ts->serve_past_s >= 0 &&
        (ts->serve_past_s < retry_window_s(&recipe->info) || ts->serve_past_s < ts->past_s))
        return read_fail(load, node,
                         "`serve_tolerance` is shorter than the scheme's window or the retries");
    return OH_OK;
}

static enum oh_status check_scheme(struct load *load, struct fy_node *node)
{
    const struct oh_recipe *recipe = load->recipe;
    bool jwt = recipe->algorithm == RECIPE_JWT;
    if (!key_fits(recipe))
        return read_fail(load, node, "`key` does not fit `algorithm`");
    if (signs_message(recipe->algorithm) != (recipe->part_count > 0))
        return read_fail(load, node, "`message` goes with algorithms that sign one");
    if (jwt != (recipe->jwt.algorithms != 0))
        return read_fail(load, node, "`jwt` goes with `algorithm: jwt`");
    if ((recipe->key_form == RECIPE_KEY_CERT_URL) != (recipe->certificate.prefixes.count > 0))
        return read_fail(load, node, "`certificate` goes with `key: cert-url`");
    if (recipe->each_item &&
        (recipe->signature.in != RECIPE_IN_JSON || recipe->algorithm > RECIPE_HMAC_SHA512))
        return read_fail(load, node, "`each_item` goes with a HMAC in each item of a JSON body");
    return check_timestamp(load, node);
}

/* ---- the form -------------------------------------------------------------------------------- */

#define AT(name) offsetof(struct oh_recipe, name)
#define END                        \
    {                              \
        NULL, false, NULL, 0, NULL \
    }

/* The contract's words. */
#define CHANNELS "none, email, linkedin, video, sms, phone"

static const struct list header_list = {{"name", true, read_header, 0, NULL},
                                        sizeof(struct oh_slice)};

static const struct key signature_keys[] = {
    {"in", true, read_word, AT(signature.in), "header, json, query, form, body"},
    {"name", false, read_signature_name, AT(signature), &header_list},
    {"also", false, read_list, AT(signature.also), &header_list},
    {"parse", false, read_word, AT(signature.parse),
     "plain, kv, tagged, positional, numbered, pipepairs"},
    {"encoding", false, read_word, AT(signature.encoding), RECIPE_ENCODINGS},
    {"prefix", false, read_slice, AT(signature.prefix), NULL},
    {"separator", false, read_separator, AT(signature.separator), NULL},
    {"group", false, read_separator, AT(signature.group), NULL},
    {"key", false, read_slice, AT(signature.key), NULL},
    {"max", false, read_number, AT(signature.numbered_max), NULL},
    {"several_headers", false, read_bool, AT(signature.several_headers), "false, true"},
    END,
};

static const struct key timestamp_keys[] = {
    {"in", true, read_word, AT(timestamp.in), "header, sigfield, json, jwt"},
    {"name", true, read_timestamp_name, AT(timestamp), &header_list},
    {"unit", true, read_word, AT(timestamp.unit), "s, ms, iso, auto"},
    {"past", true, read_time, AT(timestamp.past_s), "none"},
    {"future", true, read_time, AT(timestamp.future_s), "none"},
    {"signed", false, read_bool, AT(timestamp.is_unsigned), "true, false"},
    END,
};

static const struct list text_list = {{"a text", true, read_slice, 0, NULL},
                                      sizeof(struct oh_slice)};

static const struct key certificate_keys[] = {
    {"name", true, read_certificate_name, AT(certificate), NULL},
    {"prefix", true, read_list, AT(certificate.prefixes), &text_list},
    {"suffix", false, read_slice, AT(certificate.suffix), NULL},
    {"subject", true, read_list, AT(certificate.subjects), &text_list},
    {"chain", false, read_bool, AT(certificate.has_chain), "false, true"},
    {"pin", false, read_pin, AT(certificate.pin), NULL},
    {"version", false, read_json_place, AT(certificate.version), NULL},
    END,
};

static const struct key jwt_keys[] = {
    {"algorithms", true, read_jwt_algorithms, AT(jwt.algorithms), RECIPE_JWT_ALGORITHMS},
    {"issuer", false, read_slice, AT(jwt.issuer), NULL},
    {"body_claim", false, read_slice, AT(jwt.body_claim), NULL},
    {"body_encoding", false, read_word, AT(jwt.body_encoding), RECIPE_ENCODINGS},
    {"body_rule", false, read_word, AT(jwt.body_rule), "required, optional, iff"},
    {"url_claim", false, read_slice, AT(jwt.url_claim), NULL},
    {"url_hashed", false, read_bool, AT(jwt.url_is_hashed), "false, true"},
    {"require", false, read_list, AT(jwt.require), &text_list},
    {"leeway", false, read_time, AT(jwt.leeway_s), ""},
    END,
};

static const struct key time_keys[] = {
    {"from", true, read_value, offsetof(struct recipe_time, from), NULL},
    {"unit", true, read_word, offsetof(struct recipe_time, unit), "s, ms, iso, auto"},
    END,
};

static const struct key map_keys[] = {
    {"enrollment_id", false, read_map_value, AT(events.map_enrollment), NULL},
    {"instance_id", false, read_map_value, AT(events.map_instance), NULL},
    END,
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
    {"form_xml_field", false, read_text, AT(events.form_xml_field), NULL},
    {"inner", false, read_inner, AT(events.inner), NULL},
    {"present", false, read_present, AT(events.present), NULL},
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
    END,
};

static const struct key scheme_keys[] = {
    {"id", true, read_text, AT(info.scheme), NULL},
    {"algorithm", true, read_algorithm, AT(algorithm),
     "hmac-sha1, hmac-sha256, hmac-sha512, sha1, sha256, md5, ecdsa-p256-sha256, ed25519, "
     "rsa-sha1, rsa-sha256, rsa-sns, jwt, token, basic"},
    {"key", true, read_word, AT(key_form),
     "utf8, whsec, hex, base64, sha1, spki-b64, pem, raw-b64, raw-hex, whpk, cert-url, "
     "jwk-by-kid"},
    {"signature", true, read_signature, 0, signature_keys},
    {"message", false, read_message, 0,
     "body, ts, secret, method, url, url_no_query, url_hubspot, url_twilio, form_sorted, "
     "query_sorted, body_escaped, body_secret, braintree, plivo, contentful, sha256:body, "
     "crc32:body, lit:, header:, json:, json?:, line:, form:"},
    {"each_item", false, read_bool, AT(each_item), "false, true"},
    {"require", false, read_required, 0, NULL},
    {"certificate", false, read_mapping, 0, certificate_keys},
    {"jwt", false, read_mapping, 0, jwt_keys},
    {"timestamp", false, read_mapping, 0, timestamp_keys},
    {"serve_tolerance", false, read_time, AT(timestamp.serve_past_s), "none"},
    {"events", false, read_events, 0, events_keys},
    END,
};

static const struct list pause_list = {{"after", true, read_time, 0, ""}, sizeof(int64_t)};

static const struct key retries_keys[] = {
    {"schedule", true, read_text, AT(info.retries), NULL},
    {"after", false, read_list, AT(info.retry_after_s), &pause_list},
    {"horizon", true, read_time, AT(info.retry_horizon_s), "never, unknown"},
    {"signed_anew", false, read_bool, AT(info.retries_signed_anew), "false, true"},
    END,
};

static const struct key answer_keys[] = {
    {"status", true, read_number, AT(info.answer_status), NULL},
    {"body", false, read_any_text, AT(info.answer_body), NULL},
    END,
};

static const struct key file_keys[] = {
    {"provider", true, read_provider, AT(info.provider), NULL},
    {"title", true, read_text, AT(info.title), NULL},
    {"setup", false, read_text, AT(info.setup), NULL},
    {"confidence", true, read_word_text, AT(info.confidence), "low, medium, high"},
    {"proof", true, read_word_text, AT(info.proof), "unconfirmed, sdk, published"},
    {"id_scope", true, read_word, AT(info.id_scope), "source, provider"},
    {"ack_budget", true, read_budget, AT(info.ack_budget_ms), "unknown"},
    {"retries", true, read_mapping, 0, retries_keys},
    {"handshake", false, read_text, AT(info.handshake), NULL},
    {"answer", false, read_mapping, 0, answer_keys},
    {"schemes", true, read_schemes, 0, NULL},
    {"events", true, read_events, 0, events_keys},
    END,
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
    struct fy_node *node = status ? NULL : read_item(load->schemes, index);
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

/* What a source's `secrets` hold, for people. */
static const char *secret_form(const struct oh_recipe *recipe)
{
    static const char *const forms[] = {
        [RECIPE_KEY_UTF8] = "the text exactly as it is shown",
        [RECIPE_KEY_WHSEC] = "base64; whsec_ before it may stay or go",
        [RECIPE_KEY_HEX] = "hex",
        [RECIPE_KEY_BASE64] = "base64",
        [RECIPE_KEY_SHA1] = "the text exactly as it is shown",
        [RECIPE_KEY_SPKI_B64] = "the public key: base64, or PEM",
        [RECIPE_KEY_PEM] = "the public key: PEM, or base64",
        [RECIPE_KEY_RAW_B64] = "the public key: 32 bytes in base64, or PEM",
        [RECIPE_KEY_RAW_HEX] = "the public key: 32 bytes in hex, or PEM",
        [RECIPE_KEY_WHPK] = "the public key: base64, or PEM; whpk_ before it may stay or go",
        [RECIPE_KEY_CERT_URL] = "no key but a name that is signed: see setup",
        [RECIPE_KEY_JWK] = "one JWK (JSON)",
    };
    return recipe->algorithm == RECIPE_BASIC ? "user:password" : forms[recipe->key_form];
}

void recipe_finish(struct oh_recipe *recipe)
{
    struct oh_recipe_info *info = &recipe->info;
    struct recipe_timestamp *ts = &recipe->timestamp;
    if (ts->serve_past_s == SERVE_NOT_GIVEN) {
        int64_t retries_s = retry_window_s(info);
        ts->serve_past_s = ts->past_s > retries_s ? ts->past_s : retries_s;
        if ((ts->in == RECIPE_TS_NONE && recipe->algorithm != RECIPE_JWT) ||
            (ts->past_s < 0 && retries_s == 0))
            ts->serve_past_s = -1;
    }
    info->secret_form = secret_form(recipe);
    info->tolerance_past_s = ts->past_s;
    info->tolerance_future_s = ts->future_s;
    info->serve_tolerance_s = ts->serve_past_s;
    info->has_private_key = recipe->key_form >= RECIPE_KEY_SPKI_B64;
    for (size_t i = 0; i < recipe->part_count; i++) {
        enum recipe_part_kind kind = recipe->parts[i].kind;
        info->needs_public_url |= (kind >= RECIPE_PART_URL && kind <= RECIPE_PART_URL_TWILIO) ||
                                  kind == RECIPE_PART_PLIVO;
    }
    info->needs_public_url |= recipe->jwt.url_claim.len > 0;
    info->key_grade = recipe->events.id.count          ? "id"
                      : recipe->events.composite.count ? "composite"
                                                       : "hash";
}
