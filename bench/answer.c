/* SPDX-License-Identifier: Apache-2.0 */
/* A reader of small HTTP/1.1 answers, no more than what h2o and the gateway send. */
#include "answer.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The value of header `name` (lower case, with its colon), or NULL; lines end with CR LF. */
static const char *find_header(const char *head, const char *name)
{
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, strlen(name)) == 0)
            return line + strlen(name) + strspn(line + strlen(name), " \t");
    }
    return NULL;
}

/* The whole answer's length, or SIZE_MAX while it is not known. A chunked one ends with its empty
 * chunk, since nothing is pipelined. */
static size_t answer_bytes(const struct answer *answer, const char *text, size_t len,
                           const char *length, const char *encoding)
{
    static const char last_chunk[] = "\r\n0\r\n\r\n";
    const size_t last_len = sizeof(last_chunk) - 1;
    if (length)
        return answer->head_len + strtoul(length, NULL, 10);
    if (!encoding)
        return answer->head_len;
    bool ended = len >= answer->head_len + last_len &&
                 memcmp(text + len - last_len, last_chunk, last_len) == 0;
    return ended ? len : SIZE_MAX;
}

int answer_parse(char *text, size_t len, struct answer *out)
{
    char *end = strstr(text, "\r\n\r\n");
    if (!end)
        return len == ANSWER_BYTES ? -1 : 0;
    if (strncmp(text, "HTTP/1.", 7) != 0 || len < 12)
        return -1;
    out->head_len = (size_t)(end - text) + 4;
    out->status = (int)strtol(text + 9, NULL, 10);
    char kept = end[2];
    end[2] = '\0'; /* headers must not be sought in the body */
    const char *length = find_header(text, "content-length:");
    const char *encoding = find_header(text, "transfer-encoding:");
    const char *connection = find_header(text, "connection:");
    out->closes = connection && strncasecmp(connection, "close", 5) == 0;
    end[2] = kept;
    size_t whole = answer_bytes(out, text, len, length, encoding);
    if (out->status < 100 || out->status >= ANSWER_STATUS_MAX || len > whole)
        return -1;
    if (len < whole)
        return len == ANSWER_BYTES ? -1 : 0;
    return 1;
}

uint64_t answer_number(const char *body, const char *name)
{
    const char *at = strstr(body, name);
    return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}
