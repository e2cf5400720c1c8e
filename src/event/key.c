/* SPDX-License-Identifier: Apache-2.0 */
/* event/key.h. Two rules stand above all others here: equal keys must mean the same event, since a
 * lost event cannot be repaired; and what is missing is never equal to anything.
 *
 * A composite is the SHA-256 (and, to notice ids that change, the XXH3-128) of its fields as
 * netstrings, one after the other: the length in decimal, ':', the bytes, ','. An optional field
 * that is not there is "-,". So no two lists of fields have the same text, and anybody can compute
 * it from outside. */
#include "event/key.h"

#include "base/encode.h"
#include "base/slice.h"
#include "verify/crypto.h"

#include <openssl/evp.h>
#include <xxhash.h>

enum {
    SHA256_BYTES = 32,
    NETSTRING_EXTRA = 12, /* at most: ten digits, ':' and ',' */
    /* A field around the events is read again for each of them: without a bound, a large one times
     * many events would be minutes of work. */
    COMPOSITE_BYTES_MAX = 16384,
};

static enum oh_status no_memory(struct oh_error *err)
{
    return oh_fail(err, OH_NO_MEMORY, "out of memory for one delivery");
}

static bool id_is_usable(const struct plan_event *of, const struct plan_value *value,
                         struct oh_slice *id)
{
    /* An id of the whole delivery tells its events apart only when there is one. */
    bool of_event = value->from == RECIPE_FROM_EVENT || value->from == RECIPE_FROM_INNER;
    if (value->from == RECIPE_FROM_LITERAL || (!of_event && of->delivery->count != 1))
        return false;
    struct scan_value found = plan_read(of, value);
    *id = scan_value_text(&found);
    return id->data && id->len > 0 && id->len <= OH_KEY_BYTES_MAX;
}

/* The netstrings of one event's composite. */
struct composite {
    char text[COMPOSITE_BYTES_MAX];
    size_t len;
    bool of_event; /* one field at least is of the event itself */
};

static void append_netstring(struct composite *c, const struct scan_value *value)
{
    char digits[10];
    size_t first = sizeof(digits);
    uint32_t left = value->len;
    do {
        digits[--first] = (char)('0' + left % 10);
        left /= 10;
    } while (left > 0);
    memcpy(c->text + c->len, digits + first, sizeof(digits) - first);
    c->len += sizeof(digits) - first;
    c->text[c->len++] = ':';
    memcpy(c->text + c->len, value->data, value->len);
    c->len += value->len;
    c->text[c->len++] = ',';
}

/* False when the field cannot be part of a key: missing and not optional, no scalar, bad text, or
 * more than fits. */
static bool append_field(const struct plan_event *of, const struct plan_value *from, bool optional,
                         struct composite *c)
{
    struct scan_value value = plan_read(of, from);
    size_t room = sizeof(c->text) - c->len;
    switch (value.kind) {
    case SCAN_ABSENT:
    case SCAN_NULL:
        if (!optional || room < 2)
            return false;
        memcpy(c->text + c->len, "-,", 2);
        c->len += 2;
        return true;
    case SCAN_STRING:
    case SCAN_NUMBER:
    case SCAN_BOOL:
        if ((value.len == 0 && !optional) || room < NETSTRING_EXTRA ||
            value.len > room - NETSTRING_EXTRA)
            return false;
        append_netstring(c, &value);
        c->of_event |= from->from == RECIPE_FROM_EVENT || from->from == RECIPE_FROM_INNER;
        return true;
    case SCAN_CONTAINER:
    case SCAN_BAD_TEXT:
        break;
    }
    return false;
}

/* Writes all fields of the recipe's composite; false when there is none, one of them cannot be
 * used, or all are of the delivery and so the same for each of its events. */
static bool composite_read(const struct plan_event *of, struct composite *c)
{
    const struct oh_mapping *m = of->mapping;
    c->len = 0;
    c->of_event = false;
    for (size_t i = 0; i < m->composite.count; i++)
        if (!append_field(of, &m->composite.items[i], false, c))
            return false;
    for (size_t i = 0; i < m->composite_optional.count; i++)
        if (!append_field(of, &m->composite_optional.items[i], true, c))
            return false;
    return m->composite.count > 0 && (c->of_event || of->delivery->count == 1);
}

/* prefix + hex SHA-256 of `bytes`. */
static enum oh_status key_of_digest(struct oh_slice prefix, struct oh_slice bytes,
                                    EVP_MD_CTX *sha256, struct oh_arena *arena,
                                    struct oh_slice *key, struct oh_error *err)
{
    unsigned char digest[SHA256_BYTES];
    if (EVP_DigestInit_ex(sha256, crypto_find_digest("SHA256"), NULL) != 1 ||
        EVP_DigestUpdate(sha256, bytes.data, bytes.len) != 1 ||
        EVP_DigestFinal_ex(sha256, digest, NULL) != 1)
        return no_memory(err);
    char *text = oh_arena_alloc(arena, prefix.len + HEX_BYTES(SHA256_BYTES));
    if (!text)
        return no_memory(err);
    memcpy(text, prefix.data, prefix.len);
    hex_encode(digest, SHA256_BYTES, text + prefix.len);
    *key = slice_of(text, prefix.len + HEX_BYTES(SHA256_BYTES));
    return OH_OK;
}

enum oh_status key_decide(const struct plan_event *of, EVP_MD_CTX *sha256, struct oh_arena *arena,
                          struct oh_event *out, struct oh_error *err)
{
    struct composite composite;
    out->has_composite = composite_read(of, &composite);
    if (out->has_composite) {
        XXH128_hash_t hash = XXH3_128bits(composite.text, composite.len);
        out->composite[0] = hash.high64;
        out->composite[1] = hash.low64;
    }
    for (size_t i = 0; i < of->mapping->id.count; i++) {
        if (id_is_usable(of, &of->mapping->id.items[i], &out->key)) {
            out->grade = OH_GRADE_ID;
            return OH_OK;
        }
    }
    out->grade = out->has_composite ? OH_GRADE_COMPOSITE : OH_GRADE_HASH;
    if (out->has_composite)
        return key_of_digest(SLICE_LITERAL("composite:"), slice_of(composite.text, composite.len),
                             sha256, arena, &out->key, err);
    return key_of_digest(SLICE_LITERAL("sha256:"), out->raw, sha256, arena, &out->key, err);
}

/* ---- references ------------------------------------------------------------------------------ */

/* Joins the parts by ":"; false when one is missing or it is too long. Only the last may hold a ":"
 * itself: so no two lists of parts have the same text. */
static bool join_reference(const struct plan_event *of, char *text, size_t *len)
{
    const struct plan_values *parts = &of->mapping->reference;
    *len = 0;
    for (size_t i = 0; i < parts->count; i++) {
        struct scan_value value = plan_read(of, &parts->items[i]);
        struct oh_slice part = scan_value_text(&value);
        bool is_last = i + 1 == parts->count;
        if (!part.data || part.len == 0 || part.len + !is_last > OH_REFERENCE_BYTES_MAX - *len ||
            (!is_last && memchr(part.data, ':', part.len)))
            return false;
        memcpy(text + *len, part.data, part.len);
        *len += part.len;
        if (!is_last)
            text[(*len)++] = ':';
    }
    return true;
}

bool key_reference(const struct plan_event *of, EVP_MD_CTX *sha256, uint8_t id[16])
{
    unsigned char digest[SHA256_BYTES];
    char text[OH_REFERENCE_BYTES_MAX];
    const char *scope = of->mapping->reference_scope;
    size_t len;
    if (!join_reference(of, text, &len) ||
        EVP_DigestInit_ex(sha256, crypto_find_digest("SHA256"), NULL) != 1 ||
        EVP_DigestUpdate(sha256, scope, strlen(scope) + 1) != 1 ||
        EVP_DigestUpdate(sha256, text, len) != 1 || EVP_DigestFinal_ex(sha256, digest, NULL) != 1)
        return false;
    memcpy(id, digest, 16);
    id[6] = (uint8_t)((id[6] & 0x0f) | OH_REFERENCE_UUID_VERSION << 4);
    id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
    return true;
}
