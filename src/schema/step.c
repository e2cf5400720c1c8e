/* SPDX-License-Identifier: Apache-2.0 */
/* Where the steps of a migration begin and end. What it cannot read it refuses, before any database
 * is touched. */
#include "schema/step.h"

static const char marker[] = "-- step:";

static const char *const kinds[] = {
    [STEP_TRANSACTION] = "transaction",
    [STEP_CONCURRENTLY] = "concurrently",
    [STEP_BATCHES] = "batches",
};

const char *step_kind_name(enum step_kind kind)
{
    return kinds[kind];
}

size_t step_skip_comments(struct oh_slice text)
{
    size_t i = 0;
    while (i < text.len) {
        const char *at = text.data + i, *end = NULL;
        size_t left = text.len - i;
        if (strchr(" \t\r\n;", *at)) {
            i++;
            continue;
        }
        if (left > 1 && at[0] == '-' && at[1] == '-')
            end = memchr(at, '\n', left);
        else if (left > 1 && at[0] == '/' && at[1] == '*')
            end = memmem(at + 2, left - 2, "*/", 2);
        else
            return i;
        i = end ? (size_t)(end - text.data) + (at[0] == '/' ? 2 : 1) : text.len;
    }
    return text.len;
}

/* "-- step: batches, so that …" -> STEP_BATCHES; -1: no such kind. */
static int read_kind(struct oh_slice line)
{
    struct oh_slice word =
        slice_trim(slice_of(line.data + sizeof(marker) - 1, line.len - (sizeof(marker) - 1)));
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t len = strlen(kinds[i]);
        if (slice_has_prefix(word, slice_of(kinds[i], len)) &&
            (word.len == len || word.data[len] == ','))
            return (int)i;
    }
    return -1;
}

static struct step *add_step(struct steps *steps, int kind, const char *begin, int line)
{
    struct step *step = &steps->items[steps->count++];
    *step = (struct step){(enum step_kind)kind, slice_of(begin, 0), line};
    return step;
}

static enum oh_status refuse(struct oh_error *err, const struct embedded_file *file, int line,
                             const char *what)
{
    oh_fail(err, OH_INVALID, "%s:%d: %s", file->name, line, what);
    if (err)
        err->line = line;
    return OH_INVALID;
}

enum oh_status steps_read(const struct embedded_file *file, struct steps *out, struct oh_error *err)
{
    const char *end = file->text + file->len;
    int number = 1;

    *out = (struct steps){.count = 0};
    struct step *step = add_step(out, STEP_TRANSACTION, file->text, 1);
    for (const char *at = file->text, *next; at < end; at = next, number++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        struct oh_slice line = slice_of(at, (size_t)((newline ? newline : end) - at));
        next = newline ? newline + 1 : end;
        if (!slice_has_prefix(line, slice_of(marker, sizeof(marker) - 1))) {
            step->text.len = (size_t)(next - step->text.data);
            continue;
        }
        int kind = read_kind(line);
        bool is_empty = out->count == 1 && step_skip_comments(step->text) == step->text.len &&
                        out->items[0].text.data == file->text;
        if (kind < 0)
            return refuse(err, file, number,
                          "a step is `transaction`, `concurrently` or `batches`");
        if (out->count == STEPS_MAX)
            return refuse(err, file, number, "too many steps");
        if (is_empty)
            out->count = 0; /* what stood before was comments */
        step = add_step(out, kind, next, number + 1);
    }
    return OH_OK;
}
