/* SPDX-License-Identifier: Apache-2.0 */
/* A month of events as a file. It grows under a name of its own, is flushed, and only then gets its
 * name: a file that has the name is whole. */
#include "cli/archive.h"

#include "base/encode.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum { CHUNK_BYTES = 256 * 1024, GZIP_WINDOW = 15 + 16 };

struct writer {
    int directory, fd;
    z_stream deflate;
    bool is_deflating;
    EVP_MD_CTX *digest;
    struct oh_error *err;
    unsigned char chunk[CHUNK_BYTES];
};

static enum oh_status fail(const struct writer *writer, const char *what, const char *name)
{
    return oh_fail(writer->err, OH_SYSTEM, "%s %s: %s", what, name, strerror(errno));
}

static enum oh_status write_all(struct writer *writer, int fd, const void *bytes, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = write(fd, (const char *)bytes + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return fail(writer, "cannot write", "the archive");
        done += (size_t)n;
    }
    return OH_OK;
}

/* Compresses; what comes out is hashed and written. */
static enum oh_status add(struct writer *writer, const char *bytes, size_t len, int flush)
{
    writer->deflate.next_in = (Bytef *)(uintptr_t)bytes;
    writer->deflate.avail_in = (uInt)len;
    do {
        writer->deflate.next_out = writer->chunk;
        writer->deflate.avail_out = CHUNK_BYTES;
        if (deflate(&writer->deflate, flush) == Z_STREAM_ERROR)
            return oh_fail(writer->err, OH_SYSTEM, "zlib failed");
        size_t out = CHUNK_BYTES - writer->deflate.avail_out;
        if (EVP_DigestUpdate(writer->digest, writer->chunk, out) != 1)
            return oh_fail(writer->err, OH_SYSTEM, "SHA-256 failed");
        if (write_all(writer, writer->fd, writer->chunk, out) != OH_OK)
            return OH_SYSTEM;
    } while (writer->deflate.avail_out == 0);
    return OH_OK;
}

static enum oh_status copy_out(struct writer *writer, PGconn *connection, const char *table,
                               void (*on_bytes)(void *, long long), void *context, long long *rows)
{
    char *quoted = PQescapeIdentifier(connection, table, strlen(table)), sql[256], *data = NULL;
    long long bytes = 0;
    int len;
    if (!quoted)
        return oh_fail(writer->err, OH_NO_MEMORY, "no memory");
    snprintf(sql, sizeof(sql), "COPY %s TO STDOUT WITH (FORMAT text, HEADER)", quoted);
    PQfreemem(quoted);

    PGresult *result = PQexec(connection, sql);
    enum oh_status status = OH_OK;
    if (PQresultStatus(result) != PGRES_COPY_OUT)
        status = oh_fail(writer->err, OH_SYSTEM, "%s", PQresultErrorMessage(result));
    PQclear(result);
    while (status == OH_OK && (len = PQgetCopyData(connection, &data, 0)) > 0) {
        status = add(writer, data, (size_t)len, Z_NO_FLUSH);
        PQfreemem(data);
        on_bytes(context, bytes += len);
    }
    while ((result = PQgetResult(connection))) { /* also ends what was broken off half-way */
        if (PQresultStatus(result) == PGRES_COPY_OUT) {
            while (PQgetCopyData(connection, &data, 0) > 0)
                PQfreemem(data);
        } else if (PQresultStatus(result) != PGRES_COMMAND_OK && status == OH_OK)
            status = oh_fail(writer->err, OH_SYSTEM, "%s", PQresultErrorMessage(result));
        else if (status == OH_OK)
            *rows = strtoll(PQcmdTuples(result), NULL, 10);
        PQclear(result);
    }
    return status == OH_OK ? add(writer, "", 0, Z_FINISH) : status;
}

static enum oh_status begin(struct writer *writer, const char *directory, const char *partial)
{
    if ((writer->directory = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        return fail(writer, "cannot open", directory);
    writer->fd = openat(writer->directory, partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (writer->fd < 0)
        return fail(writer, "cannot make", partial);
    writer->is_deflating = deflateInit2(&writer->deflate, Z_DEFAULT_COMPRESSION, Z_DEFLATED,
                                        GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) == Z_OK;
    writer->digest = EVP_MD_CTX_new();
    if (!writer->is_deflating || !writer->digest ||
        EVP_DigestInit_ex(writer->digest, EVP_sha256(), NULL) != 1)
        return oh_fail(writer->err, OH_NO_MEMORY, "no memory");
    return OH_OK;
}

/* The checksum's file first, then the month under its name: with the name, everything is there. */
static enum oh_status finish(struct writer *writer, const char *partial, const char *name,
                             char sha256[65])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    char sum_name[160], line[256];
    if (EVP_DigestFinal_ex(writer->digest, digest, NULL) != 1)
        return oh_fail(writer->err, OH_SYSTEM, "SHA-256 failed");
    for (int i = 0; i < 32; i++)
        snprintf(sha256 + 2 * i, 3, "%02x", digest[i]);
    if (fsync(writer->fd) != 0)
        return fail(writer, "cannot flush", partial);

    snprintf(sum_name, sizeof(sum_name), "%s.sha256", name);
    int len = snprintf(line, sizeof(line), "%s  %s\n", sha256, name);
    int fd = openat(writer->directory, sum_name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail(writer, "cannot make", sum_name);
    enum oh_status status = write_all(writer, fd, line, (size_t)len);
    if (status == OH_OK && fsync(fd) != 0)
        status = fail(writer, "cannot flush", sum_name);
    close(fd);
    if (status == OH_OK && renameat(writer->directory, partial, writer->directory, name) != 0)
        status = fail(writer, "cannot name", name);
    if (status == OH_OK && fsync(writer->directory) != 0)
        status = fail(writer, "cannot flush", "the directory");
    return status;
}

enum oh_status archive_check(const char *directory, struct oh_error *err)
{
    static const char probe[] = ".oncehook-archive.partial";
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int file = fd < 0 ? -1 : openat(fd, probe, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    enum oh_status status = OH_OK;
    if (file < 0)
        status = oh_fail(err, OH_SYSTEM, "cannot %s %s: %s", fd < 0 ? "open" : "write to",
                         directory, strerror(errno));
    if (file >= 0) {
        close(file);
        unlinkat(fd, probe, 0);
    }
    if (fd >= 0)
        close(fd);
    return status;
}

enum oh_status archive_write(PGconn *connection, const char *table, const char *directory,
                             void (*on_bytes)(void *context, long long bytes), void *context,
                             struct archive *out, struct oh_error *err)
{
    struct writer *writer = calloc(1, sizeof(*writer));
    char name[128], partial[144];
    enum oh_status status = OH_OK;
    if (!writer)
        return oh_fail(err, OH_NO_MEMORY, "no memory");
    *out = (struct archive){0};
    writer->err = err;
    writer->directory = writer->fd = -1;
    snprintf(name, sizeof(name), "%s.copy.gz", table);
    snprintf(partial, sizeof(partial), "%s.partial", name);

    status = begin(writer, directory, partial);
    if (status == OH_OK && faccessat(writer->directory, name, F_OK, 0) == 0)
        status = oh_fail(err, OH_INVALID, "%s/%s is there already: move it away", directory, name);
    if (status == OH_OK)
        status = copy_out(writer, connection, table, on_bytes, context, &out->rows);
    if (status == OH_OK)
        status = finish(writer, partial, name, out->sha256);
    char *absolute = status == OH_OK ? realpath(directory, NULL) : NULL;
    if (status == OH_OK && (!absolute || asprintf(&out->path, "%s/%s", absolute, name) < 0))
        status = oh_fail(err, OH_NO_MEMORY, "no memory");
    free(absolute);
    if (status != OH_OK && writer->fd >= 0)
        unlinkat(writer->directory, partial, 0);
    if (writer->is_deflating)
        deflateEnd(&writer->deflate);
    EVP_MD_CTX_free(writer->digest);
    if (writer->fd >= 0)
        close(writer->fd);
    if (writer->directory >= 0)
        close(writer->directory);
    free(writer);
    return status;
}
