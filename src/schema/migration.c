/* SPDX-License-Identifier: Apache-2.0 */
/* Which migrations there are. A mistake in sql/ is found here, before any database is touched. */
#include "schema/migration.h"

#include "base/encode.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>

enum half { HALF_NONE, HALF_UP, HALF_DOWN };

/* "0003_capture_v1.up.sql" -> 3, "capture_v1", HALF_UP; HALF_NONE for a file of another name. */
static enum half read_name(const char *file, int *version, struct oh_slice *name)
{
    const char *underscore = strchr(file, '_');
    const char *dot = strchr(file, '.');
    char *end;
    long number = strtol(file, &end, 10);

    if (!underscore || !dot || end != underscore || dot <= underscore + 1 || number < 1 ||
        number > 9999)
        return HALF_NONE;
    *version = (int)number;
    *name = slice_of(underscore + 1, (size_t)(dot - underscore - 1));
    return strcmp(dot, ".up.sql") == 0     ? HALF_UP
           : strcmp(dot, ".down.sql") == 0 ? HALF_DOWN
                                           : HALF_NONE;
}

/* Without the lines `-- lint: …`: a justification that is written later changes nothing. */
static void checksum_file(const struct embedded_file *file, char out[65])
{
    static const char note[] = "-- lint:";
    unsigned char digest[SHA256_DIGEST_LENGTH];
    const char *end = file->text + file->len;
    EVP_MD_CTX *context = EVP_MD_CTX_new();

    EVP_DigestInit_ex(context, EVP_sha256(), NULL);
    for (const char *at = file->text, *next; at < end; at = next) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        next = newline ? newline + 1 : end;
        if (strncmp(at, note, sizeof(note) - 1) != 0)
            EVP_DigestUpdate(context, at, (size_t)(next - at));
    }
    EVP_DigestFinal_ex(context, digest, NULL);
    EVP_MD_CTX_free(context);
    hex_encode(digest, sizeof(digest), out);
    out[HEX_BYTES(sizeof(digest))] = '\0';
}

static enum oh_status add_half(struct migrations *migrations, const struct embedded_file *file,
                               enum half half, int version, struct oh_slice name,
                               struct oh_error *err)
{
    struct migration *m = &migrations->items[version - 1];
    const struct embedded_file **place = half == HALF_UP ? &m->up : &m->down;

    if (name.len >= sizeof(m->name))
        return oh_fail(err, OH_INVALID, "migration %s: the name is too long", file->name);
    if (*place || (m->version && !slice_equals(slice_of_text(m->name), name)))
        return oh_fail(err, OH_INVALID, "migration %s: version %d stands twice", file->name,
                       version);
    *place = file;
    m->version = version;
    memcpy(m->name, name.data, name.len);
    m->name[name.len] = '\0';
    if (half == HALF_UP)
        checksum_file(file, m->checksum);
    return OH_OK;
}

enum oh_status migrations_read(const struct embedded_file *files, struct migrations *out,
                               struct oh_error *err)
{
    enum oh_status status = OH_OK;
    struct oh_slice name;
    int version, highest = 0;

    for (const struct embedded_file *f = files; f->name; f++)
        if (read_name(f->name, &version, &name) != HALF_NONE && version > highest)
            highest = version;
    *out = (struct migrations){calloc((size_t)highest + 1, sizeof(*out->items)), (size_t)highest};
    if (!out->items)
        return oh_fail(err, OH_NO_MEMORY, "no memory");

    for (const struct embedded_file *f = files; f->name && status == OH_OK; f++) {
        enum half half = read_name(f->name, &version, &name);
        if (half != HALF_NONE)
            status = add_half(out, f, half, version, name, err);
    }
    for (size_t i = 0; i < out->count && status == OH_OK; i++)
        if (!out->items[i].up || !out->items[i].down)
            status = oh_fail(err, OH_INVALID, "migration %04zu: the %s file is missing", i + 1,
                             out->items[i].up ? "down" : "up");
    if (status != OH_OK)
        migrations_free(out);
    return status;
}

void migrations_free(struct migrations *migrations)
{
    free(migrations->items);
    *migrations = (struct migrations){NULL, 0};
}

struct oh_slice migration_next_table(const struct migration *migration, size_t *at)
{
    static const char words[] = "CREATE TABLE ";
    const char *text = migration->up->text;

    for (const char *found = text + *at; (found = strstr(found, words)) != NULL;) {
        const char *name = found + sizeof(words) - 1;
        if (found == text || found[-1] == '\n') {
            size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");
            *at = (size_t)(name + len - text);
            return slice_of(name, len);
        }
        found = name;
    }
    return slice_of(NULL, 0);
}
