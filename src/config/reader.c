/* SPDX-License-Identifier: Apache-2.0 */
/* The file: bytes -> YAML nodes with lines, `${VAR}` from the environment, mistakes collected.
 *
 * `[${A}, b]` is how people write it, but `{` cannot stand in a plain scalar of YAML's flow style.
 * So before parsing, the braces of every `${NAME}` are masked by two private-use characters, and
 * variables are put in scalar by scalar afterwards: what the environment holds is never parsed. */
#include "config/loader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#define MASK_OPEN  "\xee\x80\x80" /* U+E000 for `{` */
#define MASK_CLOSE "\xee\x80\x81" /* U+E001 for `}` */
enum { MASK_BYTES = 3 };

/* ---- memory and mistakes ------------------------------------------------------------------- */

void *loader_alloc(struct loader *loader, size_t count, size_t bytes)
{
    void *p = calloc(count ? count : 1, bytes);
    if (!p)
        loader->no_memory = true;
    return p;
}

char *loader_copy(struct loader *loader, const char *text, size_t len)
{
    char *copy = loader_alloc(loader, len + 1, 1);
    if (copy)
        memcpy(copy, text, len);
    return copy;
}

void text_free_wiped(char *text)
{
    if (text)
        OPENSSL_cleanse(text, strlen(text));
    free(text);
}

void secret_free(struct secret *secret)
{
    char *bytes = (char *)secret->bytes.data; /* ours: made by loader_copy() */
    if (bytes)
        OPENSSL_cleanse(bytes, secret->bytes.len);
    free(bytes);
    secret->bytes = (struct oh_slice){NULL, 0};
}

void loader_mistake(struct loader *loader, int line, const char *format, ...)
{
    struct config_mistakes *all = loader->mistakes;
    if (all->count == CONFIG_MISTAKES_MAX)
        return;
    struct config_mistake *items = realloc(all->items, (all->count + 1) * sizeof(*items));
    if (!items) {
        loader->no_memory = true;
        return;
    }
    all->items = items;
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int made = vasprintf(&text, format, args);
    va_end(args);
    if (made < 0) {
        loader->no_memory = true;
        return;
    }
    items[all->count++] = (struct config_mistake){.line = line, .text = text};
}

/* ---- bytes --------------------------------------------------------------------------------- */

/* Length of the name that begins at `s`; 0 = none. */
static size_t variable_name_length(const char *s, const char *end)
{
    const char *p = s;
    while (p < end && ((*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z') || *p == '_' ||
                       (p > s && *p >= '0' && *p <= '9')))
        p++;
    return (size_t)(p - s);
}

/* The text with `${NAME}` masked. */
static char *mask_variables(struct loader *loader, const char *text, size_t len, size_t *out_len)
{
    char *out = loader_alloc(loader, len * 2 + 1, 1); /* `${A}` grows from 4 bytes to 8 */
    if (!out)
        return NULL;
    const char *end = text + len;
    char *to = out;
    for (const char *p = text; p < end;) {
        size_t name =
            end - p > 3 && p[0] == '$' && p[1] == '{' ? variable_name_length(p + 2, end) : 0;
        if (name == 0 || p + 2 + name >= end || p[2 + name] != '}') {
            *to++ = *p++;
            continue;
        }
        *to++ = '$';
        memcpy(to, MASK_OPEN, MASK_BYTES);
        memcpy(to + MASK_BYTES, p + 2, name);
        memcpy(to + MASK_BYTES + name, MASK_CLOSE, MASK_BYTES);
        to += MASK_BYTES + name + MASK_BYTES;
        p += name + 3;
    }
    *out_len = (size_t)(to - out);
    return out;
}

void loader_unmask(char *text, size_t *len)
{
    char *to = text;
    const char *end = text + *len;
    for (const char *p = text; p < end;) {
        bool open = end - p >= MASK_BYTES && memcmp(p, MASK_OPEN, MASK_BYTES) == 0;
        bool close = end - p >= MASK_BYTES && memcmp(p, MASK_CLOSE, MASK_BYTES) == 0;
        *to++ = open ? '{' : close ? '}' : *p;
        p += open || close ? MASK_BYTES : 1;
    }
    *to = 0;
    *len = (size_t)(to - text);
}

/* Reads at most `max` bytes of a regular file. Returns NULL, or what is wrong. */
static const char *read_whole_file(struct loader *loader, const char *path, size_t max, char **text,
                                   size_t *len)
{
    const char *wrong = NULL;
    char *bytes = NULL;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return strerror(errno);
    if (fstat(fd, &st) < 0) {
        wrong = strerror(errno);
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        wrong = "not a regular file";
        goto out;
    }
    bytes = loader_alloc(loader, max + 1, 1);
    if (!bytes) {
        wrong = "out of memory";
        goto out;
    }
    size_t have = 0;
    while (have <= max) {
        ssize_t n = read(fd, bytes + have, max + 1 - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            wrong = strerror(errno);
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    if (!wrong && have > max)
        wrong = "larger than any such file should be";
    if (wrong) {
        OPENSSL_cleanse(bytes, max + 1);
        goto out;
    }
    bytes[have] = 0;
    *text = bytes;
    *len = have;
    bytes = NULL;
out:
    free(bytes);
    close(fd);
    return wrong;
}

const char *secret_read_file(struct loader *loader, const char *path, struct secret *secret)
{
    char *text = NULL;
    size_t len = 0;
    const char *wrong = read_whole_file(loader, path, CONFIG_SECRET_BYTES_MAX, &text, &len);
    if (wrong)
        return wrong;
    if (len > 0 && text[len - 1] == '\n')
        len--;
    if (len > 0 && text[len - 1] == '\r')
        len--;
    if (len > 0)
        secret->bytes = (struct oh_slice){loader_copy(loader, text, len), len};
    OPENSSL_cleanse(text, CONFIG_SECRET_BYTES_MAX);
    free(text);
    return len > 0 ? NULL : "the file is empty";
}

/* ---- paths --------------------------------------------------------------------------------- */

char *loader_resolve_path(struct loader *loader, const char *path)
{
    size_t directory = path[0] == '/' ? 0 : strlen(loader->directory);
    char *full = loader_alloc(loader, directory + strlen(path) + 1, 1);
    if (!full)
        return NULL;
    if (directory)
        memcpy(full, loader->directory, directory);
    memcpy(full + directory, path, strlen(path));
    return full;
}

void loader_note_file(struct loader *loader, enum config_file_kind kind, const char *path, int line)
{
    struct config *config = loader->config;
    for (size_t i = 0; i < config->file_count; i++)
        if (config->files[i].kind == kind && strcmp(config->files[i].path, path) == 0)
            return;
    struct config_file *files = realloc(config->files, (config->file_count + 1) * sizeof(*files));
    char *copy = loader_copy(loader, path, strlen(path));
    if (files)
        config->files = files;
    if (!files || !copy) {
        loader->no_memory = true;
        free(copy);
        return;
    }
    files[config->file_count++] = (struct config_file){.kind = kind, .path = copy, .line = line};
}

/* ---- YAML ---------------------------------------------------------------------------------- */

bool loader_open(struct loader *loader, const char *path)
{
    const char *slash = strrchr(path, '/');
    loader->directory = loader_copy(loader, path, slash ? (size_t)(slash - path) + 1 : 0);
    if (!loader->directory)
        return false;
    char *text = NULL;
    size_t len = 0;
    const char *wrong = read_whole_file(loader, path, YAML_BYTES_MAX / 2, &text, &len);
    if (wrong) {
        loader_mistake(loader, 0, "cannot be read: %s", wrong);
        return false;
    }
    loader->text = mask_variables(loader, text, len, &loader->len);
    OPENSSL_cleanse(text, len);
    free(text);
    if (!loader->text)
        return false;
    struct oh_error err = {.line = 0};
    enum oh_status status = yaml_open(&loader->yaml, loader->text, loader->len, &err);
    if (status == OH_NO_MEMORY)
        loader->no_memory = true;
    else if (status != OH_OK) /* the parser's texts speak of YAML's grammar, never of content */
        loader_mistake(loader, err.line, "%s", err.text);
    return status == OH_OK;
}

void loader_close(struct loader *loader)
{
    yaml_close(&loader->yaml);
    text_free_wiped(loader->text);
    free(loader->directory);
}

/* ---- scalars ------------------------------------------------------------------------------- */

/* Text that grows; the old bytes are wiped, they may be part of a secret. */
struct growing {
    char *text;
    size_t len, size;
};

static bool growing_add(struct loader *loader, struct growing *g, const char *bytes, size_t len)
{
    if (g->len + len + 1 > g->size) {
        size_t size = (g->len + len + 1) * 2;
        char *text = loader_alloc(loader, size, 1);
        if (!text)
            return false;
        if (g->text) {
            memcpy(text, g->text, g->len);
            OPENSSL_cleanse(g->text, g->size);
            free(g->text);
        }
        g->text = text;
        g->size = size;
    }
    memcpy(g->text + g->len, bytes, len);
    g->len += len;
    g->text[g->len] = 0;
    return true;
}

/* Adds the variable whose masked name begins at `p`; returns what follows it, NULL when not set. */
static const char *expand_one(struct loader *loader, const char *name, int line, const char *p,
                              const char *end, struct growing *out)
{
    char variable[256];
    size_t len = variable_name_length(p, end);
    if (len >= sizeof(variable)) {
        loader_mistake(loader, line, "%s: the name of an environment variable is too long", name);
        return NULL;
    }
    memcpy(variable, p, len);
    variable[len] = 0;
    const char *set = getenv(variable);
    if (!set) {
        loader_mistake(loader, line, "%s: the environment variable %s is not set", name, variable);
        return NULL;
    }
    return growing_add(loader, out, set, strlen(set)) ? p + len + MASK_BYTES : NULL;
}

/* `${NAME}` becomes the variable, `$${` a literal `${`. */
static bool expand(struct loader *loader, const char *name, int line, const char *text, size_t len,
                   struct growing *out)
{
    static const char masked[] = "$" MASK_OPEN, escaped[] = "$$" MASK_OPEN;
    const char *end = text + len;
    bool fine = growing_add(loader, out, "", 0);
    for (const char *p = text; fine && p < end;) {
        size_t left = (size_t)(end - p);
        if (left >= 5 && memcmp(p, escaped, 5) == 0) {
            size_t n = variable_name_length(p + 5, end);
            fine = growing_add(loader, out, "${", 2) && growing_add(loader, out, p + 5, n) &&
                   growing_add(loader, out, "}", 1);
            p += 5 + n + MASK_BYTES;
        } else if (left >= 4 && memcmp(p, masked, 4) == 0) {
            p = expand_one(loader, name, line, p + 4, end, out);
            fine = p != NULL;
        } else if (left >= 3 && memcmp(p, "$${", 3) == 0) {
            fine = growing_add(loader, out, "${", 2);
            p += 3;
        } else if (left >= 2 && memcmp(p, "${", 2) == 0) {
            loader_mistake(loader, line,
                           "%s: \"${\" without a variable's name and \"}\" "
                           "(\"$${\" stands for itself)",
                           name);
            fine = false;
        } else {
            fine = growing_add(loader, out, p++, 1);
        }
    }
    return fine;
}

bool value_read(struct loader *loader, const char *name, struct fy_node *node, int line,
                struct value *value)
{
    *value = (struct value){.line = yaml_line(node, line)};
    struct oh_slice text = yaml_text(node);
    if (!text.data) {
        loader_mistake(loader, value->line, "%s %s", name,
                       node && !fy_node_is_scalar(node) ? "must be one value, not a list or a block"
                                                        : "has no value");
        return false;
    }
    struct growing out = {0};
    bool fine = expand(loader, name, value->line, text.data, text.len, &out);
    value->in_clear = !memmem(text.data, text.len, "$" MASK_OPEN, 1 + MASK_BYTES);
    value->text = out.text;
    value->len = out.len;
    if (!fine)
        value_free(value);
    return fine;
}

void value_free(struct value *value)
{
    if (value->text)
        OPENSSL_cleanse(value->text, value->len);
    free(value->text);
    *value = (struct value){0};
}

/* ---- recipes inside the file ---------------------------------------------------------------- */

/* Where line `line` (from 1) begins in the text. */
static size_t line_offset(const struct loader *loader, int line)
{
    size_t at = 0;
    for (int n = 1; n < line && at < loader->len; n++) {
        const char *newline = memchr(loader->text + at, '\n', loader->len - at);
        at = newline ? (size_t)(newline - loader->text) + 1 : loader->len;
    }
    return at;
}

/* Where the line with the dash of a block sequence's entry begins; `line` is its first scalar's. */
static size_t entry_offset(const struct loader *loader, int line)
{
    for (;; line--) {
        size_t at = line_offset(loader, line);
        size_t indent = strspn(loader->text + at, " ");
        if (line <= 1 || loader->text[at + indent] == '-')
            return at;
    }
}

/* Where the key after `providers` begins, or the file's end. */
static size_t recipes_end(const struct loader *loader)
{
    void *at = NULL;
    bool found = false;
    struct fy_node_pair *pair;
    while ((pair = fy_node_mapping_iterate(loader->yaml.root, &at))) {
        if (found)
            return line_offset(loader, yaml_line(fy_node_pair_key(pair), 1));
        found = fy_node_pair_value(pair) == loader->recipes;
    }
    return loader->len;
}

static char *pad_lines(struct loader *loader, int lines, const char *text, size_t len,
                       size_t *out_len)
{
    char *out = loader_alloc(loader, (size_t)lines + len + 1, 1);
    if (!out)
        return NULL;
    memset(out, '\n', (size_t)lines);
    memcpy(out + lines, text, len);
    *out_len = (size_t)lines + len;
    loader_unmask(out, out_len);
    return out;
}

char *loader_recipe_text(struct loader *loader, int index, size_t *len)
{
    struct fy_node *entry = fy_node_sequence_get_by_index(loader->recipes, index);
    int line = yaml_line(entry, 1);
    bool block = fy_node_get_style(loader->recipes) == FYNS_BLOCK &&
                 fy_node_get_style(loader->yaml.root) == FYNS_BLOCK;
    if (!block) {
        char *text = fy_emit_node_to_string(entry, FYECF_MODE_FLOW_ONELINE | FYECF_WIDTH_INF);
        char *out = text ? pad_lines(loader, line - 1, text, strlen(text), len) : NULL;
        free(text);
        return out;
    }
    size_t begin = entry_offset(loader, line);
    struct fy_node *next = fy_node_sequence_get_by_index(loader->recipes, index + 1);
    size_t end = next ? entry_offset(loader, yaml_line(next, 1)) : recipes_end(loader);
    int lines = 0;
    for (size_t i = 0; i < begin; i++)
        lines += loader->text[i] == '\n';
    char *out = pad_lines(loader, lines, loader->text + begin, end - begin, len);
    if (out) { /* the dash gives way to a space, so that the entry's lines keep their columns */
        size_t dash = (size_t)lines + strspn(out + lines, " ");
        if (out[dash] == '-')
            out[dash] = ' ';
    }
    return out;
}
