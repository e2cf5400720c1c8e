/* SPDX-License-Identifier: Apache-2.0 */
/* Files whose text is part of the binary: recipes of src/catalog/, SQL of sql/. */
#ifndef BASE_EMBEDDED_H
#define BASE_EMBEDDED_H

#include <stddef.h>

struct embedded_file {
    const char *name; /* without directory; NULL ends the list */
    const char *text; /* NUL-terminated beyond `len` */
    size_t len;
};

extern const struct embedded_file embedded_catalog[]; /* src/catalog/, liboncehook */
extern const struct embedded_file embedded_sql[];     /* sql/, the server */

#endif
