/* SPDX-License-Identifier: Apache-2.0 */
/* Files whose text is part of the binary: recipes of src/catalog/, SQL of sql/. */
#ifndef BASE_EMBEDDED_H
#define BASE_EMBEDDED_H

#include <stddef.h>
#include <string.h>

struct embedded_file {
    const char *name; /* without directory; NULL ends the list */
    const char *text; /* NUL-terminated beyond `len` */
    size_t len;
};

extern const struct embedded_file embedded_catalog[]; /* src/catalog/, liboncehook */
extern const struct embedded_file embedded_sql[];     /* sql/, the server */

/* The text of a file that is there: its name stands in the source. */
static inline const char *embedded_find(const struct embedded_file *file, const char *name)
{
    while (strcmp(file->name, name) != 0)
        file++;
    return file->text;
}

#endif
