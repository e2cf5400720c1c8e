/* SPDX-License-Identifier: Apache-2.0 */
/* event/key.h. Two rules stand above all others here: equal keys must mean the same event, since a
 * lost event cannot be repaired; and what is missing is never equal to anything.
 *
 * A composite is the SHA-256 (and, to notice ids that change, the XXH3-128) of its fields as
 * netstrings, one after the other: the length in decimal, ':', the bytes, ','. An optional field
 * that is not there is "-,". So no two lists of fields have the same text. */
#include "event/key.h"

#include "base/encode.h"
#include "base/slice.h"

#include <openssl/evp.h>
#include <xxhash.h>

enum { SHA256_BYTES = 32, NETSTRING_EXTRA = 16 /* at most: ten digits, ':' and ',' */ };

static enum oh_status no_memory(struct oh_error *err)
{
    return oh_fail(err, OH_NO_MEMORY, "out of memory for one delivery");
}

static bool id_is_usable(const struct plan_event *of, const struct plan_value *value,
                         struct oh_slice *id)
{
    /* An id of the whole delivery tells its events apart only when there is one. */
    bool of_event = value->from == RECIPE_FROM_EVENT;
    if (value->from == RECIPE_FROM_LITERAL || (!of_event && of->delivery->count != 1))
        return false;
    struct scan_value found = plan_read(of, value);
    *id = scan_value_text(&found);
    return id->data && id->len > 0 && id->len <= OH_KEY_BYTES_MAX;
}

/* The fields of one composite, read. */
struct fields {
    struct scan_value *values;
    size_t count;
    size_t bytes;  /* bound of their netstrings */
    bool of_event; /* one at least is of the event itself */
};

static bool add_field(const struct plan_event *of, const struct plan_value *from, bool optional,
                      struct fields *fields)
{
    struct scan_value value = plan_read(of, from);
    if (value.kind == SCAN_NULL)
        value.kind = SCAN_ABSENT;
    bool has_text =
        value.kind == SCAN_STRING || value.kind == SCAN_NUMBER || value.kind == SCAN_BOOL;
    if (!has_text && !(optional && value.kind == SCAN_ABSENT))
        return false;
    if (has_text && value.len == 0 && !optional)
        return false;
    if (has_text && from->from == RECIPE_FROM_EVENT)
        fields->of_event = true;
    fields->bytes += NETSTRING_EXTRA + (has_text ? value.len : 0);
    fields->values[fields->count++] = value;
    return true;
}

/* Reads all fields of the recipe's composite; false when there is none, one is missing or not a
 * scalar, or all are of the delivery and so the same for each of its events. */
static bool read_fields(const struct plan_event *of, struct fields *fields)
{
    const struct oh_mapping *m = of->mapping;
    for (size_t i = 0; i < m->composite.count; i++)
        if (!add_field(of, &m->composite.items[i], false, fields))
            return false;
    for (size_t i = 0; i < m->composite_optional.count; i++)
        if (!add_field(of, &m->composite_optional.items[i], true, fields))
            return false;
    return fields->of_event || of->delivery->count == 1;
}

static size_t write_netstring(const struct scan_value *value, char *out)
{
    if (value->kind == SCAN_ABSENT) {
        memcpy(out, "-,", 2);
        return 2;
    }
    char digits[10];
    size_t first = sizeof(digits), at = 0;
    uint32_t left = value->len;
    do {
        digits[--first] = (char)('0' + left % 10);
        left /= 10;
    } while (left > 0);
    memcpy(out, digits + first, sizeof(digits) - first);
    at += sizeof(digits) - first;
    out[at++] = ':';
    memcpy(out + at, value->data, value->len);
    at += value->len;
    out[at++] = ',';
    return at;
}

/* *text: the fields as netstrings, data NULL when this event has no composite. */
static enum oh_status composite_text(const struct plan_event *of, struct oh_arena *arena,
                                     struct oh_slice *text, struct oh_error *err)
{
    const struct oh_mapping *m = of->mapping;
    *text = slice_of(NULL, 0);
    if (m->composite.count == 0)
        return OH_OK;
    struct fields fields = {.count = 0};
    size_t count = m->composite.count + m->composite_optional.count;
    fields.values = oh_arena_alloc(arena, count * sizeof(*fields.values));
    if (!fields.values)
        return no_memory(err);
    if (!read_fields(of, &fields))
        return OH_OK;
    char *at = oh_arena_alloc(arena, fields.bytes);
    if (!at)
        return no_memory(err);
    size_t len = 0;
    for (size_t i = 0; i < fields.count; i++)
        len += write_netstring(&fields.values[i], at + len);
    *text = slice_of(at, len);
    return OH_OK;
}

/* prefix + hex SHA-256 of `bytes`. */
static enum oh_status key_of_digest(struct oh_slice prefix, struct oh_slice bytes,
                                    EVP_MD_CTX *sha256, struct oh_arena *arena,
                                    struct oh_slice *key, struct oh_error *err)
{
    unsigned char digest[SHA256_BYTES];
    if (EVP_DigestInit_ex(sha256, EVP_sha256(), NULL) != 1 ||
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
    struct oh_slice composite;
    enum oh_status status = composite_text(of, arena, &composite, err);
    if (status)
        return status;
    if (composite.data) {
        XXH128_hash_t hash = XXH3_128bits(composite.data, composite.len);
        out->has_composite = true;
        out->composite[0] = hash.high64;
        out->composite[1] = hash.low64;
    }
    for (size_t i = 0; i < of->mapping->id.count; i++) {
        if (id_is_usable(of, &of->mapping->id.items[i], &out->key)) {
            out->grade = OH_GRADE_ID;
            return OH_OK;
        }
    }
    out->grade = composite.data ? OH_GRADE_COMPOSITE : OH_GRADE_HASH;
    return key_of_digest(composite.data ? SLICE_LITERAL("composite:") : SLICE_LITERAL("sha256:"),
                         composite.data ? composite : out->raw, sha256, arena, &out->key, err);
}
