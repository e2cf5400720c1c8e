/* SPDX-License-Identifier: Apache-2.0 */
/* Array parameters in PostgreSQL's binary format, written into buffers that are kept from batch to
 * batch. Format: src/backend/utils/adt/arrayfuncs.c (array_recv) and the types' own _recv. */
#ifndef STORE_PARAMS_H
#define STORE_PARAMS_H

#include "oncehook/types.h"

#include <stdbool.h>

/* Object ids that never change (pg_type.dat). */
enum {
    OID_BYTEA = 17,
    OID_TEXT = 25,
    OID_TIMESTAMPTZ = 1184,
    OID_UUID = 2950,
    OID_JSONB = 3802,
    OID_BYTEA_ARRAY = 1001,
    OID_TEXT_ARRAY = 1009,
    OID_TIMESTAMPTZ_ARRAY = 1185,
    OID_UUID_ARRAY = 2951,
    OID_JSONB_ARRAY = 3807,
};

/* One array being written. Zero-initialised = empty. */
struct param_array {
    char *bytes;
    size_t len, size;
    bool failed; /* memory was gone; the array is not usable */
};

/* Starts an array of `count` elements of type `element_oid`, forgetting what was there. */
void param_begin(struct param_array *array, uint32_t element_oid, uint32_t count);
/* Each adds the next element. */
void param_add_null(struct param_array *array);
void param_add_bytes(struct param_array *array, struct oh_slice bytes); /* text, bytea */
void param_add_uuid(struct param_array *array, const uint8_t uuid[16]);
void param_add_time(struct param_array *array, int64_t unix_us);
void param_add_jsonb(struct param_array *array, struct oh_slice text);
void param_free(struct param_array *array);

#endif
