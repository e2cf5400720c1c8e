/* SPDX-License-Identifier: Apache-2.0 */
/* Array parameters in PostgreSQL's binary format. See params.h. */
#include "store/params.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIRST_BYTES = 4096,
    JSONB_FORMAT = 1, /* the only version that jsonb_recv knows */
};

/* Unix time of 2000-01-01, the zero of PostgreSQL's timestamps, in microseconds. */
static const int64_t postgres_epoch_us = INT64_C(946684800000000);

/* Room for `more` bytes at the end, or NULL. */
static char *grow(struct param_array *array, size_t more)
{
    if (array->failed)
        return NULL;
    if (array->size - array->len < more) {
        size_t size = array->size ? array->size : FIRST_BYTES;
        while (size - array->len < more)
            size *= 2;
        char *bytes = realloc(array->bytes, size);
        if (!bytes) {
            array->failed = true;
            return NULL;
        }
        array->bytes = bytes;
        array->size = size;
    }
    char *at = array->bytes + array->len;
    array->len += more;
    return at;
}

static void put_int32(char *at, uint32_t value)
{
    value = htobe32(value);
    memcpy(at, &value, sizeof(value));
}

void param_begin(struct param_array *array, uint32_t element_oid, uint32_t count)
{
    array->len = 0;
    array->failed = false;
    char *at = grow(array, 20);
    if (!at)
        return;
    put_int32(at, 1);     /* dimensions */
    put_int32(at + 4, 1); /* may hold nulls */
    put_int32(at + 8, element_oid);
    put_int32(at + 12, count);
    put_int32(at + 16, 1); /* lower bound */
}

void param_add_null(struct param_array *array)
{
    char *at = grow(array, 4);
    if (at)
        put_int32(at, UINT32_MAX);
}

void param_add_bytes(struct param_array *array, struct oh_slice bytes)
{
    char *at = grow(array, 4 + bytes.len);
    if (!at)
        return;
    put_int32(at, (uint32_t)bytes.len);
    if (bytes.len)
        memcpy(at + 4, bytes.data, bytes.len);
}

void param_add_uuid(struct param_array *array, const uint8_t uuid[16])
{
    param_add_bytes(array, (struct oh_slice){(const char *)uuid, 16});
}

void param_add_time(struct param_array *array, int64_t unix_us)
{
    uint64_t value = htobe64((uint64_t)(unix_us - postgres_epoch_us));
    param_add_bytes(array, (struct oh_slice){(const char *)&value, sizeof(value)});
}

void param_add_jsonb(struct param_array *array, struct oh_slice text)
{
    char *at = grow(array, 5 + text.len);
    if (!at)
        return;
    put_int32(at, (uint32_t)text.len + 1);
    at[4] = JSONB_FORMAT;
    if (text.len)
        memcpy(at + 5, text.data, text.len);
}

void param_free(struct param_array *array)
{
    free(array->bytes);
    memset(array, 0, sizeof(*array));
}
