/* SPDX-License-Identifier: Apache-2.0 */
/* verify/claim.h: one function for each way in which providers write signatures down. */
#include "verify/claim.h"

#include "base/slice.h"
#include "body/form.h"
#include "body/time.h"

#include <stdio.h>

static bool refuse(struct claim *claim, const char *because)
{
    claim->because = because;
    return false;
}

static bool add_candidate(struct claim *claim, struct oh_slice text)
{
    if (claim->count == CANDIDATES_MAX)
        return refuse(claim, "too many signatures");
    claim->candidates[claim->count++] = text;
    return true;
}

/* Takes everything before `separator` (or all) off the front of *rest, without the blanks around
 * it; false when nothing is left (*rest has no data). */
static bool take_piece(struct oh_slice *rest, char separator, struct oh_slice *piece)
{
    if (!rest->data)
        return false;
    const char *end = rest->len > 0 ? memchr(rest->data, separator, rest->len) : NULL;
    size_t len = end ? (size_t)(end - rest->data) : rest->len;
    *piece = slice_trim(slice_of(rest->data, len));
    *rest = end ? slice_of(end + 1, rest->len - len - 1) : slice_of(NULL, 0);
    return true;
}

/* ---- parsing --------------------------------------------------------------------------------- */

static bool parse_plain(const struct oh_recipe *recipe, struct oh_slice text, struct claim *claim)
{
    struct oh_slice prefix = recipe->signature.prefix;
    if (!slice_has_prefix(text, prefix))
        return refuse(claim, "signature without its prefix");
    return add_candidate(claim, slice_of(text.data + prefix.len, text.len - prefix.len));
}

/* One "key=value" of the header. */
static bool take_pair(const struct oh_recipe *recipe, struct oh_slice pair, struct claim *claim)
{
    const char *equals = pair.len > 0 ? memchr(pair.data, '=', pair.len) : NULL;
    if (!equals)
        return refuse(claim, "signature header malformed");
    struct oh_slice key = slice_of(pair.data, (size_t)(equals - pair.data));
    struct oh_slice value = slice_of(equals + 1, pair.len - key.len - 1);
    if (slice_equals(key, recipe->signature.key) && !add_candidate(claim, value))
        return false;
    if (recipe->timestamp.in == RECIPE_TS_SIGFIELD && slice_equals(key, recipe->timestamp.key)) {
        if (claim->ts.data)
            return refuse(claim, "timestamp repeated");
        claim->ts = value;
    }
    return true;
}

static bool parse_kv(const struct oh_recipe *recipe, struct oh_slice text, struct claim *claim)
{
    struct oh_slice pair;
    char group = recipe->signature.group;
    claim->groups = slice_of(NULL, 0);
    if (group) {
        claim->groups = text;
        take_piece(&claim->groups, group, &text);
    }
    while (take_piece(&text, recipe->signature.separator, &pair))
        if (!take_pair(recipe, pair, claim))
            return false;
    return true;
}

static bool parse_tagged(const struct oh_recipe *recipe, struct oh_slice text, struct claim *claim)
{
    struct oh_slice entry, tag;
    while (take_piece(&text, ' ', &entry))
        if (entry.len > 0 && take_piece(&entry, ',', &tag) && entry.data &&
            slice_equals(tag, recipe->signature.key) && !add_candidate(claim, entry))
            return false;
    return true;
}

static bool parse_positional(const struct oh_recipe *recipe, struct oh_slice text,
                             struct claim *claim)
{
    struct oh_slice piece;
    if (recipe->timestamp.in == RECIPE_TS_SIGFIELD)
        take_piece(&text, recipe->signature.separator, &claim->ts);
    while (take_piece(&text, recipe->signature.separator, &piece))
        if (!add_candidate(claim, piece))
            return false;
    return true;
}

static bool parse_pipepairs(const struct oh_recipe *recipe, struct oh_slice text,
                            struct claim *claim)
{
    (void)recipe;
    struct oh_slice pair, key;
    while (take_piece(&text, '&', &pair))
        if (take_piece(&pair, '|', &key) && pair.data && !add_candidate(claim, pair))
            return false;
    return true;
}

static bool parse(const struct oh_recipe *recipe, struct oh_slice text, struct claim *claim)
{
    static bool (*const ways[])(const struct oh_recipe *, struct oh_slice, struct claim *) = {
        [RECIPE_PARSE_PLAIN] = parse_plain,    [RECIPE_PARSE_KV] = parse_kv,
        [RECIPE_PARSE_TAGGED] = parse_tagged,  [RECIPE_PARSE_POSITIONAL] = parse_positional,
        [RECIPE_PARSE_NUMBERED] = parse_plain, [RECIPE_PARSE_PIPEPAIRS] = parse_pipepairs,
    };
    return ways[recipe->signature.parse](recipe, text, claim);
}

/* ---- places ---------------------------------------------------------------------------------- */

/* One header of `names`; *seen counts those that are there. */
static bool take_header(const struct message_source *from, const struct recipe_names *names,
                        struct claim *claim, size_t *seen)
{
    const struct recipe_signature *form = &from->recipe->signature;
    struct oh_slice value = {NULL, 0};
    enum found found = find_header(from->request, names, &value);
    if (found == FOUND_NONE || (found == FOUND_ONE && value.len == 0))
        return true;
    ++*seen;
    if (found == FOUND_ONE)
        return parse(from->recipe, value, claim);
    if (!form->several_headers)
        return refuse(claim, "signature header repeated");
    size_t before = claim->count; /* a line in another form is none, where another is right */
    for (size_t i = 0; i < from->request->header_count; i++)
        if (slice_equals_nocase(from->request->headers[i].name, names->items[0]) &&
            !parse(from->recipe, from->request->headers[i].value, claim) &&
            claim->count == CANDIDATES_MAX)
            return false;
    return claim->count > before;
}

static bool take_headers(const struct message_source *from, struct claim *claim)
{
    const struct recipe_signature *form = &from->recipe->signature;
    size_t seen = 0;
    if (form->parse == RECIPE_PARSE_NUMBERED) {
        for (int64_t n = 1; n <= form->numbered_max; n++) {
            char text[160];
            int len = snprintf(text, sizeof(text), "%s%d", form->names.items[0].data, (int)n);
            struct oh_slice name = slice_of(text, (size_t)len);
            if (!take_header(from, &(struct recipe_names){&name, 1}, claim, &seen))
                return false;
        }
    } else if (!take_header(from, &form->names, claim, &seen)) {
        return false;
    }
    for (size_t i = 0; i < form->also.count; i++)
        if (!take_header(from, &(struct recipe_names){&form->also.items[i], 1}, claim, &seen))
            return false;
    return seen > 0 || refuse(claim, "no signature header");
}

/* The one text that carries the signature, where it is no header. */
static bool find_text(const struct message_source *from, struct oh_slice *text)
{
    const struct recipe_signature *form = &from->recipe->signature;
    const struct oh_request *request = from->request;
    switch (form->in) {
    case RECIPE_IN_JSON:
        *text = from->json ? scan_value_text(&from->json[form->json]) : slice_of(NULL, 0);
        return text->data != NULL;
    case RECIPE_IN_QUERY:
        return from->arena &&
               form_field(form_query(request->url), form->name, from->arena, text, NULL) == OH_OK;
    case RECIPE_IN_FORM:
        return from->arena &&
               form_field(request->body, form->name, from->arena, text, NULL) == OH_OK;
    case RECIPE_IN_BODY:
        *text = request->body;
        return true;
    case RECIPE_IN_HEADER:
        break;
    }
    return false;
}

static bool take_signature(const struct message_source *from, struct claim *claim)
{
    struct oh_slice text = {NULL, 0};
    if (from->recipe->signature.in == RECIPE_IN_HEADER) {
        if (!take_headers(from, claim))
            return false;
    } else if (!find_text(from, &text) || text.len == 0) {
        return refuse(claim, "no signature where the provider puts it, or more than one");
    } else if (!parse(from->recipe, text, claim)) {
        return false;
    }
    return claim->count > 0 || refuse(claim, "no signature of the expected version");
}

/* ---- timestamps ------------------------------------------------------------------------------ */

/* Digits only: no sign, no blank, no fraction, nothing beyond 63 bits. */
static bool parse_digits(struct oh_slice text, int64_t *value)
{
    int64_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, text.data[i] - '0', &n))
            return false;
    }
    *value = n;
    return text.len > 0;
}

static bool parse_date(struct oh_slice text, bool iso_only, int64_t *ms)
{
    int64_t us;
    if (text.len < 10 || (text.data[4] != '-' && (iso_only || text.data[3] != ',')) ||
        !time_parse(text, RECIPE_UNIT_ISO, &us) || us < 0)
        return false;
    *ms = us / 1000;
    return true;
}

static bool parse_ts(struct oh_slice text, enum recipe_time_unit unit, int64_t *value)
{
    if (unit == RECIPE_UNIT_ISO)
        return parse_date(text, true, value);
    if (!parse_digits(text, value))
        return unit == RECIPE_UNIT_AUTO && parse_date(text, false, value);
    if (unit == RECIPE_UNIT_AUTO && *value < INT64_C(100000000000))
        *value *= 1000;
    return true;
}

int64_t claim_ts_per_s(const struct oh_recipe *recipe)
{
    return recipe->timestamp.unit == RECIPE_UNIT_S ? 1 : 1000;
}

bool claim_read_ts(const struct message_source *from, struct claim *claim)
{
    const struct recipe_timestamp *ts = &from->recipe->timestamp;
    if (ts->in == RECIPE_TS_NONE)
        return true;
    if (ts->in == RECIPE_TS_HEADER &&
        find_header(from->request, &ts->names, &claim->ts) == FOUND_SEVERAL)
        return refuse(claim, "timestamp header repeated");
    if (ts->in == RECIPE_TS_JSON && from->json)
        claim->ts = scan_value_text(&from->json[ts->json]);
    if (!claim->ts.data || claim->ts.len == 0)
        return refuse(claim, "no timestamp");
    if (!parse_ts(claim->ts, ts->unit, &claim->ts_value))
        return refuse(claim, "timestamp malformed");
    return true;
}

bool claim_read(const struct message_source *from, struct claim *claim)
{
    claim->count = 0;
    claim->ts = claim->groups = slice_of(NULL, 0);
    claim->because = "";
    return take_signature(from, claim) &&
           (from->recipe->timestamp.in == RECIPE_TS_JWT || claim_read_ts(from, claim));
}

bool claim_next_group(const struct message_source *from, struct claim *claim)
{
    struct oh_slice rest = claim->groups;
    if (!rest.data)
        return false;
    claim->count = 0;
    claim->ts = slice_of(NULL, 0);
    return parse_kv(from->recipe, rest, claim) && claim->count > 0 && claim_read_ts(from, claim);
}
